// The page is complete without this: contents open at the side, choice among claims, tables that sort, details in print.
"use strict";
const wide = matchMedia("(min-width: 72rem)");
const contents = document.querySelector("#contents details");
const follow = () => { contents.open = wide.matches; };
follow();
wide.addEventListener("change", follow);

// Each matrix has its own verdict; the architecture is chosen for the whole page, wherever it is chosen.
const models = [...document.querySelectorAll("[data-filter=model]")];
const choose = () => {
  const model = models.length ? models[0].value : "";
  const isOther = part => model !== "" && !part.dataset.models.split(" ").includes(model);
  for (const claims of document.querySelectorAll(".claims")) {
    const verdict = claims.querySelector("[data-filter=verdict]").value, all = claims.querySelector("input");
    if (verdict && all) all.checked = true;
    for (const group of claims.querySelectorAll("tbody"))
      for (const line of group.rows) line.hidden = isOther(group) || (verdict !== "" && line.dataset.verdict !== verdict);
  }
  for (const part of document.querySelectorAll("main > section[data-models], nav li[data-models]")) part.hidden = isOther(part);
};
for (const filter of document.querySelectorAll("[data-filter]")) {
  filter.closest(".choice").hidden = false;
  filter.addEventListener("change", () => {
    if (models.includes(filter)) for (const other of models) other.value = filter.value;
    choose();
  });
}

// Of a cell: its first number, in bytes or seconds where it has such a unit, or its words.
const UNITS = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, s: 1, min: 60, h: 3600 };
const key = cell => {
  const text = cell ? cell.textContent.trim() : "", plain = text.replaceAll("−", "-").replaceAll(",", "");
  const parts = [...plain.matchAll(/(\d+(?:\.\d+)?) (B|kB|MB|GB|s|min|h)\b/g)], number = plain.match(/^\+?(-?\d+(\.\d+)?)/);
  if (number && parts.length) return parts.reduce((sum, [, value, unit]) => sum + value * UNITS[unit], 0);
  return number ? Number(number[1]) : text === "–" || text === "" ? null : text;
};
// Numbers come before words, and what is missing stays last either way.
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
for (const table of document.querySelectorAll("main table:not(.matrix)")) {
  const body = table.tBodies[0], head = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
  if (!head || body.rows.length < 3 || body.querySelector("[rowspan], [colspan]")) continue;
  if (body.rows[0].cells.length !== head.cells.length) continue;
  [...head.cells].forEach((cell, column) => {
    if (cell.colSpan > 1 || !cell.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map(line => [key(line.cells[column]), line]);
      keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b));
      body.append(...keyed.map(([, line]) => line));
    });
  });
}

const closed = [];
addEventListener("beforeprint", () => {
  closed.push(...document.querySelectorAll("main details:not([open])"));
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed.splice(0)) part.open = false; });

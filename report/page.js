// The page is complete without this: contents open at the side, choice among claims, tables that sort, details in print.
"use strict";
const wide = matchMedia("(min-width: 72rem)");
const contents = document.querySelector("#contents details");
const follow = () => { contents.open = wide.matches; };
follow();
wide.addEventListener("change", follow);

for (const claims of document.querySelectorAll(".claims")) {
  const filters = [...claims.querySelectorAll("select")], all = claims.querySelector("input");
  if (!filters.length) continue;
  filters[0].closest(".choice").hidden = false;
  const choose = () => {
    const { verdict, model } = Object.fromEntries(filters.map(filter => [filter.dataset.filter, filter.value]));
    if (verdict && all) all.checked = true;
    for (const group of claims.querySelectorAll("tbody")) {
      const other = model && !group.dataset.models.split(" ").includes(model);
      for (const line of group.rows) line.hidden = other || (verdict && line.dataset.verdict !== verdict);
    }
    for (const part of document.querySelectorAll("main > section[data-models], nav li[data-models]"))
      part.hidden = model && !part.dataset.models.split(" ").includes(model);
  };
  filters.forEach(filter => filter.addEventListener("change", choose));
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
  // Columns are counted from the right: cells of a first line of the head may reach down into the last one.
  const columns = body.rows[0].cells.length;
  if (body.rows[0].cells.length < head.cells.length) continue;
  [...head.cells].forEach((cell, index) => {
    if (cell.colSpan > 1 || !cell.textContent.trim()) return;
    const column = columns - head.cells.length + index, button = document.createElement("button");
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

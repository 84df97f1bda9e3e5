"""The page as a reader meets it: on a desk and on a phone, in light and dark, on paper, by keyboard and by ear.

Rules of accessibility are those of axe-core (https://github.com/dequelabs/axe-core, MPL-2.0), all of them. The page is
the demo's, of tables of every kind with the numbers of runs that nobody has made.
"""

import base64
import copy
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import Browser
from conftest import ROOT, missing_program
from page_helpers import measured, written_page

from diffusionblocks.base.components import load
from diffusionblocks.base.files import write_json
from diffusionblocks.plan.plan import Plan

pytestmark = pytest.mark.slow

AXE = "axe-core@4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"  # of its axe.min.js
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusionblocks"
TABLES = ["table1", "table2", "table4", "table6", "table7", "memory", "table_a4"]  # of every kind, and the widest
PAPER = 718  # pixels of A4 between margins of a centimetre


def made_up(row, seed, dice):
    """metrics.json of a row of the demo's plan, of numbers that are cast."""
    evaluation, metrics, curves = row.evaluation(), {}, {}
    texts, images = row.kind == "text", bool(row.sample_sets) and row.kind != "text"
    for column, section in evaluation["metrics"].items():
        about = load("metric", section["name"]).about
        if about.figure:
            values = sorted(dice.uniform(5, 90, 4), reverse=about.better == "lower")
            from_target = section.get("sampling", {}).get("from_target", False)
            curves[column] = {"figure": about.figure, "from_target": from_target, "value": values}
            curves[column] |= {"sigma": [80.0, 5.0, 0.4, 0.002], "block": [0, 1, 2, 2]}
        else:
            value = dice.uniform(55, 60) if about.unit == "%" else dice.uniform(2, 2.3)
            metrics[column] = {**section, "value": value, "samples": 360, "unit": about.unit, "better": about.better}
            metrics[column] |= {"beside": about.beside, "over_sets": about.over_sets}
            metrics[column]["sampling"] = section.get("sampling") or {}
    found = measured(row.name, seed=seed, blocks=len(row.parts), colour=(90, 140, 200)[: 1 + 2 * (seed % 2)], **metrics)
    found |= {"run": row.run(seed), "curves": curves}
    if texts:
        found["samples"] = {"texts": [["we the people", " of the union " * 9], ["fellow citizens", "the state " * 9]]}
    elif not images:
        found["samples"] = None
    if row.counted:
        found = {key: value for key, value in found.items() if key not in ("partition", "samples")}
        found |= {"parts": {}, "samples": None, "sampling": []}
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The file of the page."""
    folder, dice = tmp_path_factory.mktemp("audited"), np.random.default_rng(0)
    plan = Plan.of({**yaml.safe_load((ROOT / "config.yaml").read_text()), "select": TABLES})
    for row in plan.rows.values():
        for seed in row.seeds:
            write_json(folder / row.folder / f"seed{seed}/metrics.json", made_up(row, seed, dice))
    for name in plan.tables:
        about = copy.deepcopy(plan.written[f"tables/{name}"])
        for entry in about["rows"].values():
            entry["metrics"] = [str(folder / file) for file in entry["metrics"]]
        (folder / f"{name}.json").write_text(json.dumps(about))  # rows in their order
    written_page(folder, *(folder / f"{name}.json" for name in plan.tables))
    return folder / "report.html"


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core, which npm has fetched once."""
    file = CACHE / "node_modules/axe-core/axe.min.js"
    if not file.exists():
        missing_program(f"no axe-core found; fetch it with: npm install --prefix {CACHE} {AXE}", "REQUIRE_BROWSER")
    text = file.read_bytes()
    assert hashlib.sha256(text).hexdigest() == SHA256, f"{file}: is not that of {AXE}"
    return text.decode()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


OPENED = "document.querySelectorAll('details').forEach(found => { found.open = true })"
NAMED = """const named = found => found.closest('[id]')?.id + ' > ' + found.tagName.toLowerCase()
    + [...found.classList].map(name => '.' + name).join('') + ' ' + found.textContent.trim().slice(0, 30);"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_breaks_no_rule_of_axe(browser, page, axe, width, dark):
    """With all details open. In the dark only the rules of colours are tried again."""
    browser.open(page, width, dark=dark)
    browser.run(OPENED)
    browser.run(axe + "; true")
    rules = "runOnly: ['color-contrast', 'link-in-text-block']," if dark else ""
    found = browser.run(f"axe.run(document, {{{rules} resultTypes: ['violations']}}).then(found => found.violations)")
    assert not found, "\n".join(_violation(rule) for rule in found)
    assert not browser.complaints()


def _violation(rule):
    """A broken rule in words, with the first places."""
    places = [f"  {node['target'][0]}: {node['html'][:160]}\n    {_why(node)}" for node in rule["nodes"][:4]]
    return "\n".join([f"{rule['id']} ({rule['impact']}), {len(rule['nodes'])} places: {rule['help']}", *places])


def _why(node):
    return "; ".join(check["message"] for check in [*node["any"], *node["all"], *node["none"]])


LETTERS = (
    NAMED
    + """
const colour = text => { const found = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    return found.length < 4 ? [...found, 1] : found };
const light = ([red, green, blue]) => [red, green, blue].map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
const ground = found => { for (; found; found = found.parentElement) {
    const here = colour(getComputedStyle(found).backgroundColor);
    if (here[3] == 1) return here } return [255, 255, 255, 1] };
const seen = [...document.querySelectorAll('svg text')].filter(found => found.getBoundingClientRect().width > 0);
const low = seen.map(found => {
    const style = getComputedStyle(found), below = ground(found.closest('svg')), fill = colour(style.fill);
    const [most, least] = [light(over(fill, below)), light(below)].sort((a, b) => b - a);
    return [(most + 0.05) / (least + 0.05), named(found), style.fill];
}).filter(([contrast]) => contrast < 4.5);
return {seen: seen.length, low};"""
)


@pytest.mark.parametrize("dark", [False, True])
def test_letters_of_figures_can_be_read(browser, page, dark):
    """axe-core looks at no letters of an SVG: their contrast with what lies below the drawing."""
    browser.open(page, 1280, dark=dark)
    browser.run(OPENED)
    found = browser.run(f"(() => {{ {LETTERS} }})()")
    assert found["seen"] > 50 and not found["low"], found["low"][:8]


WIDE = (
    NAMED
    + """
const edge = innerWidth, boxed = found => { for (found = found.parentElement; found; found = found.parentElement)
    if (getComputedStyle(found).overflowX != 'visible') return true; return false };
const wide = [...document.body.querySelectorAll('*')].filter(found => found.getBoundingClientRect().right > edge + 1)
    .filter(found => !boxed(found));
return {width: edge, page: document.documentElement.scrollWidth, wide: wide.slice(0, 8).map(named)};"""
)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_but_boxes_of_their_own_scroll_sideways(browser, page, width):
    browser.open(page, width)
    for opened in (False, True):
        if opened:
            browser.run(OPENED)
        found = browser.run(f"(() => {{ {WIDE} }})()")
        assert found["width"] == width and found["page"] <= width and not found["wide"], (opened, found)


PRINTED = (
    NAMED
    + """
dispatchEvent(new Event('beforeprint'));
const cut = [...document.body.querySelectorAll('table, figure, svg, pre, img')]
    .filter(found => found.checkVisibility() && found.getBoundingClientRect().right > innerWidth + 1);
const closed = [...document.querySelectorAll('details')]
    .filter(found => found.checkVisibility() && !found.lastElementChild.checkVisibility());
return {tables: document.querySelectorAll('table').length, cut: cut.map(named), closed: closed.map(named),
    row: getComputedStyle(document.querySelector('.matrix tbody tr')).display};"""
)


def test_on_paper_nothing_is_cut_and_nothing_closed(browser, page):
    browser.open(page, PAPER)
    browser.media("print")
    found = browser.run(f"(() => {{ {PRINTED} }})()")
    assert found["tables"] > len(TABLES) and not found["cut"], found["cut"][:8]
    assert not found["closed"], found["closed"][:8]
    assert found["row"] == "table-row", "lines, and not a phone's cards, however narrow the paper"
    pdf = browser.send("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)["data"]
    assert len(re.findall(rb"/Type /Page\b", base64.b64decode(pdf))) > 5


def test_an_architecture_is_chosen_for_the_whole_page_wherever_it_is_chosen(browser, page):
    browser.open(page, 1280)
    choose = """{const all = [...document.querySelectorAll('[data-filter=model]')], found = all.at(%s);
        found.value = '%s'; found.dispatchEvent(new Event('change'));
        [all.map(one => one.value), [...document.querySelectorAll('main [data-models]')]
            .filter(one => (one.rows ? [...one.rows].every(line => line.hidden) : one.hidden))
            .every(one => !one.dataset.models.split(' ').includes('%s')),
         document.querySelectorAll('main > section[hidden]').length]}"""
    values, right, hidden = browser.run(choose % (-1, "vit", "vit"))
    assert len(values) > 1 and set(values) == {"vit"} and right and hidden
    values, right, hidden = browser.run(choose % (0, "", "vit"))
    assert set(values) == {""} and not hidden, "the other matrix has no say any more"


def test_the_page_is_used_by_keyboard(browser, page):
    """Tab goes through links and controls from the page's head, and whatever has the focus shows it."""
    browser.open(page, 1280)
    order = []
    for _ in range(40):
        for kind in ("rawKeyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        order.append(browser.run(FOCUSED))
    browser.run("document.querySelector('main summary').focus()")  # as by Tab, since that was the last key
    order.append(browser.run(FOCUSED))
    assert all(found["shown"] for found in order), [found for found in order if not found["shown"]][:5]
    assert order[0]["what"] == "a" and order[-1]["what"] == "summary" and len({str(found) for found in order}) > 20


FOCUSED = """(() => { const found = document.activeElement, style = getComputedStyle(found);
return {what: found.tagName.toLowerCase(), text: found.textContent.trim().slice(0, 30),
    shown: found != document.body && (style.outlineStyle != 'none' || style.boxShadow != 'none')} })()"""

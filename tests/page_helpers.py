"""Tables as planning would hand them to the page, with metrics of runs that nobody has trained."""

import base64
import html
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import shipped

from diffusionblocks.base.files import write_json
from diffusionblocks.page.figures import figures, groups
from diffusionblocks.page.page import page, section
from diffusionblocks.page.results import Results
from diffusionblocks.page.table import table
from diffusionblocks.plan.source import PACKAGE

TEMPLATE = PACKAGE.parent / "report/page.html.jinja"

IMAGES = {
    "title": "Images",
    "source": "Table 2",
    "data": "digits",
    "metrics": {"fid_test": {"better": "lower"}},
    "rows": {"a": {"fid_test": 40.0}, "b": {"fid_test": 30.0, "against": "a"}},
}

NOPROP = {
    "title": "NoProp",
    "source": "Table 6",
    "data": "digits",
    "metrics": {"accuracy": {"unit": "%", "better": "higher"}, "loss": {"better": "lower"}},
    "properties": {"continuous": "continuous time", "blockwise": "block <i>wise</i>"},
    "rows": {
        "dt": {"accuracy": 46.06, "continuous": False, "blockwise": True},
        "ct": {
            "accuracy": 21.31,
            "continuous": True,
            "blockwise": False,
            "elsewhere": {"accuracy": {"value": 33.99, "source": "NoProp's <u>own</u> paper"}},
        },
        "untrained": {"accuracy": 1.0},
    },
}

# What metrics.json says of a number beside its value, by column.
DECLARED = {
    "accuracy": {"name": "accuracy", "unit": "%"},
    "accuracy_4_steps": {"name": "accuracy", "unit": "%", "sampling": {"num_steps": 4}},
    "fid_test": {"name": "fid", "better": "lower", "reference": "test", "over_sets": "least"},
    "fid_train": {"name": "fid", "better": "lower", "reference": "train"},
    "kid": {"name": "kid", "better": "lower", "beside": True},
    "mauve": {"name": "mauve"},
    "mauve_c5": {"name": "mauve", "scaling_factor": 5.0},
    "ppl": {"name": "generative_perplexity", "better": "lower"},
    "relative_speed": {"name": "relative_speed", "unit": "×", "beside": True},
    "training_seconds": {"name": "training_seconds", "unit": "s", "better": None, "beside": True},
}


def of_the_paper() -> dict[str, dict]:
    """{table: {paper: what the paper prints of it, claims: what it claims}} of all its tables of results."""
    written = {name: about for name, about in shipped().written.items() if name.startswith("tables/")}
    return {
        name.removeprefix("tables/"): {key: about[key] for key in ("paper", "claims")}
        for name, about in written.items()
    }


def number(column: str, value: float, **settings) -> dict:
    """A number of metrics.json."""
    common = {"unit": "", "better": "higher", "beside": False, "over_sets": "mean", "samples": 360, "sampling": {}}
    return {**common, **DECLARED[column], "value": value, **settings}


def curve(figure: str | None, value: list[float], from_target: bool = False) -> dict:
    """A curve of metrics.json, over two steps."""
    about = {"figure": figure, "from_target": from_target}
    return {"sigma": [0.75, 0.25][: len(value)], "block": [0, 1][: len(value)], "value": value, **about}


def measured(
    row="plain", *, seed=0, blocks=1, title="digits", colour=(7,), loss=1.0, attempts=("aaa",), method=None, **values
) -> dict:
    """What metrics.json holds of a run that has generated two images of one colour.

    values: {column: value or number}.
    """
    images = np.broadcast_to(np.array(colour, np.uint8).reshape(1, -1, 1, 1), (2, len(colour), 4, 4)).copy()
    packed = {"shape": images.shape, "zlib": base64.b64encode(zlib.compress(images.tobytes())).decode()}
    job = {"seconds": 1.0, "node": "here", "hardware": "cpu", "versions": {"torch": "2"}}
    jobs = [{**job, "commit": commit} for commit in attempts]
    run = {"scale": "demo", "table": "t", "row": row, "seed": seed, "model": {"name": "dit"}}
    return {
        "run": {**run, "method": method or {"name": "end_to_end"}},
        "data": {"title": title},
        "metrics": {name: value if isinstance(value, dict) else number(name, value) for name, value in values.items()},
        "curves": {},
        "samples": {"steps": [[80.0, 0], [0.002, blocks - 1]], "images": packed, "trajectory": packed},
        "parameters": 10,
        "partition": {
            "boundaries": [80.0, *[0.5**block for block in range(blocks - 1)], 0.002],
            "intervals": [[1.0, 80.0], *[[0.002, 1.0]] * (blocks - 1)],
            "mass": [1 / blocks] * blocks,
            "noise": {"p_mean": -1.2, "p_std": 1.2},
            "layers": [[block, block + 1] for block in range(blocks)],
        },
        "parts": {"block0": {"losses": {"0": [[1, loss], [2, loss / 2]]}, "attempts": jobs, "seconds": 1.0}},
        "sampling": [{**jobs[-1], "seconds": 2.0}],
        "evaluation": {**jobs[-1], "seconds": 3.0},
    }


def plan(
    folder: Path,
    rows: dict[str, list[dict] | dict],
    paper=None,
    *,
    name="table1",
    claims=(),
    figures=(),
    title="Ours",
    depth=(),
    cross_checks=(),
) -> Path:
    """Write `<table>.json` and the metrics that it names.

    rows: {row: metrics of each seed, or {metrics, remark, ...}}.
    """
    entries = {}
    for row, about in rows.items():
        entry = {"run": f"{name}/{row}", "paper_row": row, "against": None, "remark": None, "series": "ours"}
        entry |= about if isinstance(about, dict) else {"metrics": about}
        files = [folder / f"{name}-{row}-{seed}.json" for seed in range(len(entry["metrics"]))]
        for file, metrics in zip(files, entry["metrics"], strict=True):
            write_json(file, metrics)
        entries[row] = {**entry, "metrics": [str(file) for file in files]}
    about = {"table": name, "title": title, "scale": "demo", "paper": paper, "claims": list(claims)}
    about |= {"depth": list(depth), "cross_checks": dict(cross_checks)}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**about, "figures": list(figures), "rows": entries}))  # rows in their order
    return path


def written(row="a", text="x", prompts=("we the people", "fellow citizens"), **curves) -> dict:
    """What metrics.json holds of a run of texts: two samples after one prompt each, and its curves."""
    samples = {"texts": [[prompts[0], text], [prompts[1], text + "s"]]}
    return {**measured(row, blocks=2, fid_test=5.0), "samples": samples, "curves": curves}


def shown_section(folder: Path, rows: dict, paper=IMAGES, **about) -> dict:
    """What the page shows of a table, by the names that the template has for it."""
    path = plan(folder, rows, paper, **about)
    table(path, path.with_suffix(".csv"))
    results = Results(path)
    return section(results, pd.read_csv(path.with_suffix(".csv")), groups(results))


class _Lines(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.lines, self.open = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.lines[-1][-1] += data


def lines_of(page: str, number: int = 0) -> list[list[str]]:
    """The texts of the cells of a table of results on a page, one list per line. number: of all such tables."""
    table = page.split('<table class="results">')[1 + number]
    return [[" ".join(cell.split()) for cell in line] for line in _Lines(table[: table.index("</table>")]).lines]


def words_of(page: str) -> str:
    """What a reader sees of a page, in one line: its text without tags, with the characters that they stand for."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page[page.index("<body>") :])).split())


def headings(part: dict) -> dict[str, str]:
    """{heading: what is said in words of its figure} of a section."""
    return {figure["heading"]: figure["alt"] for figure in part["figures"]}


def written_page(folder: Path, *plans: Path, estimate=()) -> str:
    """The page of some tables, whose csv files are written too, beside the plans."""
    for path in plans:
        table(path, path.with_suffix(".csv"))
        figures(path, path.with_suffix(".figures"))
    made = ([path.with_suffix(suffix) for path in plans] for suffix in (".csv", ".figures"))
    page(plans, *made, TEMPLATE, folder / "report.html", estimate)
    return (folder / "report.html").read_text()

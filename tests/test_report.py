"""What the page shows of a table, and what its figures draw from metrics.json."""

import base64
import html
import math
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from diffusionblocks.base.files import write_json
from diffusionblocks.page import figures
from diffusionblocks.page.page import report, section, verdict
from diffusionblocks.page.table import table
from diffusionblocks.plan.source import PACKAGE


def run(row, blocks=1, title="digits", colour=(7,), loss=1.0, **values):
    """What metrics.json holds of a run that has generated two images of one colour."""
    images = np.broadcast_to(np.array(colour, np.uint8).reshape(1, -1, 1, 1), (2, len(colour), 4, 4)).copy()
    packed = {"shape": images.shape, "zlib": base64.b64encode(zlib.compress(images.tobytes())).decode()}
    return {
        "run": {"table": "t", "row": row, "seed": 0},
        "data": {"title": title},
        "metrics": {name: {"value": value} for name, value in values.items()},
        "curves": {},
        "samples": {"steps": [[80.0, 0], [0.002, blocks - 1]], "images": packed, "trajectory": packed},
        "parameters": 10,
        "partition": {
            "boundaries": [80.0, 1.0, 0.002] if blocks == 2 else [80.0, 0.002],
            "intervals": [[1.0, 80.0], [0.002, 1.0]][:blocks],
            "mass": [1 / blocks] * blocks,
            "noise": {"p_mean": -1.2, "p_std": 1.2},
            "layers": [[0, 1], [1, 2]][:blocks],
        },
        "parts": {"block0": {"losses": {"0": [[1, loss], [2, loss / 2]]}, "attempts": [], "seconds": 1.0}},
        "sampling": [{"seconds": 2.0}],
        "evaluation": {"seconds": 3.0},
    }


def shown(name, rows, metric="fid_test"):
    """The page's section of a table in which one metric is printed by the paper, and `kid` is not."""
    lines = [
        {"table": name, "title": "t", "row": row, "run": f"{name}/{row}", "metric": column, "better": better,
         "ours": value, "paper": 40.0 if better == "lower" else math.nan, "against": None, "std": math.nan,
         "properties": None, "remark": None}
        for row, runs in rows.items()
        for column, better, value in ((metric, "lower", runs[0]["metrics"][metric]["value"]), ("kid", math.nan, 3.0))
    ]  # fmt: skip
    return section(pd.DataFrame(lines), {f"{name}/{row}": runs for row, runs in rows.items()}, {})


def pictures(part):
    """{heading: alternative texts of its figures}."""
    return {group["heading"]: [alt for alt, _ in group["images"]] for group in part["figures"]}


def test_what_the_paper_does_not_print_has_a_table_of_its_own():
    part = shown("table2", {row: [run(row, fid_test=5.0)] for row in ("a", "b")})
    names, rows = part["more"]
    assert names == ["kid"] and {row: found["kid"]["ours"] for row, found in rows.items()} == {"a": 3.0, "b": 3.0}
    assert [line["metric"] for line in part["rows"]["a"]] == ["fid_test"]


def test_every_job_is_listed():
    jobs = shown("table2", {"a": [run("a", fid_test=5.0)]})["jobs"]
    assert [(job["part"], job["seconds"]) for job in jobs] == [("block0", 1), ("sampling 0", 2), ("evaluation", 3)]


def test_rows_on_one_data_set_share_pictures_and_rows_of_one_partition_share_a_figure():
    rows = {"a": run("a", fid_test=5.0), "b": run("b", 2, fid_test=6.0), "c": run("c", title="clothes", fid_test=7.0)}
    found = pictures(shown("table2", {row: [metrics] for row, metrics in rows.items()}))
    assert found["Generated images"] == ["Images generated from digits", "Images generated from clothes"]
    assert found["One image on its way from noise"] == ["An image's way, digits", "An image's way, clothes"]
    assert found["Noise partition"] == ["Noise partition of b", "Noise partition of a, c"]
    assert len(found["Training loss per block"]) == 3 and "Accuracy along the chain of blocks" not in found


def test_a_run_that_generates_nothing_has_no_pictures():
    found = pictures(shown("table2", {"a": [{**run("a", fid_test=5.0), "samples": None}]}))
    assert list(found) == ["Training loss per block", "Noise partition"]


@pytest.mark.parametrize(
    ("metric", "rows", "there"),
    [
        ("fid_test", ["b1", "b2"], True),
        ("fid_test", ["b2", "b3"], False),
        ("fid_test", ["b1", "blocks"], False),
        ("mauve", ["b2", "b3"], True),
        ("mauve", ["b2", "b3_calibrated"], False),
        ("accuracy", ["b1", "b2"], False),
    ],
)
def test_which_tables_show_quality_against_the_number_of_blocks(metric, rows, there):
    part = shown("table_a2", {row: [run(row, **{metric: 5.0})] for row in rows}, metric)
    expected = [f"{metric} against the number of blocks, Table A2"] if there else None
    assert pictures(part).get("Quality against the number of blocks") == expected


@pytest.mark.parametrize(("factor", "word"), [(3, "held"), (4, "did not hold")])
def test_a_claim_about_something_counted_goes_by_the_ratio(factor, word):
    lines = [{"metric": "training_layers", "row": row, "ours": ours, "better": math.nan} for row, ours in
             (("one_pass", 10.0), ("many", 35.0))]  # fmt: skip
    claim = {"metric": "training_layers", "row": "one_pass", "against": "many", "factor": factor}
    found = verdict(claim, pd.DataFrame(lines))
    assert found["verdict"] == word and found["ratio"] == 3.5


# The whole page


class Cells(HTMLParser):
    """The cells of the first table on a page, one list per line: (text, attributes)."""

    def __init__(self, page):
        super().__init__()
        self.lines, self.cell = [], None
        self.feed(page[page.index("<table>") : page.index("</table>")])
        self.lines = [[("".join(words).split(), about) for words, about in line] for line in self.lines]
        self.lines = [[(" ".join(words), about) for words, about in line] for line in self.lines]

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.cell = []
            self.lines[-1].append((self.cell, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)


REMARK = 'Codes of <b>two</b> & "more" bits'
NOPROP = {
    "title": "NoProp",
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


@pytest.fixture
def page(tmp_path):
    """page(paper): the page of a table with two trained rows, the second with a remark, and a printed one."""

    def page(paper, remarks):
        metrics = run("dt")
        job = {"seconds": 1.0, "node": "here", "commit": "abc", "hardware": "cpu", "versions": {"torch": "2"}}
        metrics["run"]["scale"], metrics["samples"], metrics["sampling"], metrics["evaluation"] = "demo", None, [], job
        metrics["parts"]["block0"]["attempts"] = [job]
        metrics["metrics"] = {"accuracy": {"name": "accuracy", "value": 40.0, "samples": 9}}
        write_json(tmp_path / "metrics.json", metrics)
        trained = {"run": "t/dt", "metrics": [str(tmp_path / "metrics.json")]}
        rows = {row: {**trained, "remark": remarks.get(row)} for row in ("dt", "ct")}
        rows["dt_longer"] = {**trained, "paper_row": "dt", "remark": remarks.get("dt_longer")}
        (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"table6": paper}, sort_keys=False))
        (tmp_path / "claims.yaml").write_text("{}")
        table("table6", rows, tmp_path / "paper.yaml", tmp_path / "table6.csv")
        arguments = [tmp_path / "table6.csv"], [tmp_path / "metrics.json"], PACKAGE.parent / "report/page.html.jinja"
        report(*arguments, tmp_path / "claims.yaml", tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return page


def test_properties_are_columns_of_the_page(page):
    head, *lines = Cells(page(NOPROP, {})).lines
    assert [text for text, _ in head[:4]] == ["row", "continuous time", "block <i>wise</i>", "metric"]
    assert [about.get("class") for _, about in head[:4]] == [None, "property", "property", None]
    first = {line[0][0]: line for line in lines if line[0][0]}
    found = {row: [text for text, _ in line[1:3]] for row, line in first.items()}
    assert found == {"dt": ["no", "yes"], "ct": ["yes", "no"], "untrained": ["", ""], "dt_longer": ["no", "yes"]}
    assert all(about == {"class": "property", "rowspan": "2"} for line in first.values() for _, about in line[1:3])
    # The cells that span two lines are missing from the second: all lines have as many columns as the head.
    assert {len(line) for line in lines[0::2]} == {len(head)} and {len(line) for line in lines[1::2]} == {len(head) - 3}
    assert [line[0][0] or line[1][0] for line in lines[:2]] == ["dt", "loss"]


def test_a_table_without_properties_has_no_such_columns(page):
    made = page({key: value for key, value in NOPROP.items() if key != "properties"}, {})
    head, *lines = Cells(made).lines
    assert [text for text, _ in head[:3]] == ["row", "metric", "paper"]
    assert {len(line) for line in lines[0::2]} == {len(head)} and 'class="property"' not in made


def test_a_number_printed_elsewhere_stands_in_the_papers_cell(page):
    made = page(NOPROP, {})
    _, *lines = Cells(made).lines
    printed = {line[0][0]: line[4] for line in lines if line[0][0]}
    assert {row: text for row, (text, _) in printed.items()} == {
        "dt": "46.06",
        "ct": "21.31 33.99 in NoProp's <u>own</u> paper",
        "untrained": "1.00",
        "dt_longer": "46.06",
    }
    assert made.count('<small class="elsewhere">') == 1 and "<u>" not in made


def test_remarks_are_listed_under_the_table(page):
    made = page(NOPROP, {"ct": REMARK, "dt_longer": "Trained longer."})
    after = made[made.index("</table>") :]
    listed = after[after.index('<ul class="remarks') : after.index("</ul>")]
    items = [item.split("</li>")[0] for item in listed.split("<li>")[1:]]
    assert [html.unescape(item) for item in items] == [f"ct: {REMARK}", "dt_longer: Trained longer."]
    assert "<b>two" not in made and "<i>wise" not in made
    assert "</div>" in after[: after.index("<ul")], "outside what scrolls sideways, so that a phone breaks its lines"


def test_a_table_without_remarks_has_no_list(page):
    made = page(NOPROP, {"ct": None, "dt": ""})
    assert '<ul class="remarks' not in made


def test_what_is_printed_and_not_trained_keeps_its_note(page):
    made = page(NOPROP, {"ct": REMARK})
    _, *lines = Cells(made).lines
    notes = {line[0][0]: line[-1][0] for line in lines if line[0][0]}
    assert notes["untrained"] == "not part of this workflow yet" and notes["ct"] == "as in the paper"


def test_properties_and_sources_break_their_lines():
    """Cells do not, as a rule; a source on one line would push all columns after it off a laptop's screen."""
    style = (PACKAGE.parent / "report/style.css").read_text()
    rules = dict(re.findall(r"^([^{}/@]+) \{ (.*?) \}$", style, re.MULTILINE))
    assert "overflow-x: auto" in rules[".scroll"] and "text-align: center" in rules["th.property, td.property"]
    assert all("white-space: normal" in rules[name] for name in ("th.property, td.property", ".elsewhere"))


# What is drawn


@pytest.fixture
def drawn(monkeypatch):
    """Figures come back as they are, before they are written as SVG."""
    monkeypatch.setattr(figures, "_svg", lambda figure: figure)
    yield
    figures.plt.close("all")


def colours(figure):
    """Shape and colour of each picture in a figure, as they are painted."""
    pictures = [image for axes in figure.axes for image in axes.images]
    painted = [(picture, picture.to_rgba(picture.get_array(), bytes=True)) for picture in pictures]
    return [(picture.get_array().shape[:2], tuple(rgba[0, 0, :3].tolist())) for picture, rgba in painted]


def test_images_are_drawn_in_grey_and_in_colour(drawn):
    rows = {"grey": run("grey", colour=(7,)), "rgb": run("rgb", 2, colour=(10, 20, 30))}
    assert colours(figures.samples(rows)) == [((4, 8), (7, 7, 7)), ((4, 8), (10, 20, 30))], "a strip of two per row"
    way = figures.trajectory(rows)
    assert colours(way) == [((4, 4), (7, 7, 7))] * 2 + [((4, 4), (10, 20, 30))] * 2, "a picture per step"
    labels = [(axes.get_title(loc="center"), axes.get_xlabel()) for axes in way.axes]
    assert labels == [("80", "0"), ("0.002", "0"), ("80", "0"), ("0.002", "1")]


@pytest.mark.parametrize("relative", [True, False])
def test_quality_against_the_number_of_blocks(drawn, relative):
    ours, paper = {"ours": {1: [4.0, 6.0], 3: [10.0]}, "louder": {1: [2.0], 3: [3.0]}}, {1: 40.0, 3: 50.0, 6: 60.0}
    (axes,) = figures.block_count("title", "FID", ours, paper, relative).axes
    lines = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}
    base = (5.0, 2.0, 40.0) if relative else (1.0, 1.0, 1.0)
    assert lines["ours"] == {1: 5 / base[0], 3: 10 / base[0]} and lines["louder"] == {1: 2 / base[1], 3: 3 / base[1]}
    assert lines["paper"] == {1: 40 / base[2], 3: 50 / base[2], 6: 60 / base[2]}


def written(row, text, curve="bpc_by_level"):
    """What metrics.json holds of a run of texts: two samples after one prompt each, and a curve."""
    curves = {curve: {"sigma": [0.25, 0.75], "block": [1, 0], "value": [2.0, 4.0]}}
    samples = {"texts": [["we the people", text], ["fellow citizens", text + "s"]]}
    return {**run(row, 2, fid_test=5.0), "samples": samples, "curves": curves}


def test_texts_of_all_rows_stand_under_their_prompt():
    part = shown("table4", {row: [written(row, f"{row} word")] for row in ("a", "b")})
    assert part["texts"] == [
        ("we the people", {"a": "a word", "b": "b word"}),
        ("fellow citizens", {"a": "a words", "b": "b words"}),
    ]
    assert "Generated images" not in pictures(part)


def test_curves_of_text_models_have_figures_of_their_own():
    found = pictures(shown("table3", {"a": [written("a", "x")], "b": [written("b", "x", "loss_chain")]}))
    assert found["What each masking rate costs"] == ["Bits per character by masking rate, a"]
    assert found["Cross-entropy of the next token along the chain"] == ["Cross-entropy along the chain, b"]


def test_each_masking_rate_is_drawn_in_the_colour_of_its_block(drawn):
    (axes,) = figures.likelihood("title", [written("a", "x")], [written("b", "x")]).axes
    bars = {round(bar.get_x() + bar.get_width() / 2, 2): bar for bar in axes.patches}
    assert {t: bar.get_height() for t, bar in bars.items()} == {0.25: 2.0, 0.75: 4.0}
    assert bars[0.25].get_facecolor() != bars[0.75].get_facecolor()
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [2.0, 4.0]


def test_a_masking_rate_is_drawn_as_uniform(drawn):
    masked = {"boundaries": [1.0, 0.5, 0.0], "intervals": [[0.45, 1.0], [0.0, 0.55]], "mass": [0.5, 0.5],
              "noise": {}, "layers": [[0, 1], [1, 2]]}  # fmt: skip
    (axes,) = figures.partition("title", masked).axes
    assert axes.get_xscale() == "linear" and axes.get_xlabel() == "masking rate t"
    assert set(axes.lines[0].get_ydata()) == {1.0}


@pytest.mark.parametrize(
    ("lowest", "scale", "limits"), [(0.5, "linear", (0, 2.1)), (0.001, "log", (0.0005 / 1.2, 2.4))]
)
def test_losses_of_all_rows_share_an_axis(drawn, lowest, scale, limits):
    """Its limits come from the rows together; it is logarithmic where a row would lie on it otherwise."""
    rows = {"high": [run("high", loss=2.0)], "low": [run("low", loss=lowest)]}
    assert figures.loss_limits(rows.values()) == (lowest / 2, 2.0)
    for row, runs in rows.items():
        (axes,) = figures.losses(row, runs, figures.loss_limits(rows.values())).axes
        assert axes.get_yscale() == scale and axes.get_ylim() == pytest.approx(limits)

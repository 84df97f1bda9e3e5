"""What the page shows of a table, and what its figures draw from metrics.json."""

import copy
import html
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from page_helpers import curve, measured, number, plan, written_page

from diffusionblocks.page import canvas, figures, groups, pictures
from diffusionblocks.page.claims import verdict
from diffusionblocks.page.page import duration, in_bytes, section
from diffusionblocks.page.page import number as as_number
from diffusionblocks.page.results import Results
from diffusionblocks.page.table import table
from diffusionblocks.plan.source import PACKAGE

PRINTED = {
    "title": "Images",
    "source": "Table 2",
    "data": "digits",
    "metrics": {"fid_test": {"better": "lower"}},
    "rows": {"a": {"fid_test": 40.0}, "b": {"fid_test": 30.0, "against": "a"}},
}


@pytest.fixture
def shown(tmp_path):
    """shown(rows, paper): the page's section of a table."""

    def shown(rows, paper=PRINTED, **about):
        path = plan(tmp_path, rows, paper, **about)
        table(path, tmp_path / "table.csv")
        return section(Results(path), pd.read_csv(tmp_path / "table.csv"))

    return shown


def headings(part):
    """{heading: alternative texts of its figures}."""
    return {group["heading"]: [alt for alt, _ in group["images"]] for group in part["figures"]}


def test_what_stands_beside_has_a_table_of_its_own(shown):
    rows = {row: [measured(row, fid_test=5.0, kid=3.0, training_seconds=7.0)] for row in ("a", "b")}
    part = shown(rows)
    units, more = part["more"]
    assert units == {"kid": "", "training_seconds": "s"}
    assert {row: found["kid"]["ours"] for row, found in more.items()} == {"a": 3.0, "b": 3.0}
    assert [line["metric"] for line in part["rows"]["a"]] == ["fid_test"]


def test_every_job_is_listed(shown):
    jobs = shown({"a": [measured("a", fid_test=5.0)]})["jobs"]
    assert [(job["part"], job["seconds"]) for job in jobs] == [("block0", 1), ("sampling 0", 2), ("evaluation", 3)]


def test_rows_on_one_data_set_share_pictures_and_rows_of_one_partition_share_a_figure(shown):
    rows = {"a": measured("a"), "b": measured("b", blocks=2), "c": measured("c", title="clothes")}
    found = headings(shown({row: [metrics] for row, metrics in rows.items()}))
    assert found["Generated images"] == ["Images generated from digits", "Images generated from clothes"]
    assert found["One image on its way from noise"] == ["An image's way, digits", "An image's way, clothes"]
    assert found["Noise partition"] == ["Noise partition of a, c", "Noise partition of b"]
    assert len(found["Training loss per block"]) == 3 and "Accuracy along the chain of blocks" not in found


def test_a_run_that_generates_nothing_has_no_pictures(shown):
    found = headings(shown({"a": [{**measured("a", fid_test=5.0), "samples": None}]}))
    assert list(found) == ["Training loss per block", "Noise partition"]


def test_pictures_take_the_whole_width(shown):
    part = shown({"a": [measured("a", fid_test=5.0)]})
    wide = {group["heading"]: group["wide"] for group in part["figures"]}
    assert wide == {
        "Generated images": True,
        "One image on its way from noise": True,
        "Training loss per block": False,
        "Noise partition": False,
    }
    assert part["figures"][0]["images"][0][1].startswith("data:image/svg+xml;base64,")


# Quality against the number of blocks


BLOCKS = {
    **PRINTED,
    "metrics": {"fid_test": {"better": "lower"}, "mauve": {"better": "higher"}, "relative_speed": {"better": "higher"}},
    "rows": {f"b{count}": {"fid_test": 40.0, "mauve": 0.5, "relative_speed": count} for count in (1, 2, 3)},
}


@pytest.fixture
def block_counts(monkeypatch, shown):
    """block_counts(counts, ...): how often a table's figure of block counts is drawn, and from what."""

    def block_counts(counts, column="fid_test", paper=BLOCKS, asked=("block_count",), **about):
        drawn = []
        monkeypatch.setattr(figures, "block_count", lambda *arguments: drawn.append(arguments) or "<svg/>")
        rows = {}
        for row, count in counts.items():
            run = measured(row, blocks=count, **{column: 5.0 + count, "fid_train": 9.0, "relative_speed": 1.0 * count})
            rows[row] = {"metrics": [run], "series": row.partition("_")[2] or "ours"}
        part = shown(rows, paper, figures=asked, **about)
        assert len(headings(part).get("Quality against the number of blocks", [])) == len(drawn)
        return drawn

    return block_counts


def test_the_number_of_blocks_is_the_runs_whatever_a_row_is_called(block_counts):
    drawn = block_counts({"b1": 1, "b6": 2})
    assert drawn == [
        (
            "fid_test, lower is better",
            "relative to one block",
            {"ours": {1: [6.0], 2: [7.0]}},
            {1: 40.0},
            True,
        )
    ], "once, and neither of what is not printed nor of a description"


def test_without_one_block_values_are_as_they_are(block_counts):
    (drawn,) = block_counts({"b2": 2, "b3": 3}, "mauve")
    assert drawn == ("mauve, higher is better", "mauve", {"ours": {2: [7.0], 3: [8.0]}}, {2: 0.5, 3: 0.5}, False)


def test_series_are_the_rows_own(block_counts):
    ((_, _, ours, paper, _),) = block_counts({"b2": 2, "b3": 3, "b3_calibrated": 3})
    assert ours == {"ours": {2: [7.0], 3: [8.0]}, "calibrated": {3: [8.0]}} and paper == {2: 40.0, 3: 40.0}


@pytest.mark.parametrize(
    ("counts", "asked"), [({"b1": 1, "b2": 2}, ()), ({"b2": 2, "b3_calibrated": 3}, ("block_count",))]
)
def test_no_such_figure_where_none_is_asked_for_or_no_line_has_two_points(block_counts, counts, asked):
    assert block_counts(counts, asked=asked) == []


def test_a_table_of_ones_own_has_the_figure_too(block_counts):
    drawn = block_counts({"one": 1, "two": 2}, paper=None)
    assert [(title, ylabel, *others) for title, ylabel, _, *others in drawn] == [
        ("fid_test, lower is better", "fid_test", {}, False),
        ("fid_train, lower is better", "fid_train", {}, False),
    ]


@pytest.mark.parametrize(("method", "count"), [({"num_blocks": 4}, 4), ({}, 1)])
def test_a_run_without_noise_has_the_blocks_of_its_method(shown, monkeypatch, method, count):
    runs = {row: measured(row, fid_test=5.0, method={"name": "x"} | about) for row, about in (("a", method), ("b", {}))}
    for run in runs.values():
        del run["partition"]
    drawn = []
    monkeypatch.setattr(figures, "block_count", lambda *arguments: drawn.append(arguments[2]) or "<svg/>")
    shown({row: [run] for row, run in runs.items()}, figures=["block_count"])
    assert drawn == ([] if count == 1 else [{"ours": {4: [5.0], 1: [5.0]}}])


# Claims


@pytest.mark.parametrize(("factor", "word"), [(3, "held"), (4, "did not hold")])
def test_a_claim_about_something_counted_goes_by_the_ratio(factor, word):
    lines = [{"metric": "training_layers", "row": row, "ours": ours, "better": math.nan} for row, ours in
             (("one_pass", 10.0), ("many", 35.0))]  # fmt: skip
    claim = {"metric": "training_layers", "row": "one_pass", "against": "many", "factor": factor}
    found = verdict(claim, pd.DataFrame(lines))
    assert found["verdict"] == word and found["ratio"] == 3.5


def cells(ours, other, std=(1.0, 1.0), seeds=(4, 4), better="higher"):
    lines = [
        {"row": row, "metric": "accuracy", "ours": value, "std": s, "seeds": n, "better": better, "stand_in": stand_in}
        for row, value, s, n, stand_in in zip(("a", "b"), (ours, other), std, seeds, ("x for y", math.nan), strict=True)
    ]
    return pd.DataFrame(lines)


CLAIM = {"text": "a is at most 2 worse than b", "metric": "accuracy", "row": "a", "against": "b", "margin": -2}
# Two standard errors of the difference, with deviation 1 and 4 seeds each: 2 sqrt(1/4 + 1/4) = 1.414.


@pytest.mark.parametrize(
    ("ours", "other", "word"),
    [
        (90.0, 90.0, "held"),
        (89.5, 90.0, "held"),
        (89.3, 90.0, "undecided"),
        (88.0, 90.0, "undecided"),
        (86.6, 90.0, "undecided"),
        (86.5, 90.0, "did not hold"),
        (math.nan, 90.0, "not measured"),
        (90.0, math.nan, "not measured"),
    ],
)
def test_verdict_over_seeds(ours, other, word):
    found = verdict(CLAIM, cells(ours, other))
    assert found["verdict"] == word and found["text"] == CLAIM["text"]
    if word != "not measured":
        assert found["difference"] == pytest.approx(ours - other)
        assert found["error"] == pytest.approx(math.sqrt(2)) and found["stand_in"] == "x for y"


@pytest.mark.parametrize("ours", [99.0, 80.0])
def test_one_seed_decides_nothing(ours):
    found = verdict(CLAIM, cells(ours, 90.0, std=(math.nan, math.nan), seeds=(1, 1)))
    assert (found["verdict"], found["error"], found["seeds"]) == ("undecided", None, 1)


def test_claim_about_a_row_that_is_not_there():
    frame = cells(90.0, 90.0)
    assert verdict(CLAIM, frame[frame["row"] != CLAIM["row"]])["verdict"] == "not measured"


def test_verdict_counts_the_smaller_number_of_seeds():
    assert verdict(CLAIM, cells(90.0, 90.0, seeds=(2, 5)))["seeds"] == 2


def test_verdict_where_lower_is_better():
    claim = {**CLAIM, "margin": 1}  # better by at least 1, so lower by at least 1
    assert verdict(claim, cells(10.0, 13.0, better="lower"))["verdict"] == "held"
    assert verdict(claim, cells(13.0, 10.0, better="lower"))["verdict"] == "did not hold"
    assert verdict(claim, cells(12.4, 13.0, better="lower"))["verdict"] == "undecided", "two standard errors are 1.41"
    assert verdict(claim, cells(10.0, 13.0, better="lower"))["difference"] == pytest.approx(-3.0)


# Numbers


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.005,), "1.00"),
        ((-1.256,), "−1.26"),
        ((1.256, 1, True), "+1.3"),
        ((-1.0, 2, True), "−1.00"),
        ((7, 0), "7"),
        ((None,), "–"),
        ((math.nan,), "–"),
        ((math.nan, 2, True), "–"),
    ],
)
def test_numbers_of_the_page(arguments, text):
    assert as_number(*arguments) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (42_120_000, "42.1 MB"), (5e12, "5000 GB")],
)
def test_bytes(value, text):
    assert in_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (9_000, "2 h 30 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


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


@pytest.fixture
def page(tmp_path):
    """page(paper, remarks): the page of a table with two trained rows, the second with a remark, and a printed one."""

    def page(paper, remarks):
        rows = {row: {"metrics": [measured(accuracy=40.0)], "remark": remarks.get(row)} for row in ("dt", "ct")}
        rows["dt_longer"] = {**rows["dt"], "paper_row": "dt", "remark": remarks.get("dt_longer")}
        return written_page(tmp_path, plan(tmp_path, rows, paper, name="table6"))

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


def test_a_table_of_the_paper_is_named_as_there(page):
    made = page(NOPROP, {})
    assert "<h2>Table 6</h2>" in made and "In the paper: NoProp." in made and "<h1>DiffusionBlocks, reproduced" in made


# A table of one's own


OWN = {"a": {"metrics": [measured("a", accuracy=40.0, training_seconds=9.0)], "remark": "Longer."},
       "b": {"metrics": [measured("b", blocks=2, title="clothes", accuracy=42.5)], "against": "a"}}  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """A page with one table of one's own alone: its text."""
    return written_page(tmp_path, plan(tmp_path, OWN, name="mixers", title="Mixers & others", figures=["block_count"]))


def test_a_table_of_ones_own_is_never_called_the_papers(own):
    assert "<h1>Measured with DiffusionBlocks</h1>" in own and "<h2>Mixers &amp; others</h2>" in own
    body = own[own.index("<body>") :]
    assert not re.search(r"paper|Table [\dA]|arxiv|[Ss]tand-in|What held|reproduced", body)
    assert "Quality against the number of blocks" in own
    head, *lines = Cells(own).lines
    assert [text for text, _ in head] == ["row", "metric", "measured", "seeds", "gap", "data"]
    assert [[text for text, _ in line] for line in lines] == [
        ["a", "accuracy (%)", "40.00", "1", "–", "digits"],
        ["b", "accuracy (%)", "42.50", "1", "+2.50", "clothes"],
    ]
    assert "training_seconds (s)" in own and "a: Longer." in own


def test_beside_tables_of_the_paper_it_keeps_its_title(tmp_path):
    printed = plan(tmp_path, {"dt": [measured("dt", title="clothes", accuracy=40.0)]}, NOPROP, name="table6")
    made = written_page(tmp_path, printed, plan(tmp_path, OWN, name="mixers", title="Mixers"))
    assert re.findall("<h2>(.*?)</h2>", made) == ["Table 6", "Mixers", "Provenance"]
    assert made.count("In the paper:") == 1 and "clothes for digits. Compare" in " ".join(made.split())


def test_numbers_that_stand_beside_fill_a_table_that_would_be_empty(shown):
    part = shown({"a": [measured("a", kid=3.0, training_seconds=1.0)]}, None)
    assert [line["metric"] for line in part["rows"]["a"]] == ["kid", "training_seconds"] and part["more"] == ({}, {})


# What is drawn


@pytest.fixture
def drawn(monkeypatch):
    """Figures come back as they are, before they are written as SVG."""
    monkeypatch.setattr(canvas, "svg", lambda figure: figure)
    yield
    canvas.plt.close("all")


def colours(figure):
    """Shape and colour of each picture in a figure, as they are painted."""
    images = [image for axes in figure.axes for image in axes.images]
    painted = [(picture, picture.to_rgba(picture.get_array(), bytes=True)) for picture in images]
    return [(picture.get_array().shape[:2], tuple(rgba[0, 0, :3].tolist())) for picture, rgba in painted]


def test_images_are_drawn_in_grey_and_in_colour(drawn):
    rows = {"grey": measured("grey", colour=(7,)), "rgb": measured("rgb", blocks=2, colour=(10, 20, 30))}
    assert colours(pictures.samples(rows)) == [((4, 8), (7, 7, 7)), ((4, 8), (10, 20, 30))], "a strip of two per row"
    way = pictures.trajectory(rows)
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


def test_a_line_without_one_block_is_relative_to_the_first_that_has_it(drawn):
    ours = {"ours": {1: [4.0], 3: [8.0]}, "louder": {3: [2.0]}}
    (axes,) = figures.block_count("title", "FID", ours, {1: 40.0, 3: 50.0}, True).axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines}["louder"] == [0.5]


def test_without_printed_numbers_no_line_is_the_papers(drawn):
    (axes,) = figures.block_count("title", "accuracy", {"ours": {1: [4.0], 3: [8.0]}}, {}, False).axes
    assert [line.get_label() for line in axes.lines] == ["ours"] and axes.get_xticks().tolist() == [1, 3]


def written(row, text="x", prompts=("we the people", "fellow citizens"), **curves):
    """What metrics.json holds of a run of texts: two samples after one prompt each, and its curves."""
    samples = {"texts": [[prompts[0], text], [prompts[1], text + "s"]]}
    return {**measured(row, blocks=2, fid_test=5.0), "samples": samples, "curves": curves}


def test_texts_of_all_rows_stand_under_their_prompt(shown):
    part = shown({row: [written(row, f"{row} word")] for row in ("a", "b")})
    assert part["texts"] == [
        ("we the people", {"a": "a word", "b": "b word"}),
        ("fellow citizens", {"a": "a words", "b": "b words"}),
    ]
    assert "Generated images" not in headings(part)


def test_texts_without_a_prompt_are_numbered(tmp_path, shown):
    rows = {row: [written(row, f"{row} word", ("", ""))] for row in ("a", "b")}
    assert shown(rows)["texts"] == [(None, {"a": "a word", "b": "b word"}), (None, {"a": "a words", "b": "b words"})]
    made = written_page(tmp_path, plan(tmp_path, rows, PRINTED))
    assert "<summary>Sample 1</summary>" in made and "<summary>Sample 2</summary>" in made
    assert "the same prompts" not in made


# Curves: their metric says which figure draws them


def test_curves_are_drawn_by_the_figure_that_their_metric_names(shown):
    rows = {
        "a": [written("a", any_name=curve("likelihood", [2.0, 4.0]))],
        "b": [written("b", other_name=curve("loss_chain", [2.0, 4.0]))],
        "c": [written("c", chain=curve("accuracy_chain", [50.0, 60.0]), loss_chain=curve("my_figure", [1.0]))],
        "d": [written("d", bpc_by_level=curve(None, [1.0, 2.0]))],
    }
    found = headings(shown(rows))
    assert found["What each masking rate costs"] == ["Bits per character by masking rate, a"]
    assert found["Cross-entropy of the next token along the chain"] == ["Cross-entropy along the chain, b"]
    assert found["Accuracy along the chain of blocks"] == ["Accuracy along the chain, c"]
    assert found["Other curves"] == ["loss_chain of c", "bpc_by_level of d"], "what names no figure of the page"


@pytest.fixture
def chains(monkeypatch, shown):
    """chains(rows): what the figures of chains are drawn from."""

    def chains(rows, **about):
        drawn = []
        monkeypatch.setattr(figures, "chain", lambda *arguments: drawn.append(arguments) or "<svg/>")
        shown(rows, **about)
        return drawn

    return chains


def test_a_chain_is_compared_with_the_metric_that_the_other_row_has_in_its_place(chains):
    """By the name of the metric, not of its column; the plainest where there are several."""
    plain = [
        measured("a", seed=seed, better_known=number("accuracy", 90.0 + seed), accuracy_4_steps=10.0) for seed in (0, 2)
    ]
    along, from_target = curve("accuracy_chain", [50.0, 60.0]), curve("accuracy_chain", [70.0, 99.0], from_target=True)
    ((title, _, lines, baseline, most),) = chains({"a": plain, "b": [written("b", x=along, y=from_target)]})
    assert (title, baseline, most) == ("b", 91.0, 100)
    assert lines == {"along the chain": [along], "from the true target": [from_target]}


def test_chains_of_other_steps_have_a_panel_of_their_own(chains):
    long, short = curve("loss_chain", [5.0, 6.0]), curve("loss_chain", [7.0])
    drawn = chains({"b": [written("b", all_steps=long, again=copy.deepcopy(long), one_step=short)]})
    assert [(title, list(lines), baseline) for title, _, lines, baseline, _ in drawn] == [
        ("b", ["along the chain (again)", "along the chain (all_steps)"], None),
        ("b, one_step", ["along the chain"], None),
    ]


def test_a_chain_has_its_mean_its_range_and_a_dashed_line_from_the_target(drawn):
    curves = [curve("accuracy_chain", [50.0, 60.0]), curve("accuracy_chain", [60.0, 80.0])]
    lines = {"along the chain": curves, "from the true target": [curve("accuracy_chain", [90.0, 99.0], True)]}
    (axes,) = figures.chain("title", "accuracy", lines, 75.0, 100).axes
    found = {line.get_label(): (line.get_linestyle(), list(line.get_ydata())) for line in axes.lines}
    assert found == {
        "along the chain": ("-", [55.0, 70.0]),
        "from the true target": ("--", [90.0, 99.0]),
        "compared with": (":", [75.0, 75.0]),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["σ = 0.75\nblock 0", "σ = 0.25\nblock 1"]
    assert max(axes.get_yticks()) <= 100


def test_any_other_curve_is_drawn_over_its_steps(drawn):
    (axes,) = figures.curve("title", "mine", [curve(None, [1.0, 2.0]), curve(None, [3.0, 2.0])]).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2.0, 2.0]] and axes.get_ylabel() == "mine"


def test_every_figure_has_a_heading_of_its_own():
    found = [figure.heading for figure in groups.FIGURES]
    assert len(set(found)) == len(found) and all(figure.text.endswith(".") for figure in groups.FIGURES)


def test_each_masking_rate_is_drawn_in_the_colour_of_its_block(drawn):
    levels = {"sigma": [0.25, 0.75], "block": [1, 0], "value": [2.0, 4.0]}
    (axes,) = figures.likelihood("title", [levels], [levels]).axes
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
    rows = {"high": [measured("high", loss=2.0)], "low": [measured("low", loss=lowest)]}
    assert figures.loss_limits(rows.values()) == (lowest / 2, 2.0)
    for row, runs in rows.items():
        (axes,) = figures.losses(row, runs, figures.loss_limits(rows.values())).axes
        assert axes.get_yscale() == scale and axes.get_ylim() == pytest.approx(limits)

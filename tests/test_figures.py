"""Which figures a table has, and what they draw from metrics.json."""

import base64
import copy
import io
import json
import re
from functools import partial
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from page_helpers import IMAGES, TEMPLATE, curve, headings, measured, number, plan, shown_section, written, written_page
from PIL import Image

from diffusionblocks.page import canvas, figures, outcomes, pictures, plots
from diffusionblocks.page.results import Results


@pytest.fixture
def shown(tmp_path):
    """shown(rows, paper): the page's section of a table."""
    return partial(shown_section, tmp_path)


@pytest.fixture
def only(monkeypatch):
    """only(name, ...): no other figures are drawn."""
    return lambda *names: monkeypatch.setattr(figures, "FIGURES", [one for one in FIGURES if one.name in names])


FIGURES = figures.FIGURES


def test_a_table_has_one_figure_of_each_kind_for_all_its_rows(shown):
    rows = {"a": measured("a"), "b": measured("b", blocks=2), "c": measured("c", title="clothes")}
    found = headings(shown({row: [metrics] for row, metrics in rows.items()}))
    assert found == {
        "Generated images": "Ten images in the manner of digits: a, b. Ten images in the manner of clothes: c.",
        "One image on its way from noise": (
            "From noise to an image in the manner of digits: a, b. From noise to an image in the manner of clothes: c."
        ),
        "Training loss per block": (
            "a: whole network from 1 to 0.5; b: whole network from 1 to 0.5; c: whole network from 1 to 0.5."
        ),
        "Noise partition": "a; c: layers 1. b: layers 1, 2, each 50% of the draws.",
    }


def test_a_run_that_generates_nothing_has_no_pictures(shown):
    found = headings(shown({"a": [{**measured("a", fid_test=5.0), "samples": None}]}))
    assert list(found) == ["Training loss per block", "Noise partition"]


def test_rows_are_called_by_their_titles_and_never_two_the_same(shown):
    rows = {
        row: {"metrics": [measured(row)], "title": title} for row, title in (("a", "ViT"), ("b", "ViT"), ("c", "C"))
    }
    assert headings(shown(rows))["Generated images"] == "Ten images in the manner of digits: ViT (a), ViT (b), C."


def test_two_figures_of_a_table_are_open_its_result_and_its_chain(shown):
    chain, other = curve("accuracy_chain", [50.0, 60.0]), curve("loss_chain", [3.0, 2.0])
    rows = {row: [{**measured(row, blocks=2, fid_test=5.0), "curves": {"x": chain, "y": other}}] for row in "ab"}
    found = {figure["name"]: figure["open"] for figure in shown(rows)["figures"]}
    assert found == {
        "outcomes": True,
        "accuracy-chain": True,
        **dict.fromkeys(("loss-chain", "samples", "trajectory", "losses", "partition"), False),
    }


def test_panels_side_by_side_scroll_where_the_screen_is_narrow(tmp_path, shown):
    rows = {row: [measured(row, fid_test=5.0)] for row in "ab"}
    assert [figure["name"] for figure in shown(rows)["figures"] if figure["wide"]] == ["losses"]
    page = written_page(tmp_path, plan(tmp_path, rows, IMAGES))
    found = re.findall(r'<figure id="table1-(\S+)">\s*(?:<div class="(scroll)" tabindex="0">)?', page)
    assert found == [("outcomes", ""), ("samples", ""), ("trajectory", ""), ("losses", "scroll"), ("partition", "")]
    assert re.findall(r'<details class="figure"( open)?>', page) == [" open", " open", "", "", ""]


# What came out


@pytest.fixture
def compared(monkeypatch, shown, only):
    """compared(rows, paper): the groups of rows that the figure of outcomes is drawn from."""
    only("outcomes")

    def compared(rows, paper=IMAGES, **about):
        found = []
        monkeypatch.setattr(outcomes, "outcomes", lambda groups: found.extend(groups) or Figure())
        part = shown(rows, paper, **about)
        named = {"Measured, and in the paper", "Measured"} & {*headings(part)}
        assert named == ({"Measured, and in the paper" if paper else "Measured"} if found else set())
        return found

    return compared


def test_outcomes_stand_beside_the_papers(compared):
    seeds = [measured("b", seed=seed, fid_test=value, kid=1.0) for seed, value in ((0, 5.0), (1, 7.0))]
    (group,) = compared({"a": [measured("a", fid_test=9.0)], "b": seeds})
    assert group.title == "FID test (lower is better), digits"
    assert group.rows == {"a": ([9.0], 40.0), "b": ([5.0, 7.0], 30.0)}
    assert group.comparable and group.baseline == "a" and group.printed == "in the paper"


def test_what_was_measured_otherwise_has_an_axis_of_its_own(compared):
    """On other data, by another extractor, or on a clock; and rows on other data are no rows of one group."""
    rows = {row: [measured(row, fid_test=5.0, title="clothes")] for row in "ab"}
    (group,) = compared(rows)
    assert (group.comparable, group.printed) == (False, "in the paper, digits")
    clock = number("fid_test", 5.0, timed={"where": "here", "how": "once"})
    (group,) = compared({row: [measured(row, fid_test=clock)] for row in "ab"})
    assert not group.comparable
    rows = {row: [measured(row, fid_test=5.0, title=title)] for row, title in zip("abcd", "xxyy", strict=True)}
    assert [[*group.rows] for group in compared(rows)] == [["a", "b"], ["c", "d"]]


def test_one_row_is_compared_with_nothing(compared):
    assert compared({"a": [measured("a", fid_test=5.0)]}) == []


def test_a_table_of_ones_own_shows_all_but_what_stands_beside(compared):
    rows = {row: [measured(row, fid_test=5.0, mauve=0.5, kid=1.0)] for row in "ab"}
    assert [group.title for group in compared(rows, None)] == [
        "FID test (lower is better), digits",
        "MAUVE (higher is better), digits",
    ]


def test_where_rows_are_many_those_are_shown_that_the_paper_prints_or_compares_with(compared):
    paper = {**IMAGES, "rows": {f"p{i}": {"fid_test": 1.0, "against": "base"} for i in range(3)}}
    rows = {row: [measured(row, fid_test=5.0)] for row in ("base", *paper["rows"], *(f"o{i}" for i in range(30)))}
    (group,) = compared(rows, paper)
    assert [*group.rows] == ["base", "p0", "p1", "p2"]


def lines(axes):
    """{legend: (x, y)} of the lines of a plot."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.lines}


def test_outcomes_show_seeds_their_mean_its_interval_and_the_papers():
    rows = {"a": ([9.0], 40.0), "b": ([5.0, 7.0], None)}
    ours, paper = outcomes.outcomes([outcomes.Compared("FID", "in the paper", rows, False, "a")]).axes
    assert [text.get_text() for text in ours.texts] == ["a", "b"]
    seeds, means = (
        [line for line in ours.lines if line.get_label() == name] for name in ("a seed", "mean, 90% interval")
    )
    assert [list(line.get_xdata()) for line in seeds] == [[5.0, 7.0]]
    assert [list(line.get_xdata()) for line in means] == [[9.0], [6.0]]
    (bar,) = [segment for bars in ours.collections for segment in bars.get_segments()]
    assert bar[:, 0] == pytest.approx([6 - 6.3138, 6 + 6.3138], abs=1e-3), "Student's t of one degree of freedom"
    assert lines(ours)["compared with"][0] == [9.0, 9.0]
    assert lines(paper)["the paper"][0] == [40.0]


def test_what_was_measured_as_in_the_paper_shares_its_axis():
    (axes,) = outcomes.outcomes(
        [outcomes.Compared("FID", "", {"a": ([9.0], 40.0), "b": ([5.0], None)}, True, None)]
    ).axes
    found = lines(axes)
    assert found["the paper"][0] == [40.0] and found["measured here"][0] == [5.0], "of one seed there is no interval"


def test_a_value_without_end_is_left_out_and_the_rest_drawn():
    rows = {"a": ([float("inf"), 3.0], None), "b": ([5.0], None)}
    figure = outcomes.outcomes([outcomes.Compared("ppl", "", rows, True, None)])
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[3.0], [5.0]]
    assert "nan" not in canvas.svg(figure, "x").lower()
    figure = outcomes.block_counts({"ppl": ({"ours": {1: [2.0], 2: [float("inf")], 3: [4.0]}}, {}, False)})
    assert "nan" not in canvas.svg(figure, "x").lower()


# Quality against the number of blocks


BLOCKS = {
    **IMAGES,
    "metrics": {"fid_test": {"better": "lower"}, "mauve": {"better": "higher"}, "relative_speed": {"better": "higher"}},
    "rows": {f"b{count}": {"fid_test": 40.0, "mauve": 0.5, "relative_speed": count} for count in (1, 2, 3)},
}


@pytest.fixture
def block_counts(monkeypatch, shown, only):
    """block_counts(counts, ...): the panels of a table's figure of block counts, by metric."""
    only("block-count", "outcomes")

    def block_counts(counts, column="fid_test", paper=BLOCKS, asked=("block_count",), **about):
        drawn = {}
        monkeypatch.setattr(outcomes, "block_counts", lambda panels: drawn.update(panels) or Figure())
        rows = {}
        for row, count in counts.items():
            run = measured(row, blocks=count, **{column: 5.0 + count, "fid_train": 9.0, "relative_speed": 1.0 * count})
            rows[row] = {"metrics": [run], "series": row.partition("_")[2] or "ours"}
        part = shown(rows, paper, figures=asked, **about)
        names = [figure["name"] for figure in part["figures"]]
        assert ("block-count" in names) == bool(drawn) and ("outcomes" in names) == (not drawn and len(rows) > 1)
        return drawn

    return block_counts


def test_the_number_of_blocks_is_the_runs_whatever_a_row_is_called(block_counts):
    drawn = block_counts({"b1": 1, "b6": 2})
    assert drawn == {"FID test (lower is better)": ({"ours": {1: [6.0], 2: [7.0]}}, {1: 40.0}, True)}, (
        "neither of what is not printed nor of a description"
    )


def test_what_checks_a_metric_is_drawn_beside_it(block_counts):
    drawn = block_counts({"b1": 1, "b6": 2}, cross_checks={"fid_test": "fid_train"})
    assert drawn["FID train (lower is better)"] == ({"ours": {1: [9.0], 2: [9.0]}}, {}, False)
    assert [*drawn] == ["FID test (lower is better)", "FID train (lower is better)"]


def test_without_one_block_values_are_as_they_are(block_counts):
    (drawn,) = block_counts({"b2": 2, "b3": 3}, "mauve").values()
    assert drawn == ({"ours": {2: [7.0], 3: [8.0]}}, {2: 0.5, 3: 0.5}, False)


def test_series_are_the_rows_own(block_counts):
    ((ours, paper, _),) = block_counts({"b2": 2, "b3": 3, "b3_calibrated": 3}).values()
    assert ours == {"ours": {2: [7.0], 3: [8.0]}, "calibrated": {3: [8.0]}} and paper == {2: 40.0, 3: 40.0}


def test_of_two_rows_with_as_many_blocks_none_hides_the_other(block_counts):
    ((ours, _, _),) = block_counts({"b1": 1, "b2": 2, "wider": 2}).values()
    assert ours == {"ours": {1: [6.0], 2: [7.0]}, "wider": {2: [7.0]}}


@pytest.mark.parametrize(
    ("counts", "asked"), [({"b1": 1, "b2": 2}, ()), ({"b2": 2, "b3_calibrated": 3}, ("block_count",))]
)
def test_no_such_figure_where_none_is_asked_for_or_no_line_has_two_points(block_counts, counts, asked):
    assert block_counts(counts, asked=asked) == {}


def test_a_table_of_ones_own_has_the_figure_too(block_counts):
    drawn = block_counts({"one": 1, "two": 2}, paper=None)
    assert {metric: others for metric, (_, *others) in drawn.items()} == {
        "FID test (lower is better)": [{}, False],
        "FID train (lower is better)": [{}, False],
    }


@pytest.mark.parametrize(("method", "count"), [({"num_blocks": 4}, 4), ({}, 1)])
def test_a_run_without_noise_has_the_blocks_of_its_method(shown, monkeypatch, method, count):
    runs = {row: measured(row, fid_test=5.0, method={"name": "x"} | about) for row, about in (("a", method), ("b", {}))}
    for run in runs.values():
        del run["partition"]
    drawn = []
    monkeypatch.setattr(outcomes, "block_counts", lambda panels: drawn.extend(panels.values()) or Figure())
    shown({row: [run] for row, run in runs.items()}, figures=["block_count"])
    assert [ours for ours, *_ in drawn] == ([] if count == 1 else [{"ours": {4: [5.0], 1: [5.0]}}])


@pytest.mark.parametrize("relative", [True, False])
def test_quality_against_the_number_of_blocks(relative):
    ours, paper = {"ours": {1: [4.0, 6.0], 3: [10.0]}, "louder": {1: [2.0], 3: [3.0]}}, {1: 40.0, 3: 50.0, 6: 60.0}
    (axes,) = outcomes.block_counts({"FID": (ours, paper, relative)}).axes
    found = {name: dict(zip(*points, strict=True)) for name, points in lines(axes).items()}
    base = (5.0, 2.0, 40.0) if relative else (1.0, 1.0, 1.0)
    assert found["ours"] == {1: 5 / base[0], 3: 10 / base[0]} and found["louder"] == {1: 2 / base[1], 3: 3 / base[1]}
    assert found["the paper"] == {1: 40 / base[2], 3: 50 / base[2], 6: 60 / base[2]}
    low, high = axes.collections[0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 6.3138 / base[0], abs=1e-3)


def test_a_line_without_one_block_is_relative_to_the_first_that_has_it():
    ours = {"ours": {1: [4.0], 3: [8.0]}, "louder": {3: [2.0]}}
    (axes,) = outcomes.block_counts({"FID": (ours, {1: 40.0, 3: 50.0}, True)}).axes
    assert lines(axes)["louder"][1] == [0.5]


def test_without_printed_numbers_no_line_is_the_papers():
    (axes,) = outcomes.block_counts({"accuracy": ({"ours": {1: [4.0], 3: [8.0]}}, {}, False)}).axes
    assert [*lines(axes)] == ["ours"] and axes.get_xticks().tolist() == [1, 3]


# Curves: their metric says which figure draws them


def test_curves_are_drawn_by_the_figure_that_their_metric_names(shown):
    rows = {
        "a": [written("a", any_name=curve("likelihood", [2.0, 4.0]))],
        "b": [written("b", other_name=curve("loss_chain", [2.0, 4.0]))],
        "c": [written("c", chain=curve("accuracy_chain", [50.0, 60.0]), loss_chain=curve("my_figure", [1.0]))],
        "d": [written("d", bpc_by_level=curve(None, [1.0, 2.0]))],
    }
    found = headings(shown(rows))
    assert found["What each masking rate costs"] == "a from 2 at the lowest rate to 4 at the highest."
    chain = "nats per token: b along the chain from 2 to 4."
    assert found["Cross-entropy of the next token along the chain"] == chain
    assert found["Accuracy along the chain of blocks"] == "test accuracy (%): c along the chain from 50 to 60."
    assert found["Other curves"] == "loss_chain, c from 1 to 1; bpc_by_level, d from 1 to 2.", (
        "without a figure of theirs"
    )


@pytest.fixture
def chains(monkeypatch, shown, only):
    """chains(rows): {title of a panel: what it is drawn from}, and the largest value on the axis."""
    only("accuracy-chain", "loss-chain")

    def chains(rows, **about):
        drawn = {}
        monkeypatch.setattr(plots, "chain", lambda ylabel, rows, most: drawn.update({**rows, "most": most}) or Figure())
        shown(rows, **about)
        return drawn

    return chains


def test_a_chain_is_compared_with_the_metric_that_the_other_row_has_in_its_place(chains):
    """By the name of the metric, not of its column; the plainest where there are several."""
    plain = [
        measured("a", seed=seed, better_known=number("accuracy", 90.0 + seed), accuracy_4_steps=10.0) for seed in (0, 2)
    ]
    along, from_target = curve("accuracy_chain", [50.0, 60.0]), curve("accuracy_chain", [70.0, 99.0], from_target=True)
    assert chains({"a": plain, "b": [written("b", x=along, y=from_target)]}) == {
        "b": ({"along the chain": [along], "from the true target": [from_target]}, 91.0),
        "most": 100,
    }


def test_chains_of_other_steps_have_a_panel_of_their_own(chains):
    long, short = curve("loss_chain", [5.0, 6.0]), curve("loss_chain", [7.0])
    drawn = chains({"b": [written("b", all_steps=long, again=copy.deepcopy(long), one_step=short)]})
    del drawn["most"]
    assert {title: ([*lines], baseline) for title, (lines, baseline) in drawn.items()} == {
        "b": (["along the chain (again)", "along the chain (all_steps)"], None),
        "b, one_step": (["along the chain"], None),
    }


def test_a_chain_has_its_mean_its_range_and_a_dashed_line_from_the_target():
    curves = [curve("accuracy_chain", [50.0, 60.0]), curve("accuracy_chain", [60.0, 80.0])]
    drawn = {"along the chain": curves, "from the true target": [curve("accuracy_chain", [90.0, 99.0], True)]}
    (axes,) = plots.chain("accuracy", {"a": (drawn, 75.0)}, 100).axes
    found = {line.get_label(): (line.get_linestyle(), list(line.get_ydata())) for line in axes.lines}
    assert found == {
        "along the chain": ("-", [55.0, 70.0]),
        "from the true target": ("--", [90.0, 99.0]),
        "compared with": (":", [75.0, 75.0]),
    }
    (area,) = axes.collections
    assert (area.get_paths()[0].vertices[:, 1].min(), area.get_paths()[0].vertices[:, 1].max()) == (50.0, 80.0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.75\n0", "0.25\n1"]
    assert max(axes.get_yticks()) <= 100


def test_of_a_long_chain_as_many_steps_are_named_as_have_room():
    long = {"sigma": [80.0 / 2**step for step in range(16)], "block": [0] * 16, "value": [1.0] * 16}
    rows = {row: ({"along the chain": [{**long, "from_target": False}]}, None) for row in "abc"}
    (axes,) = plots.chain("nats", {"a": rows["a"]}).axes
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == [f"{sigma}\n0" for sigma in ("80", "20", "5", "1.2", "0.31", "0.078", "0.02", "0.0049")]
    assert len(axes.lines[0].get_xdata()) == 16, "all are drawn"
    for axes in plots.chain("nats", rows).axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["80\n0", "5\n0", "0.31\n0", "0.02\n0"]


def test_a_chain_without_levels_is_drawn_by_its_step_numbers():
    about = {"sigma": [None], "block": [None], "value": [40.0], "figure": "accuracy_chain", "from_target": False}
    (axes,) = plots.chain("accuracy", {"a": ({"along the chain": [about]}, None)}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1"] and axes.get_xlabel() == "denoising step"


def test_any_other_curve_is_drawn_over_its_steps_and_those_of_one_metric_share_an_axis():
    rows = {"a": ("mine", [curve(None, [1.0, 2.0]), curve(None, [3.0, 2.0])]), "b": ("mine", [curve(None, [9.0, 9.0])])}
    found = plots.curves({**rows, "c": ("other", [curve(None, [1000.0])])}).axes
    assert [axes.lines[0].get_ydata().tolist() for axes in found] == [[2.0, 2.0], [9.0, 9.0], [1000.0]]
    assert [axes.get_ylabel() for axes in found] == ["mine", "mine", "other"]
    assert found[0].get_ylim() == found[1].get_ylim() != found[2].get_ylim()


def test_every_figure_has_a_heading_of_its_own():
    found = [figure.heading for figure in figures.FIGURES]
    assert len(set(found)) == len(found) and all(figure.text.endswith(".") for figure in figures.FIGURES)


# What is drawn


def elements(svg):
    """{tag: attributes of each element of it} of a figure."""
    found = {}
    for element in ElementTree.fromstring(svg).iter():
        found.setdefault(element.tag, []).append(element.attrib)
    return found


def losses(**rows):
    return plots.losses({row: [metrics] for row, metrics in rows.items()})


def test_a_figure_is_an_element_that_can_stand_among_others():
    """Its ids are its own, what refers to them finds them, and nothing in it holds for the whole page."""
    run = measured("a", blocks=2)
    drawn = {name: pictures.trajectory({"digits": {"a": run}}) for name in ("one", "two")} | {"three": losses(a=run)}
    for name, figure in drawn.items():
        svg = canvas.svg(figure, name)
        assert svg.startswith('<svg viewBox="')
        assert not re.search(r"<style|<metadata|<!|<\?|xlink|xmlns|matplotlib", svg)
        ids = re.findall(r' id="([^"]*)"', svg)
        referred = {*re.findall(r"url\(#([^)]*)\)", svg), *re.findall(r'href="#([^"]*)"', svg)}
        assert referred and referred == {*ids} == {f"{name}-{number}" for number in range(len(ids))}
        assert canvas.svg(figure, name) == svg, "the same figure gives the same bytes"


def test_a_figure_is_lean():
    """Letters are text and not outlines, pixels those of the run in one strip, lengths no finer than a screen shows."""
    (image,) = elements(canvas.svg(pictures.trajectory({"digits": {"a": measured("a", blocks=2)}}), "x"))["image"]
    assert (image["width"], image["height"]) == ("10", "4"), "two pictures of 4 x 4, and a gap after each"
    assert image["href"].startswith("data:image/png;base64,")
    svg = canvas.svg(plots.partitions([(["a"], measured("a", blocks=3)["partition"])]), "x")
    assert ">noise level σ</text>" in svg
    for path in elements(svg)["path"]:
        assert len(path["d"]) < 1500 and not re.search(r"\.\d\d", path["d"])


@pytest.mark.parametrize(("colour", "mode"), [((7,), "LA"), ((10, 20, 30), "RGBA")])
def test_a_picture_has_no_more_channels_than_it_needs(colour, mode):
    (image,) = elements(canvas.svg(pictures.samples({"digits": {"a": measured("a", colour=colour)}}), "x"))["image"]
    picture = Image.open(io.BytesIO(base64.b64decode(image["href"].partition(",")[2])))
    assert picture.mode == mode
    assert {colour for _, colour in picture.convert("RGBA").getcolors()} == {(0, 0, 0, 0), (*(colour * 3)[:3], 255)}


# Light and dark


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return np.dot((0.2126, 0.7152, 0.0722), parts)


@pytest.mark.parametrize("ground", ["#ffffff", "#12161b"])
@pytest.mark.parametrize("count", [2, len(canvas.PALETTE), len(canvas.PALETTE) + 1, 24])
def test_colours_of_blocks_stand_out_from_light_and_from_dark(ground, count):
    found = canvas.colours(count)
    assert len({*found}) == count
    for colour in found:
        low, high = sorted(map(luminance, (colour, ground)))
        assert (high + 0.05) / (low + 0.05) >= 3


def every_figure():
    """A figure of each function that draws one."""
    runs = {"a $x$": [measured("a")], "b": [measured("b", blocks=3, loss=500.0)]}
    chain = {row: ({"along the chain": [curve("loss_chain", [1.0, 2.0])]}, 1.5) for row in "ab"}
    levels = {"sigma": [0.25, 0.75], "block": [1, 0], "value": [2.0, 4.0]}
    rows = {"a $x$": ([9.0], 40.0), "b $y$": ([5.0, 7.0], 3.0)}
    return {
        "outcomes": outcomes.outcomes([outcomes.Compared("FID", "in the paper", rows, False, "b $y$")]),
        "block_counts": outcomes.block_counts({"FID": ({"ours": {1: [4.0, 6.0], 3: [8.0]}}, {1: 4.0}, True)}),
        "losses": plots.losses(runs),
        "chain": plots.chain("nats", chain),
        "curves": plots.curves({row: ("mine", [curve(None, [1.0, 2.0])]) for row in "ab"}),
        "likelihood": plots.likelihood({row: ([levels], [levels]) for row in "ab"}),
        "partitions": plots.partitions([([row], run["partition"]) for row, (run,) in runs.items()]),
        "samples": pictures.samples({"digits": {row: run for row, (run,) in runs.items()}}),
        "trajectory": pictures.trajectory({"digits": {row: run for row, (run,) in runs.items()}}),
    }


@pytest.fixture(scope="module")
def every():
    return every_figure()


@pytest.mark.parametrize("name", ["outcomes", "block_counts", "losses", "chain", "curves", "likelihood", "partitions",
                                  "samples", "trajectory"])  # fmt: skip
def test_ink_is_the_pages_and_nothing_is_painted_behind(every, name):
    """Letters, axes and grids have the page's variables, in light and dark; series have colours of their own."""
    svg = canvas.svg(every[name], "x")
    own = {*canvas.PALETTE}
    assert {*re.findall(r"#[0-9a-f]{6}\b", svg.lower())} <= own
    found = elements(svg)
    assert "var(--ink)" in svg and {*re.findall(r"var\((--\w+)\)", svg)} <= {"--ink", "--soft", "--line"}
    assert all("fill: var(--ink)" in text["style"] for text in found["text"]), (
        "black is what an element without fill has"
    )
    for path in found.get("path", []):
        assert re.search(r"fill: (none|var|#)|stroke: (var|#)", path.get("style", "fill: none")), path


def test_the_page_has_the_inks_of_figures_light_and_dark():
    style = (TEMPLATE.parent / "style.css").read_text()
    assert all(f"{name[4:-1]}: #" in style for name in canvas.ON_PAGE.values())


def test_a_dollar_in_a_title_is_a_dollar(every):
    svg = canvas.svg(every["outcomes"], "x")
    assert ">a $x$</text>" in svg and ">b $y$</text>" in svg


def test_for_papers_every_figure_is_a_file_dark_on_white(tmp_path, only):
    only("samples", "losses")
    rows = {row: [measured(row, fid_test=5.0)] for row in "ab"}
    results = Results(plan(tmp_path, rows, IMAGES))
    files = figures.export(results, tmp_path / "figures")
    names = [f"table1-{name}" for name in ("samples", "losses")]
    assert [file.name for file in files] == [f"{name}{end}" for name in names for end in (".svg", ".pdf")]
    assert sorted(files) == sorted((tmp_path / "figures").iterdir())
    for file in files:
        made = file.read_bytes()
        if file.suffix == ".svg":
            text = made.decode()
            assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in text
            assert "fill: #ffffff" in text and canvas.INK in text and "</text>" in text and "<dc:date>" not in text
        else:
            assert made.startswith(b"%PDF") and b"CreationDate" not in made
    again = figures.export(results, tmp_path / "again")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


# Partitions and losses


def test_a_partition_is_drawn_to_its_very_bounds_on_one_axis_for_all_rows():
    one, three = (measured("a", blocks=count)["partition"] for count in (1, 3))
    (axes,) = plots.partitions([(["a"], one), (["b"], three)]).axes
    areas = [area.get_paths()[0].vertices[:, 0] for area in axes.collections]
    bounds = [*pairwise(one["boundaries"]), *pairwise(three["boundaries"])]
    assert [(max(x), min(x)) for x in areas] == [pytest.approx(pair) for pair in bounds]
    assert [sorted(line.get_xdata()) for line in axes.lines] == [*one["intervals"], *three["intervals"]]
    assert [text.get_text() for text in axes.texts] == ["a", "b"]


def test_rows_whose_blocks_own_the_same_levels_share_a_drawing_which_names_the_layers_of_each(shown, monkeypatch):
    rows = {row: measured(row, blocks=2) for row in "abc"}
    rows["b"]["partition"]["layers"] = [[0, 3], [3, 4]]
    rows["d"] = measured("d", blocks=2)
    rows["d"]["partition"]["mass"] = [0.25, 0.75]
    drawn = []
    monkeypatch.setattr(plots, "partitions", lambda rows: drawn.extend(words for words, _ in rows) or Figure())
    shown({row: [run] for row, run in rows.items()})
    assert drawn == [
        ["a; c: layers 1, 2", "b: layers 1–3, 4", "each 50% of the draws"],
        ["d: layers 1, 2", "25%, 75% of the draws"],
    ]


MASKED = {"boundaries": [1.0, 0.5, 0.0], "intervals": [[0.45, 1.0], [0.0, 0.55]], "mass": [0.5, 0.5], "noise": {},
          "layers": [[0, 1], [1, 2]]}  # fmt: skip


def test_a_masking_rate_is_drawn_as_uniform():
    (axes,) = plots.partitions([(["a"], MASKED)]).axes
    assert axes.get_xscale() == "linear" and axes.get_xlabel() == "masking rate t"
    for area in axes.collections:
        assert len({*area.get_paths()[0].vertices[:, 1].round(6)}) == 2, "a rectangle"


def test_masking_rates_and_noise_levels_have_figures_of_their_own(shown):
    found = headings(shown({"a": [measured("a")], "b": [{**measured("b"), "partition": MASKED}]}))
    assert found["Noise partition"] == "a: layers 1."
    assert found["Partition of masking rates"] == "b: layers 1, 2, each 50% of the draws."


def test_images_are_drawn_in_grey_and_in_colour():
    rows = {"grey": measured("grey", colour=(7,)), "rgb": measured("rgb", blocks=2, colour=(10, 20, 30))}
    for draw in (pictures.samples, pictures.trajectory):
        (axes,) = draw({"digits": rows}).axes
        strips = [image.get_array() for image in axes.images]
        assert [strip.shape for strip in strips] == [(4, 10, 4)] * 2, "two pictures and their gaps for each row"
        assert [strip[0, :6].tolist() for strip in strips] == [
            [[*colour, 255]] * 4 + [[0, 0, 0, 0]] + [[*colour, 255]] for colour in ((7, 7, 7), (10, 20, 30))
        ]
    assert [text.get_text() for text in axes.texts] == ["digits", "grey", "80", "0.002", "rgb", "80", "0.002"]
    frames = [(frame.get_label(), frame.get_edgecolor()[:3]) for frame in axes.patches]
    whole, first, second = map(to_rgb, (canvas.SOFT, *canvas.PALETTE[:2]))
    assert frames == [("whole network", whole)] * 2 + [("block 0", first), ("block 1", second)]


def test_each_masking_rate_is_drawn_in_the_colour_of_its_block():
    levels = {"sigma": [0.25, 0.75], "block": [1, 0], "value": [2.0, 4.0]}
    (axes,) = plots.likelihood({"a": ([levels], [levels])}).axes
    bars = {round(bar.get_x() + bar.get_width() / 2, 2): bar for bar in axes.patches}
    assert {t: bar.get_height() for t, bar in bars.items()} == {0.25: 2.0, 0.75: 4.0}
    assert [bars[t].get_facecolor()[:3] for t in (0.75, 0.25)] == [to_rgb(colour) for colour in canvas.PALETTE[:2]]
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("lowest", "scale", "limits"),
    [
        (0.5, "linear", (0, 2.1)),
        (0.001, "log", (0.0005 / 1.2, 2.4)),
        (-1.0, "linear", (-1.05, 2.1)),
    ],
)
def test_losses_of_all_rows_share_an_axis(lowest, scale, limits):
    """Its limits come from the rows together; it is logarithmic where a row would lie on it otherwise."""
    rows = {"high": [measured("high", loss=2.0)], "low": [measured("low", loss=lowest)]}
    assert plots.loss_limits(rows.values()) == (min(lowest, lowest / 2), 2.0)
    for axes in plots.losses(rows).axes:
        assert axes.get_yscale() == scale and axes.get_ylim() == pytest.approx(limits)


def test_a_block_has_one_colour_on_the_whole_page():
    for axes, count in zip(losses(one=losing(1), two=losing(2), six=losing(6)).axes, (1, 2, 6), strict=True):
        found = {line.get_label(): line.get_color() for line in axes.lines}
        blocks = {f"block {block}": colour for block, colour in enumerate(canvas.PALETTE[:count])}
        assert found == (blocks if count > 1 else {"whole network": canvas.SOFT})


def losing(blocks):
    run = measured("a", blocks=blocks)
    run["parts"]["block0"]["losses"] = {str(block): [[1, 2.0], [2, 1.0]] for block in range(blocks)}
    return run


def test_panels_that_are_many_stand_in_threes_each_with_its_axis_where_nothing_is_below():
    figure = losses(**{f"row{number}": losing(1) for number in range(5)})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 5 and len({axes.get_position().x0 for axes in shown}) == 3
    assert [bool(axes.get_xlabel()) for axes in shown] == [False, False, True, True, True]
    assert [bool(axes.get_ylabel()) for axes in shown] == [True, False, False, True, False]


def test_a_legend_names_each_thing_once_and_reads_in_lines():
    figure = losses(**{f"row{number}": losing(6) for number in range(2)}, whole=losing(1))
    (legend,) = figure.legends
    figure.draw_without_rendering()
    places = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    order = sorted(places, key=lambda name: (-round(places[name].y0), places[name].x0))
    assert order == [*(f"block {block}" for block in range(6)), "whole network"]
    panel = max(axes.get_tightbbox().y1 for axes in figure.axes)
    assert min(box.y0 for box in places.values()) > panel, "off the data and the titles"


def test_a_drawing_is_written_for_the_page(tmp_path):
    path = plan(tmp_path, {"a": [measured("a")]}, IMAGES)
    figures.figures(path, tmp_path / "drawn.json")
    found = json.loads((tmp_path / "drawn.json").read_text())
    assert [*found[0]] == ["alt", "heading", "name", "open", "svg", "text", "wide"]

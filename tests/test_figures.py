"""Which figures a table has, and what they draw from metrics.json."""

import copy
import re
from functools import partial
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from page_helpers import IMAGES, curve, headings, measured, number, shown_section, written

from diffusionblocks.page import canvas, figures, pictures, plots


@pytest.fixture
def shown(tmp_path):
    """shown(rows, paper): the page's section of a table."""
    return partial(shown_section, tmp_path)


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


# Quality against the number of blocks


BLOCKS = {
    **IMAGES,
    "metrics": {"fid_test": {"better": "lower"}, "mauve": {"better": "higher"}, "relative_speed": {"better": "higher"}},
    "rows": {f"b{count}": {"fid_test": 40.0, "mauve": 0.5, "relative_speed": count} for count in (1, 2, 3)},
}


@pytest.fixture
def block_counts(monkeypatch, shown):
    """block_counts(counts, ...): how often a table's figure of block counts is drawn, and from what."""

    def block_counts(counts, column="fid_test", paper=BLOCKS, asked=("block_count",), **about):
        drawn = []
        monkeypatch.setattr(plots, "block_count", lambda *arguments: drawn.append(arguments) or "<svg/>")
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
            "relative to one block",
            {"ours": {1: [6.0], 2: [7.0]}},
            {1: 40.0},
            True,
        )
    ], "once, and neither of what is not printed nor of a description"


def test_without_one_block_values_are_as_they_are(block_counts):
    (drawn,) = block_counts({"b2": 2, "b3": 3}, "mauve")
    assert drawn == ("mauve", {"ours": {2: [7.0], 3: [8.0]}}, {2: 0.5, 3: 0.5}, False)


def test_series_are_the_rows_own(block_counts):
    ((_, ours, paper, _),) = block_counts({"b2": 2, "b3": 3, "b3_calibrated": 3})
    assert ours == {"ours": {2: [7.0], 3: [8.0]}, "calibrated": {3: [8.0]}} and paper == {2: 40.0, 3: 40.0}


def test_of_two_rows_with_as_many_blocks_none_hides_the_other(block_counts):
    ((_, ours, _, _),) = block_counts({"b1": 1, "b2": 2, "wider": 2})
    assert ours == {"ours": {1: [6.0], 2: [7.0]}, "wider": {2: [7.0]}}


@pytest.mark.parametrize(
    ("counts", "asked"), [({"b1": 1, "b2": 2}, ()), ({"b2": 2, "b3_calibrated": 3}, ("block_count",))]
)
def test_no_such_figure_where_none_is_asked_for_or_no_line_has_two_points(block_counts, counts, asked):
    assert block_counts(counts, asked=asked) == []


def test_a_table_of_ones_own_has_the_figure_too(block_counts):
    drawn = block_counts({"one": 1, "two": 2}, paper=None)
    assert [(ylabel, *others) for ylabel, _, *others in drawn] == [("fid_test", {}, False), ("fid_train", {}, False)]


@pytest.mark.parametrize(("method", "count"), [({"num_blocks": 4}, 4), ({}, 1)])
def test_a_run_without_noise_has_the_blocks_of_its_method(shown, monkeypatch, method, count):
    runs = {row: measured(row, fid_test=5.0, method={"name": "x"} | about) for row, about in (("a", method), ("b", {}))}
    for run in runs.values():
        del run["partition"]
    drawn = []
    monkeypatch.setattr(plots, "block_count", lambda *arguments: drawn.append(arguments[1]) or "<svg/>")
    shown({row: [run] for row, run in runs.items()}, figures=["block_count"])
    assert drawn == ([] if count == 1 else [{"ours": {4: [5.0], 1: [5.0]}}])


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
    """chains(rows): captions of the figures of chains, and what they are drawn from."""

    def chains(rows, **about):
        drawn = []
        monkeypatch.setattr(plots, "chain", lambda *arguments: drawn.append(arguments) or "<svg/>")
        captions = [caption for found in headings(shown(rows, **about)).values() for caption in found]
        captions = [caption.split("the chain, ")[1] for caption in captions if "the chain, " in caption]
        return [(caption, *arguments) for caption, arguments in zip(captions, drawn, strict=True)]

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
    (axes,) = plots.chain("accuracy", lines, 75.0, 100).axes
    found = {line.get_label(): (line.get_linestyle(), list(line.get_ydata())) for line in axes.lines}
    assert found == {
        "along the chain": ("-", [55.0, 70.0]),
        "from the true target": ("--", [90.0, 99.0]),
        "compared with": (":", [75.0, 75.0]),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.75\n0", "0.25\n1"]
    assert max(axes.get_yticks()) <= 100


def test_of_a_long_chain_as_many_steps_are_named_as_have_room(drawn):
    long = {"sigma": [80.0 / 2**step for step in range(16)], "block": [0] * 16, "value": [1.0] * 16}
    (axes,) = plots.chain("nats", {"along the chain": [{**long, "from_target": False}]}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "80\n0",
        "10\n0",
        "1.2\n0",
        "0.16\n0",
        "0.02\n0",
        "0.0024\n0",
    ]
    assert len(axes.lines[0].get_xdata()) == 16, "all are drawn"


def test_any_other_curve_is_drawn_over_its_steps(drawn):
    (axes,) = plots.curve("mine", [curve(None, [1.0, 2.0]), curve(None, [3.0, 2.0])]).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2.0, 2.0]] and axes.get_ylabel() == "mine"


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


def test_a_figure_is_an_element_that_can_stand_among_others():
    """Its ids are its own, what refers to them finds them, and nothing in it holds for the whole page."""
    one, other = ({"a": measured("a", blocks=count, loss=count)} for count in (2, 3))
    drawn = [pictures.trajectory(rows) for rows in (one, other)]
    drawn += [plots.losses([rows["a"]], (0.001, 1.0)) for rows in (one, other)]
    named = []
    for svg in drawn:
        assert svg.startswith('<svg viewBox="') and not re.search(
            r"<style|<metadata|<!|<\?|xlink|xmlns|matplotlib", svg
        )
        ids = re.findall(r' id="([^"]*)"', svg)
        referred = {*re.findall(r"url\(#([^)]*)\)", svg), *re.findall(r'href="#([^"]*)"', svg)}
        assert referred and referred == set(ids) and "fill: #ffffff" in svg
        named += ids
    assert len(set(named)) == len(named)
    assert plots.losses([one["a"]], (0.001, 1.0)) == drawn[2], "of equal figures one can be left out"


def test_a_figure_is_lean():
    """Letters are text and not outlines, pixels those of the run, lengths no finer than a screen can show."""
    found = elements(pictures.trajectory({"a": measured("a", blocks=2)}))
    assert {(image["width"], image["height"]) for image in found["image"]} == {("4", "4")}
    assert all(image["href"].startswith("data:image/png;base64,") for image in found["image"])
    svg = plots.partition(measured("a", blocks=3)["partition"])
    assert ">training density of log σ</text>" in svg
    for path in elements(svg)["path"]:
        assert len(path["d"]) < 1500 and not re.search(r"\.\d\d", path["d"])


def test_a_partition_is_drawn_to_its_very_bounds(drawn):
    partition = measured("a", blocks=3)["partition"]
    (axes,) = plots.partition(partition).axes
    areas = [area.get_paths()[0].vertices[:, 0] for area in axes.collections]
    assert [(max(x), min(x)) for x in areas] == [pytest.approx(pair) for pair in pairwise(partition["boundaries"])]


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
    (axes,) = plots.block_count("FID", ours, paper, relative).axes
    lines = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}
    base = (5.0, 2.0, 40.0) if relative else (1.0, 1.0, 1.0)
    assert lines["ours"] == {1: 5 / base[0], 3: 10 / base[0]} and lines["louder"] == {1: 2 / base[1], 3: 3 / base[1]}
    assert lines["paper"] == {1: 40 / base[2], 3: 50 / base[2], 6: 60 / base[2]}


def test_a_line_without_one_block_is_relative_to_the_first_that_has_it(drawn):
    ours = {"ours": {1: [4.0], 3: [8.0]}, "louder": {3: [2.0]}}
    (axes,) = plots.block_count("FID", ours, {1: 40.0, 3: 50.0}, True).axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines}["louder"] == [0.5]


def test_without_printed_numbers_no_line_is_the_papers(drawn):
    (axes,) = plots.block_count("accuracy", {"ours": {1: [4.0], 3: [8.0]}}, {}, False).axes
    assert [line.get_label() for line in axes.lines] == ["ours"] and axes.get_xticks().tolist() == [1, 3]


def test_each_masking_rate_is_drawn_in_the_colour_of_its_block(drawn):
    levels = {"sigma": [0.25, 0.75], "block": [1, 0], "value": [2.0, 4.0]}
    (axes,) = plots.likelihood([levels], [levels]).axes
    bars = {round(bar.get_x() + bar.get_width() / 2, 2): bar for bar in axes.patches}
    assert {t: bar.get_height() for t, bar in bars.items()} == {0.25: 2.0, 0.75: 4.0}
    assert bars[0.25].get_facecolor() != bars[0.75].get_facecolor()
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [2.0, 4.0]


def test_a_masking_rate_is_drawn_as_uniform(drawn):
    masked = {"boundaries": [1.0, 0.5, 0.0], "intervals": [[0.45, 1.0], [0.0, 0.55]], "mass": [0.5, 0.5],
              "noise": {}, "layers": [[0, 1], [1, 2]]}  # fmt: skip
    (axes,) = plots.partition(masked).axes
    assert axes.get_xscale() == "linear" and axes.get_xlabel() == "masking rate t"
    assert set(axes.lines[0].get_ydata()) == {1.0}


@pytest.mark.parametrize(
    ("lowest", "scale", "limits"), [(0.5, "linear", (0, 2.1)), (0.001, "log", (0.0005 / 1.2, 2.4))]
)
def test_losses_of_all_rows_share_an_axis(drawn, lowest, scale, limits):
    """Its limits come from the rows together; it is logarithmic where a row would lie on it otherwise."""
    rows = {"high": [measured("high", loss=2.0)], "low": [measured("low", loss=lowest)]}
    assert plots.loss_limits(rows.values()) == (lowest / 2, 2.0)
    for runs in rows.values():
        (axes,) = plots.losses(runs, plots.loss_limits(rows.values())).axes
        assert axes.get_yscale() == scale and axes.get_ylim() == pytest.approx(limits)


def test_a_chain_without_levels_is_drawn_by_its_step_numbers(shown):
    about = {"sigma": [None], "block": [None], "value": [40.0], "figure": "accuracy_chain", "from_target": False}
    found = headings(shown({"a": [{**measured("a", fid_test=5.0), "curves": {"per_step": about}}]}))
    assert found["Accuracy along the chain of blocks"] == ["Accuracy along the chain, a"]

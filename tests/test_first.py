"""What the first screen of the page says of a run, and how a claim is drawn."""

import math
import re

import pytest
from page_helpers import IMAGES, measured, number, plan

from diffusionblocks.page import first
from diffusionblocks.page.intervals import interval
from diffusionblocks.page.results import Results
from diffusionblocks.page.wording import decimals


def claim(**about) -> dict:
    """A claim as the page gets it: ours 0.5 to 1.5 better, where the paper's row is 2 better."""
    gap = {"mean": 1.0, "low": 0.5, "high": 1.5, "seeds": 3, "paired": True, "p": 0.25, "bootstrap": [0.6, 1.4]}
    known = {"id": "table1-1", "table": "table1", "source": "Table 1", "text": "B is better than A.", "ours": False}
    known |= {"kind": "better", "metric": "fid_test", "unit": None, "better": "lower", "row": "b", "against": "a"}
    known |= {"margin": 0, "factor": None, "paper": {"row": 30.0, "against": 32.0, "gap": 2.0, "ratio": None}}
    known |= {"gap": gap, "ratio": None, "control": None, "verdict": "held", "because": None, "grey": False}
    return known | {"more": None, "stand_in": None, "scale": "demo", "timed": None} | about


def factor(ratio, paper=3.0, **about) -> dict:
    about = {"kind": "factor", "margin": None, "factor": 2.7, "gap": None, "ratio": ratio} | about
    return claim(**about, paper={"row": None, "against": None, "gap": None, "ratio": paper})


# A claim in a drawing


def places(svg: str) -> dict[str, list[float]]:
    """{class: where its marks are, from left to right} of a drawing; of lines both ends."""
    found = {}
    for tag, name, text in re.findall(r'<(path|circle) class="(\w+)" ([^>]*)/>', svg):
        x = re.search(r'cx="([\d.]+)"' if tag == "circle" else r'd="M([\d.]+)', text)
        far = re.search(r"H([\d.]+)\"", text)
        found.setdefault(name, []).extend(float(one[1]) for one in (x, far) if one)
    return found


def test_better_is_to_the_right():
    at = places(interval(claim(margin=-1)))
    (margin,), (zero,), (paper,), (low, high, mean) = at["margin"], at["zero"], at["paper"], at["ours"]
    assert margin < zero < low < mean < high < paper
    assert at["asked"][0] == margin and at["ours"] and "control" not in at


def test_a_control_has_a_lane_of_its_own():
    at = places(interval(claim(control={"row": "small", "mean": -0.5, "low": -0.75, "high": -0.25, "seeds": 3})))
    low, high, mean = at["control"]
    assert low < mean < high < at["zero"][0]


def test_one_seed_is_a_point_without_an_error():
    gap = {"mean": 1.0, "low": None, "high": None, "seeds": 1, "paired": False}
    assert len(places(interval(claim(gap=gap)))["ours"]) == 1


def test_a_factor_is_drawn_by_its_logarithm():
    at = places(interval(factor(9.0, paper=3.0)))
    assert at["zero"][0] < at["margin"][0] < at["paper"][0] < at["ours"][0]
    assert at["ours"][0] - at["paper"][0] == pytest.approx(at["paper"][0] - at["zero"][0], abs=0.2)


@pytest.mark.parametrize(
    "nothing",
    [
        claim(gap=None),
        claim(gap={"mean": math.inf, "low": None, "high": None, "seeds": 3, "paired": True}),
        factor(None),
        factor(math.inf),
    ],
)
def test_what_is_not_measured_or_infinite_is_not_drawn(nothing):
    assert interval(nothing) == ""


def test_equal_numbers_are_drawn():
    gap = {"mean": 0.0, "low": 0.0, "high": 0.0, "seeds": 3, "paired": True}
    assert places(interval(claim(gap=gap, paper=None)))["ours"]


# A claim in words


@pytest.mark.parametrize(
    ("about", "of", "words"),
    [
        ({}, "gap", "1.00 ± 0.50 better"),
        ({}, "paper", "2.00 better"),
        ({"unit": "%"}, "gap", "1.00 ± 0.50 points better"),
        ({"unit": "nats", "gap": {"mean": -0.5, "low": None, "high": None}}, "gap", "0.50 nats worse"),
        ({"unit": "%", "control": {"mean": -0.5, "low": -1.5, "high": 0.5}}, "control", "0.50 ± 1.00 worse"),
        ({"gap": {"mean": 0.0, "low": None, "high": None}}, "gap", "equal"),
        ({"gap": {"mean": 0.0, "low": -1.0, "high": 1.0}}, "gap", "0.00 ± 1.00 equal"),
        ({"gap": {"mean": math.inf, "low": None, "high": None}}, "gap", "infinitely better"),
        ({"gap": {"mean": -math.inf, "low": None, "high": None}}, "gap", "infinitely worse"),
    ],
)
def test_gaps_in_words(about, of, words):
    assert first.better_by(claim(**about), of) == words


def test_a_small_number_has_the_digits_of_its_error():
    small = {"unit": None, "gap": {"mean": -0.0031, "low": -0.0045, "high": -0.0017}}
    assert first.better_by(claim(**small)) == "0.0031 ± 0.0014 worse"
    assert first.better_by(claim(gap={"mean": 0.0004, "low": None, "high": None})) == "0.00040 better"
    assert first.better_by(claim(paper={"gap": 0.06000000000000005}), "paper") == "0.06 better", "as it is printed"


@pytest.mark.parametrize(
    ("values", "unit", "errors", "places"),
    [
        ([60.25, 7.85], "%", [0.7, 1.2], 2),
        ([60.25, 7.85], "%", [0.00017], 2),  # no number of the table has so many digits
        ([0.61, 0.98], "", [0.014, 0.03, None], 3),
        ([0.61, 0.98], "", [0.0, math.nan], 2),
        ([0.0004, math.inf], "", [], 5),
        ([0.0181, 2.0], "s", [0.5], 4),
        ([], "", [], 2),
    ],
)
def test_decimals_are_those_of_the_error(values, unit, errors, places):
    assert decimals(values, unit, errors) == places


def test_verdicts_are_counted_in_the_order_of_the_sentence():
    claims = [claim(verdict=verdict) for verdict in ("not tested", "held", "cannot tell", "held")]
    assert [(verdict, number) for verdict, number, _ in first.counted(claims)] == [
        ("held", 2),
        ("cannot tell", 1),
        ("not tested", 1),
    ]


# Experiments


def with_model(name, *runs):
    return [{**run, "run": {**run["run"], "model": {"name": name, "num_layers": 24}}} for run in runs]


def test_an_experiment_is_a_data_set_of_a_table(tmp_path):
    rows = {row: with_model("dit", measured(row, fid_test=5.0)) for row in ("a", "b", "c")}
    paper = {**IMAGES, "rows": {**IMAGES["rows"], "c": {"fid_test": 1.0, "data": "ImageNet"}}}
    results = Results(plan(tmp_path, rows, paper))
    one, two, three = claim(), claim(id="table1-2", against="c"), claim(id="table1-3", row="c")
    found = first.experiments([results], [one, two, three])
    assert [(about["name"], about["data"], about["claims"]) for about in found] == [
        ("Table 2", "digits", [one, two]),
        ("Table 2", "ImageNet", [three]),
    ]
    assert first.experiments([results], [one])[0]["data"] is None, "a table with one data set need not say it"
    assert found[0]["models"] == ["dit"]


# What was run


def test_what_a_run_was(tmp_path):
    runs = [measured("a", seed=seed, fid_test=5.0) for seed in range(2)]
    for seed, run in enumerate(runs):
        run["evaluation"]["time"] = ("2026-11-20T19:48:08+0200", "2026-11-20T17:49:08+0000")[seed]  # two places
    counted = {**measured("memory", fid_test=1.0, title="none: counted"), "parts": {}}
    results = Results(plan(tmp_path, {"a": runs, "memory": [counted]}, IMAGES))
    found = first.facts([results])
    assert found["data"] == ["digits"] and found["hardware"] == ["cpu"], "nothing that is counted has read data"
    assert (found["first"], found["last"]) == ("2026-11-20 17:48", "2026-11-20 17:49")
    assert found["seconds"] == pytest.approx(6 * 2 + 5, abs=4) and found["jobs"] == 3 * 2 + 2


def test_memory_is_a_line_for_each_network(tmp_path):
    peak = {"unit": "MB", "better": "lower", "beside": True, "name": "peak_memory"}
    rows = {
        row: with_model("dit", {**measured(row, blocks=blocks, fid_test={**number("kid", value), **peak}), "parts": {}})
        for row, blocks, value in (("whole", 1, 68_000), ("block", 3, 23_000))
    }
    titles = {"whole": "DiT-L/2, end to end", "block": "DiT-L/2, one block"}
    rows = {row: {"metrics": runs, "title": titles[row]} for row, runs in rows.items()}
    results = Results(plan(tmp_path, rows, IMAGES, name="memory"))
    about = {"table": "memory", "row": "block", "against": "whole", "scale": "paper"}
    (group,) = first.costs([results], [factor(2.9, **about), factor(None, **about), claim(**about)])
    assert (group["metric"], group["unit"], group["scale"]) == ("peak memory", "MB", "paper")
    (line,) = group["lines"]
    assert (line["label"], line["layers"], line["blocks"]) == ("DiT-L/2", 24, 3)
    assert (line["against"], line["row"], line["ratio"], line["paper"]) == (68_000, 23_000, 2.9, 3.0)
    assert first.in_short([group]) == [group] and not first.in_short([{**group, "name": "layer_evaluations"}])
    as_much = {**line, "asked": 0.9}
    assert (
        first.in_short([{**group, "lines": [line, as_much]}])
        == [group]
        != first.in_short([group | {"lines": [as_much]}])
    )
    assert not first.costs([results], [factor(2.9, **about, verdict="not tested")]), "other sizes than it is about"


def test_networks_of_one_name_are_told_apart_by_their_tables(tmp_path):
    made = {}
    for table in ("table8", "table9"):
        rows = {
            row: {"metrics": with_model("dit", {**measured(row, fid_test=value), "parts": {}}), "title": title}
            for row, title, value in (("b1", "end to end", 6.0), ("b2", "2 blocks", 3.0), ("b3", "3 blocks", 2.0))
        }
        paper = IMAGES | {"source": table.replace("table", "Table ")}
        made[table] = Results(plan(tmp_path, rows, paper, name=table))
    asked = [("table8", "b2"), ("table8", "b3"), ("table9", "b2")]
    about = {"against": "b1", "scale": "demo", "metric": "fid_test"}
    (group,) = first.costs([*made.values()], [factor(2.0, table=table, row=row, **about) for table, row in asked])
    assert [line["label"] for line in group["lines"]] == ["2 blocks, Table 8", "3 blocks", "2 blocks, Table 9"]


def test_jobs_of_blocks_stand_beside_the_job_end_to_end(tmp_path):
    def trained(row, *sizes):
        kinds = ("parameter", "gradient", "optimizer", "average")
        jobs = {
            f"block{index}": {
                **{f"{kind}_bytes": size for kind in kinds},
                "seconds": size,
                "attempts": [],
                "losses": {},
            }
            for index, size in enumerate(sizes)
        }
        return {"metrics": [{**measured(row, fid_test=1.0), "parts": jobs}], "against": None if row == "a" else "a"}

    rows = {"a": trained("a", 30), "b": trained("b", 9, 10, 11), "joint": trained("joint", 30)}
    (found,) = first.jobs_of_blocks([Results(plan(tmp_path, rows, IMAGES))])
    assert (found["row"], found["against"], found["blocks"]) == ("b", "a", 3)
    assert found["bytes"] == [44, 120] and found["seconds"] == [11, 30]
    del rows["b"]["metrics"][0]["parts"]["block1"]["average_bytes"]
    assert first.jobs_of_blocks([Results(plan(tmp_path, rows, IMAGES))]) == [], "one that does not say all"


def test_why_verdicts_are_not_to_be_leaned_on():
    untested, grey = (
        claim(verdict="not tested", because="six passes in place of 32"),
        claim(grey=True, because="one seed: no spread is known"),
    )
    sure = claim(verdict="did not hold", because="worse than small, a net of one block’s size")
    assert first.limits([untested, grey, sure, untested]) == {
        "six passes in place of 32": [untested, untested],
        "one seed: no spread is known": [grey],
    }

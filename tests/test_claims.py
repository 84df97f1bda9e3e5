"""What the paper claims, and when our numbers say that it held: verdicts on made-up numbers with known answers."""

import json
import math
import re
from statistics import mean, stdev

import numpy as np
import pytest
import yaml
from conftest import ROOT, shipped
from page_helpers import measured, number, plan
from test_golden import SCALES
from test_statistics import T

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.partition import layers_of, split_layers
from diffusionblocks.page.claims import VERDICTS, of_table, verdicts
from diffusionblocks.page.controls import shallow_of, worth_of_depth
from diffusionblocks.page.results import Results, read
from diffusionblocks.page.summary import told
from diffusionblocks.page.table import table
from diffusionblocks.plan.configuration import complete, merge
from diffusionblocks.plan.plan import Plan
from diffusionblocks.verbs import main

CLAIM = {"text": "a is at most 2 worse than b.", "metric": "accuracy", "row": "a", "against": "b", "margin": -2}
SECONDS = 6  # of the jobs of a seed, as page_helpers has it


def written(folder, rows, claims, depth=(), better="higher", printed=None, about=None, otherwise=None, **settings):
    """(`<table>.json`, its csv) of rows whose accuracies of each seed are {row: [value]}.

    about: {row: what planning says of it}. otherwise: accuracies of four steps, which check the others.
    """
    runs = {}
    for row, values in rows.items():
        numbers = (number("accuracy", value, better=better, **settings) for value in values)
        runs[row] = [measured(row, seed=seed, accuracy=found) for seed, found in enumerate(numbers)]
    for row, values in (otherwise or {}).items():
        for run, value in zip(runs[row], values, strict=True):
            run["metrics"]["accuracy_4_steps"] = number("accuracy_4_steps", value, better=better)
    paper = {"title": "x", "source": "Table 1", "data": "x", "rows": printed or {}}
    paper["metrics"] = {"accuracy": {"unit": "%", "better": better, "extractor": "GPT-2"}}
    entries = {row: {"metrics": found, **(about or {}).get(row, {})} for row, found in runs.items()}
    checks = {"accuracy": "accuracy_4_steps"} if otherwise else {}
    path = plan(folder, entries, paper, claims=claims, depth=depth, cross_checks=checks)
    table(path, path.with_suffix(".csv"))
    return path, path.with_suffix(".csv")


@pytest.fixture
def judged(tmp_path):
    """Claims, of rows {row: values}; of the first claim alone where there is one."""

    def call(rows, *claims, **about):
        path, csv = written(tmp_path, rows, claims, **about)
        found = of_table(Results(path), read(csv))
        return found if len(claims) > 1 else found[0]

    return call


def of(margin, **changes):
    return {**CLAIM, "margin": margin, **changes}


# Known answers

NOISE = np.array([-0.3, 0.0, 0.3])  # of three seeds: an error of t 0.3 / sqrt(3)
HALF = T[2] * 0.3 / math.sqrt(3)  # 0.506


@pytest.mark.parametrize(
    ("gap", "margin", "word"),
    [
        (0.0, 0, "cannot tell"),  # equal means
        (HALF + 0.01, 0, "held"),
        (HALF - 0.01, 0, "cannot tell"),
        (-HALF + 0.01, 0, "cannot tell"),
        (-HALF - 0.01, 0, "did not hold"),
        (0.0, -2, "held"),  # not worse
        (-2 + HALF + 0.01, -2, "held"),
        (-2.0, -2, "cannot tell"),  # a gap at the margin
        (-2 - HALF - 0.01, -2, "did not hold"),
        (10.0, 10, "cannot tell"),
        (11.0, 10, "held"),
    ],
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_interval_must_lie_beyond_the_margin(judged, gap, margin, word, better):
    sign = -1 if better == "lower" else 1
    rows = {"a": list(90 + sign * gap + NOISE), "b": [90.0] * 3}
    found = judged(rows, of(margin), better=better)
    assert found["verdict"] == word and found["because"] is None and not found["grey"]
    about = found["gap"]
    assert about["mean"] == pytest.approx(gap) and about["high"] - about["mean"] == pytest.approx(HALF)
    assert about["mean"] - about["low"] == pytest.approx(HALF) and (about["seeds"], about["paired"]) == (3, True)
    assert found["kind"] == ("not worse" if margin < 0 else "better") and found["better"] == better


def test_a_huge_spread_decides_nothing(judged):
    found = judged({"a": [10.0, 90.0, 50.0], "b": [12.0, 5.0, 20.0]}, of(0))
    assert found["verdict"] == "cannot tell" and found["gap"]["mean"] > 30
    assert found["gap"]["p"] > 1 / 8 and found["gap"]["bootstrap"][0] < found["gap"]["bootstrap"][1]


@pytest.mark.parametrize("ours", [99.0, 80.0])
@pytest.mark.parametrize("other", [[90.0], [90.0, 90.1, 89.9]])
def test_one_seed_decides_nothing(judged, ours, other):
    found = judged({"a": [ours], "b": other}, of(-2))
    assert (found["verdict"], found["grey"]) == ("cannot tell", True)
    assert found["because"] == "one seed: no spread is known"
    assert found["gap"] == {"mean": pytest.approx(ours - 90), "low": None, "high": None, "seeds": 1, "paired": False,
                            "p": None, "bootstrap": None}  # fmt: skip
    rows = 2 if len(other) == 1 else 1  # that lack two seeds
    assert found["more"] == {"seeds": 2, "hours": pytest.approx(rows * 2 * SECONDS / 3600)}


def test_seeds_that_are_all_the_same_decide_by_the_gap_itself_unless_it_is_the_margin(judged):
    rows = {"a": [81.0] * 3, "b": [80.0] * 3}
    apart, at, below = judged(rows, of(0), of(1), of(2))
    assert [one["verdict"] for one in (apart, at, below)] == ["held", "cannot tell", "did not hold"]
    assert apart["because"] == "no value differs between seeds" and apart["gap"]["low"] == apart["gap"]["high"] == 1
    assert at["because"] == "no value differs between seeds, and the gap is the margin exactly" and not at["more"]
    assert judged({"a": [1.0] * 3, "b": [1.0] * 3}, of(0))["verdict"] == "cannot tell", "both are saturated"
    assert judged({"a": [1.0] * 3, "b": [1.0] * 3}, of(-0.03))["verdict"] == "held"


def test_a_gap_that_is_the_same_by_chance_is_judged_by_the_spread_of_the_rows(judged):
    found = judged({"a": [81.0, 91.0, 71.0], "b": [80.0, 90.0, 70.0]}, of(0))
    assert found["verdict"] == "cannot tell" and found["gap"]["high"] > 15


def test_rows_of_the_same_seeds_are_compared_seed_by_seed(judged):
    """Seeds that move both rows alike do not blur their difference."""
    b = [80.0, 90.0, 70.0]
    found = judged({"a": [81.0, 91.1, 70.9], "b": b}, of(0))
    assert found["verdict"] == "held" and found["gap"]["paired"] and found["gap"]["p"] == 1 / 8
    assert judged({"a": [70.9, 81.0, 91.1], "b": b}, of(0))["verdict"] == "cannot tell", "which seed has which counts"
    fewer = judged({"a": [81.0, 91.1, 70.9], "b": b[:2]}, of(0))
    assert (fewer["verdict"], fewer["gap"]["paired"], fewer["gap"]["seeds"]) == ("cannot tell", False, 2)


def test_other_numbers_of_seeds_have_welchs_error(judged):
    found = judged({"a": [95.0, 95.2, 94.8, 95.1, 94.9], "b": [90.0, 90.5, 89.5]}, of(0))
    assert (found["verdict"], found["gap"]["paired"], found["gap"]["seeds"]) == ("held", False, 3)
    assert found["gap"]["p"] == pytest.approx(1 / math.comb(8, 3))


@pytest.mark.parametrize("values", [[math.inf, 3.0], [math.inf, math.inf]])
def test_a_metric_that_is_infinite_with_a_seed_decides_nothing(judged, values):
    found = judged({"a": values, "b": [3.0, 3.1]}, of(0))
    assert (found["verdict"], found["more"]) == ("cannot tell", None)
    assert found["because"] == "infinite with some seed, so no spread is known" and found["gap"]["low"] is None


def test_what_is_not_measured_has_no_verdict(judged):
    found = judged({"a": [90.0]}, of(0))
    assert (found["verdict"], found["gap"]) == ("not measured", None)
    assert found["because"] == "accuracy of b is not measured at scale demo"


def test_a_claim_that_a_scale_cannot_test_has_no_verdict_but_its_numbers(judged):
    rows = {"a": [95.0, 95.2, 94.8], "b": [90.0, 90.5, 89.5]}
    found = judged(rows, of(0, not_tested={"demo": "six passes", "gpu": "x"}))
    assert (found["verdict"], found["because"], found["grey"]) == ("not tested", "six passes", False)
    assert found["gap"]["mean"] == pytest.approx(5.0) and found["more"] is None
    assert judged({"a": [95.0]}, of(0, not_tested={"demo": "six passes"}))["verdict"] == "not tested"
    assert judged(rows, of(0, not_tested={"laptop": "six passes"}))["verdict"] == "held"


def test_a_doubt_leaves_the_verdict_and_greys_it(judged):
    found = judged({"a": [95.0, 95.2, 94.8], "b": [90.0, 90.5, 89.5]}, of(0, doubt={"demo": "few updates"}))
    assert (found["verdict"], found["because"], found["grey"]) == ("held", "few updates", True)
    one = judged({"a": [95.0], "b": [90.0]}, of(0, doubt={"demo": "few updates"}))
    assert one["because"] == "one seed: no spread is known; few updates"


@pytest.mark.parametrize(("factor", "word"), [(3, "held"), (4, "did not hold")])
def test_a_claim_about_something_counted_goes_by_the_ratio(judged, factor, word):
    claim = {"text": "x", "metric": "accuracy", "row": "a", "against": "b", "factor": factor}
    found = judged({"a": [10.0], "b": [35.0]}, claim)
    assert (found["verdict"], found["ratio"], found["kind"], found["grey"]) == (word, 3.5, "factor", False)
    assert (found["gap"], found["because"], found["scale"], found["timed"]) == (None, None, "demo", None)
    timed = judged({"a": [10.0], "b": [35.0]}, claim, timed={"where": "a card, fp32", "how": "twice"})
    assert timed["timed"] == "a card, fp32"


# Told beside it


def test_what_the_paper_prints_of_both_rows(judged):
    printed = {"a": {"accuracy": 59.3}, "b": {"accuracy": 60.25}}
    rows = {"a": [1.0, 2.0], "b": [1.0, 2.5]}
    ratio = {"text": "x", "metric": "accuracy", "row": "a", "against": "b", "factor": 1, "source": "Table 1"}
    paper, ours, factor = judged(rows, of(-2, source="Table 1"), of(0, ours=True), ratio, printed=printed)
    assert paper["paper"] == {"row": 59.3, "against": 60.25, "gap": pytest.approx(-0.95), "ratio": None}
    assert (paper["source"], paper["ours"], ours["source"], ours["ours"]) == ("Table 1", False, None, True)
    assert ours["paper"] is None and factor["paper"]["ratio"] == pytest.approx(60.25 / 59.3)
    assert [one["id"] for one in (paper, ours, factor)] == ["table1-1", "table1-2", "table1-3"]
    lower = judged(rows, of(0), printed=printed, better="lower")
    assert lower["paper"]["gap"] == pytest.approx(0.95), "positive where the row is better"
    assert judged(rows, of(0), printed={"a": {"accuracy": 1.0}})["paper"] is None
    assert judged(rows, {**ratio, "stated": 3})["paper"] == {"row": None, "against": None, "gap": None, "ratio": 3}


def test_another_column_may_stand_in_for_the_papers(tmp_path):
    claim = of(0, metric="ppl_llama", measured_as={"demo": "accuracy"})
    rows = {"a": [95.0, 95.2, 94.8], "b": [90.0, 90.5, 89.5]}
    printed = {"a": {"ppl_llama": 12.3}, "b": {"ppl_llama": 14.6}}
    path, csv = written(tmp_path, rows, [claim], printed=printed, extractor="a small one")
    about = json.loads(path.read_text())
    about["paper"]["metrics"] = {"ppl_llama": {"better": "lower", "extractor": "Llama"}}
    path.write_text(json.dumps(about))
    table(path, csv)
    (found,) = of_table(Results(path), read(csv))
    assert (found["verdict"], found["metric"]) == ("held", "accuracy")
    assert found["in_place_of"] == "ppl_llama"
    assert found["paper"]["gap"] == pytest.approx(2.3) and found["stand_in"].endswith("a small one for Llama")


def test_more_seeds_are_those_that_decide_at_this_spread_and_cost_what_seeds_did(judged):
    found = judged({"a": list(90.3 + NOISE), "b": [90.0] * 3}, of(0))  # one deviation: t(4) / sqrt(5) = 0.953
    assert found["more"] == {"seeds": 2, "hours": pytest.approx(2 * 2 * SECONDS / 3600)}
    assert judged({"a": list(90 + NOISE), "b": [90.0] * 3}, of(0))["more"] is None, "equal means: no number of them"
    assert judged({"a": [99.0, 99.1, 99.2], "b": [90.0] * 3}, of(0))["more"] is None, "it is decided"


def test_of_a_claim_with_a_control_both_must_be_decided(judged):
    """Ahead of both by little: as many as the harder needs, of three rows; behind one of them: those suffice."""
    rows = {"a": list(90.3 + NOISE), "b": [90.0] * 3, "s": [90.1] * 3}
    found = judged(rows, of(0), depth=DEPTH)
    assert found["verdict"] == "cannot tell" and found["control"]["mean"] == pytest.approx(0.2)
    assert found["more"] == {"seeds": 6, "hours": pytest.approx(3 * 6 * SECONDS / 3600)}  # t(8) / 3 < 2 / 3 deviations
    behind = judged({**rows, "s": [90.6] * 3}, of(0), depth=DEPTH)
    assert behind["verdict"] == "cannot tell" and behind["more"]["seeds"] == 2
    both = judged({"a": rows["a"], "b": [90.5] * 3, "s": [90.6] * 3}, of(0), depth=DEPTH)
    assert both["more"]["seeds"] == 2, "behind both: the easier one"


# The control


DEPTH = [{"metric": "accuracy", "deep": "b", "shallow": "s"}]


SMALL = {"s": {"title": "small"}}


def controlled(judged, a, b, s, margin, noise=NOISE, depth=DEPTH, **about):
    """The verdict on `a` against `b`, under the control `s`, each around its mean."""
    rows = {"a": a + noise, "b": b - noise / 2, "s": s + noise / 2}
    return judged({row: list(values) for row, values in rows.items()}, of(margin), depth=depth, about=SMALL, **about)


@pytest.mark.parametrize(
    ("a", "b", "s", "margin", "word", "because"),
    [
        (90.0, 91.0, 85.0, -2, "held", None),
        (91.0, 90.0, 90.1, 0, "held", None),  # ahead of both, where end to end makes nothing of its depth
        (90.0, 90.1, 90.1, -2, "cannot tell", "depth is not shown to be worth anything here, within the error"),
        (90.0, 89.0, 90.1, -2, "cannot tell", "depth is worth less than nothing at this scale"),
        (90.0, 91.0, 90.1, -2, "cannot tell", "no better than the control (small), within the error"),
        (90.0, 90.1, 90.1, 0, "cannot tell", "depth is not shown to be worth anything here, within the error"),
        (90.0, 90.1, 85.0, 0, "cannot tell", None),
        (90.0, 90.1, 91.0, -2, "did not hold", "worse than the control (small)"),  # within the margin
        (90.0, 90.1, 91.0, 0, "did not hold", "worse than the control (small)"),
        (90.0, 95.0, 85.0, -2, "did not hold", None),
        (90.0, 95.0, 90.1, -2, "did not hold", None),
        (90.0, 95.0, 95.0, -2, "did not hold", "worse than the control (small)"),
    ],
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_claim_about_depth_is_held_against_the_control_too(judged, a, b, s, margin, word, because, better):
    sign = -1 if better == "lower" else 1
    found = controlled(judged, sign * a, sign * b, sign * s, margin, better=better)
    assert (found["verdict"], found["because"]) == (word, because)
    assert found["control"]["row"] == "s" and found["control"]["mean"] == pytest.approx(a - s)


def test_of_one_seed_the_control_says_nothing(judged):
    found = controlled(judged, 90.0, 91.0, 91.0, -2, noise=np.zeros(1))
    assert (found["verdict"], found["because"]) == ("cannot tell", "one seed: no spread is known")
    assert found["control"]["low"] is None


def test_where_depth_is_not_shown_to_be_worth_anything_other_reasons_are_told_too(judged):
    rows = {"a": [90.0], "b": [90.0, 90.5, 89.5], "s": [90.1, 89.9, 90.0]}
    because = "depth is not shown to be worth anything here, within the error; one seed: no spread is known"
    assert judged(rows, of(-2), depth=DEPTH)["because"] == because


@pytest.mark.parametrize(
    ("layer", "place"),
    [("tables.table7.demo", "workflow/tables/table7.yaml"), ("tables.mine.demo", "tables.mine.demo")],
)
def test_more_seeds_than_a_row_may_have_say_what_has_to_be_lifted(judged, layer, place):
    pinned = {"a": {"settings": {"seeds_at_most": [1, layer]}}}
    found = judged({"a": [90.0], "b": [80.0]}, of(0), about=pinned)
    assert found["because"] == f"one seed: no spread is known; more need seeds_at_most lifted in {place}"
    enough = {"a": {"settings": {"seeds_at_most": [3, layer]}}, "b": {"settings": {"seeds_at_most": [None, layer]}}}
    assert judged({"a": [90.0], "b": [80.0]}, of(0), about=enough)["because"] == "one seed: no spread is known"


HIGH, LOW = ([near + step for step in (0.0, 0.2, -0.2)] for near in (95.0, 85.0))


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize(
    ("ours", "otherwise", "verdict", "other"),
    [
        (HIGH, HIGH, "held", "held"),
        (HIGH, LOW, "held", "did not hold"),
        (HIGH, [70.0, 99.0, 95.0], "held", "cannot tell"),
        ([70.0, 99.0, 95.0], HIGH, "cannot tell", "held"),
        (LOW, HIGH, "did not hold", "held"),
        (LOW, LOW, "did not hold", "did not hold"),
    ],
)
def test_a_verdict_that_another_measure_contradicts_is_grey(judged, ours, otherwise, verdict, other, better):
    if better == "lower":
        ours, otherwise = ([180 - value for value in values] for values in (ours, otherwise))
    base = [90.0, 90.1, 89.9]
    found = judged({"a": ours, "b": base}, of(0), better=better, otherwise={"a": otherwise, "b": base})
    check = found["cross_check"]
    assert (found["verdict"], check["verdict"], check["metric"]) == (verdict, other, "accuracy_4_steps")
    sign = -1 if better == "lower" else 1
    assert check["mean"] == pytest.approx(sign * (mean(otherwise) - 90))
    assert check["low"] < check["mean"] < check["high"]
    assert found["grey"] == (verdict != other)
    if verdict == other:
        assert found["because"] is None
    else:
        assert f"by accuracy 4 steps: {other} ({check['mean']:+.2f} ± " in found["because"]


def test_a_cross_check_is_held_against_the_control_too(judged):
    rows = {"a": [90.0, 90.2, 89.8], "b": [91.0, 91.1, 90.9], "s": [88.0, 88.1, 87.9]}
    found = judged(rows, of(-2), depth=DEPTH, otherwise={**rows, "s": [92.0, 92.1, 91.9]})
    assert (found["verdict"], found["cross_check"]["verdict"], found["grey"]) == ("held", "did not hold", True)


def test_without_numbers_of_both_rows_nothing_is_checked(judged):
    rows = {"a": HIGH, "b": [90.0, 90.1, 89.9]}
    found = judged(rows, of(0), otherwise={"a": LOW})
    assert (found["verdict"], found["cross_check"], found["grey"]) == ("held", None, False)
    assert judged(rows, of(0))["cross_check"] is None


def test_images_are_judged_over_another_grid_too():
    """Where that grid is measured; the others' plans have no such check."""
    checks = {scale: shipped(scale).written for scale in SCALES}
    for table_name in ("table2", "table7", "table8", "table_a2"):
        found = {scale: written[f"tables/{table_name}"]["cross_checks"] for scale, written in checks.items()}
        assert found == {scale: {"fid_test": "fid_test_karras"} if scale == "laptop" else {} for scale in SCALES}


def test_the_control_has_no_say_in_other_claims(judged):
    elsewhere = controlled(judged, 90.0, 90.1, 91.0, -2, depth=[{**DEPTH[0], "deep": "s", "shallow": "b"}])
    assert (elsewhere["verdict"], elsewhere["control"]) == ("held", None)
    absent = controlled(judged, 90.0, 90.1, 91.0, -2, depth=[{**DEPTH[0], "shallow": "none"}])
    assert (absent["verdict"], absent["control"]) == ("held", None), "where it is not measured"
    counted = {"text": "x", "metric": "accuracy", "row": "a", "against": "b", "factor": 2}
    itself = {**CLAIM, "row": "s", "against": "b"}
    assert not shallow_of(counted, DEPTH) and not shallow_of(itself, DEPTH) and not shallow_of(CLAIM, [])
    other = {**DEPTH[0], "deep": "c", "shallow": "t"}
    assert shallow_of(CLAIM, [other, *DEPTH]) == "s" and shallow_of({**CLAIM, "against": "c"}, [*DEPTH, other]) == "t"


@pytest.mark.parametrize(
    ("deep", "shallow", "better", "word"),
    [
        ([90.0, 91.0], [80.0, 81.1], "higher", "something"),
        ([90.0, 91.0], [80.0, 81.1], "lower", "less than nothing"),
        ([90.0, 91.0], [90.5, 90.4], "higher", "not shown"),
        ([90.0], [10.0], "higher", "unknown"),
    ],
)
def test_what_depth_is_worth(tmp_path, deep, shallow, better, word):
    _, csv = written(tmp_path, {"b": deep, "s": shallow}, [], better=better)
    claims = [CLAIM, {**CLAIM, "against": "c", "metric": "kid"}, {**CLAIM, "metric": "mauve"}]
    found, absent = worth_of_depth(*DEPTH, claims, read(csv))
    assert (found["worth"], found["metric"], found["seeds"]) == (word, "accuracy", len(deep))
    assert found["difference"] == pytest.approx(mean(deep) - mean(shallow))
    unknown = {"metric": "mauve", "unit": None, "better": None, "worth": "not measured"}
    assert absent == unknown, "in the metric of each claim about it"
    if len(deep) > 1:
        spread = stdev(a - b for a, b in zip(deep, shallow, strict=True))
        assert found["error"] == pytest.approx(T[1] * spread / math.sqrt(2))


# How often it errs, with the control and all


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_equal_rows_few_claims_hold(tmp_path, seeds):
    """Blocks, end to end and the control alike: "held" in a twentieth at most, since both must be cleared."""
    path, csv = written(tmp_path, {row: [90.0] * seeds for row in "abs"}, [of(0)], depth=DEPTH)
    results, frame, draw, trials = Results(path), read(csv), np.random.default_rng(3), 250
    words = []
    for _ in range(trials):
        frame["values"] = [";".join(map(str, values)) for values in 90 + draw.normal(size=(3, seeds))]
        words += [claim["verdict"] for claim in of_table(results, frame)]
    assert words.count("held") <= 0.05 * trials and words.count("did not hold") <= 0.15 * trials
    assert words.count("cannot tell") >= 0.8 * trials


# claims.json


def test_claims_are_written_and_printed(tmp_path, capsys):
    claims = [of(0, source="Table 1", doubt={"demo": "few updates"}), of(5, text="Longer. " * 20, ours=True), of(0)]
    path, csv = written(tmp_path, {"a": [95.0, math.inf, 94.8], "b": [90.0, 90.5, 89.5]}, claims)
    made = tmp_path / "claims.json"
    verdicts([path], [csv], made)
    found = json.loads(made.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found["scale"] == "demo" and found["confidence"] == 0.9 and set(found["counts"]) == set(VERDICTS)
    assert found["counts"]["cannot tell"] == 2 and found["counts_of_ours"]["cannot tell"] == 1
    assert found["claims"][0]["gap"]["mean"] is None
    lines = told(made).splitlines()
    assert (
        max(map(len, lines)) <= 100
        and " ".join(lines[-2:])
        == "At scale demo, of 2 claims of the paper: 2 cannot tell; and of 1 of ours: 1 cannot tell. "
        "Do not lean on those with a question mark."
    )
    assert lines[1].split()[:4] == ["cannot", "tell", "?", "infinite"] and "Table 1: a is at most 2 worse" in lines[1]
    assert "few updates]" in " ".join(lines)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other.json: is no claims.json .* snakemake claims"):
        told(tmp_path / "other.json")


def test_the_verbs_write_and_print_them(tmp_path, monkeypatch, capsys):
    rows = {"a": [95.0, 95.2, 94.8], "b": [90.0, 90.5, 89.5], "c": [90.1, 91.9, 94.0]}
    path, csv = written(tmp_path, rows, [of(0), of(0, against="c"), of(0, text="x", factor=2) | {"margin": 0}])
    about = json.loads(path.read_text())
    about["claims"][2].pop("margin")
    path.write_text(json.dumps(about))
    made = str(tmp_path / "claims.json")
    for words in (["verdicts", str(path), "--tables", str(csv), "-o", made], ["claims", made]):
        monkeypatch.setattr("sys.argv", ["diffusionblocks", *words])
        main()
    printed = capsys.readouterr().out
    assert re.search(r"^held +\+5.00 ± 0\.\d+ ", printed, re.MULTILINE) and "accuracy, 3 seeds" in printed
    assert re.search(r"\d more: \d+ seconds", printed) and "0.95 times" in printed
    assert "At scale demo, of 3 claims of the paper: 1 held, 1 did not hold, 1 cannot tell." in printed


def test_the_documentation_has_every_key_and_its_example_is_a_claim(judged):
    text = (ROOT / "docs/claims.md").read_text()
    keys = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    found = judged({"a": [95.0], "b": [90.0]}, of(0))
    assert keys == set(found)
    parts = re.search(r"^\| `gap` \| `{([^}]*)}", text, re.MULTILINE)[1]
    assert set(parts.split(", ")) == set(found["gap"])
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = merge(yaml.safe_load((ROOT / "config.yaml").read_text()), {"select": ["table1"]})
    plan = Plan.of(merge(complete(config), yaml.safe_load(example)))
    assert plan.written["tables/table1"]["claims"][0]["doubt"] == {"laptop": "still short of where it can get"}


# What ships


# Where the control learns at a rate of its own, its best by validation data: a handicapped control decides nothing.
OWN_RATE = {("laptop", "table3")}


@pytest.mark.parametrize("scale", SCALES)
def test_a_control_has_the_layers_of_one_block(scale):
    """And is trained and measured as the row that it is for, in all tables of results that compare with it."""
    plan, found = shipped(scale), []
    for name in plan.tables:
        about = plan.written[f"tables/{name}"]
        for control in about["depth"]:
            deep, shallow = (plan.rows[name, control[key]] for key in ("deep", "shallow"))
            blocks = [plan.rows[name, claim["row"]] for claim in about["claims"] if claim["against"] == shallow.name]
            for row in blocks:
                method = row.method_settings
                sizes = split_layers(layers_of(row.model), method["num_blocks"], method["layers_per_block"])
                assert max(map(len, sizes)) == layers_of(shallow.model), f"{name}/{row.name}"
            assert blocks and all(claim.get("ours") for claim in about["claims"] if claim["against"] == shallow.name)
            assert shallow.model == {**deep.model, "num_layers": layers_of(shallow.model)}
            for section in ("data", "method", "metrics", "sample_sets", "seeds"):
                assert getattr(shallow, section) == getattr(deep, section)
            own = {"lr": shallow.train["lr"]} if (scale, name) in OWN_RATE else {}
            assert shallow.train == {**deep.train, **own}
            against_deep = {claim["row"] for claim in about["claims"] if shallow_of(claim, [control])}
            assert against_deep == {row.name for row in blocks}
            found.append(name)
    assert found == ["table1", "table2", "table2", "table3", "table4", "table6", "table_a1"]


def test_claims_are_about_rows_of_their_table():
    plan, count = shipped(), 0
    for name in plan.tables:
        about = plan.written[f"tables/{name}"]
        for claim in about["claims"]:
            ours = plan.rows[plan.origins[name, claim["row"]]].metrics
            # What is counted need not be printed, nor what we claim ourselves.
            printed = [] if claim.get("ours") else about["paper"]["metrics"]
            assert claim["metric"] in ({*ours, *printed} if "factor" in claim else printed or ours)
            assert {claim["row"], claim["against"]} <= {*about["paper"]["rows"], *about["rows"]}
            count += 1
    assert count > 60


TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "workflow/tables").glob("*.yaml")}


def test_every_table_of_the_paper_has_claims_with_their_place_and_sentences_that_stand_alone():
    sentences = [claim["text"] for about in TABLES.values() for claim in about["claims"]]
    assert len(set(sentences)) == len(sentences)
    for text in sentences:
        assert text[0].isupper() and text.endswith(".") and len(text.split()) > 8, text
        assert not re.match(r"(And|Nor|The same|They|It|Also|But|Three blocks do)\b", text), text
    for name, about in TABLES.items():
        of_the_paper = [claim for claim in about["claims"] if not claim.get("ours")]
        assert of_the_paper and all(re.match(r"Table|Section|Appendix", claim["source"]) for claim in of_the_paper), (
            name
        )
        table_of = about["printed"]["source"]
        assert any(claim["source"].startswith(table_of) for claim in of_the_paper), name


def test_a_claim_that_a_scale_cannot_test_says_why_in_words_that_stand_in_a_sentence():
    reasons = {
        (name, scale): why
        for name, about in TABLES.items()
        for claim in about["claims"]
        for scale, why in (claim.get("not_tested", {}) | claim.get("doubt", {})).items()
    }
    assert all(why[0].islower() or why[0].isdigit() for why in reasons.values())
    assert {("table5", "demo"), ("table5", "laptop"), ("table6", "demo"), ("table3", "demo")} <= set(reasons)
    passes = TABLES["table5"]["demo"]["model"]
    assert f"{passes['mean_recurrence']} recurrent passes" in reasons["table5", "demo"]


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "paper"])
def test_no_claim_hangs_on_one_seed(scale):
    """At scale paper a seed more is dear: there a claim says what it would cost."""
    plan = shipped(scale)
    rows = {
        plan.origins[name, claim[key]]
        for name in plan.tables
        for claim in plan.written[f"tables/{name}"]["claims"]
        if "margin" in claim
        for key in ("row", "against")
    }
    assert rows and all(len(plan.rows[origin].seeds) >= 3 for origin in rows)

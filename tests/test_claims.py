"""What the paper claims, and when our numbers say that it held."""

import math
from statistics import mean, stdev

import pandas as pd
import pytest
from conftest import shipped
from test_golden import SCALES

from diffusionblocks.diffusion.partition import layers_of, split_layers
from diffusionblocks.page.claims import is_about_depth, verdict, worth_of_depth


@pytest.mark.parametrize(("factor", "word"), [(3, "held"), (4, "did not hold")])
def test_a_claim_about_something_counted_goes_by_the_ratio(factor, word):
    about = {"metric": "training_layers", "better": math.nan, "scale": "paper", "timed": math.nan}
    lines = [{**about, "row": row, "ours": ours} for row, ours in (("one_pass", 10.0), ("many", 35.0))]
    claim = {"metric": "training_layers", "row": "one_pass", "against": "many", "factor": factor}
    found = verdict(claim, pd.DataFrame(lines))
    assert found["verdict"] == word and found["ratio"] == 3.5 and found["scale"] == "paper"
    assert found["timed"] is None
    lines = [{**line, "timed": "a card, fp32"} for line in lines]
    assert verdict(claim, pd.DataFrame(lines))["timed"] == "a card, fp32"


def cells(ours, other, std=(1.0, 1.0), seeds=(4, 5), better="higher"):
    """Lines of two rows with other seeds, so that only their spreads are known."""
    lines = [
        {"row": row, "metric": "accuracy", "ours": value, "std": s, "seeds": n, "better": better, "stand_in": stand_in}
        for row, value, s, n, stand_in in zip(("a", "b"), (ours, other), std, seeds, ("x for y", math.nan), strict=True)
    ]
    return pd.DataFrame(lines)


def lines(better="higher", unit="%", metric="accuracy", **rows):
    """Lines of the csv. rows: {row: its values, one of each seed}."""
    return pd.DataFrame(
        {
            **{"row": row, "metric": metric, "unit": unit, "better": better, "stand_in": math.nan},
            **{"ours": mean(values), "std": stdev(values) if len(values) > 1 else math.nan, "seeds": len(values)},
            "values": ";".join(map(str, values)),
        }
        for row, values in rows.items()
    )


CLAIM = {"text": "a is at most 2 worse than b", "metric": "accuracy", "row": "a", "against": "b", "margin": -2}
# Two standard errors of the difference, with deviation 1, and 4 and 5 seeds: 2 sqrt(1/4 + 1/5) = 1.342.


@pytest.mark.parametrize(
    ("ours", "other", "word"),
    [
        (90.0, 90.0, "held"),
        (89.5, 90.0, "held"),
        (89.34, 90.0, "undecided"),
        (88.0, 90.0, "undecided"),
        (86.67, 90.0, "undecided"),
        (86.65, 90.0, "did not hold"),
        (math.nan, 90.0, "not measured"),
        (90.0, math.nan, "not measured"),
    ],
)
def test_verdict_over_seeds(ours, other, word):
    found = verdict(CLAIM, cells(ours, other))
    assert found["verdict"] == word and found["text"] == CLAIM["text"]
    if word != "not measured":
        assert found["difference"] == pytest.approx(ours - other)
        assert found["error"] == pytest.approx(2 * math.sqrt(0.45)) and found["stand_in"] == "x for y"


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
    assert verdict(claim, cells(12.4, 13.0, better="lower"))["verdict"] == "undecided", "two standard errors are 1.34"
    assert verdict(claim, cells(10.0, 13.0, better="lower"))["difference"] == pytest.approx(-3.0)


# By seed


def test_rows_of_the_same_seeds_are_compared_seed_by_seed():
    """Seeds that move both rows alike do not blur their difference: 1.0, 1.1, 0.9 in place of spreads of 10."""
    frame, claim = lines(a=[81.0, 91.1, 70.9], b=[80.0, 90.0, 70.0]), {**CLAIM, "margin": 0}
    found = verdict(claim, frame)
    assert (found["verdict"], found["paired"], found["seeds"]) == ("held", True, 3)
    assert found["difference"] == pytest.approx(1.0) and found["error"] == pytest.approx(2 * 0.1 / math.sqrt(3))
    swapped = verdict(claim, lines(a=[70.9, 81.0, 91.1], b=[80.0, 90.0, 70.0]))
    assert swapped["verdict"] == "undecided", "which seed has which value counts"
    fewer = verdict(claim, lines(a=[81.0, 91.1, 70.9], b=[80.0, 90.0]))
    assert (fewer["verdict"], fewer["paired"], fewer["seeds"]) == ("undecided", False, 2)
    one = verdict(claim, lines(a=[99.0], b=[80.0]))
    assert (one["verdict"], one["paired"], one["error"]) == ("undecided", False, None)


# The control


DEPTH = {"metric": "accuracy", "deep": "b", "shallow": "s"}
NOISE = (-0.3, 0.0, 0.3)  # of the seeds of `a`, alone: an error of 2 * 0.3 / sqrt(3) = 0.35 to all other rows


def controlled(a, b, s, margin, noise=NOISE, depth=DEPTH, **about):
    """The verdict on `a` against `b`, under the control `s`, each around its mean."""
    rows = {"a": [a + n for n in noise], "b": [b - n / 2 for n in noise], "s": [s + n / 2 for n in noise]}
    return verdict({**CLAIM, "margin": margin}, lines(**rows, **about), depth)


@pytest.mark.parametrize(
    ("a", "b", "s", "margin", "word", "because"),
    [
        (90.0, 91.0, 85.0, -2, "held", None),
        (91.0, 90.0, 90.1, 0, "held", None),  # ahead of both, where end to end makes nothing of its depth
        (90.0, 90.1, 90.1, -2, "undecided", "depth is worth nothing at this scale"),
        (90.0, 89.0, 90.1, -2, "undecided", "depth is worth nothing at this scale"),  # less than nothing
        (90.0, 91.0, 90.1, -2, "undecided", "no better than s, a net of one block’s size, within the error"),
        (90.0, 90.1, 90.1, 0, "undecided", "depth is worth nothing at this scale"),
        (90.0, 90.1, 85.0, 0, "undecided", None),
        (90.0, 90.1, 91.0, -2, "did not hold", "worse than s, a net of one block’s size"),  # within the margin
        (90.0, 90.1, 91.0, 0, "did not hold", "worse than s, a net of one block’s size"),
        (90.0, 95.0, 85.0, -2, "did not hold", None),
        (90.0, 95.0, 90.1, -2, "did not hold", None),
        (90.0, 95.0, 95.0, -2, "did not hold", "worse than s, a net of one block’s size"),
    ],
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_claim_about_depth_is_held_against_the_control_too(a, b, s, margin, word, because, better):
    sign = -1 if better == "lower" else 1
    found = controlled(sign * a, sign * b, sign * s, margin, better=better)
    assert (found["verdict"], found["because"]) == (word, because)
    assert found["control"]["row"] == "s" and found["control"]["difference"] == pytest.approx(sign * (a - s))


def test_of_one_seed_the_control_says_nothing():
    found = controlled(90.0, 91.0, 91.0, -2, noise=(0.0,))
    assert (found["verdict"], found["because"], found["control"]["error"]) == ("undecided", None, None)


def test_the_control_has_no_say_in_other_claims():
    elsewhere = controlled(90.0, 90.1, 91.0, -2, depth={**DEPTH, "deep": "s", "shallow": "b"})
    assert (elsewhere["verdict"], elsewhere["control"]) == ("held", None)
    absent = controlled(90.0, 90.1, 91.0, -2, depth={**DEPTH, "shallow": "none"})
    assert (absent["verdict"], absent["control"]) == ("held", None), "where it is not measured"
    counted = {"text": "x", "metric": "accuracy", "row": "a", "against": "b", "factor": 2}
    itself = {**CLAIM, "row": "s", "against": "b"}
    assert not is_about_depth(counted, DEPTH) and not is_about_depth(itself, DEPTH) and not is_about_depth(CLAIM, None)


@pytest.mark.parametrize(
    ("deep", "shallow", "better", "word"),
    [
        ([90.0, 91.0], [80.0, 81.1], "higher", "something"),
        ([90.0, 91.0], [80.0, 81.1], "lower", "less than nothing"),
        ([90.0, 91.0], [90.5, 90.4], "higher", "nothing"),
        ([90.0], [10.0], "higher", "unknown"),
    ],
)
def test_what_depth_is_worth(deep, shallow, better, word):
    (found,) = worth_of_depth(DEPTH, [], lines(b=deep, s=shallow, better=better))
    assert (found["worth"], found["metric"], found["seeds"]) == (word, "accuracy", len(deep))
    assert found["difference"] == pytest.approx(mean(deep) - mean(shallow))


def test_depth_is_weighed_in_the_metric_of_each_claim_about_it():
    frame = pd.concat([lines(b=[2.0, 2.1], s=[2.4, 2.6], metric="loss", better="lower"), lines(b=[9.0, 9.1])])
    claims = [{**CLAIM, "metric": "mauve"}, {**CLAIM, "against": "c", "metric": "kid"}, CLAIM]
    found = worth_of_depth({**DEPTH, "metric": "loss"}, claims, frame)
    assert [(one["metric"], one["worth"]) for one in found] == [
        ("loss", "something"), ("mauve", "not measured"), ("accuracy", "not measured")
    ]  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
def test_a_control_has_the_layers_of_one_block(scale):
    """And is trained and measured as the row that it is for, in all tables of results that compare with it."""
    plan, found = shipped(scale), set()
    for table in plan.tables:
        about = plan.written[f"tables/{table}"]
        if not (depth := about["depth"]):
            continue
        deep, shallow = (plan.rows[table, depth[key]] for key in ("deep", "shallow"))
        blocks = [plan.rows[table, claim["row"]] for claim in about["claims"] if claim["against"] == shallow.name]
        for row in blocks:
            method = row.method_settings
            sizes = split_layers(layers_of(row.model), method["num_blocks"], method["layers_per_block"])
            assert max(map(len, sizes)) == layers_of(shallow.model), f"{table}/{row.name}"
        assert blocks and all(claim.get("ours") for claim in about["claims"] if claim["against"] == shallow.name)
        assert shallow.model == {**deep.model, "num_layers": layers_of(shallow.model)}
        for section in ("data", "method", "train", "metrics", "sample_sets", "seeds"):
            assert getattr(shallow, section) == getattr(deep, section)
        against_deep = {claim["row"] for claim in about["claims"] if is_about_depth(claim, depth)}
        assert against_deep == {row.name for row in blocks}
        found.add(table)
    assert found == {"table1", "table2", "table3", "table4", "table6", "table_a1"}


def test_claims_are_about_rows_of_their_table():
    plan, count = shipped(), 0
    for table in plan.tables:
        about = plan.written[f"tables/{table}"]
        for claim in about["claims"]:
            ours = plan.rows[plan.origins[table, claim["row"]]].metrics
            # What is counted is printed nowhere, and what we claim ourselves need not be.
            assert claim["metric"] in (ours if "factor" in claim or claim.get("ours") else about["paper"]["metrics"])
            assert {claim["row"], claim["against"]} <= {*about["paper"]["rows"], *about["rows"]}
            count += 1
    assert count > 20


def test_a_claim_in_a_metric_that_is_infinite_with_a_seed_is_undecided():
    frame = lines(a=[1.0, 3.0], b=[3.0, 3.1])
    frame.loc[frame["row"] == "a", ["ours", "std", "values"]] = [math.inf, math.nan, "inf;3.0"]
    claim = {"text": "", "metric": "accuracy", "row": "a", "against": "b", "margin": 0}
    found = verdict(claim, frame)
    assert found["verdict"] == "undecided" and found["error"] is None

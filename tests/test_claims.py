"""What the paper claims, and when our numbers say that it held."""

import math

import pandas as pd
import pytest
from conftest import shipped

from diffusionblocks.page.claims import verdict


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


def test_claims_are_about_rows_of_their_table():
    plan, count = shipped(), 0
    for table in plan.tables:
        about = plan.written[f"tables/{table}"]
        for claim in about["claims"]:
            ours = plan.rows[plan.origins[table, claim["row"]]].metrics
            # What is counted is printed nowhere.
            assert claim["metric"] in (ours if "factor" in claim else about["paper"]["metrics"])
            assert {claim["row"], claim["against"]} <= {*about["paper"]["rows"], *about["rows"]}
            count += 1
    assert count > 20

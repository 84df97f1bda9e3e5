"""Metrics, printed numbers and claims that evaluation or the page could not use are refused before a job starts."""

import pytest
from test_check import CONFIG, ROW, edited, refusal

from diffusionblocks.base.files import UserError
from diffusionblocks.base.source import tree
from diffusionblocks.plan.check import check, check_frame
from diffusionblocks.plan.check_claims import check_claims
from diffusionblocks.plan.plan import Plan

PRINTED = {"title": "x", "source": "Table 9"}
P1 = "tables__table1__printed"
C1 = "tables__table1__claims"
D1 = "tables__table1__depth"
X1 = "tables__table1__cross_checks"
CONTROL = {"metric": "accuracy", "deep": "vit_end_to_end", "shallow": "vit_shallow"}
CLAIM = {"text": "x", "row": "vit_diffusionblocks", "against": "vit_end_to_end", "metric": "accuracy", "margin": 0}
CLAIM["source"] = "Table 1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({P1: {}}, ["table1.printed", "needs 'title'"]),
        ({P1: {"title": "x"}}, ["table1.printed", "needs 'source'"]),
        ({P1: {**PRINTED, "metircs": {}}}, ["table1.printed", "unknown key 'metircs'; did you mean 'metrics'"]),
        ({P1: {**PRINTED, "rows": None}}, ["table1.printed.rows", "None should be a mapping"]),
        ({P1: {**PRINTED, "rows": ["a"]}}, ["table1.printed.rows", "['a'] should be a mapping"]),
        ({P1: {**PRINTED, "rows": {"a": None}}}, ["table1.printed.rows.a", "None should be a mapping"]),
        ({P1: {**PRINTED, "metrics": None}}, ["table1.printed.metrics", "None should be a mapping"]),
        ({P1: {**PRINTED, "metrics": {"m": None}}}, ["table1.printed.metrics.m", "None should be a mapping"]),
        ({f"{P1}__metrics__accuracy__better": "up"}, ["table1.printed.metrics.accuracy.better", "'up'"]),
        (
            {f"{P1}__rows__vit_end_to_end__accuracy": "60"},
            ["rows.vit_end_to_end.accuracy", "'60' should be of type number"],
        ),
        (
            {f"{P1}__rows__vit_end_to_end__accuracy": None},
            ["rows.vit_end_to_end.accuracy", "None should be of type number"],
        ),
        ({f"{P1}__rows__vit_end_to_end__against": "none"}, ["rows.vit_end_to_end.against: no row 'none'"]),
        ({f"{ROW}__against": "none"}, ["rows.vit_diffusionblocks.against: no row 'none'"]),
        ({f"{ROW}__paper_row": "vit_end"}, ["paper_row: the table prints no row 'vit_end'; did you mean 'vit_end_to"]),
        ({f"{P1}__rows__vit_end_to_end__elsewhere": {"top": {"value": 1, "source": "x"}}}, ["elsewhere", "'top'"]),
        ({f"{P1}__rows__vit_end_to_end__elsewhere": {"accuracy": {"value": 1}}}, ["accuracy", "needs 'source'"]),
        ({C1: [CLAIM, {**CLAIM, "factor": 2}]}, ["table1.claims.1: ", "exactly one of margin and factor"]),
        ({C1: [{k: v for k, v in CLAIM.items() if k != "margin"}]}, ["table1.claims.0: ", "exactly one of margin"]),
        ({C1: [{**CLAIM, "row": "vit_diffusionblock"}]}, ["claims.0.row", "did you mean 'vit_diffusionblocks'"]),
        ({C1: [{**CLAIM, "against": "none"}]}, ["claims.0.against: no row 'none'"]),
        ({C1: [{**CLAIM, "metric": "acuracy"}]}, ["claims.0.metric", "'acuracy'; did you mean 'accuracy'"]),
        ({C1: [None]}, ["table1.claims.0", "None should be a mapping"]),
        ({C1: [{**CLAIM, "ours": True}]}, ["table1.claims.0: say `source", "or `ours: true`", "not both"]),
        ({C1: [{k: v for k, v in CLAIM.items() if k != "source"}]}, ["table1.claims.0: say `source"]),
        ({C1: [{**CLAIM, "stated": 3}]}, ["table1.claims.0.stated: is for claims with a factor"]),
        ({C1: [{**CLAIM, "measured_as": {"demo": "acuracy"}}]}, ["claims.0.metric", "did you mean 'accuracy'"]),
        ({C1: [{**CLAIM, "not_tested": {"dem": "x"}}]}, ["claims.0.not_tested", "'dem'; did you mean 'demo'"]),
        ({C1: [{**CLAIM, "doubt": "x"}]}, ["table1.claims.0.doubt", "'x' should be a mapping"]),
        (
            {C1: [{**CLAIM, "not_tested": {"demo": "x"}, "doubt": {"demo": "y"}}]},
            ["claims.0: scale demo is in not_tested", "take it out of doubt"],
        ),
        ({C1: [{**CLAIM, "ours": "yes"}]}, ["table1.claims.0.ours", "'yes' should be of type boolean"]),
        ({D1: [{**CONTROL, "deep": "vit"}]}, ["table1.depth.0.deep: no row 'vit'"]),
        (
            {D1: [{**CONTROL, "shallow": "vit_shalow"}]},
            ["table1.depth.0.shallow: no row", "did you mean 'vit_shallow'"],
        ),
        ({D1: [{**CONTROL, "metric": "acuracy"}]}, ["table1.depth.0.metric", "'acuracy'; did you mean 'accuracy'"]),
        ({D1: [{**CONTROL, "metrics": "accuracy"}]}, ["table1.depth.0: unknown key 'metrics'; did you mean 'metric'"]),
        ({D1: [{"deep": "vit_end_to_end", "metric": "accuracy"}]}, ["table1.depth.0: needs 'shallow'"]),
        (
            {"tables__table1__rows__vit_shallow__demo__model__num_layers": 6},
            [
                "table1.depth.0.shallow: vit_shallow has 6 layers and vit_end_to_end 6",
                "model.num_layers of vit_shallow",
            ],
        ),
        ({D1: [{**CONTROL, "shallow": "vit_end_to_end"}]}, ["table1.depth.0.shallow: vit_end_to_end has 6 layers"]),
        ({X1: {"demo": {"acuracy": "brier"}}}, ["cross_checks.demo: no row measures 'acuracy'", "mean 'accuracy'"]),
        ({X1: {"demo": {"accuracy": "bryer"}}}, ["table1.cross_checks.demo: no row measures 'bryer'"]),
        ({X1: {"dem": {}}}, ["table1.cross_checks", "'dem'; did you mean 'demo'"]),
        ({X1: {"demo": "accuracy"}}, ["table1.cross_checks.demo", "should be a mapping"]),
        (
            {"tables__memory__depth": [{"deep": "a", "shallow": "b", "metric": "c"}]},
            ["memory.depth.0: is for tables that are trained", "leave it out"],
        ),
    ],
)
def test_what_is_printed_and_claimed_is_of_the_table(changes, words):
    config = edited(**changes)
    with pytest.raises(UserError) as refused:
        check_frame(config)
        check_claims(Plan(config))
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_a_claim_may_be_of_what_only_one_side_has():
    rows = dict(CONFIG["tables"]["table1"]["rows"])
    del rows["vit_diffusionblocks_joint"]  # it stands beside a row that is not printed here
    own = {"claims": [CLAIM], "rows": rows, "printed": {**PRINTED, "rows": {"vit_end_to_end": {}}}}
    config = edited(tables__table1=CONFIG["tables"]["table1"] | own)
    check_frame(config)
    check_claims(Plan(config))


@pytest.mark.parametrize("scale", ["demo", "laptop", "gpu", "paper"])
def test_the_papers_tables_print_and_claim_what_they_have(scale):
    config = edited(scale=scale)
    check_frame(config)
    check_claims(Plan(config))


METRIC = "import numpy as np\nfrom diffusionblocks.evaluation.metric import metric as m, metric\n\n\n"


@pytest.mark.parametrize(
    ("declared", "arguments", "words"),
    [
        ("", "logits", "own_metrics.mine is no metric: put `@metric(unit=..., better=...)` above it"),
        ("@metric", "logits", "own_metrics.mine is no metric"),
        ("@metric(better='up')", "logits", "better 'up' is not one of higher, lower, None"),
        ("@metric(figure='nope')", "correct", "figure 'nope' is not one of accuracy_chain"),
        ("@metric(over_sets='most')", "features", "over_sets 'most' is not one of mean, least"),
        ("@metric(units='s')", "logits", "@metric takes no 'units'; did you mean 'unit'"),
        ("@metric()", "logits, evaluations", "evaluations, logits do not come together"),
        ("@metric()", "logits, *, samples=1, unit=2", "rename its keyword samples, unit"),
        ("@m()", "logits, *, threshold=1", None),
    ],
)
def test_a_metric_that_evaluation_would_refuse(tmp_path, monkeypatch, declared, arguments, words):
    path = tmp_path / "own_metrics.py"
    path.write_text(f"{METRIC}{declared}\ndef mine({arguments}):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    tree.cache_clear()
    config = edited(**{f"{ROW}__metrics__column": {"name": "own_metrics.mine"}})
    if words is None:
        check(Plan(config))
    else:
        message = refusal(config)
        assert "vit_diffusionblocks.metrics.column" in message and f"{path}: " in message and words in message

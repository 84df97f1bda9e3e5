"""Tables of texts through the workflow: from config row to page, what they share, what a change does again."""

import copy
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY_TEXT, trainings

from diffusionblocks.page.claims import of_table
from diffusionblocks.page.results import Results, read

pytestmark = pytest.mark.slow

RECURRENT = ("huginn_end_to_end", "huginn_diffusionblocks", "huginn_diffusionblocks_calibrated")
LEARNED = "small language model trained on the data"


@pytest.fixture
def changed(written, tmp_path):
    """A copy of the checkout with tables 3 and 5, to be changed."""
    return written.copy(tmp_path / "checkout")


def table(checkout, name):
    return pd.read_csv(checkout.folder / f"results/demo/tables/{name}.csv").set_index(["metric", "row"])


def test_bits_per_character_from_config_row_to_csv(written):
    found = table(written, "table3")
    assert found.loc["bpc", "paper"].dropna().to_dict() == {"mdm_end_to_end": 1.56, "mdm_diffusionblocks": 1.45}
    for row in ("mdm_end_to_end", "mdm_diffusionblocks", "mdm_shallow"):
        line = found.loc["bpc", row]
        assert 1 < line["ours"] < 5 and line["stand_in"] == "State of the Union, characters for text8"
        assert 0 < found.loc[("monte_carlo_error", row), "ours"] < 1
    bpc = found.loc["bpc"]
    for row in ("mdm_diffusionblocks", "mdm_shallow"):
        assert bpc.loc[row, "gap"] == pytest.approx(bpc.loc[row, "ours"] - bpc.loc["mdm_end_to_end", "ours"])


def test_texts_are_judged_by_named_teachers(written):
    found = table(written, "table5")
    for row in RECURRENT:
        mauve = found.loc["mauve", row]
        assert 0 < mauve["ours"] <= 1 and mauve["samples"] == 80
        assert mauve["note"] == "mauve: against 40 real texts, by features that hardly see the order of tokens"
        assert mauve["stand_in"].endswith(f"for LM1B; {LEARNED} for GPT-2 large")
        # A perplexity under another teacher is another metric: the printed ones stay empty.
        assert pd.isna(found.loc[("ppl_llama2_7b", row), "ours"]) and found.loc[("ppl_ngram", row), "ours"] > 1
        assert found.loc[("ppl_ngram", row), "better"] == "lower"
    assert found.loc[("mauve", "huginn_diffusionblocks_calibrated"), "paper"] == 0.70


def test_compute_of_recurrence_is_counted_and_the_claim_goes_by_the_ratio(written, monkeypatch):
    found = table(written, "table5")["ours"]
    forward, backward = ({row: found[f"layers_{way}", row] for row in RECURRENT[:2]} for way in ("forward", "backward"))
    assert forward["huginn_diffusionblocks"] == backward["huginn_diffusionblocks"] == 4  # each layer once
    assert forward["huginn_end_to_end"] > backward["huginn_end_to_end"] > 4
    ratio = (forward["huginn_end_to_end"] + 2 * backward["huginn_end_to_end"]) / 12
    monkeypatch.chdir(written.folder)
    tables = Path("results/demo/tables")
    claims = of_table(Results(tables / "table5.json"), read(tables / "table5.csv"))
    claim = next(claim for claim in claims if claim["metric"] == "training_layers")
    assert claim["ratio"] == pytest.approx(ratio) and claim["verdict"] == "not tested", "the demo has 6 passes, not 32"


def test_page_shows_texts_side_by_side_and_figures(written):
    page = (written.folder / "results/demo/tables/table5.html").read_text()
    assert "Sample texts" in page and page.count("<summary>") > 6
    texts = json.loads((written.folder / "results/demo/runs/table5/huginn_end_to_end/seed0/metrics.json").read_text())
    assert len(texts["samples"]["texts"]) == 6
    chain = re.search(r'<figure id="table5-loss-chain">.*?aria-label="([^"]+)"', page, re.DOTALL)[1]
    assert chain.startswith("nats per token: ") and "along the chain from" in chain
    page = (written.folder / "results/demo/tables/table3.html").read_text()
    assert '<figure id="table3-masking-rates">' in page and "Sample 1" in page


def test_the_ablation_trains_what_no_other_table_has_and_shares_data_and_teachers(written):
    jobs, files = written.plan("table_a3")
    trained = trainings(files)
    assert {(name, row) for name, row, _ in trained} == {
        *(("table_a3", f"b{blocks}") for blocks in (2, 3, 4, 6)),
        ("table_a3", "b4_calibrated"),
    }
    assert len(trained) == 2 + 3 + 4 + 6 + 4 and not {"prepare", "teacher"} & set(jobs)


def test_a_new_teacher_scores_again_and_trains_nothing(changed):
    settings = copy.deepcopy(TINY_TEXT)
    settings["tables"]["table4"]["demo"]["metrics"]["ppl_ngram"] = {"teacher": {"name": "ngram", "order": 3}}
    changed.configure(settings)
    jobs = changed.planned("table5")
    assert jobs["evaluate"] == 3 and jobs["teacher"] == 1 and not {"train", "sample"} & set(jobs)

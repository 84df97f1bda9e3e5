"""What `show` says of a whole run: one screen, of made-up claims."""

import json
import sys

import pytest
from page_helpers import measured, number, plan

from diffusionblocks.base.files import UserError
from diffusionblocks.page.claims import verdicts
from diffusionblocks.page.summary import summary
from diffusionblocks.page.table import table
from diffusionblocks.verbs import main


def claim(table="table1", **about):
    gap = {"mean": -2.314, "low": -3.9, "high": -0.728, "seeds": 3, "paired": True}
    found = {"table": table, "source": f"Table {table[5:]}, section 4.1", "ours": False, "metric": "accuracy"}
    found |= {"row": "vit_diffusionblocks", "against": "vit_end_to_end", "unit": "%", "gap": gap, "ratio": None}
    return {**found, "paper": {"gap": -0.95, "ratio": None}, "verdict": "did not hold", "grey": False, **about}


def write(folder, *claims, **about):
    found = {
        "scale": "demo",
        "claims": claims,
        "counts": {"cannot tell": 0, "did not hold": 1, "held": 2},
        "counts_of_ours": {"held": 1},
        **about,
    }
    (folder / "claims.json").write_text(json.dumps(found))
    return folder


def test_counts_a_line_for_each_table_and_the_report(tmp_path, capsys, monkeypatch):
    own = claim(ours=True, metric="mine")
    factor = {
        "metric": "memory_factor",
        "gap": None,
        "ratio": 2.98765,
        "paper": {"gap": None, "ratio": 3.0},
        "verdict": "held",
    }
    alone = {"mean": 1234.6, "low": None, "high": None}
    open_ = {"gap": alone, "paper": None, "source": None, "grey": True, "verdict": "cannot tell", "unit": None}
    missing = {"gap": None, "paper": None, "verdict": "not measured", "row": "b1", "against": "b1_x"}
    write(tmp_path, own, claim(), claim("memory", **factor), claim("mine", **open_), claim("table8", **missing))
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "show", str(tmp_path)])
    main()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "At scale demo, of 3 claims of the paper: 2 held, 1 did not hold; and of 1 of ours: 1 held."
    one = "Table 1      accuracy: diffusionblocks against end_to_end  -2.31 ± 1.59      -0.95   did not hold"
    assert said[3] == one, "the paper's first claim of a table stands for it, and ours where it has none"
    assert said[4].endswith(" held") and "2.99 times" in said[4] and said[4].split()[-2] == "3.00"
    assert said[5].startswith("mine ") and "+1234.60" in said[5] and said[5].endswith("cannot tell?")
    assert said[6].split() == ["Table", "8", "accuracy:", "b1", "against", "b1_x", "–", "not", "measured"]
    assert said[-1] == f"Report: {tmp_path}/report.html" and len(said) == 10
    assert all(len(line) <= 100 for line in said[:-2])


def test_what_the_claims_of_a_run_are_written_as_is_what_is_shown(tmp_path):
    factor = {"text": "x", "metric": "accuracy", "row": "a", "against": "b", "factor": 2, "source": "Table 1"}
    gap = {"text": "y", "metric": "accuracy", "row": "a", "against": "b", "margin": 0, "source": "Table 2"}
    paper = {"title": "x", "source": "Table 1", "data": "x", "metrics": {"accuracy": {"unit": "%", "better": "lower"}}}
    paper["rows"] = {"a": {"accuracy": 20.0}, "b": {"accuracy": 50.0}}
    rows = {
        name: [measured(name, accuracy=number("accuracy", value, better="lower"))]
        for name, value in (("a", 10.0), ("b", 35.0))
    }
    plans = [
        plan(tmp_path, rows, paper, name=name, claims=[one]) for name, one in (("table1", factor), ("table2", gap))
    ]
    for path in plans:
        table(path, path.with_suffix(".csv"))
    verdicts(plans, [path.with_suffix(".csv") for path in plans], tmp_path / "claims.json")
    of_factor, of_gap = (line.split() for line in summary(tmp_path).splitlines() if line.startswith("Table"))
    assert of_factor[-4:] == ["3.50", "times", "2.50", "held"]
    assert of_gap[-4:] == ["+25.00", "+30.00", "cannot", "tell?"], "positive where the row is better"


def test_it_has_no_more_than_a_screen_of_lines(tmp_path):
    said = summary(write(tmp_path, *(claim(f"table{number}") for number in range(40)))).splitlines()
    assert len(said) == 25 and "and 22 tables more" in said and said[-1].endswith("report.html")
    assert len(summary(write(tmp_path, counts={}, counts_of_ours={})).splitlines()) == 4, "of a run that claims nothing"


def test_a_run_without_claims_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"claims\.json: no such file"):
        summary(tmp_path)
    for content in ([], {"claims": [{}], "counts": {}, "counts_of_ours": {}, "scale": "demo"}):
        (tmp_path / "claims.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"is no claims\.json .* snakemake claims"):
            summary(tmp_path)


@pytest.mark.slow
def test_of_a_finished_workflow(finished):
    said = summary(finished.folder / "results/demo").splitlines()
    assert len(said) <= 25 and any(line.startswith("Table 1 ") for line in said)

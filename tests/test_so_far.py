"""The page of a run of which some tables are finished and others are not."""

import json
import os
from pathlib import Path

import pytest
from page_helpers import IMAGES, measured, plan

from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.page.figures import figures
from diffusionblocks.page.so_far import so_far

RUN = Path("results/demo")
SECOND = {**IMAGES, "title": "Others", "source": "Table 7"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two tables, all of which is measured."""
    (tmp_path / RUN / "tables").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, paper in (("table2", IMAGES), ("table7", SECOND)):
        rows = {row: [measured(row, seed=seed, fid_test=5.0) for seed in range(2)] for row in ("a", "b")}
        found[f"tables/{name}"] = json.loads(plan(RUN / "tables", rows, paper, name=name).read_text())
    (RUN / "plan.json").write_text(json.dumps(found))
    return RUN


def written(run):
    told = so_far(run)
    return told, (run / "so_far.html").read_text()


def test_of_a_finished_run_it_is_the_whole_page(run):
    told, made = written(run)
    assert told == "results/demo/so_far.html: 2 of 2 tables"
    assert 'id="table2"' in made and 'id="table7"' in made and "Unfinished" not in made


def test_a_table_that_failed_is_named_with_what_it_lacks(run):
    (RUN / "tables/table7-b-1.json").unlink()
    told, made = written(run)
    assert told == "results/demo/so_far.html: 1 of 2 tables; unfinished: Table 7 (table7)"
    assert 'id="table2"' in made and 'id="table7"' not in made
    lacks = "Table 7 (table7): 3 of 4 runs are measured; next is results/demo/tables/table7-b-1.json"
    assert "1 of the run’s tables is not on this page" in made and lacks in made


def test_what_was_measured_with_other_settings_does_not_count(run):
    planned = json.loads((run / "plan.json").read_text())
    metrics = json.loads((run / "tables/table7-a-0.json").read_text())
    place = run / "runs/table7/a/seed0/metrics.json"
    place.parent.mkdir(parents=True)
    write_json(place, metrics)
    planned["tables/table7"]["rows"]["a"]["metrics"][0] = str(place)
    for steps, tables in ((metrics["run"], 2), ({**metrics["run"], "seed": 5}, 1)):
        planned["runs/table7/a/seed0/run"] = steps
        (run / "plan.json").write_text(json.dumps(planned))
        assert f": {tables} of 2 tables" in so_far(run)


def test_figures_that_are_there_are_taken_unless_something_was_measured_since(run):
    drawn = run / "tables/table2-figures.json"
    figures(run / "tables/table2.json", drawn)
    write_json(drawn, [figure | {"heading": "Drawn before"} for figure in read_json(drawn)])
    assert "Drawn before" in written(run)[1]
    os.utime(drawn, (0, 0))
    assert "Drawn before" not in written(run)[1]


def test_without_a_finished_table_there_is_no_page(run):
    for path in run.glob("tables/*-a-0.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"no table is finished yet\. Table 2 \(table2\): 3 of 4 .*: snakemake$"):
        so_far(run)
    assert not (run / "so_far.html").exists()


def test_no_run_is_told_so(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        so_far(tmp_path)

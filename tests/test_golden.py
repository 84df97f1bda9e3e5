"""Every shipped row at every scale comes to the settings that it had when they were written down (tests/golden)."""

import itertools
import json
import re

import pytest
import yaml
from conftest import ROOT

from diffusionblocks.plan.plan import Plan

SCALES = ("demo", "laptop", "gpu", "paper")


def found(scale):
    """{table/row: what it comes to}, as in tests/golden/<scale>.json; a row that is trained elsewhere is text."""
    config = {**yaml.safe_load((ROOT / "config.yaml").read_text()), "scale": scale}
    plan, rows = Plan.of(config), {}
    for table in plan.tables:
        for name, about in plan.written[f"tables/{table}"]["rows"].items():
            key = f"{table}/{name}"
            if about["run"] != key:
                rows[key] = about["run"]
                continue
            row = plan.rows[table, name]
            entry = {section: row.resolved[section] for section in ("data", "model", "method", "train")}
            entry |= {"parts": row.parts, "seeds": row.seeds, "metrics": row.metrics, "sample_sets": row.sample_sets}
            entry |= {"data_file": row.data_name, "paper_row": row.paper_row}
            optional = {"extractor": row.extractor, "teachers": row.teachers, "remark": row.remark}
            optional["against"] = row.against
            rows[key] = entry | {key: value for key, value in optional.items() if value}
    return rows


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_comes_to_what_it_did(scale):
    golden = json.loads((ROOT / f"tests/golden/{scale}.json").read_text())
    rows = found(scale)
    assert sorted(rows) == sorted(golden)
    for key, row in rows.items():
        assert row == golden[key], key


def test_the_text_of_a_trainings_command_is_what_it_was():
    """Snakemake trains again what it has trained with another text, with `track_code: false` too."""
    text = (ROOT / "rules/train.smk").read_text()
    assert re.findall(r'"(.+)"', text[text.index("    shell:") : text.index("rule assemble:")]) == [
        "exec python -m diffusionblocks train {input.run} {wildcards.part} --data {input.data} --state {params.state}",
        " --start {input.start} --code {resources.code} --processes {params.processes} -o {output.weights}"
        " >> {log} 2>&1",
    ]


def alike(metrics, columns):
    """{a setting: the groups of these columns that have the same of it}, but for which metric each is."""
    groups = {}
    for column in columns:
        section = metrics[column]
        for key, value in [*section.items(), *section.get("sampling", {}).items()]:
            if key not in ("name", "sampling"):
                groups.setdefault(key, {}).setdefault(json.dumps(value), set()).add(column)
    return {key: sorted(map(sorted, by_value.values())) for key, by_value in groups.items()}


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(SCALES, 2)])
def test_no_scale_changes_a_setting_in_some_of_the_columns_that_share_it(one, other):
    """As a chain's levels, which a scale would have in one column and forget in the next."""
    first, second = (json.loads((ROOT / f"tests/golden/{scale}.json").read_text()) for scale in (one, other))
    rows = [key for key in first if key in second and isinstance(first[key], dict) and isinstance(second[key], dict)]
    for name in rows:
        metrics, others = first[name]["metrics"], second[name]["metrics"]
        both = [column for column in metrics if column in others]
        ours, theirs = alike(metrics, both), alike(others, both)
        assert [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]] == [], name
    assert "table5/huginn_diffusionblocks" in rows

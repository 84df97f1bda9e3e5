"""From metrics files to the numbers on the page, and the question whether SLURM still works on them."""

import copy
import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from diffusionblocks.__main__ import main
from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.page.page import duration, in_bytes, number, table_title, verdict
from diffusionblocks.page.table import _like, table
from diffusionblocks.plan import cluster
from diffusionblocks.plan import resolve as planning
from diffusionblocks.plan.check import check_frame
from diffusionblocks.plan.source import PACKAGE

PAPER = {
    "title": "ViT",
    "data": "CIFAR-100",
    "metrics": {"accuracy": {"unit": "%", "better": "higher"}, "ppl": {"better": "lower"}},
    "rows": {
        "plain": {"accuracy": 60.25, "ppl": 10.0},
        "blocks": {"accuracy": 59.0, "ppl": 12.0, "against": "plain"},
        "printed_only": {"accuracy": 7.85, "against": "plain"},
    },
}


def metrics(path, seed, title="CIFAR-100", commit="aaa", attempts=("aaa",), **values):
    """A metrics.json with these numbers."""
    write_json(
        path,
        {
            "run": {"scale": "demo", "table": "table1", "row": "plain", "seed": seed},
            "data": {"title": title},
            "metrics": {name: {"name": "accuracy", "value": value, "samples": 360} for name, value in values.items()},
            "parts": {"all": {"attempts": [{"commit": commit} for commit in attempts]}},
            "evaluation": {"commit": commit},
        },
    )
    return str(path)


@pytest.fixture
def build(tmp_path):
    """build(rows) -> the table as a frame that is indexed by row and metric, and the csv's own text."""

    def build(rows, paper=PAPER):
        (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"table1": paper}, sort_keys=False))
        entries = {
            row: {"run": f"table1/{row}", "paper_row": paper_row, "metrics": files}
            for row, (paper_row, files) in rows.items()
        }
        table("table1", entries, tmp_path / "paper.yaml", tmp_path / "table1.csv")
        return pd.read_csv(tmp_path / "table1.csv").set_index(["row", "metric"])

    return build


@pytest.fixture
def measured(build, tmp_path):
    """Two trained rows and a third that shares the printed numbers of `blocks`."""
    plain = [metrics(tmp_path / f"p{s}.json", s, accuracy=v, ppl=20.0) for s, v in enumerate([90.0, 92.0, 94.0])]
    blocks = [metrics(tmp_path / "b0.json", 0, "digits", "bbb", ("ccc", "bbb"), accuracy=91.0, accuracy_4_steps=80.0)]
    joint = [
        metrics(tmp_path / f"j{s}.json", s, ["digits", "other"][s], accuracy=v) for s, v in enumerate([88.0, 89.0])
    ]
    rows = {"plain": ("plain", plain), "blocks": ("blocks", blocks), "blocks_joint": ("blocks", joint)}
    return build(rows)


def test_columns_that_other_programs_rely_on(measured):
    columns = set(measured.reset_index().columns)
    assert {"row", "metric", "paper", "ours", "std", "seeds", "stand_in", "commit"} <= columns
    assert list(dict.fromkeys(measured.index.get_level_values("row"))) == [
        "plain",
        "blocks",
        "printed_only",
        "blocks_joint",
    ]
    assert measured.index.is_unique and (measured["table"] == "table1").all()


def test_mean_and_spread_over_seeds(measured):
    plain = measured.loc["plain", "accuracy"]
    assert (plain["ours"], plain["std"], plain["seeds"], plain["samples"]) == (92.0, 2.0, 3, 360)
    assert (plain["paper"], plain["unit"], plain["better"], plain["scale"]) == (60.25, "%", "higher", "demo")
    assert measured.loc[("blocks_joint", "accuracy"), "std"] == pytest.approx(math.sqrt(0.5))


def test_one_seed_has_no_spread(measured):
    blocks = measured.loc["blocks", "accuracy"]
    assert (blocks["ours"], blocks["seeds"]) == (91.0, 1) and math.isnan(blocks["std"])


def test_gaps_are_to_the_row_that_the_paper_compares_with(measured):
    assert measured.loc[("blocks", "accuracy"), "paper_gap"] == pytest.approx(-1.25)
    assert measured.loc[("blocks", "accuracy"), "gap"] == pytest.approx(-1.0)
    assert measured.loc[("blocks_joint", "accuracy"), "gap"] == pytest.approx(-3.5)
    assert measured.loc[("blocks", "ppl"), "paper_gap"] == pytest.approx(2.0)
    assert math.isnan(measured.loc[("blocks", "ppl"), "gap"]), "not measured"
    assert math.isnan(measured.loc[("plain", "accuracy"), "gap"])


def test_stand_ins_are_named(measured):
    assert pd.isna(measured.loc[("plain", "accuracy"), "stand_in"])
    assert measured.loc[("blocks", "accuracy"), "stand_in"] == "digits for CIFAR-100"
    assert measured.loc[("blocks_joint", "accuracy"), "stand_in"] == "digits for CIFAR-100; other for CIFAR-100"


def with_extractor(file, title, metric="accuracy"):
    content = read_json(file)
    content["metrics"][metric]["extractor"] = title
    write_json(file, content)
    return file


@pytest.mark.parametrize(
    ("data", "extractor", "stand_in"),
    [
        ("digits", "small CNN", "digits for CIFAR-100; small CNN for Inception-v3"),
        ("CIFAR-100", "small CNN", "small CNN for Inception-v3"),
        ("digits", "Inception-v3", "digits for CIFAR-100"),
        ("CIFAR-100", "Inception-v3", None),
    ],
)
def test_another_feature_extractor_is_a_stand_in_too(build, tmp_path, data, extractor, stand_in):
    paper = {**PAPER, "metrics": {"accuracy": {"better": "lower", "extractor": "Inception-v3"}}}
    file = with_extractor(metrics(tmp_path / "m.json", 0, data, accuracy=9.0), extractor)
    line = build({"plain": ("plain", [file])}, paper).loc["plain", "accuracy"]
    assert line["extractor"] == extractor
    assert pd.isna(line["stand_in"]) if stand_in is None else line["stand_in"] == stand_in


def test_data_of_a_row_come_before_those_of_its_table(build, tmp_path):
    paper = {**PAPER, "rows": {"plain": {"accuracy": 1.0, "data": "ImageNet"}, "blocks": {"accuracy": 1.0}}}
    files = {row: metrics(tmp_path / f"{row}.json", 0, "digits", accuracy=9.0) for row in ("plain", "blocks")}
    frame = build({row: (row, [file]) for row, file in files.items()}, paper)
    assert frame["stand_in"].dropna().tolist() == ["digits for ImageNet", "digits for CIFAR-100"]


def test_every_commit_behind_a_number_is_named(measured):
    assert measured.loc[("plain", "accuracy"), "commit"] == "aaa"
    assert measured.loc[("blocks", "accuracy"), "commit"] == "bbb ccc"


def test_printed_row_without_a_run_is_kept_with_a_note(measured):
    row = measured.loc["printed_only", "accuracy"]
    assert row["paper"] == 7.85 and "not part of this workflow" in row["note"]
    assert row[["ours", "std", "seeds", "stand_in", "commit", "run", "gap"]].isna().all()
    assert measured.loc[("printed_only", "accuracy"), "paper_gap"] == pytest.approx(7.85 - 60.25)
    assert measured.drop("printed_only", level="row")["note"].isna().all()


def test_row_with_another_rows_printed_numbers(measured):
    assert measured.loc[("blocks_joint", "accuracy"), "paper"] == 59.0
    assert measured.loc[("blocks_joint", "accuracy"), "run"] == "table1/blocks_joint"


def test_metric_that_the_paper_does_not_print(measured):
    extra = measured.loc["blocks", "accuracy_4_steps"]
    assert (extra["ours"], extra["unit"], extra["better"]) == (80.0, "%", "higher") and math.isnan(extra["paper"])
    assert ("plain", "accuracy_4_steps") not in measured.index
    assert extra["gap"] == pytest.approx(80.0 - 92.0), "against the plain metric of a row that has no such variant"


def test_blocks_that_never_act_are_noted(build, tmp_path):
    file = metrics(tmp_path / "m.json", 0, accuracy=90.0)
    content = read_json(file)
    content["metrics"]["accuracy"]["idle_blocks"] = [1, 4]
    write_json(file, content)
    assert build({"plain": ("plain", [file])}).loc[("plain", "accuracy"), "note"] == "never acts: block 1, 4"


def test_typo_in_paper_row(build, tmp_path):
    with pytest.raises(UserError, match=r"rows\.plain\.paper_row: .* no row 'blcks'"):
        build({"plain": ("blcks", [metrics(tmp_path / "m.json", 0, accuracy=90.0)])})


def test_nothing_measured_yet(build):
    frame = build({})
    assert frame["ours"].isna().all() and set(frame.index.get_level_values("row")) == set(PAPER["rows"])


def test_table_that_the_paper_does_not_have(tmp_path, build):
    with pytest.raises(UserError, match=r"no table 'table99'"):
        build({})
        table("table99", {}, tmp_path / "paper.yaml", tmp_path / "table99.csv")
    assert not (tmp_path / "table99.csv").exists()


def test_absent_metrics_leave_no_half_table(tmp_path, build):
    with pytest.raises(UserError, match=r"absent\.json: no such file"):
        build({"plain": ("plain", [str(tmp_path / "absent.json")])})
    assert not (tmp_path / "table1.csv").exists()


def test_tables_are_printed_to_the_terminal(build, tmp_path, monkeypatch, capsys):
    files = [metrics(tmp_path / f"m{seed}.json", seed, accuracy=value, kid=1.0) for seed, value in enumerate((90, 92))]
    build({"plain": ("plain", files)})
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "show", str(tmp_path / "table1.csv")])
    main()
    name, *lines = capsys.readouterr().out.strip().splitlines()
    cells = {tuple(line.split()) for line in lines}
    assert name == "table1" and ("plain", "accuracy", "60.25", "91.00", "1.41", "2.00") in cells
    assert ("printed_only", "accuracy", "7.85", "-", "-", "-") in cells and "kid" not in "".join(lines)


def test_what_betrays_a_loop_stands_beside_the_perplexity_and_mauve():
    known = {"mauve": {"extractor": "GPT-2 large", "better": "higher"}}
    assert [_like(metric, known).get("better") for metric in ("ppl_ngram", "real_text_ppl_ngram", "distinct_2")] == [
        *("lower", "lower", "higher")
    ]
    assert _like("mauve_c5", known) == known["mauve"] and _like("layers_forward", known) == {}
    assert _like("distinct_2", {"bpc": {"better": "lower"}}) == {}


def test_every_printed_table_can_be_written(tmp_path):
    """All of paper.yaml's tables of results, none of which needs a run to be shown."""
    path = PACKAGE.parent / "report/paper.yaml"
    for name, about in yaml.safe_load(path.read_text()).items():
        if "metrics" in about:
            table(name, {}, path, tmp_path / f"{name}.csv")
            frame = pd.read_csv(tmp_path / f"{name}.csv")
            assert set(frame["row"]) == set(about["rows"])
            assert frame["paper"].notna().any() or about["source"] == "not in the paper"
            for printed in about["rows"].values():
                # A misspelt one would be shown nowhere, and nobody would miss it.
                assert set(about.get("properties", {})) <= set(printed)
                elsewhere = printed.get("elsewhere", {})
                assert set(elsewhere) <= set(about["metrics"])
                assert all(set(number) == {"value", "source"} for number in elsewhere.values())


# What the page says of a row beside its numbers


DESCRIBED = {
    **PAPER,
    "properties": {"continuous": "continuous time", "blockwise": "block-wise"},
    "rows": {
        "plain": {"accuracy": 60.25, "continuous": False, "blockwise": False},
        "blocks": {
            "accuracy": 59.0,
            "continuous": True,
            "blockwise": True,
            "elsewhere": {"accuracy": {"value": 61.5, "source": 'a paper, with "quotes", and commas'}},
        },
        "half": {"accuracy": 7.85, "blockwise": True},
        "bare": {"accuracy": 1.0},
    },
}


@pytest.fixture
def described(build, tmp_path):
    """Rows of ours beside a printed one, beside no printed one, and printed ones that nothing trains."""
    file = [metrics(tmp_path / "m.json", 0, accuracy=90.0, accuracy_4_steps=80.0)]
    return build({"plain": ("plain", file), "ours": ("blocks", file), "unprinted": ("unprinted", file)}, DESCRIBED)


def test_properties_stand_in_the_csv_as_text(described):
    texts = described.reset_index().groupby("row")["properties"].agg(lambda lines: set(lines.dropna()))
    assert texts["plain"] == {"continuous time: no; block-wise: no"}
    assert texts["blocks"] == texts["ours"] == {"continuous time: yes; block-wise: yes"}, "of the row it is beside"
    assert texts["half"] == {"block-wise: yes"}, "what is not stated is not denied"
    assert texts["bare"] == texts["unprinted"] == set()
    assert described.loc["plain", "properties"].notna().all(), "in every line of a row"


def test_a_table_without_properties_has_none(build):
    assert build({}, {**DESCRIBED, "properties": {}})["properties"].isna().all()
    assert build({}, PAPER)["properties"].isna().all()


def test_properties_of_table_6():
    paper = yaml.safe_load((PACKAGE.parent / "report/paper.yaml").read_text())
    assert {name: about["properties"] for name, about in paper.items() if "properties" in about} == {
        "table6": {"continuous": "continuous time", "blockwise": "block-wise"}
    }
    elsewhere = {row: about["elsewhere"] for row, about in paper["table6"]["rows"].items() if "elsewhere" in about}
    assert list(elsewhere) == ["noprop_ct"] and elsewhere["noprop_ct"]["accuracy"]["value"] == 33.99
    assert paper["table6"]["rows"]["noprop_ct"]["accuracy"] == 21.31, "the paper's number stays"


def test_a_number_printed_elsewhere_stands_beside_the_papers(described):
    for row in ("blocks", "ours"):
        line = described.loc[row, "accuracy"]
        assert (line["paper"], line["elsewhere"]) == (59.0, 61.5)
        assert line["elsewhere_source"] == 'a paper, with "quotes", and commas'
    others = described.drop([("blocks", "accuracy"), ("ours", "accuracy")])
    assert others[["elsewhere", "elsewhere_source"]].isna().all(axis=None), "no other row, no other metric"


def test_new_columns_come_after_the_old(described, tmp_path):
    header = (tmp_path / "table1.csv").read_text().splitlines()[0]
    assert header.startswith("table,title,row,metric,unit,better,paper,ours,std,seeds,samples,")
    assert header.endswith(",note,properties,elsewhere,elsewhere_source,remark")


def test_remarks_stand_in_the_csv(tmp_path):
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"table1": PAPER}, sort_keys=False))
    file, text = metrics(tmp_path / "m.json", 0, accuracy=90.0), 'Two lines,\n"quoted"; 80 % < 1 σ'
    remarks = {"plain": {"remark": text}, "blocks": {"remark": None}, "mine": {}, "silent": {"remark": ""}}
    rows = {row: {"run": f"table1/{row}", "metrics": [file], **remark} for row, remark in remarks.items()}
    rows["mine"]["paper_row"] = "plain"
    table("table1", rows, tmp_path / "paper.yaml", tmp_path / "table1.csv")
    frame = pd.read_csv(tmp_path / "table1.csv").set_index("row")
    assert set(frame.loc["plain", "remark"]) == {text}
    assert frame.drop("plain")["remark"].isna().all(), "a remark is of its row, and of none that shares its numbers"
    assert set(frame.loc["printed_only", "note"]) == {"not part of this workflow yet"}


def from_rules(function, **names):
    """A function of rules/common.smk with what it finds there, so that Snakemake need not be started for it."""
    text = (PACKAGE.parent / "rules/common.smk").read_text()
    exec(re.search(rf"^def {function}\(.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)[0], names)
    return names[function]


REMARKED = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "a": {
            "title": "a",
            "data": {"name": "digits"},
            "model": {"name": "vit"},
            "method": {"name": "end_to_end"},
            "train": {"steps": 1},
            "demo": {},
            "gpu": {},
            "rows": {
                "one": {"remark": "of the row", "paper_row": "other", "demo": {"remark": "of the demo"}},
                "two": {"like": "one", "against": "one"},
                "three": {"gpu": {"remark": "of the gpu"}},
                "four": {"remark": "of the row", "demo": {"remark": ""}},
            },
        },
        "b": {"title": "b", "demo": {}, "gpu": {}, "rows": {"text": "a/one"}},
    },
}


@pytest.mark.parametrize(
    ("scale", "remarks"),
    [
        ("demo", {"one": "of the demo", "two": None, "three": None, "four": ""}),
        ("gpu", {"one": "of the row", "two": None, "three": "of the gpu", "four": "of the row"}),
    ],
)
def test_remarks_go_from_the_configuration_to_the_rows(scale, remarks):
    """The scale's before the row's; neither a row that is `like` it nor one that is text has it; no run has it."""
    config = {**REMARKED, "scale": scale}
    rows_of = from_rules("rows_of", config=config, planning=planning, json=json, RESULTS="results")
    rows = json.loads(rows_of(SimpleNamespace(table="a")))
    assert {row: about["remark"] for row, about in rows.items()} == remarks
    assert {row: (about["paper_row"], about["against"]) for row, about in rows.items()} == {
        "one": ("other", None),
        "two": ("two", "one"),
        "three": ("three", None),
        "four": ("four", None),
    }
    text = {"run": "a/one", "paper_row": "text", "against": None, "remark": None}
    text["metrics"] = ["results/runs/a/one/seed0/metrics.json"]
    assert json.loads(rows_of(SimpleNamespace(table="b"))) == {"text": text}
    assert "remark" not in str([planning.run(config, "a", row, 0) for row in remarks]), "it would train again"


SCHEMA = PACKAGE.parent / "workflow/schemas/config.schema.yaml"


def test_the_schema_knows_remarks_of_rows():
    config = copy.deepcopy(REMARKED)
    config["tables"]["a"]["rows"]["one"] |= {scale: {"remark": "of the scale"} for scale in ("demo", "gpu", "paper")}
    check_frame(config, SCHEMA)


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("rows", "one", "remark"), 5, r"rows\.one\.remark: 5 is not of type 'string'"),
        (("rows", "one", "gpu", "remark"), ["a"], r"rows\.one\.gpu\.remark: \['a'\] is not of type 'string'"),
        (("rows", "one", "remarks"), "a", r"rows\.one: unknown key 'remarks'; did you mean 'remark'"),
        (("rows", "one", "gpu", "remarks"), "a", r"rows\.one\.gpu: unknown key 'remarks'; did you mean 'remark'"),
        (("remark",), "a", r"tables\.a: unknown key 'remark'"),
        (("demo", "remark"), "a", r"tables\.a\.demo: unknown key 'remark'"),
    ],
)
def test_the_schema_refuses_remarks_of_another_kind_or_place(way, value, message):
    """Of a table there are none: nothing would show them."""
    config = copy.deepcopy(REMARKED)
    section = config["tables"]["a"]
    for key in way[:-1]:
        section = section.setdefault(key, {})
    section[way[-1]] = value
    with pytest.raises(UserError, match=message):
        check_frame(config, SCHEMA)


# Verdicts


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
    report = PACKAGE.parent / "report"
    paper = yaml.safe_load((report / "paper.yaml").read_text())
    config = yaml.safe_load((PACKAGE.parent / "config.yaml").read_text())
    for name, claims in yaml.safe_load((report / "claims.yaml").read_text()).items():
        for claim in claims:
            printed, ours = paper[name]["metrics"], config["tables"][name].get("metrics", {})
            assert claim["metric"] in (ours if "factor" in claim else printed)  # what is counted is printed nowhere
            assert {claim["row"], claim["against"]} <= set(paper[name]["rows"]) | set(config["tables"][name]["rows"])


# Numbers for the page


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.005,), "1.00"),
        ((-1.256,), "−1.26"),
        ((1.256, 1, True), "+1.3"),
        ((-1.0, 2, True), "−1.00"),
        ((7, 0), "7"),
        ((None,), "–"),
        ((math.nan,), "–"),
        ((math.nan, 2, True), "–"),
    ],
)
def test_number(arguments, text):
    assert number(*arguments) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (42_120_000, "42.1 MB"), (5e12, "5000 GB")],
)
def test_bytes(value, text):
    assert in_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (9_000, "2 h 30 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("name", "title"), [("table1", "Table 1"), ("table_a1", "Table A1")])
def test_title(name, title):
    assert table_title(name) == title


# SLURM's queue


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """queue(lines): a program squeue that prints these lines and notes how it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def queue(*lines, code=0):
        text = "".join(f"{line}\n" for line in lines)
        (programs / "answer").write_text(text)
        (programs / "squeue").write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" > {programs}/asked\ncat {programs}/answer\nexit {code}\n'
        )
        (programs / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return programs / "asked"

    return queue


def test_jobs_of_this_folder_that_snakemake_started(queue, tmp_path):
    asked = queue(
        f"11|rule_train_wildcards_block0|{tmp_path}",
        f"12|rule_evaluate_wildcards|{tmp_path}",
        f"13|(null)|{tmp_path}",
        f"14|my rule_book|{tmp_path}",
        f"15|rule_train|{tmp_path}/other",
        "16|rule_train|/elsewhere",
        "",
        "slurm_load_jobs error",
    )
    assert cluster.running_jobs(tmp_path) == ["11", "12"]
    assert cluster.running_jobs(str(tmp_path)) == ["11", "12"]
    words = asked.read_text().split()
    states = set(words[words.index("-t") + 1].split(","))
    assert "-h" in words and {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"} <= states


def test_a_second_start_is_refused_while_jobs_run(queue, tmp_path):
    queue(f"11|rule_train|{tmp_path}", f"12|rule_train|{tmp_path}")
    with pytest.raises(UserError, match=r"\(11, 12\).*scancel 11 12") as refusal:
        cluster.refuse_second_start(tmp_path)
    assert "checkpoint" in str(refusal.value) and "squeue" in str(refusal.value)


def test_no_jobs_no_refusal(queue, tmp_path):
    queue("11|rule_train|/elsewhere")
    cluster.refuse_second_start(tmp_path)
    queue(f"11|rule_train|{tmp_path}", code=1)  # installed, but no cluster answers
    cluster.refuse_second_start(tmp_path)


def test_no_slurm_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    def nothing_may_run(*_, **__):
        raise AssertionError("there is nothing to run")

    monkeypatch.setattr(subprocess, "run", nothing_may_run)
    assert cluster.running_jobs(tmp_path) == []
    cluster.refuse_second_start(tmp_path)


def test_a_row_may_name_the_row_it_is_compared_with(tmp_path):
    rows = {}
    for row, against, value in (("mine", None, 90.0), ("mine_in_blocks", "mine", 88.0)):
        file = metrics(tmp_path / f"{row}.json", 0, accuracy=value)
        rows[row] = {"run": f"t/{row}", "paper_row": row, "against": against, "metrics": [file]}
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"table1": PAPER}))
    table("table1", rows, tmp_path / "paper.yaml", tmp_path / "table1.csv")
    frame = pd.read_csv(tmp_path / "table1.csv").set_index(["row", "metric"])
    assert frame.loc[("mine_in_blocks", "accuracy"), "gap"] == -2.0

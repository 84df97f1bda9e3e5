"""From metrics files to the numbers on the page, and the question whether SLURM still works on them."""

import math
import sys

import pandas as pd
import pytest
from page_helpers import measured, number, of_the_paper, plan
from scipy import stats

from diffusionblocks.base.files import UserError
from diffusionblocks.page.results import Results, read
from diffusionblocks.page.rows import rows
from diffusionblocks.page.table import show, table
from diffusionblocks.verbs import main

PAPER = {
    "title": "ViT",
    "source": "Table 1",
    "data": "CIFAR-100",
    "metrics": {"accuracy": {"unit": "%", "better": "higher"}, "ppl": {"better": "lower"}},
    "rows": {
        "plain": {"accuracy": 60.25, "ppl": 10.0},
        "blocks": {"accuracy": 59.0, "ppl": 12.0, "against": "plain"},
        "printed_only": {"accuracy": 7.85, "against": "plain"},
    },
}


def run(title="CIFAR-100", **about):
    """A run on the paper's data, unless it says otherwise."""
    return measured(title=title, **about)


@pytest.fixture
def build(tmp_path):
    """build(rows, paper) -> the table as a frame that is indexed by row and metric."""

    def build(rows, paper=PAPER, **about):
        table(plan(tmp_path, rows, paper, **about), tmp_path / "table1.csv")
        return pd.read_csv(tmp_path / "table1.csv").set_index(["row", "metric"])

    return build


@pytest.fixture
def three(build):
    """Two trained rows and a third that shares the printed numbers of `blocks`."""
    plain = [run(seed=seed, accuracy=value, ppl=20.0) for seed, value in enumerate([90.0, 92.0, 94.0])]
    blocks = [run("digits", attempts=("ccc", "bbb"), accuracy=91.0, accuracy_4_steps=80.0)]
    joint = [run(["digits", "other"][seed], seed=seed, accuracy=value) for seed, value in enumerate([88.0, 89.0])]
    return build({"plain": plain, "blocks": blocks, "blocks_joint": {"metrics": joint, "paper_row": "blocks"}})


def test_columns_that_other_programs_rely_on(three):
    columns = set(three.reset_index().columns)
    assert {"row", "metric", "paper", "ours", "std", "seeds", "values", "stand_in", "commit"} <= columns
    assert list(dict.fromkeys(three.index.get_level_values("row"))) == [
        "plain",
        "blocks",
        "printed_only",
        "blocks_joint",
    ]
    assert three.index.is_unique and (three["table"] == "table1").all()


def test_mean_and_spread_over_seeds(three):
    plain = three.loc["plain", "accuracy"]
    assert (plain["ours"], plain["std"], plain["seeds"], plain["samples"]) == (92.0, 2.0, 3, 360)
    assert (plain["paper"], plain["unit"], plain["better"], plain["scale"]) == (60.25, "%", "higher", "demo")
    assert three.loc[("blocks_joint", "accuracy"), "std"] == pytest.approx(math.sqrt(0.5))


def test_values_of_each_seed_are_written_to_the_last_digit(build):
    found = [run(seed=seed, accuracy=value) for seed, value in enumerate([100 / 3, 7, 1e-9])]
    assert build({"plain": found}).loc[("plain", "accuracy"), "values"] == f"{100 / 3};7.0;1e-09"


def test_an_error_stands_beside_every_mean_and_gap(build):
    """Half of a 90% interval of Student's t over seeds: paired where both have the same seeds, else Welch's."""
    values = {"plain": [90.0, 92.0, 94.0], "blocks": [91.0, 92.0, 93.0]}
    rows = {row: [run(seed=seed, accuracy=value) for seed, value in enumerate(of)] for row, of in values.items()}
    rows["few"] = {"metrics": [run(seed=seed, accuracy=90.0 + seed) for seed in (0, 1)], "against": "plain"}
    frame = build(rows).xs("accuracy", level="metric")
    two = 2.919986  # Student's t of two degrees, 95%
    assert frame.loc["plain", "error"] == pytest.approx(two * 2 / math.sqrt(3))
    assert frame.loc["blocks", "gap_error"] == pytest.approx(two / math.sqrt(3)), "of the differences 1, 0, -1"
    assert frame.loc["few", "gap_error"] == pytest.approx(
        stats.t.ppf(0.95, (4 / 3 + 1 / 4) ** 2 / ((4 / 3) ** 2 / 2 + 1 / 16)) * math.sqrt(4 / 3 + 1 / 4)
    )
    assert frame.loc["plain", ["gap", "gap_error"]].isna().all()


def test_one_seed_has_no_error(three):
    assert three.loc[("blocks", "accuracy"), ["error", "gap_error"]].isna().all()
    assert not math.isnan(three.loc[("blocks", "accuracy"), "gap"])


@pytest.mark.parametrize("names", [("null", "nan", "NA"), ("1", "007", "1e5"), ("True", "False", "None")])
def test_names_that_look_like_something_else_are_names(tmp_path, names):
    runs = {
        row: [measured(row, seed=seed, fid_test=40.0 + seed, attempts=["123456"]) for seed in (0, 1)] for row in names
    }
    path = plan(tmp_path, runs, None, name="odd")
    table(path, path.with_suffix(".csv"))
    frame = read(path.with_suffix(".csv"))
    assert frame["row"].tolist() == list(names) and set(frame["commit"]) == {"123456"}
    assert frame["ours"].tolist() == [40.5, 40.5, 40.5] and frame["paper"].isna().all()
    assert frame["seeds"].tolist() == [2, 2, 2] and frame["paper"].dtype.kind == frame["ours"].dtype.kind == "f"
    assert frame["note"].isna().all() and not frame["beside"].any()
    assert [row["row"] for row in rows(Results(path), frame)["main"]["rows"]] == list(names)


def test_rows_have_what_people_call_them(build):
    frame = build({"plain": {"metrics": [run(accuracy=90.0)], "title": "ViT, end to end"}})
    assert set(frame.loc["plain", "row_title"]) == {"ViT, end to end"}
    assert set(frame.loc["blocks", "row_title"]) == {"blocks"}


def test_one_seed_has_no_spread(three):
    blocks = three.loc["blocks", "accuracy"]
    assert (blocks["ours"], blocks["seeds"]) == (91.0, 1) and math.isnan(blocks["std"])


def test_gaps_are_to_the_row_that_the_paper_compares_with(three):
    assert three.loc[("blocks", "accuracy"), "paper_gap"] == pytest.approx(-1.25)
    assert three.loc[("blocks", "accuracy"), "gap"] == pytest.approx(-1.0)
    assert three.loc[("blocks_joint", "accuracy"), "gap"] == pytest.approx(-3.5)
    assert three.loc[("blocks", "ppl"), "paper_gap"] == pytest.approx(2.0)
    assert math.isnan(three.loc[("blocks", "ppl"), "gap"]), "not three"
    assert math.isnan(three.loc[("plain", "accuracy"), "gap"])


def test_stand_ins_are_named(three):
    assert pd.isna(three.loc[("plain", "accuracy"), "stand_in"])
    assert three.loc[("blocks", "accuracy"), "stand_in"] == "digits for CIFAR-100"
    assert three.loc[("blocks_joint", "accuracy"), "stand_in"] == "digits for CIFAR-100; other for CIFAR-100"


@pytest.mark.parametrize(
    ("data", "extractor", "stand_in"),
    [
        ("digits", "small CNN", "digits for CIFAR-100; small CNN for Inception-v3"),
        ("CIFAR-100", "small CNN", "small CNN for Inception-v3"),
        ("digits", "Inception-v3", "digits for CIFAR-100"),
        ("CIFAR-100", "Inception-v3", None),
    ],
)
def test_another_feature_extractor_is_a_stand_in_too(build, data, extractor, stand_in):
    paper = {**PAPER, "metrics": {"fid_test": {"better": "lower", "extractor": "Inception-v3"}}}
    frame = build({"plain": [run(data, fid_test=number("fid_test", 9.0, extractor=extractor))]}, paper)
    line = frame.loc["plain", "fid_test"]
    assert line["extractor"] == extractor
    assert pd.isna(line["stand_in"]) if stand_in is None else line["stand_in"] == stand_in


def test_a_variant_stands_in_for_the_extractor_of_what_it_is_a_variant_of(build):
    """The same metric with a setting more; not another setting of one that has one, and not another metric."""
    paper = {**PAPER, "metrics": {name: {"extractor": "the paper's"} for name in ("mauve", "fid_test")}}
    columns = ("mauve", "mauve_c5", "fid_test", "fid_train", "kid")
    frame = build({"plain": [run(**{name: number(name, 1.0, extractor="small") for name in columns})]}, paper)
    expected = dict.fromkeys(("mauve", "mauve_c5", "fid_test"), "small for the paper's")
    assert frame.loc["plain", "stand_in"].dropna().to_dict() == expected


def test_data_of_a_row_come_before_those_of_its_table(build):
    paper = {**PAPER, "rows": {"plain": {"accuracy": 1.0, "data": "ImageNet"}, "blocks": {"accuracy": 1.0}}}
    frame = build({row: [run("digits", accuracy=9.0)] for row in ("plain", "blocks")}, paper)
    assert frame["stand_in"].dropna().tolist() == ["digits for ImageNet", "digits for CIFAR-100"]


def test_a_row_of_ours_in_a_table_whose_rows_have_data_of_their_own_stands_in_for_nothing(build):
    paper = {key: value for key, value in PAPER.items() if key != "data"}
    paper["rows"] = {"plain": {"accuracy": 1.0, "data": "ImageNet"}}
    frame = build({row: [run("digits", accuracy=9.0)] for row in ("plain", "mine")}, paper)
    assert frame["stand_in"].dropna().to_dict() == {("plain", "accuracy"): "digits for ImageNet"}


def test_but_has_the_data_of_the_row_that_it_is_compared_with(build):
    paper = {key: value for key, value in PAPER.items() if key != "data"}
    paper["rows"] = {"plain": {"accuracy": 1.0, "data": "ImageNet"}, "other": {"data": "text8"}}
    rows = {"plain": [run("digits", accuracy=9.0)], "other": [run("digits", accuracy=9.0)]}
    mine = {"metrics": [run("digits", accuracy=9.0)], "against": "plain"}
    frame = build({**rows, "mine": mine}, paper)
    assert frame.loc[("mine", "accuracy"), "stand_in"] == "digits for ImageNet"
    frame = build({**rows, "mine": {**mine, "paper_row": "other"}}, paper)
    assert frame.loc[("mine", "accuracy"), "stand_in"] == "digits for text8", "its own printed row comes first"


def test_every_commit_behind_a_number_is_named(three):
    assert three.loc[("plain", "accuracy"), "commit"] == "aaa"
    assert three.loc[("blocks", "accuracy"), "commit"] == "bbb ccc"


def test_printed_row_without_a_run_is_kept_with_a_note(three):
    row = three.loc["printed_only", "accuracy"]
    assert row["paper"] == 7.85 and "not part of this workflow" in row["note"]
    assert row[["ours", "std", "seeds", "stand_in", "commit", "run", "gap"]].isna().all()
    assert three.loc[("printed_only", "accuracy"), "paper_gap"] == pytest.approx(7.85 - 60.25)
    assert three.drop("printed_only", level="row")["note"].isna().all()


def test_row_with_another_rows_printed_numbers(three):
    assert three.loc[("blocks_joint", "accuracy"), "paper"] == 59.0
    assert three.loc[("blocks_joint", "accuracy"), "run"] == "table1/blocks_joint"


def test_metric_that_the_paper_does_not_print(three):
    extra = three.loc["blocks", "accuracy_4_steps"]
    assert (extra["ours"], extra["unit"], extra["better"]) == (80.0, "%", "higher") and math.isnan(extra["paper"])
    assert ("plain", "accuracy_4_steps") not in three.index
    assert extra["gap"] == pytest.approx(80.0 - 92.0), "against the plain metric of a row that has no such variant"


def test_gaps_of_variants_are_to_the_plainest_that_says_no_more(build):
    """By the metric's name and settings, whatever the columns are called."""
    plain = run(
        seen=number("accuracy", 90.0, sampling={"num_steps": 9}), best=number("accuracy", 92.0), fid_test=5.0, mauve=0.5
    )
    variants = run(accuracy_4_steps=80.0, fid_train=7.0, mauve_c5=0.75, ppl=3.0)
    frame = build({"a": [plain], "b": {"metrics": [variants], "against": "a"}}, None)
    gaps = frame.loc["b", "gap"].dropna().to_dict()
    assert gaps == {"accuracy_4_steps": -12.0, "mauve_c5": 0.25}, "FID to other images is no variant"


def test_units_and_directions_are_the_metrics_unless_the_paper_has_them(build):
    frame = build({"plain": [run(accuracy=90.0, mauve=0.5, kid=1.0, training_seconds=2.0)]})
    found = frame.loc["plain", ["unit", "better"]].fillna("")
    assert {metric: tuple(about) for metric, about in found.iterrows()} == {
        "accuracy": ("%", "higher"),
        "ppl": ("", "lower"),
        "mauve": ("", "higher"),
        "kid": ("", "lower"),
        "training_seconds": ("s", ""),
    }


def test_what_stands_beside_the_table(build):
    """What a metric declares, and FID to the images that the paper's FID is not to; never what the paper prints."""
    paper = {**PAPER, "metrics": {"fid_test": {"better": "lower"}, "relative_speed": {"better": "higher"}}}
    columns = dict.fromkeys(("fid_test", "fid_train", "relative_speed", "kid", "mauve", "training_seconds"), 1.0)
    frame = build({"plain": [run(**columns)]}, paper)
    assert set(frame.loc["plain"].index[frame.loc["plain", "beside"]]) == {"fid_train", "kid", "training_seconds"}


def test_blocks_that_never_act_are_noted(build):
    frame = build({"plain": [run(accuracy=number("accuracy", 90.0, idle_blocks=[1, 4]))]})
    assert frame.loc[("plain", "accuracy"), "note"] == "never acts: block 1, 4"


@pytest.mark.parametrize(("column", "note"), [("fid_test", "least of 5 sets"), ("relative_speed", "mean of 5 sets")])
def test_several_sets_of_samples_are_noted(build, column, note):
    frame = build({"plain": [run(**{column: number(column, 9.0, sets=5)})]})
    assert frame.loc[("plain", column), "note"] == note


def test_what_the_features_behind_mauve_do_not_see_is_noted(build):
    value = number("mauve", 0.9, references=1000, blind="hardly see the order of tokens")
    frame = build({"plain": [run(mauve=value)]})
    note = "mauve: against 1,000 real texts, by features that hardly see the order of tokens"
    assert frame.loc[("plain", "mauve"), "note"] == note
    frame = build({"plain": [run(mauve={**value, "blind": None})]})
    assert frame.loc[("plain", "mauve"), "note"] == "mauve: against 1,000 real texts"


def test_nothing_measured_yet(build):
    frame = build({})
    assert frame["ours"].isna().all() and set(frame.index.get_level_values("row")) == set(PAPER["rows"])


def test_absent_metrics_leave_no_half_table(tmp_path):
    path = plan(tmp_path, {"plain": [run(accuracy=90.0)]}, PAPER)
    (tmp_path / "table1-plain-0.json").unlink()
    with pytest.raises(UserError, match=r"table1-plain-0\.json: no such file"):
        table(path, tmp_path / "table1.csv")
    assert not (tmp_path / "table1.csv").exists()


def test_tables_are_printed_to_the_terminal(build, tmp_path, monkeypatch, capsys):
    build({"plain": [run(seed=seed, accuracy=value, kid=1.0) for seed, value in enumerate((90, 92))]})
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "show", str(tmp_path / "table1.csv")])
    main()
    name, *lines = capsys.readouterr().out.strip().splitlines()
    cells = {tuple(line.split()) for line in lines}
    assert name == "table1" and ("plain", "accuracy", "60.25", "91.00", "1.41", "2") in cells
    assert ("printed_only", "accuracy", "7.85", "-", "-", "-") in cells and "kid" not in "".join(lines)


def test_a_table_without_rows_is_shown_empty(build, tmp_path, capsys):
    build({"plain": [run(accuracy=90.0)]})
    path = tmp_path / "table1.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    show([path])
    assert "table1" in capsys.readouterr().out


def test_a_table_of_ones_own_has_no_printed_numbers(build, tmp_path, capsys):
    """Neither a stand-in nor a row that nothing trains; on the terminal, no column of the paper."""
    rows = {"plain": [run("digits", accuracy=90.0)], "mixed": {"metrics": [run(accuracy=92.0)], "against": "plain"}}
    frame = build(rows, None, title="Mixers")
    assert (frame["title"] == "Mixers").all() and frame[["paper", "paper_gap", "stand_in", "note"]].isna().all(
        axis=None
    )
    assert frame["gap"].dropna().to_dict() == {("mixed", "accuracy"): 2.0}
    show([tmp_path / "table1.csv"])
    assert capsys.readouterr().out.splitlines()[2].split() == ["ours", "std", "seeds"]


def test_a_row_may_drop_a_metric_of_its_table(build):
    rows = {"plain": [run(accuracy=90.0, kid=1.0)], "mixed": {"metrics": [run(kid=2.0)], "against": "plain"}}
    frame = build(rows, None)
    assert frame["ours"].to_dict() == {("plain", "accuracy"): 90.0, ("plain", "kid"): 1.0, ("mixed", "kid"): 2.0}


def test_every_printed_table_can_be_written(tmp_path):
    """All of the paper's tables of results, none of which needs a run to be shown."""
    for name, about in of_the_paper().items():
        paper = about["paper"]
        table(plan(tmp_path, {}, **about, name=name), tmp_path / f"{name}.csv")
        frame = pd.read_csv(tmp_path / f"{name}.csv")
        assert set(frame["row"]) == set(paper["rows"]) and frame["paper"].notna().any()
        for printed in paper["rows"].values():
            # A misspelt one would be shown nowhere, and nobody would miss it.
            assert set(paper.get("properties", {})) <= set(printed)
            elsewhere = printed.get("elsewhere", {})
            assert set(elsewhere) <= set(paper["metrics"])
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
def described(build):
    """Rows of ours beside a printed one, beside no printed one, and printed ones that nothing trains."""
    runs = [run(accuracy=90.0, accuracy_4_steps=80.0)]
    return build({"plain": runs, "ours": {"metrics": runs, "paper_row": "blocks"}, "unprinted": runs}, DESCRIBED)


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
    paper = {name: about["paper"] for name, about in of_the_paper().items()}
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


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_what_is_no_table_is_shown_as_such(content, tmp_path):
    if content is not None:
        (tmp_path / "table1.csv").write_text(content)
    with pytest.raises(UserError, match=r"table1\.csv: no table of this workflow"):
        show([tmp_path / "table1.csv"])


def test_new_columns_come_after_the_old(described, tmp_path):
    header = (tmp_path / "table1.csv").read_text().splitlines()[0]
    assert header.startswith("table,title,row,metric,unit,better,paper,ours,std,seeds,samples,")
    assert header.endswith(
        ",note,properties,elsewhere,elsewhere_source,remark,beside,timed,values,row_title,error,gap_error"
    )


def test_remarks_stand_in_the_csv(build):
    text = 'Two lines,\n"quoted"; 80 % < 1 σ'
    remarks = {"plain": {"remark": text}, "blocks": {}, "mine": {"paper_row": "plain"}, "silent": {"remark": ""}}
    frame = build({row: {"metrics": [run(accuracy=90.0)], **about} for row, about in remarks.items()})
    assert set(frame.loc["plain", "remark"]) == {text}
    assert frame.drop("plain", level="row")["remark"].isna().all(), (
        "a remark is of its row, and of none that shares its numbers"
    )
    assert set(frame.loc["printed_only", "note"]) == {"not part of this workflow yet"}


def test_a_row_may_name_the_row_it_is_compared_with(build):
    rows = {"mine": [run(accuracy=90.0)], "mine_in_blocks": {"metrics": [run(accuracy=88.0)], "against": "mine"}}
    assert build(rows).loc[("mine_in_blocks", "accuracy"), "gap"] == -2.0

"""The tables of the page: a row per system, what is said once, and where each number comes from."""

import re
from functools import partial

import pytest
from page_helpers import IMAGES, NOPROP, lines_of, measured, number, plan, shown_section, words_of, written_page

REMARK = 'Codes of <b>two</b> & "more" bits'


@pytest.fixture
def shown(tmp_path):
    """shown(rows, paper): the page's section of a table."""
    return partial(shown_section, tmp_path)


@pytest.fixture
def page(tmp_path):
    """page(paper, rows): the page of a table. rows: settings of trained rows, beside those that each has."""

    def page(paper, rows):
        known = {row: {"metrics": [measured(accuracy=40.0)], **about} for row, about in rows.items()}
        return written_page(tmp_path, plan(tmp_path, known, paper, name="table6"))

    return page


def words(part):
    """[metric] of the two tables of a section."""
    return [[column["metric"] for column in part["table"][name]["columns"]] for name in ("main", "more")]


# What stands in which table


def test_what_the_paper_does_not_print_has_a_table_of_its_own(shown):
    rows = {row: [measured(row, fid_test=5.0, mauve=0.5, kid=value)] for row, value in (("a", 3.0), ("b", 4.0))}
    part = shown(rows)
    assert words(part) == [["fid_test"], ["kid"]], "and mauve is the same in all rows"
    assert [row["cells"]["kid"]["ours"] for row in part["table"]["more"]["rows"]] == [3.0, 4.0]
    assert (
        shown({"a": [measured("a", kid=3.0, training_seconds=1.0)]}, None)["table"]["main"]["columns"][0]["unit"] == ""
    )


def test_numbers_that_stand_beside_fill_a_table_that_would_be_empty(shown):
    assert words(shown({"a": [measured("a", kid=3.0, training_seconds=1.0)]}, None)) == [
        ["kid", "training_seconds"],
        [],
    ]


def test_a_table_of_ones_own_has_all_but_what_stands_beside(shown):
    assert words(shown({"a": [measured("a", accuracy=3.0, mauve=1.0, kid=1.0)]}, None)) == [
        ["accuracy", "mauve"],
        ["kid"],
    ]


def test_a_group_of_columns_for_each_metric(page):
    paper = {**NOPROP, "metrics": {**NOPROP["metrics"], "fid_test": {"better": "lower"}}}
    runs = [measured(seed=seed, accuracy=value, fid_test=value) for seed, value in ((0, 40.0), (1, 42.0))]
    groups, head, *lines = lines_of(
        page(paper, {"dt": {"metrics": runs, "title": "NoProp-DT"}, "ct": {"against": "dt"}})
    )
    assert groups == ["", "accuracy (%) ↑ higher is better 360 samples", "FID test ↓ lower is better 360 samples", ""]
    columns = ["paper", "ours", "gap", "paper", "ours"]
    assert head == ["row", *columns, "continuous time", "block <i>wise</i>", "seeds"]
    assert lines[0] == ["NoProp-DT dt", "46.06", "41.00 ± 6.31", "–", "–", "41.00 ± 6.31", "no", "yes", "2"]
    assert lines[1] == ["ct1", "21.31", "40.00", "−1.00 paper −24.75", "–", "–", "yes", "no", "1"]


def test_cells_are_named_for_those_who_do_not_see_the_table(page):
    table = page(NOPROP, {"dt": {}}).split('<table class="results">')[1].split("</table>")[0]
    assert table.lstrip().startswith("<caption>Table 6: the paper’s numbers beside ours</caption>")
    assert all(found.startswith(' scope="') for found in re.findall("<th( .*?|)>", table))
    assert table.count('scope="row"') == 1 and table.count('scope="colgroup"') == 1


def test_an_error_that_is_too_small_to_be_shown_says_so(page):
    runs = [measured(seed=seed, accuracy=40 + seed / 10_000) for seed in range(3)]
    assert lines_of(page(NOPROP, {"dt": {"metrics": runs}}))[2][2] == "40.00 ± <0.01"


def test_what_is_of_ours_stands_apart(page):
    lines = lines_of(page(NOPROP, {"mine": {"paper_row": "dt"}, "dt": {}}))
    assert [line[0] for line in lines[2:]] == ["dt", "Rows that the paper does not have", "mine"]
    assert lines[4][1] == "46.06", "beside the number of the row that it is like"
    assert "Rows that the paper" not in words_of(page(NOPROP, {"dt": {}})) + words_of(page(None, {"mine": {}}))


def test_a_table_without_properties_has_no_such_columns(page):
    assert 'class="property"' not in page({**NOPROP, "properties": {}}, {"dt": {}})


# What is said once


def test_stand_ins_are_said_once_above_the_table(shown):
    paper = {**IMAGES, "metrics": {"fid_test": {"better": "lower", "extractor": "Inception-v3"}}}
    numbers = {
        "fid_test": number("fid_test", 5.0, extractor="small CNN"),
        "kid": number("kid", 5.0, extractor="7-gram"),
    }
    table = shown({row: [measured(row, title="clothes", **numbers)] for row in ("a", "b")}, paper)["table"]
    assert table["stand_ins"] == ["clothes for digits", "small CNN for Inception-v3"]
    assert table["data"] == {} and table["judges"] == {"7-gram": ["KID"]}
    table = shown({"a": [measured("a", fid_test=5.0)], "b": [measured("b", title="clothes", fid_test=5.0)]})["table"]
    assert (table["stand_ins"], table["data"]) == (["clothes for digits"], {"digits": ["a"]})


@pytest.mark.parametrize(
    ("values", "constants"),
    [
        ({"a": 3.0, "b": 3.0}, [{None: 3.0}]),
        ({"a": 3.0, "b": 4.0}, []),
        ({"a": 3.0}, []),
        ({"a": 3.0, "b": 3.0, "c": 4.0, "d": 4.0}, [{"digits": 3.0, "clothes": 4.0}]),
        ({"a": 3.0, "b": 3.0, "c": 4.0}, []),
    ],
)
def test_what_all_rows_on_the_same_data_have_needs_no_column(shown, values, constants):
    titles = {"a": "digits", "b": "digits", "c": "clothes", "d": "clothes"}
    rows = {row: [measured(row, title=titles[row], fid_test=5.0, kid=value)] for row, value in values.items()}
    part = shown(rows)
    assert [found["values"] for found in part["table"]["constants"]] == constants
    assert words(part)[1] == ([] if constants else ["kid"])


def test_seeds_that_differ_in_a_number_are_no_constant(shown):
    rows = {row: [measured(row, seed=seed, fid_test=5.0, kid=float(seed)) for seed in (0, 1)] for row in ("a", "b")}
    assert words(shown(rows)) == [["fid_test"], ["kid"]]


def test_notes_and_remarks_stand_under_the_table_once(page):
    idle = [measured(accuracy=number("accuracy", 40.0, idle_blocks=[1]))]
    rows = {"dt": {"metrics": idle, "remark": REMARK}, "ct": {"remark": REMARK}, "mine": {"remark": "Longer."}}
    made = page(NOPROP, rows)
    notes = made[made.index('<ul class="notes') :].split("</ul>")[0]
    elsewhere = "ct: accuracy: 33.99 in NoProp's <u>own</u> paper"
    said = f"1 dt: never acts: block 1 2 {elsewhere} 3 {REMARK} 4 mine: Longer. Printed in"
    assert words_of(f"<body>{notes}").startswith(said)
    assert [line[0] for line in lines_of(made)[2:] if len(line) > 1] == ["dt1, 3", "ct2, 3", "mine4"]
    assert "<b>two" not in made and "<u>" not in made
    assert all(f'id="table6-note-{mark}"' in made for mark in (1, 2, 3, 4))


def test_a_note_of_all_rows_has_no_mark(shown):
    sets = {row: [measured(row, fid_test=number("fid_test", 5.0, sets=5))] for row in ("a", "b")}
    (note,) = shown(sets)["table"]["notes"]
    assert (note["text"], note["mark"], note["words"]) == ("least of 5 sets", None, None)
    (note,) = shown({**sets, "c": [measured("c", fid_test=5.0)]})["table"]["notes"]
    assert (note["mark"], note["words"]) == (1, ["a", "b"])


def test_what_is_printed_and_not_trained_is_a_footnote(page):
    made = page(NOPROP, {"dt": {}, "ct": {}})
    assert [line[0] for line in lines_of(made)[2:]] == ["dt", "ct1"]
    assert "Printed in the paper, and not part of this workflow yet: untrained (accuracy 1.00)." in words_of(made)
    assert '<span id="table6-untrained">' in made


def test_columns_that_are_printed_and_never_measured_are_a_footnote(page):
    paper = {**NOPROP, "rows": {"dt": {"accuracy": 46.06, "loss": 3.0}, "ct": {"accuracy": 21.31, "loss": 4.5}}}
    rows = {"dt": {"title": "NoProp-DT"}, "ct": {}, "mine": {"paper_row": "dt"}}
    said = "loss: not measured at this scale. The paper prints 3.00 (NoProp-DT), 4.50 (ct)."
    assert said in words_of(page(paper, rows))


def test_what_a_claim_measures_in_place_of_a_column_is_named(tmp_path):
    paper = {**NOPROP, "rows": {"dt": {"accuracy": 46.06, "loss": 3.0}}}
    claim = {"text": "x", "ours": True, "metric": "loss", "row": "dt", "against": "dt", "margin": 0}
    claims = [{**claim, "measured_as": {"demo": "accuracy"}}]
    made = words_of(written_page(tmp_path, plan(tmp_path, {"dt": [measured(accuracy=40.0)]}, paper, claims=claims)))
    assert "The paper prints 3.00 (dt). Measured in its place: accuracy." in made
    assert "accuracy, in place of loss" in made, "beside the verdict"


def test_rows_that_have_no_number_at_a_scale_are_left_out(page):
    """As `count` says it, in what stands for the data of a row."""
    counted = "none: counted at the sizes of cifar100"
    none = [measured(title=f"{counted}; training_seconds, per_sample: timed on a GPU alone")]
    some = [measured(title=f"{counted}; per_sample: timed on a GPU alone", accuracy=40.0)]
    made = page(None, {"a": {"metrics": some}, "b": {"metrics": none, "title": "B in bfloat16"}})
    assert [line[0] for line in lines_of(made)[2:]] == ["a"]
    assert "Left out, since nothing of them is measured at this scale: B in bfloat16 ." in words_of(made)
    assert "per sample, training seconds: timed on a GPU alone." in words_of(made)
    assert (
        "No data are read: counted at the sizes of cifar100. 1 seed of each row." in words_of(made)
        and '<span id="table6-b">' in made
    )


def test_what_was_counted_says_so_once_and_has_no_seeds(page):
    """Sizes of several data sets are one sentence; what has no jobs of training has no seeds to speak of."""
    rows = {
        row: {"metrics": [{**measured(title=f"none: {how}", accuracy=40.0), "parts": {}}]}
        for row, how in {
            "a": "counted at the sizes of cifar100; kid: timed on a GPU alone",
            "b": "counted at the sizes of text8",
            "c": "timed on chance at the sizes of cifar100",
        }.items()
    }
    made = words_of(page(None, rows))
    said = "No data are read: counted at the sizes of cifar100, text8; timed on chance at the sizes of cifar100."
    assert made.count(said) == 1 and "seed of each row" not in made


def test_data_whose_title_has_a_semicolon_are_one_stand_in(shown):
    rows = {row: [measured(row, title="odd; even digits", fid_test=value)] for row, value in (("a", 3.0), ("b", 4.0))}
    table = shown(rows)["table"]
    assert table["stand_ins"] == ["odd; even digits for digits"] and table["data"] == {}


def test_a_note_with_a_semicolon_is_one_note(page):
    timed = number("accuracy", 40.0, timed={"where": "one core; no GPU", "how": "median"})
    made = page(NOPROP, {"dt": {"metrics": [measured(accuracy=timed)]}, "ct": {}})
    assert "dt: timed on one core; no GPU; median" in words_of(made)


def test_numbers_without_samples_are_shown(shown):
    rows = {"a": [measured("a", fid_test=number("fid_test", 3.0, samples=None))], "b": [measured("b", fid_test=4.0)]}
    (column,) = shown(rows)["table"]["main"]["columns"]
    assert column["samples"] == "360"


def test_jobs_that_say_less_than_ours_are_shown(page):
    """Such as those of another program, or of an older version."""
    runs = [measured(accuracy=40.0)]
    runs[0]["parts"]["block0"] |= {"parameter_bytes": 7_000_000}
    assert "7.0 MB" in words_of(page(NOPROP, {"dt": {"metrics": runs}}))


# Where numbers come from


def test_every_number_of_ours_leads_to_its_origin(page):
    made = page(NOPROP, {"dt": {}, "ct": {}, "mine": {}})
    links = re.findall(
        r'<a href="#(table6-\w+-origin)">', made.split('<table class="results">')[1].split("</table>")[0]
    )
    assert links == [f"table6-{row}-origin" for row in ("dt", "ct", "mine")]
    ids = re.findall(r' id="([^"]*)"', made)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]*)"', made)) <= set(ids)
    assert {"table6-dt", "table6-ct", "table6-mine"} <= set(ids), "permalinks of rows"


def origin(shown, rows, row="a", **about):
    return next(found for found in shown(rows, **about)["origins"] if found["row"] == row)


def test_an_origin_has_each_seeds_value_and_all_jobs(shown):
    runs = [
        {**measured("a", seed=seed, fid_test=value), "weights": f"{seed}" * 64} for seed, value in ((3, 5.0), (4, 7.0))
    ]
    runs[1]["parts"]["block0"]["attempts"] += [{**runs[1]["evaluation"], "node": "n2", "slurm_job_id": "17"}]
    found = origin(shown, {"a": runs})
    assert found["seeds"] == [3, 4] and found["commits"] == ["aaa"] and found["weights"] == {3: "3" * 64, 4: "4" * 64}
    (numbers,) = found["numbers"]
    assert (numbers["values"], numbers["mean"], numbers["samples"]) == ([5.0, 7.0], 6.0, 360)
    assert {part: [job["seconds"] for job in jobs] for part, jobs in found["jobs"].items()} == {
        "block0": [1.0, 1.0],
        "sampling 0": [2.0, 2.0],
        "evaluation": [3.0, 3.0],
    }
    assert found["jobs"]["block0"][1]["where"] == "here; n2, 17"
    assert found["logs"] == "results/demo/logs/runs/table1/a/seed<n>"


def test_an_origin_tells_how_to_make_the_number_again(page):
    made = words_of(page(NOPROP, {"dt": {"run": "table9/elsewhere"}}))
    assert "The run of table9/elsewhere." in made
    assert "python -m diffusionblocks explain table9/elsewhere --scale demo" in made
    assert "snakemake results/demo/runs/table9/elsewhere/seed0/metrics.json --config scale=demo" in made
    assert "snakemake table6 --config scale=demo for the table" in made


WHOLE = {f"train.key{i}": [i, "tables.t.demo"] for i in range(6)}


def test_settings_are_told_as_differences(shown):
    """To the row that it is compared with, else to the first; whole, where more differ than do not."""
    run = [measured(fid_test=5.0)]
    other = {key: entry for key, entry in WHOLE.items() if key != "train.key0"}
    rows = {
        "a": {"metrics": run, "settings": WHOLE},
        "b": {"metrics": run, "settings": {**other, "train.key1": [7, "tables.t.rows.b"], "model.new": [None, None]}},
        "c": {"metrics": run, "settings": {key: [9, None] for key in WHOLE}},
        "d": {"metrics": run, "settings": {key: [9, None] for key in WHOLE}, "against": "c"},
    }
    found = {one["row"]: (one["like"] and one["like"]["row"], one["settings"]) for one in shown(rows, None)["origins"]}
    assert found["a"] == (None, [(key, value, "t.demo") for key, (value, _) in WHOLE.items()])
    assert found["b"] == ("a", [("train.key1", 7, "t.rows.b"), ("model.new", None, None), ("train.key0", None, "")])
    assert found["c"] == (None, [(key, 9, None) for key in WHOLE]) and found["d"] == ("c", [])


def test_settings_of_a_plan_of_an_older_version_are_those_of_the_run(shown):
    run = measured("a", fid_test=5.0, method={"name": "end_to_end", "num_blocks": 1})
    assert origin(shown, {"a": [run]})["settings"] == [
        ("model.name", "dit", None),
        ("method.name", "end_to_end", None),
        ("method.num_blocks", 1, None),
    ]

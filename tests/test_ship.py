"""What ships of a finished run, what a run is compared with, and what the README shows of it."""

import json
import re
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from page_helpers import IMAGES, TEMPLATE, measured, number, plan

from diffusionblocks.base.files import UserError, write_json
from diffusionblocks.page import ship as shipping
from diffusionblocks.page.compare import Side, compare
from diffusionblocks.page.figures import figures
from diffusionblocks.page.headline import ABOUT, CLAIMS, END, METRICS, PAGE, headline, marker
from diffusionblocks.page.table import table
from diffusionblocks.verbs import main

RUN, SHIPPED = Path("results/demo"), Path("docs/results/demo")
KEYWORDS = {"fid_test": {"reference": "test"}}  # of page_helpers.DECLARED
CLAIMED = [
    {"text": "B.", "metric": "fid_test", "row": "b", "against": "a", "margin": 0},
    {"text": "Ours.", "metric": "fid_test", "row": "b", "against": "a", "margin": 5, "ours": True},
    {"text": "Time.", "metric": "training_seconds", "row": "b", "against": "a", "factor": 2},
]


def seeds(row, values, **settings):
    """metrics.json of each seed of a row, which generates no images."""
    runs = [measured(row, seed=seed, fid_test=value, **settings) for seed, value in enumerate(values)]
    return [{**run, "samples": None} for run in runs]


def write_run(results=RUN, drawn=False, **rows):
    """A finished run of table 1 with these rows, {row: metrics of each seed}, beside table 2 with row `a` of it.

    It was measured as planned.
    """
    rows = rows or {"a": seeds("a", (40.0, 42.0, 44.0)), "b": seeds("b", (30.0, 31.0, 32.0), blocks=2, loss=2.0)}
    for name, some in (("table1", rows), ("table2", {"a": rows["a"]})):
        write_table(results, name, some, drawn)
    names = ("table1", "table2")
    written = {f"tables/{name}": about_table(results, name) for name in names}
    for file in sorted(results.glob("runs/*/*/seed*/metrics.json")):
        folder, metrics = file.parent.relative_to(results), json.loads(file.read_text())
        written[f"{folder}/run"] = metrics["run"]
        columns = {
            column: {"name": about["name"], "sampling": about["sampling"]} | KEYWORDS.get(column, {})
            for column, about in metrics["metrics"].items()
        }
        written[f"{folder.parent}/evaluation"] = {"metrics": columns, "extractor": None, "teachers": {}}
    write_json(results / "plan.json", written)


def about_table(results, name):
    return json.loads((results / f"tables/{name}.json").read_text())


def write_table(results, name, rows, drawn=False):
    path = plan(results / "tables", rows, IMAGES, name=name, claims=CLAIMED)
    about = about_table(results, name)
    for row, entry in about["rows"].items():  # to where the workflow has them
        files = [results / f"runs/{name}/{row}/seed{seed}/metrics.json" for seed in range(len(entry["metrics"]))]
        for old, new in zip(map(Path, entry["metrics"]), files, strict=True):
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
        entry["metrics"] = [str(file) for file in files]
    path.write_text(json.dumps(about))  # rows in their order
    table(path, path.with_suffix(".csv"))
    drawings = path.with_name(f"{name}-figures.json")
    figures(path, drawings) if drawn else write_json(drawings, [])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty checkout on a commit, with the page's template."""
    (tmp_path / "results/demo/tables").mkdir(parents=True)
    (tmp_path / "report").symlink_to(TEMPLATE.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipping, "ROOT", tmp_path)
    monkeypatch.setattr(shipping, "_git", lambda *arguments: "abcabc" if arguments[0] == "rev-parse" else "")
    return tmp_path


@pytest.fixture
def verb(monkeypatch, capsys):
    """verb(words): (exit code, what it printed, its errors)."""

    def verb(*words):
        monkeypatch.setattr("sys.argv", ["diffusionblocks", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return (code, *capsys.readouterr())

    return verb


def all_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What ships


def test_a_finished_run_ships_as_a_few_files_of_text(place, verb):
    write_run()
    assert verb("ship", RUN, SHIPPED)[0] == 0
    found = all_files(SHIPPED)
    assert set(found) == {"table1.csv", "table2.csv", PAGE, CLAIMS, ABOUT, METRICS}
    assert found["table1.csv"] == (RUN / "tables/table1.csv").read_bytes()
    about = json.loads(found[ABOUT])
    assert (about["scale"], about["commits"], about["page_commit"]) == ("demo", ["aaa"], "abcabc")
    assert about["tables"] == ["table1", "table2"]
    assert about["machines"] == [{"hardware": "cpu", "versions": "torch 2"}]
    # Of nine seeds: training 1 s, sampling 2 s, evaluation 3 s.
    assert about["jobs"] == 3 * 9 and about["job_hours"] == pytest.approx(9 * 6 / 3600, abs=1e-3)
    with tarfile.open(SHIPPED / METRICS) as archive:
        entries = archive.getmembers()
        assert all(json.load(archive.extractfile(entry)) for entry in entries)
        assert all((entry.mtime, entry.uid, entry.uname) == (0, 0, "") for entry in entries)
    assert len(entries) == 2 + 9
    assert not [path for path in Path("docs/results").iterdir() if path != SHIPPED], "no temporary folder is left"


def test_a_job_that_two_tables_or_two_rows_tell_of_counts_once(place):
    timing = {"seconds": 7.0, "commit": "aaa", "hardware": "cpu", "versions": {}, "time": "2026-11-26T10:00:00+0000"}
    rows = {row: [{**seeds(row, [1.0])[0], "timing": timing, "parts": {}, "sampling": []}] for row in "ab"}
    for row in ("a", "b"):
        rows[row][0]["evaluation"] |= {"time": "2026-11-26T11:00:00+0000"}
    write_run(**rows)
    shared = about_table(RUN, "table2")
    shared["rows"]["a"]["metrics"] = about_table(RUN, "table1")["rows"]["a"]["metrics"]
    write_json(RUN / "tables/table2.json", shared)
    plans = json.loads((RUN / "plan.json").read_text())
    write_json(RUN / "plan.json", plans | {"tables/table2": about_table(RUN, "table2")})
    shipping.ship(RUN, SHIPPED)
    about = json.loads((SHIPPED / ABOUT).read_text())
    assert about["jobs"] == 1 + 2 and about["job_hours"] == pytest.approx((7 + 3 + 3) / 3600, abs=1e-3)
    assert (about["first_job"][11:16], about["last_job"][11:16]) == ("10:00", "11:00")


def test_a_row_that_others_only_start_from_counts_too(place):
    """No table shows it, so nothing measures it: its parts' logs say what it has cost."""
    write_run()
    origin = RUN / "runs/table3/whole/seed0"
    write_json(RUN / "plan.json", json.loads((RUN / "plan.json").read_text()) | {"runs/table3/whole/seed0/run": {}})
    (origin / "parts").mkdir(parents=True)
    records = [{"event": "start", "time": "2026-11-25T10:00:00+0000"}, {"step": 1, "loss": 1.0}]
    lines = map(json.dumps, [*records, {"event": "end", "step": 1, "seconds": 7200.0}])
    (origin / "parts/all.jsonl").write_text("\n".join(lines))
    shipping.ship(RUN, SHIPPED)
    about = json.loads((SHIPPED / ABOUT).read_text())
    assert about["jobs"] == 3 * 9 + 1 and about["job_hours"] == pytest.approx(2 + 9 * 6 / 3600, abs=1e-3)
    assert about["first_job"] == "2026-11-25T10:00:00+0000"


def test_the_same_run_gives_the_same_archive(place):
    write_run()
    for folder in ("docs/one", "docs/other"):
        shipping.ship(RUN, Path(folder))
    assert Path("docs/one", METRICS).read_bytes() == Path("docs/other", METRICS).read_bytes()


def test_the_page_can_be_made_again_of_what_ships(place, verb, monkeypatch):
    write_run(drawn=True)
    shipping.ship(RUN, SHIPPED)
    (place / "elsewhere").mkdir()
    with tarfile.open(SHIPPED / METRICS) as archive:
        archive.extractall("elsewhere", filter="data")
    monkeypatch.chdir("elsewhere")
    plans = [RUN / f"tables/table{number}.json" for number in (1, 2)]
    for path in plans:
        assert verb("table", path, "-o", path.with_suffix(".csv"))[0] == 0
        assert path.with_suffix(".csv").read_bytes() == (place / SHIPPED / f"{path.stem}.csv").read_bytes()
        assert verb("figures", path, "-o", path.with_suffix(".figures"))[0] == 0
    made = ([path.with_suffix(end) for path in plans] for end in (".csv", ".figures"))
    words = [[f"--{name}", *paths] for name, paths in zip(("tables", "figures"), made, strict=True)]
    assert verb("page", *plans, *words[0], *words[1], "--template", TEMPLATE, "-o", "report.html")[0] == 0
    again, first = (
        re.sub(r"<dt>Written</dt>.*", "", path.read_text()) for path in (Path(PAGE), place / SHIPPED / PAGE)
    )
    assert again == first and "<svg" in again and "± 3.37" in again


def test_what_is_too_large_for_a_repository_is_said(place, verb, monkeypatch):
    write_run()
    assert "more than" not in verb("ship", RUN, SHIPPED)[1]
    monkeypatch.setitem(shipping.MOST, PAGE, 1000)
    code, told, _ = verb("ship", RUN, SHIPPED)
    assert code == 0 and re.search(r"report.html: \S+ kB, more than the 1.0 kB that a repository should carry", told)


# What is refused


def remove(file):
    return lambda: (RUN / file).unlink()


def resettled():
    plans = json.loads((RUN / "plan.json").read_text())
    write_json(RUN / "plan.json", plans | {"tables/table2": {**plans["tables/table2"], "title": "Another"}})


FID = {"name": "fid", "sampling": {}, "reference": "test"}


def without(name):
    written = json.loads((RUN / "plan.json").read_text())
    del written[name]
    write_json(RUN / "plan.json", written)


def planned_otherwise(name, **changes):
    def change():
        written = json.loads((RUN / "plan.json").read_text())
        write_json(RUN / "plan.json", written | {name: {**written[name], **changes}})

    return change


def edited():
    path = RUN / "tables/table1.csv"
    path.write_text(path.read_text().replace("42.0", "12.0"))


def of_commits(*commits):
    return lambda: write_run(a=seeds("a", (1.0, 2.0), attempts=commits), b=seeds("b", (1.0, 2.0), attempts=commits[:1]))


REFUSED = {
    "no run": (remove("plan.json"), ["results/demo: no such run", "snakemake all"]),
    "no table": (lambda: write_json(RUN / "plan.json", []), ["results/demo/plan.json: names no table"]),
    "no csv": (remove("tables/table2.csv"), ["unfinished, 1 of 2 tables are missing: table2", "tables/table2.csv"]),
    "no figures": (remove("tables/table1-figures.json"), ["missing: table1", "table1-figures.json"]),
    "no metrics": (remove("runs/table1/b/seed1/metrics.json"), ["missing: table1", "runs/table1/b/seed1/metrics.json"]),
    "other settings": (resettled, ["missing: table2", "tables/table2.json of these settings"]),
    "another training": (
        planned_otherwise("runs/table1/b/seed1/run", train={"steps": 400}),
        [
            "missing: table1",
            "runs/table1/b/seed1/metrics.json of these settings: train.steps is not set, planned is 400",
        ],
    ),
    "another evaluation": (
        planned_otherwise(
            "runs/table1/b/evaluation", metrics={"fid_test": {"name": "fid", "sampling": {"num_steps": 9}}}
        ),
        ['b/seed0/metrics.json of these settings: metrics.fid_test.reference is "test", planned is not set'],
    ),
    "a new metric": (
        planned_otherwise(
            "runs/table1/b/evaluation", metrics={"fid_test": FID, "kid": {"name": "kid", "sampling": {}}}
        ),
        ['of these settings: metrics.kid.name is not set, planned is "kid"'],
    ),
    "another extractor": (
        lambda: write_json(RUN / "runs/table1/b/evaluation.json", {"extractor": {"name": "small_cnn"}}),
        ["of these settings: results/demo/runs/table1/b/evaluation.json is of others"],
    ),
    "a row that is planned no more": (
        lambda: without("runs/table1/b/seed0/run"),
        ["plan.json has no runs/table1/b/seed0/run"],
    ),
    "other numbers": (edited, ["tables/table1.csv: is not what its metrics say"]),
    "several commits": (of_commits("aaa", "bbb"), ["numbers of several commits: aaa (table1/a), bbb (table1/a)"]),
    "no commit": (of_commits("aaa-dirty", "aaa-dirty"), ["numbers of no commit: aaa-dirty (table1/a)", "--any-commit"]),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_run_that_cannot_ship_is_refused_and_nothing_written(place, verb, fault):
    write_run()
    break_it, words = REFUSED[fault]
    break_it()
    code, _, error = verb("ship", RUN, SHIPPED)
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words)
    assert not SHIPPED.exists() and (not SHIPPED.parent.exists() or not any(SHIPPED.parent.iterdir()))


def test_numbers_of_several_commits_ship_when_asked_for(place, verb):
    of_commits("aaa", "bbb-dirty")()
    assert verb("ship", RUN, SHIPPED, "--any-commit")[0] == 0
    assert json.loads((SHIPPED / ABOUT).read_text())["commits"] == ["aaa", "bbb-dirty"]


def test_changed_sources_are_refused(place, verb, monkeypatch):
    write_run()
    answers = {"rev-parse": "abcabc", "status": " M diffusionblocks/page/page.py"}
    monkeypatch.setattr(shipping, "_git", lambda *arguments: answers[arguments[0]])
    code, _, error = verb("ship", RUN, SHIPPED)
    assert code == 2 and "commit abcabc has them, such as diffusionblocks/page/page.py. Commit them first" in error


def test_a_folder_of_other_files_is_left_alone(place, verb):
    write_run()
    SHIPPED.mkdir(parents=True)
    (SHIPPED / "updates.csv").write_text("mine")
    assert verb("ship", RUN, SHIPPED)[0] == verb("ship", RUN, RUN)[0] == 2
    assert all_files(SHIPPED) == {"updates.csv": b"mine"} and (RUN / "plan.json").exists()


def test_a_run_is_shipped_from_where_it_was_made(place, verb, monkeypatch):
    write_run()
    (place / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    code, _, error = verb("ship", Path("..", RUN), "shipped")
    assert code == 2 and "Start this where the run was made" in error


def test_what_fails_on_the_way_leaves_what_was_there(place, monkeypatch):
    write_run()
    shipping.ship(RUN, SHIPPED)
    before = all_files(Path("docs"))
    write_run(a=seeds("a", (1.0, 2.0)), b=seeds("b", (1.0, 2.0)))
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(shipping, "_pack", lambda *arguments: 1 / 0)
        shipping.ship(RUN, SHIPPED)
    assert all_files(Path("docs")) == before
    shipping.ship(RUN, SHIPPED)
    assert all_files(Path("docs")) != before


def test_a_folder_that_cannot_be_put_in_place_leaves_what_was_there(place, monkeypatch):
    write_run()
    shipping.ship(RUN, SHIPPED)
    before, rename = all_files(Path("docs")), Path.rename

    def stops(path, target):
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", stops)
        shipping.ship(RUN, SHIPPED)
    assert all_files(Path("docs")) == before


def test_what_killed_attempts_have_left_is_cleared_and_what_they_moved_away_comes_back(place):
    for name in (".here.abcd_123", ".gone.abcd_123"):
        for part in ("new", "old"):
            Path(name, part).mkdir(parents=True)
            Path(name, part, "file").write_text(part)
    Path("here").mkdir()
    Path("here/file").write_text("as it was")
    Path(".here.notes").write_text("a user's")
    for name, before in (("here", "as it was"), ("gone", "old")):  # gone: killed between its last two steps
        with pytest.raises(ZeroDivisionError), shipping.whole(Path(name)):
            raise ZeroDivisionError
        assert Path(name, "file").read_text() == before
    assert [path.name for path in Path().glob(".*")] == [".here.notes"]


# What the README shows


def test_the_readme_shows_the_numbers_of_the_csv(place):
    write_run(a=seeds("a", (40.0, 42.0, 44.0)), b=seeds("b", (30.0, 31.0, 32.0)))
    text = f"before\n{marker('docs/results/demo')}{END}after\n"
    Path("README.md").write_text(text)
    for _ in range(2):  # the second time in place of the first
        told = shipping.ship(RUN, SHIPPED)
        assert told.endswith("README.md: shows its headline")
        block = headline(SHIPPED, "docs/results/demo")
        assert Path("README.md").read_text() == text.replace(END, block + END)
    lines = [line for line in block.splitlines() if line.startswith("|")][2:]
    assert lines[0] == (
        "| Table 2 | fid_test, lower is better | a: **42.00** ± 2.00 [40.00] |  | b: **31.00** ± 1.00 [30.00] |"
    ), "of the first claim; neither a factor nor what the paper does not claim is a headline"
    assert len(lines) == 2
    assert "scale `demo`" in block and "commit aaa" in block and "docs/results/demo/report.html" in block


def test_the_control_of_a_table_stands_between(place):
    write_run(a=seeds("a", (40.0, 42.0)), b=seeds("b", (30.0, 31.0)), small=seeds("small", (50.0, 52.0)))
    for path in (RUN / "tables/table1.json", RUN / "plan.json"):
        content = json.loads(path.read_text())
        content.get("tables/table1", content)["depth"] = [{"metric": "fid_test", "deep": "a", "shallow": "small"}]
        path.write_text(json.dumps(content))
    shipping.ship(RUN, SHIPPED)
    assert "[40.00] | small: **51.00** ± 1.41 | b: **30.50**" in headline(SHIPPED, "x")


def test_what_is_compared_with_a_deep_row_that_has_a_control_stands_there_too(place):
    write_run(
        **{row: seeds(row, (40.0, 42.0)) for row in ("a", "deep")},
        b=seeds("b", (30.0, 31.0)),
        small=seeds("small", (50.0, 52.0)),
    )
    control = {"metric": "fid_test", "deep": "deep", "shallow": "small"}
    for controls, count in (([], 0), ([control], 1), ([{**control, "metric": "fid_train"}], 0)):
        for path in (RUN / "tables/table1.json", RUN / "plan.json"):
            content = json.loads(path.read_text())
            table = content.get("tables/table1", content)
            table["depth"] = controls
            table["claims"] = [*CLAIMED, {**CLAIMED[0], "against": "deep"}]
            path.write_text(json.dumps(content))
        shipping.ship(RUN, SHIPPED)
        assert headline(SHIPPED, "x").count("deep: **41.00** ± 1.41") == count, controls


def test_a_place_without_an_end_is_refused(place, verb):
    write_run()
    Path("README.md").write_text(marker("docs/results/demo"))
    code, _, error = verb("ship", RUN, SHIPPED)
    assert code == 2 and "README.md: after <!-- results of docs/results/demo --> there is no line" in error
    assert not SHIPPED.exists()


def test_a_damaged_archive_is_told(place):
    write_run()
    shipping.ship(RUN, SHIPPED)
    for content in (b"", b"text", (SHIPPED / METRICS).read_bytes()[:200]):
        (SHIPPED / METRICS).write_bytes(content)
        with pytest.raises(UserError, match=r"metrics\.tar\.xz: damaged"):
            headline(SHIPPED, "x")


def test_our_readme_shows_what_ships_and_nothing_else():
    text = (ROOT / "README.md").read_text()
    places = re.findall(rf"<!-- results of (\S+) -->\n(.*?){END}", text, re.DOTALL)
    assert "docs/results/laptop" in dict(places)
    for name, block in places:
        assert block == (headline(ROOT / name, name) if (ROOT / name / ABOUT).exists() else "")


# A run against what ships


@pytest.fixture
def shipped(place):
    """The run of `write_run`, shipped."""
    write_run()
    shipping.ship(RUN, SHIPPED)


def told(text):
    """(within, outside, missing, new, timed) that `verify` counts."""
    return tuple(map(int, re.findall(r"\d+", text.splitlines()[-1].partition(": ")[2])))


def test_the_run_itself_is_within_the_spread(shipped, verb):
    code, text, error = verb("verify", RUN, SHIPPED)
    assert (code, error, told(text)) == (0, "", (3, 0, 0, 0, 0)) and len(text.splitlines()) == 1


def test_a_number_that_has_moved_is_shown(shipped, verb):
    write_run(a=seeds("a", (40.1, 42.0, 44.0)), b=seeds("b", (130.0, 131.0, 132.0), blocks=2))
    code, text, error = verb("verify", RUN, SHIPPED)
    assert code == 1 and told(text) == (2, 1, 0, 0, 0)
    assert re.search(r"^ *table1 +b +fid_test +31 ± 1 \(3\) +131 ± 1 \(3\) +± 7.03 +worse$", text, re.MULTILINE)
    assert error == "error: results/demo: outside the spread: 1, missing: 0\n"


def test_what_is_missing_and_what_is_new_are_listed(shipped, verb):
    write_run(a=seeds("a", (40.0, 42.0, 44.0), kid=3.0))
    code, text, _ = verb("verify", RUN, SHIPPED)
    assert code == 1 and told(text) == (2, 0, 1, 2, 0)
    assert "Missing: table1/b\nNew: table1/a/kid, table2/a/kid\n" in text


def test_an_unfinished_run_can_be_compared(shipped, verb):
    (RUN / "tables/table1.csv").unlink()
    code, text, _ = verb("verify", RUN, SHIPPED)
    assert code == 1 and told(text) == (1, 0, 1, 0, 0) and "Missing: table1\n" in text


def test_more_than_ships_is_no_fault(shipped, verb):
    about = json.loads((SHIPPED / ABOUT).read_text())
    write_json(SHIPPED / ABOUT, about | {"tables": ["table1"]})
    code, text, _ = verb("verify", RUN, SHIPPED)
    assert code == 0 and told(text) == (2, 0, 0, 1, 0) and "New: table2\n" in text


def test_what_is_timed_is_not_compared(place, verb):
    for seconds in (1.0, 100.0):
        rows = seeds("a", (1.0, 2.0), training_seconds=seconds, relative_speed=number("relative_speed", seconds))
        for run in rows:
            run["metrics"]["relative_speed"]["timed"] = {"where": "here", "how": "so"}
        write_run(a=rows)
        if not SHIPPED.exists():
            shipping.ship(RUN, SHIPPED)
    code, text, _ = verb("verify", RUN, SHIPPED)
    assert code == 0 and told(text) == (2, 0, 0, 0, 4) and "4 that are timed are not compared" in text


def cut(path):
    return lambda: path.write_text(path.read_text()[:20])


def in_words(path):
    return lambda: path.write_text(path.read_text().replace("42.0", "many"))


DAMAGED = {
    "no such run": (remove("plan.json"), "results/demo: no such run"),
    "another scale": (
        lambda: write_json(SHIPPED / ABOUT, {"scale": "laptop", "tables": []}),
        "results/demo: is of scale demo, and docs/results/demo ships scale laptop",
    ),
    "no about": (lambda: (SHIPPED / ABOUT).unlink(), "docs/results/demo: has no about.json"),
    "about of something else": (lambda: write_json(SHIPPED / ABOUT, []), "about.json: is none of a shipped run"),
    "about cut short": (cut(SHIPPED / ABOUT), "about.json: not valid JSON"),
    "no shipped csv": (lambda: (SHIPPED / "table1.csv").unlink(), "docs/results/demo/table1.csv: no table"),
    "shipped csv cut short": (cut(SHIPPED / "table1.csv"), "docs/results/demo/table1.csv: no table"),
    "csv cut short": (cut(RUN / "tables/table1.csv"), "results/demo/tables/table1.csv: no table"),
    "words for numbers": (in_words(RUN / "tables/table1.csv"), "results/demo/tables/table1.csv: no table"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_cannot_be_compared_is_no_difference(shipped, verb, fault):
    break_it, words = DAMAGED[fault]
    break_it()
    code, text, error = verb("verify", RUN, SHIPPED)
    assert (code, text) == (2, "") and words in error and error.count("\n") == 1


def compared(shipped, here):
    """Whether each number of a table is within the spread. Lines: (row, metric, mean, std, seeds) of each side."""
    for folder, lines in (("shipped", shipped), ("here", here)):
        frame = pd.DataFrame(lines, columns=["row", "metric", "ours", "std", "seeds"])
        frame = frame.assign(unit="", better="higher", timed=None, commit="aaa")
        Path(folder).mkdir(exist_ok=True)
        frame.to_csv(f"{folder}/t.csv", index=False)
    found = compare(*(Side(Path(folder), Path(folder), "demo", ["t"]) for folder in ("here", "shipped")))
    return found.count("within"), sorted(found.of("outside")["row"])


@pytest.mark.parametrize(
    ("seeds", "allowed"),
    [((5, 5), 5.04 * (2 / 5) ** 0.5), ((3, 3), 8.61 * (2 / 3) ** 0.5), ((5, 1), 8.61 * (1 + 1 / 5) ** 0.5)],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tolerance_is_students(place, seeds, allowed, sign):
    """For two rows of standard deviation 2; of one seed none is known, and the other side's counts."""
    std = [2.0 if count > 1 else None for count in seeds]
    for factor, outside in ((0.99, []), (1.01, ["a"])):
        here = [("a", "x", 10 + sign * factor * 2 * allowed, std[1], seeds[1])]
        assert compared([("a", "x", 10.0, std[0], seeds[0])], here) == (1 - len(outside), outside)


def test_rows_of_one_seed_have_the_spread_of_the_others(place):
    """Five and five seeds of two rows leave 4 + 4 degrees of freedom; row b of a single seed is judged by them."""
    shipped = [("a", "x", 10.0, 1.0, 5), ("b", "x", 20.0, None, 1), ("b", "other", 20.0, None, 1)]
    allowed = 5.04 * 2**0.5
    for factor, outside in ((0.99, ["b"]), (1.01, ["b", "b"])):
        here = [("a", "x", 10.0, 1.0, 5), ("b", "x", 20 + factor * allowed, None, 1), ("b", "other", 20.1, None, 1)]
        assert compared(shipped, here) == (3 - len(outside), outside), "of `other` nothing has a spread"


def test_what_has_no_spread_must_be_equal(place):
    shipped = [("a", "x", 10.0, None, 1), ("b", "x", float("inf"), None, 1), ("c", "x", 100.0, 0.0, 3)]
    assert compared(shipped, shipped) == (3, [])
    here = [("a", "x", 10.000001, None, 1), ("b", "x", float("inf"), None, 1), ("c", "x", 100.1, 0.0, 3)]
    assert compared(shipped, here) == (2, ["c"])
    assert compared(shipped[:1], [("a", "x", 10.001, None, 1)]) == (0, ["a"])
    assert compared(shipped[1:2], [("b", "x", 5.0, None, 1)]) == (0, ["b"])


# Two runs side by side


OTHER = Path("other/results/laptop")


@pytest.fixture
def two(place):
    """This run, and one of another scale, elsewhere, whose second row is better and was trained for longer."""
    write_run()
    here = place / "other"
    (here / "results/laptop/tables").mkdir(parents=True)
    rows = {"a": seeds("a", (41.0, 42.0, 44.0)), "b": seeds("b", (10.0, 11.0, 12.0), blocks=2)}
    for run in rows["b"]:
        run["run"] |= {"scale": "laptop", "train": {"steps": 4000}}
        run["metrics"]["fid_test"]["sampling"] = {"num_steps": 50}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(here)
        write_run(Path("results/laptop"), **rows)
    path = OTHER / "plan.json"
    path.write_text(path.read_text().replace('"scale": "demo"', '"scale": "laptop"'))


def test_two_runs_stand_side_by_side(two, verb):
    code, text, error = verb("compare", RUN, OTHER, "--output", "compare.csv")
    assert (code, error) == (0, "") and text.startswith(f"there: {OTHER}, scale laptop\nhere: {RUN}, scale demo\n")
    assert told(text) == (2, 1, 0, 0, 0)
    assert re.search(r"^ *table1 +b +fid_test +11 ± 1 \(3\) +31 ± 1 \(3\) +± 7.03 +worse$", text, re.MULTILINE)
    assert "  train.steps: 4000 there, not set here (table1/b)\n" in text
    assert "  metrics.fid_test.sampling.num_steps: 50 there, not set here (table1/b)\n" in text
    lines = pd.read_csv("compare.csv").set_index(["table", "row"])
    assert lines["verdict"].to_dict() == {
        ("table1", "a"): "within",
        ("table1", "b"): "outside",
        ("table2", "a"): "within",
    }
    moved = lines.loc["table1", "b"]
    assert (moved["ours_there"], moved["ours_here"], moved["seeds_here"], moved["better"]) == (11, 31, 3, "lower")
    assert "train.steps: 4000 | not set" in moved["settings"] and pd.isna(lines.loc[("table1", "a"), "settings"])


def test_what_ships_is_a_run_too(two, verb):
    shipping.ship(RUN, SHIPPED)
    for words in ((RUN, SHIPPED), (OTHER, SHIPPED), (SHIPPED, OTHER)):
        code, text, _ = verb("compare", *words)
        assert code == 0 and told(text) == ((3, 0, 0, 0, 0) if RUN in words else (2, 1, 0, 0, 0))
    assert "train.steps: 4000 there, not set here (table1/b)" in text
    assert "No setting differs.\n" in verb("compare", RUN, SHIPPED)[1]


def test_rows_and_tables_of_one_run_alone_are_named(two, verb):
    rows = {name: seeds(name, (40.0, 42.0, 44.0)) for name in "ac"}
    write_run(**rows)
    (OTHER / "tables/table2.csv").unlink()
    text = verb("compare", RUN, OTHER)[1]
    assert "Missing: table1/b\nNew: table2, table1/c\n" in text and told(text) == (1, 0, 1, 2, 0)
    for path in OTHER.glob("tables/*.csv"):
        path.unlink()
    assert told(verb("compare", RUN, OTHER)[1]) == (0, 0, 0, 2, 0)


def test_of_many_numbers_those_that_moved_most_are_shown(place, verb):
    for at, first in (("here", 1.0), ("there", 2.0)):
        results = Path(at, "results/demo")
        (results / "tables").mkdir(parents=True)
        rows = {f"row{i}": seeds(f"row{i}", [first * (1 + i)]) for i in range(30)}
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(at)
            write_run(Path("results/demo"), a=rows["row0"], **rows)
    text = verb("compare", "here/results/demo", "there/results/demo")[1]
    assert len(re.findall(r"^ *table\d +\w+ +fid_test", text, re.MULTILINE)) == 20 and "... and 12 more\n" in text
    assert told(text) == (0, 32, 0, 0, 0) and text.count("better") == 20


def test_a_folder_that_is_no_run_is_told(two, verb):
    Path("empty").mkdir()
    for words, told_of in (
        ((RUN, "empty"), "error: empty: no such run: it has no plan.json"),
        ((RUN, "nowhere"), "error: nowhere: no such run: it has no plan.json"),
        ((RUN, RUN), "is the run itself"),
        ((RUN,), "snakemake compare --config with=docs/results/laptop"),
        ((RUN, "$NOWHERE/x"), "the variable NOWHERE is not set"),
    ):
        code, text, error = verb("compare", *words)
        assert (code, text) == (2, "") and told_of in error and error.count("\n") == 1

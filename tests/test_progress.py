"""What the terminal says of a running workflow: of made-up jobs whose seconds are known, and of a real run."""

import json
import logging
import re
from types import SimpleNamespace

import pytest
from conftest import shipped
from snakemake.iocontainers import Wildcards
from snakemake.logging import DefaultFilter, DefaultFormatter

from diffusionblocks.plan.progress import Progress


class FakeRow:
    def __init__(self, folder, **numbers):
        """numbers: of each seed; none for one that measures something else."""
        self.folder, self.seeds, self.metrics = folder, list(numbers), {"left_out": {}, "accuracy": {}, "above": {}}
        for seed, value in numbers.items():
            metrics = {"above": {"value": 1, "unit": None}, "accuracy": {"value": value, "unit": "%"}}
            (folder / f"{seed}.json").write_text(json.dumps({"metrics": metrics if value is not None else {}}))

    def metrics_files(self):
        return [str(self.folder / f"{seed}.json") for seed in self.seeds]


def job(number, rule, output="made", **wildcards):
    return SimpleNamespace(
        jobid=number, rule=SimpleNamespace(name=rule), wildcards=Wildcards(fromdict=wildcards), output=[output]
    )


class Terminal:
    """Snakemake's handler with our words between, and a clock of its own."""

    def __init__(self, rows=None, no_hooks=False, **said):
        output = {"quiet": None, "verbose": False, "printshellcmds": False, "debug_dag": False, **said}
        output_settings, settings = SimpleNamespace(**output), SimpleNamespace(no_hooks=no_hooks)
        workflow = SimpleNamespace(
            output_settings=output_settings, execution_settings=settings, dryrun=False, touch=False
        )
        self.now, self.shown, terminal = 0.0, [], self

        class Handler(logging.Handler):
            def emit(self, record):
                if text := self.format(record):
                    terminal.shown.append(text)

        usual = {"debug_dag": False, "verbose": output["verbose"], "dryrun": False}
        self.logger = logging.Logger("a test")
        for name in ("DefaultStreamHandler", "DefaultLogFileHandler"):
            handler = Handler() if name == "DefaultStreamHandler" else logging.NullHandler()
            handler.name = name
            handler.addFilter(DefaultFilter(output["quiet"], printshellcmds=output["printshellcmds"], **usual))
            handler.setFormatter(DefaultFormatter(output["quiet"], show_failed_logs=True))
            self.logger.addHandler(handler)
        self.progress = Progress(workflow, rows or {}, lambda: self.now)
        self.progress.listen(self.logger)

    def say(self, event=None, text="words", **more):
        """What is shown of a record."""
        before = len(self.shown)
        self.logger.info(text, extra={"event": event, **more} if event else more)
        return "\n".join(self.shown[before:])

    def run(self, *jobs, seconds):
        """Jobs that begin together; what is shown when they end, after so many seconds."""
        for one in jobs:
            self.say("job_info", jobid=one.jobid, rule_msg="words", reason="none")
        self.now += seconds
        return [self.say("job_finished", job_id=one.jobid) for one in jobs]


def trained(row, first=0):
    """Three jobs of a row: two parts, and what measures them."""
    of_row = {"table": "table1", "row": row, "seed": "0"}
    parts = [job(first + i, "train", part=f"block{i}", **of_row) for i in range(2)]
    return [*parts, job(first + 2, "evaluate", **of_row)]


def test_a_line_for_each_row_and_page_and_none_for_other_jobs(tmp_path):
    terminal = Terminal({("table1", "a"): FakeRow(tmp_path, seed0=80.0, seed1=91.0)})
    jobs = [*trained("a"), job(9, "page_of_table", "tables/table1.html", table="table1"), job(10, "table1")]
    terminal.progress.start(jobs)
    assert terminal.run(*jobs[:2], seconds=75) == ["0:01:15  1 of 2 trainings, 0 of 1 rows, about 2 min left", ""]
    line = "0:01:25  table1/a: accuracy 85.5 % (2 seeds); 1 of 1 rows, about 1 min left"
    assert terminal.run(jobs[2], seconds=10) == [line]
    assert terminal.run(jobs[3], seconds=3600) == ["1:01:25  tables/table1.html; 1 of 1 pages"]
    assert terminal.run(jobs[4], seconds=0) == [""]


def test_a_row_is_told_of_when_its_last_seed_is_measured(tmp_path):
    terminal = Terminal({("t", "a"): FakeRow(tmp_path, seed0=None)})
    jobs = [job(seed, "count", table="t", row="a", seed=str(seed)) for seed in range(2)]
    terminal.progress.start(jobs)
    assert terminal.run(*jobs, seconds=1) == ["", "0:00:01  t/a; 1 of 1 rows"]


def test_a_seed_that_is_asked_alone_is_told_without_the_others(tmp_path):
    row = FakeRow(tmp_path, seed0=80.0, seed1=91.0)
    terminal = Terminal({("t", "a"): row})
    for file, said in (("seed1", "t/a: accuracy 80 %; 1 of 1 rows"), ("seed0", "t/a; 1 of 1 rows")):
        (tmp_path / f"{file}.json").unlink()
        one = job(0, "evaluate", table="t", row="a", seed="0")
        terminal.progress.start([one])
        assert terminal.run(one, seconds=0) == [f"0:00:00  {said}"]
    (tmp_path / "seed0.json").write_text("[]")
    terminal.progress.start([one])
    assert terminal.run(one, seconds=0) == ["0:00:00  t/a; 1 of 1 rows"], "whatever the file holds"


def test_without_hooks_the_terminal_is_as_snakemake_has_it():
    """Nobody calls `start` then."""
    terminal = Terminal(no_hooks=True)
    (shown,) = terminal.run(job(1, "plan"), seconds=1)
    assert "words" in shown and "Select" in terminal.say(text="Select jobs to execute...")


def test_the_log_may_tell_of_jobs_while_the_time_left_is_reckoned():
    terminal = Terminal()

    class Beginning(float):
        def __rsub__(self, now):
            terminal.progress.begun[len(terminal.progress.begun) + 50] = 0.0
            return now - float(self)

    jobs = trained("a")
    terminal.progress.start(jobs)
    terminal.run(jobs[0], seconds=30)
    terminal.progress.begun[1] = Beginning(30)
    assert terminal.progress.left() is not None


def test_the_time_left_is_that_of_jobs_like_those_that_wait():
    """Two at once; two parts took 30 s each, so two of the same row take as long, of another table the mean of all."""
    terminal = Terminal()
    first, other = trained("a"), job(20, "train", part="all", table="table2", row="b", seed="0")
    again = [job(30 + i, "train", part=f"block{i}", table="table1", row="a", seed="1") for i in range(2)]
    terminal.progress.start([*first[:2], *again, other])
    assert terminal.progress.left() is None, "nobody knows yet"
    terminal.run(*first[:2], seconds=30)
    assert terminal.progress.left() == pytest.approx((30 + 30 + 30) / 2)
    terminal.say("job_info", jobid=30, rule_msg="words", reason="none")
    terminal.say("job_info", jobid=31, rule_msg="words", reason="none")
    terminal.now += 10
    assert terminal.progress.left() == pytest.approx((20 + 20 + 30) / 2)
    terminal.now += 40
    terminal.say("job_finished", job_id=30)
    assert terminal.progress.left() == pytest.approx((30 + 30 + 50) / 3 / 2, rel=0.01), "31 is over its time"


def test_snakemakes_words_about_each_job_are_hidden_and_errors_are_not(tmp_path):
    terminal = Terminal()
    for event in ("job_info", "shellcmd", "progress", "job_started", "resources_info", "run_info", "workflow_started"):
        assert terminal.say(event, jobid=1) == ""
    assert terminal.say(text="Select jobs to execute...") == "" and terminal.say(text="Nothing to be done") != ""
    assert terminal.say("job_finished", job_id=99) == "", "of a job that nobody knows"


@pytest.mark.parametrize("said", [{}, {"quiet": {"rules"}}, {"quiet": {"progress", "rules"}}, {"verbose": True}])
def test_a_failed_job_is_shown_with_its_log(tmp_path, said):
    """`--quiet rules` alone would hide both."""
    (tmp_path / "log").write_text("error: the loss is not finite\n")
    about = {"rule_name": "train", "rule_msg": None, "jobid": 3, "input": ["a/source.py"], "output": ["a.safetensors"]}
    about |= {"log": [str(tmp_path / "log")], "conda_env": None, "shellcmd": "exec python", "aux": {}}
    shown = Terminal(**said).say("job_error", **about)
    assert f"log: {tmp_path}/log" in shown and "error: the loss is not finite" in shown
    assert ("source.py" in shown) == bool(said), "our own says it without all inputs"


@pytest.mark.parametrize("said", [{"verbose": True}, {"printshellcmds": True}, {"quiet": {"host"}}])
def test_who_asks_for_snakemakes_own_words_gets_them(said):
    terminal = Terminal(**said)
    terminal.progress.start([job(1, "plan")])
    (shown,) = terminal.run(job(1, "plan"), seconds=1)
    assert "words" in shown and "Select" in terminal.say(text="Select jobs to execute...")


def test_rows_come_in_the_order_of_the_tables_each_with_what_it_needs():
    plan = shipped()

    def priority(**wildcards):
        return plan.priority(Wildcards(fromdict=wildcards))

    rows = list(dict.fromkeys(plan.origins.values()))
    ranks = [priority(table=table, row=row, seed="0") for table, row in rows]
    assert rows[0] == ("table1", "vit_end_to_end") and ranks == sorted(ranks, reverse=True) and ranks[-1] > 0
    assert priority(planned="runs/table1/vit_end_to_end/seed0/run") == ranks[0]
    assert priority(data="digits") == priority(planned="data/digits/source") == ranks[0]
    digits = plan.rows["table1", "vit_end_to_end"].data_name
    texts = plan.rows["table3", "mdm_end_to_end"].data_name
    assert digits == "digits" and 0 < priority(data=texts, teacher="any") < ranks[0]
    assert priority(table="table1") == priority() == priority(planned="tables/table7") > ranks[0], "short, at the end"


@pytest.mark.slow
def test_the_terminal_of_a_whole_run(finished):
    said = finished.output.splitlines()
    rows = [line for line in said if re.match(r"\d:\d\d:\d\d  table1/\w+: accuracy [\d.]+ %; \d of 7 rows", line)]
    assert len(rows) == 7 and len(said) < 25 and max(map(len, rows)) <= 100
    assert re.search(r"results/demo/tables/table1\.html; \d of 2 pages", finished.output)
    assert "rule " not in finished.output and "To do: 9 trainings, 7 rows to be measured, 2 pages" in finished.output
    (log,) = (finished.folder / ".snakemake/log").glob("*.log")
    assert log.read_text().count("Finished jobid") > 40, "Snakemake's own log has all"

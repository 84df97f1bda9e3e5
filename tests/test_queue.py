"""What is asked of SLURM's queue, of a program in its place, and what is said of it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan

from diffusionblocks.base import lock as locks
from diffusionblocks.base.files import UserError
from diffusionblocks.base.lock import lock
from diffusionblocks.plan import watch
from diffusionblocks.training import chain


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """queue(lines): a program squeue that prints these lines and notes how it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def queue(*lines, code=0, program="squeue"):
        text = "".join(f"{line}\n" for line in lines)
        (programs / "answer").write_text(text)
        (programs / program).write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" >> {programs}/asked\ncat {programs}/answer\nexit {code}\n'
        )
        (programs / program).chmod(0o755)
        if str(programs) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return programs / "asked"

    return queue


def test_jobs_of_this_folder_that_snakemake_started(queue, tmp_path):
    asked = queue(
        f"11|RUNNING|None|rule_train_wildcards_block0|{tmp_path}",
        f"12|PENDING|Priority|rule_evaluate_wildcards|{tmp_path}",
        f"13|RUNNING|None|(null)|{tmp_path}",
        f"14|RUNNING|None|my rule_book|{tmp_path}",
        f"15|RUNNING|None|rule_train|{tmp_path}/other",
        "16|RUNNING|None|rule_train|/elsewhere",
        "",
        "slurm_load_jobs error",
    )
    assert watch.queue(tmp_path) == [("11", "RUNNING", "None"), ("12", "PENDING", "Priority")]
    words = asked.read_text().split()
    states = set(words[words.index("-t") + 1].split(","))
    assert "-h" in words and {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"} <= states


def test_no_slurm_is_an_empty_queue_and_no_answer_is_none(queue, tmp_path, monkeypatch):
    queue(f"11|RUNNING|None|rule_train|{tmp_path}", code=1)
    assert watch.queue(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", None)
    assert watch.queue(tmp_path) == []


def test_jobs_of_a_snakemake_that_is_gone_are_waited_for(queue, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    queue(f"11|RUNNING|None|rule_train|{tmp_path}", f"12|PENDING|None|rule_train|{tmp_path}")
    pauses, really_sleep = [], time.sleep

    def sleep(seconds):
        if seconds < 1:  # subprocess waits by the same function for a program that is slow to end
            return really_sleep(seconds)
        pauses.append(seconds)
        if len(pauses) == 2:
            queue()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    watch.wait_for_jobs(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert pauses == [60, 60] and len(said) == 2
    assert "2 jobs" in said[0] and "scancel 11 12" in said[0] and "checkpoints" in said[0]
    watch.wait_for_jobs(tmp_path)
    assert capsys.readouterr().err == "", "nothing runs, nothing is said"


def test_jobs_of_a_snakemake_that_lives_are_not_waited_for(queue, tmp_path, monkeypatch):
    """Its own lock, or ours, says what to do; and nobody is told to cancel what it is waiting for."""
    monkeypatch.chdir(tmp_path)
    queue(f"11|RUNNING|None|rule_train|{tmp_path}")
    monkeypatch.setattr(watch, "queue", None)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    watch.wait_for_jobs(tmp_path)
    (tmp_path / ".snakemake/locks/0.input.lock").unlink()
    with other_snakemake(tmp_path / ".snakemake"):
        watch.wait_for_jobs(tmp_path)


class other_snakemake:  # noqa: N801 (read as a with statement)
    """Another process that holds a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        code = f"from diffusionblocks.plan import watch\nwith watch.hold({str(self.folder)!r}): input()"
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE)
        while not (self.folder / "lock.json").exists():
            assert self.process.poll() is None
            time.sleep(0.01)
        return self.process

    def __exit__(self, *_):
        self.process.communicate(b"\n")


def test_two_snakemakes_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch.refuse_unlock(["snakemake", "--unlock"])
    with other_snakemake(tmp_path / ".snakemake") as other:
        words = rf"a Snakemake is at work in this folder \(host {socket.gethostname()}, process {other.pid}\)"
        with pytest.raises(UserError, match=words), watch.hold():
            pass
        with pytest.raises(UserError, match=words):
            watch.refuse_unlock(["snakemake", "--unlock"])
        watch.refuse_unlock(["snakemake", "-n"])
    with watch.hold():  # it has let go
        assert json.loads(Path(".snakemake/lock.json").read_text())["pid"] == os.getpid()
    assert not Path(".snakemake/lock.json").exists()


def test_locks_of_a_snakemake_that_was_killed_are_removed_and_no_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".snakemake"
    locks = folder / "locks/0.input.lock", folder / "locks/0.output.lock"

    def make_locks():
        for path in locks:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a file")

    def left():
        watch.unlock_abandoned()
        return [path for path in locks if path.exists()], capsys.readouterr().err

    assert left() == ([], ""), "nobody was here"
    make_locks()
    assert left() == ([*locks], ""), "one that is about to start"
    with other_snakemake(folder) as other, pytest.raises(UserError, match=f"process {other.pid}"):
        left()
    assert all(path.exists() for path in locks)
    with other_snakemake(folder) as other:
        other.kill()
        other.wait()
    assert left() == ([], "The last Snakemake in this folder was killed; its locks are removed.\n")
    assert not (folder / "lock.json").exists()


def test_locks_that_are_made_while_others_are_judged_stay(tmp_path, monkeypatch, capsys):
    """Two start at once after a kill, and the faster one has locked anew before the slower one removes anything."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".snakemake/locks/0.input.lock"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    os.utime(path, (0, 0))
    (tmp_path / ".snakemake/lock.json").write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "started": "x"}))
    holder = watch.holder
    monkeypatch.setattr(watch, "holder", lambda folder: path.write_text("new") and holder(folder))
    watch.unlock_abandoned()
    assert path.read_text() == "new" and capsys.readouterr().err == "", "nothing is removed, nothing is said"


def test_a_lock_that_another_host_left_is_judged_once(tmp_path, monkeypatch):
    """It takes three minutes, and a start asks twice before it holds the folder."""
    judged = []
    monkeypatch.setattr(locks, "_abandoned", lambda path, text: bool(judged.append(text) or True))
    (tmp_path / "lock.json").write_text('{"host": "elsewhere", "pid": 1}')
    assert locks.holder(tmp_path) is None
    with watch.hold(tmp_path):
        assert len(judged) == 1


def test_the_watchdog_tells_once_of_each_job_that_will_never_start(queue, tmp_path):
    dog = watch.Watchdog(tmp_path)
    stuck = f"11|PENDING|PartitionTimeLimit|rule_train|{tmp_path}"
    queue(stuck, f"12|PENDING|Priority|rule_train|{tmp_path}", f"13|RUNNING|None|rule_train|{tmp_path}")
    (line,) = dog.look()
    assert "job 11" in line and "PartitionTimeLimit" in line and "`runtime`" in line and "scancel 11" in line
    assert dog.look() == []
    queue(stuck, f"12|PENDING|JobHeldUser|rule_train|{tmp_path}")
    (line,) = dog.look()
    assert "job 12" in line and "scontrol release" in line


def test_the_watchdog_tells_of_a_controller_that_is_away_and_back(queue, tmp_path):
    dog = watch.Watchdog(tmp_path, pause=0)
    queue(code=1)
    assert ["does not answer" in line for line in dog.look()] == [True] and dog.look() == []
    queue()
    assert ["answers again" in line for line in dog.look()] == [True] and dog.look() == []


def test_the_watchdog_ends_with_the_workflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    before = threading.active_count()
    guard = watch.Guard("results/demo")
    guard.start(on_cluster=True, same_python=True)
    assert threading.active_count() == before + 2  # the watchdog, and the lock's sign of life
    assert os.environ["PATH"].startswith(str(ROOT / "workflow/slurm"))
    guard.end()
    for _ in range(500):
        if threading.active_count() > before:
            time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize(("said", "left"), [("100/1s", False), ("100/1m", True), ("9/1s", True)])
def test_a_limit_of_jobs_is_lifted_unless_a_user_has_set_it(said, left):
    limit = JobRateLimiter(MaxJobsPerTimespan.parse_choice(said))
    scheduler = SimpleNamespace(job_rate_limiter=limit)
    watch.lift_default_limit(scheduler)
    assert scheduler.job_rate_limiter is (limit if left else None)
    watch.lift_default_limit(SimpleNamespace(job_rate_limiter=None))  # of a dry run


def test_at_the_end_stopped_trainings_are_told_and_finished_ones_not(tmp_path, capsys):
    from diffusionblocks.base import tensors

    for name, step in (("stopped", 7), ("finished", 12)):
        path = tmp_path / f"state/table1/row/seed0/{name}/checkpoint.safetensors"
        tensors.write(path, {}, {"step": step, "total": 12})
    (tmp_path / "log").write_text("")
    watch.Guard(str(tmp_path)).end(failed=[tmp_path / "log"])
    said = capsys.readouterr().err
    assert f"{tmp_path}/state/table1/row/seed0/stopped: step 7 of 12" in said and "finished" not in said
    assert "Run the same command again" in said and "runtime" in said


# What a trainer does at its time limit


@pytest.mark.parametrize(
    ("answer", "moved", "requeued", "words"),
    [
        ("RUNNING|1:30", 5, True, "Queued again"),
        ("RUNNING|1:30", 0, False, "no update within its time limit. Raise `runtime`"),
        ("RUNNING|2:01:30", 5, False, "Start the same command again"),
        ("RUNNING|1-00:00:30", 5, False, "Start the same command again"),
        ("RUNNING|UNLIMITED", 5, False, "Start the same command again"),
        ("COMPLETING|0:00", 5, False, "Start the same command again"),  # cancelled, or over its limit
        ("", 5, False, "Start the same command again"),
    ],
)
def test_a_job_is_queued_again_at_its_time_limit_alone(queue, monkeypatch, capsys, answer, moved, requeued, words):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    queue(program="scontrol")
    asked = queue(answer)
    assert words in chain.go_on("row: stopped after step 5", moved)
    assert ("requeue 17" in asked.read_text()) == requeued
    assert ("row: stopped after step 5" in capsys.readouterr().out) == requeued


def test_a_cluster_that_does_not_queue_again_is_told_of(queue, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    queue(program="scontrol", code=1)
    queue("RUNNING|1:30")
    said = chain.go_on("row: stopped", 5)
    assert "SLURM does not queue the job again (exit code 1). Raise `runtime`" in said


def test_without_slurm_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(subprocess, "run", None)
    assert chain.go_on("row: stopped", 5) == "row: stopped. Start the same command again: it goes on from there."


# SLURM's programs while its controller is away

AWAY = "Unable to contact slurm controller (connect failure)"


def slurm_program(tmp_path, name, failures, text=AWAY):
    """A stand-in for one of SLURM's programs that fails so often, then prints its arguments."""
    path = tmp_path / "slurm" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!/bin/sh\necho x >> {path}.tries\n"
        f'[ $(wc -l < {path}.tries) -gt {failures} ] || {{ echo "{name}: error: {text}" >&2; exit 1; }}\n'
        f'echo {name} "$@"\n'
    )
    path.chmod(0o755)
    return path


def call(tmp_path, name, *arguments):
    """A program of ours in front of the stand-ins; a second takes no time."""
    (tmp_path / "slurm/sleep").write_text("#!/bin/sh\n")
    (tmp_path / "slurm/sleep").chmod(0o755)
    path = f"{ROOT}/workflow/slurm:{tmp_path}/slurm:/usr/bin:/bin"
    return subprocess.run([name, *arguments], capture_output=True, text=True, env={"PATH": path}, check=False)


@pytest.mark.parametrize("name", ["sbatch", "squeue"])
def test_our_programs_wait_for_a_controller_that_is_away(tmp_path, name):
    slurm_program(tmp_path, name, failures=3)
    done = call(tmp_path, name, "--wrap", "two words")
    assert (done.returncode, done.stdout) == (0, f"{name} --wrap two words\n")


def test_a_submission_that_is_refused_is_not_tried_again(tmp_path):
    path = slurm_program(tmp_path, "sbatch", failures=3, text="Invalid partition name specified")
    done = call(tmp_path, "sbatch")
    assert done.returncode == 1 and "Invalid partition" in done.stderr
    assert Path(f"{path}.tries").read_text() == "x\n"


def test_sacct_without_accounting_asks_the_queue(tmp_path):
    slurm_program(tmp_path, "sacct", failures=99, text="Slurm accounting storage is disabled")
    slurm_program(tmp_path, "squeue", failures=2)
    done = call(tmp_path, "sacct", "-X", "--format=JobIdRaw,State", "--name", "uuid")
    assert done.stdout == "squeue --format=%i|%T --states=all --noheader --name uuid\n"
    assert call(tmp_path, "sacct", "-j", "1.0", "--format=Reason").returncode == 1
    slurm_program(tmp_path, "sacct", failures=0)
    assert call(tmp_path, "sacct", "--name", "uuid").stdout == "sacct --name uuid\n"


def test_a_lock_of_ours_is_no_other(tmp_path):
    with lock(tmp_path, "Snakemake"), watch.hold(tmp_path / "elsewhere"):
        pass

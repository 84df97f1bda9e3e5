"""What happens around a running workflow: another Snakemake, jobs that outlived theirs, a queue that stands still.

Standard library only.
"""

import atexit
import contextlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffusionblocks.base import slurm
from diffusionblocks.base.files import UserError, read_about
from diffusionblocks.base.lock import holder, lock
from diffusionblocks.base.warm import warm
from diffusionblocks.plan.configuration import ROOT

OURS = Path(".snakemake")  # where the Snakemake at work in a folder holds its lock
PROGRAMS = ROOT / "workflow/slurm"  # which wait for a controller that is away
STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,REQUEUED,COMPLETING"  # all in which a job may yet write
PAUSE = 60  # seconds between two looks at a job that is waited for
# SLURM's reasons for which a job would be pending for ever, and what to do.
STUCK = {
    "PartitionTimeLimit": "`runtime` exceeds the partition's limit: lower it in the profile, then cancel the job",
    "PartitionNodeLimit": "no node of the partition has what the job asks for: change the profile, then cancel the job",
    "BadConstraints": "no node has what the job asks for: change the profile, then cancel the job",
    "Reservation": "its reservation has ended or does not exist: change the profile, then cancel the job",
    "InvalidAccount": "the account may not be used: change `slurm_account` in the profile, then cancel the job",
    "InvalidQOS": "the QOS may not be used: change `qos` in the profile, then cancel the job",
    "AccountNotAllowed": "the account may not use this partition: change the profile, then cancel the job",
    "QOSNotAllowed": "the QOS may not use this partition: change the profile, then cancel the job",
    "MaxMemPerLimit": "`mem_mb` exceeds the partition's limit: lower it in the profile, then cancel the job",
    "JobHeldUser": "it is held: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "launch failed requeued held": "it could not be started and is held: see the node's state, then scontrol release",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
}


def queue(folder: str | Path) -> list[tuple[str, str, str]] | None:
    """(id, state, reason) of jobs that some Snakemake started in `folder` and that have not ended.

    Empty without SLURM, None where no cluster answers.
    """
    if not shutil.which("squeue"):
        return []
    text, failed = slurm.ask("squeue", "-h", "-t", STATES, "-o", "%i|%T|%r|%k|%Z")
    if failed:
        return None
    jobs = [line.split("|") for line in text.splitlines() if line.count("|") == 4]
    here = Path(folder).resolve()
    return [
        (job, state, reason)
        for job, state, reason, comment, workdir in jobs
        if Path(workdir).resolve() == here and comment.startswith(("rule_", "group_"))
    ]


def refuse_unlock(arguments: list[str]) -> None:
    """Raise UserError where somebody would unlock a folder in which a Snakemake is at work."""
    if "--unlock" in arguments and (other := holder(OURS)):
        raise UserError(_at_work(other))


def _at_work(other):
    return (
        f"a Snakemake is at work in this folder (host {other['host']}, process {other['pid']}). Wait for it, or stop "
        "it there with Ctrl-C, which also cancels its jobs and lets them save"
    )


def unlock_abandoned() -> None:
    """Remove what locks Snakemake's files where the Snakemake that made it was killed, so that nobody need `--unlock`.

    Locks of one that has not begun its first job, and so holds no folder yet, stay. Raises UserError where one is at
    work.
    """
    locks = {path: path.stat().st_mtime_ns for path in (OURS / "locks").glob("*")}
    if not locks or not (OURS / "lock.json").exists():
        return
    with hold():  # two may start at once: the second finds the first at work, or locks that are the first one's own
        removed = False
        for path, made in locks.items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime_ns == made:
                    path.unlink()
                    removed = True
    if removed:
        print("The last Snakemake in this folder was killed; its locks are removed.", file=sys.stderr, flush=True)


def wait_for_jobs(folder: str | Path) -> None:
    """Wait until the jobs of a Snakemake that is gone have ended; their results are then there, and nothing is lost.

    Nobody can take them over: only the Snakemake that has submitted a job learns how it ended.
    """
    if any((OURS / "locks").glob("*")) or holder(OURS):
        return  # Snakemake's own lock, or `hold`, has the word
    while jobs := queue(folder):
        ids = " ".join(job for job, *_ in jobs)
        print(
            f"{time.strftime('%H:%M')} SLURM has {len(jobs)} jobs of this folder whose Snakemake is gone: waiting till "
            f"they end. Not to wait: Ctrl-C, then scancel {ids}; trainings go on from their checkpoints.",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(PAUSE)


@contextlib.contextmanager
def hold(folder: str | Path = OURS) -> Iterator[None]:
    """Hold the folder in which a Snakemake works. Raises UserError where another one does."""
    if other := holder(Path(folder)):
        raise UserError(_at_work(other))
    with lock(Path(folder), "Snakemake"):
        yield


class Watchdog(threading.Thread):
    """Says once of each job why it will be pending for ever; and when SLURM stops answering, or does again."""

    def __init__(self, folder: str | Path, pause: float = 300):
        super().__init__(daemon=True)
        self.folder, self.pause, self.told, self.silent, self.done = folder, pause, set(), None, threading.Event()

    def run(self):
        while not self.done.wait(self.pause):
            for line in self.look():
                print(line, file=sys.stderr, flush=True)

    def look(self) -> list[str]:
        """What there is to say now."""
        jobs = queue(self.folder)
        if jobs is None:
            silent, self.silent = self.silent, self.silent or time.monotonic()
            told = "jobs go on, their states are asked again, submissions wait; Ctrl-C could cancel nothing now"
            return [] if silent else [f"SLURM's controller does not answer: {told}"]
        found = []
        if self.silent:
            found = [f"SLURM's controller answers again, after {round(time.monotonic() - self.silent)} s"]
            self.silent = None
        for job, state, reason in jobs:
            cure = next((STUCK[known] for known in STUCK if reason.strip("()").startswith(known)), None)
            if state == "PENDING" and cure and (job, reason) not in self.told:
                self.told.add((job, reason))
                found.append(f"SLURM job {job} will not start by itself ({reason}): {cure} (scancel {job})")
        return found


def unfinished(results: str | Path) -> list[str]:
    """A line for each training that was stopped on its way: its folder, and how far it has come."""
    found = []
    for path in sorted(Path(results, "state").glob("*/*/*/*/checkpoint.safetensors")):
        about = read_about(path) or {}
        if about.get("step", 0) < about.get("total", 0):
            found.append(f"{path.parent}: step {about['step']} of {about['total']}")
    return found


def hidden_logs(files: Sequence[str | Path]) -> Iterator[str]:
    """The last lines of logs that Snakemake has named in its own, `files`, and not shown.

    It shows no further one after a log that is empty: of a job that never began on its node, SLURM's has the cause.
    """
    text = "\n".join(Path(file).read_text(encoding="utf-8", errors="replace") for file in files)
    for names in dict.fromkeys(re.findall(r"^ *log: (.+) \(check log file", text, re.MULTILINE)):
        first, *others = names.split(", ")
        if re.search(rf"^Logfile {re.escape(first)}(: empty file| not found\.)$", text, re.MULTILINE):
            for other in filter(os.path.isfile, others):
                lines = Path(other).read_text(encoding="utf-8", errors="replace").splitlines()[-50:]
                yield "\n".join([f"Logfile {other}:", *lines])


def lift_default_limit(scheduler) -> None:
    """Take Snakemake's default limit of 100 jobs a second from its scheduler; one that a user has set stays.

    It limits nothing here, and for every job that has ended it has the scheduler look at all that wait once more a
    second: half a core after 300 of them.
    """
    limit = scheduler.job_rate_limiter
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None


class Guard:
    """All of the above, from the start of a workflow to its end."""

    def __init__(self, results: str):
        self.results, self.stack = results, contextlib.ExitStack()

    def start(self, on_cluster: bool, same_python: bool) -> None:
        """Hold the folder; on a cluster have Snakemake find our sbatch, squeue and sacct, and watch the queue; else
        keep a warm process for jobs that have the Python of this one.

        Raises UserError as `hold` does.
        """
        self.stack.enter_context(hold())
        atexit.register(self.stack.close)  # an interrupted Snakemake calls no handler of ours
        if on_cluster:
            os.environ["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
            dog = Watchdog(os.getcwd())
            dog.start()
            self.stack.callback(dog.done.set)
        elif same_python:
            self.stack.enter_context(warm(f"{self.results}/logs/warm.log"))

    def end(self, failed: Sequence[str | Path] = ()) -> None:
        """Let go; where something failed, show what Snakemake does not, and say how stopped trainings go on.

        failed: Snakemake's own logs, where something did.
        """
        self.stack.close()
        if not failed:
            return
        for text in hidden_logs(failed):
            print(f"\n{text}", file=sys.stderr)
        if any(Path(self.results, "tables").glob("*.csv")):
            print(f"\nThe page of what is finished: python -m diffusionblocks so_far {self.results}", file=sys.stderr)
        if stopped := unfinished(self.results):
            print(
                "\nTrainings that were stopped on their way are saved. Run the same command again: they go on from "
                "there. Where a time limit stopped them, raise `runtime` of train.\n  " + "\n  ".join(stopped),
                file=sys.stderr,
                flush=True,
            )

"""A training that is longer than its job's time limit: the job asks SLURM to start it again. Standard library only."""

import os
import subprocess

MARGIN = 600  # seconds before its limit in which a running job is stopped for no other reason


def go_on(moved: int) -> str:
    """Where a time limit has stopped this job, ask SLURM to queue it again; say what will happen, or what to do.

    moved: updates that this attempt has made. One that made none would never end, and is not queued again. A job that
    somebody cancelled is not running any more when its signal arrives, so that it stays cancelled.
    """
    by_hand = "Start the same command again: it goes on from there."
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return by_hand
    state, left = _queue(job)
    if state != "RUNNING" or left is None or left > MARGIN:
        return f"{by_hand} Snakemake's retries and SLURM's requeue do so by themselves."
    if not moved:
        return "It made no update within its time limit: raise `runtime` of train in the profile. " + by_hand
    failed = _slurm("scontrol", "requeue", job)[1]
    if failed:
        return f"SLURM does not queue the job again ({failed}): raise `runtime` of train in the profile. {by_hand}"
    return "Its time limit is near: SLURM queues the job again, and it goes on from there."


def _queue(job):
    """(state, seconds left) of a job, as far as SLURM says."""
    state, _, left = _slurm("squeue", "-h", "-j", job, "-o", "%T|%L")[0].partition("|")
    return state, _seconds(left)


def _seconds(text):
    """SLURM's [days-][[hours:]minutes:]seconds; None for a word, such as UNLIMITED."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        return int(days or 0) * 86400 + sum(part * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return None


def _slurm(*command):
    """(what a command of SLURM prints, why it failed or an empty text)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return "", str(error)
    return done.stdout.strip(), (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""

"""A training that is longer than its job's time limit: the job asks SLURM to start it again. Standard library only."""

import os

from diffusionblocks.base import slurm
from diffusionblocks.base.files import say

MARGIN = 600  # seconds before its limit in which a running job is stopped for no other reason


def go_on(stopped: str, moved: int) -> str:
    """Where a time limit has stopped this job, ask SLURM to queue it again; return what will happen, or what to do.

    stopped: what happened, in words; said first, since SLURM ends the job as soon as it queues it again. moved: updates
    that this attempt has made: one that made none would never end, and is not queued again. A job that somebody has
    cancelled is not running any more when its signal arrives, so that it stays cancelled.
    """
    by_hand = "Start the same command again: it goes on from there."
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return f"{stopped}. {by_hand}"
    state, left = _queue(job)
    if state != "RUNNING" or left is None or left > MARGIN:
        return f"{stopped}. {by_hand} Snakemake's retries and SLURM's requeue do so by themselves."
    raised = f"Raise `runtime` of train in the profile. {by_hand}"
    if not moved:
        return f"{stopped}. It made no update within its time limit. {raised}"
    say(f"{stopped}. Its time limit is near: it asks SLURM to queue the job again, and goes on from there")
    failed = slurm.ask("scontrol", "requeue", job)[1]
    return f"{stopped}. " + (f"SLURM does not queue the job again ({failed}). {raised}" if failed else "Queued again.")


def _queue(job):
    """(state, seconds left) of a job, as far as SLURM says."""
    state, _, left = slurm.ask("squeue", "-h", "-j", job, "-o", "%T|%L")[0].partition("|")
    return state, _seconds(left)


def _seconds(text):
    """SLURM's [days-][[hours:]minutes:]seconds; None for a word, such as UNLIMITED."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        return int(days or 0) * 86400 + sum(part * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return None

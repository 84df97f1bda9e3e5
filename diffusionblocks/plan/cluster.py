"""What this workflow asks of SLURM beyond submitting jobs. Standard library only."""

import shutil
import subprocess
from pathlib import Path

from diffusionblocks.base.files import UserError

STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,REQUEUED,COMPLETING"  # all in which a job may yet write


def running_jobs(folder):
    """Ids of SLURM jobs that some Snakemake started in `folder` and that are queued or running; none without SLURM."""
    if not shutil.which("squeue"):
        return []
    command = ["squeue", "-h", "-t", STATES, "-o", "%i|%k|%Z"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []  # installed, but no cluster answers: then nothing can be submitted to it either
    jobs = [line.split("|") for line in lines if line.count("|") == 2]
    return [
        job
        for job, comment, workdir in jobs
        if Path(workdir).resolve() == Path(folder).resolve() and comment.startswith("rule_")
    ]


def refuse_second_start(folder):
    """Raise UserError while jobs of an earlier Snakemake run: none would be found again, each would be doubled."""
    if jobs := running_jobs(folder):
        raise UserError(
            f"SLURM still runs jobs of this folder ({', '.join(jobs)}), left by a Snakemake that was killed. Wait "
            f"until they have ended (squeue --me), or cancel them (scancel {' '.join(jobs)}); training goes on from "
            "its checkpoint."
        )

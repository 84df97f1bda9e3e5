"""What this workflow asks of SLURM beyond submitting jobs. Standard library only."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.base.files import UserError
from diffusionblocks.plan.configuration import read_yaml

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


def keep_scale(config: dict, arguments: Sequence[str]) -> None:
    """Raise UserError where the scale that a profile is for was lost, or is at odds with a file of the user's.

    A profile says its scale twice, by a file and by --config, since Snakemake takes a `--configfile` or a `--config` of
    the command line in place of the profile's. With both on the command line the scale has to be said there.
    """
    profile, files, said = _given(arguments, "--profile"), _given(arguments, "--configfile", "--configfiles"), None
    for folder in profile[:1]:
        for path in Path(folder).glob("*.yaml"):
            if path.name != "profile.v9+.yaml":
                said = read_yaml(path)[0].get("scale", said)
    if said is None or any(item.startswith("scale=") for item in _given(arguments, "--config", "-C")):
        return
    wanted = [scale for path in files if Path(path).is_file() and (scale := read_yaml(path)[0].get("scale"))]
    scale = wanted[-1] if wanted else said
    if config.get("scale") != scale:
        asked = f"{files[-1]} asks for {scale}" if wanted else "the command line has its own --config"
        raise UserError(
            f"the profile {profile[0]} is for scale {said}, {asked}, and {config.get('scale')} would be planned: say "
            f"which you mean, --config scale={scale}"
        )


def _given(arguments, *options):
    """What the command line gives an option, up to the next option."""
    found, taking = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            taking = name in options
            if taking and equals:
                found.append(value)
        elif taking:
            found.append(argument)
    return found

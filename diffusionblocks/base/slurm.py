"""Asking SLURM: by planning, by a trainer at its time limit, by the check of a node. Standard library only."""

import re
import subprocess
from collections.abc import Mapping

from diffusionblocks.base.files import UserError

# srun's options for what a profile says of where a job may run.
OPTIONS = {
    "slurm_partition": "--partition={}",
    "slurm_account": "--account={}",
    "constraint": "--constraint={}",
    "qos": "--qos={}",
    "gres": "--gres={}",
    "gpu": "--gpus={}",
}
ASKED = (*OPTIONS, "gpu_model")  # resources of a profile of which `srun_options` knows


def ask(*command: str) -> tuple[str, str]:
    """(what a program of SLURM prints, why it failed in its last words, or an empty text)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"{command[0]} cannot be asked ({error})"
    if not done.returncode:
        return done.stdout.strip(), ""
    return done.stdout.strip(), done.stderr.strip() or f"exit code {done.returncode}"


def gpus(asked: Mapping) -> int:
    """How many GPUs resources by their names in a profile ask for, at least 1: `gpu: 4`, or `gres: gpu:a100:4`.

    Raises UserError where `gpu` is no number.
    """
    said = asked.get("gpu")
    if said is None:
        found = re.search(r"(?:^|,)gpu(?::[^,:]*[^,:\d][^,:]*)?(?::(\d+))?(?:,|$)", str(asked.get("gres") or ""))
        said = found[1] if found and found[1] else 1
    if not str(said).isdecimal():
        raise UserError(f"the profile: `gpu` of train: {said!r} should be a number of GPUs")
    return max(int(said), 1)


def srun_options(asked: dict) -> list[str]:
    """Options of srun for resources by their names in a profile."""
    if asked.get("gpu_model"):
        asked = {**asked, "gpu": f"{asked['gpu_model']}:{asked.get('gpu', 1)}"}
    return [option.format(asked[name]) for name, option in OPTIONS.items() if asked.get(name)]

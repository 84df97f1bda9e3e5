"""Whether this job has a GPU to compute on, told before torch is imported. Standard library only."""

import os
from pathlib import Path

from diffusionblocks.base.files import UserError

CHOICE = "DIFFUSIONBLOCKS_DEVICE"  # the variable in which a user says `cpu` or `cuda`; unset, what is there decides
NO_GPUS = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide all; the last is SLURM's
DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia")
OTHERS = ("kfd", "dxg")  # devices of AMD's GPUs, and of Windows' Linux, which torch may be built for or not


def chosen() -> str:
    """What the user has chosen: cpu, cuda or nothing. Raises UserError for anything else."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "cpu", "cuda"):
        raise UserError(f"{CHOICE}={choice}: should be cpu or cuda, or not be set")
    return choice


def held() -> str | None:
    """What says that this job has a GPU, in words; None if nothing does, or none is wanted. Raises as `chosen`."""
    if choice := chosen():
        return f"{CHOICE}=cuda" if choice == "cuda" else None
    for variable in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        if value := os.environ.get(variable):
            return f"{variable}={value}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return None if visible.strip() in NO_GPUS else f"CUDA_VISIBLE_DEVICES={visible}"
    devices = sorted(DEVICES.glob("nvidia[0-9]*"))
    if "SLURM_JOB_ID" in os.environ:  # a node's GPUs can be seen by a job that has asked for none, but not opened
        return next((str(path) for path in devices if _opens(path)), None)
    return next((str(path) for path in (*devices, DRIVER) if path.exists()), None)


def expected() -> str:
    """Where this job will compute, for the first line of its log: a job that holds a GPU uses it or stops."""
    if said := held():
        return f"on a GPU ({said})"
    hidden = chosen() == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in NO_GPUS
    if not hidden and any((DEVICES / name).exists() for name in OTHERS):
        return "on a GPU if torch finds one"
    return "on the CPU"


def _opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError:
        return False
    except OSError:  # a driver that is broken
        return True
    return True

"""The device that a job computes on, and seeds: what makes a job repeat bit by bit where the kernels allow it."""

import hashlib
import os
from pathlib import Path

import torch

from diffusionblocks.base.files import UserError
from diffusionblocks.base.provenance import hardware

CHOICE = "DIFFUSIONBLOCKS_DEVICE"  # the variable in which a user says `cpu` or `cuda`; unset, what is there decides
NO_GPUS = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide all; the last is SLURM's
DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia")


def seed_of(*names: int | str | None) -> int:
    """A seed for torch and random out of numbers and words; different words give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(names).encode(), digest_size=8).digest()) >> 1


def pick_device() -> torch.device:
    """The GPU if there is one, and settings that make runs repeat bit by bit where the kernels allow it.

    Prints which it is: the first line of a job's log. Raises UserError where there is a GPU, or one was asked for, and
    torch cannot use it: on a CPU the job would hold it for days and say nothing; and for an `OMP_NUM_THREADS` that is
    no number.
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "cpu", "cuda"):
        raise UserError(f"{CHOICE}={choice}: should be cpu or cuda, or not be set")
    if choice == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # also for libraries that ask torch themselves
    elif (held := f"{CHOICE}=cuda" if choice else _gpu()) and (reason := _why_not()):
        raise UserError(
            f"{held}: this job is to compute on a GPU, and torch cannot: {reason}. Mend that, or set {CHOICE}=cpu to "
            "compute on the CPU all the same."
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # sets the same flags as use_deterministic_algorithms in half the time
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("high")  # TF32, as the official code
    torch.set_num_threads(_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"device: {device} ({hardware(device)})", flush=True)
    return device


def _threads():
    """What OMP_NUM_THREADS says, of a list such as 4,2 the first; else 1: more on busy cores are far slower."""
    said = os.environ.get("OMP_NUM_THREADS", "").strip() or "1"
    first = said.partition(",")[0].strip()
    if not first.isdecimal() or int(first) < 1:
        raise UserError(f"OMP_NUM_THREADS: {said!r} is no number of threads: set it to one, such as 1, or unset it")
    return int(first)


def _gpu():
    """What says that this job has a GPU, in words; None if nothing does, or none is wanted."""
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


def _opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError:
        return False
    except OSError:  # a driver that is broken
        return True
    return True


def _why_not():
    """Why torch cannot compute on a GPU, in its own words; None if it can."""
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA; install one that is built with it"
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # of several kinds: no driver, too old a driver, no kernels for this GPU, a GPU in use
        return " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return None

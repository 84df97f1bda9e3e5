"""The device that a job computes on, and seeds: what makes a job repeat bit by bit where the kernels allow it."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import sysconfig
from pathlib import Path

import torch

from diffusionblocks.base.files import UserError
from diffusionblocks.base.gpu import CHOICE, chosen, held
from diffusionblocks.base.provenance import hardware

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Where Python's own headers may be, without which nothing that torch.compile writes can be compiled.
HEADERS = [folder for folder in (sysconfig.get_path("include"), sysconfig.get_config_var("INCLUDEPY")) if folder]


def seed_of(*names: int | str | None) -> int:
    """A seed for torch and random out of numbers and words; different words give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(names).encode(), digest_size=8).digest()) >> 1


def set_seed(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, of the generators that a job on `device` draws from: the same numbers.

    torch asks every kind of device, and notes a traceback for each that is not there: 1 ms, before every update.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def pick_device() -> torch.device:
    """The GPU if there is one, and settings that make runs repeat bit by bit where the kernels allow it.

    Prints which it is, by its name. Raises UserError where there is a GPU, or one was asked for, and
    torch cannot use it: on a CPU the job would hold it for days and say nothing; and for an `OMP_NUM_THREADS` that is
    no number.
    """
    if chosen() == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # also for libraries that ask torch themselves
    elif (said := held()) and (reason := _why_not()):
        raise UserError(
            f"{said}: this job is to compute on a GPU, and torch cannot: {reason}. Mend that, or set {CHOICE}=cpu to "
            "compute on the CPU all the same."
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # sets the same flags as use_deterministic_algorithms in half the time
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("high")  # TF32, as the official code
    torch.set_num_threads(_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        _keep_freed_memory()
    print(f"device: {device} ({hardware(device)})", flush=True)
    return device


def ready_compiler(device: torch.device, key: str) -> None:
    """What torch.compile needs before its first call. key: of the configuration, that asks for it.

    Raises UserError without the program that it calls, before it says so in a hundred lines of its own.
    """
    triton = device.type == "cuda"
    variable, programs = ("CC", ("gcc", "clang")) if triton else ("CXX", ("g++",))
    programs = shlex.split(os.environ.get(variable, ""))[:1] or programs
    absent = " or ".join(programs) if not any(map(shutil.which, programs)) else None
    if not absent and not any(Path(folder, "Python.h").exists() for folder in HEADERS):
        absent = "Python.h"
    if absent:
        raise UserError(
            f"{key}: true needs a compiler, and there is no {absent} on {platform.node()}. Install it (Debian: "
            f"apt install g++ python3-dev), name yours (export {variable}=...), or set {key} to false."
        )
    torch.use_deterministic_algorithms(True, warn_only=True)  # tells the compiler, too


def _keep_freed_memory():
    """Have the C library keep what is freed, where it is glibc: it hands large blocks back to the kernel, and an update
    of the paper's ViT then spends up to a quarter of its time on getting them again.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        # Before 2.35 it takes at most 32 MB. Refused, it would map every block from 128 kB on, once the other is set.
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30) or library.mallopt(M_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def _threads():
    """What OMP_NUM_THREADS says, of a list such as 4,2 the first; else 1: more on busy cores are far slower."""
    said = os.environ.get("OMP_NUM_THREADS", "").strip() or "1"
    first = said.partition(",")[0].strip()
    if not first.isdecimal() or int(first) < 1:
        raise UserError(f"OMP_NUM_THREADS: {said!r} is no number of threads: set it to one, such as 1, or unset it")
    return int(first)


def _why_not():
    """Why torch cannot compute on a GPU, in its own words; None if it can."""
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA; install one that is built with it"
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # of several kinds: no driver, too old a driver, no kernels for this GPU, a GPU in use
        return " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return None

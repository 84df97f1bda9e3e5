"""The device that a job computes on, and seeds: what makes a job repeat bit by bit where the kernels allow it."""

import hashlib
import os

import torch

from diffusionblocks.base.files import UserError


def seed_of(*names: int | str | None) -> int:
    """A seed for torch and random out of numbers and words; different words give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(names).encode(), digest_size=8).digest()) >> 1


def pick_device() -> torch.device:
    """The GPU if there is one, and settings that make runs repeat bit by bit where the kernels allow it.

    Raises UserError for an `OMP_NUM_THREADS` that is no number.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # sets the same flags as use_deterministic_algorithms in half the time
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("high")  # TF32, as the official code
    torch.set_num_threads(_threads())
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _threads():
    """What OMP_NUM_THREADS says, of a list such as 4,2 the first; else 1: more on busy cores are far slower."""
    said = os.environ.get("OMP_NUM_THREADS", "").strip() or "1"
    first = said.partition(",")[0].strip()
    if not first.isdecimal() or int(first) < 1:
        raise UserError(f"OMP_NUM_THREADS: {said!r} is no number of threads: set it to one, such as 1, or unset it")
    return int(first)

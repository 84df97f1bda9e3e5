"""Where a number comes from: commit, versions, hardware, job."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    *("diffusionblocks", "torch", "numpy", "snakemake", "scikit-learn"),
    *("torch-fidelity", "torchvision", "timm", "diffusers", "pillow"),
)


@functools.cache
def commit() -> str:
    """Short commit of this package's source, `-dirty` if the package differs from it; `unknown` without git."""

    def git(*arguments):
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> str:
    """Name of the accelerator, or of the processor with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def job() -> dict[str, str]:
    """The SLURM job and node this process runs in; without SLURM nothing but the time."""
    found = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    for key, variable in (("slurm_job_id", "SLURM_JOB_ID"), ("node", "SLURMD_NODENAME")):
        if variable in os.environ:
            found[key] = os.environ[variable]
    return found


def record(device: torch.device) -> dict[str, Any]:
    """All of the above, for a log."""
    return {"commit": commit(), "versions": versions(), "hardware": hardware(device), **job()}

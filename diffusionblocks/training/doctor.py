"""What a job needs of the machine it runs on, checked before a hundred are submitted: one line for each thing.

On a cluster this is asked of a node, by a shell that SLURM starts there with what a training asks for: a job of
Snakemake's own would end without a word where the node sees neither Python nor the repository.
"""

import contextlib
import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diffusionblocks.base.files import UserError, write_text
from diffusionblocks.base.slurm import srun_options

NEEDED = 1 << 30  # bytes that should be free where results lie
MINUTES = 5


def doctor(results: str | Path, asked: dict | None = None, path: str | Path | None = None) -> None:
    """Print what is found, and write it to `path`. Raises UserError where a job would fail.

    results: folder of the results. asked: resources of a rule by their names in a profile, on a cluster; None for this
    machine itself.
    """
    Path(results).mkdir(parents=True, exist_ok=True)
    lines = []
    for line in here(results) if asked is None else _on_a_node(results, asked):
        print(line, flush=True)
        lines.append(line)
    if failed := [line for line in lines if line.startswith("FAILED")]:
        raise UserError(f"{len(failed)} of {len(lines)} checks have failed: mend them before you start a training")
    if path is not None:
        write_text(path, "\n".join(lines) + "\n")


def here(results: str | Path, seen: str | Path | None = None) -> Iterator[str]:
    """A line for each check of this machine. seen: a file that the machine that asks has just written."""
    from diffusionblocks.base import device

    yield f"ok      python {platform.python_version()} on {platform.node()}: {sys.executable}"
    yield f"ok      package {Path(__file__).parents[1]}"
    if seen is not None:
        yield _line(f"folder {os.getcwd()}", Path(seen).is_file(), f"{seen} is not there: mount the same file system")
    try:
        with tempfile.NamedTemporaryFile(dir=results):
            pass
        yield f"ok      results {Path(results).resolve()} can be written"
    except OSError as error:
        yield f"FAILED  results {Path(results).resolve()} cannot be written: {error.strerror}"
    free = shutil.disk_usage(results).free
    yield _line(f"disk    {free / 1e9:.0f} GB free", free > NEEDED, "free some space, or make `results` a link")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            device.pick_device()
        yield f"ok      {said.getvalue().strip()}"
    except UserError as error:
        yield f"FAILED  device: {error}"


def _line(what, good, cure):
    return f"ok      {what}" if good else f"FAILED  {what}: {cure}"


def _on_a_node(results, asked):
    """The lines that a node gives, or why there are none."""
    command = ["srun", f"--time={MINUTES}", "--ntasks=1", "--job-name=doctor", *srun_options(asked)]
    with tempfile.NamedTemporaryFile(dir=results, prefix="seen-by-nodes-") as seen:
        folder, python = shlex.quote(os.getcwd()), shlex.quote(sys.executable)
        script = f"""
            cd {folder} || {{ echo "FAILED  folder {folder} is not there: mount the same file system"; exit; }}
            [ -x {python} ] || {{ echo "FAILED  python {python} is not there: nodes must see .venv"; exit; }}
            {python} -m diffusionblocks doctor {shlex.quote(str(results))} --seen {shlex.quote(seen.name)} 2>&1
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        try:
            done = subprocess.run([*command, "sh", "-s"], input=script, capture_output=True, text=True, env=environment)
        except OSError as error:
            yield f"FAILED  srun: {error.strerror}"
            return
    yield f"ok      asked for {' '.join(command[1:])}" if done.returncode == 0 else f"FAILED  {' '.join(command)}"
    found = [line for line in done.stdout.splitlines() if line.strip()]
    yield from found
    if done.returncode and not any(line.startswith("FAILED") for line in found):
        yield f"FAILED  {done.stderr.strip().rpartition(chr(10))[2] or 'no word'}: see the profile's set-resources"

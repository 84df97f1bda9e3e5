"""The file of a trained model: which parts it is joined of. Their weights stay in the files that trainings wrote.

A copy of them would take the room of every network again. So what reads a model reads its parts.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError, read_about, read_json, write_json

CURE = "Delete it and assemble it again."


def write(path: Path | str, run: dict, digest: str, parts: Mapping[Path | str, str]) -> None:
    """Write the run, the digest of all weights together, and each part's file with the digest of its own."""
    folder = Path(path).parent.resolve()
    files = {Path(part).parent.resolve() / Path(part).name: found for part, found in parts.items()}
    # Relative, so that a folder of results may be moved.
    named = {os.path.relpath(file, folder): found for file, found in files.items()}
    write_json(path, {"run": run, "digest": digest, "parts": named})


def about(path: Path | str) -> dict:
    """The run, digest and parts of a model. Raises UserError for a file that is absent or not one of these."""
    if read_about(path):
        raise UserError(f"{path}: holds weights, and no word of the parts of a model. Give model.json, which has that.")
    found = read_json(path)
    if not isinstance(found, dict) or not {"run", "digest", "parts"} <= found.keys():
        raise UserError(f"{path}: does not say the run, digest and parts of a model. {CURE}")
    return found


def read(path: Path | str) -> tuple[tensors.Tensors, dict]:
    """(torch's tensors of all parts, about). Raises UserError as `about` does, and for a part that is not as it was."""
    union, found = {}, about(path)
    for name, digest in found["parts"].items():
        part = Path(path).parent / name
        weights, theirs = tensors.read(part, f"{path} is joined of it: train it again, or bring it back.")
        if theirs.get("digest") != digest:
            raise UserError(f"{part}: has other weights than {path} was joined of. Delete {path}, and assemble again.")
        union |= weights
    return union, found

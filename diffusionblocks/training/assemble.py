"""Parts that were trained in jobs of their own -> the one file that says which make the model. No torch.

A part may come from another machine: what it says of itself must fit the run and the other parts.
"""

from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.base import model_file, tensors
from diffusionblocks.base.files import UserError, read_json
from diffusionblocks.training.checkpoint import State

CURE = "Delete it and train it again."
KEYS = ("run", "part", "data", "code", "digest")  # of what a part says of itself
SAME = {"data": "data", "start": "first weights", "code": "code"}  # in which parts must agree, in words


def assemble(
    run_path: Path | str,
    part_paths: Sequence[Path | str],
    path: Path | str,
    names: Sequence[str],
    state: Path | None = None,
    any_code: bool = False,
) -> None:
    """Look at every part and write which they are, and the digest of all their tensors together.

    names: of all parts of the run. state: folder of the parts' checkpoints, which are deleted then. any_code: join
    parts that different code has made. Raises UserError for a damaged or unfinished part, one of another run, data set
    or code than the others, and where one is missing or there twice.
    """
    run, union, digests, found, first = read_json(run_path), {}, {}, {}, {}
    for part_path in part_paths:
        weights, about = tensors.read(part_path, CURE, framework="np")
        _check(part_path, weights, about, run_path, run)
        part = about["part"]
        if part in found:
            raise UserError(f"{part_path}: is part {part}, as {found[part]} is. Hand over each part once.")
        first = first or about
        for key, words in SAME.items():
            if about.get(key) != first.get(key) and not (key == "code" and any_code):
                raise UserError(
                    f"{part_path}: was trained with other {words} than {found[first['part']]}. Delete the "
                    "one of the two that you do not want, and train it again."
                )
        found[part], digests[part_path] = part_path, about["digest"]
        union |= weights
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{run_path}: of its parts, {', '.join(missing)} is not among those given. Train it or add it.")
    digest = tensors.digest(union, framework="np")  # by which what starts from it tells it
    model_file.write(path, run, digest, digests)
    if state is not None:
        for name in names:
            State(state / name).clear()


def _check(path, weights, about, run_path, run):
    """Raise UserError for a file that is not a whole part of this run, by its header and its weights."""
    if "identity" in about:
        raise UserError(
            f"{path}: is a checkpoint after step {about['step']}, and no trained part. Go on with its training, and "
            "take the weights that it ends with."
        )
    if about.get("run", run) != run:
        raise UserError(f"{path}: was trained with other settings than {run_path}. {CURE}")
    if absent := [key for key in KEYS if about.get(key) is None]:
        raise UserError(f"{path}: does not say its {', '.join(absent)}, as parts of an older version do not. {CURE}")
    if about["part"] != Path(path).stem:
        raise UserError(f"{path}: holds part {about['part']}, which its name must say. Rename it. Or: {CURE}")
    if tensors.digest(weights, framework="np") != about["digest"]:
        raise UserError(f"{path}: its weights have changed since they were written. Copy it anew. Or: {CURE}")

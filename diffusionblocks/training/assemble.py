"""Parts that were trained in jobs of their own -> the one file that holds the model. No torch."""

from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError, read_json
from diffusionblocks.training.checkpoint import State


def assemble(run_path: Path | str, part_paths: list[Path | str], path: Path | str, state: Path | None = None) -> None:
    """Write the union of the parts' tensors. Raises UserError for a damaged part or one of another run.

    state: folder of the parts' checkpoints, which are deleted then.
    """
    run, union = read_json(run_path), {}
    for part_path in part_paths:
        cure = "Delete it and train it again."
        weights, about = tensors.read(part_path, cure, framework="np")
        if about.get("run") != run or about.get("part") != Path(part_path).stem:
            raise UserError(f"{part_path}: was trained with other settings than {run_path}. {cure}")
        union |= weights
    tensors.write(path, union, {"run": run}, framework="np")
    if state is not None:
        for part_path in part_paths:
            State(state / Path(part_path).stem).clear()

"""Parts that were trained in jobs of their own -> the one file that holds the model. No torch."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffusionblocks.files import UserError, atomic, read_json


def assemble(run_path, part_paths, path):
    """Write the union of the parts' tensors. Raises UserError for a damaged part or one of another run."""
    run = read_json(run_path)
    tensors = {}
    for part_path in part_paths:
        try:
            with safe_open(part_path, "np") as file:
                about = json.loads(file.metadata()["about"])
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise UserError(f"{part_path}: not a trained part ({error}). Delete it and train it again.") from None
        if about["run"] != run or about["part"] != Path(part_path).stem:
            raise UserError(
                f"{part_path}: was trained with other settings than {run_path}. Delete it and train it again."
            )
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps({"run": run})})

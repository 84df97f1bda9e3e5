"""The teachers that score texts (metrics of tables 4, 5, A3): their weights, obtained once for a data set."""

from pathlib import Path

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.sections import load_section
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.scorers.weights import write_weights


def teacher(section: dict, data_path: str | Path, data_dir: str | Path, path: str | Path) -> None:
    """Write the weights of the `teacher` section's network, fetched, unpacked or trained on the documents set aside."""
    write_weights("teacher", section, Text(data_path, pick_device()), data_dir, path)


def load_teacher(path: str | Path, device: torch.device) -> tuple[object, dict]:
    """(what scores texts, what is known of it) from a file that `teacher` wrote."""
    weights, about = tensors.read(path, "Delete it and start again: it is obtained anew.", device)
    return load_section("teacher", about["section"]).build(weights, about), about

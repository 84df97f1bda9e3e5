"""Data sets: sources that prepare them once, and the form in which training and evaluation read them."""

import importlib
from pathlib import Path

from diffusionblocks.base import tensors

CURE = "Delete it and run prepare again."
# The class of a prepared file by its kind. Imported by name, so that code for texts is not code behind images.
DATASETS = {
    "images": ("diffusionblocks.data.images.dataset", "Images"),
    "text": ("diffusionblocks.data.text.dataset", "Text"),
}


def kind(path: str | Path) -> str:
    """ "images" or "text": what a prepared file holds."""
    return tensors.about(path, CURE).get("kind", "images")


def load(path: str | Path, device):
    """The Images or the Text of a prepared file. Raises UserError when it is absent or damaged."""
    module, name = DATASETS[kind(path)]
    return getattr(importlib.import_module(module), name)(path, device)

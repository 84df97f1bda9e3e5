"""Data sets: loaders that prepare them once, and the form in which training and evaluation read them."""

import importlib

from diffusionblocks.base import tensors

CURE = "Delete it and run prepare again."


def kind(path):
    """ "images" or "text": what a prepared file holds."""
    return tensors.about(path, CURE).get("kind", "images")


def load(path, device):
    """The Images or the Text of a prepared file. Raises UserError when it is absent or damaged."""
    module = importlib.import_module(
        f"diffusionblocks.data.{kind(path)}.dataset"
    )  # so that neither is code behind the other
    return getattr(module, kind(path).capitalize())(path, device)

"""Ways to train a network. A method is built from a run's `method` section, its network from the `model` section."""

import importlib
from functools import partial


def load(kind, name):
    """The module behind a name in the configuration: a file of this package, or any importable module (with a dot)."""
    return importlib.import_module(name if "." in name else f"diffusionblocks.{kind}.{name}")


def build(run, shape, part):
    """The method of a resolved run as an nn.Module that holds what `part` trains, or everything for part None.

    shape: the data's dictionary of sizes, handed to the network.
    """
    model = {key: value for key, value in run["model"].items() if key != "name"}
    method = {key: value for key, value in run["method"].items() if key != "name"}
    build_model = partial(load("models", run["model"]["name"]).Model, shape, **model)
    return load("methods", run["method"]["name"]).Method(build_model, part, **method)

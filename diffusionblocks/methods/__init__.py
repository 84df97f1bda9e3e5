"""Ways to train a network. A method is built from a run's `method` section, its network from the `model` section."""

import importlib
from functools import partial

from diffusionblocks.files import UserError


def load(kind, name):
    """The module behind a name in the configuration: a file of this package, or any importable module (with a dot)."""
    return importlib.import_module(name if "." in name else f"diffusionblocks.{kind}.{name}")


def build(run, shape, part):
    """The method of a resolved run as an nn.Module that holds what `part` trains, or everything for part None.

    shape: the data's dictionary of sizes, handed to the network. Raises UserError for sizes that do not fit.
    """
    model = {key: value for key, value in run["model"].items() if key != "name"}
    method = {key: value for key, value in run["method"].items() if key != "name"}
    build_model = partial(load("models", run["model"]["name"]).Model, shape, **model)
    try:
        return load("methods", run["method"]["name"]).Method(build_model, part, **method)
    except ValueError as error:
        raise UserError(f"tables.{run['table']}.rows.{run['row']}: model and method do not fit: {error}") from error

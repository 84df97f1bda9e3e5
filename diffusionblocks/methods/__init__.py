"""Ways to train a network. A method is built from a run's `method` section, its network from the `model` section."""

import importlib
from functools import partial

from diffusionblocks import tensors
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


def load_trained(run, model_path, shape):
    """The trained method of a run, in memory. Raises UserError for weights of another run or a damaged file."""
    weights, about = tensors.read(model_path, "Delete it and assemble it again.")
    if about.get("run") != run:
        raise UserError(f"{model_path}: was trained with other settings than {run['table']}/{run['row']}. Delete it.")
    method = build(run, shape, None)
    absent = method.state_dict().keys() ^ weights.keys()
    if absent:
        raise UserError(
            f"{model_path}: does not match the network ({min(absent)} and others). Assemble it from all parts."
        )
    method.load_state_dict(weights)
    return method

"""A training that starts from weights which another run has trained: a network cut into blocks, layer by layer.

Whether blocks are better begun so than from scratch the paper leaves open; see workflow/studies/pretrained_start.yaml.
"""

from pathlib import Path

import torch

from diffusionblocks.base import model_file
from diffusionblocks.base.files import UserError
from diffusionblocks.methods.base import Method


def check_start(run: dict, path: Path | str | None) -> str | None:
    """The digest of the weights that a run starts from; None for a run that starts from its own.

    path: the model of the run that `run["start"]` holds, or None. Raises UserError where the one is there without the
    other, and for the model of another run.
    """
    wanted = run.get("start")
    if (wanted is None) != (path is None):
        row = f"{run['table']}/{run['row']}"
        if wanted is None:
            raise UserError(f"--start {path}: {row} has no `start` in its run.json, and takes no weights. Leave it out")
        raise UserError(f"{row} starts from {wanted['table']}/{wanted['row']}: give that run's model with --start")
    if path is None:
        return None
    about = model_file.about(path)
    if about["run"] != wanted:
        raise UserError(
            f"{path}: is not the run that {run['table']}/{run['row']} starts from: {wanted['table']}/{wanted['row']}, "
            f"seed {wanted['seed']}, with the settings that its run.json has under `start`. Give that one's model"
        )
    return about["digest"]


def copy_into(method: Method, path: Path | str) -> tuple[int, int]:
    """Copy a trained model's weights into what a part trains. Returns (parameters copied, parameters of the part).

    Layer i of the trained network goes to layer i of the whole, wherever a block holds it; all else of equal name and
    shape as it is, statistics too. The rest keeps its own start, as does what is never trained. Raises UserError for a
    model of several networks, of fewer layers, and of layers that do not fit.
    """
    found, _ = model_file.read(path)
    networks = {name.split(".")[1] for name in found if name.startswith("models.")}
    if len(networks) != 1:
        raise UserError(f"{path}: holds {len(networks)} networks, and blocks are cut from one")
    (network,) = networks
    fixed = {name for name, value in method.named_parameters() if not value.requires_grad}
    copied, fits = set(), {}  # of each layer there, whether any of it is here
    with torch.no_grad():
        for name, value in method.state_dict().items():
            there, layer = _there(name, network, method)
            given = found.get(there)
            if layer is not None:
                fits[layer] = fits.get(layer, False) or given is not None
                if given is not None and given.shape != value.shape:
                    raise UserError(
                        f"{path}: {there} is {tuple(given.shape)}, and here {tuple(value.shape)}. Give both rows "
                        "layers of the same sizes"
                    )
            if given is not None and given.shape == value.shape and name not in fixed:
                value.copy_(given)
                copied.add(name)
    if absent := [layer for layer, there in fits.items() if not there]:
        raise UserError(f"{path}: has no layer {absent[0]} like the one here. Give both rows the same layers, as many")
    parameters = dict(method.named_parameters())
    count = sum(value.numel() for name, value in parameters.items() if name in copied)
    return count, sum(value.numel() for value in parameters.values())


def _there(name, network, method):
    """(what a tensor of this part is called in a model that is one `network`, its layer there, or None)."""
    head, _, rest = name.partition(".")
    if head != "models":
        return name, None
    own, _, rest = rest.partition(".")
    if not rest.startswith("layers."):
        return f"models.{network}.{rest}", None
    _, layer, rest = rest.split(".", 2)
    layer = method.first_layer(own) + int(layer)
    return f"models.{network}.layers.{layer}.{rest}", layer

"""Ways to train a network. A method is built from a run's `method` section, its network from the `model` section."""

from pathlib import Path

from diffusionblocks.base import model_file
from diffusionblocks.base.components import load
from diffusionblocks.base.files import UserError
from diffusionblocks.base.sections import keywords_of, load_section
from diffusionblocks.methods.base import Method, Network

LAST = "last."  # before the names of the last weights, where those without it are averaged


def build(run: dict, shape: dict, part: str | None) -> Method:
    """The method of a resolved run as an nn.Module that holds what `part` trains, or everything for part None.

    shape: the data's dictionary of sizes, handed to the network. Raises UserError for sizes that do not fit.
    """
    network = Network(load("model", run["model"]["name"]), shape, **keywords_of(run["model"]))
    try:
        return load_section("method", run["method"], network, part)
    except ValueError as error:
        raise UserError(f"tables.{run['table']}.rows.{run['row']}: model and method do not fit: {error}") from error


def load_trained(run: dict, model_path: str | Path, shape: dict, weights: str = "averaged") -> Method:
    """The trained method of a run, in memory, with the weights that training has averaged, or the `last` ones.

    Without `train.ema` nothing is averaged, and the weights are the last ones. Raises UserError for weights of another
    run, a damaged file, and one without the weights that are asked for.
    """
    found, about = model_file.read(model_path)
    if about["run"] != run:
        raise UserError(f"{model_path}: was trained with other settings than {run['table']}/{run['row']}. Delete it.")
    # A method may have a module `last` of its own, whose weights stand beside no other.
    beside = [name for name in found if name.startswith(LAST) and name.removeprefix(LAST) in found]
    last = {name.removeprefix(LAST): found.pop(name) for name in beside}
    if weights == "last":
        if not last:
            raise UserError(f"{model_path}: has no last weights beside averaged ones. Leave out sampling.weights")
        found |= last
    method = build(run, shape, None)
    absent = method.state_dict().keys() ^ found.keys()
    if absent:
        raise UserError(
            f"{model_path}: does not match the network ({min(absent)} and others). Assemble it from all parts."
        )
    method.load_state_dict(found)
    return method

"""A trained model -> generated images or texts. Any number of jobs may share the work.

Sample i depends on the seed and on i alone: what is given of it (a class, a prompt) follows from i, and its noise comes
from a generator of its own. So all rows start from the same noise, and no batch size and no split into jobs changes a
sample, but for the rounding of sums.
"""

import functools
import importlib
import time
from pathlib import Path

import torch
from torch.utils._pytree import tree_map_only

from diffusionblocks import data as datasets
from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device, ready_compiler
from diffusionblocks.base.files import UserError, read_json
from diffusionblocks.base.provenance import record
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.methods import load_trained
from diffusionblocks.methods.base import Method

# What generates, by kind of data. Imported by name, so that code for texts is not code behind images.
SAMPLERS = {"images": "diffusionblocks.sampling.images", "text": "diffusionblocks.sampling.text"}

# Keys of a section `sampling` that are no option of generation.
OWN = ("num_samples", "sets", "shards", "weights", "precision", "compile")


def sample(
    run_path: str | Path,
    model_path: str | Path,
    data_path: str | Path,
    sampling: dict,
    shard: int,
    path: str | Path,
    data_dir: str | Path | None = None,
    code: str | None = None,
) -> None:
    """Write one shard of a row's generated samples, with what they cost.

    sampling: a row's `sampling` section with num_samples, sets and shards, and perhaps `weights` (averaged or last),
    `precision` and `compile` (see `hasten`); the rest are options of generation (see images.py and text.py). shard:
    which of the shards this is, from 0. data_dir: where latents find their autoencoder. code: hash of the source files
    behind this step. Raises UserError for a shard that is not there, weights of another run, and a model without the
    weights asked for.
    """
    if not 0 <= shard < sampling["shards"]:
        raise UserError(f"shard {shard}: the sampling section has the shards 0 to {sampling['shards'] - 1}")
    run, device = read_json(run_path), pick_device()
    kind = importlib.import_module(SAMPLERS[datasets.kind(data_path)])
    data = kind.open_data(data_path, device, data_dir)
    method = load_trained(
        run, model_path, data.shape, sampling.get("weights", "averaged")
    ).eval()  # on the CPU; each block moves when its turn comes
    hasten(method, device, sampling.get("precision", "fp32"), sampling.get("compile", False))
    total = sampling["num_samples"] * sampling["sets"]
    first, last = (total * edge // sampling["shards"] for edge in (shard, shard + 1))
    options = {key: value for key, value in sampling.items() if key not in OWN}
    started = time.monotonic()
    with torch.inference_mode():
        written, about = kind.samples(method, data, run["seed"], range(first, last), device, options)
    about |= {"run": run, "code": code, "sampling": sampling, "first": first, "count": last - first}
    about |= {"seconds": time.monotonic() - started, **record(device)}
    tensors.write(path, written, about)


def hasten(method: Method, device: torch.device, precision: str, compiled: bool) -> None:
    """Have the layers of a method's networks computed in bf16, or compiled, or both.

    What enters and leaves a layer, and all around it (embeddings, heads, the chain), stays in its precision. Raises
    UserError without a compiler.
    """
    if compiled:
        ready_compiler(device, "sampling.compile")
    for layer in {layer: None for model in method.models.values() for layer in model.all_layers()}:
        if compiled:  # `forward` alone: hooks that count layers would be compiled anew at every call
            layer.forward = torch.compile(layer.forward, dynamic=False)
        if precision == "bf16":
            layer.forward = functools.partial(_in_bf16, layer.forward, device)


def _in_bf16(forward, device, *arguments, **keywords):
    with torch.autocast(device.type, torch.bfloat16):
        found = forward(*arguments, **keywords)
    return tree_map_only(torch.Tensor, at_least_single, found)

"""A trained model -> generated images. Any number of jobs may share the work.

Image i depends on the seed and on i alone: its class is i modulo the number of classes, its noise comes from a
generator of its own. So all rows start from the same noise, and no batch size and no split into jobs changes an image,
but for the rounding of sums: here and there a pixel by one grey level.
"""

import time

import torch

from diffusionblocks import tensors
from diffusionblocks.data.pictures import Pictures
from diffusionblocks.device import pick_device, seed_of
from diffusionblocks.files import UserError, read_json
from diffusionblocks.methods import load_trained
from diffusionblocks.provenance import record

BATCH = 250
SHOWN = 10  # steps of the first image's trajectory that are kept


def sample(run_path, model_path, data_path, sampling, shard, path, data_dir=None):
    """Write one shard of a row's generated images as uint8, with what they cost.

    sampling: a row's `sampling` section with num_samples, sets and shards; the rest are options of the method's
    `sample`. shard: which of the shards this is, from 0.
    """
    if not 0 <= shard < sampling["shards"]:
        raise UserError(f"shard {shard}: the sampling section has the shards 0 to {sampling['shards'] - 1}")
    run, device = read_json(run_path), pick_device()
    data = Pictures(data_path, device, data_dir)
    method = load_trained(run, model_path, data.shape).eval()  # on the CPU; each block moves when its turn comes
    total = sampling["num_samples"] * sampling["sets"]
    first, last = (total * edge // sampling["shards"] for edge in (shard, shard + 1))
    options = {key: value for key, value in sampling.items() if key not in ("num_samples", "sets", "shards")}
    started = time.monotonic()
    denoised, steps, evaluations = generate(method, run["seed"], range(first, last), data.shape, device, options)
    images = torch.cat([data.decode(batch) for batch in denoised])
    idle = sorted(set(method.blocks) - {step.block for step in steps})
    about = {"run": run, "sampling": sampling, "first": first, "evaluations": evaluations, "idle_blocks": idle}
    written = {"images": images}
    if first == 0:
        shown = [steps[i * (len(steps) - 1) // (SHOWN - 1)] for i in range(SHOWN)] if len(steps) > SHOWN else steps
        written["trajectory"] = data.decode(torch.stack([step.prediction for step in shown]))
        about["trajectory"] = [[step.sigma, step.block] for step in shown]
    about |= {"seconds": time.monotonic() - started, **record(device)}
    tensors.write(path, written, about)


@torch.inference_mode()
def generate(method, seed, indices, shape, device, options):
    """Images `indices` in the space that is diffused, as a list of batches; the first one's steps; what it cost.

    The cost of an image: `layers` run, counted by hooks on them, `networks` run, and the `num_layers` of a network.
    """
    chunks = torch.tensor(indices).split(BATCH)
    batches = [{"label": (chunk % shape["num_classes"]).to(device)} for chunk in chunks]
    eps = [noise(seed, chunk.tolist(), method.z_shape).to(device) for chunk in chunks]
    layers = [layer for model in method.models.values() for layer in model.layers]
    ran = []
    hooks = [layer.register_forward_hook(lambda *_: ran.append(None)) for layer in layers]
    denoised, steps, networks = {}, [], 0
    for index, step in method.sample(batches, eps, device, **options):
        denoised[index] = step.prediction
        networks += 1
        if index == 0:
            steps.append(step._replace(prediction=step.prediction[0].cpu()))
    for hook in hooks:
        hook.remove()
    cost = {"layers": len(ran) / len(chunks), "networks": networks / len(chunks), "num_layers": len(layers)}
    return [denoised[index] for index in range(len(chunks))], steps, cost


def noise(seed, indices, shape):
    """Standard normal noise (N, *shape), each image's from a generator of its own."""
    generators = (torch.Generator().manual_seed(seed_of(seed, "sample", index)) for index in indices)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

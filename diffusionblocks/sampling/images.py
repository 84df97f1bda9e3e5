"""Images from a trained model: image i is of class i modulo the number of classes (paper section 5.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusionblocks.base.device import seed_of
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.diffusion.chains import layers_run
from diffusionblocks.methods.base import Method

BATCH = 250
SHOWN = 10  # steps of the first image's trajectory that are kept

open_data = Pictures


def samples(
    method: Method, data: Pictures, seed: int, indices: Sequence[int], device: torch.device, options: dict
) -> tuple[dict[str, Tensor], dict]:
    """({images: uint8, and with image 0 its trajectory}, what to know of them). options: of the method's `sample`."""
    denoised, steps, evaluations = generate(method, seed, indices, data.shape, device, options)
    idle = sorted(set(method.blocks) - {step.block for step in steps})
    written = {"images": torch.cat([data.decode(batch) for batch in denoised])}
    about = {"evaluations": evaluations, "idle_blocks": idle}
    if indices[0] == 0:
        shown = [steps[i * (len(steps) - 1) // (SHOWN - 1)] for i in range(SHOWN)] if len(steps) > SHOWN else steps
        written["trajectory"] = data.decode(torch.stack([step.prediction for step in shown]))
        about["trajectory"] = [[step.sigma, step.block] for step in shown]
    return written, about


@torch.inference_mode()
def generate(
    method: Method, seed: int, indices: Sequence[int], shape: dict, device: torch.device, options: dict
) -> tuple[list[Tensor], list, dict]:
    """Images `indices` in the space that is diffused, as a list of batches; the first one's steps; what it cost.

    The cost of an image: `layers` run, counted by hooks on them, `networks` run, and the `num_layers` of a network.
    """
    chunks = torch.tensor(indices).split(BATCH)
    batches = [{"label": (chunk % shape["num_classes"]).to(device)} for chunk in chunks]
    eps = [noise(seed, chunk.tolist(), method.z_shape).to(device) for chunk in chunks]
    denoised, steps, networks = {}, [], 0
    with layers_run(method) as ran:
        for index, step in method.sample(batches, eps, device, **options):
            denoised[index] = step.prediction
            networks += 1
            if index == 0:
                steps.append(step._replace(prediction=step.prediction[0].cpu()))
    layers = sum(len(model.layers) for model in method.models.values())
    cost = {"layers": len(ran) / len(chunks), "networks": networks / len(chunks), "num_layers": layers}
    return [denoised[index] for index in range(len(chunks))], steps, cost


def noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise (N, *shape), each image's from a generator of its own."""
    generators = (torch.Generator().manual_seed(seed_of(seed, "sample", index)) for index in indices)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

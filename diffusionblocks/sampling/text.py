"""Texts from a trained model: token by token after a prompt (tables 4, 5, A3), or whole by unmasking (table 3).

Prompts are the first tokens of the test sequences, several continuations of each (baselines of SEDD and SSD-LM).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.diffusion.chains import layers_run
from diffusionblocks.methods.base import Method

BATCH = 125  # caches of the recurrent model hold every pass: 10 GB at the paper's sizes


def open_data(path: str | Path, device: torch.device, data_dir: str | Path | None) -> Text:
    return Text(path, device)


def samples(
    method: Method, data: Text, seed: int, indices: Sequence[int], device: torch.device, options: dict
) -> tuple[dict[str, Tensor], dict]:
    """({tokens (N, length)}, what to know of them). options: of generation and of `extend` or `sample`."""
    chunks = torch.tensor(indices).split(BATCH)
    write = _continuations if "prompt_len" in options else _whole
    with layers_run(method) as ran:
        tokens = torch.cat([write(method, data, seed, chunk.tolist(), device, **options).cpu() for chunk in chunks])
    length = tokens.shape[1] - options.get("prompt_len", 0)
    layers = sum(len(model.layers) for model in method.models.values())
    cost = {"layers": len(ran) / len(chunks) / length, "num_layers": layers}
    return {"tokens": tokens.int()}, {"evaluations": cost, "idle_blocks": []}


def _continuations(method, data, seed, indices, device, continuations, prompt_len, new_tokens, **options):
    length = prompt_len + new_tokens
    prompts = [index // continuations for index in indices]
    if length > data.shape["seq_len"] or max(prompts) >= data.test_size:
        raise UserError(
            f"sampling: {max(prompts) + 1} prompts of {prompt_len} + {new_tokens} tokens do not fit {data.title}: it "
            f"has {data.test_size} test sequences of {data.shape['seq_len']}. Lower num_samples, prompt_len or "
            "new_tokens."
        )
    method.to(device)  # each token needs all blocks
    width = next(iter(method.models.values())).z_shape[-1]
    generators = [_generator(seed, index) for index in indices]
    eps = torch.stack([torch.randn(length, width, generator=generator) for generator in generators])
    draws = torch.stack([torch.rand(length, generator=generator) for generator in generators])
    tokens = data.test_tokens[prompts, :prompt_len].long().to(device)
    return method.extend(tokens, eps.to(device), draws.to(device), **options)


def _whole(method, data, seed, indices, device, num_steps=50, **options):
    shape = (num_steps, data.shape["seq_len"])
    generators = (_generator(seed, index) for index in indices)  # double precision: see Masking.chain
    draws = torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for generator in generators])
    for _, step in method.sample([{}], [draws.to(device)], device, num_steps=num_steps, **options):  # noqa: B007
        pass  # none but the last is kept: each holds hidden states of all texts
    return step.prediction


def _generator(seed, index):
    return torch.Generator().manual_seed(seed_of(seed, "sample", index))

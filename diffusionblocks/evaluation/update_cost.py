"""What an update of a network costs (table 5, section 5.5), counted."""

import torch

from diffusionblocks.base.device import seed_of
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.methods.base import Method

DRAWS = 50  # updates over which the layers run in training are averaged: depths are random, and vary widely


def update_cost(method: Method, data: Text, device: torch.device, seed: int) -> dict[str, float]:
    """Layers run {forward, backward} in a training update, counted by hooks and averaged over DRAWS.

    Blocks take turns. A few tokens suffice: layers are counted, not what they compute.
    """
    batch = {"tokens": data.test_tokens[:1, :8].long().to(device)}
    counts = {"forward": 0, "backward": 0}

    def forward(*_):
        counts["forward"] += 1

    def backward(*_):
        counts["backward"] += 1

    hooks = []
    for model in method.models.values():
        for layer in model.all_layers():
            hooks += [layer.register_forward_hook(forward), layer.register_full_backward_hook(backward)]
    method.train()
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "cost of an update"))
        for draw in range(DRAWS):
            block = method.blocks[draw % len(method.blocks)]
            method.loss({name: value.clone() for name, value in batch.items()}, block)[0].backward()
    method.eval().zero_grad()
    for hook in hooks:
        hook.remove()
    return {name: count / DRAWS for name, count in counts.items()}

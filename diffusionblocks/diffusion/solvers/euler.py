"""Euler's solver, the paper's (equations 3-4)."""

from collections.abc import Callable, Generator

from diffusionblocks.diffusion.edm import Tensor, hand_over


def euler(z: Tensor, sigmas: list[float], owners: list[int], to_z: Callable) -> Generator:
    """Euler steps down the descending `sigmas`: one evaluation each."""
    for step, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = yield z, sigma, block
        if step + 1 < len(sigmas):
            z = hand_over(z, prediction, step, sigmas, owners, to_z)

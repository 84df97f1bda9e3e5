"""Heun's second-order solver: `solver: heun` is the sampler of Karras et al. (2022).

No row of the paper's tables asks for it. It is kept as the second solver, which shows that the interface is not Euler's
alone: it asks for the network twice a step, and the second time it may ask another block.
"""

from collections.abc import Callable, Generator

from diffusionblocks.diffusion.edm import Tensor


def heun(z: Tensor, sigmas: list[float], owners: list[int], to_z: Callable) -> Generator:
    """Heun's second-order steps (Karras et al. 2022, algorithm 1): 2 N - 1 evaluations for N sigmas.

    The correction at the next level is made by the block that owns that level. For targets that all blocks have in
    common, such as images; embedding tables of each block's own have no common slope.
    """
    for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = yield z, sigma, block
        if i + 1 < len(sigmas):
            following, owner = sigmas[i + 1], owners[i + 1]
            slope = (z - to_z(prediction, block)) / sigma
            ahead = z + (following - sigma) * slope
            correction = yield ahead, following, owner
            z = z + (following - sigma) * (slope + (ahead - to_z(correction, owner)) / following) / 2

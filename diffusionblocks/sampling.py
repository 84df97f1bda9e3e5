"""The reverse loop: from pure noise down the levels, each level by the block that owns it."""

from collections import namedtuple

from diffusionblocks.noise import euler_step

Step = namedtuple("Step", "sigma block prediction")
Step.__doc__ = (
    "One network evaluation: its level, the block that acted (None where there are no blocks), what it predicted."
)


def reverse(z, sigmas, owners, predict, to_z):
    """Yield a Step for each of the descending `sigmas`; the last one's prediction is the answer, no step goes to 0.

    owners: the block of each sigma. predict(z, sigma, block) is a network evaluation, to_z(prediction, block) the clean
    target it stands for, in that block's coordinates. Blocks with embedding tables of their own hand over the noise of
    z alone (`noise.euler_step`), so no block needs another's table in training.
    """
    for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = predict(z, sigma, block)
        yield Step(sigma, block, prediction)
        if i + 1 < len(sigmas):
            following = to_z(prediction, owners[i + 1])
            z = euler_step(z, to_z(prediction, block), sigma, sigmas[i + 1], following)

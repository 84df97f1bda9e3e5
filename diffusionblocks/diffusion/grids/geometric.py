"""Equal steps of the log of the level. No row of the paper's tables asks for it."""


def geometric(noise, num_steps: int) -> list[float]:
    """Equal steps in log sigma: each level is the same share of the one before."""
    return [noise.highest * (noise.lowest / noise.highest) ** (i / (num_steps - 1)) for i in range(num_steps)]

"""The grid of Karras et al. (2022). No row of the paper's tables asks for it."""

RHO = 7  # their choice: more of the levels are low ones than with 1, which is equal steps in sigma


def karras(noise, num_steps: int) -> list[float]:
    """Equal steps in the RHO-th root of sigma (Karras et al. 2022, equation 5)."""
    high, low = noise.highest ** (1 / RHO), noise.lowest ** (1 / RHO)
    return [(high + i / (num_steps - 1) * (low - high)) ** RHO for i in range(num_steps)]

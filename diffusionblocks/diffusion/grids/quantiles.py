"""The paper's grid (appendix H)."""


def quantiles(noise, num_steps: int) -> list[float]:
    """Equal quantiles of the training draws, so that blocks of equal probability have equally many levels."""
    return [noise.quantile(1 - i / (num_steps - 1)) for i in range(num_steps)]

"""Equal steps of the level (main text)."""


def uniform(noise, q: float) -> float:
    """Equal steps in sigma, or in the masking rate."""
    return noise.lowest + q * (noise.highest - noise.lowest)

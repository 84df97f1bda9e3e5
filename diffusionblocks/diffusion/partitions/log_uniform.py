"""Equal steps of the log of the level (appendix E.6, table 7)."""


def log_uniform(noise, q: float) -> float:
    """Equal steps in log sigma. Raises ValueError for a noise whose levels go down to 0."""
    if not noise.lowest:
        raise ValueError("partition log_uniform needs levels above 0, and a masking rate goes down to 0")
    return noise.lowest * (noise.highest / noise.lowest) ** q

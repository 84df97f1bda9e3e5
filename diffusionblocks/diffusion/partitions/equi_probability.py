"""The paper's partition: blocks are drawn equally often (section 3.2)."""


def equi_probability(noise, q: float) -> float:
    """Equal quantiles of the training draws."""
    return noise.quantile(q)

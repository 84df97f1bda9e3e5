"""Metrics of the likelihood of the test set, from the bound that masked diffusion optimises (MD4, Shi et al. 2024).

nelbo: (passes, N), nats per token, where a token is a character.
"""

import math

import numpy as np

from diffusionblocks.evaluation.metric import metric


@metric(unit="bits/char", better="lower")
def bpc(nelbo: np.ndarray) -> float:
    """Bits per character: the mean bound in bits."""
    return float(np.mean(nelbo)) / math.log(2)


@metric(unit="bits/char", beside=True)
def bpc_standard_error(nelbo: np.ndarray) -> float:
    """Standard error of `bpc` by the levels that were drawn: spread of the passes over the root of their number."""
    passes = np.mean(nelbo, axis=1) / math.log(2)
    return float(passes.std(ddof=1) / math.sqrt(len(passes)))


@metric(unit="bits/char", better="lower", figure="likelihood")
def bpc_by_level(nelbo_per_level: list) -> list[float]:
    """Bits per character of each interval of t, whose mean is `bpc`."""
    return [float(nats) / math.log(2) for nats in nelbo_per_level]

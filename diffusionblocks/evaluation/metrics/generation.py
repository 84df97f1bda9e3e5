"""Metrics of generated images, from their features.

features: a list of arrays (N, D), one per set; references: {split: {mu (D,), sigma (D, D), features (M, D)}} of the
real images; reference: which split they are compared with.
"""

from typing import Literal

import numpy as np

from diffusionblocks.evaluation.metric import metric
from diffusionblocks.scorers import fidelity


@metric(better="lower", over_sets="least", least={"samples": 2})
def fid(features: list, references: dict, *, reference: Literal["test", "train"] = "test") -> float:
    """Frechet distance to the real images; of several sample sets the least, as in the paper (appendix E.2)."""
    return min(fidelity.fid(values, references[reference]) for values in features)


@metric(better="lower", beside=True, least={"samples": 2})
def kid(features: list, references: dict, *, reference: Literal["test", "train"] = "test") -> float:
    """Kernel distance times 1000, mean over the sample sets."""
    return float(np.mean([fidelity.kid(values, references[reference]) for values in features]))


@metric(unit="%", better="higher", beside=True, least={"samples": 4})  # a sample and its three neighbours
def precision(features: list, references: dict, *, reference: Literal["test", "train"] = "test") -> float:
    """Share of the generated images near a real one, in percent: are they good?"""
    return _precision_recall(features, references[reference], 0)


@metric(unit="%", better="higher", beside=True, least={"samples": 4})
def recall(features: list, references: dict, *, reference: Literal["test", "train"] = "test") -> float:
    """Share of the real images near a generated one, in percent: are they varied?"""
    return _precision_recall(features, references[reference], 1)


def _precision_recall(features, reference, which):
    return 100 * float(np.mean([fidelity.precision_recall(values, reference)[which] for values in features]))

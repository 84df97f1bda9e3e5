"""Metrics by name, from arrays alone; a metric never sees a model.

What a metric is computed from stands in its positional arguments: `logits` and `labels` of the test set, or of
generated images their `features` and the `references`, or the `evaluations` that they cost. A function returns a
number, which reaches the table, or a list with one value per step, which reaches the figures.
"""

from typing import Literal

import numpy as np

from diffusionblocks import fidelity


def accuracy(logits, labels):
    """Share of the samples in percent whose largest logit at the last step is their label's.

    logits: (steps, N, classes); labels: (N,).
    """
    return 100 * float(np.mean(logits[-1].argmax(1) == labels))


def accuracy_per_step(logits, labels):
    """Accuracy in percent of each step's prediction; shapes as for `accuracy`."""
    return [100 * float(np.mean(step.argmax(1) == labels)) for step in logits]


def fid(features, references, *, reference: Literal["test", "train"] = "test"):
    """Frechet distance to the real images; of several sample sets the least, as in the paper (appendix E.2).

    features: a list of arrays (N, D), one per set; references: {split: {mu, sigma, features}}.
    """
    return min(fidelity.fid(values, references[reference]) for values in features)


def kid(features, references, *, reference: Literal["test", "train"] = "test"):
    """Kernel distance times 1000, mean over the sample sets; arguments as for `fid`."""
    return float(np.mean([fidelity.kid(values, references[reference]) for values in features]))


def precision(features, references, *, reference: Literal["test", "train"] = "test"):
    """Share of the generated images near a real one, in percent: are they good? Arguments as for `fid`."""
    return _precision_recall(features, references[reference], 0)


def recall(features, references, *, reference: Literal["test", "train"] = "test"):
    """Share of the real images near a generated one, in percent: are they varied? Arguments as for `fid`."""
    return _precision_recall(features, references[reference], 1)


def layer_evaluations(evaluations):
    """Layers run for an image, a guided pair counted once (appendix H); counted while sampling, not computed."""
    return evaluations["layers"]


def relative_speed(evaluations):
    """How many times fewer layers are run than if all of the network's were at every step (tables 8 and A2)."""
    return evaluations["networks"] * evaluations["num_layers"] / evaluations["layers"]


def _precision_recall(features, reference, which):
    return 100 * float(np.mean([fidelity.precision_recall(values, reference)[which] for values in features]))

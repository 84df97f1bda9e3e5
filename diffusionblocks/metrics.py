"""Metrics by name, from arrays alone. A metric is a function of the predictions at each step; it never sees a model.

A function returns a number, which reaches the table, or a list with one value per step, which reaches the figures.
"""

import numpy as np


def accuracy(logits, labels):
    """Share of the samples in percent whose largest logit at the last step is their label's.

    logits: (steps, N, classes); labels: (N,).
    """
    return 100 * float(np.mean(logits[-1].argmax(1) == labels))


def accuracy_per_step(logits, labels):
    """Accuracy in percent of each step's prediction; shapes as for `accuracy`."""
    return [100 * float(np.mean(step.argmax(1) == labels)) for step in logits]

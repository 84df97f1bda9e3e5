"""Metrics of classifiers, from predictions on the test set.

logits: (N, classes), the last step's; labels: (N,); correct: (steps, N), 1 where a step's prediction is the label.
"""

import numpy as np

from diffusionblocks.evaluation.metric import metric


@metric(unit="%", better="higher")
def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the samples in percent whose largest logit is their label's."""
    return 100 * float(np.mean(logits.argmax(1) == labels))


@metric(unit="%", better="higher", beside=True)
def top_5_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the samples in percent whose label is among their five largest logits."""
    return 100 * float(np.mean((np.argsort(-logits, axis=1)[:, :5] == labels[:, None]).any(1)))


@metric(unit="%", better="higher", figure="accuracy_chain")
def accuracy_per_step(correct: np.ndarray) -> list[float]:
    """Accuracy in percent of each step's prediction."""
    return [100 * float(step) for step in np.mean(correct, axis=1)]

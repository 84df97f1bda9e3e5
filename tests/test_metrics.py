"""Metrics on arrays made by hand."""

import numpy as np
import pytest

from diffusionblocks.metrics import accuracy, accuracy_per_step

LABELS = np.array([0, 1, 2, 2])
LOGITS = np.array(
    [
        [[9, 0, 0], [9, 0, 0], [9, 0, 0], [9, 0, 0]],  # 1 of 4
        [[-1, -2, -3], [0, 1, 0], [0, 0, 5], [0, 0.1, 0.2]],  # 4 of 4
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]],  # 3 of 4
    ]
)


def test_accuracy_is_that_of_the_last_step_in_percent():
    assert accuracy(LOGITS, LABELS) == 75.0
    assert accuracy(LOGITS[:2], LABELS) == 100.0
    assert isinstance(accuracy(LOGITS, LABELS), float)  # json does not know numpy's


def test_accuracy_per_step():
    found = accuracy_per_step(LOGITS, LABELS)
    assert found == pytest.approx([25.0, 100.0, 75.0])
    assert all(type(value) is float for value in found)

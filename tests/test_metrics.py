"""Metrics on arrays made by hand."""

import numpy as np
import pytest

from diffusionblocks.metrics import accuracy, accuracy_per_step, fid, kid, layer_evaluations, relative_speed

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


REFERENCES = {
    "test": {"mu": np.zeros(2), "sigma": np.eye(2), "features": np.zeros((4, 2), np.float32)},
    "train": {"mu": np.ones(2), "sigma": np.eye(2), "features": np.ones((4, 2), np.float32)},
}
# Means (1, 0) and (3, 0), covariances the identity.
SETS = [np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) * np.sqrt(1.5) + [x, 0] for x in (1, 3)]


def test_fid_is_the_least_of_the_sets():
    assert fid(SETS, REFERENCES) == pytest.approx(1)
    assert fid(SETS[1:], REFERENCES) == pytest.approx(9)
    assert fid(SETS[1:], REFERENCES, reference="train") == pytest.approx(4 + 1)


def test_kid_is_the_mean_of_the_sets():
    # Of points x and y that are all the same, with the kernel k(x, y) = (x.y / 2 + 1)^3: k(x, x) + k(y, y) - 2 k(x, y).
    at = [np.full((4, 2), value, np.float32) for value in (1, 2)]
    assert kid(at[:1], REFERENCES) == pytest.approx(1000 * (8 + 1 - 2))
    assert kid(at[1:], REFERENCES) == pytest.approx(1000 * (125 + 1 - 2))
    assert kid(at, REFERENCES) == pytest.approx(1000 * (7 + 124) / 2)
    assert kid(at[1:], REFERENCES, reference="train") == pytest.approx(1000 * (125 + 8 - 2 * 27))


def test_evaluations_of_a_third_of_the_layers():
    assert layer_evaluations({"layers": 200, "networks": 50, "num_layers": 12}) == 200
    assert relative_speed({"layers": 200, "networks": 50, "num_layers": 12}) == 3
    assert relative_speed({"layers": 600, "networks": 50, "num_layers": 12}) == 1

"""Metrics of text on arrays made by hand."""

import math

import numpy as np
import pytest

from diffusionblocks.evaluation.metrics import cost, language, likelihood


def test_a_uniform_predictor_needs_log2_27_bits_a_character():
    nelbo = np.full((4, 10), math.log(27))
    assert likelihood.bpc(nelbo) == pytest.approx(math.log2(27))
    assert likelihood.bpc_standard_error(nelbo) == pytest.approx(0, abs=1e-9)
    assert likelihood.bpc_by_level([math.log(27), 0.0]) == pytest.approx([math.log2(27), 0])


def test_standard_error_is_that_of_the_passes_mean():
    nelbo = math.log(2) * np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])  # means of 2, 3 and 4 bits
    assert likelihood.bpc(nelbo) == pytest.approx(3)
    assert likelihood.bpc_standard_error(nelbo) == pytest.approx(1 / math.sqrt(3))


def test_next_tokens_along_a_chain():
    losses = np.array([[3.0, 5.0], [1.0, 2.0]])
    assert language.next_token_loss_per_step(losses) == [4.0, 1.5]
    assert language.next_token_loss(losses) == 4.0  # what the context says, before z says anything
    correct = np.array([[0.5, 0.0], [1.0, 0.5], [0.0, 0.2]])
    assert language.first_step_accuracy(correct) == pytest.approx(25)
    assert language.sampled_accuracy(np.array([[0.9, 0.9], [0.1, 0.3]])) == pytest.approx(20)
    assert all(type(value) is float for value in language.next_token_loss_per_step(losses))  # for json


def test_what_a_chain_puts_out_over_its_noise():
    assert language.scrambled_loss(np.array([3.0, 5.0])) == 4.0
    assert language.output_entropy(np.array([1.0, 1.0])) == 0  # greedy
    assert language.output_entropy(np.full(9, 1 / 27)) == pytest.approx(math.log(27))
    assert math.isfinite(language.output_entropy(np.zeros(2)))  # two chains that never agree
    # Greedy, right with a chance of 0.5; the truth, (0.5, 0.5); and neither.
    found = [
        language.brier_score(np.array([[0.9], [right]]), np.array([same]))
        for right, same in ((0.5, 1.0), (0.5, 0.5), (0.52, 0.58))
    ]
    assert found == pytest.approx([1.0, 0.5, 0.54])


def floor(c):
    return math.gamma(c + 1) ** 2 / math.gamma(2 * c + 1)


def cloud(n, seed, at=0):
    return np.random.default_rng(seed).normal(size=(n, 4)) + np.array([at, 0, 0, 0])


@pytest.mark.parametrize("factor", [2.0, 5.0])
def test_mauve_of_a_set_with_itself_and_of_sets_apart(factor):
    here = cloud(100, 0, at=50)
    assert language.mauve((here, here), scaling_factor=factor) == pytest.approx(1, abs=1e-5)
    # 25 points stand for the curve, so the area is met to some percent.
    assert language.mauve((here, -here), scaling_factor=factor) == pytest.approx(floor(factor), rel=0.03)
    assert floor(2) == pytest.approx(1 / 6)


def test_mauve_is_the_librarys_but_where_points_of_its_curve_coincide():
    from mauve import compute_mauve

    generated, references = cloud(60, 1, 1), cloud(40, 2)
    found = compute_mauve(references, generated, mauve_scaling_factor=2).mauve
    assert language.mauve((generated, references), kmeans_seeds=1) == pytest.approx(found, abs=1e-9)
    # Two clusters of one half each: both divergences are exactly zero at each point.
    halves = np.repeat([[1.0, 0.0], [0.0, 1.0]], 8, axis=0) + 0.01 * cloud(16, 3)[:, :2]
    assert language.mauve((halves, halves)) == pytest.approx(1, abs=1e-12)


def test_mauve_falls_with_the_distance_and_averages_seeds():
    near, middle, far = (language.mauve((cloud(300, 1, at), cloud(200, 2))) for at in (0, 1, 3))
    assert 1 > near > 0.95 > middle > far + 0.1 > floor(2) + 0.1
    sets = cloud(300, 1, 1), cloud(200, 2)
    assert language.mauve(sets) == middle
    assert language.mauve(sets, kmeans_seeds=1) != middle
    assert language.mauve(sets, scaling_factor=5.0) < middle


def test_mauve_is_silent(capfd):
    language.mauve((cloud(30, 1), cloud(30, 2)), kmeans_seeds=1)
    assert capfd.readouterr() == ("", "")


def test_generative_perplexity_weighs_tokens_not_texts():
    text_nll = np.array([2 * math.log(4), 6 * math.log(16)]), np.array([2, 6])
    assert language.generative_perplexity(text_nll) == pytest.approx(4**0.25 * 16**0.75)
    assert language.reference_perplexity(text_nll) == language.generative_perplexity(text_nll)
    assert language.generative_perplexity((np.zeros(2), np.zeros(2, int))) == math.inf  # no perfect score for no text


def test_a_loop_is_seen_by_what_stands_beside_its_perplexity():
    loop, varied = np.tile([7, 8], (3, 20)), np.arange(120).reshape(3, 40)
    assert language.distinct_2(loop) == pytest.approx(100 * 2 / 39)
    assert language.repetition(loop) == pytest.approx(100 * (1 - 2 / 37))
    assert (language.distinct_2(varied), language.repetition(varied)) == (100, 0)
    assert language.distinct_2(np.stack([loop[0], varied[0]])) == pytest.approx((100 * 2 / 39 + 100) / 2)
    # A pair of tokens is the same in this order only; texts do not see each other.
    assert language.distinct_2(np.array([[1, 2, 1], [1, 2, 1]])) == 100
    assert language.repetition(np.array([[1, 2, 3, 4, 1, 2, 3, 4]])) == pytest.approx(100 / 5)


def test_layers_of_an_update():
    assert cost.layers_forward({"forward": 36.5, "backward": 12}) == 36.5
    assert cost.layers_backward({"forward": 36.5, "backward": 12}) == 12

"""What a few seeds tell, on numbers with known answers, and how often it is wrong, by simulation."""

import math

import numpy as np
import pytest

from diffusionblocks.page.statistics import are_paired, bootstrap, difference, interval, seeds_to_decide, sign_flip

T = {1: 6.313752, 2: 2.919986, 4: 2.131847}  # Student's t, one-sided 5%, from a printed table


@pytest.mark.parametrize("values", [[1.0, 3.0], [1.0, 2.0, 6.0], [5.0, 4.0, 7.0, 1.0, 1.0]])
def test_the_error_is_half_of_a_90_percent_interval_of_t(values):
    mean, half = interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert half == pytest.approx(T[len(values) - 1] * np.std(values, ddof=1) / math.sqrt(len(values)))


def test_no_error_is_known_of_one_seed_and_of_infinite_values():
    assert interval([7.0]) == (7.0, None)
    assert interval([7.0, math.inf]) == (math.inf, None)
    assert difference([7.0], [1.0], paired=True) == (6.0, None)
    assert difference([7.0], [1.0, 2.0], paired=False) == (5.5, None)
    assert difference([7.0, math.inf], [1.0, 2.0], paired=True) == (math.inf, None)
    for other in (sign_flip, bootstrap):
        assert other([7.0], [1.0], True) is None and other([7.0, math.inf], [1.0, 2.0], True) is None


def test_as_many_seeds_are_the_same_ones():
    assert are_paired([1.0, 2.0], [3.0, 4.0])
    assert not are_paired([1.0, 2.0], [3.0, 4.0, 5.0]) and not are_paired([1.0], [2.0]), "one has no spread"


def test_differences_of_equal_seeds_are_paired():
    """Spreads of 10 that both rows share leave 1.0, 1.1, 0.9."""
    a, b = [81.0, 91.1, 70.9], [80.0, 90.0, 70.0]
    assert difference(a, b, paired=True) == (pytest.approx(1.0), pytest.approx(T[2] * 0.1 / math.sqrt(3)))
    assert difference(a, b, paired=False)[1] > 15


def test_welch_has_its_own_degrees_of_freedom():
    """Deviations 1 and 1 of three and three: four degrees; of one that does not spread: those of the other."""
    assert difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], False) == (0.0, pytest.approx(T[4] * math.sqrt(2 / 3)))
    assert difference([1.0, 2.0, 3.0], [5.0, 5.0], False) == (-3.0, pytest.approx(T[2] * math.sqrt(1 / 3)))


def test_a_gap_that_is_the_same_in_all_seeds_has_the_error_of_its_rows():
    assert difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], True) == (1.0, pytest.approx(T[4] * math.sqrt(2 / 3)))
    assert difference([0.1 + 0.2, 1.3], [0.2, 1.2], True)[1] > 1, "sums that round differently are no spread"
    assert difference([0.3, 0.1 + 0.2], [0.1, 0.1], True)[1] == 0.0
    assert difference([2.0] * 3, [1.0] * 3, True) == difference([2.0] * 3, [1.0] * 3, False) == (1.0, 0.0)


def test_the_sign_flip_test_is_exact():
    """Of three differences, all above the margin, one of eight flips is as far; shared out, one of twenty."""
    a, b = [4.0, 5.0, 6.5], [1.0, 2.0, 3.0]
    assert sign_flip(a, b, True) == 1 / 8 and sign_flip(b, a, True) == 1.0
    assert sign_flip(a, b, False) == 1 / 20
    many = [float(i % 5) for i in range(20)]
    assert sign_flip(many, [1.9] * 20, True) == sign_flip(many, [1.9] * 20, True), "drawn, and the same each time"
    assert sign_flip(a, b, True, margin=3.2) == 5 / 8  # of ±0.2 ±0.2 ±0.3, five are at -0.1 or above


def test_the_bootstrap_is_of_the_same_difference_and_the_same_each_time():
    low, high = bootstrap([81.0, 91.1, 70.9], [80.0, 90.0, 70.0], True)
    assert 0.899 < low < 1 < high < 1.101
    assert bootstrap([81.0, 91.1, 70.9], [80.0, 90.0, 70.0], True) == (low, high)
    low, high = bootstrap([81.0, 91.1, 70.9], [80.0, 90.0, 70.0], False)
    assert low < -5 and high > 5


def test_how_many_seeds_would_decide():
    half = T[2] / math.sqrt(3)  # deviation 1
    assert seeds_to_decide(1.0, half, 3) == 5  # of 4 seeds 2.353 / 2, of 5 2.132 / 2.236 = 0.953
    assert seeds_to_decide(-1.0, half, 3) == 5
    assert seeds_to_decide(2.0, half, 3) == 3, "those that are there do"
    assert seeds_to_decide(0.1, half, 3) == pytest.approx(272, abs=2)  # (1.645 / 0.1)^2
    assert seeds_to_decide(0.0, half, 3) is None and seeds_to_decide(0.01, half, 3) is None
    assert seeds_to_decide(5.0, None, 1) == 3 and seeds_to_decide(math.inf, None, 3) is None


# How often it errs. Where the true gap is the margin, "held" and "did not hold" are both wrong.

DRAWS = 1500
NOISE = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "skewed": lambda draw, shape: draw.exponential(size=shape) - 1,
}


def beyond(noise, seeds, paired=True, both=True, rule=None):
    """(shares of draws without any gap in which the error leaves the gap above 0, and below it)."""
    draw = np.random.default_rng(7)
    found = []
    for _ in range(DRAWS):
        a, b = NOISE[noise](draw, (2, seeds))
        mean, half = difference(a, b if both else np.zeros(seeds), paired) if rule is None else rule(a, b)
        found.append(1 if mean > half else -1 if mean < -half else 0)
    return np.mean(np.equal(found, 1)), np.mean(np.equal(found, -1))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_rows_are_told_apart_in_a_twentieth_each_way_at_most(seeds, noise, paired):
    """Skewed noise as well, since the difference of two equal rows is not skewed."""
    assert all(0.01 < share < 0.065 for share in beyond(noise, seeds, paired))


@pytest.mark.parametrize("seeds", [3, 5])
def test_where_one_row_alone_spreads_and_is_skewed_one_side_errs_more(seeds):
    """No rule mends that with so few: the long tail is not seen yet. docs/claims.md says so."""
    above, below = beyond("skewed", seeds, both=False)
    assert above < 0.03 and 0.1 < below < 0.22


@pytest.mark.parametrize(("seeds", "low", "high"), [(3, 0.07, 0.12), (5, 0.045, 0.075)])
def test_two_standard_errors_err_more_often(seeds, low, high):
    shares = beyond("normal", seeds, rule=lambda a, b: (np.mean(a - b), 2 * np.std(a - b, ddof=1) / math.sqrt(seeds)))
    assert all(low < share < high for share in shares)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(("seeds", "low", "high"), [(3, 0.5, 0.7), (5, 0.7, 0.85)])
def test_a_bootstrap_of_few_seeds_covers_less_than_its_90_percent(noise, seeds, low, high):
    draw = np.random.default_rng(7)
    found = [bootstrap(*NOISE[noise](draw, (2, seeds)), True) for _ in range(400)]
    assert low < np.mean([below <= 0 <= above for below, above in found]) < high


def test_a_gap_of_two_deviations_is_found_by_three_seeds_in_two_of_three_and_by_five_nearly_always():
    """The power of it: gaps of 1, the differences' deviation 0.5."""
    draw = np.random.default_rng(7)
    for seeds, least in ((3, 0.65), (5, 0.97)):
        draws = [difference(1 + 0.5 * draw.normal(size=seeds), np.zeros(seeds), True) for _ in range(DRAWS)]
        assert np.mean([mean > half for mean, half in draws]) > least

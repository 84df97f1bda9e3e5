"""What a few seeds tell of a mean and of a difference: the page's error, and what decides claims. No torch.

One kind of error on the whole page: half of a two-sided 90% confidence interval of Student's t over seeds. So the
interval lies beyond a margin exactly where a one-sided test at 5% rejects it. With three seeds nothing else can do
that: a sign-flip test has no p below 1/8, and a bootstrap interval covers far less than it says; both are computed to
stand beside it. docs/claims.md has the error rates, and tests/test_statistics.py measures them.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.90  # two-sided
FEWEST = 3  # seeds worth asking for: the interval of two is twice as wide as that of three
MOST = 1000  # seeds: beyond, a number of them is no advice
RESAMPLES = 2000
EQUAL = 1e-9  # of the values: less is rounding, and no spread

Interval = tuple[float, float | None]  # mean, and half the width; None where no spread is known


def interval(values: Sequence[float]) -> Interval:
    """Mean of some seeds' values, and the error of it. The error is None of one seed, and where one is infinite."""
    return _mean(values), _half(_error(values), len(values) - 1)


def difference(a: Sequence[float], b: Sequence[float], paired: bool) -> Interval:
    """By how much the mean of `a` exceeds that of `b`, and the error of it; None as in `interval`.

    paired: a[i] and b[i] are of the same seed, and their differences are what spreads; else Welch's t. Differences
    that are the same in all seeds, of values that are not, are no evidence that nothing spreads: quantised values, such
    as accuracies, agree by chance. They have Welch's error too. An error of 0 is left where no value spreads at all.
    """
    mean, errors = _mean(a) - _mean(b), [_error(values) for values in (a, b)]
    if None in errors:
        return mean, None
    if paired and not has_constant_gap(a, b):
        return mean, _half(_error(np.subtract(a, b)), len(a) - 1)
    freedom = sum(errors[i] ** 4 / (len(values) - 1) for i, values in enumerate((a, b)))
    variance = sum(error**2 for error in errors)
    return mean, _half(math.sqrt(variance), variance**2 / freedom) if variance else 0.0


def are_paired(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether values of two rows of a table are of the same seeds, which had the same draws.

    Rows have the first so many of the configured seeds: as many are the same ones.
    """
    return len(a) == len(b) > 1


def has_constant_gap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rows of the same seeds, all finite, differ by the same in all of them."""
    return float(np.ptp(np.subtract(a, b))) <= EQUAL * float(np.abs([a, b]).max())


def sign_flip(a: Sequence[float], b: Sequence[float], paired: bool, margin: float = 0.0) -> float | None:
    """One-sided p of a test without a distribution: that `a` exceeds `b` by no more than the margin.

    Paired, of all flips of signs of the differences; else of all ways to share out the values; of 10,000 of them where
    there are more, as with 14 paired seeds. Of n paired seeds it is 1 / 2^n at least. None of one seed, and of infinite
    values.
    """
    if None in (_error(a), _error(b)):
        return None
    samples, statistic = _resampled(np.subtract(a, margin), b, paired)
    settings = {"permutation_type": "samples" if paired else "independent", "alternative": "greater"}
    return float(stats.permutation_test(samples, statistic, **settings, rng=np.random.default_rng(0)).pvalue)


def bootstrap(a: Sequence[float], b: Sequence[float], paired: bool) -> tuple[float, float] | None:
    """Percentile bootstrap of the difference: (low, high), of the page's confidence. None as in `sign_flip`."""
    if None in (_error(a), _error(b)):
        return None
    samples, statistic = _resampled(a, b, paired)
    settings = {"confidence_level": CONFIDENCE, "method": "percentile", "n_resamples": RESAMPLES}
    found = stats.bootstrap(samples, statistic, **settings, rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)


def _resampled(a, b, paired):
    """(samples, statistic) as scipy takes them, of the difference of means."""
    if paired:
        return (np.subtract(a, b),), lambda gaps, axis: np.mean(gaps, axis)
    return (a, b), lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis)


def seeds_to_decide(distance: float, half: float | None, seeds: int) -> int | None:
    """How many seeds in all would leave an error smaller than a distance, at the spread of as many as are there.

    distance: of the mean from the margin; half: its error. Of one seed `FEWEST`, since the spread is not known; None
    where more than `MOST` are needed. If spread and mean stay, the chance to decide with so many is one half.
    """
    if half is None:
        return FEWEST if seeds == 1 else None
    counts = np.arange(seeds, MOST + 1)
    halves = half * _t(counts - 1) / _t(seeds - 1) * np.sqrt(seeds / counts)  # each is t(n - 1) s / sqrt(n)
    enough = counts[halves < abs(distance)]
    return int(enough[0]) if len(enough) else None


def _mean(values):
    return float(np.mean(values))


def _error(values):
    """Standard error of the mean; None where it is not known."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    spread = float(np.std(values, ddof=1))
    return spread / math.sqrt(len(values)) if spread > EQUAL * float(np.abs(values).max()) else 0.0


def _half(error, freedom):
    return None if error is None else float(_t(freedom)) * error


def _t(freedom):
    return stats.t.ppf((1 + CONFIDENCE) / 2, freedom)

"""NoProp's noise: its schedules, its chain from noise to the label as an exact posterior, the bound's first term."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffusionblocks.diffusion.variance_preserving import (
    LIMITS,
    LearnedSchedule,
    corrupt,
    cosine_schedule,
    kl_to_noise,
    snr,
    step_coefficients,
)


def learned(seed=0, shake=0.0):
    """A learned schedule in double precision; shaken, but for the ends' order, away from where it starts."""
    torch.manual_seed(seed)
    schedule = LearnedSchedule().double()
    with torch.no_grad():
        for value in schedule.parameters():
            value += shake * torch.randn_like(value)
    assert schedule.ends[0] > schedule.ends[1]
    return schedule


def chain(kind):
    """abar_0 to abar_T of NoProp-DT, or of the long chain of NoProp-CT."""
    if kind == "cosine":
        return cosine_schedule(10).tolist()
    times = torch.arange(1001, dtype=torch.float64) / 1000
    return learned(shake=0.5 if kind == "shaken" else 0.0)(times).tolist()


# Schedules


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_cosine_schedule_is_the_cut_squared_cosine(steps):
    abar = cosine_schedule(steps)
    assert abar.shape == (steps + 1,) and abar.dtype == torch.float64 and (abar.diff() > 0).all()
    assert abar[0].item() == 1e-4 and abar[-1].item() == 0.99
    last = math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
    for t in range(1, steps):
        assert abar[t].item() == pytest.approx(math.cos(math.pi / 2 * (1 - t / steps + 0.008) / 1.008) ** 2 / last)
    if steps == 10:
        assert abar[5].item() == pytest.approx(0.493844, abs=1e-6)
        assert abar[1].item() == pytest.approx(0.024091, abs=1e-6)


def test_learned_schedule_starts_between_its_limits():
    times = torch.arange(1001, dtype=torch.float64) / 1000
    for seed in range(3):
        abar = learned(seed)(times)
        assert (abar.diff() > 0).all()
        assert abar[[0, -1]].tolist() == pytest.approx((0.01, 0.99), abs=1e-7)


def test_learned_schedule_is_a_sigmoid_of_a_two_layer_network():
    schedule = learned(3, shake=0.3)
    slope, offset, out = (value.tolist() for value in (schedule.slope, schedule.offset, schedule.out))

    def softplus(x):
        return math.log1p(math.exp(x))

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    def way(t):
        return sum(softplus(o) * sigmoid(softplus(s) * t + b) for s, b, o in zip(slope, offset, out, strict=True))

    (first, last), ends = (way(0), way(1)), schedule.ends.tolist()
    for t in (0.1, 0.4, 0.77):
        share = (way(t) - first) / (last - first)
        gamma = ends[0] * (1 - share) + ends[1] * share
        assert schedule(torch.tensor([t], dtype=torch.float64)).item() == pytest.approx(sigmoid(-gamma))


@pytest.mark.parametrize("seed", range(4))
def test_learned_schedule_rises_within_its_limits_wherever_training_takes_it(seed):
    abar = learned(seed, shake=2.0)(torch.linspace(0, 1, 501, dtype=torch.float64))
    inside = (abar > LIMITS[0]) & (abar < LIMITS[1])
    assert (abar >= LIMITS[0]).all() and (abar <= LIMITS[1]).all() and inside.sum() > 100
    assert (abar.diff() >= 0).all() and (abar.diff()[inside[1:] & inside[:-1]] > 0).all()


def test_learned_schedule_s_ends_are_its_values_at_0_and_1():
    schedule = learned(shake=0.5)
    with torch.no_grad():
        schedule.ends.copy_(torch.tensor([2.0, -1.0]))
    found = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found, 1 / (1 + torch.tensor([2.0, -1.0], dtype=torch.float64).exp()))


def test_the_ratio_s_rate_is_its_difference_quotient():
    schedule, h = learned(shake=0.3), 1e-6
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    (rate,) = torch.autograd.grad(snr(schedule(t)).sum(), t)
    with torch.no_grad():
        quotient = (snr(schedule(t + h)) - snr(schedule(t - h))) / (2 * h)
    torch.testing.assert_close(rate, quotient, atol=0, rtol=1e-6)
    assert (rate > 0).all()


@pytest.mark.parametrize("ends", [(4.5, -4.0), (7.0, -7.0)])
def test_the_ratio_s_mean_rate_is_what_it_gains(ends):
    """Within the limits, and also where the ends lie beyond them and the ratio stands still."""
    schedule = learned(shake=0.3)
    with torch.no_grad():
        schedule.ends.copy_(torch.tensor(ends))
    t = ((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).requires_grad_()
    (rate,) = torch.autograd.grad(snr(schedule(t)).sum(), t)
    first, last = snr(schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))).tolist()
    if ends[0] == 7:
        assert (first, last) == pytest.approx((1 / 99, 99))
    assert rate.mean().item() == pytest.approx(last - first, rel=2e-3)


def test_snr_is_the_ratio_of_variances():
    assert snr(0.99) == pytest.approx(99) and snr(0.5) == 1
    torch.testing.assert_close(snr(torch.tensor([0.2, 0.8])), torch.tensor([0.25, 4.0]))


# The chain


def test_corrupt_draws_from_q():
    u, eps = torch.tensor([[3.0, -1.0], [0.5, 2.0]]), torch.tensor([[1.0, 2.0], [-2.0, 0.0]])
    torch.testing.assert_close(corrupt(u, 0.36, eps), 0.6 * u + 0.8 * eps)
    each = corrupt(u, torch.tensor([0.36, 0.64]), eps)  # a level of its own for each sample, not for each coordinate
    torch.testing.assert_close(each, torch.stack([0.6 * u[0] + 0.8 * eps[0], 0.8 * u[1] + 0.6 * eps[1]]))


@pytest.mark.parametrize("kind", ["cosine", "learned", "shaken"])
def test_a_step_with_the_true_label_goes_from_q_to_q(kind):
    abar, u = chain(kind), -1.7
    mean, variance = abar[0] ** 0.5 * u, 1 - abar[0]
    for before, after in itertools.pairwise(abar):
        a, b, c = step_coefficients(before, after)
        assert a >= 0 and b > 0 and c >= 0
        # From q(z_{t-1} | y) itself, and along the whole chain from q(z_0 | y).
        assert a * u + b * before**0.5 * u == pytest.approx(after**0.5 * u, rel=1e-12)
        assert b**2 * (1 - before) + c == pytest.approx(1 - after, rel=1e-12)
        mean, variance = a * u + b * mean, b**2 * variance + c
        assert mean == pytest.approx(after**0.5 * u, rel=1e-9) and variance == pytest.approx(1 - after, rel=1e-9)


def test_a_step_is_the_posterior_of_the_chain_of_noise():
    """Build the joint Gaussian of z_0 to z_T from q(z_T | y) and q(z_{t-1} | z_t), and condition it."""
    abar = np.array(chain("cosine"))
    alpha, steps = abar[:-1] / abar[1:], 10  # alpha[t]: from z_{t+1} down to z_t
    assert np.prod(np.append(alpha, abar[-1])) == pytest.approx(abar[0])
    # z = mean u + root eps: z_T, then each lower z, in a row of its own.
    mean, root = np.zeros(steps + 1), np.zeros((steps + 1, steps + 1))
    mean[steps], root[steps, steps] = abar[-1] ** 0.5, (1 - abar[-1]) ** 0.5
    for t in reversed(range(steps)):
        mean[t], root[t] = alpha[t] ** 0.5 * mean[t + 1], alpha[t] ** 0.5 * root[t + 1]
        root[t, t] += (1 - alpha[t]) ** 0.5
    covariance = root @ root.T
    np.testing.assert_allclose(mean, abar**0.5)
    np.testing.assert_allclose(covariance.diagonal(), 1 - abar)
    for t in range(1, steps + 1):
        seen = np.arange(t)  # all of z_0 to z_{t-1}: only the last of them matters
        gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[seen, t])
        a, b, c = step_coefficients(abar[t - 1], abar[t])
        np.testing.assert_allclose(gain, [0] * (t - 1) + [b], atol=1e-9)
        np.testing.assert_allclose(mean[t] - gain @ mean[seen], a, rtol=1e-9)
        np.testing.assert_allclose(covariance[t, t] - gain @ covariance[seen, t], c, rtol=1e-9)


def test_a_step_that_goes_nowhere_keeps_z():
    assert step_coefficients(0.3, 0.3) == pytest.approx((0, 1, 0))  # where a learned abar stands at its limit


# The bound


def kl(u, abar):
    """PyTorch's divergence of q(z_0 | y) from standard normal noise."""
    q = torch.distributions.Normal(abar**0.5 * u, (1 - abar) ** 0.5)
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(u), 1.0)).sum(1)


@pytest.mark.parametrize("abar", [1e-4, 0.01, 0.3, 0.99])
def test_kl_to_noise_is_pytorch_s(abar):
    u = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor(abar, dtype=torch.float64)
    torch.testing.assert_close(kl_to_noise(u, level), kl(u, level), atol=1e-12, rtol=1e-9)
    if abar > 1e-3:  # in single precision, as networks have it
        torch.testing.assert_close(kl_to_noise(u.float(), level.float()), kl(u, level).float())


def test_kl_to_noise_is_the_mean_log_ratio_of_draws():
    torch.manual_seed(0)
    u, abar = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    eps = torch.randn(100_000, 3, dtype=torch.float64)
    z = corrupt(u, abar, eps)
    log_ratio = (z.square().sum(1) - eps.square().sum(1) - 3 * math.log(1 - 0.4)) / 2
    error = log_ratio.std().item() / len(z) ** 0.5
    found = kl_to_noise(u, abar).item()
    assert abs(found - log_ratio.mean().item()) < 4 * error < 0.02 * found

"""Known answers of EDM noise, the truncated log-normal, the Euler step, the levels of inference, and masking."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffusionblocks.base.components import names
from diffusionblocks.diffusion.edm import EDM, euler_step
from diffusionblocks.diffusion.masking import MASK, Masking
from diffusionblocks.diffusion.noise import NOISES, Noise
from diffusionblocks.diffusion.partition import boundaries, owner

NOISE = EDM()
SIGMAS = [0.002, 0.17963, 0.3012, 0.5050, 1.0, 80.0]


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def truncated_cdf(sigma, low, high, p_mean=-1.2, p_std=1.2):
    """The distribution function written out a second time, with erf instead of the package's NormalDist."""
    at = [normal_cdf((math.log(value) - p_mean) / p_std) for value in (sigma, low, high)]
    return (at[0] - at[1]) / (at[2] - at[1])


def test_preconditioning_identities():
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = NOISE.precondition(sigma)
    one, variance = torch.ones_like(sigma), 0.25  # of the clean target, sigma_data^2
    torch.testing.assert_close(c_in**2 * (variance + sigma**2), one)  # the input has unit variance
    target_variance = ((1 - c_skip) ** 2 * variance + c_skip**2 * sigma**2) / c_out**2
    torch.testing.assert_close(target_variance, one)  # so has (z0 - c_skip z) / c_out, what the network must give
    torch.testing.assert_close(variance - c_skip * (variance + sigma**2), 0 * one)  # and it is uncorrelated with z
    torch.testing.assert_close(NOISE.weight(sigma) * c_out**2, one)  # every level weighs the same in an L2 loss
    torch.testing.assert_close(c_noise, sigma.log() / 4)


@pytest.mark.parametrize(
    ("sigma", "weight", "c_skip", "c_out", "c_noise"),
    [
        (0.002, 250_004, 1.000, 0.0020, -1.554),
        (0.1796, 35.0, 0.886, 0.169, -0.4293),
        (0.3012, 15.0, 0.734, 0.258, -0.3000),
        (0.5050, 7.92, 0.495, 0.355, -0.1708),
        (1.0, 5.0, 0.2, 0.447, 0.0),
        (80.0, 4.0, 0.000, 0.500, 1.0955),
    ],
)
def test_preconditioning_values(sigma, weight, c_skip, c_out, c_noise):
    sigma = torch.tensor(sigma, dtype=torch.float64)
    skip, out, _, level = NOISE.precondition(sigma)
    assert NOISE.weight(sigma).item() == pytest.approx(weight, rel=2e-3)
    assert (skip.item(), out.item(), level.item()) == pytest.approx((c_skip, c_out, c_noise), abs=5e-4)


def test_quantile_is_the_inverse_of_cdf():
    assert [NOISE.quantile(q) for q in (0, 1)] == [0.002, 80.0]
    assert [NOISE.cdf(sigma) for sigma in (0.002, 80.0)] == [0, 1]
    for q in np.linspace(0.001, 0.999, 97):
        assert NOISE.cdf(NOISE.quantile(q)) == pytest.approx(q, abs=1e-12)
    for sigma in SIGMAS:
        assert NOISE.cdf(sigma) == pytest.approx(truncated_cdf(sigma, 0.002, 80), abs=1e-12)


def test_p_mean_moves_the_median():
    assert EDM(p_mean=0.5).quantile(0.5) == pytest.approx(math.exp(0.5), rel=2e-3)
    assert NOISE.quantile(0.5) == pytest.approx(math.exp(-1.2), rel=2e-3)


@pytest.mark.parametrize(("low", "high"), [(0.002, 80), (0.392, 80), (0.171, 0.532), (0.002, 0.225), (20, 80)])
def test_sampling_follows_the_truncated_distribution(low, high):
    """Kolmogorov-Smirnov distance below its 1 % critical value."""
    u = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = NOISE.sample(u, low, high)
    assert sigma.dtype == torch.float64 and sigma.shape == u.shape
    assert low <= sigma.min() and sigma.max() <= high
    cdf = np.array([truncated_cdf(value, low, high) for value in sorted(sigma.tolist())])
    ranks = np.arange(len(cdf) + 1) / len(cdf)
    distance = max((ranks[1:] - cdf).max(), (cdf - ranks[:-1]).max())
    assert distance < 1.63 / math.sqrt(len(cdf))


def test_sampling_is_exact_at_given_quantiles():
    q = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = [NOISE.quantile(value) for value in q.tolist()]
    assert NOISE.sample(q, 0.002, 80).tolist() == pytest.approx(expected, rel=1e-6)


def test_corrupt_gives_each_sample_its_own_level():
    z0, sigma = torch.ones(3, 2, 4), torch.tensor([0.0, 1.0, 10.0])
    z = NOISE.corrupt(z0, sigma, torch.full_like(z0, 2.0))
    assert [sample.unique().tolist() for sample in z] == [[1.0], [3.0], [21.0]]


@pytest.mark.parametrize(("sigma", "sigma_next"), [(80.0, 0.3), (0.3, 0.002), (0.3, 0.0), (0.3, 2.0)])
def test_euler_with_a_perfect_denoiser_lands_on_the_next_level(sigma, sigma_next):
    torch.manual_seed(0)
    y, eps = torch.randn(2, 5, 8, dtype=torch.float64)
    landed = euler_step(y + sigma * eps, y, sigma, sigma_next)
    torch.testing.assert_close(landed, y + sigma_next * eps)  # the paper's printed sign would make the noise grow


def test_euler_is_the_step_along_the_slope():
    torch.manual_seed(0)
    z, denoised = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = z + (0.3 - 0.8) * (z - denoised) / 0.8
    torch.testing.assert_close(euler_step(z, denoised, 0.8, 0.3), expected)


def test_hand_off_carries_the_noise_alone():
    torch.manual_seed(0)
    table, table_next = torch.randn(2, 10, 4, dtype=torch.float64)
    p, z = torch.rand(5, 10, dtype=torch.float64).softmax(1), torch.randn(5, 4, dtype=torch.float64)
    z_next = euler_step(z, p @ table, 2.0, 0.5, p @ table_next)
    torch.testing.assert_close(z_next, p @ table_next + 0.25 * (z - p @ table))
    one_table = euler_step(z, p @ table, 2.0, 0.5, p @ table)
    torch.testing.assert_close(one_table, euler_step(z, p @ table, 2.0, 0.5))
    assert not torch.allclose(z_next, one_table)


def test_levels_known_answer():
    assert NOISE.levels(3) == pytest.approx([80, 0.3012, 0.002], rel=1e-4)
    fifty = NOISE.levels(50)
    assert fifty[:4] == pytest.approx([80, 3.51, 2.43, 1.92], rel=2e-3)
    assert fifty[-4:] == pytest.approx([0.047, 0.037, 0.026, 0.002], abs=6e-4)


@pytest.mark.parametrize("num_steps", [2, 3, 4, 7, 50, 1000])
def test_levels_have_equal_mass_between_them(num_steps):
    noise = EDM(p_mean=-0.4)
    sigmas = noise.levels(num_steps)
    assert len(sigmas) == num_steps and sigmas == sorted(sigmas, reverse=True)
    assert sigmas[0] == 80.0 and sigmas[-1] == 0.002
    masses = -np.diff([truncated_cdf(sigma, 0.002, 80, p_mean=-0.4) for sigma in sigmas])
    np.testing.assert_allclose(masses, 1 / (num_steps - 1), atol=1e-9)


@pytest.mark.parametrize(
    ("grid", "sigmas"),
    [
        # Equation 5 of Karras et al. with rho 7, and equal steps of the log; both by hand.
        ("karras", [80, 9.7228, 0.46998, 0.002]),
        ("geometric", [80, 2.33921, 0.068399, 0.002]),
        ("quantiles", NOISE.levels(4)),
    ],
)
def test_other_grids_known_answer(grid, sigmas):
    assert NOISE.levels(4, grid) == pytest.approx(sigmas, rel=1e-4)


def test_the_middle_of_karras_s_grid():
    """Of the seventh roots 1.87019 and 0.411590; published samplers have 2.5152 there."""
    assert NOISE.levels(3, "karras")[1] == pytest.approx(2.5152, rel=1e-4)
    assert NOISE.levels(3, "geometric")[1] == pytest.approx(0.4)


@pytest.mark.parametrize("grid", names("grid"))
@pytest.mark.parametrize("num_steps", [1, 2, 3, 19, 50])
def test_every_grid_falls_from_end_to_end(grid, num_steps):
    noise = EDM(p_mean=0.5, sigma_min=0.1)
    sigmas = noise.levels(num_steps, grid)
    assert len(sigmas) == num_steps and sigmas[0] == 80
    assert num_steps == 1 or sigmas[-1] == 0.1
    assert all(high > low for high, low in itertools.pairwise(sigmas))


@pytest.mark.parametrize("grid", ["rising", "short", "elsewhere"])
def test_a_grid_that_does_not_fall_from_end_to_end_is_refused(grid):
    with pytest.raises(
        ValueError, match=f"grid own.choices.{grid}: its levels .* are not 3 that fall from 80.0 to 0.002"
    ):
        NOISE.levels(3, f"own.choices.{grid}")


def test_levels_of_one_step_and_of_none():
    assert NOISE.levels(1) == [80.0]
    with pytest.raises(ValueError, match="num_steps must be at least 1, not 0"):
        NOISE.levels(0)


@pytest.mark.parametrize("num_blocks", [1, 2, 4])
def test_the_ends_of_the_noise_are_those_of_partition_and_chain(num_blocks):
    noise = EDM(p_mean=1.15, sigma_min=1.0, sigma_max=10.0)
    bounds = boundaries(num_blocks, "equi_probability", noise)
    assert bounds[0] == 10.0 and bounds[-1] == 1.0
    sigmas = noise.levels(5)
    assert sigmas[0] == 10.0 and sigmas[-1] == 1.0
    masses = -np.diff([truncated_cdf(sigma, 1, 10, p_mean=1.15) for sigma in sigmas])
    np.testing.assert_allclose(masses, 0.25, atol=1e-9)
    drawn = noise.sample(torch.rand(1000, dtype=torch.float64), bounds[1], bounds[0])
    assert bounds[1] <= drawn.min() and drawn.max() <= 10.0


def test_impossible_ends_are_refused():
    for low, high in ((0.1, 0.1), (1.0, 0.5), (0.0, 1.0)):
        with pytest.raises(ValueError, match=f"between 0 and sigma_max \\({high}\\), and is {low}"):
            EDM(sigma_min=low, sigma_max=high)
    with pytest.raises(ValueError, match=r"p_mean -1\.2 hardly a draw falls between sigma_min 1000 and sigma_max 2000"):
        EDM(sigma_min=1000, sigma_max=2000)
    assert EDM(p_mean=-10).quantile(0.5) > 0.002  # little mass, and digits enough


# Masking


def test_masking_keeps_what_its_schedule_says():
    masking = Masking()
    assert masking.keep(0.0) == pytest.approx(1 - 1e-4) and masking.keep(1.0) == pytest.approx(1e-4)
    tokens = torch.randint(27, (4, 50_000), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    z = masking.corrupt(tokens, t, torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)))
    kept = (z != MASK).float().mean(1)
    torch.testing.assert_close(kept, masking.keep(t), atol=0.01, rtol=0)
    assert torch.equal(z[z != MASK], tokens[z != MASK])


def test_masking_weight_is_the_slope_of_the_schedule_over_what_is_masked():
    masking = Masking()
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(masking.keep(t).sum(), t)
    torch.testing.assert_close(masking.weight(t), -slope / (1 - masking.keep(t)))


def test_masking_levels_are_spread_evenly_and_stay_in_their_interval():
    masking = Masking()
    u = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    levels = masking.sample(masking.spread(u), 1 / 3, 2 / 3).sort().values
    torch.testing.assert_close(levels.diff(), torch.full((9,), 1 / 30, dtype=torch.float64))
    assert levels[0] >= 1 / 3 and levels[-1] < 2 / 3


def test_noises_widen_in_their_own_measure():
    low, high = EDM().widen(0.1, 1.0, 0.1)
    assert low == pytest.approx(0.1 / 10**0.1) and high == pytest.approx(10**0.1)
    assert Masking().widen(1 / 3, 2 / 3, 0.1) == (pytest.approx(0.3), pytest.approx(0.7))
    assert Masking().widen(0.0, 0.5, 0.1) == (0.0, pytest.approx(0.55))


def test_a_masking_rate_is_cut_into_equal_drops_of_alpha():
    bounds = boundaries(4, "equi_probability", Masking())
    assert bounds == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    drops = [Masking().keep(low) - Masking().keep(high) for high, low in itertools.pairwise(bounds)]
    assert drops == pytest.approx([drops[0]] * 4)
    assert [owner(bounds, t) for t in (1.0, 0.76, 0.75, 0.5, 0.0)] == [0, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="log_uniform"):
        boundaries(4, "log_uniform", Masking())


# What all noises offer


@pytest.mark.parametrize("kind", NOISES)
def test_a_noise_offers_all_that_a_method_asks_for(kind):
    wanted = {name for name in vars(Noise) if not name.startswith("_")} | set(Noise.__annotations__)
    assert all(hasattr(NOISES[kind](), name) for name in wanted)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 50])
def test_levels_fall_from_the_highest(kind, num_steps):
    noise = NOISES[kind]()
    levels = noise.levels(num_steps)
    assert len(levels) == num_steps and levels[0] == noise.highest and levels[-1] >= noise.lowest
    assert all(high > low for high, low in itertools.pairwise(levels))


def test_options_go_to_the_noise_that_takes_them():
    assert EDM.of_options(0.3, 0.5, 0.1, 10.0) == EDM(p_mean=0.5, sigma_min=0.1, sigma_max=10.0)
    assert Masking.of_options(1.0, -1.2, 0.002, 80.0) == Masking()
    with pytest.raises(ValueError, match="target_norm must be above 0, and is 0"):
        EDM.of_options(0, 0.5, 0.1, 80.0)
    for options in ((0.5, -1.2, 0.002, 80), (1, 0.0, 0.002, 80), (1, -1.2, 0.1, 80), (1, -1.2, 0.002, 10)):
        with pytest.raises(ValueError, match="masking noise takes none of"):
            Masking.of_options(*options)

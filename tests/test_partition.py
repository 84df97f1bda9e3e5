"""The official partition's numbers, and the rule of which block acts at which level."""

import numpy as np
import pytest

from diffusionblocks.base.components import names
from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion import partition
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.diffusion.masking import Masking
from diffusionblocks.diffusion.partition import interval, mass, owner, split_layers

NOISE = EDM()

OFFICIAL = {
    1: [80, 0.002],
    2: [80, 0.3012, 0.002],
    3: [80, 0.505041, 0.179632, 0.002],
    4: [80, 0.67665, 0.30120, 0.13408, 0.002],
    6: [80, 0.96167, 0.50504, 0.30120, 0.17963, 0.09434, 0.002],
}


def boundaries(num_blocks, name="equi_probability", noise=NOISE):
    return partition.boundaries(num_blocks, name, noise)


@pytest.mark.parametrize("num_blocks", OFFICIAL)
def test_official_boundaries(num_blocks):
    found = boundaries(num_blocks)
    assert found == pytest.approx(OFFICIAL[num_blocks], rel=5e-5)
    assert found[0] == 80.0 and found[-1] == 0.002  # not the float beside it: sigma_max must have an owner


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("p_mean", [-1.2, 0.7])
def test_equal_mass_per_block(num_blocks, p_mean):
    noise = EDM(p_mean=p_mean)
    assert mass(boundaries(num_blocks, noise=noise), noise) == pytest.approx([1 / num_blocks] * num_blocks)


@pytest.mark.parametrize(
    ("strategy", "sigmas", "masses"),
    [
        ("uniform", [80, 53.334, 26.668, 0.002], None),
        ("log_uniform", [80, 2.339, 0.0684, 0.002], [0.044, 0.848, 0.108]),
    ],
)
def test_uniform_partitions(strategy, sigmas, masses):
    found = boundaries(3, strategy)
    assert found == pytest.approx(sigmas, rel=5e-4)
    assert masses is None or mass(found, NOISE) == pytest.approx(masses, abs=5e-4)


def test_unknown_partition_is_refused():
    with pytest.raises(UserError, match=r"partition 'karras': there is none .*equi_probability, log_uniform, uniform"):
        boundaries(3, "karras")


def test_a_user_s_own_partition_is_one_function():
    found = boundaries(4, "own.choices.quiet")
    assert found == [80, *(NOISE.quantile((1 - b / 4) ** 2) for b in (1, 2, 3)), 0.002]


@pytest.mark.parametrize("name", ["upside_down", "flat", "beyond"])
def test_levels_that_do_not_fall_from_end_to_end_are_refused(name):
    with pytest.raises(ValueError, match=rf"partition own.choices.{name}: .* do not fall from 80.0 .* to 0.002"):
        boundaries(4, f"own.choices.{name}")


@pytest.mark.parametrize("name", names("partition"))
@pytest.mark.parametrize("noise", [EDM(p_mean=0.5), Masking()], ids=["edm", "masking"])
def test_every_partition_rises_from_the_lowest_level_to_the_highest(name, noise):
    if (name, noise) == ("log_uniform", Masking()):
        with pytest.raises(ValueError, match="a masking rate goes down to 0"):
            boundaries(2, name, noise)
        return
    found = boundaries(5, name, noise)
    assert found == sorted(set(found), reverse=True) and (found[0], found[-1]) == (noise.highest, noise.lowest)


@pytest.mark.parametrize(
    ("num_blocks", "overlap", "expected"),
    [
        (3, 0.0, [(0.505, 80), (0.180, 0.505), (0.002, 0.180)]),
        (3, 0.05, [(0.392, 80), (0.171, 0.532), (0.002, 0.225)]),
        (3, 0.1, [(0.304, 80), (0.162, 0.560), (0.002, 0.282)]),
        (4, 0.1, [(0.420, 80), (0.278, 0.734), (0.124, 0.327), (0.002, 0.204)]),
    ],
)
def test_official_intervals(num_blocks, overlap, expected):
    sigmas = boundaries(num_blocks)
    found = [interval(sigmas, block, overlap, NOISE) for block in range(num_blocks)]
    np.testing.assert_allclose(found, expected, atol=6e-4)
    assert found[0][1] == 80.0 and found[-1][0] == 0.002  # clamped


def owners(num_blocks, num_steps, strategy="equi_probability"):
    sigmas = boundaries(num_blocks, strategy)
    return [owner(sigmas, sigma) for sigma in NOISE.levels(num_steps)]


def test_owners_known_answers():
    assert owners(3, 3) == [0, 1, 2]
    assert owners(3, 4) == [0, 1, 2, 2]
    assert owners(3, 6) == [0, 0, 1, 1, 2, 2]
    assert [owners(3, 50).count(block) for block in range(3)] == [17, 16, 17]


@pytest.mark.parametrize("num_blocks", range(1, 13))
def test_no_block_is_skipped(num_blocks):
    for num_steps in range(max(num_blocks, 2), 3 * num_blocks + 2):
        found = owners(num_blocks, num_steps)
        # Step i has quantile 1 - i / (n - 1); block b owns the quantiles in (1 - (b + 1) / B, 1 - b / B].
        assert found == [min(i * num_blocks // (num_steps - 1), num_blocks - 1) for i in range(num_steps)]
        assert set(found) == set(range(num_blocks)) and found == sorted(found)


@pytest.mark.parametrize("strategy", ["equi_probability", "uniform", "log_uniform"])
@pytest.mark.parametrize("num_blocks", [1, 3, 4, 6, 12])
def test_a_boundary_belongs_to_the_block_below_it(num_blocks, strategy):
    sigmas = boundaries(num_blocks, strategy)
    for block in range(num_blocks):
        assert owner(sigmas, sigmas[block]) == block
        assert owner(sigmas, float(np.float32(sigmas[block]))) == block  # rounded up or down
        assert owner(sigmas, sigmas[block + 1] * 1.001) == block
    assert owner(sigmas, sigmas[-1]) == owner(sigmas, float(np.float32(sigmas[-1]))) == num_blocks - 1
    assert owner(sigmas, sigmas[0] * (1 + 2e-7)) == 0 and owner(sigmas, sigmas[-1] * (1 - 2e-7)) == num_blocks - 1


@pytest.mark.parametrize("sigma", [80.1, 0.0019, 0.0, -1.0, float("nan"), float("inf")])
def test_a_level_outside_the_range_has_no_owner(sigma):
    with pytest.raises(ValueError, match=rf"sigma {sigma} lies outside \[0.002, 80.0\]"):
        owner(boundaries(3), sigma)


def test_split_layers():
    assert split_layers(12, 3) == [range(0, 4), range(4, 8), range(8, 12)]
    assert split_layers(12, 3, [3, 6, 3]) == [range(0, 3), range(3, 9), range(9, 12)]
    assert split_layers(13, 3, [6, 4, 3]) == [range(0, 6), range(6, 10), range(10, 13)]
    assert split_layers(12, 1) == [range(0, 12)]
    assert split_layers(2, 2) == [range(0, 1), range(1, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((13, 3, [4, 4, 4]), r"\[4, 4, 4\] adds up to 12, not 13"),
        ((12, 3, [4, 4, 5]), r"\[4, 4, 5\] adds up to 13, not 12"),
        ((4, 5), "num_blocks is 5, but 4 layers make between 1 and 4 blocks"),
        ((4, 0), "num_blocks is 0, but 4 layers"),
        ((4, -1), "num_blocks is -1, but 4 layers"),
        ((0, 1), "num_blocks is 1, but 0 layers"),
        ((12, 3, [6, 6, 0]), r"\[6, 6, 0\] has a block without layers"),
        ((12, 3, [7, 6, -1]), r"\[7, 6, -1\] has a block without layers"),
        ((12, 3, [6, 6]), r"\[6, 6\] names 2 blocks, not 3"),
        ((12, 3, []), r"\[\] names 0 blocks, not 3"),
        ((13, 3), "13 layers do not divide into 3 equal blocks"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_layers(*arguments)

"""The ancestral sampler: its levels, which tokens appear when and with what probability, and what it never changes."""

import itertools
import math

import pytest
import torch
from helpers import follow

from diffusionblocks.diffusion.chains import block_by_block
from diffusionblocks.diffusion.masking import MASK, Masking
from diffusionblocks.layers.vocabulary import Logits

CHANCES = torch.tensor([0.5, 0.0, 0.2, 0.3])
EPS = 1e-4  # of the schedule
masking_levels = Masking().levels


def logits(chances, shape):
    """Logits of the same chances (V,) everywhere; a token without chance gets none in double precision, too."""
    hidden = chances.log().clamp(min=-1000).expand(*shape, -1)
    return Logits(hidden, torch.eye(len(chances)))


def chain(draws, levels, owners=None):
    return Masking().chain(draws, levels, owners or [0] * len(levels), to_z=None, solver=None)


def run(draws, levels, chances=CHANCES, owners=None):
    """(tokens, all z that the network saw) under a network that always predicts the same."""
    seen = []

    def predict(z, t, block):
        seen.append(z)
        return logits(chances, z.shape)

    *_, last = follow(chain(draws, levels, owners), predict)
    return last.prediction, seen


def uniforms(n, steps, length, seed=0):
    return torch.rand(n, steps, length, generator=torch.Generator().manual_seed(seed))


# Levels


def test_levels():
    assert masking_levels(3) == pytest.approx([1.0, math.sqrt(3) / 2, 0.5])
    assert masking_levels(1) == [1.0]
    levels = masking_levels(1000)
    assert levels[0] == 1 and levels[-1] > 0 and all(high > low for high, low in itertools.pairwise(levels))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        masking_levels(0)


# Which tokens appear


def test_steps_by_hand():
    """From 1 to 1/2 a share of about 1/2 appears; of these, the draw within that share chooses the token."""
    share = (1 - 2 * EPS) / 2 / (1 - EPS)
    first = [0.1, 0.49, 0.51, 0.99]  # of the share: 0.2 is token 0 (below 0.5), 0.98 is token 3 (above 0.7)
    second = [0.0, 0.0, 0.6, 1 - 1e-6]  # of nearly 1: 0.6 is token 2; the last is not below 1 - 2e-4, and left over
    tokens, seen = run(torch.tensor([[first, second]]), [1.0, 0.5])
    assert share == pytest.approx(0.49995)
    assert seen[0].tolist() == [[MASK] * 4]
    assert seen[1].tolist() == [[0, 3, MASK, MASK]]
    assert tokens.tolist() == [[0, 3, 2, 0]]  # the one that is left takes the likeliest, token 0


@pytest.mark.parametrize("levels", [Masking().levels(8), [1 - step / 8 for step in range(8)]])
def test_masked_share_follows_alpha(levels):
    steps, n, length = 8, 200, 100
    tokens, seen = run(uniforms(n, steps, length), levels)
    keep = Masking(EPS).keep
    for t, z in zip(levels, seen, strict=True):
        expected = (1 - keep(t)) / (1 - EPS)
        spread = math.sqrt(expected * (1 - expected) / (n * length))
        assert (z == MASK).float().mean().item() == pytest.approx(expected, abs=4 * spread + 1e-6)
    assert tokens.min() >= 0


def test_a_token_stays_as_it_appeared():
    tokens, seen = run(uniforms(50, 6, 20), masking_levels(6))
    for before, after in itertools.pairwise([*seen, tokens]):
        visible = before != MASK
        assert torch.equal(before[visible], after[visible])
        assert (before == MASK).any() and (after != MASK).sum() > visible.sum()


def test_what_never_appears_takes_the_likeliest():
    draws = torch.full((2, 5, 7), 1.0 - 2**-24)
    tokens, seen = run(draws, masking_levels(5), torch.tensor([0.1, 0.2, 0.4, 0.3]))
    assert all((z == MASK).all() for z in seen) and (tokens == 2).all()


# Which token


def test_tokens_have_the_chances_of_the_softmax():
    """Equally spaced draws hit every token in proportion, to one draw."""
    count, share = 1000, 1 - EPS / (1 - EPS)  # the only step, from 1 to 0
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count * share
    tokens, _ = run(draws.view(1, 1, count), [1.0])
    found = torch.bincount(tokens[0], minlength=4)
    assert found.tolist() == pytest.approx((CHANCES * count).tolist(), abs=1)
    assert tokens[0].diff().min() >= 0  # in the order of the vocabulary


@pytest.mark.parametrize("chances", [[0.0, 0.6, 0.4, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
def test_a_token_without_chance_is_never_chosen(chances):
    share = 1 - EPS / (1 - EPS)
    draws = torch.tensor([0.0, 1e-12, 0.3, 0.7, share * (1 - 1e-15)], dtype=torch.float64)
    tokens, _ = run(draws.view(1, 1, -1), [1.0], torch.tensor(chances))
    assert all(chances[token] for token in tokens[0].tolist())


def test_a_rare_token_has_its_chance_in_a_short_step():
    """In the first of MD4's thousand steps; draws just below and above the edge between its two tokens."""
    (t, following), chances = masking_levels(1000)[:2], [1 - 1e-6, 1e-6]
    keep = Masking(EPS).keep
    share = (keep(following) - keep(t)) / (1 - keep(t))
    draws = share * torch.tensor([1 - 1.1e-6, 1 - 0.9e-6], dtype=torch.float64)
    tokens, seen = run(draws.expand(1, 2, 2), [t, following], torch.tensor(chances))
    assert share < 1e-4 and seen[1].tolist() == [[0, 1]] == tokens.tolist()


def test_chance_depends_on_the_position():
    """Each position reads its own logits, whichever appear with it."""
    length = 30
    wanted = torch.randperm(length, generator=torch.Generator().manual_seed(1))

    def predict(z, t, block):
        return Logits(100 * torch.eye(length)[wanted].expand(len(z), -1, -1), torch.eye(length))

    *_, last = follow(chain(uniforms(4, 9, length), masking_levels(9)), predict)
    assert torch.equal(last.prediction, wanted.expand(4, -1))


# With the drivers


def test_a_text_depends_on_its_own_draws_alone():
    draws = uniforms(6, 10, 15)
    together, _ = run(draws, masking_levels(10))
    for i in range(6):
        assert torch.equal(run(draws[i : i + 1], masking_levels(10))[0][0], together[i])
    assert len(together.unique(dim=0)) == 6


def test_every_level_asks_its_owner_once():
    levels, owners = masking_levels(6), [0, 0, 1, 1, 1, 2]
    chains = [chain(uniforms(2, 6, 5, seed), levels, owners) for seed in range(2)]
    steps = list(block_by_block(chains, lambda block: lambda index, z, t: logits(CHANCES, z.shape)))
    for index in range(2):
        own = [step for i, step in steps if i == index]
        assert [(step.sigma, step.block) for step in own] == list(zip(levels, owners, strict=True))
        assert torch.equal(own[-1].prediction, run(uniforms(2, 6, 5, index), levels)[0])

"""Known answers of chains of discrete targets: what a denoiser without a fault ends in, by its levels."""

import math

import pytest
import torch
from torch import nn

from diffusionblocks.layers.vocabulary import Logits, fixed_rows, nucleus
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method
from diffusionblocks.models import base

VOCABULARY, WIDTH, COUNT = 27, 64, 3000
CHANCES = torch.arange(1, VOCABULARY + 1, dtype=torch.float64) ** -1.25
CHANCES /= CHANCES.sum()  # Zipf's; two samples agree, and a sample is right, in 0.165 of all cases
OFFICIAL, CALIBRATED = {}, {"p_mean": 0.5, "sigma_min": 0.1}
MIDDLE = {"p_mean": 1.15, "sigma_min": 1.0, "sigma_max": 10.0}  # its ends leave a choice


class Perfect(base.Model):
    """Texts of one token with the chances CHANCES: the exact posterior, softmax(log p - |z - e|^2 / (2 sigma^2))."""

    def __init__(self, shape, noise=None, target_norm=1.0, *, num_layers=4):
        super().__init__()
        self.z_shape = (1, WIDTH)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(num_layers))
        self.table = fixed_rows(VOCABULARY, WIDTH).double()  # of length 1, which is then the same for all tokens

    def condition(self, batch):
        return None

    def predict(self, z, sigma, cond, layers):
        hidden = torch.cat([z / sigma[:, None, None] ** 2, torch.ones_like(z[..., :1])], dim=-1)
        return Logits(hidden, torch.cat([self.table, CHANCES.log()[:, None]], dim=1))

    def to_z(self, logits, hard=False):
        return logits.expected(self.table, hard)

    def begin(self, tokens, layers, length, eps):
        return Session(self)


class Session:
    def __init__(self, model):
        self.model = model

    def predict(self, z, sigma, step):
        logits = self.model.predict(z[:, None], z.new_full((len(z),), sigma), None, None)
        return logits._replace(hidden=logits.hidden[:, 0])

    def append(self, tokens):
        pass


def ends(num_steps, seed=0, num_blocks=4, **options):
    """The last prediction of COUNT chains."""
    method = Method(Network(Perfect, {}, num_layers=4), num_blocks=num_blocks, **options)
    eps = torch.randn(COUNT, 1, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return method.predict({}, eps, num_steps=num_steps)[-1].prediction


def right(end):
    """The chance that a sample of the ends is the true token."""
    return (end.full()[:, 0].softmax(-1).mean(0) * CHANCES).sum().item()


def entropy(num_steps, **options):
    """Of what chains put out, of order 2, as the metric has it."""
    agreement = ends(num_steps, **options).agreement(ends(num_steps, seed=1, **options))
    return -math.log(agreement.mean())


def test_a_chain_goes_from_one_end_of_the_noise_to_the_other():
    method = Method(Network(Perfect, {}, num_layers=4), num_blocks=2, overlap=0.1, **MIDDLE)
    assert method.boundaries[0] == method.intervals[0][1] == 10 and method.boundaries[-1] == method.intervals[1][0] == 1
    steps = method.predict({}, torch.randn(2, 1, WIDTH, dtype=torch.float64), num_steps=4)
    assert [step.block for step in steps] == [0, 0, 1, 1] and (steps[0].sigma, steps[-1].sigma) == (10, 1)


def test_two_levels_are_greedy_decoding():
    """The first step's mean embedding is all that the second, far below, has to look at: no noise is left in it."""
    end = ends(2)
    assert (end.argmax() == 0).all() and right(end) == pytest.approx(CHANCES[0].item(), abs=1e-6)
    assert entropy(2) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num_blocks", [1, 4])
@pytest.mark.parametrize(
    ("options", "num_steps", "expected"),
    [
        (OFFICIAL, 3, 0.186), (OFFICIAL, 4, 0.172), (OFFICIAL, 16, 0.165),
        (CALIBRATED, 2, 0.297), (CALIBRATED, 3, 0.231), (CALIBRATED, 4, 0.207), (CALIBRATED, 16, 0.168),
        (MIDDLE, 4, 0.164), (MIDDLE, 16, 0.164),
    ],
)  # fmt: skip
def test_few_and_loud_levels_sharpen_what_a_chain_samples(options, num_steps, expected, num_blocks):
    """A true sample is right in 0.165 of all cases: what is above is not learned, but sharpened."""
    if num_blocks <= num_steps:
        assert right(ends(num_steps, num_blocks=num_blocks, **options)) == pytest.approx(expected, abs=0.006)


def test_the_entropy_of_what_comes_out_rises_to_the_texts_own():
    whole = -math.log(CHANCES.square().sum())  # 1.80 nats
    found = [entropy(num_steps, num_blocks=2, **CALIBRATED) for num_steps in (2, 3, 4, 16)]
    assert found == pytest.approx([0.42, 1.08, 1.32, 1.77], abs=0.06)
    assert entropy(16) == pytest.approx(whole, abs=0.08) and entropy(16, **MIDDLE) == pytest.approx(whole, abs=0.02)


def test_no_chain_has_a_better_brier_score_than_a_true_sample():
    best = 1 - CHANCES.square().sum().item()
    for options in (OFFICIAL, CALIBRATED):
        scores = []
        for num_steps in (2, 4, 16):
            one, other = (ends(num_steps, seed=seed, num_blocks=2, **options) for seed in (0, 1))
            scores.append(one.agreement(other).mean().item() - right(one) - right(other) + 1)
        assert scores == sorted(scores, reverse=True) and scores[-1] == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize(("end", "expected"), [("sampled", 0.165), ("greedy", 0.25)])
def test_an_end_that_leaves_a_choice_is_to_be_sampled(end, expected):
    """Between 1 and 10 the likeliest token of the last prediction is far from a sample of the text."""
    method = Method(Network(Perfect, {}, num_layers=4), num_blocks=4, **MIDDLE)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(COUNT, 2, WIDTH, dtype=torch.float64, generator=generator)
    draws = torch.rand(COUNT, 2, generator=generator)
    written = method.extend(torch.zeros(COUNT, 1, dtype=torch.long), eps, draws, num_steps=16, end=end)[:, 1]
    found = CHANCES[written].mean().item()
    assert found == pytest.approx(expected, abs=0.006) if end == "sampled" else found > expected


def test_a_sampled_end_is_drawn_by_its_uniform():
    chances = torch.tensor([[0.2, 0.5, 0.3]] * 3)
    assert nucleus(chances, torch.tensor([0.4, 0.7, 0.9]), 1).tolist() == [1, 2, 0]  # the likeliest first

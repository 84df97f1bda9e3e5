"""Solvers on an equation with a known solution, guidance, which block runs where and how often, and that it works."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from diffusionblocks import sample
from diffusionblocks.methods import build
from diffusionblocks.noise import inference_sigmas, karras_sigmas
from diffusionblocks.sample import generate, noise
from diffusionblocks.sampling import SOLVERS, block_by_block, follow, guide
from diffusionblocks.trainer import Trainer

CPU = torch.device("cpu")
SHAPE = {"image_size": 8, "channels": 3, "num_classes": 10}
SIZES = {"num_layers": 6, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4}
BATCHES = [{"label": torch.tensor([3, 1, 4])}, {"label": torch.tensor([1, 5])}]
EPS = [torch.randn(len(batch["label"]), 3, 8, 8, generator=torch.Generator().manual_seed(5)) for batch in BATCHES]


def dit(num_layers=6, num_blocks=3, **method):
    """A method with noise on all weights, so that no zero of the initialisation hides anything."""
    torch.manual_seed(0)
    method = {"name": "diffusionblocks", "num_blocks": num_blocks, **method}
    found = build({"model": {"name": "dit", **SIZES, "num_layers": num_layers}, "method": method}, SHAPE, None).eval()
    with torch.no_grad():
        for value in found.parameters():
            value += 0.1 * torch.randn(value.shape)
    return found


@torch.no_grad()
def last(method, batches=BATCHES, eps=EPS, **options):
    """The samples of each batch."""
    return [dict(method.sample(batches, eps, CPU, **options))[i].prediction for i in range(len(batches))]


# Solvers


def error(solver, num_steps, spread=0.7):
    """(relative error at sigma_min, evaluations) for Gaussian data, whose ideal denoiser and solution are known."""
    sigmas, sizes = karras_sigmas(num_steps), []

    def predict(z, sigma, block):
        sizes.append(sigma)
        return spread**2 / (spread**2 + sigma**2) * z

    start = torch.tensor([1.0, -2.0], dtype=torch.float64) * sigmas[0]
    chain = SOLVERS[solver](start, sigmas, [0] * num_steps, lambda prediction, block: prediction)
    *_, answer = follow(chain, predict)
    total = spread**2 + sigmas[-1] ** 2
    exact = start * math.sqrt(total / (spread**2 + sigmas[0] ** 2)) * spread**2 / total
    return (answer.prediction / exact - 1).abs().max().item(), len(sizes)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_the_error(solver, order):
    errors = [error(solver, steps + 1)[0] for steps in (64, 128, 256)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert errors[-1] < {"euler": 0.02, "heun": 2e-4}[solver]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_number_of_evaluations(num_steps):
    assert error("euler", num_steps)[1] == num_steps
    assert error("heun", num_steps)[1] == 2 * num_steps - 1


def test_heun_step_by_hand():
    """Slope at both ends, averaged; the second is taken by the block that owns the lower level."""
    asked, answers = [], [torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([5.0])]

    def predict(z, sigma, block):
        asked.append((z.item(), sigma, block))
        return answers[len(asked) - 1]

    chain = SOLVERS["heun"](torch.tensor([9.0]), [4.0, 2.0], [0, 1], lambda prediction, block: prediction + block)
    steps = list(follow(chain, predict))
    # Slope (9 - 1) / 4 = 2, ahead 9 - 2 * 2 = 5; slope (5 - (3 + 1)) / 2 = 0.5; 9 - 2 * (2 + 0.5) / 2 = 6.5.
    assert asked == [(9.0, 4.0, 0), (5.0, 2.0, 1), (6.5, 2.0, 1)]
    assert [(step.sigma, step.block) for step in steps] == [(4.0, 0), (2.0, 1), (2.0, 1)]
    assert steps[-1].prediction is answers[2]


# Which block runs, and when


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_all_chains_pass_through_a_block_before_the_next(solver):
    owners = [0, 0, 1, 2, 2]
    chains = [
        SOLVERS[solver](torch.full((2,), 8.0 + i), [5.0, 4.0, 3.0, 2.0, 1.0], owners, lambda prediction, block: prediction)
        for i in range(3)
    ]  # fmt: skip
    called = []

    def predictor(block):
        called.append(block)
        return lambda index, z, sigma: z / (1 + sigma + block)

    found = list(block_by_block(chains, predictor))
    assert called == [0, 1, 2]
    blocks = [step.block for _, step in found]
    assert blocks == sorted(blocks)
    for i in range(3):
        alone = SOLVERS[solver](torch.full((2,), 8.0 + i), [5.0, 4.0, 3.0, 2.0, 1.0], owners, lambda p, block: p)
        expected = list(follow(alone, lambda z, sigma, block: z / (1 + sigma + block)))
        own = [step for index, step in found if index == i]
        assert [(step.sigma, step.block) for step in own] == [(step.sigma, step.block) for step in expected]
        for step, other in zip(own, expected, strict=True):
            assert torch.equal(step.prediction, other.prediction)


class Places:
    """Where a method's networks are, by what `.to` was told; nothing is moved. Every prediction notes who was where."""

    def __init__(self, method):
        self.where, self.moves, self.seen = dict.fromkeys(method.models, "cpu"), [], []
        for name, model in method.models.items():
            model.to = lambda device, name=name, model=model: self.move(name, model, str(device))
            model.predict = lambda *arguments, name=name, predict=model.predict, **keywords: self.note(
                name, predict(*arguments, **keywords)
            )

    def move(self, name, model, device):
        self.where[name] = device
        self.moves.append((name, device))
        assert list(self.where.values()).count("meta") <= 1  # at no time are two there
        return model

    def note(self, name, prediction):
        self.seen.append((name, [other for other, place in self.where.items() if place == "meta"]))
        return prediction


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"solver": "heun"}, {"grid": "karras"}])
def test_only_the_block_that_acts_is_on_the_device(options):
    method = dit()
    places = Places(method)
    with torch.no_grad():
        list(method.sample(BATCHES, EPS, torch.device("meta"), num_steps=9, **options))
    assert all(there == [name] for name, there in places.seen)
    names = ["block0", "block1", "block2"]
    assert [move for move in places.moves if move[1] == "meta"] == [(name, "meta") for name in names]  # each once
    assert list(dict.fromkeys(name for name, _ in places.seen)) == names
    assert {name: place for name, place in places.where.items() if place == "meta"} == {"block2": "meta"}


def test_joint_blocks_sample_with_their_own_layers():
    method, ran = dit(sharing="joint", layers_per_block=[1, 3, 2]), []
    places = Places(method)
    for i, layer in enumerate(method.models["all"].layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        steps = [(index, step.block) for index, step in method.sample(BATCHES, EPS, torch.device("meta"), num_steps=4)]
    assert steps == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 2), (1, 2), (1, 2)]
    assert ran == [0, 0, 1, 2, 3, 1, 2, 3, *[4, 5] * 4]
    assert ("all", "cpu") not in places.moves  # the network that stays in use is not carried to and fro


def test_a_single_block_samples():
    method = dit(num_blocks=1)
    (model,) = method.models.values()
    samples = last(method, num_steps=3)
    for batch, eps, found in zip(BATCHES, EPS, samples, strict=True):
        z, sigmas = 80 * eps.double(), inference_sigmas(3)
        for sigma, following in [*zip(sigmas, sigmas[1:], strict=False), (sigmas[-1], 0.0)]:
            cond = model.condition(batch)
            denoised = model.predict(z.float(), torch.full((len(z),), sigma), cond, model.layers).detach()
            z = z + (following - sigma) * (z - denoised) / sigma
        torch.testing.assert_close(found.double(), z)  # the last step, to 0, ends at the denoised image itself
        assert found.dtype == torch.float32


@pytest.mark.parametrize(("grid", "sigmas"), [("equi_probability", inference_sigmas), ("karras", karras_sigmas)])
def test_the_grid_is_the_one_asked_for(grid, sigmas):
    found = [step.sigma for index, step in dit().sample(BATCHES, EPS, CPU, num_steps=7, grid=grid) if index == 1]
    assert found == sigmas(7)


# Guidance


def test_guidance_on_all_channels():
    def predict(z, sigma, cond):
        return z + sigma.view(-1, 1, 1, 1) * cond.view(-1, 1, 1, 1) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)

    z, sigma = EPS[0], torch.full((3,), 2.0)
    found = guide(predict, z, sigma, torch.full((3,), 5.0), torch.full((3,), 1.0), 1.5)
    # sigma * (1 + 1.5 * (5 - 1)) = 14 for the first channel
    torch.testing.assert_close(found - z, 14 * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(3, 3, 8, 8))


def alone(method, labels, **options):
    """Samples of the model that is told these labels, by Euler steps of the test's own."""
    batches = [{"label": label} for label in labels]
    return last(method, batches=batches, guidance=1.0, **options)


@torch.no_grad()
def test_guidance_1_is_the_conditional_model_bit_for_bit():
    method, seen = dit(), []
    for model in method.models.values():
        model.predict = lambda z, *arguments, predict=model.predict, **keywords: (
            seen.append(len(z)) or predict(z, *arguments, **keywords)
        )
    found = last(method, num_steps=4, guidance=1.0)
    assert set(seen) == {2, 3}  # no second half for the null class
    for index, (batch, eps) in enumerate(zip(BATCHES, EPS, strict=True)):
        answer = method.predict(batch, eps.double(), num_steps=4)[-1].prediction if False else None
        del answer
        z = 80 * eps.double()
        sigmas, owners = method._levels(4)
        for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
            model = method.models[f"block{block}"]
            cond = model.labels(batch["label"])
            denoised = model.predict(z.float(), torch.full((len(z),), sigma), cond, model.layers)
            if i < 3:
                ratio = sigmas[i + 1] / sigma
                z = denoised + ratio * (z - denoised)
        assert torch.equal(found[index], denoised)

"""Solvers on an equation with a known solution, guidance, which block runs where and how often, and that it works."""

import itertools
import math

import pytest
import torch
from helpers import EightDigits, follow, shaken, watched

from diffusionblocks.base.components import load
from diffusionblocks.data.images.latents import to_uint8
from diffusionblocks.diffusion.chains import block_by_block, guide
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.evaluation.metrics.cost import layer_evaluations, relative_speed
from diffusionblocks.methods import build
from diffusionblocks.sampling import images as sample_images
from diffusionblocks.sampling.images import generate, noise
from diffusionblocks.training.trainer import Trainer

CPU = torch.device("cpu")
SHAPE = {"image_size": 8, "channels": 3, "num_classes": 10}
SIZES = {"num_layers": 6, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4}
BATCHES = [{"label": torch.tensor([3, 1, 4])}, {"label": torch.tensor([1, 5])}]
EPS = [torch.randn(len(batch["label"]), 3, 8, 8, generator=torch.Generator().manual_seed(5)) for batch in BATCHES]


def dit(num_layers=6, num_blocks=3, **method):
    """A method with noise on all weights, so that no zero of the initialisation hides anything."""
    torch.manual_seed(0)
    method = {"name": "diffusionblocks", "num_blocks": num_blocks, **method}
    run = {"model": {"name": "dit", **SIZES, "num_layers": num_layers}, "method": method}
    return shaken(build(run, SHAPE, None)).eval()


@torch.no_grad()
def last(method, batches=BATCHES, eps=EPS, **options):
    """The samples of each batch."""
    return [dict(method.sample(batches, eps, CPU, **options))[i].prediction for i in range(len(batches))]


# Solvers


def error(solver, num_steps, spread=0.7):
    """(relative error at sigma_min, evaluations) for Gaussian data, whose ideal denoiser and solution are known."""
    ends, sizes = [80 ** (1 / 7), 0.002 ** (1 / 7)], []
    sigmas = [(ends[0] + i / max(num_steps - 1, 1) * (ends[1] - ends[0])) ** 7 for i in range(num_steps)]  # smooth

    def predict(z, sigma, block):
        sizes.append(sigma)
        return spread**2 / (spread**2 + sigma**2) * z

    start = torch.tensor([1.0, -2.0], dtype=torch.float64) * sigmas[0]
    chain = load("solver", solver)(start, sigmas, [0] * num_steps, lambda prediction, block: prediction)
    *_, answer = follow(chain, predict)
    total = spread**2 + sigmas[-1] ** 2
    exact = start * math.sqrt(total / (spread**2 + sigmas[0] ** 2)) * spread**2 / total
    return (answer.prediction / exact - 1).abs().max().item(), len(sizes)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_the_error(solver, order):
    errors = [error(solver, steps + 1)[0] for steps in (64, 128, 256)]
    for coarse, fine in itertools.pairwise(errors):
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

    chain = load("solver", "heun")(
        torch.tensor([9.0]), [4.0, 2.0], [0, 1], lambda prediction, block: prediction + block
    )
    steps = list(follow(chain, predict))
    # Slope (9 - 1) / 4 = 2, ahead 9 - 2 * 2 = 5; slope (5 - (3 + 1)) / 2 = 0.5; 9 - 2 * (2 + 0.5) / 2 = 6.5.
    assert asked == [(9.0, 4.0, 0), (5.0, 2.0, 1), (6.5, 2.0, 1)]
    assert [(step.sigma, step.block) for step in steps] == [(4.0, 0), (2.0, 1), (2.0, 1)]
    assert steps[-1].prediction is answers[2]


# Which block runs, and when


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_all_chains_pass_through_a_block_before_the_next(solver):
    def chain(i):
        owners = [[0, 0, 1, 2, 2], [0, 1, 1, 1, 2], [0, 0, 0, 2, 2]][i]
        start, sigmas = torch.full((2,), 8.0 + i), [5.0, 4.0, 3.0, 2.0, 1.0]
        return load("solver", solver)(start, sigmas, owners, lambda prediction, block: prediction)

    called = []

    def predictor(block):
        called.append(block)
        return lambda index, z, sigma: z / (1 + sigma + block)

    found = list(block_by_block([chain(i) for i in range(3)], predictor))
    assert called == [0, 1, 2]
    blocks = [step.block for _, step in found]
    assert blocks == sorted(blocks)
    for i in range(3):
        expected = list(follow(chain(i), lambda z, sigma, block: z / (1 + sigma + block)))
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


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"solver": "heun"}])
def test_only_the_block_that_acts_is_on_the_device(options):
    method = dit()
    places = Places(method)
    with torch.no_grad():
        list(method.sample(BATCHES, EPS, torch.device("meta"), num_steps=24, **options))
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
        z, sigmas = 80 * eps.double(), EDM().levels(3)
        for sigma, following in [*itertools.pairwise(sigmas), (sigmas[-1], 0.0)]:
            cond = model.condition(batch)
            denoised = model.predict(z.float(), torch.full((len(z),), sigma), cond, model.layers).detach()
            z = z + (following - sigma) * (z - denoised) / sigma
        torch.testing.assert_close(found.double(), z)  # the last step, to 0, ends at the denoised image itself
        assert found.dtype == torch.float32


def test_levels_are_those_of_the_noise():
    found = [step.sigma for index, step in dit().sample(BATCHES, EPS, CPU, num_steps=7) if index == 1]
    assert found == EDM().levels(7)


@torch.no_grad()
def test_levels_are_those_of_the_grid_that_is_asked_for():
    """Wherever a chain runs; each level is its owner's."""
    method, (eps, _) = dit(), EPS
    sampled = [step for _, step in method.sample(BATCHES[:1], [eps], CPU, num_steps=9, grid="karras")]
    predicted = method.predict(BATCHES[0], eps, num_steps=9, grid="own.choices.halves")
    for steps, grid in ((sampled, "karras"), (predicted, "own.choices.halves")):
        assert [step.sigma for step in steps] == EDM().levels(9, grid) != EDM().levels(9)
        assert [step.block for step in steps] == [method.owner(step.sigma) for step in steps]


@torch.no_grad()
def test_a_user_s_own_solver_is_one_function():
    method, (eps, _) = dit(), EPS
    steps = list(method.sample(BATCHES[:1], [eps], CPU, num_steps=7, solver="own.choices.straight"))
    assert [(step.sigma, step.block) for _, step in steps] == [(80.0, 0), (0.002, 2)]
    first, last = method.models["block0"], method.models["block2"]
    label, ones = BATCHES[0], torch.ones(3)
    ahead = first.predict(80 * eps, 80 * ones, first.condition(label), first.layers)
    z = ahead + 0.002 / 80 * (80 * eps - ahead)
    answer = last.predict(z, 0.002 * ones, last.condition(label), last.layers)
    torch.testing.assert_close(steps[-1][1].prediction, answer, atol=1e-5, rtol=1e-4)


# Guidance


def test_guidance_on_all_channels():
    def predict(z, sigma, cond):
        return z + sigma.view(-1, 1, 1, 1) * cond.view(-1, 1, 1, 1) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)

    z, sigma = EPS[0], torch.full((3,), 2.0)
    found = guide(predict, z, sigma, torch.full((3,), 5.0), torch.full((3,), 1.0), 1.5)
    # sigma * (1 + 1.5 * (5 - 1)) = 14 for the first channel
    torch.testing.assert_close(found - z, 14 * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(3, 3, 8, 8))


@torch.no_grad()
def test_guidance_1_is_the_conditional_model_bit_for_bit():
    method = dit()
    calls = watched(method)
    steps = list(method.sample(BATCHES, EPS, CPU, num_steps=6))
    assert len(calls) == len(steps) == 12
    for (index, step), (name, z, sigma, cond, prediction) in zip(steps, calls, strict=True):
        model = method.models[name]
        assert step.prediction is prediction
        assert torch.equal(cond, model.labels.weight[BATCHES[index]["label"]])
        assert z.dtype == torch.float32 and sigma.tolist() == pytest.approx([step.sigma] * len(z))


@torch.no_grad()
@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_guidance_leads_away_from_the_null_class(guidance):
    method = dit()
    calls = watched(method)
    steps = list(method.sample(BATCHES, EPS, CPU, num_steps=6, guidance=guidance))
    recorded = list(calls)
    for (index, step), (name, z, sigma, _, _) in zip(steps, recorded, strict=True):
        model = method.models[name]
        z, sigma, labels = *(half.chunk(2)[0] for half in (z, sigma)), BATCHES[index]["label"]
        layers = model.layers
        conditional = model.predict(z, sigma, model.labels.weight[labels], layers)
        null = model.predict(z, sigma, model.labels.weight[10].expand(len(z), -1), layers)
        torch.testing.assert_close(step.prediction, null + guidance * (conditional - null), atol=1e-4, rtol=1e-4)
        for channel in range(3):
            assert not torch.allclose(conditional[:, channel], null[:, channel], atol=1e-3 * step.sigma**0.5)


# What it costs


@pytest.mark.parametrize(("num_blocks", "layers"), [(1, 600), (3, 200), (6, 100)])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_layer_evaluations_of_an_image(num_blocks, layers, guidance, monkeypatch):
    """12 layers times 50 steps for one block, a B-th of that for B blocks (appendix H); a guided pair counts once."""
    monkeypatch.setattr(sample_images, "BATCH", 4)
    options = {"num_steps": 50, "guidance": guidance}
    _, steps, cost = generate(dit(12, num_blocks), 0, range(10), SHAPE, CPU, options)
    assert cost == {"layers": layers, "networks": 50, "num_layers": 12}
    assert relative_speed(cost) == num_blocks and layer_evaluations(cost) == layers
    assert len(steps) == 50


def test_heun_costs_its_corrections():
    _, steps, cost = generate(dit(), 0, range(2), SHAPE, CPU, {"num_steps": 5, "solver": "heun"})
    assert cost == {"layers": 18, "networks": 9, "num_layers": 6}
    assert len(steps) == 9


def test_unequal_blocks_cost_what_their_layers_cost():
    _, steps, cost = generate(dit(6, 3, layers_per_block=[1, 2, 3]), 0, range(2), SHAPE, CPU, {"num_steps": 50})
    visits = [[step.block for step in steps].count(block) for block in range(3)]
    assert visits == [17, 16, 17] and cost["layers"] == 17 + 2 * 16 + 3 * 17


# Images depend on the seed and on their number alone


def images(batch, indices, monkeypatch, **options):
    monkeypatch.setattr(sample_images, "BATCH", batch)
    denoised = generate(dit(), 3, indices, SHAPE, CPU, {"num_steps": 12, "guidance": 2.0, **options})[0]
    return torch.cat(denoised)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_no_batch_size_and_no_share_of_the_work_changes_an_image(batch, monkeypatch):
    """But for the rounding of sums, whose order a matrix product may choose by its size: a few 1e-7 of a pixel."""
    whole = images(250, range(40), monkeypatch)
    shares = [images(batch, indices, monkeypatch) for indices in (range(13), range(13, 14), range(14, 40))]
    for other in (images(batch, range(40), monkeypatch), torch.cat(shares)):
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=0)
        off = (to_uint8(other).int() - to_uint8(whole).int()).abs()
        assert off.max() <= 1 and off.sum() <= 5  # of 7680 pixels: those that lay halfway between two grey levels


def test_noise_is_standard_normal_and_by_seed_and_number():
    eps = noise(0, range(200), (3, 8, 8))
    assert abs(eps.mean()) < 0.02 and abs(eps.std() - 1) < 0.02
    assert torch.equal(noise(0, [150, 7], (3, 8, 8)), eps[[150, 7]])
    others = noise(1, range(200), (3, 8, 8)), noise(0, range(50_000, 50_200), (3, 8, 8))  # a seed, a set
    assert len(torch.cat([eps, *others]).flatten(1).unique(dim=0)) == 600
    torch.manual_seed(5)
    assert torch.equal(noise(0, range(2), (3, 8, 8)), eps[:2])


def test_classes_take_turns_from_set_to_set(monkeypatch):
    seen, method = [], dit(num_blocks=1)
    (model,) = method.models.values()
    model.condition = lambda batch, condition=model.condition: seen.append(batch["label"]) or condition(batch)
    monkeypatch.setattr(sample_images, "BATCH", 8)
    generate(method, 0, range(5, 25), SHAPE, CPU, {"num_steps": 1})
    assert torch.cat(seen).tolist() == [number % 10 for number in range(5, 25)]


# It learns


@pytest.mark.slow
def test_blocks_that_never_met_reproduce_the_images_they_overfitted():
    data = EightDigits(copies=8, num_classes=8)
    model = {"name": "dit", "num_layers": 3, "width": 64, "num_heads": 4, "mlp_width": 256, "patch_size": 4}
    method = {"name": "diffusionblocks", "num_blocks": 3, "loss_weight": "per_sample"}
    train = {"batch_size": 64, "lr": 0.006, "steps": 300, "warmup_steps": 20, "weight_decay": 0.0, "ema": 0.99}
    run = {"model": {**model, "label_dropout": 0.0}, "method": method, "train": train, "seed": 0}
    trained = build(run, data.shape, None).eval()
    for block in range(3):
        trainer = Trainer(run, f"block{block}", data, CPU)
        for step in range(trainer.total):
            trainer.update(step)
        trained.load_state_dict(trainer.weights(), strict=False)
    found = torch.cat(generate(trained, 0, range(64), data.shape, CPU, {"num_steps": 24})[0])
    distances = torch.stack([(found - image).abs().flatten(1).mean(1) for image in data.images])  # of values in [-1, 1]
    assert distances.argmin(0).tolist() == [number % 8 for number in range(64)]
    assert distances.min(0).values.mean() < 0.1  # 0.03 to 0.05 over seeds; two digits are 0.4 and more apart

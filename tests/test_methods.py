"""The training methods: losses, the chain of blocks, what each part's process holds, and that it learns."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from helpers import EightDigits, shaken, watched
from torch import nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.methods import build
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method
from diffusionblocks.models import base
from diffusionblocks.models.vit import Model
from diffusionblocks.training.trainer import Trainer

SHAPE = {"image_size": 8, "channels": 1, "num_classes": 10}
SIZES = {"num_layers": 6, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4, "dropout": 0.0}
BATCH = {
    "image": torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    "label": torch.arange(64) % 10,
}


def run_of(model=None, **method):
    return {"model": {"name": "vit", **SIZES, **(model or {})}, "method": {"name": "diffusionblocks", **method}}


def vit_method(**method):
    torch.manual_seed(0)
    return shaken(build(run_of(**method), SHAPE, None), 0.3)


# Loss


@pytest.mark.parametrize("sharing", ["independent", "joint"])
@pytest.mark.parametrize("loss_weight", ["decoupled", "per_sample", "none"])
def test_loss_weights(loss_weight, sharing):
    method = vit_method(loss_weight=loss_weight, sharing=sharing)
    objective, losses, sigma = method.loss(BATCH, 1)
    assert objective.shape == () and losses.shape == sigma.shape == (64,)
    w = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    expected = {
        "decoupled": sum(w) / 64 * sum(losses) / 64,
        "per_sample": sum(w * losses) / 64,
        "none": sum(losses) / 64,
    }
    torch.testing.assert_close(objective, expected[loss_weight])
    values = [value.item() for value in expected.values()]
    assert all(abs(a / b - 1) > 1e-3 for a, b in itertools.combinations(values, 2))  # the three can be told apart


@pytest.mark.parametrize(
    ("overlap", "intervals"),
    [(0.0, [(0.505, 80), (0.1796, 0.5051), (0.002, 0.1797)]), (0.05, [(0.392, 80), (0.171, 0.532), (0.002, 0.225)])],
)
def test_levels_fill_the_widened_interval(overlap, intervals):
    class Free(base.Model):
        """A network that costs nothing, for many draws."""

        z_shape = (1,)

        def __init__(self, shape, noise, target_norm, *, num_layers):
            super().__init__()
            self.layers = nn.ModuleList(nn.Identity() for _ in range(num_layers))

        def condition(self, batch):
            return None

        def target(self, batch):
            return torch.zeros(20_000, 1)

        def predict(self, z, sigma, cond, layers):
            return z[:, 0] / sigma  # the noise, if z = 0 + sigma eps

        def loss(self, prediction, batch, z0):
            return prediction

    torch.manual_seed(0)
    method = Method(Network(Free, SHAPE, num_layers=3), overlap=overlap)
    for block, (low, high) in enumerate(intervals):
        _, eps, sigma = method.loss(None, block)
        assert low * 0.995 <= sigma.min() and sigma.max() <= high * 1.005
        if block < 2:
            assert sigma.min() < low * 1.01
        if block > 0:
            assert sigma.max() > high * 0.99
        assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03
        assert abs(torch.corrcoef(torch.stack([eps, sigma.log()]))[0, 1]) < 0.03


# The chain


@pytest.mark.parametrize("sharing", ["independent", "joint"])
@pytest.mark.parametrize(
    ("num_steps", "visits"), [(None, [0, 1, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 2]), (6, [0, 0, 1, 1, 2, 2])]
)
def test_each_level_runs_the_block_that_owns_it(num_steps, visits, sharing):
    method = vit_method(sharing=sharing, layers_per_block=[1, 3, 2])
    calls, evaluated = watched(method), []
    networks = list(method.models.values())
    layers = [layer for model in networks for layer in model.layers]
    for i, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, i=i: evaluated.append(i))
    steps = method.predict(BATCH, torch.randn(64, *method.z_shape), num_steps=num_steps)
    own = [[0], [1, 2, 3], [4, 5]]
    assert evaluated == [layer for block in visits for layer in own[block]]  # in order, and no layer of another block
    assert [call[0] for call in calls] == [f"block{b}" if sharing == "independent" else "all" for b in visits]
    assert [step.block for step in steps] == visits
    assert [step.sigma for step in steps] == EDM().levels(len(visits))
    for step, (name, _, sigma, cond, prediction) in zip(steps, calls, strict=True):
        assert step.prediction is prediction
        torch.testing.assert_close(cond, method.models[name].condition(BATCH))
        torch.testing.assert_close(sigma, torch.full((64,), step.sigma))


@pytest.mark.parametrize("sharing", ["independent", "joint"])
def test_the_chain_hands_over_the_noise_alone(sharing):
    method = vit_method(sharing=sharing, target_norm=0.7)
    calls, eps = watched(method), torch.randn(64, 24)
    steps = method.predict(BATCH, eps, num_steps=4)
    tables = [0.7 * F.normalize(method.models[name].labels.weight, dim=1) for name, *_ in calls]
    torch.testing.assert_close(calls[0][1], 80 * eps)
    for i in range(3):
        z, p, ratio = calls[i][1], calls[i][4].softmax(1), steps[i + 1].sigma / steps[i].sigma
        torch.testing.assert_close(calls[i + 1][1], p @ tables[i + 1] + ratio * (z - p @ tables[i]))
    assert torch.equal(tables[0], tables[1]) == (sharing == "joint")


@pytest.mark.parametrize("sharing", ["independent", "joint"])
def test_from_target_shows_each_block_the_level_it_was_trained_on(sharing):
    method = vit_method(sharing=sharing)
    calls, eps = watched(method), torch.randn(64, 24)
    steps = method.predict(BATCH, eps, num_steps=4, from_target=True)
    assert [step.block for step in steps] == [0, 1, 2, 2]
    for step, (name, z, _, _, prediction) in zip(steps, calls, strict=True):
        torch.testing.assert_close(z, method.models[name].target(BATCH) + step.sigma * eps)
        assert step.prediction is prediction


def test_end_to_end_predicts_in_one_step():
    run = {**run_of(), "method": {"name": "end_to_end"}}
    method = shaken(build(run, SHAPE, "all"), 0.3)
    (step,) = method.predict(BATCH)
    assert (step.sigma, step.block) == (None, None)
    torch.testing.assert_close(step.prediction, method.models["all"].end_to_end_prediction(BATCH))
    objective, losses, sigma = method.loss(BATCH, 0)
    torch.testing.assert_close(losses, F.cross_entropy(step.prediction, BATCH["label"], reduction="none"))
    assert objective.item() == pytest.approx(losses.mean().item()) and sigma is None


# What a part holds


def size(module):
    return sum(value.numel() for value in module.parameters())


def test_a_part_is_its_block_alone():
    run = run_of(layers_per_block=[1, 3, 2])
    whole, sizes = build(run, SHAPE, None), []
    assert whole.blocks == [0, 1, 2]
    for b, layers in enumerate([1, 3, 2]):
        part = build(run, SHAPE, f"block{b}")
        assert part.blocks == [b]
        assert all(name.startswith(f"models.block{b}.") for name, _ in part.named_parameters())
        assert part.state_dict().keys() == {k for k in whole.state_dict() if k.startswith(f"models.block{b}.")}
        assert len(part.models[f"block{b}"].layers) == layers
        assert part.intervals == whole.intervals  # of the whole partition, not of one block
        sizes.append(size(part))
    assert sum(sizes) == size(whole)
    one_layer = size(whole.models["block0"].layers)
    assert sizes[1] - sizes[0] == 2 * one_layer and sizes[2] - sizes[0] == one_layer


def test_joint_is_one_network():
    method = build(run_of(sharing="joint"), SHAPE, "all")
    assert size(method) == size(Model(SHAPE, method.noise, **SIZES)) and method.blocks == [0, 1, 2]


HOLDINGS = """
import gc, json, sys
import torch
from diffusionblocks.training.trainer import Trainer

class Data:
    shape, train_size, train_device = {"image_size": 8, "channels": 1, "num_classes": 10}, 16, torch.device("cpu")
    images, labels = torch.zeros(16, 1, 8, 8, dtype=torch.uint8), torch.arange(16) % 10
    def train_batch(self, indices, augmentations):
        return {"image": self.images[indices].float(), "label": self.labels[indices]}

trainer = Trainer(json.loads(sys.argv[1]), sys.argv[2], Data(), torch.device("cpu"))
visited = {trainer.update(step)[0] for step in range(12)}
gc.collect()
# Whatever a Python object or an autograd graph of this process still holds; the data are integers.
tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
tensors += [x.grad for x in tensors if x.is_leaf and x.grad is not None]
storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors if x.is_floating_point()}
print(json.dumps({"live": sum(storages.values()), "visited": sorted(visited), **trainer.memory()}))
"""


def holdings(sharing, part):
    """Bytes of the floating-point tensors that are alive in a training process after some updates."""
    train = {"batch_size": 8, "lr": 0.01, "steps": 12}
    run = {**run_of(sharing=sharing, layers_per_block=[1, 3, 2]), "train": train, "seed": 0}
    command = [sys.executable, "-c", HOLDINGS, json.dumps(run), part]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{sharing} {part}: {found}")
    whole = build(run, SHAPE, None)
    return found, whole


def test_a_block_s_process_holds_nothing_of_another_block():
    found, whole = holdings("independent", "block1")
    own = whole.models["block1"]
    parameters, counters = 4 * size(own), 4 * len(list(own.parameters()))
    assert found["live"] == 4 * parameters + counters  # weights, gradients, two moments, a step number per tensor
    assert found["parameter_bytes"] == found["gradient_bytes"] == parameters  # and the log says so
    assert found["optimizer_bytes"] == 2 * parameters + counters
    assert found["visited"] == [1]


def test_a_joint_process_holds_all_blocks():
    found, whole = holdings("joint", "all")
    parameters, counters = 4 * size(whole), 4 * len(list(whole.parameters()))
    assert found["visited"] == [0, 1, 2]
    assert found["parameter_bytes"] == parameters and found["optimizer_bytes"] == 2 * parameters + counters
    assert found["gradient_bytes"] < parameters  # of the active block and the shared modules
    assert found["live"] == 3 * parameters + counters + found["gradient_bytes"]


# Learning


@pytest.mark.slow
def test_every_block_overfits_one_batch_and_the_chain_predicts_it():
    data, device = EightDigits(), torch.device("cpu")
    run = run_of({"num_layers": 3, "width": 32, "patch_size": 2}, loss_weight="none")
    train = {"batch_size": 8, "lr": 0.004, "steps": 500, "warmup_steps": 10}
    method = build(run, SHAPE, None)
    batch = data.train_batch(torch.arange(8))
    for block in range(3):
        trainer = Trainer({**run, "train": train, "seed": 0}, f"block{block}", data, device)
        losses = [trainer.update(step)[1][0].item() for step in range(trainer.total)]
        assert losses[0] == pytest.approx(2.3026, abs=1e-3)  # ln 10: the head starts at zero
        assert sum(losses[-20:]) / 20 < 0.1
        method.load_state_dict(trainer.weights(), strict=False)
    # A few draws of the noise were never met in so short a training: 98.5 to 99.9 % over seeds.
    eps = torch.randn(100 * 8, 32, generator=torch.Generator().manual_seed(0))
    many = {name: torch.cat([value] * 100) for name, value in batch.items()}
    for num_steps in (3, 4):
        answer = method.predict(many, eps, num_steps=num_steps)[-1].prediction.argmax(1)
        assert (answer == many["label"]).float().mean() > 0.97

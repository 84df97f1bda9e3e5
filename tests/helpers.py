"""What several test files need: tiny data, shaken weights, every model with every method, a watched method."""

import inspect
import itertools

import pytest
import torch
from sklearn.datasets import load_digits

from diffusionblocks.base import model_file, tensors
from diffusionblocks.base.components import load, names
from diffusionblocks.diffusion.chains import block_by_block
from diffusionblocks.models import base
from diffusionblocks.plan.row import parts_of

TINY = {"image_size": 8, "channels": 1, "num_classes": 10}
SIZES = {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4}
OWN = "own.mixer"  # a user's own model, beside the tests


class Data:
    """16 random images, and texts, in the place of a prepared data set."""

    shape, train_size = {**TINY, "vocab_size": 11, "seq_len": 6}, 16

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(16, 1, 8, 8, generator=generator)
        self.labels = torch.randint(10, (16,), generator=generator)
        self.tokens = torch.randint(11, (16, 6), generator=generator)

    @property
    def train_labels(self):
        return self.labels

    @property
    def train_device(self):
        return self.labels.device

    def train_batch(self, indices, augmentations=()):
        images = self.images[indices]
        return {"image": images, "signed": images, "label": self.labels[indices], "tokens": self.tokens[indices]}


def write_model(path, weights, run):
    """A trained model of one part, which lies beside it."""
    part, digest = path.with_suffix(".part"), tensors.digest(weights)
    tensors.write(part, weights, {"digest": digest})
    model_file.write(path, run, digest, {part: digest})


class Digits:
    """`count` scanned digits, those below `classes` alone."""

    train_device = torch.device("cpu")

    def __init__(self, count, classes=10):
        self.shape, self.train_size = TINY, count
        digits = load_digits()
        chosen = (digits.target < classes).nonzero()[0][:count]
        self.images = torch.tensor(digits.images[chosen][:, None] / 8 - 1, dtype=torch.float32)
        self.train_labels = torch.tensor(digits.target[chosen])

    def train_batch(self, indices, augmentations=()):
        return {"image": self.images[indices], "label": self.train_labels[indices]}


class EightDigits:
    """One image each of the digits 0 to 7, `copies` times over for larger batches."""

    train_device = torch.device("cpu")

    def __init__(self, copies=1, num_classes=10):
        self.shape, self.train_size = {**TINY, "num_classes": num_classes}, 8 * copies
        digits = load_digits()
        chosen = [list(digits.target).index(label) for label in range(8)]
        self.images = torch.tensor(digits.images[chosen][:, None] / 8 - 1, dtype=torch.float32)

    def train_batch(self, indices, augmentations=()):
        images = self.images[indices % 8]
        return {"image": images, "signed": images, "label": indices % 8}


def shaken(module, scale=0.1):
    """The module with noise on all weights, so that no zero of the initialisation hides anything."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.parameters():
            value += scale * torch.randn(value.shape, generator=generator)
    return module


def known(constructor, options):
    """Those of the options that a constructor has."""
    return {name: value for name, value in options.items() if name in inspect.signature(constructor).parameters}


def runs():
    """Every model, a user's own too, with every method whose needs it meets: (run, part)."""
    for model, method in itertools.product([*names("model"), OWN], names("method")):
        network, constructor = load("model", model), load("method", method)
        if all(getattr(network, need) is not getattr(base.Model, need) for need in constructor.needs):
            for sharing in ("independent", "joint"):
                options = known(constructor, {"num_blocks": 3, "layers_per_block": [1, 1, 1], "sharing": sharing})
                run = {
                    "table": "t",
                    "row": "r",
                    "model": {"name": model, **known(network, SIZES)},
                    "method": {"name": method, **options},
                }
                for part in parts_of(run["method"]):
                    yield pytest.param(run, part, id=f"{model}-{method}-{options.get('sharing', '')}-{part}")
                if "sharing" not in options:
                    break


def first_parts():
    """The same, but one part of each."""
    seen = set()
    for param in runs():
        run, _ = param.values
        key = (run["model"]["name"], run["method"]["name"], run["method"].get("sharing"))
        if key not in seen:
            seen.add(key)
            yield param


def watched(method):
    """A list that fills with (name of the network, z, level, cond, prediction) of every network evaluation."""
    calls = []
    for name, model in method.models.items():

        def predict(z, level, cond, layers, name=name, original=model.predict):
            calls.append((name, z, level, cond, original(z, level, cond, layers)))
            return calls[-1][-1]

        model.predict = predict
    return calls


def follow(chain, predict):
    """The Steps of one chain. predict(z, level, block) is a network evaluation."""
    found = block_by_block([chain], lambda block: lambda index, z, level: predict(z, level, block))
    return [step for _, step in found]

"""Components of a user's own, each right as it stands; tests edit them into wrong ones."""

from pathlib import Path

import pytest

from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation.trial import trial

MODEL = (Path(__file__).parent / "own/mixer.py").read_text()
METHOD = '''
import torch
from diffusionblocks.methods import end_to_end


class Method(end_to_end.Method):
    """Ordinary training, under another name."""

    def loss(self, batch, block):
        losses = self.models["all"].end_to_end_loss(batch)
        return losses.mean(), losses.detach(), None
'''
METRIC = '''
import numpy as np
import torch
from diffusionblocks.evaluation.metric import metric


@metric(unit="%", better="higher")
def mine(logits, labels):
    """Share of the samples in percent that are right."""
    return float(100 * np.mean(logits.argmax(1) == labels))
'''
DATA = '''
import numpy as np
from diffusionblocks.data.images.source import ImageSet


def mine(data_dir) -> ImageSet:
    """Ten black images, and a lighter one of each class for the test."""
    images, labels = np.zeros((10, 1, 8, 8), np.uint8), np.arange(10)
    train, test = {"train_images": images, "train_labels": labels}, {"test_images": images + 1, "test_labels": labels}
    return {"title": "mine", **train, **test}
'''
TEXTS = '''
from diffusionblocks.data.text.source import TextSet
from diffusionblocks.data.text.tokens import Characters


class Few(Characters):
    """Characters."""


def mine(data_dir) -> TextSet:
    """Two texts."""
    documents = [("train", "a text of letters "), ("test", "another ")]
    return {"title": "mine", "tokenizer": Few(), "seq_len": 8, "test_size": 0, "documents": documents}
'''
EXTRACTOR = '''
import torch
from diffusionblocks.scorers.extractors import Extractor


def mine() -> Extractor:
    """The mean of four quarters of an image."""

    def obtain(images, data_dir):
        return {"scale": torch.ones(1)}, {}

    def build(weights):
        return lambda images: weights["scale"] * images.flatten(1).float().unflatten(1, (4, -1)).mean(2)

    return Extractor("mine", obtain, build)
'''
TEACHER = '''
import numpy as np
from diffusionblocks.scorers.teachers import Teacher


class Scorer:
    def nll(self, texts, tokens, prompt_len, prompts):
        return np.ones(len(tokens)) * letters(texts), np.full(len(tokens), tokens.shape[1] - prompt_len)


def letters(texts):
    return np.array([len(set(text)) for text in texts])


def mine() -> Teacher:
    """A nat for each letter that a text has."""
    return Teacher("mine", lambda text, data_dir: ({}, {}), lambda weights, about: Scorer(), gives=("nll",))
'''
SOLVER = '''
def mine(z, sigmas, owners, to_z):
    """Euler's steps."""
    for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = yield z, sigma, block
        if i + 1 < len(sigmas):
            z = z + (sigmas[i + 1] - sigma) * (z - to_z(prediction, block)) / sigma
'''
PARTITION = '''
def mine(noise, q):
    """Equal steps of the square root of the level."""
    return (noise.lowest**0.5 + q * (noise.highest**0.5 - noise.lowest**0.5)) ** 2
'''
GRID = '''
def mine(noise, num_steps):
    """Equal steps of the level."""
    return [noise.highest + i / (num_steps - 1) * (noise.lowest - noise.highest) for i in range(num_steps)]
'''
TEXT = '''
import torch
from diffusionblocks.models import autoregressive


class Model(autoregressive.Model):
    """A language model."""

    def {member}(self, {arguments}):
        {code}
'''
BLOCKS = '''
from diffusionblocks.methods import diffusionblocks


class Method(diffusionblocks.Method):
    """Blocks."""

    needs = ({needs},)

    def {member}(self, {arguments}):
        {code}
'''


def edited(source, *edits):
    for before, after in edits:
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return source


def refusal(name, *arguments):
    with pytest.raises(UserError) as refused:
        trial(name, *arguments)
    message = str(refused.value)
    assert "\n" not in message.strip()
    return message

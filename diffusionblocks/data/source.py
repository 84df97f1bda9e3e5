"""Data sources by name: what a run's `data` section names is called, and what it returned is looked over."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffusionblocks.base.components import load, locate
from diffusionblocks.base.files import UserError
from diffusionblocks.base.sections import keywords_of
from diffusionblocks.base.source import returned_set

WINDOWS = ("tiled", "any")  # of a TextSet


def call_source(section: dict, data_dir: str | Path) -> tuple[str, dict]:
    """("ImageSet", "LatentSet" or "TextSet", the set) of a `data` section.

    Raises UserError, naming the source's file, when its annotation is none of these or what came does not fit it.
    """
    name = section["name"]
    source = load("data", name)
    kind, found = returned_set(section), source(data_dir, **keywords_of(section))
    if wrong := next(_problems(kind, found), None):
        raise UserError(
            f"{locate('data', name).file}: data source {name}: {wrong} (docs/extending.md has what a source returns)"
        )
    return kind, found


def _problems(kind: str, found: dict) -> Iterator[str]:
    keys, check = CHECKS[kind]
    if not isinstance(found, dict) or found.keys() - OPTIONAL.get(kind, ()) != keys:
        there = ", ".join(found) if isinstance(found, dict) else type(found).__name__
        yield f"returned {there or 'nothing'} instead of a dict of {', '.join(sorted(keys))}"
    else:
        if not isinstance(found["title"], str) or not found["title"]:
            yield "`title` should be a text that says what the data are"
        yield from check(found)


def _image_problems(found):
    for split in ("train", "test"):
        images, labels = found[f"{split}_images"], found[f"{split}_labels"]
        if _form(images) != ("uint8", 4) or not images.size or images.shape[2] != images.shape[3]:
            yield f"`{split}_images` should be uint8 (N, C, S, S), and is {_described(images)}"
        elif _form(labels) != ("int64", 1) or len(labels) != len(images):
            yield f"`{split}_labels` should be int64 ({len(images)},), as many as images, and is {_described(labels)}"
    train, test = found["train_labels"], found["test_labels"]
    if found["train_images"].shape[1:] != found["test_images"].shape[1:]:
        yield f"images of {found['train_images'].shape[1:]} and test images of {found['test_images'].shape[1:]}"
    elif min(train.min(), test.min()) < 0 or test.max() > train.max():
        yield (
            f"labels should lie between 0 and the number of classes less 1, and are {train.min()} to {train.max()} in "
            f"training, {test.min()} to {test.max()} in the test set"
        )
    elif len(empty := np.flatnonzero(np.bincount(train) == 0)):
        yield f"no training image has the label {empty[0]}: labels count from 0, and each has images"
    elif _hashes(found["test_images"]) <= _hashes(found["train_images"]):
        yield "every test image is among the training images: the test set should have others"


def _latent_problems(found):
    for split in ("train", "test"):
        if not all(hasattr(found[split], field) for field in ("root", "classes", "files", "labels")):
            yield f"`{split}` should be a Listing of image files, and is {_described(found[split])}"
        elif not len(found[split].files) or len(found[split].files) != len(found[split].labels):
            yield (
                f"`{split}` should have image files and as many labels, and has {len(found[split].files)} and "
                f"{len(found[split].labels)}"
            )
    for key in ("shards", "image_size"):
        if type(found[key]) is not int or found[key] < 1:
            yield f"`{key}` should be a whole number from 1, and is {found[key]!r}"
    if found["shards"] > len(found["train"].files):
        yield f"shards {found['shards']}: more than its {len(found['train'].files)} training images"


def _text_problems(found):
    for member in ("encode", "vocab_size", "start", "content", "about"):
        if not hasattr(found["tokenizer"], member):
            yield f"`tokenizer` lacks `{member}`"
    for key, least in (("seq_len", 2), ("test_size", 0)):
        if type(found[key]) is not int or found[key] < least:
            yield f"`{key}` should be a whole number of at least {least}, and is {found[key]!r}"
    if (windows := found.get("windows", "tiled")) not in WINDOWS:
        yield f"`windows` should be one of {', '.join(WINDOWS)}, and is {windows!r}"
    elif windows == "any" and found["tokenizer"].start:
        yield (
            f"`windows` is any, which cuts running text anywhere, and with tokenizer "
            f"{found['tokenizer'].about['title']!r} each sequence begins with a token of its own: say tiled"
        )


def _hashes(images):
    return {hash(image.tobytes()) for image in images}


def _form(value):
    return (str(value.dtype), value.ndim) if isinstance(value, np.ndarray) else None


def _described(value):
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


# What each kind of set has (the classes of data/images/source.py and data/text/source.py), and what is looked over.
CHECKS = {
    "ImageSet": ({"title", "train_images", "train_labels", "test_images", "test_labels"}, _image_problems),
    "LatentSet": ({"title", "folder", "train", "test", "shards", "image_size"}, _latent_problems),
    "TextSet": ({"title", "tokenizer", "seq_len", "test_size", "documents"}, _text_problems),
}
OPTIONAL = {"TextSet": {"windows"}}

"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from their binary archives (the others are pickles)."""

from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.data.archive import tar_members
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.images.source import ImageSet, image_set
from diffusionblocks.data.sizes import sizes

# Members of the archives; the last one is the test set.
CIFAR10 = [f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
CIFAR100 = ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"]


@sizes(train_size=50_000, image_size=32, channels=3, num_classes=10)
def cifar10(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """60,000 images of 3 x 32 x 32 in 10 classes."""
    return image_set("CIFAR-10", split, *_arrays(fetch(ARCHIVES["cifar10"], data_dir), CIFAR10, num_labels=1))


@sizes(train_size=50_000, image_size=32, channels=3, num_classes=100)
def cifar100(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """60,000 images of 3 x 32 x 32 in 100 classes."""
    return image_set("CIFAR-100", split, *_arrays(fetch(ARCHIVES["cifar100"], data_dir), CIFAR100, num_labels=2))


def _arrays(path, members, num_labels):
    """Train images, their labels, test images and their labels; the last of a record's labels is the finest."""
    found = {name: file.read() for name, file in tar_members(path, members)}
    size = num_labels + 3072  # labels, then the planes R, G and B
    *train, test = (np.frombuffer(found[name], np.uint8).reshape(-1, size) for name in members)
    arrays = []
    for records in (np.concatenate(train), test):
        arrays += [records[:, num_labels:].reshape(-1, 3, 32, 32), records[:, num_labels - 1]]
    return arrays

"""Tiny ImageNet (Stanford's CS231n), from its zip archive, which is read in place.

The archive's own test images have no labels, so its 10,000 validation images are the test set.
"""

import io
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.images.source import ImageSet, image_set
from diffusionblocks.data.sizes import sizes

ROOT = "tiny-imagenet-200"
TRAIN, VALIDATION = 500, 10_000  # images: for training of each class, for validation in all


@sizes(train_size=100_000, image_size=64, channels=3, num_classes=200)
def tiny_imagenet(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """110,000 images of 3 x 64 x 64 in 200 classes. A label is the place of its class in the sorted names."""
    with zipfile.ZipFile(fetch(ARCHIVES["tiny_imagenet"], data_dir)) as archive:
        labels = {name: label for label, name in enumerate(sorted(_lines(archive, "wnids.txt")))}
        train = [
            (f"{ROOT}/train/{name}/images/{name}_{number}.JPEG", label)
            for name, label in labels.items()
            for number in range(TRAIN)
        ]
        # Lines of file, class and the corners of a box, tab by tab.
        class_of = dict(line.split("\t")[:2] for line in _lines(archive, "val/val_annotations.txt"))
        files = [f"val_{number}.JPEG" for number in range(VALIDATION)]
        test = [(f"{ROOT}/val/images/{file}", labels[class_of[file]]) for file in files]
        return image_set("Tiny ImageNet", split, *_images(archive, train), *_images(archive, test))


def _lines(archive, member):
    return archive.read(f"{ROOT}/{member}").decode("ascii").splitlines()


def _images(archive, files):
    """Images (N, 3, 64, 64) and labels (N,) of (member, label)."""
    from PIL import Image

    images = np.empty((len(files), 3, 64, 64), np.uint8)  # 1.2 GB for training: one array, filled image by image
    for image, (member, _) in zip(images, files, strict=True):
        with Image.open(io.BytesIO(archive.read(member))) as file:
            image[:] = np.asarray(file.convert("RGB")).transpose(2, 0, 1)  # some are gray
    return images, np.array([label for _, label in files], np.int64)

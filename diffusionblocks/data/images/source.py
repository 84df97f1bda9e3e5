"""What a source of images returns. Its return annotation, `-> ImageSet` or `-> LatentSet`, tells planning which.

A set that stands in for another carries its own title, and the title reaches every page.
"""

from typing import TypedDict

import numpy as np

from diffusionblocks.data.images.folder import Listing


class ImageSet(TypedDict):
    """Square images, uint8 (N, C, S, S), and their labels, int64 (N,), from 0 to the number of classes less 1."""

    title: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class LatentSet(TypedDict):
    """Image files that become latents, in as many jobs (`encode`) as `shards`, which `prepare` joins.

    folder: in data_dir, with the folders train and val that `train` and `test` list. image_size: side of the square
    that is cut out. Test images are not encoded: they are only looked at as pixels. The source has a keyword `shards`.
    """

    title: str
    folder: str
    train: Listing
    test: Listing
    shards: int
    image_size: int


def image_set(
    title: str,
    split: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
) -> ImageSet:
    """The set as it is, or for `split` "validation" with the last fifth of its shuffled training images as test set.

    That is for choosing settings without looking at the test images.
    """
    if split == "validation":
        order = np.random.default_rng(0).permutation(len(train_images))
        train, held_out = np.split(order, [len(order) - len(order) // 5])
        test_images, test_labels = train_images[held_out], train_labels[held_out]
        train_images, train_labels = train_images[train], train_labels[train]
        title += " (validation split)"
    return {
        "title": title,
        "train_images": np.ascontiguousarray(train_images),
        "train_labels": train_labels.astype(np.int64),
        "test_images": np.ascontiguousarray(test_images),
        "test_labels": test_labels.astype(np.int64),
    }

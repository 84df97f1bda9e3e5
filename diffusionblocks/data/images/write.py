"""Image sets -> prepared files: pixels as they are, or latents joined from their shards. No torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.folder import fingerprint
from diffusionblocks.data.images.source import ImageSet, LatentSet

BATCH = 1000  # images whose pixels are counted at a time


def write(path: str | Path, found: ImageSet | LatentSet, shards: Sequence[str | Path] = ()) -> None:
    """Write a set; shards: of latents, their files in order. Raises UserError for shards that do not make it whole."""
    arrays, about = _join(found, shards) if "shards" in found else _pixels(found)
    about |= {
        "title": found["title"],
        "train_size": len(arrays["train_labels"]),
        "test_size": len(arrays["test_labels"]),
    }
    tensors.write(path, arrays, about, framework="np")


def _pixels(found):
    arrays = {key: value for key, value in found.items() if key != "title"}
    train = arrays["train_images"]
    mean, std = moments(train)
    about = {
        "shape": {
            "image_size": train.shape[-1],
            "channels": train.shape[1],
            "num_classes": int(arrays["train_labels"].max()) + 1,
        },
        "mean": mean.round(4).tolist(),
        "std": std.round(4).tolist(),
    }
    return arrays, about


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of each channel of uint8 images (N, C, H, W), as parts of 255.

    From how often each value occurs: exact, and without Tiny ImageNet's 1.2 GB as floats. bincount makes eight bytes of
    each that it is given, so it gets few images at a time.
    """
    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        for channel, count in enumerate(counts):
            count += np.bincount(batch[:, channel].ravel(), minlength=256)
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    return mean, np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))


def _join(found, shards):
    """The training images' latents from their shards. They are as scaled as they should be: mean 0, deviation 1."""
    train, images, latents, done = found["train"], None, None, 0
    for path in shards:
        part, about = tensors.read(path, "Delete it and run encode again.", framework="np")
        if images is None:  # ImageNet's take 10 GB: one array, filled shard by shard
            images, latents = np.empty((len(train.files), *part["latents"].shape[1:]), np.float16), about["latents"]
        if about["files"] != fingerprint(train.files) or about["latents"] != latents:
            raise UserError(
                f"{path}: encoded from another state of {train.root}, or otherwise than {shards[0]}. Delete all shards "
                "beside it and run encode again."
            )
        if about["start"] != done:
            raise UserError(f"{path}: starts with image {about['start']}, and {done} is next. {_wanted(found)}")
        images[done : done + len(part["latents"])] = part["latents"]
        done += len(part["latents"])
    if done != len(train.files):
        raise UserError(f"{train.root}: {done} of {len(train.files)} images are in the shards given. {_wanted(found)}")
    channels, size = images.shape[1:3]
    about = {
        "shape": {"image_size": size, "channels": channels, "num_classes": len(train.classes)},
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
        "latents": latents,
    }
    return {"train_images": images, "train_labels": train.labels, "test_labels": found["test"].labels}, about


def _wanted(found):
    return f"Run encode for shards 0 to {found['shards'] - 1} and give all of them, in this order, after --shards."

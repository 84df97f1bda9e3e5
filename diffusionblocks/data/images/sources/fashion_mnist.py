"""Fashion-MNIST (Xiao et al. 2017): whole, from Debian's package, and a small part that comes with this package."""

from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.data.images.idx import idx_set
from diffusionblocks.data.images.source import ImageSet, image_set
from diffusionblocks.data.sizes import sizes

WHOLE = {"train": 60_000, "t10k": 10_000}  # images by the name that their files begin with
PART = {"train": 5_000, "t10k": 1_000}


@sizes(train_size=60_000, image_size=32, channels=1, num_classes=10, bring="Fashion-MNIST, 31 MB: docs/cluster.md")
def fashion_mnist(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """70,000 images of 28 x 28 in 10 classes, padded to 32 x 32."""
    folders = [Path(data_dir), Path("/usr/share/datasets/fashion-mnist")]  # the second is Debian's package
    cure = (
        "Install Debian's package (apt install dataset-fashion-mnist), or put Fashion-MNIST's four .gz files into "
        f"{data_dir} (data_dir in config.yaml; links will do)."
    )
    train, train_labels, test, test_labels = idx_set(folders, WHOLE, 28, cure)
    train, test = (np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))) for images in (train, test))
    return image_set("Fashion-MNIST", split, train, train_labels, test, test_labels)


@sizes(train_size=5_000, image_size=16, channels=1, num_classes=10)
def fashion_mnist_16(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """6,000 images at 16 x 16, as many of each class, which come with this package.

    The first 500 of each class in the training set and 100 in the test set, padded to 32 x 32 and halved by the mean of
    2 x 2 pixels (a half is rounded up).
    """
    folder = PACKAGE / "data/embedded/fashion_mnist_16"
    arrays = idx_set([folder], PART, 16, "Install this package again.")
    return image_set("Fashion-MNIST 16x16 (6,000 images)", split, *arrays)

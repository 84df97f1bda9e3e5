"""scikit-learn's digits, which come with that package."""

from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.data.images.source import ImageSet, image_set
from diffusionblocks.data.sizes import sizes


@sizes(train_size=1437, image_size=8, channels=1, num_classes=10)
def digits(data_dir: str | Path, *, split: Literal["test", "validation"] = "test") -> ImageSet:
    """1,797 images of 8 x 8 in 10 classes; 360, stratified and fixed, are the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)  # 17 grey levels, 0 to 16
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    return image_set("scikit-learn digits", split, train, train_labels, test, test_labels)

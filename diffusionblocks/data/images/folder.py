"""Folders of images, a folder for each class: what is in them, and their images cropped as ADM and DiT crop them."""

import hashlib
import os
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusionblocks.base.files import UserError, unreadable

SUFFIXES = (".jpeg", ".jpg", ".png")

Listing = namedtuple("Listing", "root classes files labels")
Listing.__doc__ = "Image files below `root` (texts, sorted by class and name), int64 labels (N,), names of the classes."


def listing(root: str | Path) -> Listing:
    """Listing of the images `root`/<class>/<image>. Raises UserError when there are none."""
    root = Path(root)
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        raise UserError(
            f"{root}: no such folder. Put the images there, as {root}/<class>/<image>.JPEG (a link will do), or set "
            "data_dir in config.yaml to the folder that has it."
        ) from None
    if not classes:
        raise UserError(f"{root}: has no class folders. Images belong into {root}/<class>/<image>.JPEG.")
    files, labels = [], []
    for label, name in enumerate(classes):
        images = sorted(entry for entry in os.listdir(root / name) if entry.lower().endswith(SUFFIXES))
        if not images:
            raise UserError(
                f"{root / name}: has no image ({', '.join(SUFFIXES)}). Fill this class folder or remove it."
            )
        files += [f"{name}/{image}" for image in images]
        labels += [label] * len(images)
    return Listing(root, classes, files, np.array(labels, np.int64))


def same_classes(train: Listing, test: Listing) -> None:
    """Raises UserError unless both listings have the same class folders, hence the same labels."""
    for one, other in ((train, test), (test, train)):
        if absent := sorted(set(one.classes) - set(other.classes)):
            raise UserError(
                f"{other.root / absent[0]}: no such class folder, but {one.root} has it ({len(absent)} in all)."
            )


def fingerprint(files: Sequence[str]) -> str:
    """Hash of the files' names in their order."""
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def crop(path: str | Path, size: int) -> np.ndarray:
    """The centre of an image, (3, size, size) uint8. Raises UserError for a file that is no image.

    As in ADM (openai/guided-diffusion, `center_crop_arr`) and DiT: halved by boxes while the short side stays at least
    `size`, then bicubic until it is `size`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        damaged = f"{path}: cannot be read as an image ({error}). Fetch it again or remove it."
        raise unreadable(path, error, damaged) from None
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return np.array(image)[top : top + size, left : left + size].transpose(2, 0, 1)

"""Tiny ImageNet's zip archive, read in place: nothing is unpacked and no link is followed.

Only the members named here are read; the archive's own test images have no labels.
"""

import io
import lzma
import zipfile
import zlib

import numpy as np

from diffusionblocks.base.files import UserError

CLASSES = 200
IMAGES = {"train": 500, "val": 10_000}  # for training of each class, for validation in all
SIZE = 64
ROOT = "tiny-imagenet-200"
CURE = "Delete it and start again."
# All that zipfile raises on damage; the last three where a wrong byte asks for another compression, or a password.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, lzma.LZMAError, RuntimeError)


def read_zip(path):
    """Training images (N, 3, 64, 64), their labels, validation images and their labels.

    A label is the place of its class in the sorted names. Raises UserError when anything is absent, extra or damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise UserError(f"{path}: not a zip archive, or truncated ({error}). {CURE}") from None
    with archive:
        classes = _classes(archive)
        train = [
            (f"{ROOT}/train/{name}/images/{name}_{number}.JPEG", label)
            for name, label in classes.items()
            for number in range(IMAGES["train"])
        ]
        validation = _validation(archive, classes)
        _complete(archive, "train", train)
        _complete(archive, "val", validation)
        return [*_images(archive, train), *_images(archive, validation)]


def _classes(archive):
    """{name: label} of the classes."""
    member = f"{ROOT}/wnids.txt"
    names = _lines(archive, member)
    if not len(names) == len(set(names)) == CLASSES:
        found = f"{len(set(names))} different classes in {len(names)} lines"
        raise UserError(f"{archive.filename}: {member} has {found} instead of {CLASSES}. {CURE}")
    return {name: label for label, name in enumerate(sorted(names))}


def _validation(archive, classes):
    """(member, label) of the validation images, by their number."""
    member = f"{ROOT}/val/val_annotations.txt"
    lines = _lines(archive, member)
    labels = dict.fromkeys(f"val_{number}.JPEG" for number in range(IMAGES["val"]))
    for line in lines:
        file, name, *_ = [*line.split("\t"), ""]  # behind them the corners of a box
        if name not in classes:
            raise UserError(f"{archive.filename}: {member} has the unknown class {name!r}, of {file!r}. {CURE}")
        if file not in labels:
            raise UserError(f"{archive.filename}: {member} has the unknown file {file!r}. {CURE}")
        labels[file] = classes[name]
    if len(lines) != len(labels) or None in labels.values():
        found = f"{len(lines):,} lines, with {sum(label is not None for label in labels.values()):,} different files,"
        raise UserError(f"{archive.filename}: {member} has {found} instead of {len(labels):,}. {CURE}")
    return [(f"{ROOT}/val/images/{file}", label) for file, label in labels.items()]


def _complete(archive, folder, files):
    """Raises UserError unless a folder has these images and no others, before a minute is spent on decoding them."""
    found = [name for name in archive.namelist() if name.startswith(f"{ROOT}/{folder}/") and name.endswith(".JPEG")]
    there = set(found)
    if absent := [name for name, _ in files if name not in there]:
        raise UserError(f"{archive.filename}: has no {absent[0]} ({len(absent):,} such images in all). {CURE}")
    if len(found) != len(files):
        raise UserError(
            f"{archive.filename}: {ROOT}/{folder} has {len(found):,} images instead of {len(files):,}. {CURE}"
        )


def _images(archive, files):
    """Images (N, 3, 64, 64) and labels (N,) of (member, label)."""
    images = np.empty((len(files), 3, SIZE, SIZE), np.uint8)  # 1.2 GB for training: one array, filled image by image
    for image, (member, _) in zip(images, files, strict=True):
        image[:] = _image(archive, member)
    return images, np.array([label for _, label in files], np.int64)


def _image(archive, member):
    from PIL import Image

    content = _read(archive, member)
    try:
        with Image.open(io.BytesIO(content)) as file:
            if file.size != (SIZE, SIZE):
                raise ValueError("{} x {} pixels instead of {size} x {size}".format(*file.size, size=SIZE))
            return np.asarray(file.convert("RGB")).transpose(2, 0, 1)  # some are gray
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{archive.filename}: {member} cannot be read as an image ({error}). {CURE}") from None


def _lines(archive, member):
    """Lines of a text. What is no ASCII is replaced: it makes a name that nobody knows, and is reported as such."""
    return _read(archive, member).decode("ascii", "replace").splitlines()


def _read(archive, member):
    try:
        return archive.read(member)
    except KeyError:
        raise UserError(f"{archive.filename}: has no {member}. {CURE}") from None
    except DAMAGED as error:
        raise UserError(f"{archive.filename}: {member} is corrupt or truncated ({error}). {CURE}") from None

"""Image data sets by name. Each function reads real files and returns title, train and test images and labels.

Images are uint8 (N, C, H, W), labels int64 (N,). A set that stands in for another carries its own title, and the title
reaches every page. `split: validation` sets the last fifth of the training images aside as the test set, for choosing
settings without looking at the test images.

A source with a keyword `shards` is too large for that. It returns listings of image files, which are encoded as latents
in as many jobs (`encode.py`) and joined (`prepare.py`).
"""

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.images.folder import listing, same_classes
from diffusionblocks.data.images.tiny_imagenet_archive import read_zip

FASHION_MNIST = {"train": 60_000, "t10k": 10_000}  # images by the name that their files begin with
FASHION_MNIST_16 = {"train": 5_000, "t10k": 1_000}
# Images by member of the archive; the last member is the test set.
CIFAR10 = {**{f"data_batch_{number}.bin": 10_000 for number in range(1, 6)}, "test_batch.bin": 10_000}
IMAGENET = (1_281_167, 50_000, 1_000)  # training and validation images, classes
CIFAR100 = {"train.bin": 50_000, "test.bin": 10_000}


def digits(data_dir, *, split: Literal["test", "validation"] = "test"):
    """scikit-learn's digits, 1,797 images of 8 x 8 in 10 classes; 360, stratified and fixed, are the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)  # 17 grey levels, 0 to 16
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    return _split("scikit-learn digits", split, train, train_labels, test, test_labels)


def fashion_mnist(data_dir, *, split: Literal["test", "validation"] = "test"):
    """Fashion-MNIST, 70,000 images of 28 x 28 in 10 classes, padded to 32 x 32."""
    folders = [Path(data_dir), Path("/usr/share/datasets/fashion-mnist")]  # the second is Debian's package
    cure = (
        "Install Debian's package (apt install dataset-fashion-mnist), or set data_dir in config.yaml to the folder of "
        "Fashion-MNIST's four .gz files."
    )
    train, train_labels, test, test_labels = _idx_set(folders, FASHION_MNIST, 28, cure)
    train, test = (np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))) for images in (train, test))
    return _split("Fashion-MNIST", split, train, train_labels, test, test_labels)


def fashion_mnist_16(data_dir, *, split: Literal["test", "validation"] = "test"):
    """6,000 images of Fashion-MNIST at 16 x 16, as many of each class, which come with this package.

    The first 500 of each class in the training set and 100 in the test set, padded to 32 x 32 and halved by the mean of
    2 x 2 pixels (a half is rounded up).
    """
    folder = PACKAGE / "data/embedded/fashion_mnist_16"
    arrays = _idx_set([folder], FASHION_MNIST_16, 16, "Install this package again.")
    return _split("Fashion-MNIST 16x16 (6,000 images)", split, *arrays)


def cifar10(data_dir, *, split: Literal["test", "validation"] = "test"):
    """CIFAR-10, 60,000 images of 3 x 32 x 32 in 10 classes, from its binary archive (the other one is a pickle)."""
    path = fetch(ARCHIVES["cifar10"], data_dir)
    return _split("CIFAR-10", split, *_cifar(path, "cifar-10-batches-bin", CIFAR10, num_labels=1))


def cifar100(data_dir, *, split: Literal["test", "validation"] = "test"):
    """CIFAR-100, 60,000 images of 3 x 32 x 32 in 100 classes, from its binary archive (the other one is a pickle)."""
    path = fetch(ARCHIVES["cifar100"], data_dir)
    return _split("CIFAR-100", split, *_cifar(path, "cifar-100-binary", CIFAR100, num_labels=2))


def tiny_imagenet(data_dir, *, split: Literal["test", "validation"] = "test"):
    """Tiny ImageNet, 110,000 images of 3 x 64 x 64 in 200 classes.

    The archive's own test images have no labels, so its 10,000 validation images are the test set.
    """
    train, train_labels, test, test_labels = read_zip(fetch(ARCHIVES["tiny_imagenet"], data_dir))
    return _split("Tiny ImageNet", split, train, train_labels, test, test_labels)


def imagenet(data_dir, *, shards=32, image_size=256):
    """ImageNet as latents, from the user's folder imagenet/{train,val}/<class>/*.JPEG in `data_dir`.

    shards: jobs that share the encoding of the training images. Test images are not encoded: they are only looked at
    as pixels.
    """
    root = Path(data_dir) / "imagenet"
    train, test = listing(root / "train"), listing(root / "val")
    same_classes(train, test)
    title, found = f"ImageNet {image_size}x{image_size}", (len(train.files), len(test.files), len(train.classes))
    if found != IMAGENET:
        title = f"{title}, a part: {found[0]:,} + {found[1]:,} images in {found[2]:,} classes"
    return {
        "title": title, "folder": "imagenet", "train": train, "test": test, "shards": shards, "image_size": image_size
    }  # fmt: skip


def _split(title, split, train_images, train_labels, test_images, test_labels):
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


def _idx_set(folders, counts, size, cure):
    """Train images (N, 1, size, size), their labels, test images and their labels, from Fashion-MNIST's four files."""
    arrays = []
    for name, count in counts.items():
        arrays.append(_idx(folders, f"{name}-images-idx3-ubyte.gz", (count, size, size), cure)[:, None])
        arrays.append(_idx(folders, f"{name}-labels-idx1-ubyte.gz", (count,), cure))
    return arrays


def _idx(folders, name, shape, cure):
    """An array of unsigned bytes in IDX form: a magic number with the number of dimensions, the sizes, the bytes."""
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{name}: not in {' or '.join(map(str, folders))}. {cure}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: corrupt or truncated ({error}). Fetch it again.") from None
    header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + np.prod(shape):
        raise UserError(f"{path}: not an IDX file of shape {shape}, or truncated. Fetch it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _cifar(path, folder, counts, num_labels):
    """Train images, their labels, test images and their labels; the last of a record's labels is the finest."""
    size = num_labels + 3072  # labels, then the planes R, G and B
    contents = _tar_members(path, {f"{folder}/{member}": count * size for member, count in counts.items()})
    *train, test = (np.frombuffer(content, np.uint8).reshape(-1, size) for content in contents)
    arrays = []
    for records in (np.concatenate(train), test):
        arrays += [records[:, num_labels:].reshape(-1, 3, 32, 32), records[:, num_labels - 1]]
    return arrays


def _tar_members(path, sizes):
    """Bytes of regular files {name: size} in an archive, read in place: nothing is unpacked, no link is followed."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and sizes.get(member.name) == member.size:
                found[member.name] = archive.extractfile(member).read()
    for name, size in sizes.items():
        if name not in found:
            raise UserError(f"{path}: has no regular file {name} of {size:,} bytes. Delete it and start again.")
    return [found[name] for name in sizes]

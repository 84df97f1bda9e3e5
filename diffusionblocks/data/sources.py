"""Image data sets by name. Each function reads real files and returns title, train and test images and labels.

Images are uint8 (N, C, H, W), labels int64 (N,). A set that stands in for another carries its own title, and the title
reaches every page. `split: validation` sets the last fifth of the training images aside as the test set, for choosing
settings without looking at the test images.
"""

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.files import UserError

FASHION_MNIST = {"train": 60_000, "t10k": 10_000}  # images by the name that their files begin with
CIFAR100 = {"train.bin": 50_000, "test.bin": 10_000}  # images by member of the archive


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
    arrays = []
    for name, count in FASHION_MNIST.items():
        images = _idx(folders, f"{name}-images-idx3-ubyte.gz", (count, 28, 28))
        arrays.append(np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None])
        arrays.append(_idx(folders, f"{name}-labels-idx1-ubyte.gz", (count,)))
    return _split("Fashion-MNIST", split, *arrays)


def cifar100(data_dir, *, split: Literal["test", "validation"] = "test"):
    """CIFAR-100, 60,000 images of 3 x 32 x 32 in 100 classes, from its binary archive (the other one is a pickle)."""
    path = fetch(ARCHIVES["cifar100"], data_dir)
    arrays = []
    for member, count in CIFAR100.items():
        records = _tar_member(path, f"cifar-100-binary/{member}", count * 3074)
        records = np.frombuffer(records, np.uint8).reshape(count, 3074)  # coarse label, fine label, R, G, B planes
        arrays += [records[:, 2:].reshape(-1, 3, 32, 32), records[:, 1]]
    return _split("CIFAR-100", split, *arrays)


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


def _idx(folders, name, shape):
    """An array of unsigned bytes in IDX form: a magic number with the number of dimensions, the sizes, the bytes."""
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    if path is None:
        raise UserError(
            f"{name}: not in {' or '.join(map(str, folders))}. Install Debian's package (apt install "
            "dataset-fashion-mnist), or set data_dir in config.yaml to the folder of Fashion-MNIST's four .gz files."
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: corrupt or truncated ({error}). Fetch it again.") from None
    header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + np.prod(shape):
        raise UserError(f"{path}: not an IDX file of shape {shape}, or truncated. Fetch it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _tar_member(path, name, size):
    """Bytes of one regular file in an archive, read in place: nothing is unpacked, no link is followed."""
    with tarfile.open(path) as archive:
        member = next((member for member in archive if member.name == name), None)
        if member is None or not member.isfile() or member.size != size:
            raise UserError(f"{path}: has no regular file {name} of {size:,} bytes. Delete it and start again.")
        return archive.extractfile(member).read()

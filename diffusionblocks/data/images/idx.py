"""Images and labels in IDX form, as MNIST and its kin are given out."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusionblocks.base.files import UserError, exists, unreadable


def idx_set(folders: Sequence[Path], counts: dict[str, int], size: int, cure: str) -> list[np.ndarray]:
    """Train images (N, 1, size, size), their labels (N,), test images and their labels, all uint8, of four files.

    folders: where to look, in this order. counts: {what a pair of files begins with: number of its images}. Raises
    UserError, ending with `cure`, for a file that is absent, damaged or of another shape.
    """
    arrays = []
    for name, count in counts.items():
        arrays.append(_idx(folders, f"{name}-images-idx3-ubyte.gz", (count, size, size), cure)[:, None])
        arrays.append(_idx(folders, f"{name}-labels-idx1-ubyte.gz", (count,), cure))
    return arrays


def _idx(folders, name, shape, cure):
    """An array of unsigned bytes: a magic number with the number of dimensions, the sizes, the bytes."""
    path = next((folder / name for folder in folders if exists(folder / name)), None)
    if path is None:
        raise UserError(f"{name}: not in {' or '.join(map(str, folders))}. {cure}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error, f"{path}: corrupt or truncated ({error}). Fetch it again.") from None
    header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + np.prod(shape):
        raise UserError(f"{path}: not an IDX file of shape {shape}, or truncated. Fetch it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)

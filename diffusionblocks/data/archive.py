"""Archives and files of data sets, read in place: nothing is unpacked and no link is followed."""

import contextlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from diffusionblocks.base.files import UserError, unreadable

DAMAGED = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(ValueError, KeyError, TypeError, struct.error),  # no UTF-8, no JSON, no text in it, no R data
)


def tar_members(path: Path, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, open file) of an archive's regular files `names`, in the archive's order.

    Raises UserError at the end if one is absent. Sizes are not looked at: `fetch` has compared the archive's hash.
    """
    absent = set(names)
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name in absent:
                absent.remove(member.name)
                yield member.name, archive.extractfile(member)
    if absent:
        raise UserError(f"{path}: has no regular file {min(absent)}. Delete it and start again.")


@contextlib.contextmanager
def readable(path: Path, cure: str) -> Iterator[None]:
    """Any sign of a damaged file is a UserError that names it and ends with `cure`; for files without a known hash."""
    try:
        yield
    except DAMAGED as error:
        raise unreadable(path, error, f"{path}: corrupt or truncated ({error}). {cure}") from None

"""Archives of the paper's data sets: fetched once, resumed where the line broke, used only when size and hash fit."""

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections import namedtuple
from pathlib import Path

from diffusionblocks.files import UserError

Archive = namedtuple("Archive", "url size sha256")

# Sizes and hashes as published in TensorFlow Datasets' checksum files.
ARCHIVES = {
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
}

ATTEMPTS = 5
CHUNK = 1 << 20


def fetch(archive, data_dir):
    """Path of an archive in `data_dir`, downloaded if it is not there.

    Raises UserError for a file of another size or hash, and when the archive can be neither found nor downloaded.
    """
    path = Path(data_dir) / Path(archive.url).name
    if path.exists():
        _verify(path, archive)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            _download(archive, partial)
            break
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == ATTEMPTS - 1 or refused:
                kept = f"What has arrived is kept in {partial} and will be continued. " if partial.exists() else ""
                raise UserError(
                    f"{archive.url}: cannot be downloaded ({error}). {kept}On a machine without internet, put the file "
                    f"into {path.parent} yourself, or set data_dir in config.yaml to the folder that has it."
                ) from error
            time.sleep(2**attempt)
    try:
        _verify(partial, archive)
    except UserError:
        partial.unlink()  # a complete download with wrong bytes cannot be continued
        raise
    partial.rename(path)
    return path


def _download(archive, partial):
    start = partial.stat().st_size if partial.exists() else 0
    if start >= archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        resumed = response.status == 206  # a server without ranges sends the whole file again
        with open(partial, "ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
    if partial.stat().st_size < archive.size:
        raise ConnectionError(f"the line closed after {partial.stat().st_size:,} of {archive.size:,} bytes")


def _verify(path, archive):
    size = path.stat().st_size
    if size != archive.size:
        kind = "truncated" if size < archive.size else "not the right file"
        raise UserError(f"{path}: {kind}: {size:,} bytes instead of {archive.size:,}. Delete it and start again.")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != archive.sha256:
        raise UserError(
            f"{path}: corrupt: sha256 {digest.hexdigest()} instead of {archive.sha256}. Delete it and start again."
        )

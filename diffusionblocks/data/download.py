"""Data sets and weights from elsewhere: fetched once, resumed where the line broke, used only if size and hash fit."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections import namedtuple
from pathlib import Path

from diffusionblocks.base.files import UserError, exists

Archive = namedtuple("Archive", "url size sha256")

VAE = "https://huggingface.co/stabilityai/sd-vae-ft-ema/resolve/f04b2c4b98319346dad8c65879f680b1997b204a"

# Sizes and hashes of the data sets as published in TensorFlow Datasets' checksum files (text8's and Tiny ImageNet's,
# which are not there, as several public projects record them, all alike), of weights by their hosts.
ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    "tiny_imagenet": Archive(
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        248_100_043,
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    ),
    "text8": Archive(
        "https://mattmahoney.net/dc/text8.zip",
        31_344_016,
        "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    ),
    "lm1b": Archive(
        "https://www.statmt.org/lm-benchmark/1-billion-word-language-modeling-benchmark-r13output.tar.gz",
        1_792_209_805,
        "01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
    ),
    "inception_v3": Archive(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        95_628_359,
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "vae_config": Archive(
        f"{VAE}/config.json",
        547,
        "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e",
    ),
    "vae_weights": Archive(
        f"{VAE}/diffusion_pytorch_model.safetensors",
        334_643_276,
        "32db726da04f06c1b6b14c0043ce115cc87a501482945c5add89a40d838fcb46",
    ),
}

ATTEMPTS = 5
CHUNK = 1 << 20


def fetch(archive: Archive, data_dir: str | Path) -> Path:
    """Path of an archive in `data_dir`, downloaded if it is not there. Processes that want the same one take turns.

    Raises UserError for a file of another size or hash, and when the archive can be neither found nor downloaded.
    """
    path = Path(data_dir) / Path(archive.url).name
    if not exists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".part")) as partial:
            if not exists(path):  # nobody brought it while this process waited for its turn
                _complete(archive, partial)
                partial.rename(path)
                return path
    _verify(path, archive)
    return path


@contextlib.contextmanager
def _locked(partial):
    """Hold a partial file, made if need be, for this process alone. It stays if there is anything in it."""
    while True:
        with open(partial, "ab") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, partial):
                continue  # who held it before has finished or removed it: what is locked now has no name any more
            try:
                yield partial
            finally:
                if _is_at(file, partial) and not partial.stat().st_size:
                    partial.unlink()
            return


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _complete(archive, partial):
    """Download all that a partial file lacks, and remove it if it is wrong then."""
    for attempt in range(ATTEMPTS):
        try:
            _download(archive, partial)
            break
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == ATTEMPTS - 1 or refused:
                arrived = partial.stat().st_size > 0
                kept = f"What has arrived is kept in {partial} and will be continued. " if arrived else ""
                raise UserError(
                    f"{archive.url}: cannot be downloaded ({error}). {kept}On a machine without internet, put the file "
                    f"into {partial.parent} yourself, or set data_dir in config.yaml to the folder that has it."
                ) from error
            time.sleep(2**attempt)
    try:
        _verify(partial, archive)
    except UserError:
        partial.unlink()  # a complete download with wrong bytes cannot be continued
        raise


def _download(archive, partial):
    start = partial.stat().st_size
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

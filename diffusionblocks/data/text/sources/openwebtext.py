"""OpenWebText (Gokaslan and Cohen 2019), from a folder of the user's, in Llama 2's tokens."""

import json
import lzma
import tarfile
from pathlib import Path
from typing import Literal

from diffusionblocks.base.files import UserError, listed
from diffusionblocks.data.archive import readable
from diffusionblocks.data.sizes import sizes
from diffusionblocks.data.text.llama2 import llama2
from diffusionblocks.data.text.source import TextSet, text_set

ARCHIVES = [f"urlsf_subset{subset:02}.tar" for subset in range(21)]


@sizes(
    train_tokens=8_990_000_000,
    vocab_size=32_000,
    bring="OpenWebText, 13 GB, in openwebtext/; Llama 2's tokenizer, 2 MB, as llama2/tokenizer.json",
)
def openwebtext(
    data_dir: str | Path, *, seq_len: int = 1024, test_size: int = 5000, split: Literal["test", "validation"] = "test"
) -> TextSet:
    """The folder openwebtext/ in `data_dir`; a tenth of its documents is the test set (index % 10 == 7; validation: 3).

    The folder has the 21 archives urlsf_subset*.tar as they are given out, or the urlsf_subset*_data.xz in them, or
    files of one {"text": ...} a line (.jsonl).
    """
    folder = Path(data_dir) / "openwebtext"
    files = [folder / name for name in listed(folder) if name.endswith((".tar", ".xz", ".jsonl"))]
    if not files:
        raise UserError(
            f"{folder}: has no .tar, .xz or .jsonl. Put OpenWebText's {ARCHIVES[0]} to {ARCHIVES[-1]} there (a link "
            "will do), or set data_dir in config.yaml to the folder that has openwebtext/."
        )
    title = "OpenWebText"
    if [file.name for file in files] != ARCHIVES:
        title += f" ({len(files)} files, not its {len(ARCHIVES)} archives)"
    held_out = {7: "test"} if split == "test" else {7: None, 3: "test"}
    texts = (text for file in files for text in _some(_texts_of(file), file))
    parts = ((held_out.get(index % 10, "train"), text) for index, text in enumerate(texts))
    documents = (document for document in parts if document[0])
    return text_set(title, split, llama2(data_dir), seq_len, test_size, documents)


def _texts_of(file):
    """Iterator over the documents of one file, in its order."""
    with readable(file, "Fetch it again."):
        if file.suffix == ".jsonl":
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)["text"]
        elif file.suffix == ".xz":
            yield from _members(file.open("rb"))
        else:
            with tarfile.open(file, "r:") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".xz"):
                        yield from _some(_members(archive.extractfile(member)), f"{file}: {member.name}")
                archive.fileobj.seek(archive.offset)
                if archive.fileobj.read(512) != bytes(512):  # tarfile takes a header cut short for the end
                    raise tarfile.ReadError("no end of the archive")


def _some(texts, where):
    """The texts. Raises UserError where there is none."""
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise UserError(
            f"{where}: has no document. Give the folder .tar of .xz archives, .xz archives of .txt files, or .jsonl: "
            "unpack an archive of other archives into it, or remove this one."
        )


def _members(file):
    with file, lzma.open(file) as unpacked:
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".txt"):
                    yield archive.extractfile(member).read().decode()
        while unpacked.read(1 << 20):  # to the end, where the checksums are
            pass

"""Text data sets by name. Each function finds real texts and how they are split; `prepare` packs them into sequences.

A source returns title, tokenizer, seq_len, test_size and `documents`, an iterator over (split, text). Splits: train,
test, and teacher, which is in neither and trains the scorers of generated texts (at paper scale these are pretrained,
and nothing is set aside). `split: validation` takes the test set from the training texts and leaves the test texts out.
test_size: at most so many test sequences, evenly spread over all of them; 0 takes all. novels: with Jane Austen's six
novels and Moby Dick, each of whose chapters counts as a document as an address does.
"""

import contextlib
import json
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.text.novels import austen, find, moby_dick
from diffusionblocks.data.text.tokens import ALPHABET, Characters, Subwords, letters

SOTU = PACKAGE / "data/embedded/sotu"
TEXT8 = (90_000_000, 95_000_000, 100_000_000)  # where training, validation and test text end
LM1B = "1-billion-word-language-modeling-benchmark-r13output"
LM1B_TRAIN = [f"{LM1B}/training-monolingual.tokenized.shuffled/news.en-{shard:05}-of-00100" for shard in range(1, 100)]
LM1B_TEST = [
    f"{LM1B}/heldout-monolingual.tokenized.shuffled/news.en.heldout-{shard:05}-of-00050" for shard in range(50)
]
OPENWEBTEXT = [f"urlsf_subset{subset:02}.tar" for subset in range(21)]
DAMAGED = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(ValueError, KeyError, TypeError, struct.error),  # no UTF-8, no JSON, no text in it, no R data
)


def sotu_characters(
    data_dir, *, seq_len=256, test_size=1000, novels=False, split: Literal["test", "validation"] = "test"
):
    """State of the Union addresses in text8's 27 symbols, one after another. They come with this package."""
    documents = ((part, f"{letters(text)} ") for part, text in _documents(data_dir, novels, split))
    return _found(f"{_corpora(novels)}, characters", split, Characters(), seq_len, test_size, documents)


def sotu_sentences(
    data_dir, *, vocab_size=512, seq_len=64, test_size=1000, novels=False, split: Literal["test", "validation"] = "test"
):
    """The addresses' sentences of three words and more, shuffled as LM1B's are, in byte-level BPE (512 or 4096)."""
    found = [(part, sentence) for part, text in _documents(data_dir, novels, split) for sentence in _sentences(text)]
    documents = (found[index] for index in np.random.default_rng(0).permutation(len(found)))
    title = f"{_corpora(novels)}, sentences ({vocab_size} subwords)"
    return _found(title, split, _bpe(vocab_size), seq_len, test_size, documents)


def sotu_documents(
    data_dir, *, vocab_size=512, seq_len=64, test_size=1000, novels=False, split: Literal["test", "validation"] = "test"
):
    """Whole addresses, in byte-level BPE (512 or 4096)."""
    title = f"{_corpora(novels)}, documents ({vocab_size} subwords)"
    return _found(title, split, _bpe(vocab_size), seq_len, test_size, _documents(data_dir, novels, split))


def text8(data_dir, *, seq_len=256, test_size=0, split: Literal["test", "validation"] = "test"):
    """text8, 100 million characters of Wikipedia: the first 90% for training, 5% for validation, 5% for the test."""
    path = fetch(ARCHIVES["text8"], data_dir)
    with _readable(path):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("text8").decode("ascii")
        if len(text) != TEXT8[-1] or not set(text) <= set(ALPHABET):
            raise ValueError(f"not {TEXT8[-1]:,} letters a to z and spaces")
    train, validation, test = text[: TEXT8[0]], text[TEXT8[0] : TEXT8[1]], text[TEXT8[1] :]
    documents = [("train", train), ("test", test if split == "test" else validation)]
    return _found("text8", split, Characters(), seq_len, test_size, documents)


def lm1b(data_dir, *, seq_len=256, test_size=5000, split: Literal["test", "validation"] = "test"):
    """One Billion Word: 99 shards of shuffled sentences for training, 50 held out for the test, Llama 2's tokens.

    `validation` holds the last training shard out.
    """
    path, parts = fetch(ARCHIVES["lm1b"], data_dir), dict.fromkeys(LM1B_TRAIN, "train")
    parts |= dict.fromkeys(LM1B_TEST, "test") if split == "test" else {LM1B_TRAIN[-1]: "test"}
    return _found("LM1B", split, _llama2(data_dir), seq_len, test_size, _lines(path, parts))


def openwebtext(data_dir, *, seq_len=1024, test_size=5000, split: Literal["test", "validation"] = "test"):
    """OpenWebText in Llama 2's tokens, from the user's folder openwebtext/ in `data_dir`; a tenth of its documents is

    the test set (index % 10 == 7; validation: 3). The folder has the 21 archives urlsf_subset*.tar as they are given
    out, or the urlsf_subset*_data.xz in them, or files of one {"text": ...} a line (.jsonl).
    """
    folder = Path(data_dir) / "openwebtext"
    files = sorted(file for suffix in ("tar", "xz", "jsonl") for file in folder.glob(f"*.{suffix}"))
    if not files:
        raise UserError(
            f"{folder}: has no .tar, .xz or .jsonl. Put OpenWebText's {OPENWEBTEXT[0]} to {OPENWEBTEXT[-1]} there (a "
            "link will do), or set data_dir in config.yaml to the folder that has openwebtext/."
        )
    title = "OpenWebText"
    if [file.name for file in files] != OPENWEBTEXT:
        title += f" ({len(files)} files, not its {len(OPENWEBTEXT)} archives)"
    held_out = {7: "test"} if split == "test" else {7: None, 3: "test"}
    texts = (text for file in files for text in _texts_of(file))
    parts = ((held_out.get(index % 10, "train"), text) for index, text in enumerate(texts))
    documents = (document for document in parts if document[0])
    return _found(title, split, _llama2(data_dir), seq_len, test_size, documents)


def _found(title, split, tokenizer, seq_len, test_size, documents):
    if seq_len < 2 or test_size < 0:
        raise UserError(f"config: data: seq_len {seq_len} should be at least 2, test_size {test_size} at least 0")
    return {
        "title": title + (" (validation split)" if split == "validation" else ""),
        "tokenizer": tokenizer,
        "seq_len": seq_len,
        "test_size": test_size,
        "documents": documents,
    }


def _corpora(novels):
    return "State of the Union" + (", Austen and Moby Dick" if novels else "")


def _documents(data_dir, novels, split):
    """List of (split, text), whole documents: a fifth for the teachers, a twentieth for the test, of each book."""
    held_out = {7: "test", 17: "train"} if split == "test" else {7: None, 17: "test"}
    found = []
    for book in _books(data_dir, novels):
        for index, text in enumerate(book):
            part = "teacher" if index % 5 == 4 else held_out.get(index % 20, "train")
            found += [(part, text)] if part else []
    return found


def _books(data_dir, novels):
    """The 233 addresses, 1790 to 2021; with `novels` also the chapters of each novel: lists of texts."""
    with _readable(SOTU / "sotu.jsonl.xz", "Install this package again."):
        lines = lzma.decompress((SOTU / "sotu.jsonl.xz").read_bytes()).decode().splitlines()
        books = [[json.loads(line)["text"] for line in lines]]
    if novels:
        rdb, archive = find(data_dir)
        with _readable(rdb, "Bring Debian's r-cran-janeaustenr 1.0.0 again."):
            books += austen(rdb)
        with _readable(archive):
            books.append(moby_dick(archive))
    return books


def _sentences(text):
    """Sentences of three words and more: they end with a full stop, ! or ?, and the next begins with a capital."""
    found = re.split(r"""(?:(?<=[.!?])|(?<=[.!?]["')]))\s+(?=["'(]?[A-Z])""", text)
    return [sentence for sentence in found if len(sentence.split()) >= 3]


def _bpe(vocab_size):
    """A tokenizer that comes with this package, trained on the addresses that are in neither split nor teachers'."""
    there = sorted(int(file.stem.removeprefix("bpe")) for file in SOTU.glob("bpe*.json"))
    if vocab_size not in there:
        raise UserError(f"config: data.vocab_size: {vocab_size} is not one of {', '.join(map(str, there))}")
    title = f"byte-level BPE, {vocab_size} tokens"
    return Subwords(SOTU / f"bpe{vocab_size}.json", title, "Install this package again.")


def _llama2(data_dir):
    cure = (
        "Meta gives Llama 2's tokenizer out on request, with the model meta-llama/Llama-2-7b-hf: put its "
        "tokenizer.json there, or set data_dir in config.yaml to the folder that has llama2/tokenizer.json."
    )
    return Subwords(Path(data_dir) / "llama2/tokenizer.json", "Llama 2, 32,000 tokens", cure)


def _lines(path, parts):
    """(split, line) of an archive's regular files {name: split}, read in place. Raises UserError if one is absent."""
    absent = set(parts)
    with _readable(path), tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name in absent:
                absent.remove(member.name)
                for line in archive.extractfile(member):
                    yield parts[member.name], line.decode().strip()
    if absent:
        raise UserError(f"{path}: has no regular file {min(absent)}. Delete it and start again.")


def _texts_of(file):
    """Iterator over the documents of one file of OpenWebText, in its order."""
    with _readable(file, "Fetch it again."):
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
                        yield from _members(archive.extractfile(member))
                archive.fileobj.seek(archive.offset)
                if archive.fileobj.read(512) != bytes(512):  # tarfile takes a header cut short for the end
                    raise tarfile.ReadError("no end of the archive")


def _members(file):
    with file, lzma.open(file) as unpacked:
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".txt"):
                    yield archive.extractfile(member).read().decode()
        while unpacked.read(1 << 20):  # to the end, where the checksums are
            pass


@contextlib.contextmanager
def _readable(path, cure="Delete it and start again."):
    """Any sign of a damaged file is a UserError that names it."""
    try:
        yield
    except DAMAGED as error:
        raise UserError(f"{path}: corrupt or truncated ({error}). {cure}") from None

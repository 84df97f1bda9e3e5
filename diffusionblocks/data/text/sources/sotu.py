"""State of the Union addresses, 1790 to 2021, which come with this package, in three forms.

novels: with Jane Austen's six novels and Moby Dick, each of whose chapters counts as a document as an address does.
split: `validation` takes the test set from the training texts and leaves the test texts out.
"""

import json
import lzma
import re
from pathlib import Path
from typing import Literal

import numpy as np

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError
from diffusionblocks.data.archive import readable
from diffusionblocks.data.sizes import sizes
from diffusionblocks.data.text.novels import austen, find, moby_dick
from diffusionblocks.data.text.source import TextSet, text_set
from diffusionblocks.data.text.tokens import Characters, Subwords, letters

SOTU = PACKAGE / "data/embedded/sotu"


@sizes(train_tokens=8_300_000, vocab_size=27)  # as with the next two, of the addresses alone
def sotu_characters(
    data_dir: str | Path,
    *,
    seq_len: int = 256,
    test_size: int = 1000,
    novels: bool = False,
    split: Literal["test", "validation"] = "test",
    windows: Literal["tiled", "any"] = "tiled",
) -> TextSet:
    """The addresses in text8's 27 symbols, one after another. windows: as text8's."""
    documents = ((part, f"{letters(text)} ") for part, text in _documents(data_dir, novels, split))
    return text_set(f"{_corpora(novels)}, characters", split, Characters(), seq_len, test_size, documents, windows)


@sizes(train_tokens=3_700_000)
def sotu_sentences(
    data_dir: str | Path,
    *,
    vocab_size: int = 512,
    seq_len: int = 64,
    test_size: int = 1000,
    novels: bool = False,
    split: Literal["test", "validation"] = "test",
) -> TextSet:
    """The addresses' sentences of three words and more, shuffled as LM1B's are, in byte-level BPE (512 or 4096)."""
    found = [(part, sentence) for part, text in _documents(data_dir, novels, split) for sentence in _sentences(text)]
    documents = (found[index] for index in np.random.default_rng(0).permutation(len(found)))
    title = f"{_corpora(novels)}, sentences ({vocab_size} subwords)"
    return text_set(title, split, _bpe(vocab_size), seq_len, test_size, documents)


@sizes(train_tokens=3_600_000)
def sotu_documents(
    data_dir: str | Path,
    *,
    vocab_size: int = 512,
    seq_len: int = 64,
    test_size: int = 1000,
    novels: bool = False,
    split: Literal["test", "validation"] = "test",
) -> TextSet:
    """Whole addresses, in byte-level BPE (512 or 4096)."""
    title = f"{_corpora(novels)}, documents ({vocab_size} subwords)"
    return text_set(title, split, _bpe(vocab_size), seq_len, test_size, _documents(data_dir, novels, split))


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
    """The 233 addresses; with `novels` also the chapters of each novel: lists of texts."""
    with readable(SOTU / "sotu.jsonl.xz", "Install this package again."):
        lines = lzma.decompress((SOTU / "sotu.jsonl.xz").read_bytes()).decode().splitlines()
        books = [[json.loads(line)["text"] for line in lines]]
    if novels:
        rdb, archive = find(data_dir)
        with readable(rdb, "Bring Debian's r-cran-janeaustenr 1.0.0 again."):
            books += austen(rdb)
        books.append(moby_dick(archive))
    return books


def _sentences(text):
    """Sentences of three words and more: they end with a full stop, ! or ?, and the next begins with a capital."""
    found = re.split(r"""(?:(?<=[.!?])|(?<=[.!?]["')]))\s+(?=["'(]?[A-Z])""", text)
    return [sentence for sentence in found if len(sentence.split()) >= 3]


def _bpe(vocab_size):
    """A tokenizer that comes with this package, trained on the addresses that are in neither split nor teachers'.

    tests/test_text_data.py trains the small one again.
    """
    there = sorted(int(file.stem.removeprefix("bpe")) for file in SOTU.glob("bpe*.json"))
    if vocab_size not in there:
        raise UserError(f"config: data.vocab_size: {vocab_size} is not one of {', '.join(map(str, there))}")
    title = f"byte-level BPE, {vocab_size} tokens"
    return Subwords(SOTU / f"bpe{vocab_size}.json", title, "Install this package again.")

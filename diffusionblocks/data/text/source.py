"""What a source of texts returns. Its return annotation, `-> TextSet`, tells planning that it is one."""

from collections.abc import Iterable
from typing import NotRequired, Protocol, TypedDict

import numpy as np


class Tokenizer(Protocol):
    """Turns texts into tokens: `Characters` and `Subwords` in tokens.py are two.

    start: tokens that every sequence begins with. content: a tokenizer.json, or nothing. about: what to know of it: a
    title, and of characters their `alphabet`, of subwords the number `eos` of the token that ends a document.
    """

    vocab_size: int
    start: tuple[int, ...]
    content: bytes
    about: dict

    def encode(self, texts: list[str]) -> np.ndarray:
        """Tokens (n,) of all texts, one after another, from 0 to vocab_size less 1."""


class TextSet(TypedDict):
    """Texts and how they are split; `prepare` packs them into sequences of `seq_len` tokens.

    documents: (split, text), read once. Splits: train, test, and teacher, which is in neither and trains the scorers of
    generated texts (there may be none, where these are pretrained). test_size: at most so many test sequences, evenly
    spread over all of them; 0 takes all. windows: where training sequences begin, each time one is taken: `tiled`, one
    after another, or `any`, moved on by a random offset, which a tokenizer without `start` allows.
    """

    title: str
    tokenizer: Tokenizer
    seq_len: int
    test_size: int
    documents: Iterable[tuple[str, str]]
    windows: NotRequired[str]  # tiled, if not said


def text_set(
    title: str,
    split: str,
    tokenizer: Tokenizer,
    seq_len: int,
    test_size: int,
    documents: Iterable[tuple[str, str]],
    windows: str = "tiled",
) -> TextSet:
    """The set, whose title says when its test texts are those of the split "validation"."""
    return {
        "title": title + (" (validation split)" if split == "validation" else ""),
        "tokenizer": tokenizer,
        "seq_len": seq_len,
        "test_size": test_size,
        "documents": documents,
        "windows": windows,
    }

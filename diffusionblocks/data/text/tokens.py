"""Texts as tokens: characters, or subwords with a token that begins a sequence and one that ends a document."""

import hashlib
import re
from pathlib import Path

import numpy as np

from diffusionblocks.base.files import UserError, unreadable

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BOS, EOS = "<s>", "</s>"  # Llama 2's names


def letters(text: str) -> str:
    """A text in text8's 27 symbols: lower case, digits spelled out, whatever else is a space."""
    text = re.sub("[0-9]", lambda digit: f" {DIGITS[int(digit[0])]} ", text.lower())
    return re.sub("[^a-z]+", " ", text).strip()


class Characters:
    """text8's tokens: a to z are 0 to 25, a space is 26. Documents bring their own separators."""

    vocab_size, start, content = len(ALPHABET), (), b""
    about = {"title": "characters", "alphabet": ALPHABET}  # noqa: RUF012 (nobody changes it)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Tokens (n,) of all texts, which have no other characters."""
        codes = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
        return np.where(codes == ord(" "), np.uint8(26), codes - np.uint8(ord("a")))


class Subwords:
    """The tokenizer of a tokenizer.json that has the tokens <s> and </s>. Raises UserError, ending with `cure`."""

    def __init__(self, path: Path, title: str, cure: str):
        from tokenizers import Tokenizer

        try:
            self.content = path.read_bytes()
            self._tokenizer = Tokenizer.from_str(self.content.decode())
            self._tokenizer.encode_special_tokens = True  # a </s> that a text spells out ends nothing
        except FileNotFoundError:
            raise UserError(f"{path}: no such file. {cure}") from None
        except Exception as error:  # the library raises nothing finer
            raise unreadable(path, error, f"{path}: not a tokenizer ({error}). {cure}") from None
        bos, self._eos = (self._tokenizer.token_to_id(token) for token in (BOS, EOS))
        if bos is None or self._eos is None:
            raise UserError(f"{path}: has no tokens {BOS} and {EOS}. {cure}")
        self.vocab_size, self.start = self._tokenizer.get_vocab_size(), (bos,)
        self.about = {"title": title, "eos": self._eos, "sha256": hashlib.sha256(self.content).hexdigest()}

    def encode(self, texts: list[str]) -> np.ndarray:
        """Tokens (n,) of all texts, each ended by EOS."""
        tokens = []
        for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            tokens += found.ids
            tokens.append(self._eos)
        return np.array(tokens, np.int32)

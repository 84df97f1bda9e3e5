"""An n-gram over the 27 characters of text8 with Witten-Bell smoothing (Bell, Cleary and Witten 1990, method C).

A context h that was followed N times, by T different characters, gives p(c | h) = (count(h c) + T p(c | h')) / (N + T),
h' being h without its first character. No context gives 1/27, and one never seen what the shorter one gives.
"""

import re

import numpy as np
import torch

from diffusionblocks.base.files import UserError

SYMBOLS = 27  # space, a to z
LONGEST = 13  # 27**13 fits 64 bits


def normalise(text: str) -> str:
    """The text in lower case, a space in place of everything between its letters a to z."""
    return re.sub("[^a-z]+", " ", text.lower())


def symbols(text: str) -> np.ndarray:
    """Normalised text as numbers from 0, the space, to 26."""
    return np.maximum(np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 96, 0)


def count(texts: list[str], order: int) -> dict[str, torch.Tensor]:
    """{keys1, counts1, ..., keys<order>, counts<order>}: sorted n-grams as numbers in base 27, and how often they are.

    No n-gram reaches from one of the texts into the next.
    """
    if not 1 <= order <= LONGEST:
        raise UserError(f"ngram: order: {order} is not between 1 and {LONGEST}")
    counted = {}
    for length, (keys, whole) in enumerate(_grams([normalise(text) for text in texts], order), start=1):
        found, counts = np.unique(keys[whole], return_counts=True)
        counted |= {f"keys{length}": torch.from_numpy(found), f"counts{length}": torch.from_numpy(counts)}
    return counted


def _grams(texts, order):
    """For 1 to `order`: the n-gram that ends at each character of all texts, and whether it starts in the same text."""
    stream = symbols("".join(texts))
    place = np.concatenate([np.arange(len(text)) for text in texts])
    keys = np.zeros_like(stream)
    for length in range(1, order + 1):
        before = length - 1
        keys[before:] += stream[: len(stream) - before] * SYMBOLS**before
        yield keys, place >= before


class NGram:
    """Scores texts by the n-grams that `count` counted."""

    def __init__(self, counted: dict[str, torch.Tensor]):
        self.order = len(counted) // 2
        self._levels = []
        for length in range(1, self.order + 1):
            keys, counts = (counted[f"{name}{length}"].cpu().numpy() for name in ("keys", "counts"))
            contexts, first, followers = np.unique(keys // SYMBOLS, return_index=True, return_counts=True)
            self._levels.append((keys, counts, contexts, np.add.reduceat(counts, first), followers))

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Of every character of the normalised texts given those before it in its text, one text after the other."""
        found = np.full(sum(map(len, texts)), 1 / SYMBOLS)
        for (keys, whole), level in zip(_grams(texts, self.order), self._levels, strict=True):
            known, counts, contexts, totals, followers = level
            place, seen = _find(keys // SYMBOLS, contexts)
            again, there = _find(keys, known)
            total, types, times = totals[place], followers[place], np.where(there, counts[again], 0)
            found = np.where(seen & whole, (times + types * found) / (total + types), found)
        return found

    def nll(
        self, texts: list[str], tokens: torch.Tensor, prompt_len: int, prompts: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(nats (N,), counts (N,)) of the characters of each text that follow its prompt's, both normalised."""
        whole = [normalise(text) for text in texts]
        starts = np.cumsum([0, *map(len, whole)])
        bits = np.concatenate([[0.0], -np.log(self.probabilities(whole)).cumsum()])
        given = np.minimum([len(normalise(prompt)) for prompt in prompts], np.diff(starts))
        return bits[starts[1:]] - bits[starts[:-1] + given], np.diff(starts) - given


def _find(wanted, known):
    """(place of each wanted number in the sorted known ones, whether it is there)."""
    place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return place, known[place] == wanted

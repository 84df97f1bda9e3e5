"""How numbers and verdicts are said to people: one rule for the page, its tables and the terminal. No torch."""

import math
from collections.abc import Iterable

VERDICTS = ("held", "did not hold", "cannot tell", "not tested", "not measured")
# What people write of words in the names of columns.
WORDS = {
    **{word: word.upper() for word in ("fid", "kid", "mauve", "bptt", "gflop", "7b", "xl", "lm")},
    **{"bpc": "bits per character", "ppl": "perplexity", "llama2": "Llama-2", "gpt2": "GPT-2", "c5": "with c = 5"},
    "karras": "Karras",
}


def decimals(values: Iterable[float | None], unit: str = "", errors: Iterable[float | None] = ()) -> int:
    """Decimals of numbers that stand together, two at least: as many as show two digits of their error.

    errors: of several the middle one counts, and no number gets more than four digits for it; where none is known, two
    digits of the largest number are shown. Of seconds three digits of the least are. What is missing, infinite or 0
    counts for nothing.
    """
    values, errors = ([abs(size) for size in sizes if size and math.isfinite(size)] for sizes in (values, errors))
    largest = max([*values, *errors], default=1)
    if unit == "s":
        needed = _places(min(values, default=1), 3)
    elif errors:
        needed = min(_places(sorted(errors)[len(errors) // 2], 2), _places(largest, 4))
    else:
        needed = _places(largest, 2)
    return max(2, needed)


def _places(size, digits):
    """Decimals that show so many digits of a number."""
    return digits - 1 - math.floor(math.log10(size))


def signed(value: float | None, half: float | None = None) -> str:
    """`+2.10 ± 0.50`, of a difference and its error; `infinite` of what claims.json has no number for."""
    if value is None:
        return "infinite"
    digits = decimals([value], errors=[half])
    return f"{value:+.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def half(gap: dict) -> float | None:
    """Half of the interval of a claim's gap; None where there is none."""
    return None if gap["low"] is None else (gap["high"] - gap["low"]) / 2


def in_words(column: str) -> str:
    """What people call a column: `FID test` for `fid_test`."""
    return " ".join(WORDS.get(word, word) for word in column.split("_"))


def counted(about: dict) -> str:
    """What claims.json counts, as a sentence: the paper's claims, and ours apart."""
    said = []
    for key, words in (("counts", "of {} claims of the paper: "), ("counts_of_ours", "of {} of ours: ")):
        known = {verdict: about[key][verdict] for verdict in VERDICTS if about[key].get(verdict)}
        if known:
            said.append(words.format(sum(known.values())) + ", ".join(f"{n} {word}" for word, n in known.items()))
    return f"At scale {about['scale']}, {'; and '.join(said) or 'nothing is claimed'}."

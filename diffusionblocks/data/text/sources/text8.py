"""text8 (Mahoney 2006): the first 100 million characters of a cleaned Wikipedia."""

import zipfile
from pathlib import Path
from typing import Literal

from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.sizes import sizes
from diffusionblocks.data.text.source import TextSet, text_set
from diffusionblocks.data.text.tokens import Characters

ENDS = (90_000_000, 95_000_000, 100_000_000)  # where training, validation and test text end


@sizes(train_tokens=90_000_000, vocab_size=27)
def text8(
    data_dir: str | Path,
    *,
    seq_len: int = 256,
    test_size: int = 0,
    split: Literal["test", "validation"] = "test",
    windows: Literal["tiled", "any"] = "tiled",
) -> TextSet:
    """The first 90% for training, 5% for validation, 5% for the test. windows: `any` trains as MD4 does."""
    with zipfile.ZipFile(fetch(ARCHIVES["text8"], data_dir)) as archive:
        text = archive.read("text8").decode("ascii")
    train, validation, test = text[: ENDS[0]], text[ENDS[0] : ENDS[1]], text[ENDS[1] :]
    documents = [("train", train), ("test", test if split == "test" else validation)]
    return text_set("text8", split, Characters(), seq_len, test_size, documents, windows)

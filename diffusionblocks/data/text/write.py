"""Text sets -> prepared files: documents packed into sequences of one length, and written as they come. No torch.

Packing is that of MDLM and BD3-LM: documents one after another, each ended by EOS, and every sequence begins with BOS,
so that the first token, which nothing foretells, says nothing. Characters have neither (text8 as in MD4).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from diffusionblocks.base.files import UserError, atomic
from diffusionblocks.data.text.source import TextSet, Tokenizer

SPLITS = ("train", "test", "teacher")
BATCH = 1 << 20  # characters that are turned into tokens at a time
COMPARED = 1000  # documents at the start of each split that are looked for in the other
HEADER = 1 << 14  # bytes set aside for a file's header, which is known when all else is written
DTYPES = {np.uint8: "U8", np.int16: "I16", np.int32: "I32"}  # torch indexes int16, and not every uint16; 32,000 fit


def packed(
    documents: Iterable[tuple[str, str]], tokenizer: Tokenizer, seq_len: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Iterator over (split, tokens (k, seq_len)) from one over (split, text); a split's last tokens are dropped."""
    start, rest = list(tokenizer.start), {}
    step = seq_len - len(start)
    for texts in _batches(documents):
        for split, part in texts.items():
            tokens = tokenizer.encode(part)
            if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size:
                raise UserError(
                    f"tokenizer {tokenizer.about['title']!r}: gives tokens from {tokens.min()} to {tokens.max()}, and "
                    f"its vocab_size is {tokenizer.vocab_size}"
                )
            tokens = np.concatenate([rest.get(split, tokens[:0]), tokens])
            count = len(tokens) // step
            sequences = np.empty((count, seq_len), tokens.dtype)
            sequences[:, : len(start)] = start
            sequences[:, len(start) :] = tokens[: count * step].reshape(count, step)
            rest[split] = tokens[count * step :]
            yield split, sequences


def _batches(documents):
    """Iterator over {split: texts}, BATCH characters together."""
    texts, size = {}, 0
    for split, text in documents:
        if split not in SPLITS or not isinstance(text, str):
            raise UserError(f"documents should be texts, each behind {' or '.join(SPLITS)}, not {(split, text)!r:.80}")
        texts.setdefault(split, []).append(text)
        size += len(text)
        if size >= BATCH:
            yield texts
            texts, size = {}, 0
    yield texts


def _noted(documents, first):
    """The documents, whose first ones are noted in `first`: {split: hashes of texts}."""
    for split, text in documents:
        if split in SPLITS and len(noted := first.setdefault(split, set())) < COMPARED:
            noted.add(hash(text))
        yield split, text


class Spread:
    """At most `limit` of all sequences that are added, evenly spread over them; 0 keeps all."""

    def __init__(self, limit: int):
        self._limit, self._step, self._seen, self._kept = limit, 1, 0, []

    def add(self, sequences: np.ndarray) -> None:
        self._kept += [sequence.copy() for sequence in sequences[-self._seen % self._step :: self._step]]
        self._seen += len(sequences)
        while self._limit and len(self._kept) >= 2 * self._limit:  # of a corpus of any size, this many are held
            self._kept, self._step = self._kept[::2], 2 * self._step

    def chosen(self) -> list[np.ndarray]:
        count = min(self._limit or len(self._kept), len(self._kept))
        return [self._kept[index * len(self._kept) // count] for index in range(count)]


def write(path: str | Path, found: TextSet, shards: Sequence = ()) -> None:
    """Write a set of texts (safetensors), training sequences as they come. shards: none, of texts.

    9 billion tokens of OpenWebText are 18 GB, and the libraries' writers hold all of a tensor in memory. A header may
    end in spaces, so it is written last, into bytes left free for it. Raises UserError when a split has no sequence,
    and when it is clear that test documents are trained on.
    """
    tokenizer, seq_len = found["tokenizer"], found["seq_len"]
    dtype = next(dtype for dtype in DTYPES if tokenizer.vocab_size <= np.iinfo(dtype).max + 1)
    others, sizes = {"test": Spread(found["test_size"]), "teacher": Spread(0)}, {"train": 0}
    first = {}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.seek(8 + HEADER)
        for split, sequences in packed(_noted(found["documents"], first), tokenizer, seq_len):
            if split == "train":
                file.write(sequences.astype(dtype))
                sizes["train"] += len(sequences)
            else:
                others[split].add(sequences)
        for split, spread in others.items():
            sequences = spread.chosen()
            sizes[split] = len(sequences)
            file.write(np.array(sequences, dtype))
        file.write(tokenizer.content)
        for split in SPLITS:
            if split not in first and split != "teacher":
                raise UserError(f"{found['title']} has no document for {split}: look at its files, or bring more")
            if split in first and not sizes[split]:
                raise UserError(
                    f"{found['title']} is too short for a {split} sequence of {seq_len} tokens: lower data.seq_len"
                )
        if first["test"] <= first["train"]:
            raise UserError(f"{found['title']}: its test documents are also training documents; keep them apart")
        about = {
            "kind": "text",
            "title": found["title"],
            "shape": {"vocab_size": tokenizer.vocab_size, "seq_len": seq_len},
            "train_size": sizes["train"],
            "test_size": sizes["test"],
            "tokenizer": tokenizer.about,
            "windows": found.get("windows", "tiled"),
        }
        tensors = {f"{split}_tokens": (dtype, [size, seq_len]) for split, size in sizes.items()}
        tensors["tokenizer"] = (np.uint8, [len(tokenizer.content)])
        file.seek(0)
        file.write(_header(tensors, about))


def _header(tensors, about):
    header, start = {"__metadata__": {"about": json.dumps(about, sort_keys=True)}}, 0
    for name, (dtype, shape) in tensors.items():
        stop = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, stop]}
        start = stop
    return HEADER.to_bytes(8, "little") + json.dumps(header).encode().ljust(HEADER)

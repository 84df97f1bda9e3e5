"""Texts as tokens: characters or subwords, packed into sequences of one length, and written as they come.

Packing is that of MDLM and BD3-LM: documents one after another, each ended by EOS, and every sequence begins with BOS,
so that the first token, which nothing foretells, says nothing. Characters have neither (text8 as in MD4).
"""

import hashlib
import json
import re

import numpy as np

from diffusionblocks.base.files import UserError, atomic

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BOS, EOS = "<s>", "</s>"  # Llama 2's names
BATCH = 1 << 20  # characters that are turned into tokens at a time
HEADER = 1 << 14  # bytes set aside for a file's header, which is known when all else is written
DTYPES = {np.uint8: "U8", np.int16: "I16", np.int32: "I32"}  # torch indexes int16, and not every uint16; 32,000 fit


def letters(text):
    """A text in text8's 27 symbols: lower case, digits spelled out, whatever else is a space."""
    text = re.sub("[0-9]", lambda digit: f" {DIGITS[int(digit[0])]} ", text.lower())
    return re.sub("[^a-z]+", " ", text).strip()


class Characters:
    """text8's tokens: a to z are 0 to 25, a space is 26. Documents bring their own separators."""

    vocab_size, start, content = len(ALPHABET), (), b""
    about = {"title": "characters", "alphabet": ALPHABET}  # noqa: RUF012 (nobody changes it)

    def encode(self, texts):
        """Tokens (n,) of all texts, which have no other characters."""
        codes = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
        return np.where(codes == ord(" "), np.uint8(26), codes - np.uint8(ord("a")))


class Subwords:
    """The tokenizer of a tokenizer.json that has the tokens <s> and </s>. Raises UserError, ending with `cure`."""

    def __init__(self, path, title, cure):
        from tokenizers import Tokenizer

        try:
            self.content = path.read_bytes()
            self._tokenizer = Tokenizer.from_str(self.content.decode())
            self._tokenizer.encode_special_tokens = True  # a </s> that a text spells out ends nothing
        except FileNotFoundError:
            raise UserError(f"{path}: no such file. {cure}") from None
        except Exception as error:  # the library raises nothing finer
            raise UserError(f"{path}: not a tokenizer ({error}). {cure}") from None
        bos, self._eos = (self._tokenizer.token_to_id(token) for token in (BOS, EOS))
        if bos is None or self._eos is None:
            raise UserError(f"{path}: has no tokens {BOS} and {EOS}. {cure}")
        self.vocab_size, self.start = self._tokenizer.get_vocab_size(), (bos,)
        self.about = {"title": title, "eos": self._eos, "sha256": hashlib.sha256(self.content).hexdigest()}

    def encode(self, texts):
        """Tokens (n,) of all texts, each ended by EOS."""
        tokens = []
        for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            tokens += found.ids
            tokens.append(self._eos)
        return np.array(tokens, np.int32)


def train_bpe(documents, vocab_size):
    """A byte-level BPE of `vocab_size` tokens, <s> and </s> first, as the text of a tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer.to_str()


def packed(documents, tokenizer, seq_len):
    """Iterator over (split, tokens (k, seq_len)) from one over (split, text); a split's last tokens are dropped."""
    start, rest = list(tokenizer.start), {}
    step = seq_len - len(start)
    for texts in _batches(documents):
        for split, part in texts.items():
            tokens = tokenizer.encode(part)
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
        texts.setdefault(split, []).append(text)
        size += len(text)
        if size >= BATCH:
            yield texts
            texts, size = {}, 0
    yield texts


class Spread:
    """At most `limit` of all sequences that are added, evenly spread over them; 0 keeps all."""

    def __init__(self, limit):
        self._limit, self._step, self._seen, self._kept = limit, 1, 0, []

    def add(self, sequences):
        self._kept += [sequence.copy() for sequence in sequences[-self._seen % self._step :: self._step]]
        self._seen += len(sequences)
        while self._limit and len(self._kept) >= 2 * self._limit:  # of a corpus of any size, this many are held
            self._kept, self._step = self._kept[::2], 2 * self._step

    def chosen(self):
        count = min(self._limit or len(self._kept), len(self._kept))
        return [self._kept[index * len(self._kept) // count] for index in range(count)]


def write(path, found):
    """Write what a source of texts found (safetensors), training sequences as they come.

    9 billion tokens of OpenWebText are 18 GB, and the libraries' writers hold all of a tensor in memory. A header may
    end in spaces, so it is written last, into bytes left free for it. Raises UserError when a split has no sequence.
    """
    tokenizer, seq_len = found["tokenizer"], found["seq_len"]
    dtype = next(dtype for dtype in DTYPES if tokenizer.vocab_size <= np.iinfo(dtype).max + 1)
    others, sizes = {"test": Spread(found["test_size"]), "teacher": Spread(0)}, {"train": 0}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.seek(8 + HEADER)
        for split, sequences in packed(found["documents"], tokenizer, seq_len):
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
        for split in ("train", "test"):
            if not sizes[split]:
                raise UserError(
                    f"{found['title']} is too short for a {split} sequence of {seq_len} tokens: lower data.seq_len"
                )
        about = {
            "kind": "text",
            "title": found["title"],
            "shape": {"vocab_size": tokenizer.vocab_size, "seq_len": seq_len},
            "train_size": sizes["train"],
            "test_size": sizes["test"],
            "tokenizer": tokenizer.about,
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

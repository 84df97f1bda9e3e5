"""A prepared text data set: sequences of tokens on the device, and their way back to text."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusionblocks.base import tensors

CURE = "Delete it and run prepare again."
RESIDENT = 4 << 30  # bytes; a larger training set stays in its file, which the system keeps in memory as far as it fits


class Text:
    """Tokens of a prepared data set.

    title: what the data really are. shape: vocab_size, seq_len. Tokens lie on `device` in the file's small integers;
    they are loaded when first asked for. Raises UserError when the file is absent or damaged.
    """

    def __init__(self, path: str | Path, device: torch.device | str):
        self.about = tensors.about(path, CURE)
        self.title, self.shape = self.about["title"], self.about["shape"]
        self.train_size, self.test_size = self.about["train_size"], self.about["test_size"]
        self._path, self._device, self._loaded = path, torch.device(device), {}

    @cached_property
    def _file(self):
        return tensors.read(self._path, CURE)[0]  # mapped: what nobody looks at is not read

    def _tokens(self, split):
        if split not in self._loaded:
            tokens = self._file[f"{split}_tokens"]
            self._loaded[split] = tokens if tokens.nbytes > RESIDENT else tokens.to(self._device)
        return self._loaded[split]

    @property
    def bytes(self) -> int:
        """Bytes of the tokens that were asked for and lie on the device."""
        return sum(tokens.nbytes for tokens in self._loaded.values() if tokens.device.type == self._device.type)

    @property
    def train_device(self) -> torch.device:
        """Where the training tokens lie, and their indices belong."""
        return self._tokens("train").device

    @property
    def test_tokens(self) -> Tensor:
        """(test_size, seq_len)."""
        return self._tokens("test")

    @property
    def teacher_tokens(self) -> Tensor:
        """(m, seq_len), of documents in neither split; of the paper's data sets there are none."""
        return self._tokens("teacher")

    def train_batch(self, indices: Tensor, augmentations: Sequence[str] = ()) -> dict[str, Tensor]:
        """Batch of training sequences `indices` (a tensor on `train_device`): tokens (N, seq_len).

        Where the set's windows are `any`, sequence i begins 0 to seq_len - 1 tokens after where it does otherwise, so
        that an epoch still sees all of the text once; the offset is drawn. augmentations: as of images, and always
        none: planning allows no others.
        """
        tokens = self._tokens("train")
        if self.about.get("windows") == "any":
            seq_len = tokens.shape[1]
            starts = indices * seq_len + torch.randint_like(indices, seq_len)
            starts = starts.clamp(max=(len(tokens) - 1) * seq_len)  # what follows the last sequence is not kept
            tokens, indices = tokens.view(-1), starts[:, None] + torch.arange(seq_len, device=indices.device)
        return {"tokens": tokens[indices].to(self._device).long()}

    def test_batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """All test sequences in order, the last partial batch included."""
        for tokens in self.test_tokens.split(batch_size):
            yield {"tokens": tokens.long()}

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of token sequences (N, n): a list of N. Where a document ends and another begins is a line break."""
        if alphabet := self.about["tokenizer"].get("alphabet"):
            return ["".join(alphabet[index] for index in sequence) for sequence in tokens.tolist()]
        eos, parts, counts = self.about["tokenizer"]["eos"], [], []
        for sequence in tokens.tolist():
            ends = [index for index, token in enumerate(sequence) if token == eos]
            bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(sequence)], strict=True)
            parts += [sequence[start:stop] for start, stop in bounds]
            counts.append(len(ends) + 1)
        texts = iter(self._tokenizer.decode_batch(parts))  # without <s>
        return ["\n".join(next(texts) for _ in range(count)) for count in counts]

    @cached_property
    def _tokenizer(self):
        from tokenizers import Tokenizer

        return Tokenizer.from_str(bytes(self._file["tokenizer"].tolist()).decode())

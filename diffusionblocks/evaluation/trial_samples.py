"""A few random samples in the place of a prepared data set, for `trial`."""

from collections.abc import Iterator

import torch

CPU = torch.device("cpu")


class Images:
    """20 random images, two of each class, as `data.images.dataset.Images` would hand them out."""

    title, shape = "random images", {"image_size": 8, "channels": 1, "num_classes": 10}
    train_size = test_size = 20
    train_device = CPU

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randint(256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
        self.train_labels = self.test_labels = torch.arange(20) % 10

    def train_batch(self, indices: torch.Tensor, augmentations=()) -> dict[str, torch.Tensor]:
        """image and signed (N, 1, 8, 8), label (N,), of the images `indices`."""
        signed = self._images[indices] / 127.5 - 1
        return {"image": signed / 0.6, "signed": signed, "label": self.train_labels[indices]}

    def test_batches(self, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
        """All images once."""
        for indices in torch.arange(20).split(batch_size):
            yield self.train_batch(indices)

    def pixels(self) -> torch.Tensor:
        """Two images (2, 1, 8, 8), uint8."""
        return self._images[:2]


class Texts:
    """20 random sequences of six tokens, as `data.text.dataset.Text` would hand them out."""

    title, shape = "random texts", {"vocab_size": 11, "seq_len": 6}
    train_size = test_size = 20
    train_device = CPU

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.train_tokens = self.test_tokens = self.teacher_tokens = torch.randint(11, (20, 6), generator=generator)

    def train_batch(self, indices: torch.Tensor, augmentations=()) -> dict[str, torch.Tensor]:
        """tokens (N, 6) of the sequences `indices`."""
        return {"tokens": self.train_tokens[indices]}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Each token as a word of one letter."""
        return ["".join(f"{'abcdefghijk'[token]} " for token in sequence) for sequence in tokens.tolist()]

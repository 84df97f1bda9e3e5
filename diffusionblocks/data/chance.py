"""Chance in the shape of a data set: enough to time an update, or to count it, with no data at hand."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Chance:
    """One batch, in place of an Images or a Text. shape: as the data set's; it decides which of the two."""

    def __init__(self, shape: dict, batch_size: int, device: torch.device | str):
        self.shape, self.train_size, self.train_device = shape, batch_size, torch.device(device)
        self.train_labels = torch.empty(0, dtype=torch.long, device="cpu")  # no class has images to start from
        if "vocab_size" in shape:
            self._values = {"tokens": torch.randint(shape["vocab_size"], (batch_size, shape["seq_len"]), device=device)}
        else:
            size = (batch_size, shape["channels"], shape["image_size"], shape["image_size"])
            images = torch.rand(size, device=device)
            labels = torch.randint(shape["num_classes"], (batch_size,), device=device)
            self._values = {"image": images, "signed": images * 2 - 1, "label": labels}

    def train_batch(self, indices: Tensor, augmentations: Sequence[str] = ()) -> dict[str, Tensor]:
        """The samples `indices`, as they are."""
        return {name: value[indices] for name, value in self._values.items()}

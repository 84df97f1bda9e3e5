"""A prepared image data set on the device: whole, as bytes or latents, batched and augmented there."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.augment import augment

CURE = "Delete it and run prepare again."


class Images:
    """Images and labels of a prepared data set.

    title: what the data really are. shape: image_size, channels, num_classes. Images lie on `device` as uint8, or as
    float16 if they are latents, so a batch costs an index and no transfer; they are loaded when first asked for. Raises
    UserError when the file is absent or damaged.
    """

    def __init__(self, path: str | Path, device: torch.device | str):
        self.about = tensors.about(path, CURE)
        self.title, self.shape = self.about["title"], self.about["shape"]
        self.train_size, self.test_size = self.about["train_size"], self.about["test_size"]
        self._mean, self._std = (
            torch.tensor(self.about[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std")
        )
        self._latents, self._path, self._device = self.about.get("latents"), path, device

    @cached_property
    def _tensors(self):
        return tensors.read(self._path, CURE, self._device)[0]

    @property
    def bytes(self) -> int:
        """Bytes of the images and labels on the device."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def train_device(self) -> torch.device:
        """Where the training images lie, and their indices belong."""
        return self._tensors["train_images"].device

    @property
    def train_labels(self) -> Tensor:
        return self._tensors["train_labels"]

    @property
    def test_labels(self) -> Tensor:
        return self._tensors["test_labels"]

    def train_batch(self, indices: Tensor, augmentations: Sequence[str] = ()) -> dict[str, Tensor]:
        """Batch of training images `indices` (a tensor on the device): image, signed (N, C, H, W), label (N,).

        image is normalised by channel, signed lies in [-1, 1]; for latents, of which planning allows no augmentations,
        both are the latent.
        """
        images = self._tensors["train_images"][indices]
        return self._batch(augment(images, augmentations), self._tensors["train_labels"][indices])

    def test_batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """All test images in order, the last partial batch included."""
        if self._latents:
            raise UserError(f"{self._path}: {self.title} has no latents of its test images, so no metric can use them")
        for images, labels in zip(
            self._tensors["test_images"].split(batch_size), self.test_labels.split(batch_size), strict=True
        ):
            yield self._batch(images, labels)

    def _batch(self, images, labels):
        if self._latents:
            latents = images.float()
            return {"image": latents, "signed": latents, "label": labels}
        return {"image": (images / 255 - self._mean) / self._std, "signed": images / 255 * 2 - 1, "label": labels}

"""A prepared image data set on the device: whole, as bytes, batched and augmented there."""

import torch

from diffusionblocks import tensors
from diffusionblocks.data.augment import augment


class Images:
    """Images and labels of a prepared data set.

    title: what the data really are. shape: image_size, channels, num_classes. Images lie on `device` as uint8, so a
    batch costs an index and no transfer. Raises UserError when the file is absent or damaged.
    """

    def __init__(self, path, device):
        self._tensors, self.about = tensors.read(path, "Delete it and run prepare again.", device)
        self.title, self.shape = self.about["title"], self.about["shape"]
        self.train_size, self.test_size = self.about["train_size"], self.about["test_size"]
        self._mean, self._std = (
            torch.tensor(self.about[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std")
        )

    @property
    def test_labels(self):
        return self._tensors["test_labels"]

    def train_batch(self, indices, augmentations=()):
        """Batch of training images `indices` (a tensor on the device): image (N, C, H, W) normalised, label (N,)."""
        images = augment(self._tensors["train_images"][indices], augmentations)
        return {"image": self._normalise(images), "label": self._tensors["train_labels"][indices]}

    def test_batches(self, batch_size):
        """All test images in order, the last partial batch included."""
        for images, labels in zip(
            self._tensors["test_images"].split(batch_size), self.test_labels.split(batch_size), strict=True
        ):
            yield {"image": self._normalise(images), "label": labels}

    def _normalise(self, images):
        return (images / 255 - self._mean) / self._std

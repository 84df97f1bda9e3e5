"""A prepared image data set on the device: whole, as bytes or latents, batched and augmented there."""

from pathlib import Path

import torch

from diffusionblocks import tensors
from diffusionblocks.data.augment import augment
from diffusionblocks.files import UserError


class Images:
    """Images and labels of a prepared data set.

    title: what the data really are. shape: image_size, channels, num_classes. Images lie on `device` as uint8, or as
    float16 if they are latents, so a batch costs an index and no transfer. data_dir: where latents find their
    autoencoder and the pixels they were made from. Raises UserError when the file is absent or damaged.
    """

    def __init__(self, path, device, data_dir=None):
        self._tensors, self.about = tensors.read(path, "Delete it and run prepare again.", device)
        self.title, self.shape = self.about["title"], self.about["shape"]
        self.train_size, self.test_size = self.about["train_size"], self.about["test_size"]
        self._mean, self._std = (
            torch.tensor(self.about[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std")
        )
        self._latents, self._vae = self.about.get("latents"), None
        self._path, self._device, self._data_dir = path, device, data_dir

    @property
    def test_labels(self):
        return self._tensors["test_labels"]

    def train_batch(self, indices, augmentations=()):
        """Batch of training images `indices` (a tensor on the device): image, signed (N, C, H, W), label (N,).

        image is normalised by channel, signed lies in [-1, 1]; for latents both are the latent.
        """
        images = self._tensors["train_images"][indices]
        if augmentations and self._latents:
            raise UserError(
                f"config: train.augment: {self.title} is latents, of which {', '.join(augmentations)} makes no latents "
                "of images. Set train.augment to []."
            )
        return self._batch(augment(images, augmentations), self._tensors["train_labels"][indices])

    def test_batches(self, batch_size):
        """All test images in order, the last partial batch included."""
        if self._latents:
            raise UserError(f"{self._path}: {self.title} has no latents of its test images, so no metric can use them")
        for images, labels in zip(
            self._tensors["test_images"].split(batch_size), self.test_labels.split(batch_size), strict=True
        ):
            yield self._batch(images, labels)

    def pixels(self, split, batch_size=500):
        """All images of `split` (train or test) in order: batches (N, C, H, W) uint8 on the CPU."""
        if not self._latents:
            return (images.cpu() for images in self._tensors[f"{split}_images"].split(batch_size))
        from diffusionblocks.data.latents import folder_images

        root = Path(self._needed_data_dir()) / self._latents["folder"] / {"train": "train", "test": "val"}[split]
        return folder_images(root, self._latents["image_size"], batch_size)

    def decode(self, z):
        """Images (N, C, H, W) uint8 on the CPU, of denoised images in [-1, 1] or latents on any device."""
        if not self._latents:
            return ((z + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        from diffusionblocks.data.latents import VAE

        self._vae = self._vae or VAE(self._needed_data_dir(), self._device)
        return self._vae.decode(z)

    def _needed_data_dir(self):
        if self._data_dir is None:
            raise UserError(f"{self._path}: {self.title} is latents: give the folder of their images as --data-dir")
        return self._data_dir

    def _batch(self, images, labels):
        if self._latents:
            latents = images.float()
            return {"image": latents, "signed": latents, "label": labels}
        return {"image": (images / 255 - self._mean) / self._std, "signed": images / 255 * 2 - 1, "label": labels}

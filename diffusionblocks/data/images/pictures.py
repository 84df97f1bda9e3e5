"""Images as pixels, for generation and its measurement; training has no need of them, nor of this file."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.dataset import Images
from diffusionblocks.data.images.latents import VAE, folder_images, to_uint8


class Pictures(Images):
    """A prepared data set with its way back to pixels.

    data_dir: where latents find their autoencoder and the images they were made from.
    """

    def __init__(self, path: str | Path, device: torch.device | str, data_dir: str | Path | None = None):
        super().__init__(path, device)
        self._data_dir = data_dir

    def pixels(self, split: str, batch_size: int = 500) -> Iterator[Tensor]:
        """All images of `split` (train or test) in order: batches (N, C, H, W) uint8 on the CPU."""
        if not self._latents:
            return (images.cpu() for images in self._tensors[f"{split}_images"].split(batch_size))
        root = Path(self._needed_data_dir()) / self._latents["folder"] / {"train": "train", "test": "val"}[split]
        return folder_images(root, self._latents["image_size"], batch_size)

    def decode(self, z: Tensor) -> Tensor:
        """Images (N, C, H, W) uint8 on the CPU, of denoised images in [-1, 1] or latents on any device."""
        return self._vae.decode(z) if self._latents else to_uint8(z).cpu()

    @cached_property
    def _vae(self):
        return VAE(self._needed_data_dir(), self._device)

    def _needed_data_dir(self):
        if self._data_dir is None:
            raise UserError(f"{self._path}: {self.title} is latents: give the folder of their images as --data-dir")
        return self._data_dir

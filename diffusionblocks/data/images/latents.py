"""Images of a folder as pixels, and the autoencoder of Stable Diffusion (sd-vae-ft-ema) that makes latents of them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffusionblocks.base.compat import autoencoder_kl
from diffusionblocks.base.cores import cores
from diffusionblocks.base.files import UserError
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.images import folder

NAME = "sd-vae-ft-ema"
BATCH = 16  # images at once in the autoencoder


def autoencoder_files(data_dir: str | Path) -> tuple[Path, dict]:
    """(folder of the autoencoder's files, fetched if need be; what identifies it)."""
    there = Path(data_dir) / NAME
    for key in ("vae_config", "vae_weights"):
        fetch(ARCHIVES[key], there)
    return there, {"name": f"stabilityai/{NAME}", "sha256": ARCHIVES["vae_weights"].sha256}


class VAE:
    """The autoencoder on a device. Latents are scaled: z = `scale` times a posterior sample."""

    def __init__(self, data_dir, device):
        there, self.about = autoencoder_files(data_dir)
        network = autoencoder_class().from_pretrained(
            there, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
        self._network, self._device = network.eval().requires_grad_(False).to(device), device
        self.scale, self.channels = network.config.scaling_factor, network.config.latent_channels
        self.factor = 2 ** (len(network.config.block_out_channels) - 1)  # pixels by latent, in each direction

    @torch.no_grad()
    def encode(self, images: Tensor, indices: Iterable[int]) -> Tensor:
        """Latents (N, C, H, W) of images (N, 3, S, S) uint8, one posterior sample each.

        indices: numbers of the images in their set. Each seeds its image's noise, so batches and shards do not matter.
        """
        posterior = self._network.encode(images.to(self._device) / 127.5 - 1).latent_dist
        shape = posterior.mean.shape[1:]
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(index))) for index in indices]
        return self.scale * (posterior.mean + posterior.std * torch.stack(noise).to(self._device))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images (N, 3, S, S) uint8 on the CPU, of latents on any device."""
        return torch.cat([self._decode(part.to(self._device, torch.float32)) for part in z.split(BATCH)])

    def _decode(self, z):
        return to_uint8(self._network.decode(z / self.scale).sample).cpu()


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def autoencoder_class():
    """The class AutoencoderKL. diffusers comes only here."""
    try:
        return autoencoder_kl()
    except ImportError as error:
        raise UserError(
            f"diffusers cannot be imported ({error}). Install it: pip install -c constraints.txt -e '.[latents]'"
        ) from None


class _Crops(Dataset):
    """Cropped images; an unreadable one is its UserError, for an error raised in a worker loses its plain message."""

    def __init__(self, paths, size):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            return folder.crop(self.paths[index], self.size)
        except UserError as error:
            return error


def batches(paths: Sequence[Path], size: int, batch_size: int) -> Iterator[Tensor]:
    """Iterator over the images of these files in their order, centre-cropped: (N, 3, size, size) uint8 on the CPU.

    The files are read by one process for each core that this one may use.
    """
    workers = min(cores(), -(-len(paths) // batch_size))
    for images in DataLoader(_Crops(paths, size), batch_size, num_workers=workers, collate_fn=_together):
        if isinstance(images, UserError):
            raise images
        yield torch.from_numpy(images)


def _together(items):
    """One batch, or the first error. As an array, which comes through a pipe: torch would send its tensors by /dev/shm,

    of which a container has 64 MB, and 500 images of 256 pixels take 98.
    """
    return next((item for item in items if isinstance(item, UserError)), None) or np.stack(items)


def folder_images(root: str | Path, size: int, batch_size: int = 500) -> Iterator[Tensor]:
    """Iterator over all images of a folder as `batches`, in the order of its listing."""
    found = folder.listing(root)
    return batches([found.root / file for file in found.files], size, batch_size)

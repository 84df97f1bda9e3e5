"""One shard of a data set's training images as latents: the share of one job, in contiguous ranges of the listing."""

from pathlib import Path

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.folder import fingerprint
from diffusionblocks.data.images.latents import BATCH, VAE, batches
from diffusionblocks.data.source import call_source


def encode(section: dict, shard: int, data_dir: str | Path, path: str | Path) -> None:
    """Write shard number `shard` of the data set of a run's `data` section to `path`.

    Latents (n, C, H, W), float16, and labels (n,), int64. Raises UserError for a set that is not encoded, a shard that
    it does not have, and an image that cannot be read.
    """
    device = pick_device()
    kind, found = call_source(section, data_dir)
    if kind != "LatentSet":
        raise UserError(f"data {section['name']!r} is not encoded as latents: `prepare` needs no shards of it")
    train, shards, size = found["train"], found["shards"], found["image_size"]
    if not 0 <= shard < shards:
        raise UserError(f"shard {shard}: data {section['name']!r} has the shards 0 to {shards - 1}")
    vae = VAE(data_dir, device)
    if size % vae.factor:
        raise UserError(f"config: data.image_size {size} is not a multiple of {vae.factor}, as the autoencoder needs")

    start, stop = (len(train.files) * number // shards for number in (shard, shard + 1))
    side = size // vae.factor
    latents = torch.empty(stop - start, vae.channels, side, side, dtype=torch.float16)
    done = 0
    for images in batches([train.root / file for file in train.files[start:stop]], size, BATCH):
        indices = range(start + done, start + done + len(images))
        latents[done : done + len(images)] = vae.encode(images, indices).half().cpu()
        done += len(images)
    about = {
        "start": start,
        "files": fingerprint(train.files),
        "latents": {"vae": vae.about, "scale": vae.scale, "image_size": size, "folder": found["folder"]},
    }
    tensors.write(path, {"latents": latents, "labels": torch.from_numpy(train.labels[start:stop])}, about)

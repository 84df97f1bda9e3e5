"""The network whose features FID compares: its weights, obtained once for a data set, and its features of images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.sections import load_section
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.scorers.weights import write_weights


def extractor(section: dict, data_path: str | Path, data_dir: str | Path, path: str | Path) -> None:
    """Write the weights of the `extractor` section's network, fetched, unpacked or trained on the data set."""
    write_weights("extractor", section, Pictures(data_path, pick_device(), data_dir), data_dir, path)


def load_extractor(path: str | Path, device: torch.device) -> tuple[Callable, dict]:
    """(network on the device, what is known of it) from a file that `extractor` wrote."""
    weights, about = tensors.read(path, "Delete it and start again: it is obtained anew.", device)
    network = load_section("extractor", about["section"]).build(weights)
    return network.to(device) if isinstance(network, nn.Module) else network, about


@torch.inference_mode()
def extract(network: Callable, images: Tensor, device: torch.device, batch_size: int = 500) -> Tensor:
    """Features (N, D) on the device of uint8 images (N, C, H, W)."""
    return torch.cat([network(batch.to(device)).float() for batch in images.split(batch_size)])

"""Inception-v3 behind clean-fid's resizing, by which the paper (v4) measures FID to the test images."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusionblocks.base.compat import fidelity_inception
from diffusionblocks.base.cores import cores
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.scorers.extractors.base import Adapted, Extractor, rgb

SIDE = 299  # pixels, of what Inception-v3 sees


def inception_v3_clean() -> Extractor:
    """The network of `inception_v3_compat`, of images resized to 299 x 299 as clean-fid does (Parmar et al. 2022).

    FIDs are higher than those of `inception_v3_compat`, which resizes as TensorFlow 1 did: by 17 to 28% in clean-fid's
    own table of CIFAR-10.
    """

    def obtain(images, data_dir):
        return torch.load(fetch(ARCHIVES["inception_v3"], data_dir), map_location="cpu", weights_only=True), {}

    def build(weights):
        # Its own `forward` takes uint8 images alone and resizes them; the layers stand in the order in which it runs
        # them, the classifier last.
        layers = list(fidelity_inception(weights).children())[:-1]
        return Adapted(nn.Sequential(*layers, nn.Flatten()), lambda images: (rgb(resized(images)) - 128) / 128)

    return Extractor("Inception-v3 (clean)", obtain, build)


def resized(images: Tensor) -> Tensor:
    """Images (N, C, 299, 299), float32 in [0, 255] on their device, of uint8 ones (N, C, H, W): each channel by itself,

    by PIL's bicubic filter, which takes more pixels where it makes images smaller; clipped, and not rounded. A thread
    for each core that this process may use: 1 s of one for a thousand images.
    """
    channels = images.flatten(0, 1).cpu().numpy().astype(np.float32)
    with ThreadPoolExecutor(cores()) as pool:
        found = np.stack(list(pool.map(_bicubic, channels)))
    return torch.from_numpy(found).unflatten(0, images.shape[:2]).to(images.device)


def _bicubic(channel):
    return np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 255)

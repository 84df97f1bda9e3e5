"""Inception-v3, the paper's extractor."""

import torch

from diffusionblocks.base.compat import fidelity_inception
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.scorers.extractors.base import Adapted, Extractor, rgb


def inception_v3_compat() -> Extractor:
    """torch-fidelity's Inception-v3 with the TensorFlow weights of 2015: 2,048 pool features, as in the paper.

    Images are resized to 299 x 299 as TensorFlow 1 did; grey ones get three equal channels.
    """

    def obtain(images, data_dir):
        return torch.load(fetch(ARCHIVES["inception_v3"], data_dir), map_location="cpu", weights_only=True), {}

    def build(weights):
        network = fidelity_inception(weights)
        return Adapted(network, lambda images: rgb(images), lambda features: features[0])

    return Extractor("Inception-v3", obtain, build)

"""The real images' side of FID: an extractor's weights, and the statistics of the data set's features, made once."""

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.scorers import extractors
from diffusionblocks.scorers.fidelity import Statistics


def extractor(section, data_path, data_dir, path):
    """Write the weights of the `extractor` section's network, fetched, unpacked or trained on the data set."""
    images = Pictures(data_path, pick_device(), data_dir)
    chosen = _chosen(section)
    weights, about = chosen.obtain(images, data_dir)
    about = {"section": section, "title": chosen.title, "data": images.title, **about}
    tensors.write(path, {name: value.contiguous() for name, value in weights.items()}, about)


def reference(weights_path, data_path, data_dir, path):
    """Write mean, covariance and some features of the training and of the test images."""
    device = pick_device()
    images = Pictures(data_path, device, data_dir)
    network, about = load_extractor(weights_path, device)
    written, counts = {}, {}
    for split, size in (("train", images.train_size), ("test", images.test_size)):
        statistics = Statistics(size)
        for batch in images.pixels(split):
            statistics.add(extract(network, batch, device))
        written |= {f"{split}_{name}": value for name, value in statistics.tensors().items()}
        counts[split] = statistics.count
    tensors.write(path, written, {"data": images.title, "extractor": about, "counts": counts})


def load_extractor(path, device):
    """(network, what is known of it) from a file that `extractor` wrote."""
    weights, about = tensors.read(path, "Delete it and start again: it is obtained anew.")
    return _chosen(about["section"]).build(weights).to(device), about


@torch.inference_mode()
def extract(network, images, device, batch_size=500):
    """Features (N, D) on the device of uint8 images (N, C, H, W)."""
    return torch.cat([network(batch.to(device)).float() for batch in images.split(batch_size)])


def _chosen(section):
    keywords = {key: value for key, value in section.items() if key != "name"}
    return getattr(extractors, section["name"])(**keywords)

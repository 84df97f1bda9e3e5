"""A user's own architecture: layers that mix an image and its noisy label, plain and as a denoiser."""

import torch
from torch import nn
from torch.nn import functional as F

from diffusionblocks.layers.conditioning import Denoiser
from diffusionblocks.models import base


class Model(base.Model):
    """A residual MLP."""

    def __init__(self, shape, noise=None, target_norm=1.0, *, num_layers=3, width=16):
        super().__init__()
        self.noise, self.target_norm, self.z_shape = noise, target_norm, (width,)
        self.image = nn.Linear(shape["channels"] * shape["image_size"] ** 2, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(num_layers))
        self.head = nn.Linear(width, shape["num_classes"])
        if noise:
            self.labels = nn.Embedding(shape["num_classes"], width)
            self.noisy = nn.Linear(width + 1, width)

    def condition(self, batch):
        return self.image(batch["image"].flatten(1))

    def target(self, batch):
        return self.target_norm * F.normalize(self.labels.weight, dim=1)[batch["label"]]

    def predict(self, z, sigma, cond, layers):
        denoiser = Denoiser(self.noise, z, sigma)
        x = cond + self.noisy(torch.cat([denoiser.enters(), denoiser.c_noise[:, None]], dim=1))
        return self.read(x, layers)

    def read(self, x, layers):
        for layer in layers:
            x = x + layer(x)
        return self.head(x)

    def loss(self, logits, batch, z):
        return F.cross_entropy(logits, batch["label"], reduction="none")

    def to_z(self, logits):
        return logits.softmax(dim=1).to(self.labels.weight.dtype) @ F.normalize(self.labels.weight, dim=1)

    def end_to_end_prediction(self, batch):
        return self.read(self.condition(batch), self.layers)

    def end_to_end_loss(self, batch):
        return self.loss(self.end_to_end_prediction(batch), batch, None)

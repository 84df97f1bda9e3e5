"""NoProp's network for CIFAR (Li, Teh & Pascanu, arXiv:2503.24322, figure 6), which table 6 trains in five ways.

A layer is what NoProp calls a block: a whole small network that takes an image and a noisy label embedding and names
the class. Its sizes follow the figure; padding, which it does not state, keeps the size of the image.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.layers.conditioning import Denoiser, sinusoid
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.models import base

WIDTH = 256  # of each path, and of the first layer that joins them
TIME_FEATURES = 64
FIRST_GATE = 0.5  # NoProp names no initial value; tanh(0.5) takes about half of what is new


def convolutions(channels: int, image_size: int, dropout: float, last: nn.Module) -> nn.Sequential:
    """(N, C, H, H) -> (N, 256): three convolutions, two halvings, one linear map, and the module `last`."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Dropout(dropout),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(128 * (image_size // 4) ** 2, WIDTH), last,
    )  # fmt: skip


class Layer(nn.Module):
    """Class logits from an image, a noisy label embedding, and the time if it is told.

    z_image: sides of z if it is a prototype, an image itself. batch_norm: as in NoProp-DT; NoProp-CT and -FM have none,
    and a shorter path for the label.
    """

    def __init__(self, shape: dict, z_width: int, z_image: tuple | None, batch_norm: bool, timed: bool, dropout: float):
        super().__init__()

        def activated(width, inputs):
            return [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if batch_norm else []), nn.ReLU()]

        def path():
            last = nn.BatchNorm1d(WIDTH) if batch_norm else nn.ReLU()
            return convolutions(shape["channels"], shape["image_size"], dropout, last)

        self.image = path()
        self.label = (
            nn.Sequential(nn.Unflatten(1, z_image), path()) if z_image else nn.Sequential(*activated(WIDTH, z_width))
        )
        self.refine = None
        if batch_norm and not z_image:
            self.refine = nn.Sequential(*activated(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, WIDTH), nn.ReLU()) if timed else None
        self.fuse = nn.Sequential(
            *activated(WIDTH, (3 if timed else 2) * WIDTH), *activated(128, WIDTH), nn.Linear(128, shape["num_classes"])
        )

    def forward(self, seen: Tensor, z: Tensor, time: Tensor | None = None) -> Tensor:
        """Logits (N, num_classes). seen: what `image` makes of the image (N, 256); z: (N, d); time: (N,)."""
        label = self.label(z)
        if self.refine is not None:
            label = label + self.refine(label)
        paths = [seen, label] if self.time is None else [seen, label, self.time(sinusoid(time, TIME_FEATURES))]
        return self.fuse(torch.cat(paths, dim=1))


class Seen:
    """An image, and what each layer makes of it. It is computed when first asked for: a long chain looks once."""

    def __init__(self, image):
        self.image, self._features = image, {}

    def by(self, layer: Layer) -> Tensor:
        if layer not in self._features:
            self._features[layer] = layer.image(self.image)
        return self._features[layer]


class Model(base.Model):
    """`num_layers` of NoProp's blocks around one table of class embeddings.

    Without `noise` the network that is trained by backpropagation (`end_to_end`). With it each layer is a denoiser of
    the label embedding; `noise` says how z and its level enter. `timed: false` keeps the level from them (NoProp-DT).

    embedding: `one_hot`, fixed; `learned`, of width `embedding_dim`, orthogonal at first; `prototype`, learned, as
    large as an image, at first the training image of each class with the least median distance to its others.
    target_norm: length of the embeddings, or None: as long as they are.
    """

    def __init__(
        self,
        shape: dict,
        noise: Any = None,
        target_norm: float | None = None,
        *,
        num_layers: int = 10,
        embedding: Literal["one_hot", "learned", "prototype"] = "prototype",
        embedding_dim: int = 20,
        batch_norm: bool = True,
        timed: bool = True,
        dropout: float = 0.2,
    ):
        super().__init__()
        if shape["image_size"] % 4:
            raise ValueError(f"the image is halved twice, and its size {shape['image_size']} cannot be")
        self.noise, self.target_norm, self.timed = noise, target_norm, timed and noise is not None
        classes, z_image = shape["num_classes"], None
        if embedding == "one_hot":
            self.register_buffer("labels", torch.eye(classes))
        elif embedding == "learned":
            self.labels = nn.Parameter(nn.init.orthogonal_(torch.empty(classes, embedding_dim)))
        else:
            z_image = (shape["channels"], shape["image_size"], shape["image_size"])
            self.labels = nn.Parameter(torch.randn(classes, shape["channels"] * shape["image_size"] ** 2))
        self.has_prototypes = z_image is not None
        width = self.labels.shape[1]
        self.z_shape = (width,)
        self.layers = nn.ModuleList(
            Layer(shape, width, z_image, batch_norm, self.timed, dropout) for _ in range(num_layers)
        )
        # Who needs them: nobody but NoProp reads the class off the last z, and gates are the plain network's.
        self.head = nn.Linear(width, classes)
        self.gates = nn.Parameter(torch.full((num_layers,), FIRST_GATE)) if noise is None else None

    @torch.no_grad()
    def start_from(self, data: Any) -> None:
        """Take the prototypes from the training images, before the first update; a class without any keeps its own."""
        if self.has_prototypes:
            for label in data.train_labels.unique().tolist():
                images = data.train_batch((data.train_labels == label).nonzero()[:, 0])["image"].flatten(1)
                others = torch.cdist(images, images).sort(dim=1).values[:, 1:]  # without itself
                most_central = others[:, (len(images) - 2) // 2].argmin() if len(images) > 1 else 0  # the lower median
                self.labels[label] = images[most_central]

    # As denoisers

    def label_table(self) -> Tensor:
        """Class embeddings u (num_classes, d)."""
        return self.labels if self.target_norm is None else self.target_norm * F.normalize(self.labels, dim=1)

    def condition(self, batch: dict) -> Seen:
        """All that is known at inference: the image, and what layers have made of it."""
        return Seen(batch["image"])

    def target(self, batch: dict) -> Tensor:
        """Embeddings (N, d) of the true classes."""
        return self.label_table()[batch["label"]]

    def predict(self, z: Tensor, level: Tensor | None, cond: Seen, layers: nn.ModuleList) -> Tensor:
        """Class logits (N, num_classes) from the noisy embedding z (N, d) at levels (N,), by `layers` alone.

        Of several layers, each takes what the one before made of z for the embedding.
        """
        for layer in layers:
            seen, time = z, None
            if self.timed:
                denoiser = Denoiser(self.noise, z, level)
                seen, time = denoiser.enters(), denoiser.c_noise
            logits = layer(cond.by(layer), seen, time)
            z = self.to_z(logits)
        return logits

    def loss(self, logits: Tensor, batch: dict, z: Tensor | None) -> Tensor:
        """Cross-entropy of each sample (N,)."""
        return F.cross_entropy(at_least_single(logits), batch["label"], reduction="none")

    def to_z(self, logits: Tensor) -> Tensor:
        """The embedding that logits stand for, softmax(logits) U (N, d)."""
        return at_least_single(logits).softmax(dim=1) @ self.label_table()

    def classify(self, z: Tensor) -> Tensor:
        """Class logits (N, num_classes) of a clean embedding z (N, d)."""
        return self.head(z)

    # As the plain network

    def end_to_end_prediction(self, batch: dict) -> Tensor:
        """Class logits (N, num_classes) at the end of a chain from noise, each layer taking z a part of the way."""
        cond = self.condition(batch)
        z = torch.randn(len(batch["image"]), *self.z_shape, dtype=self.labels.dtype, device=batch["image"].device)
        for layer, gate in zip(self.layers, self.gates.tanh(), strict=True):
            z = (1 - gate) * z + gate * self.to_z(layer(cond.by(layer), z))
        return self.head(z)

    def end_to_end_loss(self, batch: dict) -> Tensor:
        """Cross-entropy of each sample (N,)."""
        return self.loss(self.end_to_end_prediction(batch), batch, None)

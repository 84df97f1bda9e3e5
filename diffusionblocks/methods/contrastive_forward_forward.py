"""Contrastive Forward-Forward (Aghagolzadeh & Ezoji, arXiv:2502.00571): every layer learns alone what is alike."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.chains import Step
from diffusionblocks.layers.precision import at_least_single, no_autocast
from diffusionblocks.methods import base


class Method(base.Method):
    """Train each layer on a supervised contrastive loss of its own, all at once, on two augmented views of each image.

    The answer is a linear read-out of the last layer's mean token. It is trained beside the layers, on a detached
    input, where the original trains it for 50 epochs after them.

    first_margin, last_margin: added to the cosine of two samples of a class in the first and the last layer, linear in
    between: the first layers are content with less. temperature: of the cosines' softmax.
    """

    needs = ("embed", "classify")  # of a network
    views = 2  # how often the trainer augments each image for a batch

    def __init__(
        self,
        network: base.Network,
        part: str | None = None,
        *,
        temperature: float = 0.15,
        first_margin: float = 0.4,
        last_margin: float = 0.1,
    ):
        super().__init__()
        model = network.build()
        self.temperature = temperature
        self.margins = torch.linspace(first_margin, last_margin, len(model.layers), device="cpu").tolist()
        self.models = nn.ModuleDict({"all": model})

    def _features(self, batch):
        """Yields each layer's tokens (N, T, D), with a gradient to this layer alone."""
        model = self.models["all"]
        x = model.embed(batch)
        for layer in model.layers:
            x = layer(x)
            yield x
            x = x.detach()

    def loss(self, batch: dict, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(sum of the layers' losses and the read-out's, mean loss of the layers for each sample (N,), None)."""
        layers = []
        for x, margin in zip(self._features(batch), self.margins, strict=True):
            layers.append(contrast(x.mean(1), batch["label"], margin, self.temperature))
        losses = torch.stack(layers)
        logits = self.models["all"].classify(x.detach())
        return (
            losses.mean(1).sum() + F.cross_entropy(at_least_single(logits), batch["label"]),
            losses.mean(0).detach(),
            None,
        )

    def predict(self, batch: dict, eps: Tensor | None = None) -> list[Step]:
        """The single Step of the read-out's logits (N, classes)."""
        *_, x = self._features(batch)
        return [Step(None, None, self.models["all"].classify(x))]


def contrast(features: Tensor, labels: Tensor, margin: float, temperature: float) -> Tensor:
    """Supervised contrastive loss (N,) of features (N, D): minus the mean log share of a sample's own class.

    margin is added to the cosines of samples of one class, which stay at most 1. A sample that has no other of its
    class in the batch has no loss.
    """
    with no_autocast(features.device):  # it would round the cosines to bfloat16
        features = F.normalize(at_least_single(features), dim=1)
        cosines = features @ features.T
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    alike = (labels[:, None] == labels) & ~itself
    cosines = torch.where(alike, (cosines + margin).clamp(max=1), cosines) / temperature
    shares = cosines.masked_fill(itself, -torch.inf).log_softmax(1)
    return -shares.where(alike, 0).sum(1) / alike.sum(1).clamp(min=1)

"""Forward-Forward (Hinton 2022, arXiv:2212.13345): every layer learns alone to be active for the right label.

Variants follow the script of Aghagolzadeh & Ezoji (arXiv:2502.00571) that the paper cites beside its 7.85 (table 1);
which script was run, and how it was adapted to 12 layers, the paper does not say.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.chains import Step
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.methods import base


class Method(base.Method):
    """Train each layer on a loss of its own, all at once; no gradient reaches an earlier layer.

    The label is a token in [CLS]'s place. A layer's goodness is the mean square of its mean patch token; it is pushed
    above `threshold` for the right label, below for a random wrong one. Labels are told apart by running all of them.

    variant: `as_released` draws for each class the one entry of a raw patch that marks it, so that classes can share a
    code (100 classes have about 42 codes at 48 values, which caps the accuracy), and scores a label by the last
    layer's goodness, which is what the script computes. `fixed` draws a dense token for each class, and sums the
    goodness of all layers but the first, which is what it means to.
    """

    needs = ("embed", "token_widths", "patch_token")  # of a network

    def __init__(
        self,
        network: base.Network,
        part: str | None = None,
        *,
        variant: Literal["as_released", "fixed"] = "fixed",
        threshold: float = 2.0,
    ):
        super().__init__()
        model = network.build()
        self.variant, self.threshold, self.num_classes = variant, threshold, network.shape["num_classes"]
        values, width = model.token_widths()
        if variant == "as_released":
            codes = F.one_hot(torch.randint(values, (self.num_classes,)), values).float()
        else:
            if len(model.layers) < 2:
                raise ValueError("variant fixed scores all layers but the first, and there is only one")
            codes = torch.randn(self.num_classes, width)
        self.register_buffer("codes", codes)
        self.models = nn.ModuleDict({"all": model})

    def _goodness(self, batch, labels):
        """Yields the goodness (N,) of each layer for `labels` (N,), with a gradient to this layer alone."""
        model = self.models["all"]
        token = self.codes[labels]
        if self.variant == "as_released":
            token = model.patch_token(token * batch["image"].max())
        x = model.embed(batch, token)
        for layer in model.layers:
            x = layer(x)
            yield at_least_single(x[:, 1:].mean(1)).square().mean(1)
            # Only the direction goes on, or the next layer would find its answer in the length.
            x = F.normalize(x.flatten(1), dim=1).view_as(x).detach()

    def loss(self, batch: dict, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(sum of the layers' losses, their mean for each sample (N,), None), logistic in goodness minus threshold."""
        labels = batch["label"]
        wrong = (labels + torch.randint_like(labels, 1, self.num_classes)) % self.num_classes
        both = {"image": torch.cat([batch["image"], batch["image"]])}
        layers = []
        for goodness in self._goodness(both, torch.cat([labels, wrong])):
            positive, negative = goodness.chunk(2)
            layers.append((F.softplus(self.threshold - positive) + F.softplus(negative - self.threshold)) / 2)
        losses = torch.stack(layers)
        return losses.mean(1).sum(), losses.mean(0).detach(), None

    def predict(self, batch: dict, eps: Tensor | None = None) -> list[Step]:
        """The single Step whose prediction is each label's score (N, classes), every label being run."""
        scores = []
        for label in range(self.num_classes):
            layers = list(self._goodness(batch, torch.full_like(batch["label"], label)))
            scores.append(layers[-1] if self.variant == "as_released" else sum(layers[1:]))
        return [Step(None, None, torch.stack(scores, dim=1))]

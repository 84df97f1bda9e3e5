"""Ordinary training: one network, one loss, gradients through every layer."""

import torch
from torch import Tensor, nn

from diffusionblocks.diffusion.chains import Step
from diffusionblocks.layers.vocabulary import nucleus
from diffusionblocks.methods import base


class Method(base.Method):
    """Train the plain network as a whole; it has one block, and its prediction is one network evaluation."""

    needs = ("end_to_end_loss", "end_to_end_prediction")  # of a network

    def __init__(self, network: base.Network, part: str | None = None):
        super().__init__()
        self.models = nn.ModuleDict({"all": network.build()})

    def loss(self, batch: dict, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(objective, logged values) of a batch; logged are per-sample losses (N,) and their levels, here none."""
        losses = self.models["all"].end_to_end_loss(batch)
        return losses.mean(), losses.detach(), None

    def predict(self, batch: dict, eps: Tensor | None = None) -> list[Step]:
        """The single Step of a network without noise."""
        return [Step(None, None, self.models["all"].end_to_end_prediction(batch))]

    def check_block(self, batch: dict, block: int) -> None:
        """Meet the network's own loss, then the method's."""
        model = self.models["all"]
        base.check_losses(model, "end_to_end_loss", base.meet(model, "end_to_end_loss", batch), base.size(batch))
        super().check_block(batch, block)
        if "tokens" not in batch and base.differ(batch):  # which are what is predicted, too
            images = {name: value for name, value in base.rolled(batch).items() if name in ("image", "signed")}
            training = model.training
            model.eval()
            wrong = {"batch": ({**batch, **images}, "gives the same for other images")}
            base.check_heeded(model, "end_to_end_loss", model.end_to_end_loss, {"batch": batch}, wrong)
            model.train(training)

    def extend(self, tokens: Tensor, eps: Tensor, draws: Tensor, *, top_p: float = 0.95) -> Tensor:
        """Texts (N, length) that go on from `tokens` (N, P), each token drawn from the network's distribution.

        eps: (N, length, width) standard normal, for networks whose state starts at random; draws: (N, length) uniforms
        in [0, 1), of which each picks its token. top_p: only the likeliest tokens that together have this probability
        are drawn (Holtzman et al. 2020).
        """
        length = draws.shape[1]
        model = self.models["all"]
        session = model.begin(tokens, model.layers, length, eps)
        while tokens.shape[1] < length:
            chosen = nucleus(session.predict().full().softmax(-1), draws[:, tokens.shape[1]], top_p)
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            session.append(chosen)
        return tokens

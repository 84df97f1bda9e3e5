"""NoProp (Li, Teh & Pascanu, arXiv:2503.24322): layers learn to denoise the label's embedding, without a forward pass.

The rows NoProp-DT, -CT and -FM of table 6. Formulas are those of the paper's first version.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.chains import Step
from diffusionblocks.diffusion.processes import check_process
from diffusionblocks.diffusion.variance_preserving import (
    AsItIs,
    LearnedSchedule,
    both_ends,
    corrupt,
    cosine_schedule,
    kl_to_noise,
    snr,
    step_coefficients,
)
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.methods import base

LONG_CHAIN = 1000  # simulated steps of CT and FM


class Method(base.Method):
    """Train a network whose layers denoise label embeddings.

    process: `discrete` (NoProp-DT), a chain of as many steps as there are layers, each step a layer of its own that
    learns alone; `continuous` (NoProp-CT), one layer for all times, its schedule learned; `flow_matching` (NoProp-FM),
    one layer for the velocity from noise to embedding. The embeddings and the read-out of the chain's end are shared.
    eta: weight of the denoising error; the paper has 0.1 for `discrete` and 1 for `continuous`.
    """

    needs = ("condition", "predict", "to_z", "target", "label_table", "classify")  # of a network

    def __init__(
        self,
        network: base.Network,
        part: str | None = None,
        *,
        process: Literal["discrete", "continuous", "flow_matching"] = "discrete",
        eta: float = 0.1,
    ):
        super().__init__()
        self.process, self.eta = process, eta
        model = network.build(noise=AsItIs(), **({"timed": False} if process == "discrete" else {}))
        self.models = nn.ModuleDict({"all": model})
        self.blocks = list(range(len(model.layers)))
        self.z_shape = model.z_shape
        check_process(process, len(model.layers))
        if process == "discrete":
            self.abar = cosine_schedule(len(model.layers)).tolist()
        elif process == "continuous":
            self.schedule = LearnedSchedule()

    def acting(self, block: int) -> tuple[nn.Module, nn.ModuleList]:
        """The network, and the block's one layer."""
        model = self.models["all"]
        return model, model.layers[block : block + 1]

    def loss(self, batch: dict, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(objective, error of the denoised embedding or velocity in squared length (N,), None) of one block."""
        model, u = self.models["all"], self.models["all"].target(batch)
        return {"discrete": self._discrete, "continuous": self._continuous, "flow_matching": self._flow_matching}[
            self.process
        ](model, batch, u, block)

    def _discrete(self, model, batch, u, block):
        # The layer of step t = block + 1 sees z_{t-1}.
        before, after = self.abar[block], self.abar[block + 1]
        z = corrupt(u, before, torch.randn_like(u))
        prediction = model.predict(z, None, model.condition(batch), self.acting(block)[1])
        weight = len(self.blocks) / 2 * self.eta * (snr(after) - snr(before))
        first = u.new_full((), self.abar[0])  # made where u is: a copy from the host would wait for the device
        return self._bound(model, batch, u, first, self.abar[-1], model.to_z(prediction), weight)

    def _continuous(self, model, batch, u, block):
        t = torch.rand(len(u), dtype=u.dtype, device=u.device, requires_grad=True)
        abar = self.schedule(t)
        (rate,) = torch.autograd.grad(snr(abar).sum(), t, create_graph=True)
        z = corrupt(u, abar, torch.randn_like(u))
        prediction = model.predict(z, t.detach(), model.condition(batch), model.layers)
        first, last = self.schedule(both_ends(t))
        return self._bound(model, batch, u, first, last, model.to_z(prediction), self.eta / 2 * rate)

    def _bound(self, model, batch, u, first, last, denoised, weight):
        """NoProp's objective: the end of the chain tells the class, its start is noise, and each step denoises.

        first, last: abar at the chain's ends; first a tensor of one number.
        """
        end = model.classify(corrupt(u, last, torch.randn_like(u)))
        start = kl_to_noise(u, first)
        errors = (denoised - u).square().sum(1)
        objective = F.cross_entropy(at_least_single(end), batch["label"]) + start.mean() + (weight * errors).mean()
        return objective, errors.detach(), None

    def _flow_matching(self, model, batch, u, block):
        noise, t = torch.randn_like(u), torch.rand(len(u), dtype=u.dtype, device=u.device)
        z = t[:, None] * u + (1 - t[:, None]) * noise
        velocity = self._velocity(model, z, t, model.condition(batch))
        errors = (velocity - (u - noise)).square().sum(1)
        objective = errors.mean()
        if u.requires_grad:  # embeddings that learn would all become one without an anchor
            end = model.classify(z + (1 - t[:, None]) * velocity)
            objective = objective + F.cross_entropy(at_least_single(end), batch["label"])
        return objective, errors.detach(), None

    def _velocity(self, model, z, t, cond):
        """What a layer says of dz/dt: logits U, without a softmax."""
        return at_least_single(model.predict(z, t, cond, model.layers)) @ model.label_table()

    def predict(self, batch: dict, eps: Tensor, *, num_steps: int | None = None) -> list[Step]:
        """The single Step of the class logits (N, classes) at the end of the chain from z_0 = eps (N, d).

        num_steps: of `continuous` and `flow_matching`, by default 1000; `discrete` has as many as layers. The noise of
        later steps is drawn anew.
        """
        model = self.models["all"]
        cond, z = model.condition(batch), eps
        if self.process == "flow_matching":
            steps = num_steps or LONG_CHAIN
            for i in range(steps):
                z = z + self._velocity(model, z, z.new_full((len(z),), i / steps), cond) / steps
            return [Step(None, None, -torch.cdist(z, model.label_table()).square())]  # the nearest embedding's class
        for i, (before, after, layers) in enumerate(chain := self._chain(model, num_steps)):
            a, b, c = step_coefficients(before, after)
            t = z.new_full((len(z),), i / len(chain))
            z = a * model.to_z(model.predict(z, t, cond, layers)) + b * z + c**0.5 * torch.randn_like(z)
        return [Step(None, None, model.classify(z))]

    def check_block(self, batch: dict, block: int) -> None:
        """Meet the block's loss, then `predict` with one argument changed at a time."""
        super().check_block(batch, block)
        model = self.models["all"]
        training = model.training
        model.eval()
        self._check_heeded(batch, block)
        model.train(training)

    @torch.no_grad()
    def _check_heeded(self, batch, block):
        """As that of DiffusionBlocks, of what this method looks at."""
        (model, layers), z0 = self.acting(block), self.models["all"].target(batch)
        level = None if self.process == "discrete" else z0.new_full((len(z0),), 0.5)
        given = {"z": torch.randn_like(z0), "level": level, "cond": model.condition(batch), "layers": layers}
        others = {"z": (torch.randn_like(z0), "gives the same for another z")}
        if level is not None and model.timed:
            others["level"] = (level / 2, "gives the same at every level")
        if base.differ(batch):
            others["cond"] = (model.condition(base.rolled(batch)), "gives the same under another condition")
        if len(self.blocks) > 1:
            others["layers"] = (self.acting((block + 1) % len(self.blocks))[1], "gives the same with other `layers`")
        base.check_heeded(model, "predict", lambda **given: model.to_z(model.predict(*given.values())), given, others)

    def check_chain(self, batch: dict) -> None:
        """Meet a short chain, where its length is free."""
        super().check_chain(batch, num_steps=None if self.process == "discrete" else 2)

    def _chain(self, model, num_steps):
        """[(abar before, abar after, layers)] of each step."""
        if self.process == "discrete":
            check_process(self.process, len(self.blocks), num_steps)
            abar, layers = self.abar, [model.layers[block : block + 1] for block in self.blocks]
        else:
            steps = num_steps or LONG_CHAIN
            times = torch.arange(steps + 1, device=next(model.parameters()).device) / steps
            abar, layers = self.schedule(times).tolist(), [model.layers] * steps
        return list(zip(abar[:-1], abar[1:], layers, strict=True))

"""What metrics of text models are computed from: scores of the test set, its likelihood, or generated texts."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.evaluation.inputs import source_of
from diffusionblocks.evaluation.update_cost import DRAWS, update_cost
from diffusionblocks.evaluation.written import Written
from diffusionblocks.methods.base import Method

BATCH = 50
LEVELS = 24  # intervals of t over which the likelihood is shown
GOLDEN = 0.6180339887498949  # multiples of it fill [0, 1) evenly, however many there are


class Inputs:
    """Everything is computed when a metric first asks for it, and once for all metrics that agree in `sampling`.

    sample_paths: all shards of the texts; scorer_paths: weights of the teachers. Raises UserError for texts of another
    run, and where a shard or a teacher is missing or there twice.
    """

    def __init__(
        self,
        run: dict,
        method: Method,
        data: Text,
        device: torch.device,
        sample_paths: Sequence[Path],
        scorer_paths: Sequence[Path],
    ):
        # Moved here, outside of inference mode, in which weights would lose their gradients for good.
        self.run, self.method, self.data, self.device = run, method.to(device), data, device
        self.written, self._passes = Written(run, data, device, sample_paths, scorer_paths), {}

    def of(self, section: dict, needed: Sequence[str]) -> tuple[dict, dict, list]:
        """({input: value} for a metric's section, what to know of its number, [(level, block)] of its steps)."""
        source, sampling = source_of(needed, "text"), section.get("sampling", {})
        if source == "samples":
            return *self.written.inputs(sampling, section.get("teacher"), needed), []
        by_source = {"predict": self._scores, "bound": self._likelihood, "network": self._cost}
        by_input = {"agreement": self._agreement, "scrambled_losses": self._scrambled}
        inputs, steps = {}, []
        for compute in dict.fromkeys(by_input.get(name, by_source[source]) for name in needed):
            key = json.dumps([compute.__name__, sampling], sort_keys=True)
            if key not in self._passes:
                self._passes[key] = compute(**sampling)
            found, steps = self._passes[key]
            inputs |= found
        return inputs, {"samples": DRAWS if source == "network" else self.data.test_size}, steps

    def shown(self) -> dict | None:
        """Generated texts, for the page."""
        return self.written.shown()

    def jobs(self) -> list[dict]:
        """What is known of each sampling job."""
        return self.written.sets.jobs()

    def _cost(self):
        return {"update_cost": update_cost(self.method, self.data, self.device, self.run["seed"])}, []

    def _batches(self, width, *names):
        """Test batches, with normal eps (N, *width) that depend on the seed, `names` and the sequence alone."""
        generator = torch.Generator().manual_seed(seed_of(self.run["seed"], "evaluation", *names))
        for batch in self.data.test_batches(BATCH):
            eps = torch.randn(len(batch["tokens"]), *width, generator=generator) if width else None
            yield batch, None if eps is None else eps.to(self.device)

    def _scores(self, **sampling):
        """losses, correct, probability (steps, N) of the next token along the chain, the true ones before it given."""
        found, steps = [], []
        for batch, eps in self._batches(self.method.z_shape):
            chain = self.method.predict(batch, eps, **sampling)
            steps = [(step.sigma, step.block) for step in chain]
            found.append(torch.stack([torch.stack(self.method.scores(step, batch)) for step in chain]).cpu())
        losses, correct, probability = torch.cat(found, dim=2).unbind(1)
        values = {"losses": losses, "correct": correct, "probability": probability}
        return {name: value.numpy() for name, value in values.items()}, steps

    def _agreement(self, **sampling):
        """agreement (N,) of the ends of two chains under other noise, the true tokens before given."""
        method, found, steps = self.method, [], []
        pairs = zip(self._batches(method.z_shape), self._batches(method.z_shape, "again"), strict=True)
        for (batch, eps), (_, other) in pairs:
            chain, again = (method.predict(batch, draws, **sampling) for draws in (eps, other))
            steps = [(step.sigma, step.block) for step in chain]
            found.append(method.agreement(chain[-1], again[-1]).cpu())
        return {"agreement": torch.cat(found).numpy()}, steps

    def _scrambled(self, **sampling):
        """scrambled_losses (N,) of the next token at the first step, the tokens before it being another sequence's."""
        if self.data.test_size < 2:
            raise UserError("data.test_size: a context can only be scrambled where there are two test sequences")
        others, found, steps = self.data.test_tokens.roll(1, 0).long().split(BATCH), [], []
        for (batch, eps), tokens in zip(self._batches(self.method.z_shape), others, strict=True):
            first = self.method.predict({"tokens": tokens}, eps, **sampling)[0]
            steps = [(first.sigma, first.block)]
            found.append(self.method.scores(first, batch)[0].cpu())
        return {"scrambled_losses": torch.cat(found).numpy()}, steps

    def _likelihood(self, passes):
        """nelbo (passes, N) in nats per token, each sequence at one level a pass; its density over LEVELS intervals."""
        generator = torch.Generator().manual_seed(seed_of(self.run["seed"], "likelihood"))
        bounds, levels = [], []
        for _ in range(passes):
            start, done, values = torch.rand((), generator=generator, dtype=torch.float64), 0, []
            for batch in self.data.test_batches(BATCH):
                tokens = batch["tokens"]
                t = (start + GOLDEN * torch.arange(done, done + len(tokens), dtype=torch.float64)) % 1
                done += len(tokens)
                eps = torch.rand(tokens.shape, generator=generator).to(self.device)
                values.append(self.method.bound(batch, t.float().to(self.device), eps).cpu())
                levels.append(t)
            bounds.append(torch.cat(values))
        bins = (torch.cat(levels) * LEVELS).long().clamp(max=LEVELS - 1)
        flat = torch.cat(bounds)
        density = [flat[bins == index].mean().item() if (bins == index).any() else 0.0 for index in range(LEVELS)]
        middles = [(index + 0.5) / LEVELS for index in range(LEVELS)]
        steps = [(t, self.method.owner(t)) for t in middles]
        return {"nelbo": torch.stack(bounds).numpy(), "nelbo_per_level": density}, steps

"""What metrics of image models are computed from: predictions on the test set, or the images that were generated."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.dataset import Images
from diffusionblocks.evaluation.generated import Generated
from diffusionblocks.evaluation.inputs import source_of
from diffusionblocks.methods.base import Method

BATCH = 500


class Inputs:
    """Everything is computed when a metric first asks for it, and once for all metrics that agree in `sampling`."""

    def __init__(
        self,
        run: dict,
        method: Method,
        data: Images,
        device: torch.device,
        sample_paths: Sequence[Path],
        scorer_paths: Sequence[Path],
    ):
        self.run, self.method, self.data, self.device = run, method, data, device
        self.generated, self._passes = Generated(run, sample_paths, scorer_paths, device), {}

    def of(self, section: dict, needed: Sequence[str]) -> tuple[dict, dict, list]:
        """({input: value} for a metric's section, what to know of its number, [(sigma, block)] of its steps)."""
        sampling = section.get("sampling", {})
        if source_of(needed, "images") == "samples":
            return *self.generated.inputs(sampling, section.get("extractor"), needed), []
        key = json.dumps(sampling, sort_keys=True)
        if key not in self._passes:
            self._passes[key] = _predict(self.method.to(self.device), self.data, self.run["seed"], sampling)
        steps, inputs = self._passes[key]
        acted = {block for _, block in steps if block is not None}
        idle = sorted(set(self.method.blocks) - acted) if acted else []
        return inputs, {"samples": len(inputs["labels"]), "idle_blocks": idle}, steps

    def shown(self) -> dict | None:
        """Generated images, for the page."""
        return self.generated.shown()

    def jobs(self) -> list[dict]:
        """What is known of each sampling job."""
        return self.generated.sets.jobs()


def _predict(method, data, seed, sampling):
    """([(sigma, block)], {logits (N, classes) of the last step, labels (N,), correct (steps, N)}) on the test set.

    The noise that a chain starts from depends on the seed and on the image alone. What a method draws on the way is the
    same at every call.
    """
    torch.manual_seed(seed_of(seed, "evaluation on the way"))
    eps = None
    if method.z_shape:
        generator = torch.Generator().manual_seed(seed_of(seed, "evaluation"))
        eps = torch.randn(data.test_size, *method.z_shape, generator=generator)
    steps, logits, labels, correct = [], [], [], []
    for i, batch in enumerate(data.test_batches(BATCH)):
        part = None if eps is None else eps[i * BATCH : (i + 1) * BATCH].to(batch["image"].device)
        chain = method.predict(batch, part, **sampling)
        steps = [(step.sigma, step.block) for step in chain]
        if chain[-1].prediction.dim() != 2:
            raise UserError(
                "metrics of `logits`, `labels` or `correct` need scores (N, classes) of the test images, and this "
                f"model predicts {tuple(chain[-1].prediction.shape)}. Measure its generated images, as fid does."
            )
        # Of a long chain, all logits of all images would not fit into memory.
        correct.append(torch.stack([step.prediction.argmax(1) == batch["label"] for step in chain]).cpu())
        logits.append(chain[-1].prediction.float().cpu())
        labels.append(batch["label"].cpu())
    found = {"logits": torch.cat(logits), "labels": torch.cat(labels), "correct": torch.cat(correct, dim=1)}
    return steps, {name: value.numpy() for name, value in found.items()}

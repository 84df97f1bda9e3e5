"""What metrics of image models are computed from: predictions on the test set, or the images that were generated."""

import json

import torch

from diffusionblocks.base.device import seed_of
from diffusionblocks.evaluation.generated import Generated

BATCH = 500
PREDICTED = {"logits", "labels", "correct"}


class Inputs:
    """Everything is computed when a metric first asks for it, and once for all metrics that agree in `sampling`."""

    def __init__(self, run, method, data, device, sample_paths, scorer_paths):
        self.run, self.method, self.data, self.device = run, method, data, device
        self.generated = Generated(run, sample_paths, scorer_paths, device)
        self.shown, self.jobs, self._passes = self.generated.shown, self.generated.jobs, {}

    def of(self, section, needed):
        """({input: value} for a metric's section, what to know of its number, [(sigma, block)] of its steps)."""
        sampling = section.get("sampling", {})
        if not PREDICTED.intersection(needed):
            return *self.generated.inputs(sampling, needed), None
        key = json.dumps(sampling, sort_keys=True)
        if key not in self._passes:
            self._passes[key] = _predict(self.method.to(self.device), self.data, self.run["seed"], sampling)
        steps, inputs = self._passes[key]
        acted = {block for _, block in steps if block is not None}
        idle = sorted(set(self.method.blocks) - acted) if acted else []
        return inputs, {"samples": len(inputs["labels"]), "idle_blocks": idle}, steps


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
        # Of a long chain, all logits of all images would not fit into memory.
        correct.append(torch.stack([step.prediction.argmax(1) == batch["label"] for step in chain]).cpu())
        logits.append(chain[-1].prediction.float().cpu())
        labels.append(batch["label"].cpu())
    found = {"logits": torch.cat(logits), "labels": torch.cat(labels), "correct": torch.cat(correct, dim=1)}
    return steps, {name: value.numpy() for name, value in found.items()}

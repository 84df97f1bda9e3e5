"""Parts -> one model, and a trained model -> predictions on the test set -> metrics.json."""

import json
import time

import torch

from diffusionblocks import metrics, tensors
from diffusionblocks.data.images import Images
from diffusionblocks.files import UserError, read_json, read_json_lines, write_json
from diffusionblocks.methods import build
from diffusionblocks.partition import mass
from diffusionblocks.provenance import record
from diffusionblocks.trainer import pick_device, seed_of

BATCH = 500


def evaluate(run_path, model_path, data_path, metric_sections, logs, path):
    """Write the metrics of a trained run, with what is needed to trust them.

    metric_sections: {column: {name, sampling, **keywords}}; `sampling` goes to the method's `predict`, the rest to the
    function of `metrics`. Columns with the same sampling share one pass. logs: training logs of the run's parts.
    """
    run, device = read_json(run_path), pick_device()
    data = Images(data_path, device)
    method = load_method(run, model_path, data.shape).to(device).eval()
    started = time.monotonic()
    passes, numbers, curves = {}, {}, {}
    for column, section in metric_sections.items():
        sampling = section.get("sampling", {})
        key = json.dumps(sampling, sort_keys=True)
        if key not in passes:
            passes[key] = _predict(method, data, run["seed"], sampling)
        steps, logits, labels = passes[key]
        keywords = {name: value for name, value in section.items() if name not in ("name", "sampling")}
        value = getattr(metrics, section["name"])(logits, labels, **keywords)
        if isinstance(value, list):
            curves[column] = {"sigma": [s for s, _ in steps], "block": [b for _, b in steps], "value": value}
        else:
            numbers[column] = {"value": value, "samples": len(labels), **section}
            blocks = [block for _, block in steps if block is not None]
            if blocks:
                numbers[column]["idle_blocks"] = sorted(set(method.blocks) - set(blocks))
    result = {
        "run": run,
        "data": {"title": data.title, "train_size": data.train_size, "test_size": data.test_size, "shape": data.shape},
        "metrics": numbers,
        "curves": curves,
        "parameters": sum(value.numel() for value in method.parameters()),
        "parts": {log.stem: _summary(read_json_lines(log)) for log in logs},
        "evaluation": {"seconds": time.monotonic() - started, **record(device)},
    }
    if method.boundaries:
        result["partition"] = {
            "boundaries": method.boundaries,
            "intervals": method.intervals,
            "mass": mass(method.boundaries, method.noise),
            "noise": {"p_mean": method.noise.p_mean, "p_std": method.noise.p_std},
            "layers": [[layers.start, layers.stop] for layers in method.layers],
        }
    write_json(path, result)


def load_method(run, model_path, shape):
    """The trained method of a run, in memory. Raises UserError for weights of another run or a damaged file."""
    weights, about = tensors.read(model_path, "Delete it and assemble it again.")
    if about.get("run") != run:
        raise UserError(f"{model_path}: was trained with other settings than {run['table']}/{run['row']}. Delete it.")
    method = build(run, shape, None)
    absent = method.state_dict().keys() ^ weights.keys()
    if absent:
        raise UserError(
            f"{model_path}: does not match the network ({min(absent)} and others). Assemble it from all parts."
        )
    method.load_state_dict(weights)
    return method


@torch.inference_mode()
def _predict(method, data, seed, sampling):
    """([(sigma, block)], logits (steps, N, classes), labels (N,)) on the test set.

    The noise of test image i depends on the seed and on i alone, so the batch size changes nothing.
    """
    eps = None
    if method.z_shape:
        generator = torch.Generator().manual_seed(seed_of(seed, "evaluation"))
        eps = torch.randn(data.test_size, *method.z_shape, generator=generator)
    steps, logits, labels = [], [], []
    for i, batch in enumerate(data.test_batches(BATCH)):
        part = None if eps is None else eps[i * BATCH : (i + 1) * BATCH].to(batch["image"].device)
        chain = method.predict(batch, part, **sampling)
        steps = [(step.sigma, step.block) for step in chain]
        logits.append(torch.stack([step.prediction.float().cpu() for step in chain]))
        labels.append(batch["label"].cpu())
    return steps, torch.cat(logits, dim=1).numpy(), torch.cat(labels).numpy()


def _summary(records):
    """One part's training: its end record, where it ran, and its loss curve by block."""
    starts = [entry for entry in records if entry.get("event") == "start"]
    (end,) = [entry for entry in records if entry.get("event") == "end"]
    losses = {}
    for entry in records:
        if "loss" in entry:
            losses.setdefault(str(entry["block"]), []).append([entry["step"], entry["loss"]])
    speeds = [entry["images_per_second"] for entry in records if "loss" in entry]
    return {
        **{key: value for key, value in end.items() if key != "event"},
        "images_per_second": sorted(speeds)[len(speeds) // 2],
        "losses": losses,
        "attempts": [{key: value for key, value in start.items() if key != "event"} for start in starts],
    }

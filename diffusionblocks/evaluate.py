"""A trained model's predictions on the test set, or the images it has generated -> metrics.json."""

import inspect
import json
import time

import torch

from diffusionblocks import metrics
from diffusionblocks.data.images import Images
from diffusionblocks.device import pick_device, seed_of
from diffusionblocks.files import read_json, read_json_lines, write_json
from diffusionblocks.generated import Generated
from diffusionblocks.methods import load_trained
from diffusionblocks.partition import mass
from diffusionblocks.provenance import record

BATCH = 500


def evaluate(run_path, model_path, data_path, metric_sections, logs, path, sample_paths=(), feature_paths=()):
    """Write the metrics of a trained run, with what is needed to trust them.

    metric_sections: {column: {name, sampling, **keywords}}. `sampling` says how the method predicts or what was
    generated; columns that agree in it share one pass. The rest goes to the function of `metrics`. logs: training logs
    of the run's parts. sample_paths: all shards of all generated sets. feature_paths: the extractor's weights and the
    reference statistics.
    """
    run, device = read_json(run_path), pick_device()
    data = Images(data_path, device)
    method = load_trained(run, model_path, data.shape).eval()
    started = time.monotonic()
    generated = Generated(run, sample_paths, feature_paths, device)
    passes, numbers, curves = {}, {}, {}
    for column, section in metric_sections.items():
        sampling, metric = section.get("sampling", {}), getattr(metrics, section["name"])
        needed = _inputs(metric)
        if "logits" not in needed:
            inputs, about = generated.inputs(sampling, needed)
        else:
            key = json.dumps(sampling, sort_keys=True)
            if key not in passes:
                passes[key] = _predict(method.to(device), data, run["seed"], sampling)
            steps, inputs = passes[key]
            acted = {block for _, block in steps if block is not None}
            idle = sorted(set(method.blocks) - acted) if acted else []
            about = {"samples": len(inputs["labels"]), "idle_blocks": idle}
        keywords = {name: value for name, value in section.items() if name not in ("name", "sampling")}
        value = metric(*(inputs[name] for name in needed), **keywords)
        if isinstance(value, list):
            curves[column] = {"sigma": [s for s, _ in steps], "block": [b for _, b in steps], "value": value}
        else:
            numbers[column] = {"value": value, **about, **section}
    result = {
        "run": run,
        "data": {"title": data.title, "train_size": data.train_size, "test_size": data.test_size, "shape": data.shape},
        "metrics": numbers,
        "curves": curves,
        "samples": generated.shown(),
        "parameters": sum(value.numel() for value in method.parameters()),
        "parts": {log.stem: _summary(read_json_lines(log)) for log in logs},
        "sampling": generated.jobs(),
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


def _inputs(metric):
    """What a metric is computed from: the names of its positional arguments, as planning reads them in the source."""
    parameters = inspect.signature(metric).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


@torch.inference_mode()
def _predict(method, data, seed, sampling):
    """([(sigma, block)], {logits (steps, N, classes), labels (N,)}) on the test set.

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
    return steps, {"logits": torch.cat(logits, dim=1).numpy(), "labels": torch.cat(labels).numpy()}


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

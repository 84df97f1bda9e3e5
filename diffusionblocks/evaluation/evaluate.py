"""A trained model's predictions on the test set, or the samples it has generated -> metrics.json."""

import importlib
import inspect
import time

import torch

from diffusionblocks import data as datasets
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import read_json, read_json_lines, write_json
from diffusionblocks.base.provenance import record
from diffusionblocks.diffusion.partition import mass
from diffusionblocks.evaluation import metrics
from diffusionblocks.methods import load_trained

TRAINING = {"updates": "step", "seconds": "seconds"}  # summed over a run's parts, from the ends of their logs
NOT_KEYWORDS = ("name", "sampling", "teacher")  # of a metric's section; the rest are the function's keywords


def evaluate(run_path, model_path, data_path, metric_sections, logs, path, sample_paths=(), scorer_paths=()):
    """Write the metrics of a trained run, with what is needed to trust them.

    metric_sections: {column: {name, sampling, **keywords}}. `sampling` says how the method predicts or what was
    generated; columns that agree in it share one pass. The rest goes to the function of `metrics`. logs: training logs
    of the run's parts. sample_paths: all shards of all generated sets. scorer_paths: for images the extractor's weights
    and the reference statistics, for texts the weights of every teacher.
    """
    run, device = read_json(run_path), pick_device()
    data = datasets.load(data_path, device)
    method = load_trained(run, model_path, data.shape).eval()
    started = time.monotonic()
    kind = importlib.import_module(f"diffusionblocks.evaluation.{datasets.kind(data_path)}")
    inputs = kind.Inputs(run, method, data, device, sample_paths, scorer_paths)
    parts = {log.stem: _summary(read_json_lines(log)) for log in logs}
    training = {name: sum(part.get(key, 0) for part in parts.values()) for name, key in TRAINING.items()}
    numbers, curves = {}, {}
    for column, section in metric_sections.items():
        metric = getattr(metrics, section["name"])
        needed = _inputs(metric)
        with torch.inference_mode():
            found, about, steps = inputs.of(section, needed) if needed != ["training"] else ({}, {"samples": 0}, None)
        found = {**found, "training": training}
        keywords = {name: value for name, value in section.items() if name not in NOT_KEYWORDS}
        value = metric(*(found[name] for name in needed), **keywords)
        if isinstance(value, list):
            curves[column] = {"sigma": [s for s, _ in steps], "block": [b for _, b in steps], "value": value}
        else:
            numbers[column] = {"value": value, **about, **section}
    result = {
        "run": run,
        "data": {"title": data.title, "train_size": data.train_size, "test_size": data.test_size, "shape": data.shape},
        "metrics": numbers,
        "curves": curves,
        "samples": inputs.shown(),
        "parameters": sum(value.numel() for value in method.parameters()),
        "parts": parts,
        "sampling": inputs.jobs(),
        "evaluation": {"seconds": time.monotonic() - started, **record(device)},
    }
    if method.boundaries:
        result["partition"] = {
            "boundaries": method.boundaries,
            "intervals": method.intervals,
            "mass": mass(method.boundaries, method.noise),
            "noise": _noise(method.noise),
            "layers": [[layers.start, layers.stop] for layers in method.layers],
        }
    write_json(path, result)


def _inputs(metric):
    """What a metric is computed from: the names of its positional arguments, as planning reads them in the source."""
    parameters = inspect.signature(metric).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _noise(noise):
    """What the figure of the partition needs: mean and deviation of log sigma; masking rates are uniform."""
    return {key: getattr(noise, key) for key in ("p_mean", "p_std") if hasattr(noise, key)}


def _summary(records):
    """One part's training: its end record, where it ran, and its loss curve by block."""
    starts = [entry for entry in records if entry.get("event") == "start"]
    (end,) = [entry for entry in records if entry.get("event") == "end"]
    losses = {}
    for entry in records:
        if "loss" in entry:
            losses.setdefault(str(entry["block"]), []).append([entry["step"], entry["loss"]])
    speeds = [entry["samples_per_second"] for entry in records if "loss" in entry]
    return {
        **{key: value for key, value in end.items() if key != "event"},
        "samples_per_second": sorted(speeds)[len(speeds) // 2],
        "losses": losses,
        "attempts": [{key: value for key, value in start.items() if key != "event"} for start in starts],
    }

"""A trained model's predictions on the test set, or the samples it has generated -> metrics.json."""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusionblocks import data as datasets
from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import UserError, read_json, read_json_lines, write_json
from diffusionblocks.base.provenance import record
from diffusionblocks.diffusion.partition import mass
from diffusionblocks.evaluation.metric import keywords, load_metric
from diffusionblocks.methods import load_trained

# What computes the inputs of metrics, by kind of data. By name, so that code for texts is not code behind images.
KINDS = {"images": "diffusionblocks.evaluation.images", "text": "diffusionblocks.evaluation.text"}


def evaluate(
    run_path: str | Path,
    model_path: str | Path,
    data_path: str | Path,
    metric_sections: dict[str, dict],
    logs: Sequence[Path],
    path: str | Path,
    sample_paths: Sequence[Path] = (),
    scorer_paths: Sequence[Path] = (),
    code: str | None = None,
    extractor: dict | None = None,
) -> None:
    """Write the metrics of a trained run, with what is needed to trust them.

    metric_sections: {column: {name, sampling, **keywords}}. `sampling` says how the method predicts or what was
    generated; columns that agree in it share one pass. The rest goes to the metric's function. logs: training logs of
    the run's parts. sample_paths: all shards of all generated sets. scorer_paths: for images the weights and the
    reference statistics of every extractor, for texts the weights of every teacher. code: hash of the source files
    behind this step. extractor: section of the one for columns that name none. Raises UserError for a metric that fits
    neither the data nor its own declaration, and for files that are missing or of another run.
    """
    run, device, kind = read_json(run_path), pick_device(), datasets.kind(data_path)
    metrics = {column: load_metric(section["name"], kind) for column, section in metric_sections.items()}
    data = datasets.load(data_path, device)
    method = load_trained(run, model_path, data.shape).eval()
    started = time.monotonic()
    inputs = importlib.import_module(KINDS[kind]).Inputs(run, method, data, device, sample_paths, scorer_paths)
    parts = {log.stem: _summary(log, read_json_lines(log)) for log in logs}
    training = {
        "updates": sum(part.get("step", 0) for part in parts.values()),
        "seconds": sum(part.get("seconds", 0) for part in parts.values()),
    }
    numbers, curves = {}, {}
    for column, metric in metrics.items():
        section = metric_sections[column]
        found, about, steps = {}, {"samples": 0}, []
        if metric.source != "logs":
            with torch.inference_mode():
                found, about, steps = inputs.of({"extractor": extractor, **section}, metric.inputs)
        value = metric({**found, "training": training}, keywords(section), len(steps))
        if metric.about.figure:
            curves[column] = {
                "sigma": [sigma for sigma, _ in steps],
                "block": [block for _, block in steps],
                "value": value,
                "figure": metric.about.figure,
                "from_target": section.get("sampling", {}).get("from_target", False),
            }
        else:
            numbers[column] = metric.number(section, value, about)
    result = {
        "run": run,
        "code": code,
        "data": {"title": data.title, "train_size": data.train_size, "test_size": data.test_size, "shape": data.shape},
        "metrics": numbers,
        "curves": curves,
        "samples": inputs.shown(),
        "weights": tensors.about(model_path, "Delete it and assemble it again.").get("digest"),  # their hash
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
            "noise": method.noise.figure(),
            "layers": [[layers.start, layers.stop] for layers in method.layers],
        }
    write_json(path, result)


def _summary(log, records):
    """One part's training: its end record, where it ran, and its loss curve by block."""
    starts = [entry for entry in records if entry.get("event") == "start"]
    ends = [entry for entry in records if entry.get("event") == "end"]
    if len(ends) != 1 or not any("loss" in entry for entry in records):
        raise UserError(f"{log}: is not the log of a part that is trained (--logs)")
    losses = {}
    for entry in records:
        if "loss" in entry:
            losses.setdefault(str(entry["block"]), []).append([entry["step"], entry["loss"]])
    speeds = [entry["samples_per_second"] for entry in records if "loss" in entry]
    return {
        **{key: value for key, value in ends[0].items() if key != "event"},
        "samples_per_second": sorted(speeds)[len(speeds) // 2],
        "losses": losses,
        "attempts": [{key: value for key, value in start.items() if key != "event"} for start in starts],
    }

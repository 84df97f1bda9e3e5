"""A trained model's predictions on the test set, or the images it has generated -> metrics.json."""

import base64
import inspect
import json
import time
import zlib

import torch

from diffusionblocks import features, metrics, tensors
from diffusionblocks.data.images import Images
from diffusionblocks.device import pick_device, seed_of
from diffusionblocks.files import UserError, read_json, read_json_lines, write_json
from diffusionblocks.methods import load_trained
from diffusionblocks.partition import mass
from diffusionblocks.provenance import record

BATCH = 500
REGENERATE = "Delete it and generate it again."
SHOWN = 20  # generated images that go into metrics.json, for the page
SHOWN_SIZE = 128  # larger ones are shown smaller


def evaluate(run_path, model_path, data_path, metric_sections, logs, path, sample_paths=(), reference_path=None):
    """Write the metrics of a trained run, with what is needed to trust them.

    metric_sections: {column: {name, sampling, **keywords}}. `sampling` says how the method predicts or what was
    generated; columns that agree in it share one pass. The rest goes to the function of `metrics`. logs: training logs
    of the run's parts. sample_paths: all shards of all generated sets. reference_path: (extractor, reference) files.
    """
    run, device = read_json(run_path), pick_device()
    data = Images(data_path, device)
    method = load_trained(run, model_path, data.shape).to(device).eval()
    started = time.monotonic()
    generated = _Generated(sample_paths, reference_path, device)
    passes, numbers, curves = {}, {}, {}
    for column, section in metric_sections.items():
        sampling, metric = section.get("sampling", {}), getattr(metrics, section["name"])
        needed = _inputs(metric)
        if "logits" not in needed:
            inputs, about = generated.inputs(sampling, needed)
        else:
            key = json.dumps(sampling, sort_keys=True)
            if key not in passes:
                passes[key] = _predict(method, data, run["seed"], sampling)
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
    """What a metric is computed from: the names of its positional arguments."""
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


class _Generated:
    """The generated images of a run, set by set; features and references are read when a metric asks for them."""

    def __init__(self, paths, reference_paths, device):
        self.device, self.reference_paths, self.sets, self.features = device, reference_paths, {}, {}
        for path in paths:
            about = tensors.about(path, REGENERATE)
            self.sets.setdefault(_key(about["sampling"]), []).append((about, path))
        for shards in self.sets.values():
            shards.sort(key=lambda shard: shard[0]["first"])

    def inputs(self, sampling, needed):
        """(what a metric that needs the named inputs is computed from, what to know of its number)."""
        name = _key(sampling)
        if name not in self.sets:
            raise UserError(f"no generated images for {sampling}: hand over all shards of this set (--samples)")
        first = self.sets[name][0][0]
        found = {"evaluations": first["evaluations"]}
        about = {"samples": sampling["num_samples"], "idle_blocks": first["idle_blocks"]}
        if "features" in needed:
            found["features"], extractor = self._features(name, sampling)
            found["references"] = self._references()
            about["extractor"] = extractor["title"]
        return found, about

    def _features(self, name, sampling):
        """([features (N, D) of each set], what is known of the extractor)."""
        network, about = features.load_extractor(self.reference_paths[0], self.device)
        if name not in self.features:
            images = (tensors.read(path, REGENERATE)[0]["images"] for _, path in self.sets[name])
            found = torch.cat([features.extract(network, batch, self.device).cpu() for batch in images])
            total = sampling["num_samples"] * sampling.get("sets", 1)
            if len(found) != total:
                raise UserError(f"{len(found)} generated images in {len(self.sets[name])} files instead of {total}")
            self.features[name] = [values.numpy() for values in found.split(sampling["num_samples"])]
        return self.features[name], about

    def _references(self):
        found, _ = tensors.read(self.reference_paths[1], "Delete it and start again: it is computed anew.")
        splits = {}
        for name, value in found.items():
            split, _, key = name.partition("_")
            splits.setdefault(split, {})[key] = value.numpy()
        return splits

    def shown(self):
        """The first set's first images, and its first image's way from noise, for the page."""
        if not self.sets:
            return None
        about, path = next(iter(self.sets.values()))[0]
        found, _ = tensors.read(path, REGENERATE)
        images = {"images": found["images"][:SHOWN], "trajectory": found["trajectory"]}
        return {"steps": about["trajectory"], **{name: _packed(value) for name, value in images.items()}}

    def jobs(self):
        """Each sampling job: which images it made, how long it took, where it ran."""
        wanted = ("first", "seconds", "hardware", "commit", "node", "slurm_job_id", "evaluations")
        abouts = [about for shards in self.sets.values() for about, _ in shards]
        return [{key: about[key] for key in wanted if key in about} for about in abouts]


def _key(sampling):
    """What decides a set of generated images; into how many files it was split does not."""
    return json.dumps({key: value for key, value in sampling.items() if key != "shards"}, sort_keys=True)


def _packed(images):
    """uint8 images (N, C, H, W) as text that JSON can hold."""
    step = max(1, images.shape[-1] // SHOWN_SIZE)
    images = images[:, :, ::step, ::step].contiguous().numpy()
    return {"shape": images.shape, "zlib": base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()}


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

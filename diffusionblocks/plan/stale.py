"""Results that planning finds on disk and that were made otherwise: by other settings, by other code. No torch.

Snakemake keeps in a folder of its own what made a file, and looks at a file of code when a job ends. So it takes for
good what came by `cp -r`, and what was trained while the code was edited. Every result says itself what made it.
"""

import json
import os
from pathlib import Path

from diffusionblocks.base.files import read_about
from diffusionblocks.plan.code import digest, run_files, timing_files
from diffusionblocks.plan.plan import Plan


def stale(plan: Plan) -> dict[str, str]:
    """{file: why it has to be made again} of all results on disk that are not what the plan would make."""
    found = {}
    for name in plan.written:
        file = f"{plan.results}/{name}.json"
        if Path(file).is_file() and plan.digest(name, _json(file)) != plan.digest(name):
            found[file] = "was written for other settings"
    for row in plan.rows.values():
        for seed in row.seeds:
            run = row.run(seed)
            for file, files in _made(plan, row, seed, run):
                if why := _other(file, run, files if plan.config["track_code"] else None):
                    found[file] = why
            model, *parts = row.model_files(seed)
            there = all(map(_there, (model, *parts)))
            if there and _joined(model) != {os.path.basename(part): _about(part).get("digest") for part in parts}:
                found[model] = "was joined of other weights than its parts now hold"
            for model in filter(_there, row.start_files(seed)[:1]):
                digest = _about(model).get("digest")
                for file in filter(_there, row.part_files(seed, ".safetensors")):
                    if _about(file).get("start") != digest:
                        found.setdefault(file, f"started from other weights than those of {model}")
    return found


def told(found: dict[str, str]) -> str:
    """What `stale` has found, in one line."""
    first, why = next(iter(found.items()))
    count = f"{len(found)} results that the plan" if len(found) > 1 else "a result that the plan"
    return f"Made again: {count} would make otherwise; {first} {why}."


def _made(plan, row, seed, run):
    """(file, function that lists the source files behind it) of what is there of a row and a seed."""
    folder = f"{row.folder}/seed{seed}"
    made = dict.fromkeys(row.part_files(seed, ".safetensors"), lambda: run_files("train", run))
    for name, sampling in row.sample_sets.items():
        for shard in range(sampling["shards"]):
            file = f"{folder}/samples/{name}/{shard}.safetensors"
            made[file] = lambda sampling=sampling: run_files("sample", run, sampling)
    made[f"{folder}/metrics.json"] = lambda: run_files(
        "count" if row.counted else "evaluate", run, evaluation=row.evaluation()
    )
    if (row.table, row.name) in plan.timed_together:
        asked = plan.written[f"runs/{row.table}/{row.name}/timing"]
        made[f"{folder}/timing.json"] = lambda: timing_files(asked)
    return [(file, files) for file, files in made.items() if _there(file)]


def _joined(model):
    """{name of a part's file: digest} of what a model says that it was joined of."""
    parts = _about(model).get("parts") or {}
    return {os.path.basename(file): digest for file, digest in parts.items()}


def _there(file):
    return Path(file).is_file()


def _other(file, run, files):
    """Why a result is not one of this run, nor of this code (where `files` tells it); nothing if it is."""
    about = _about(file)
    if about.get("run") != json.loads(json.dumps(run)):
        return "was made with other settings"
    return "was made by other code" if files and about.get("code") != digest(files()) else ""


def _about(file):
    """What a result says of itself; nothing where it says nothing."""
    about = _json(file) if file.endswith(".json") else read_about(file)
    return about if isinstance(about, dict) else {}


def _json(file):
    """The content of a JSON file; None where it is none."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

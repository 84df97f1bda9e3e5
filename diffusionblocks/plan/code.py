"""The source files behind a step, and one hash of them: which code has made a result. No torch.

Planning lists these files as a rule's inputs. The step itself writes their hash into what it makes, since Snakemake
looks at a file of code when a job ends, and an edit during the job would pass for the code that ran.
"""

import functools
import hashlib
from pathlib import Path

from diffusionblocks.base.components import PACKAGE, locate
from diffusionblocks.base.source import SETS, returned_set
from diffusionblocks.plan.sections import declared, extractors_of
from diffusionblocks.plan.source import closure

# The module behind each step; rule, verb and function have the step's name.
MODULES = {
    "prepare": "data.prepare",
    "encode": "data.encode",
    "autoencoder": "data.autoencoder",
    "train": "training.train",
    "assemble": "training.assemble",
    "sample": "sampling.sample",
    "extractor": "scorers.extractor",
    "reference": "scorers.reference",
    "teacher": "scorers.teacher",
    "evaluate": "evaluation.evaluate",
    "count": "evaluation.count",
    "estimate": "evaluation.estimate",
    "timing": "evaluation.timing",
    "table": "page.table",
    "figures": "page.figures",
    "page": "page.page",
    "verdicts": "page.claims",
    "exports": "page.exports",
}
# What else a step reaches by a row's kind of data, beside the data set itself.
BY_KIND = {"sample": "sampling", "evaluate": "evaluation"}


def step_files(step: str, *sections: tuple[str, dict], modules: tuple[str, ...] = ()) -> list[str]:
    """Sorted source files of a step. sections: (kind, section) of each component that it is given, such as a model."""
    chosen = dict.fromkeys(locate(kind, section["name"]).module for kind, section in sections)
    return closure(f"diffusionblocks.{MODULES[step]}", *modules, *chosen)


def run_files(step: str, run: dict, sampling: dict | None = None, evaluation: dict | None = None) -> list[str]:
    """Source files of a step of a row. run, sampling, evaluation: what run.json, the file of the samples that it makes
    and evaluation.json hold, the latter two where the step is given them.
    """
    method = {**declared(locate("method", run["method"]["name"])), **run["method"]}
    chosen, modules = [("model", run["model"]), ("method", method)], []
    if isinstance(split := method.get("partition"), str):
        chosen.append(("partition", {"name": split}))
    if step not in ("assemble", "count", "estimate", "timing"):  # which see no data
        kind = SETS[returned_set(run["data"])]
        modules.append(f"diffusionblocks.data.{kind}.dataset")
        if step in BY_KIND:
            modules.append(f"diffusionblocks.{BY_KIND[step]}.{kind}")
            chosen.append(("solver", {"name": "euler"}))
    if step in ("sample", "evaluate", "count", "timing"):  # which run chains
        chosen.append(("grid", {"name": "quantiles"}))
    metrics = list(evaluation["metrics"].values()) if evaluation else []
    samplings = [sampling or {}, *(section.get("sampling", {}) for section in metrics)]
    chosen += [(kind, {"name": own[kind]}) for kind in ("solver", "grid") for own in samplings if kind in own]
    chosen += [("metric", section) for section in metrics]
    if evaluation and step == "evaluate":
        chosen += [("teacher", section) for section in evaluation["teachers"].values()]
        extractors = extractors_of(evaluation["extractor"], evaluation["metrics"])
        chosen += [("extractor", section) for section in extractors.values()]
    return step_files(step, *chosen, modules=tuple(modules))


def timing_files(asked: dict) -> list[str]:
    """Source files behind the times of rows that are compared. asked: what planning writes of them (plan/plan.py)."""
    found = set()
    for about in asked["timed"].values():
        for chain in ({}, *about["chains"].values()):  # which may take a grid of their own
            found.update(run_files("timing", about["run"], chain))
    return sorted(found)


def digest(files: list[str]) -> str:
    """A hash of source files, the same wherever the repository lies."""
    found = hashlib.sha256()
    for file in files:
        name, content = _content(file)
        found.update(f"{name} {content}\n".encode())
    return found.hexdigest()[:16]


@functools.cache  # a step's process and a planning read a file once: what they loaded, and not what it became since
def _content(file):
    path = Path(file)
    name = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.name
    return name, hashlib.sha256(path.read_bytes()).hexdigest()

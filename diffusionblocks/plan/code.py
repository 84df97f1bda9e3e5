"""One hash of the source files behind a training: which code has made a part. No torch.

The training itself writes it into its weights, since Snakemake looks at a file of code when a job ends, and knows
nothing of a part that was trained elsewhere.
"""

import hashlib
from pathlib import Path

from diffusionblocks.base.components import PACKAGE, locate
from diffusionblocks.plan.row import kind_of
from diffusionblocks.plan.sections import declared
from diffusionblocks.plan.source import closure


def run_files(step: str, run: dict) -> list[str]:
    """Source files of `train`, as a Plan has them of a row. run: what run.json holds."""
    method = {**declared(locate("method", run["method"]["name"])), **run["method"]}
    chosen = [locate("model", run["model"]["name"]).module, locate("method", method["name"]).module]
    if isinstance(split := method.get("partition"), str):
        chosen.append(locate("partition", split).module)
    return closure(f"diffusionblocks.training.{step}", f"diffusionblocks.data.{kind_of(run['data'])}.dataset", *chosen)


def digest(files: list[str]) -> str:
    """A hash of source files, the same wherever the repository lies."""
    found = hashlib.sha256()
    for path in map(Path, files):
        name = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.name
        found.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]

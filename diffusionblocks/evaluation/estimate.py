"""What the updates of rows cost, counted once for each network and kept beside the results: no data, no GPU."""

import sys
import time
from pathlib import Path
from typing import Any

from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.evaluation.count import counted_parts

KEPT = ("network", "flop", "peak", "weights", "checkpoint", "blocks", "passes")  # of what is counted of a part
HELD = ("parameters", "gradients", "optimizer", "average")
PROGRESS_SECONDS = 10


def estimate(rows: dict[str, dict], path: str | Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({row: {parts: {part: as counted}, flop: of all updates of a seed}}, {row: why it could not be counted}).

    rows: as plan/estimate.py gives them. path: where all that was counted is kept, by row; what is there of the same
    networks, code and sizes is not counted again. Of a part: KEPT as `counted` says, and `held`, bytes. A network of
    the user's own may ask what only data can answer, and is then among the second.
    """
    kept = _read(path)
    by_key = {about["key"]: about["parts"] for about in kept.values()}
    found, failed = {}, {}
    networks = {row["key"] for row in rows.values()} - by_key.keys()
    number, said = 0, time.monotonic()
    for name, row in rows.items():
        if row["key"] not in by_key:
            try:
                by_key[row["key"]] = _count(row)
            except Exception as error:  # whatever a network does with tensors that have no content
                failed[name] = (
                    f"cannot be counted without data ({type(error).__name__}: {' '.join(str(error).split())})"
                )
                continue
            number += 1
            if time.monotonic() - said > PROGRESS_SECONDS:
                print(f"counted {number} of {len(networks)} networks", file=sys.stderr, flush=True)
                said = time.monotonic()
        parts = by_key[row["key"]]
        samples = row["updates"] * row["run"]["train"]["batch_size"]
        flop = samples * sum(part["flop"] for part in parts.values())
        run = {key: value for key, value in row["run"].items() if key != "seed"}
        found[name] = {"key": row["key"], "run": run, "parts": parts, "flop": flop}
    if kept | found != kept:
        write_json(path, kept | found)
    return found, failed


def _read(path):
    """What was counted before; nothing where that cannot be read, which costs some minutes and no more."""
    try:
        return read_json(path)
    except UserError:
        return {}


def _count(row):
    run = {**row["run"], "train": {**row["run"]["train"], "precision": "fp32", "compile": False}}
    return {
        name: {key: part[key] for key in KEPT} | {"held": sum(part[key] for key in HELD)}
        for name, part in counted_parts(run, row["parts"], row["shape"]).items()
    }

"""How far a workflow is: each training that runs or was stopped, and how many are done, from the files that they write.

It reads and changes nothing, so it may be asked at any time, from any host that sees the folder. Standard library only.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from diffusionblocks.base.files import UserError, read_about, read_json, read_json_lines
from diffusionblocks.base.lock import owner
from diffusionblocks.base.words import clock
from diffusionblocks.plan.row import parts_of
from diffusionblocks.plan.watch import OURS, queue

COLUMNS = ("training", "update", "loss", "samples/s", "time left", "where")
RECENT = 10  # records of a log from which the speed follows


def status(results: Path | None = None) -> str:
    """What the trainings of a results folder do; by default of the one whose workflow was started last.

    Raises UserError where no workflow was started.
    """
    results = results or _latest(Path("results"))
    plan = read_json(results / "plan.json")
    trainings = [_training(results, run, part) for run in _runs(plan) for part in parts_of(run["method"])]
    lines, counts, tables = [], dict.fromkeys(("done", "running", "stopped", "waiting"), 0), {}
    for table, state, cells in trainings:
        counts[state] += 1
        done, total = tables.get(table, (0, 0))
        tables[table] = done + (state == "done"), total + 1
        if cells:
            lines.append(cells)
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "done")
    found = [f"{time.strftime('%H:%M:%S')}  {results}: of {len(trainings)} trainings {said}. {_at_work(results)}"]
    if lines:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)]
        for cells in (COLUMNS, *lines):
            found.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    found.append("done: " + ", ".join(f"{table} {done} of {total}" for table, (done, total) in tables.items()))
    return "\n".join(found)


def _latest(folder):
    plans = sorted(folder.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not plans:
        raise UserError(f"{folder.resolve()}: no workflow was started here. Name its folder: status results/demo")
    return plans[-1].parent


def _runs(plan) -> Iterator[dict]:
    """run.json of all that is trained."""
    for name, content in plan.items():
        kind, *path = name.split("/")
        if kind == "runs" and path[-1] == "run" and "teachers" in plan[f"runs/{path[0]}/{path[1]}/evaluation"]:
            yield content


def _training(results, run, part):
    """(table, what it does, cells of its line where it runs or was stopped)."""
    place = f"{run['table']}/{run['row']}/seed{run['seed']}"
    made, state = results / "runs" / place, results / "state" / place / part
    log, by = state / "log.jsonl", owner(state)
    # Numbers of an earlier training stay while it is made again; they speak for it where nothing is at work.
    begun = by or log.exists()
    if (made / f"parts/{part}.safetensors").exists() or (not begun and (made / "metrics.json").exists()):
        return run["table"], "done", None
    records = read_json_lines(log) if log.exists() else []
    steps = [record for record in records if "loss" in record]
    if not by and not steps:
        return run["table"], "waiting", None
    total = next((record["total"] for record in reversed(records) if "total" in record), None)
    step = steps[-1]["step"] if steps else 0
    if not by:  # it goes on from its checkpoint
        step = (read_about(state / "checkpoint.safetensors") or {}).get("step", 0)
    recent = [record["samples_per_second"] for record in steps[-RECENT:]]
    speed = len(recent) / sum(1 / value for value in recent) if recent else None
    left = (total - step) * run["train"]["batch_size"] / speed if speed else None
    where = "stopped"
    if by:
        where = f"{by['host']}, job {by['slurm_job_id']}" if by.get("slurm_job_id") else by["host"]
    cells = [
        f"{place}/{part}",
        f"{step} of {total}" if total else "beginning",
        f"{steps[-1]['loss']:.4f}" if steps else "",
        f"{speed:.0f}" if speed else "",
        clock(max(left, 0)) if left is not None else "",
        where,
    ]
    return run["table"], "running" if by else "stopped", cells


def _at_work(results):
    """Who works here, and what SLURM has of it."""
    folder = results.absolute().parent.parent  # of links, such as to a larger disk, it is theirs and not their target's
    by, jobs = owner(folder / OURS), queue(folder)
    said = [f"Snakemake works on {by['host']}, process {by['pid']}." if by else "No Snakemake works here."]
    if jobs:
        states = [state for _, state, _ in jobs]
        said.append(f"SLURM: {', '.join(f'{states.count(one)} {one.lower()}' for one in dict.fromkeys(states))}.")
    elif jobs is None and by:  # else a machine that has SLURM's programs and no cluster
        said.append("SLURM does not answer.")
    return " ".join(said)

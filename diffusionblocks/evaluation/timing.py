"""Seconds of an update, measured and not counted (Table A4): rows that are compared take turns in one process.

The trainer is the one that trains, and a chain that of evaluation (appendix H), on chance in the shape of the data set:
preparing and augmenting data is not in it. A turn builds a network, makes some updates that are not timed, and then
those that are, one after the other as in training; only one network is there at a time, so that every row has the whole
memory.
"""

import gc
import itertools
import json
import math
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import write_json
from diffusionblocks.base.provenance import hardware, record
from diffusionblocks.data.chance import Chance
from diffusionblocks.evaluation.inputs import ON_A_GPU
from diffusionblocks.methods import build
from diffusionblocks.training.trainer import Trainer

TURNS = 3  # of each network; what the machine does meanwhile meets all of them
LONGEST = 10.0  # seconds of a turn, in which so many updates are timed as fit, one at least
BATCHES = 16  # of the data: their order is drawn anew, and moved to the device, only after so many


def timing(asked: dict, path: str | Path, code: str | None = None) -> None:
    """Write the seconds of an update of rows that are compared with each other.

    asked: what planning wrote of them, {updates, updates_on_cpu, samples_on_cpu, timed: {row: {run, parts, shape}},
    compared: the row that the others are compared with}. code: hash of the source files behind this step.
    """
    device, started = pick_device(), time.monotonic()
    timed = time_rows(asked, device, Clock(device))
    write_json(
        path,
        {
            "run": asked["timed"][asked["compared"]]["run"],
            "code": code,
            "compared": asked["compared"],
            "timed": timed,
            "timing": {"seconds": time.monotonic() - started, **record(device)},
        },
    )


class Clock:
    """Moments of a device: events in its queue of work on a GPU, else the processor's time."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"

    def moment(self) -> Any:
        """Now, or once all that has been asked of the GPU so far is done."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, moments: list) -> list[float]:
        """Between each moment and the next; waits for the last."""
        pairs = list(itertools.pairwise(moments))
        if not self.on_gpu:
            return [later - earlier for earlier, later in pairs]
        torch.cuda.synchronize()
        return [earlier.elapsed_time(later) / 1000 for earlier, later in pairs]


def time_rows(asked: dict, device: torch.device, clock: Clock) -> dict[str, dict]:
    """{row: {update: what its updates took, if it has parts; chains: {column: what the chain took}}}, of all rows.

    Of each: {samples: at a time; precision; hardware; torch; turns; blocks: [{part; like: the part that was timed for
    it; seconds: median, quartiles: the first and the third; updates: how many}]}, of a chain as of one block.
    Blocks whose weights have the same shapes are timed once, and so are rows that train the same. {untimed: why} stands
    in its place where nothing could be timed: no `samples_on_cpu` is said and there is no GPU, or too little memory.
    """
    on_cpu, kinds, of_rows = device.type == "cpu", {}, {}
    for row, about in asked["timed"].items():
        run = about["run"]
        if on_cpu:
            size = min(asked["samples_on_cpu"] or 1, run["train"]["batch_size"])
            run = {**run, "train": {**run["train"], "batch_size": size}}
        asked_of = {None: [(part, None) for part in about["parts"]]} if about["parts"] else {}
        asked_of |= {column: [(None, sampling)] for column, sampling in about["chains"].items()}
        of_rows[row] = {
            what: [kinds.setdefault(*_kind(run, about["shape"], *one)) for one in each]
            for what, each in asked_of.items()
        }
    if on_cpu and asked["samples_on_cpu"] is None:
        for kind in kinds.values():
            kind["untimed"] = ON_A_GPU
    updates = math.ceil((asked["updates_on_cpu"] if on_cpu else asked["updates"]) / TURNS)
    for turn in range(TURNS):
        for kind in kinds.values():
            if "untimed" not in kind:
                _take_turn(kind, device, clock, updates)
                free(device)
        print(f"turn {turn + 1} of {TURNS}: {len(kinds)} networks", flush=True)
    found = {}
    for row, whats in of_rows.items():
        parts = asked["timed"][row]["parts"]
        times = {what: _times(each, parts if what is None else [None], device) for what, each in whats.items()}
        update = {"update": times.pop(None)} if None in times else {}
        found[row] = {**update, "chains": times}
    return found


def _kind(run, shape, part, sampling):
    """(a key that is the same of what is the same, what there is to be timed): updates of a part, or a chain."""
    with torch.device("meta"):
        method = build(run, shape, part)
    shapes = [list(value.shape) for value in method.parameters()]
    key = json.dumps([run["model"], run["method"], run["train"], shape, shapes, sampling], sort_keys=True)
    return key, {"run": run, "part": part, "shape": shape, "sampling": sampling, "seconds": {}}


def _take_turn(kind, device, clock, updates):
    """Add a turn's seconds to a kind, by block. A GPU whose memory is too small is a finding, and no failure."""
    try:
        found = one_turn(kind["run"], kind["shape"], kind["part"], kind["sampling"], device, clock, updates)
    except torch.OutOfMemoryError:
        found, kind["untimed"] = {}, f"does not fit into the memory of {hardware(device)}"
    for block, seconds in found.items():
        kind["seconds"].setdefault(block, []).extend(seconds)


def one_turn(
    run: dict, shape: dict, part: str, sampling: dict | None, device: torch.device, clock: Clock, updates: int
) -> dict[int, list[float]]:
    """{block: seconds of each update of the part, or of each chain where there is a `sampling`, keywords of `predict`}.

    So many of each block are timed as `updates` says, or as fit in LONGEST, one at least.
    """
    act, expected = _chain(run, shape, sampling, device) if sampling is not None else _update(run, shape, part, device)
    warm_up = 1 if device.type == "cpu" else 5
    for step in range(warm_up):  # kernels are chosen, the optimizer gets its state
        act(step)
    step, moments = warm_up + 1, [clock.moment()]
    act(warm_up)
    last = clock.seconds([*moments, clock.moment()])[0]
    wanted = max(1, min(updates, int(LONGEST / max(last, 1e-6) / len(expected)))) * len(expected)
    blocks, moments = [], [clock.moment()]
    while len(blocks) < wanted or set(blocks) != set(expected):
        blocks.append(act(step))
        moments.append(clock.moment())
        step += 1
    found = {}
    for block, seconds in zip(blocks, clock.seconds(moments), strict=True):
        found.setdefault(block, []).append(seconds)
    return found


def _update(run, shape, part, device):
    """(function that makes an update and returns its block, blocks)."""
    trainer = Trainer(run, part, Chance(shape, run["train"]["batch_size"] * BATCHES, device), device)
    return lambda step: trainer.update(step)[0], trainer.blocks


def _chain(run, shape, sampling, device):
    """As `_update`, of a chain of the whole method on a batch; it is no block's, and counts as one."""
    size, method = run["train"]["batch_size"], build(run, shape, None).to(device).eval()
    batch = Chance(shape, size, device).train_batch(torch.arange(size, device=device))
    eps = torch.randn(size, *method.z_shape, device=device) if method.z_shape else None

    @torch.inference_mode()
    def answer(step):
        method.predict(batch, eps, **sampling)
        return 0

    return answer, (0,)


def free(device: torch.device) -> None:
    """Nothing of the network before is left on the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _times(kinds, parts, device):
    """What `time_rows` says of updates, or of a chain, whose kinds these are, one for each part."""
    if why := next((kind["untimed"] for kind in kinds if "untimed" in kind), None):
        return {"untimed": why}
    blocks = []
    for part, kind in zip(parts, kinds, strict=True):
        for seconds in kind["seconds"].values():
            low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
            found = {"seconds": middle, "quartiles": [low, high], "updates": len(seconds)}
            blocks.append({"part": part, "like": kind["part"], **found})
    train = kinds[0]["run"]["train"]
    precision = train.get("precision", "fp32") if kinds[0]["sampling"] is None else "fp32"  # as in evaluation
    products = " (TF32 products)" if device.type == "cuda" and precision == "fp32" else ""
    return {
        "samples": train["batch_size"],
        "precision": f"{precision}{products}",
        "hardware": hardware(device),
        "torch": torch.__version__,
        "turns": TURNS,
        "blocks": blocks,
    }

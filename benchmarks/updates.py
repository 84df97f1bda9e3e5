"""Seconds and memory of an update of every kind of row at the paper's sizes: end to end, one block, the joint network.

    python benchmarks/updates.py [--rows table1/...] [--scale paper] [--budget 240] [--output updates.csv]

The data are chance in the shape of the data set's, so nothing has to be at hand. A line per row and setting: the median
of updates that were timed one by one, the bytes that the weights, gradients and optimizer hold, and the peak. With a
GPU the settings are float32 (TF32 products), bf16 autocast and bf16 compiled; first all rows without the compiler.
"""

import argparse
import csv
import json
import statistics
import sys
import time

import torch

from diffusionblocks.base.device import pick_device
from diffusionblocks.data.chance import Chance
from diffusionblocks.evaluation.timing import free
from diffusionblocks.plan.configuration import ROOT, read_yaml
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import parts_of
from diffusionblocks.plan.sections import sizes
from diffusionblocks.training.trainer import Trainer

ROWS = (
    "table1/vit_end_to_end",
    "table1/vit_diffusionblocks",
    "table1/vit_diffusionblocks_joint",
    "table2/cifar10_dit_end_to_end",
    "table2/cifar10_dit_diffusionblocks",
    "table3/mdm_end_to_end",
    "table3/mdm_diffusionblocks",
    "table4/lm1b_ar_end_to_end",
    "table4/lm1b_ar_diffusionblocks",
    "table5/huginn_end_to_end",
    "table5/huginn_diffusionblocks",
    "table2/imagenet_dit_end_to_end",
    "table2/imagenet_dit_diffusionblocks",
)
COLUMNS = (
    *("row", "part", "precision", "compiled", "batch_size", "accumulate", "parameters", "first_updates_s", "median_s"),
    *("least_s", "updates", "held_mb", "peak_mb", "error", "device", "torch"),
)
SETTINGS = (("fp32", False), ("bf16", False), ("bf16", True))


def measure(run, part, device, updates):
    """One line of the table."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # nor is anything of the row before left in the compiler
    free(device)
    data = Chance(sizes(run["data"])["shape"], run["train"]["batch_size"], device)
    trainer = Trainer(run, part, data, device)
    begun = time.monotonic()
    for step in range(3):  # the optimizer's state, the compiler, cuBLAS
        trainer.update(step)
    wait(device)
    first = time.monotonic() - begun
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    while len(seconds) < updates and sum(seconds) < 6:
        begun = time.monotonic()
        trainer.update(3 + len(seconds))
        wait(device)
        seconds.append(time.monotonic() - begun)
    memory = trainer.memory()
    return {
        "parameters": sum(value.numel() for value in trainer.parameters.values()),
        "first_updates_s": round(first, 2),
        "median_s": round(statistics.median(seconds), 5),
        "least_s": round(min(seconds), 5),
        "updates": len(seconds),
        "held_mb": round(sum(memory[key] for key in memory if key != "peak_bytes") / 1e6, 1),
        "peak_mb": round(memory["peak_bytes"] / 1e6, 1),
    }


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=ROWS)
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no row is begun")
    parser.add_argument("--updates", type=int, default=20, help="timed updates of a row and setting")
    parser.add_argument("--output", default="updates.csv")
    args = parser.parse_args()
    plan = Plan.of({**read_yaml(ROOT / "config.yaml")[0], "scale": args.scale})
    device, begun = pick_device(), time.monotonic()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    settings = SETTINGS if device.type == "cuda" else SETTINGS[:1]
    with open(args.output, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for precision, compiled in settings:
            for row in args.rows:
                if time.monotonic() - begun > args.budget:
                    print(f"{row} {precision}: not begun, the budget is spent", flush=True)
                    continue
                run = plan.rows[tuple(row.split("/"))].run(0)
                run["train"] |= {"precision": precision, "compile": compiled}
                part = parts_of(run["method"])[0]
                about = {"row": row, "part": part, "precision": precision, "compiled": compiled}
                about |= {"batch_size": run["train"]["batch_size"], "accumulate": run["train"].get("accumulate", 1)}
                try:
                    line = {**about, **measure(run, part, device, args.updates), "error": ""}
                except Exception as error:  # the rows after it are measured all the same, and the line says what it was
                    line = {**about, "error": f"{type(error).__name__}: {str(error)[:200]}"}
                writer.writerow({**line, "device": name, "torch": torch.__version__})
                file.flush()
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""What of a job's time this machine spends on what, as ratios measured in turn: some minutes, on a CPU.

    OMP_NUM_THREADS=2 python benchmarks/all.py [--batch 32] [--updates 2] [--turns 3] [--eager]

The start-up of a job by itself and in the workflow's warm process; an update of the paper's ViT, end to end and of one
block, with and without the setting by which freed memory is kept (base/device.py), eager and compiled; Table A4's
ratio; the share of the rate of a large matrix product that is timed beside. Updates and their clock are those of
evaluation/timing.py, on random images. Each variant has a process of its own, and they take turns. For seconds and
memory of all rows, on a GPU, see updates.py.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from diffusionblocks.base import device as devices
from diffusionblocks.base.gpu import CHOICE
from diffusionblocks.base.hand_over import VARIABLE
from diffusionblocks.base.provenance import hardware
from diffusionblocks.base.warm import warm
from diffusionblocks.data.prepare import prepare
from diffusionblocks.evaluation.count import counted
from diffusionblocks.evaluation.timing import Clock, free, one_turn
from diffusionblocks.plan.configuration import ROOT, read_yaml
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import parts_of
from diffusionblocks.plan.sections import sizes

ROWS = {"whole": ("table1", "vit_end_to_end"), "block": ("table1", "vit_diffusionblocks")}
SIDE = 2048  # of the matrices whose product is the yardstick
FLOP, PRODUCTS = 2 * SIDE**3, 5


def row(which, scale, **train):
    """(run, its first part, shape of its data)."""
    found = Plan.of({**read_yaml(ROOT / "config.yaml")[0], "scale": scale}).rows[ROWS[which]]
    run = found.run(0)
    return {**run, "train": {**run["train"], **train}}, parts_of(run["method"])[0], sizes(run["data"])["shape"]


def start_ups(count):
    """{where: seconds of a command that trains a tiny network for one update}, without and with the warm process."""
    run, part, _ = row("whole", "demo")
    run["train"] = {"batch_size": 8, "lr": 0.001, "steps": 1}
    with tempfile.TemporaryDirectory() as name, warm(Path(name, "warm.log")):
        folder, seconds = Path(name), {"alone": [], "warm": []}
        (folder / "run.json").write_text(json.dumps(run))
        prepare(run["data"], "nowhere", folder / "data.safetensors")
        for number, where in itertools.product(range(count + 1), seconds):
            files = ["--data", folder / "data.safetensors", "--state", folder / f"{where}{number}"]
            files += ["--output", folder / f"{where}{number}.safetensors"]
            command = [sys.executable, "-m", "diffusionblocks", "train", folder / "run.json", part, *files]
            environment = {**os.environ, VARIABLE: os.environ[VARIABLE] if where == "warm" else ""}
            begun = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            if number:  # the first imports: for good, or from the disk
                seconds[where].append(time.perf_counter() - begun)
    return {where: median(found) for where, found in seconds.items()}


def take_turns(keep, compiled, batch, updates):
    """A process of one variant: a turn for each line that comes in, {row: seconds of updates, product: of products}."""
    if not keep:
        devices._keep_freed_memory = lambda: None
    with contextlib.redirect_stdout(sys.stderr):
        device = devices.pick_device()
    train = {"batch_size": batch, "accumulate": 1, "precision": "fp32", "compile": compiled}
    chosen, clock, matrix = {name: row(name, "paper", **train) for name in ROWS}, Clock(device), torch.rand(SIDE, SIDE)
    for _ in sys.stdin:
        found, moments = {}, [clock.moment()]
        for _ in range(PRODUCTS):
            torch.mm(matrix, matrix)
            moments.append(clock.moment())
        found["product"] = clock.seconds(moments)
        for name, (run, part, shape) in chosen.items():
            (found[name],) = one_turn(run, shape, part, None, device, clock, updates).values()
            free(device)
        print(json.dumps(found), flush=True)


def measured(variants, args):
    """{variant: {row, product: seconds}}; the variants take turns."""
    processes, found = {}, {}
    for variant in variants:
        command = [sys.executable, __file__, "--variant", json.dumps(variant)]
        command += ["--batch", str(args.batch), "--updates", str(args.updates)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        processes[variant] = subprocess.Popen(command, text=True, env={**os.environ, CHOICE: "cpu"}, **pipes)
    for _ in range(args.turns):
        for variant, process in processes.items():
            print(file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                sys.exit(f"{variant}: has ended; without a compiler, say --eager")
            for name, seconds in json.loads(line).items():
                found.setdefault(variant, {}).setdefault(name, []).extend(seconds)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="images of an update")
    parser.add_argument("--updates", type=int, default=2, help="of each row and variant in a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=5, help="started in either way")
    parser.add_argument("--eager", action="store_true", help="leave out what needs a compiler")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        return take_turns(*json.loads(args.variant), args.batch, args.updates)
    begun, start_up = time.monotonic(), start_ups(args.jobs)
    times = measured(itertools.product((True, False), (False, True)[: 2 - args.eager]), args)
    torch.set_num_threads(devices._threads())
    least = {variant: {name: min(seconds) for name, seconds in of.items()} for variant, of in times.items()}
    flop, plain = {}, least[True, False]
    for name in ROWS:
        run, part, shape = row(name, "paper", batch_size=args.batch, accumulate=1)
        flop[name] = counted(run, [part], shape)["flop"] * args.batch
    arithmetic, rate = 3 * flop["block"] / flop["whole"], FLOP / plain["product"] / 1e9
    print(
        f"{hardware(torch.device('cpu'))}, torch {torch.__version__}; {time.monotonic() - begun:.0f} s in all.\n\n"
        f"Start-up, and one update of a tiny network: {start_up['alone']:.2f} s, in the warm process "
        f"{start_up['warm']:.2f} s, {start_up['alone'] / start_up['warm']:.1f} times less (medians of {args.jobs}).\n\n"
        f"The paper's ViT, float32, batch {args.batch}: median of {args.turns} turns of {args.updates} updates, and "
        "the least, of which\nthe ratios are, since whatever else the machine does disturbs it least. By "
        f"arithmetic three blocks would take\n{arithmetic:.2f} times an end-to-end update (the paper's Table A4 has "
        f"1.07); two {SIDE} x {SIDE} matrices are multiplied at {rate:.0f} GFLOP/s.\n\n"
        "| freed memory | layers | end to end, s | a block, s | times the first line's | a block | "
        "share of the product's rate | a block | three blocks / end to end |\n" + "| --- " * 9 + "|"
    )
    for (keep, compiled), found in least.items():
        values = [f"{median(times[keep, compiled][name]):.3f}, {found[name]:.3f}" for name in ROWS]
        values += [f"{found[name] / plain[name]:.2f}" for name in ROWS]
        values += [f"{flop[name] / found[name] / (FLOP / found['product']):.0%}" for name in ROWS]
        words = "kept" if keep else "handed back", "compiled" if compiled else "eager"
        print(f"| {' | '.join([*words, *values])} | {3 * found['block'] / found['whole']:.2f} |")


if __name__ == "__main__":
    main()

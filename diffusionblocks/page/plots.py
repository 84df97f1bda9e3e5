"""Plots of the page: losses, chains, likelihood, block counts, noise partitions. No torch.

Each function returns an SVG as text; figures.py says which table has which. `runs`: metrics.json of each seed of a row.
`curves`: one of its curves, for each seed: {sigma, block, value, from_target}.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pandas as pd
import seaborn as sns

from diffusionblocks.page import canvas


def losses(runs: list[dict], limits: tuple[float, float]) -> str:
    """Training loss against updates per block, a line per block, mean and range over seeds.

    limits: (lowest, highest) loss of all rows, which share an axis.
    """
    points = []
    for seed, run in enumerate(runs):
        for part in run["parts"].values():
            # A process that trains all blocks in turn counts its steps over all of them.
            turns = len(part["losses"])
            for block, curve in part["losses"].items():
                points += [(seed, int(block), step / turns, value) for step, value in curve]
    frame = pd.DataFrame(points, columns=["seed", "block", "step", "loss"])
    # Blocks that take random turns are logged at other steps in each seed: put them on common ones.
    width = max(frame["step"].max() / 40, 1)
    frame["step"] = (frame["step"] / width).round() * width
    frame = frame.groupby(["block", "step", "seed"], as_index=False)["loss"].mean()
    blocks = sorted(frame["block"].unique())
    with canvas.style():
        figure, axes = canvas.panel("updates per block", "loss")
        for block, colour in zip(blocks, canvas.colours(len(blocks)), strict=True):
            grouped = frame[frame["block"] == block].groupby("step")["loss"]
            mean, low, high = grouped.mean(), grouped.min(), grouped.max()
            axes.plot(mean.index, mean, color=colour, label=f"block {block}" if len(blocks) > 1 else "whole network")
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        if limits[1] > 100 * limits[0]:  # blocks of low noise would lie on the axis
            axes.set(yscale="log", ylim=(limits[0] / 1.2, limits[1] * 1.2))
        else:
            axes.set_ylim(0, limits[1] * 1.05)
        canvas.legend(axes)
        return canvas.svg(figure)


def loss_limits(rows: Iterable[list[dict]]) -> tuple[float, float]:
    """(lowest, highest) training loss in the metrics of all rows."""
    parts = [part for runs in rows for run in runs for part in run["parts"].values()]
    values = [value for part in parts for curve in part["losses"].values() for _, value in curve]
    return min(values), max(values)


def block_count(ylabel: str, ours: dict, paper: dict[int, float], relative: bool) -> str:
    """A metric against the number of blocks, mean and range over seeds; dashed: the paper's.

    ours: {legend: {number of blocks: [value of each seed]}}; paper: {number of blocks: value}, or empty. relative:
    divide each by its value of one block, which the paper and the first line to have one must have.
    """
    first = next((values[1] for values in ours.values() if 1 in values), None)
    with canvas.style():
        figure, axes = canvas.panel("number of blocks B", ylabel)
        for (label, values), colour in zip(ours.items(), sns.color_palette("colorblind"), strict=False):
            counts, base = sorted(values), np.mean(values.get(1, first)) if relative else 1
            values = [np.array(values[count]) / base for count in counts]
            axes.plot(counts, [value.mean() for value in values], marker="o", color=colour, label=label)
            low, high = ([getattr(value, end)() for value in values] for end in ("min", "max"))
            axes.fill_between(counts, low, high, color=colour, alpha=0.2, linewidth=0)
        if paper:
            printed = {count: paper[count] / (paper[1] if relative else 1) for count in sorted(paper)}
            axes.plot(printed.keys(), printed.values(), "--", marker="s", color="0.4", label="paper")
        if relative:
            axes.axhline(1, color="0.6", linewidth=1, linestyle=":")
        axes.set_xticks(sorted({count for values in (*ours.values(), paper) for count in values}))
        canvas.legend(axes)
        return canvas.svg(figure)


def likelihood(curves: list[dict], baseline: list[dict] | None = None) -> str:
    """Bits per character that each masking rate costs, mean over seeds, coloured by the block that owns the rate.

    The area under the curve is the bound. baseline: the same curves of the row that this one is compared with, as a
    line.
    """
    levels, owners = np.array(curves[0]["sigma"]), np.array(curves[0]["block"])
    values, colours = _over_seeds(curves).mean(0), canvas.colours(owners.max() + 1)
    with canvas.style():
        figure, axes = canvas.panel("masking rate t", "bits per character and unit of t")
        for block, colour in enumerate(colours):
            mine = owners == block
            label = f"block {block}" if len(colours) > 1 else "whole network"
            axes.bar(levels[mine], values[mine], width=1 / len(levels), color=colour, alpha=0.7, label=label)
        if baseline:
            axes.step(
                levels, _over_seeds(baseline).mean(0), where="mid", color="0.2", linewidth=1, label="compared with"
            )
        canvas.legend(axes, 2)
        return canvas.svg(figure)


def chain(ylabel: str, lines: dict[str, list[dict]], baseline: float | None = None, most=math.inf) -> str:
    """What each step of a chain reaches, mean and range over seeds; dashed where it starts from the true target.

    lines: {legend: curves}, all of the same steps, which are numbered where a method has no levels. baseline: the value
    of the row that this one is compared with, drawn as a line. most: the largest value on the axis.
    """
    first = next(iter(lines.values()))[0]
    steps = np.arange(1, len(first["sigma"]) + 1)
    shown = steps[:: -(-len(steps) // 6)]  # of which the labels have room
    named, labels = "denoising step", [str(step) for step in shown]
    if None not in first["sigma"]:
        named = "noise level σ and, below, the block that acts"
        labels = [f"{first['sigma'][step - 1]:.2g}\n{first['block'][step - 1]}" for step in shown]
    palette = sns.color_palette("colorblind", len(lines))
    with canvas.style():
        figure, axes = canvas.panel(named, ylabel)
        for (name, curves), colour in zip(lines.items(), palette, strict=True):
            values, style = _over_seeds(curves), "--" if curves[0]["from_target"] else "-"
            axes.plot(steps, values.mean(0), style, marker="o", color=colour, label=name)
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        if baseline is not None:
            axes.axhline(baseline, color="0.4", linewidth=1, linestyle=":", label="compared with")
        axes.set_xticks(shown, labels)
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, most)])
        canvas.legend(axes, 1)
        return canvas.svg(figure)


def curve(ylabel: str, curves: list[dict]) -> str:
    """Any other list of values, one per step, mean and range over seeds."""
    values = _over_seeds(curves)
    steps = np.arange(1, values.shape[1] + 1)
    with canvas.style():
        figure, axes = canvas.panel("step", ylabel)
        axes.plot(steps, values.mean(0), marker="o", markersize=3)
        axes.fill_between(steps, values.min(0), values.max(0), alpha=0.2, linewidth=0)
        return canvas.svg(figure)


def _over_seeds(curves):
    """Values (seeds, steps)."""
    return np.array([curve["value"] for curve in curves])


def partition(partition: dict) -> str:
    """Density of log sigma or of the masking rate, coloured by owner; bars below: where each block trains."""
    bounds, noise = partition["boundaries"], partition["noise"]
    colours = canvas.colours(len(bounds) - 1)
    # To each bound exactly, and no closer in between than the eye can tell.
    space, points = np.geomspace if noise else np.linspace, 12 + 96 // len(colours)
    levels = [space(low, high, points) for high, low in pairwise(bounds)]
    normal = NormalDist(noise["p_mean"], noise["p_std"]) if noise else None
    density = [np.array([normal.pdf(math.log(level)) if normal else 1.0 for level in own]) for own in levels]
    labels = ("noise level σ", "training density of log σ") if noise else ("masking rate t", "training density of t")
    with canvas.style():
        figure, axes = canvas.panel(*labels)
        axes.grid(visible=False)
        axes.plot(np.concatenate(levels[::-1]), np.concatenate(density[::-1]), color="0.2", linewidth=1)
        highest = max(own.max() for own in density)
        step = highest * 0.07
        for block, colour in enumerate(colours):
            share = partition["mass"][block]
            first, last = partition["layers"][block]
            label = f"block {block}: layers {first + 1}–{last}, {share:.0%}"
            axes.fill_between(levels[block], density[block], color=colour, alpha=0.7, linewidth=0, label=label)
            low, high = partition["intervals"][block]
            axes.plot([low, high], [-step * (block + 1)] * 2, color=colour, linewidth=4, solid_capstyle="butt")
        axes.set(xscale="log" if noise else "linear", ylim=(-step * (len(colours) + 1), highest * 1.05), yticks=[])
        canvas.legend(axes, 1)
        return canvas.svg(figure)

"""Plots of what went on: losses, chains, likelihood, noise partitions. No torch.

Each function returns a figure of a panel for each row of the table; figures.py says which table has which. `runs`:
metrics.json of each seed of a row. `curves`: one of its curves, for each seed: {sigma, block, value, from_target}.
"""

import math
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffusionblocks.page import canvas


def losses(rows: dict[str, list[dict]]) -> Figure:
    """Training loss against updates per block, a line per block, mean and range over seeds.

    rows: {title: runs}, which share both axes.
    """
    with canvas.style():
        figure, panels = canvas.multiples(list(rows), "updates per block", "loss", sharex=True)
        for axes, runs in zip(panels, rows.values(), strict=True):
            frame = _losses(runs)
            blocks = sorted(frame["block"].unique())
            for block, colour in zip(blocks, canvas.colours(len(blocks)), strict=True):
                grouped = frame[frame["block"] == block].groupby("step")["loss"]
                label = canvas.named(block, len(blocks))
                _line(axes, grouped.mean().index, (grouped.mean(), grouped.min(), grouped.max()), colour, label, "-")
        low, high = loss_limits(rows.values())
        if 0 < 100 * low < high:  # blocks of low noise would lie on the axis
            axes.set(yscale="log", ylim=(low / 1.2, high * 1.2))
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(min(0, low * 1.05), high * 1.05)
        canvas.legend(figure)
        return figure


def _losses(runs):
    """Losses of a row's seeds at common steps: a frame of block, step, seed, loss."""
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
    return frame.groupby(["block", "step", "seed"], as_index=False)["loss"].mean()


def loss_limits(rows: Iterable[list[dict]]) -> tuple[float, float]:
    """(lowest, highest) training loss in the metrics of all rows."""
    parts = [part for runs in rows for run in runs for part in run["parts"].values()]
    values = [value for part in parts for curve in part["losses"].values() for _, value in curve]
    return min(values), max(values)


def likelihood(rows: dict[str, tuple[list[dict], list[dict] | None]]) -> Figure:
    """Bits per character that each masking rate costs, mean over seeds, coloured by the block that owns the rate.

    The area under the curve is the bound. rows: {title: (curves, those of the row that it is compared with)}; the
    latter are drawn as a line.
    """
    with canvas.style():
        ylabel = "bits per character\nand unit of t"
        figure, panels = canvas.multiples(list(rows), "masking rate t", ylabel, sharex=True)
        for axes, (curves, baseline) in zip(panels, rows.values(), strict=True):
            levels, owners = np.array(curves[0]["sigma"]), np.array(curves[0]["block"])
            values, colours = _over_seeds(curves).mean(0), canvas.colours(owners.max() + 1)
            for block, colour in enumerate(colours):
                mine = owners == block
                label = canvas.named(block, len(colours))
                axes.bar(levels[mine], values[mine], width=1 / len(levels), color=colour, label=label)
            if baseline:
                mean = _over_seeds(baseline).mean(0)
                axes.step(levels, mean, where="mid", color=canvas.INK, linewidth=1, label="compared with")
        canvas.legend(figure)
        return figure


def chain(ylabel: str, rows: dict[str, tuple[dict[str, list[dict]], float | None]], most: float = math.inf) -> Figure:
    """What each step of a chain reaches, mean and range over seeds; dashed where it starts from the true target.

    rows: {title: ({legend: curves}, value of the row that it is compared with, drawn as a line)}, all curves of a row
    of the same steps, which are numbered where a method has no levels. most: the largest value on the axis, which rows
    share.
    """
    legends = list(dict.fromkeys(name for lines, _ in rows.values() for name in lines))
    colours = dict(zip(legends, canvas.colours(max(len(legends), 2)), strict=False))
    named = all(None in next(iter(lines.values()))[0]["sigma"] for lines, _ in rows.values())
    xlabel = "denoising step" if named else "noise level σ, and below it\nthe block that acts"
    with canvas.style():
        figure, panels = canvas.multiples(list(rows), xlabel, ylabel)
        for axes, (lines, baseline) in zip(panels, rows.values(), strict=True):
            first = next(iter(lines.values()))[0]
            steps = np.arange(1, len(first["sigma"]) + 1)
            room = 3 * axes.get_position().width * figure.get_figwidth()  # labels to an inch, at most
            shown = steps[:: -(-len(steps) // max(2, int(room * 2 / 3)))]
            labels = [str(step) for step in shown]
            if None not in first["sigma"]:
                labels = [f"{first['sigma'][step - 1]:.2g}\n{first['block'][step - 1]}" for step in shown]
            for name, curves in lines.items():
                values, style = _over_seeds(curves), "--o" if curves[0]["from_target"] else "-o"
                _line(axes, steps, (values.mean(0), values.min(0), values.max(0)), colours[name], name, style)
            if baseline is not None:
                axes.axhline(baseline, color=canvas.INK, linewidth=1, linestyle=":", label="compared with")
            axes.set_xticks(shown, labels)
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, most)])
        canvas.legend(figure)
        return figure


def curves(rows: dict[str, tuple[str, list[dict]]]) -> Figure:
    """Any other lists of values, one per step, mean and range over seeds. rows: {title: (metric, its curves)}."""
    with canvas.style():
        figure, panels = canvas.multiples(list(rows), "step", "", sharey=False)
        for axes, (metric, found) in zip(panels, rows.values(), strict=True):
            values = _over_seeds(found)
            steps, about = np.arange(1, values.shape[1] + 1), (values.mean(0), values.min(0), values.max(0))
            _line(axes, steps, about, canvas.PALETTE[0], None)
            axes.set_ylabel(metric)
        for metric in {metric for metric, _ in rows.values()}:  # what is compared has one axis
            same = [axes for axes in panels if axes.get_ylabel() == metric]
            limits = [axes.get_ylim() for axes in same]
            for axes in same:
                axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        return figure


def _line(axes, steps, values, colour, label, style="-o"):
    """A mean, and where seeds differ their range. values: (mean, low, high)."""
    mean, low, high = values
    axes.plot(steps, mean, style, markersize=3, color=colour, label=label)
    if (low != high).any():
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def _over_seeds(curves):
    """Values (seeds, steps)."""
    return np.array([curve["value"] for curve in curves])


RIDGE, LETTERS = 0.36, 0.14  # inches: the highest density of a row, a line of words above it


def partitions(rows: list[tuple[list[str], dict]]) -> Figure:
    """Density of log sigma or of the masking rate, coloured by owner, a row below the other above one axis.

    rows: (what to write above, partition), of one kind of noise. Bars below a density show where each block trains.
    """
    noise = rows[0][1]["noise"]
    ends = [partition["boundaries"][end] for _, partition in rows for end in (0, -1)]
    words = [[line for words in above for line in textwrap.wrap(words, 58)] for above, _ in rows]
    heights = [LETTERS * len(lines) + RIDGE + 0.3 for lines in words]
    with canvas.style():
        figure, top = Figure(figsize=(canvas.WIDTH, sum(heights))), sum(heights)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xscale="log" if noise else "linear", xlim=(min(ends), max(ends)), ylim=(0, top), yticks=[])
        axes.set_xlabel("noise level σ" if noise else "masking rate t")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        for (_, partition), lines, height in zip(rows, words, heights, strict=True):
            for number, line in enumerate(lines):
                place = top - LETTERS * number
                axes.text(0, place, line, transform=axes.get_yaxis_transform(), va="top", fontsize=8)
            top -= height
            _ridge(axes, partition, top + 0.24)
        canvas.legend(figure)
        return figure


def _ridge(axes, partition, base):
    """The density of one partition above `base`, and bars below it. Lengths in inches."""
    bounds, noise = partition["boundaries"], partition["noise"]
    colours = canvas.colours(len(bounds) - 1)
    # To each bound exactly, and no closer in between than the eye can tell.
    space, far = (np.geomspace, math.log) if noise else (np.linspace, float)
    whole = far(bounds[0]) - far(bounds[-1])
    levels = [space(low, high, 3 + round(60 * (far(high) - far(low)) / whole)) for high, low in pairwise(bounds)]
    normal = NormalDist(noise["p_mean"], noise["p_std"]) if noise else None
    density = [np.array([normal.pdf(math.log(level)) if normal else 1.0 for level in own]) for own in levels]
    scale = RIDGE / max(own.max() for own in density)
    for block, colour in enumerate(colours):
        label = canvas.named(block, len(colours))
        axes.fill_between(levels[block], base, base + scale * density[block], color=colour, linewidth=0, label=label)
        below = base - 0.06 - 0.05 * (block % 2)  # neighbours, which overlap, beside each other
        axes.plot(partition["intervals"][block], [below] * 2, color=colour, linewidth=2.5, solid_capstyle="butt")


def shares(partition: dict) -> str:
    """Each block's share of the draws, in words; nothing of one block."""
    percent = [f"{share:.0%}" for share in partition["mass"]]
    said = f"each {percent[0]}" if len({*percent}) == 1 else ", ".join(percent)
    return f"{said} of the draws" if len(percent) > 1 else ""


def layers(partition: dict) -> str:
    """Which layers each block has, in words."""
    spans = [f"{first + 1}–{last}" if last - first > 1 else f"{last}" for first, last in partition["layers"]]
    return f"layers {', '.join(spans)}"

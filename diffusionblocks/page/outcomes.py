"""Plots of what came out: rows beside the paper's, and a metric against the number of blocks. No torch.

Each function returns a figure; figures.py says which table has which.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffusionblocks.page import canvas
from diffusionblocks.page.statistics import interval


@dataclass(frozen=True)
class Compared:
    """Rows that share an axis: those of one data set, in one metric."""

    title: str  # the metric, its unit and what it was measured on
    printed: str  # of the paper's numbers
    rows: dict[str, tuple[list[float], float | None]]  # {title: (value of each seed, the paper's)}
    comparable: bool  # whether the paper's were measured in the same way, so that both have one axis
    baseline: str | None  # title of the row that the others are compared with


PITCH = 0.36  # inches from a row to the next
FOOT = 0.6  # for the numbers of the axis
OURS = 0.6  # of the width, where the paper's numbers have an axis of their own


def outcomes(groups: Sequence[Compared]) -> Figure:
    """Each row's seeds, their mean and its 90% interval, and the paper's number, in panels from top to bottom.

    A row's title stands above it, so that a phone has room for both. Values that are not finite have no place.
    """
    apart = [
        not group.comparable and any(printed is not None for _, printed in group.rows.values()) for group in groups
    ]
    heads = [textwrap.wrap(group.title, 50) for group in groups]
    heights = [canvas.LETTERS * (len(head) + 0.5) for head in heads]
    spread = any(len(values) > 1 for group in groups for values, _ in group.rows.values())
    label = "mean, 90% interval" if spread else "measured here"
    total = sum(heights) + sum(PITCH * len(group.rows) + FOOT for group in groups)
    with canvas.style():
        figure, top = Figure(figsize=(canvas.WIDTH, total)), total
        for group, head, height, split in zip(groups, heads, heights, apart, strict=True):
            tall = PITCH * len(group.rows)
            top -= height + tall
            panels = [figure.add_axes((0, top / total, OURS if any(apart) else 1, tall / total))]
            panels[0].set_title("\n".join(head), fontweight="bold")
            if split:
                panels += [figure.add_axes((OURS + 0.06, top / total, 1 - OURS - 0.06, tall / total))]
                panels[0].set_xlabel("measured here")
                panels[1].set_xlabel(textwrap.fill(group.printed, 20))
            _outcomes(group, panels[0], panels[-1], label)
            for axes, ticks in zip(panels, (5, 3), strict=False):
                axes.set(ylim=(len(group.rows) - 0.5, -0.5), yticks=[])
                axes.margins(x=0.08)
                axes.grid(visible=True, axis="x")
                axes.xaxis.set_major_locator(MaxNLocator(ticks))
                axes.spines["left"].set_visible(False)
            top -= FOOT
        canvas.legend(figure)
        return figure


def _outcomes(group, ours, paper, label):
    """Rows on one axis, or on one for ours and one for the paper's. label: of ours."""
    for number, (row, (values, printed)) in enumerate(group.rows.items()):
        ours.text(0, number - 0.28, row, transform=ours.get_yaxis_transform(), va="center", fontsize=8)
        known, y = [value for value in values if math.isfinite(value)], number + 0.12
        if len(values) > 1:
            about = {
                "color": canvas.INK,
                "marker": "|",
                "markersize": 7,
                "linestyle": "none",
                "zorder": 3,
                "label": "a seed",
            }
            ours.plot(known, [y] * len(known), **about)
        if known == values:
            mean, half = interval(values)
            ours.errorbar(mean, y, xerr=half, fmt="none", color=canvas.PALETTE[0], elinewidth=2)
            ours.plot(mean, y, "o", color=canvas.PALETTE[0], markersize=5, label=label)
            if row == group.baseline:
                ours.axvline(mean, color=canvas.SOFT, linewidth=1, linestyle=":", label="compared with")
        if printed is not None:
            about = {"color": canvas.INK, "marker": "s", "linestyle": "none", "label": "the paper"}
            paper.plot(printed, y + (0 if paper is not ours else 0.18), **about)
            if row == group.baseline and paper is not ours:
                paper.axvline(printed, color=canvas.SOFT, linewidth=1, linestyle=":")


def block_counts(panels: dict[str, tuple[dict, dict[int, float], bool]]) -> Figure:
    """A metric against the number of blocks, mean and 90% interval over seeds; dashed: the paper's.

    panels: {metric and unit: (ours, paper, relative)}. ours: {legend: {number of blocks: [value of each seed]}}; paper:
    {number of blocks: value}, or empty. relative: divide each by its value of one block, which the paper and the first
    line to have one must have.
    """
    with canvas.style():
        figure, axes = canvas.multiples(list(panels), "number of blocks B", "", sharey=False)
        for panel, (ours, paper, relative) in zip(axes, panels.values(), strict=True):
            panel.set_ylabel("relative to one block" if relative else "")
            _block_counts(panel, ours, paper, relative)
        canvas.legend(figure)
        return figure


def _block_counts(axes, ours, paper, relative):
    first = next((values[1] for values in ours.values() if 1 in values), None)
    for (label, values), colour in zip(ours.items(), canvas.colours(max(len(ours), 2)), strict=False):
        counts, base = sorted(values), np.mean(values.get(1, first)) if relative else 1
        found = [interval([value / base for value in values[count]]) for count in counts]
        means = [mean if math.isfinite(mean) else math.nan for mean, _ in found]
        halves = [half or 0 for _, half in found]
        axes.errorbar(counts, means, halves, fmt="none", color=colour, elinewidth=2)
        axes.plot(counts, means, "-o", color=colour, label=label)
    if paper:
        printed = {count: paper[count] / (paper[1] if relative else 1) for count in sorted(paper)}
        axes.plot(printed.keys(), printed.values(), "--", marker="s", color=canvas.INK, label="the paper")
    if relative:
        axes.axhline(1, color=canvas.SOFT, linewidth=1, linestyle=":")
    axes.set_xticks(sorted({count for values in (*ours.values(), paper) for count in values}))

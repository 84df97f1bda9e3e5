"""Figures of the page, drawn from metrics.json alone. Each function returns an SVG as text; no torch."""

import io
from statistics import NormalDist

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

HEIGHT = 3.0
WIDTH = 3.4  # of one panel, in inches: two of them fill a phone held upright when stacked by the page

# Metrics that are drawn as chains: their name in the legend, and their line.
CHAINS = {"chain": ("along the chain", "-"), "chain_from_target": ("from the true label", "--")}

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "diffusionblocks",  # the same figure gives the same bytes
}


def _colours(count):
    """One colour a block, dark to light with falling noise, told apart in grey as well."""
    return sns.color_palette("viridis", max(count, 2))[:count] if count > 1 else [sns.color_palette("colorblind")[0]]


def _svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _panel(title, xlabel, ylabel):
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def losses(title, runs):
    """Training loss against updates per block, a line per block, mean and range over seeds. runs: one row's metrics."""
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
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "updates per block", "cross-entropy")
        for block, colour in zip(blocks, _colours(len(blocks)), strict=True):
            grouped = frame[frame["block"] == block].groupby("step")["loss"]
            mean, low, high = grouped.mean(), grouped.min(), grouped.max()
            axes.plot(mean.index, mean, color=colour, label=f"block {block}" if len(blocks) > 1 else "whole network")
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=0)
        axes.legend()
        return _svg(figure)


def chain(title, runs, baseline=None):
    """Accuracy after each step of the chain, mean and range over seeds; dashed from the true target under noise.

    baseline: accuracy of the row that this one is compared with, drawn as a line.
    """
    curves = [name for name in CHAINS if name in runs[0]["curves"]]
    first = runs[0]["curves"][curves[0]]
    labels = [f"σ = {sigma:.3g}\nblock {block}" for sigma, block in zip(first["sigma"], first["block"], strict=True)]
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "denoising step", "test accuracy (%)")
        for curve in curves:
            name, style = CHAINS[curve]
            values = np.array([run["curves"][curve]["value"] for run in runs])
            colour = sns.color_palette("colorblind")[0 if style == "-" else 1]
            axes.plot(labels, values.mean(0), style, marker="o", color=colour, label=name)
            axes.fill_between(labels, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        if baseline is not None:
            axes.axhline(baseline, color="0.4", linewidth=1, linestyle=":", label="compared with")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend above the lines
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 100])
        axes.legend(loc="upper left")
        return _svg(figure)


def partition(title, partition):
    """Density of log sigma, coloured by the block that owns it; bars below: the intervals on which blocks train."""
    bounds, noise = partition["boundaries"], partition["noise"]
    sigma = np.geomspace(bounds[-1], bounds[0], 800)
    normal = NormalDist(noise["p_mean"], noise["p_std"])
    density = np.array([normal.pdf(value) for value in np.log(sigma)])
    colours = _colours(len(bounds) - 1)
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "noise level σ", "training density of log σ")
        axes.grid(visible=False)
        axes.plot(sigma, density, color="0.2", linewidth=1)
        step = density.max() * 0.07
        for block, colour in enumerate(colours):
            own = (sigma <= bounds[block]) & (sigma >= bounds[block + 1])
            share = partition["mass"][block]
            first, last = partition["layers"][block]
            label = f"block {block}: layers {first + 1}–{last}, {share:.0%}"
            axes.fill_between(sigma[own], density[own], color=colour, alpha=0.7, linewidth=0, label=label)
            low, high = partition["intervals"][block]
            axes.plot([low, high], [-step * (block + 1)] * 2, color=colour, linewidth=4, solid_capstyle="butt")
        axes.set(xscale="log", ylim=(-step * (len(colours) + 1), density.max() * 1.45), yticks=[])
        axes.legend(loc="upper right")
        return _svg(figure)

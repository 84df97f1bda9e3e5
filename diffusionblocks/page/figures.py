"""Figures of the page, drawn from metrics.json alone. Each function returns an SVG as text; no torch."""

import base64
import io
import zlib
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
CHAINS = {"chain": ("along the chain", "-"), "chain_from_target": ("from the true target", "--")}
LOSS_CHAINS = {"loss_chain": ("along the chain", "-"), "loss_chain_from_target": ("from the true target", "--")}

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


def losses(title, runs, limits):
    """Training loss against updates per block, a line per block, mean and range over seeds.

    runs: one row's metrics; limits: (lowest, highest) loss of all rows, which share an axis.
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
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "updates per block", "loss")
        for block, colour in zip(blocks, _colours(len(blocks)), strict=True):
            grouped = frame[frame["block"] == block].groupby("step")["loss"]
            mean, low, high = grouped.mean(), grouped.min(), grouped.max()
            axes.plot(mean.index, mean, color=colour, label=f"block {block}" if len(blocks) > 1 else "whole network")
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        if limits[1] > 100 * limits[0]:  # blocks of low noise would lie on the axis
            axes.set(yscale="log", ylim=(limits[0] / 1.2, limits[1] * 1.2))
        else:
            axes.set_ylim(0, limits[1] * 1.05)
        axes.legend()
        return _svg(figure)


def loss_limits(rows):
    """(lowest, highest) training loss in the metrics of all rows."""
    parts = [part for runs in rows for run in runs for part in run["parts"].values()]
    values = [value for part in parts for curve in part["losses"].values() for _, value in curve]
    return min(values), max(values)


def samples(rows, columns=10):
    """Generated images, a line per row of the table: {row: the metrics of its first seed}.

    All rows start from the same noise and the same classes, so a column shows one image as each system finishes it.
    """
    strips = {
        row: np.concatenate(list(_images(run["samples"]["images"])[:columns]), axis=1) for row, run in rows.items()
    }
    with plt.rc_context(STYLE):
        height = 2 * WIDTH / columns
        figure, axes = plt.subplots(len(rows), 1, figsize=(2 * WIDTH, height * len(rows)), squeeze=False)
        for panel, (row, strip) in zip(axes[:, 0], strips.items(), strict=True):
            _picture(panel, strip)
            panel.set_ylabel(row, rotation=0, ha="right", va="center")
        figure.subplots_adjust(hspace=0.06)
        return _svg(figure)


def trajectory(rows):
    """One image on its way from noise, a line per row: what the acting block takes the clean image to be.

    rows: {row: the metrics of its first seed}. Above each picture its noise level; its frame and the number below tell
    the block that acted.
    """
    columns = max(len(run["samples"]["steps"]) for run in rows.values())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), columns, figsize=(2 * WIDTH, 1.55 * 2 * WIDTH / columns * len(rows)), squeeze=False
        )
        for panels, (row, run) in zip(axes, rows.items(), strict=True):
            colours = _colours(len(run["partition"]["layers"]))
            panels[0].set_ylabel(row, rotation=0, ha="right", va="center", labelpad=8)
            for panel in panels:
                panel.set(xticks=[], yticks=[])
            steps = zip(panels, _images(run["samples"]["trajectory"]), run["samples"]["steps"], strict=False)
            for panel, image, (sigma, block) in steps:
                _picture(panel, image)
                panel.set_title(f"{sigma:.2g}", fontsize=7, loc="center", pad=2)
                panel.set_xlabel(block, fontsize=7, labelpad=2, color=colours[block], fontweight="bold")
                for side in panel.spines.values():
                    side.set(visible=True, color=colours[block], linewidth=2)
        figure.subplots_adjust(hspace=0.5, wspace=0.12)
        return _svg(figure)


def block_count(title, ylabel, ours, paper, relative):
    """A metric against the number of blocks, mean and range over seeds; dashed: the paper's.

    ours: {legend: {number of blocks: [value of each seed]}}; paper: {number of blocks: value}. relative: divide each by
    its value of one block, which must be there, since FIDs of other data and extractors cannot be compared.
    """
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "number of blocks B", ylabel)
        for (label, values), colour in zip(ours.items(), sns.color_palette("colorblind"), strict=False):
            counts, base = sorted(values), np.mean(values[1]) if relative else 1
            values = [np.array(values[count]) / base for count in counts]
            axes.plot(counts, [value.mean() for value in values], marker="o", color=colour, label=label)
            low, high = ([getattr(value, end)() for value in values] for end in ("min", "max"))
            axes.fill_between(counts, low, high, color=colour, alpha=0.2, linewidth=0)
        counts = sorted(paper)
        printed = [paper[count] / (paper[1] if relative else 1) for count in counts]
        axes.plot(counts, printed, "--", marker="s", color="0.4", label="paper")
        if relative:
            axes.axhline(1, color="0.6", linewidth=1, linestyle=":")
        axes.set_xticks(counts)
        axes.legend()
        return _svg(figure)


def likelihood(title, runs, baseline=None):
    """Bits per character that each masking rate costs, mean over seeds, coloured by the block that owns the rate.

    The area under the curve is the bound. baseline: the same of the row that this one is compared with, as a line.
    """
    curve = runs[0]["curves"]["bpc_by_level"]
    levels, owners = np.array(curve["sigma"]), np.array(curve["block"])
    values = np.mean([run["curves"]["bpc_by_level"]["value"] for run in runs], axis=0)
    colours = _colours(owners.max() + 1)
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "masking rate t", "bits per character and unit of t")
        for block, colour in enumerate(colours):
            mine = owners == block
            label = f"block {block}" if len(colours) > 1 else "whole network"
            axes.bar(levels[mine], values[mine], width=1 / len(levels), color=colour, alpha=0.7, label=label)
        if baseline:
            values = np.mean([run["curves"]["bpc_by_level"]["value"] for run in baseline], axis=0)
            axes.step(levels, values, where="mid", color="0.2", linewidth=1, label="compared with")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
        axes.legend()
        return _svg(figure)


def _images(packed):
    """uint8 images (N, H, W, C) out of metrics.json."""
    images = np.frombuffer(zlib.decompress(base64.b64decode(packed["zlib"])), np.uint8).reshape(packed["shape"])
    return images.transpose(0, 2, 3, 1)


def _picture(axes, image):
    """One picture without axes; grey if it has one channel."""
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def chain(title, runs, baseline=None, names=CHAINS, ylabel="test accuracy (%)", most=100):
    """What each step of the chain reaches, mean and range over seeds; dashed from the true target under noise.

    baseline: the value of the row that this one is compared with, drawn as a line. names: which curves, as CHAINS.
    most: the largest value on the axis.
    """
    curves = [name for name in names if name in runs[0]["curves"]]
    first = runs[0]["curves"][curves[0]]
    labels = [f"σ = {sigma:.3g}\nblock {block}" for sigma, block in zip(first["sigma"], first["block"], strict=True)]
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, "denoising step", ylabel)
        for curve in curves:
            name, style = names[curve]
            values = np.array([run["curves"][curve]["value"] for run in runs])
            colour = sns.color_palette("colorblind")[0 if style == "-" else 1]
            axes.plot(labels, values.mean(0), style, marker="o", color=colour, label=name)
            axes.fill_between(labels, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        if baseline is not None:
            axes.axhline(baseline, color="0.4", linewidth=1, linestyle=":", label="compared with")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend above the lines
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= most])
        axes.legend(loc="upper left")
        return _svg(figure)


def partition(title, partition):
    """Density of log sigma or of the masking rate, coloured by owner; bars below: where each block trains."""
    bounds, noise = partition["boundaries"], partition["noise"]
    if noise:
        sigma = np.geomspace(bounds[-1], bounds[0], 800)
        normal = NormalDist(noise["p_mean"], noise["p_std"])
        density = np.array([normal.pdf(value) for value in np.log(sigma)])
    else:
        sigma, density = np.linspace(bounds[-1], bounds[0], 800), np.ones(800)
    colours = _colours(len(bounds) - 1)
    labels = ("noise level σ", "training density of log σ") if noise else ("masking rate t", "training density of t")
    with plt.rc_context(STYLE):
        figure, axes = _panel(title, *labels)
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
        axes.set(
            xscale="log" if noise else "linear", ylim=(-step * (len(colours) + 1), density.max() * 1.45), yticks=[]
        )
        axes.legend(loc="upper right")
        return _svg(figure)

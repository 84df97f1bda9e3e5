"""Which figures the page shows of a table, and what they say: one entry of FIGURES each. No torch.

A curve is drawn by the figure that its metric declares (`figure` in metrics.json); a figure of a whole table, such as
`block_count`, is drawn where the table's file names it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffusionblocks.base.files import write_json
from diffusionblocks.page import pictures, plots
from diffusionblocks.page.results import Results, num_blocks

Drawn = Iterator[tuple[str, str]]  # caption, which is its alternative text too, and SVG of each picture


@dataclass(frozen=True)
class Figure:
    """A heading of the page with what is drawn under it; left out where `draw` yields nothing."""

    heading: str
    text: str
    draw: Callable[[Results], Drawn]
    wide: bool = False  # takes the page's whole width


@dataclass(frozen=True)
class Chain:
    """How curves along the chain of blocks are drawn."""

    title: str
    ylabel: str
    baseline: str  # name of the metric that the row which is compared with has in place of a chain
    most: float  # the largest value on the axis


CHAINS = {
    "accuracy_chain": Chain("Accuracy along the chain", "test accuracy (%)", "accuracy", 100),
    "loss_chain": Chain("Cross-entropy along the chain", "nats per token", "next_token_loss", math.inf),
}


def figures(plan_path: Path | str, path: Path | str) -> None:
    """Draw the figures of a table and write them, as `groups` gives them, for all pages that show it.

    plan_path: the `<table>.json` that planning wrote; its metrics files must be there. Raises UserError as `Results`
    does, and when the disk is full.
    """
    write_json(path, groups(Results(plan_path)))


def groups(results: Results) -> list[dict]:
    """The figures that a table has: {heading, text, wide, images: [(caption, SVG)]}."""
    found = []
    for figure in FIGURES:
        if images := list(figure.draw(results)):
            found.append({"heading": figure.heading, "text": figure.text, "wide": figure.wide, "images": images})
    return found


def _pictured(results, title, draw):
    """A picture of all rows on one data set; rows on other data have pictures of their own."""
    found = {}
    for row, seeds in results.runs.items():
        if "images" in (seeds[0]["samples"] or {}):
            found.setdefault(seeds[0]["data"]["title"], {})[row] = seeds[0]
    for data, rows in found.items():
        yield f"{title}{data}", draw(rows)


def _losses(results: Results) -> Drawn:
    trained = {row: seeds for row, seeds in results.runs.items() if seeds[0]["parts"]}  # others are counted
    limits = plots.loss_limits(trained.values()) if trained else None
    for row, seeds in trained.items():
        yield f"Training loss of {row}", plots.losses(seeds, limits)


def _block_counts(results: Results) -> Drawn:
    """Of each metric of the table, unless it is one that stands beside the others wherever it is not printed."""
    if "block_count" not in results.plan["figures"]:
        return
    metrics = {column: number for row in results.runs for column, number in results.numbers(row).items()}
    for column, number in metrics.items():
        if number["beside"] or (results.printed and column not in results.paper["metrics"]):
            continue
        ours, paper = {}, {}
        for row, seeds in results.runs.items():
            if column in results.numbers(row):
                count, series = num_blocks(seeds[0]), results.plan["rows"][row]["series"]
                series = row if count in ours.get(series, {}) else series  # a second row of as many blocks
                ours.setdefault(series, {})[count] = results.values(row, column)
                if column in results.of_row(row):
                    paper[count] = results.of_row(row)[column]
        # Values on other data or of another extractor cannot be compared with the paper's, but ratios can.
        relative = 1 in paper and any(1 in values for values in ours.values())
        if any(len(values) > 1 for values in ours.values()):
            title = f"{column} against the number of blocks, {results.title}"
            title += f" ({number['better']} is better)" if number["better"] else ""
            ylabel = "relative to one block" if relative else number["unit"] or column
            yield title, plots.block_count(ylabel, ours, paper, relative)


def _chains(name: str) -> Callable[[Results], Drawn]:
    """The chains of every row that has some; those with other steps have a picture of their own."""

    def draw(results: Results) -> Drawn:
        chain = CHAINS[name]
        for row in results.runs:
            panels = {}
            for column, curves in _curves(results, row, name).items():
                panels.setdefault(str([curves[0]["sigma"], curves[0]["block"]]), {})[column] = curves
            for number, panel in enumerate(panels.values()):
                title = row if number == 0 else f"{row}, {', '.join(panel)}"
                baseline = results.mean_of(results.against(row), chain.baseline)
                drawn = plots.chain(chain.ylabel, _named(panel), baseline, chain.most)
                yield f"{chain.title}, {title}", drawn

    return draw


def _named(panel):
    """{legend: curves}: where a chain starts, and where several start there, which column it is."""
    starts = {column: curves[0]["from_target"] for column, curves in panel.items()}
    named = {}
    for column, curves in panel.items():
        words = "from the true target" if starts[column] else "along the chain"
        alone = list(starts.values()).count(starts[column]) == 1
        named[words if alone else f"{words} ({column})"] = curves
    return named


def _likelihoods(results: Results) -> Drawn:
    for row in results.runs:
        for column, curves in _curves(results, row, "likelihood").items():
            baseline = _curves(results, results.against(row), "likelihood").get(column)
            yield f"Bits per character by masking rate, {row}", plots.likelihood(curves, baseline)


def _others(results: Results) -> Drawn:
    """Curves of metrics that name no figure of this page, so that nothing measured is lost."""
    for row, seeds in results.runs.items():
        for column, curve in seeds[0]["curves"].items():
            if curve["figure"] not in (*CHAINS, "likelihood"):
                yield f"{column} of {row}", plots.curve(column, [run["curves"][column] for run in seeds])


def _curves(results, row, name):
    """{column: its curve for each seed} of a row's metrics that a figure draws."""
    seeds = results.runs.get(row, [{"curves": {}}])
    columns = [column for column, curve in seeds[0]["curves"].items() if curve["figure"] == name]
    return {column: [run["curves"][column] for run in seeds] for column in columns}


def _partitions(results: Results) -> Drawn:
    """Rows with one partition share a figure."""
    found = []  # (rows, their partition)
    for row, seeds in results.runs.items():
        if "partition" in seeds[0]:
            same = next((rows for rows, partition in found if partition == seeds[0]["partition"]), None)
            if same is None:
                found.append(([row], seeds[0]["partition"]))
            else:
                same.append(row)
    for rows, partition in found:
        yield f"Noise partition of {', '.join(rows)}", plots.partition(partition)


FIGURES = (
    Figure(
        "Generated images",
        "The same noise and the same ten classes for every row, seed 0; not selected.",
        lambda results: _pictured(results, "Images generated from ", pictures.samples),
        wide=True,
    ),
    Figure(
        "One image on its way from noise",
        "What the acting block takes the clean image to be, at some of the steps; above the noise level, below and in "
        "the frame's colour the block.",
        lambda results: _pictured(results, "An image's way, ", pictures.trajectory),
        wide=True,
    ),
    Figure(
        "Quality against the number of blocks",
        "Mean and range over seeds. Beside printed values, which are of other data or another extractor, every line is "
        "relative to its value of one block, where that is known.",
        _block_counts,
    ),
    Figure(
        "Cross-entropy of the next token along the chain",
        "Each token from the z that the blocks before left, all true tokens before it given; the first step, from pure "
        "noise, shows what the context says. Dashed: the block shown the true token under its own noise.",
        _chains("loss_chain"),
    ),
    Figure(
        "What each masking rate costs",
        "The bound's density over the masking rate, by the block that owns it; the area is the bits per character.",
        _likelihoods,
    ),
    Figure(
        "Training loss per block",
        "Unweighted loss of each block on its own noise levels, mean and range over seeds. A block at low noise sees a "
        "target that is nearly clean, so its loss is low from the start.",
        _losses,
    ),
    Figure(
        "Accuracy along the chain of blocks",
        "Each step is one block's prediction from the z that the blocks before it left. Dashed: the same block shown "
        "the true label under its own noise, which at low noise can be read off without the image.",
        _chains("accuracy_chain"),
    ),
    Figure("Other curves", "What a metric gives for each step, mean and range over seeds.", _others),
    Figure(
        "Noise partition",
        "Which block owns which noise levels (area: share of all training draws), and the intervals on which the "
        "blocks train, overlap included (bars).",
        _partitions,
    ),
)

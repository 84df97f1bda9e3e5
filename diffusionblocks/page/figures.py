"""Which figures the page shows of a table, and what they say: one entry of FIGURES each. No torch.

A curve is drawn by the figure that its metric declares (`figure` in metrics.json); a figure of a whole table, such as
`block_count`, is drawn where the table's file names it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure

from diffusionblocks.base.files import write_json
from diffusionblocks.page import canvas, outcomes, pictures, plots
from diffusionblocks.page.results import Results, num_blocks
from diffusionblocks.page.table import stand_ins
from diffusionblocks.page.wording import in_words

Drawn = tuple[matplotlib.figure.Figure, str] | None  # and in words what is seen; None where a table has nothing of it


@dataclass(frozen=True)
class Figure:
    """A figure of the page under its heading; left out where `draw` gives nothing."""

    name: str  # in the page's addresses, and in names of files
    heading: str
    text: str
    draw: Callable[[Results], Drawn]
    role: str | None = None  # of each role the first figure of a table is open, all others closed


@dataclass(frozen=True)
class Chain:
    """How curves along the chain of blocks are drawn."""

    ylabel: str
    baseline: str  # name of the metric that the row which is compared with has in place of a chain
    most: float  # the largest value on the axis


CHAINS = {
    "accuracy_chain": Chain("test accuracy (%)", "accuracy", 100),
    "loss_chain": Chain("nats per token", "next_token_loss", math.inf),
}
MOST_ROWS = 24  # of the figure of outcomes; where there are more, those that the paper prints or compares with


def figures(plan_path: Path | str, path: Path | str) -> None:
    """Draw the figures of a table and write them, as `groups` gives them, for all pages that show it.

    plan_path: the `<table>.json` that planning wrote; its metrics files must be there. Raises UserError as `Results`
    does, and when the disk is full.
    """
    write_json(path, groups(Results(plan_path)))


def groups(results: Results) -> list[dict]:
    """The figures that a table has: {name, heading, text, open, wide, alt, svg}."""
    found, roles = [], set()
    for figure, drawn, alt in _drawn(results):
        about = {"name": figure.name, "heading": figure.heading, "text": figure.text}
        about["open"] = figure.role is not None and figure.role not in roles
        roles.add(figure.role)
        about["wide"] = bool(drawn.get_figwidth() > canvas.WIDTH)
        found.append({**about, "alt": alt, "svg": canvas.svg(drawn, f"{results.name}-{figure.name}")})
    return found


def export(results: Results, folder: Path) -> list[Path]:
    """Write a table's figures as `<table>-<figure>.svg` and `.pdf`, dark on white, for papers. Returns the files.

    Raises UserError when the disk is full.
    """
    paths = []
    for figure, drawn, _ in _drawn(results):
        for kind in ("svg", "pdf"):
            paths.append(folder / f"{results.name}-{figure.name}.{kind}")
            canvas.save(drawn, paths[-1])
    return paths


def _drawn(results) -> Iterator[tuple[Figure, matplotlib.figure.Figure, str]]:
    for figure in FIGURES:
        if drawn := figure.draw(results):
            yield figure, *drawn


def _title(results, row):
    """What a row is called, so that no two of a table are called the same."""
    title = results.title_of(row)
    return title if [results.title_of(other) for other in results.runs].count(title) == 1 else f"{title} ({row})"


def _outcomes(results: Results) -> Drawn:
    """Of each metric that the paper prints, or of all in the table of one's own; rows of one data set together, and all
    that are counted.
    """
    if _by_blocks(results):  # shows the same, in order
        return None
    found = {}  # {(column, data): rows}
    for row, seeds in results.runs.items():
        for column, number in results.numbers(row).items():
            if column in results.paper["metrics"] or not (results.printed or number["beside"]):
                data = seeds[0]["data"]["title"] if seeds[0]["parts"] else None
                found.setdefault((column, data), []).append(row)
    if sum(map(len, found.values())) > MOST_ROWS:
        against = {results.against(row) for row in results.runs if {*results.paper["metrics"]} & {*results.of_row(row)}}
        found = {
            (column, data): [row for row in rows if column in results.of_row(row) or row in against]
            for (column, data), rows in found.items()
        }
    shown = [_compared(results, *key, rows) for key, rows in found.items() if len(rows) > 1]
    if not shown:
        return None
    words = (
        f"{group.title}: {'; '.join(_outcome(row, *values, group.printed) for row, values in group.rows.items())}"
        for group in shown
    )
    return outcomes.outcomes(shown), ". ".join(words) + "."


def _compared(results, column, data, rows):
    number = results.numbers(rows[0])[column]
    unlike = any(stand_ins(results, row, column) for row in rows) or "timed" in number
    against = {results.against(row) for row in rows} & {*rows}
    expected = results.expected_data(rows[0])
    return outcomes.Compared(
        title=", ".join(filter(None, (_metric(column, number), data))),
        printed=f"in the paper{f', {expected}' if expected and unlike else ''}",
        rows={_title(results, row): (results.values(row, column), results.of_row(row).get(column)) for row in rows},
        comparable=not unlike,
        baseline=_title(results, against.pop()) if len(against) == 1 else None,
    )


def _metric(column, number):
    better = f"{number['better']} is better" if number.get("better") else None
    return f"{in_words(column)} ({', '.join(filter(None, (number.get('unit'), better)))})".replace(" ()", "")


def _outcome(row, values, printed, where):
    return f"{row} {_mean(values)}" + ("" if printed is None else f", {where} {printed:g}")


def _mean(values):
    return f"{sum(values) / len(values):.3g}"


def _pictured(draw, alt):
    """A picture of all rows that have generated images, by data set."""

    def pictured(results):
        found = {}
        for row, seeds in results.runs.items():
            if "images" in (seeds[0]["samples"] or {}):
                found.setdefault(seeds[0]["data"]["title"], {})[_title(results, row)] = seeds[0]
        if found:
            return draw(found), " ".join(f"{alt} {data}: {', '.join(rows)}." for data, rows in found.items())

    return pictured


def _losses(results: Results) -> Drawn:
    trained = {_title(results, row): runs for row, runs in results.runs.items() if runs[0]["parts"]}
    if trained:  # others are counted
        return plots.losses(trained), "; ".join(f"{row}: {_fall(runs[0])}" for row, runs in trained.items()) + "."


def _fall(run):
    curves = {block: curve for part in run["parts"].values() for block, curve in part["losses"].items()}
    return ", ".join(
        f"{canvas.named(block, len(curves))} from {curve[0][1]:.2g} to {curve[-1][1]:.2g}"
        for block, curve in sorted((int(block), curve) for block, curve in curves.items())
        if curve
    )


def _block_counts(results: Results) -> Drawn:
    if panels := _by_blocks(results):
        return outcomes.block_counts(panels), " ".join(_counted(title, *panels[title][:2]) for title in panels)


def _by_blocks(results):
    """{metric: (ours, paper, relative)}, as `outcomes.block_counts` takes them, where the table asks for the figure.

    Of each metric, unless it is one that stands beside the others wherever it is not printed, and checks none of them.
    """
    if "block_count" not in results.plan["figures"]:
        return {}
    metrics = {column: number for row in results.runs for column, number in results.numbers(row).items()}
    panels, checks = {}, results.plan["cross_checks"].values()
    for column, number in metrics.items():
        besides = number["beside"] or (results.printed and column not in results.paper["metrics"])
        if besides and column not in checks:
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
            panels[_metric(column, number)] = ours, paper, relative
    return panels


def _counted(title, ours, paper):
    lines = {name: {count: _mean(values) for count, values in line.items()} for name, line in ours.items()}
    lines |= {"the paper": {count: f"{value:g}" for count, value in paper.items()}} if paper else {}
    said = [
        f"{name} {', '.join(f'{line[count]} with B={count}' for count in sorted(line))}" for name, line in lines.items()
    ]
    return f"{title}: {'; '.join(said)}."


def _chains(name: str) -> Callable[[Results], Drawn]:
    """The chains of every row that has some; those with other steps have a panel of their own."""

    def draw(results: Results) -> Drawn:
        chain, panels = CHAINS[name], {}
        for row in results.runs:
            steps = {}
            for column, curves in _curves(results, row, name).items():
                steps.setdefault(str([curves[0]["sigma"], curves[0]["block"]]), {})[column] = curves
            for number, found in enumerate(steps.values()):
                title = ", ".join([_title(results, row), *(found if number else ())])
                panels[title] = _named(found), results.mean_of(results.against(row), chain.baseline)
        if panels:
            alt = "; ".join(_along(title, *panel) for title, panel in panels.items())
            return plots.chain(chain.ylabel, panels, chain.most), f"{chain.ylabel}: {alt}."

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


def _along(title, lines, baseline):
    said = [f"{name} {_from_to(curves)}" for name, curves in lines.items()]
    return f"{title} {', '.join(said)}" + ("" if baseline is None else f", compared with {baseline:.3g}")


def _from_to(curves, where=""):
    """The ends of curves, means over seeds. where: in words, where the first end is."""
    first, last = (_mean([curve["value"][end] for curve in curves]) for end in (0, -1))
    return f"from {first}{where} to {last}"


def _likelihoods(results: Results) -> Drawn:
    panels = {}
    for row in results.runs:
        for number, (column, curves) in enumerate(_curves(results, row, "likelihood").items()):
            baseline = _curves(results, results.against(row), "likelihood").get(column)
            panels[", ".join([_title(results, row), *([column] if number else ())])] = curves, baseline
    if panels:
        said = (
            f"{row} {_from_to(curves, ' at the lowest rate')} at the highest" for row, (curves, _) in panels.items()
        )
        return plots.likelihood(panels), f"{'; '.join(said)}."


def _others(results: Results) -> Drawn:
    """Curves of metrics that name no figure of this page, so that nothing measured is lost."""
    panels = {}
    for row, seeds in results.runs.items():
        for column, curve in seeds[0]["curves"].items():
            if curve["figure"] not in (*CHAINS, "likelihood"):
                panels[f"{column}, {_title(results, row)}"] = column, [run["curves"][column] for run in seeds]
    if panels:
        said = (f"{title} {_from_to(curves)}" for title, (_, curves) in panels.items())
        return plots.curves(panels), f"{'; '.join(said)}."


def _curves(results, row, name):
    """{column: its curve for each seed} of a row's metrics that a figure draws."""
    seeds = results.runs.get(row, [{"curves": {}}])
    columns = [column for column, curve in seeds[0]["curves"].items() if curve["figure"] == name]
    return {column: [run["curves"][column] for run in seeds] for column in columns}


def _partitions(kind: str) -> Callable[[Results], Drawn]:
    """Rows whose blocks own the same levels share a drawing. kind: of noise, `sigma` or `masking`."""

    def draw(results: Results) -> Drawn:
        found = []  # (a partition, {its layers: rows})
        for row, seeds in results.runs.items():
            partition = seeds[0].get("partition")
            if partition and bool(partition["noise"]) == (kind == "sigma"):
                key = {**partition, "layers": None}
                layers = next((layers for other, layers in found if {**other, "layers": None} == key), None)
                if layers is None:
                    found.append((partition, layers := {}))
                layers.setdefault(plots.layers(partition), []).append(_title(results, row))
        rows = [
            ([*(f"{'; '.join(rows)}: {words}" for words, rows in layers.items()), plots.shares(partition)], partition)
            for partition, layers in found
        ]
        if rows:
            return plots.partitions(rows), ". ".join(", ".join(filter(None, words)) for words, _ in rows) + "."

    return draw


FIGURES = (
    Figure(
        "outcomes",
        "Measured, and in the paper",
        "Every seed, their mean and its 90% confidence interval (Student’s t). Where data, features or the machine are "
        "not the paper’s, its numbers have an axis of their own: compare the order of rows and their gaps, not values.",
        lambda results: _outcomes(results) if results.printed else None,
        role="result",
    ),
    Figure(
        "outcomes",
        "Measured",
        "Every seed, their mean and its 90% confidence interval (Student’s t).",
        lambda results: None if results.printed else _outcomes(results),
        role="result",
    ),
    Figure(
        "block-count",
        "Quality against the number of blocks",
        "Mean over seeds, and its 90% confidence interval (Student’s t) where there are several. Beside printed "
        "values, which are of other data or another extractor, every line is relative to its value of one block, where "
        "that is known.",
        _block_counts,
        role="result",
    ),
    Figure(
        "accuracy-chain",
        "Accuracy along the chain of blocks",
        "Each step is one block’s prediction from the z that the blocks before it left; mean and range over seeds. "
        "Dashed: the same block shown the true label under its own noise, which at low noise can be read off without "
        "the image.",
        _chains("accuracy_chain"),
        role="chain",
    ),
    Figure(
        "loss-chain",
        "Cross-entropy of the next token along the chain",
        "Each token from the z that the blocks before left, all true tokens before it given; mean and range over "
        "seeds. The first step, from pure noise, shows what the context says. Dashed: the block shown the true token "
        "under its own noise.",
        _chains("loss_chain"),
        role="chain",
    ),
    Figure(
        "masking-rates",
        "What each masking rate costs",
        "The bound’s density over the masking rate, by the block that owns it; the area is the bits per character.",
        _likelihoods,
        role="chain",
    ),
    Figure(
        "samples",
        "Generated images",
        "The same noise and the same ten classes for every row, seed 0; not selected.",
        _pictured(pictures.samples, "Ten images in the manner of"),
        role="chain",
    ),
    Figure(
        "trajectory",
        "One image on its way from noise",
        "What the acting block takes the clean image to be, at some of the steps; above each the noise level, and in "
        "the frame’s colour the block.",
        _pictured(pictures.trajectory, "From noise to an image in the manner of"),
    ),
    Figure(
        "losses",
        "Training loss per block",
        "Unweighted loss of each block on its own noise levels, mean and range over seeds; all rows have the same "
        "axes. A block at low noise sees a target that is nearly clean, so its loss is low from the start.",
        _losses,
    ),
    Figure("curves", "Other curves", "What a metric gives for each step, mean and range over seeds.", _others),
    Figure(
        "partition",
        "Noise partition",
        "Which block owns which noise levels (area: share of all training draws), and below, as bars, the intervals on "
        "which the blocks train, overlap included.",
        _partitions("sigma"),
    ),
    Figure(
        "masking-partition",
        "Partition of masking rates",
        "Which block owns which masking rates (area: share of all training draws), and below, as bars, the intervals "
        "on which the blocks train, overlap included.",
        _partitions("masking"),
    ),
)

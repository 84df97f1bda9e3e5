"""What all figures of the page have in common: size, style, colours of blocks, and how one becomes text. No torch."""

import io
from contextlib import AbstractContextManager

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HEIGHT = 3.0
WIDTH = 3.4  # of one panel, in inches: two of them fill a phone held upright when stacked by the page

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


def style() -> AbstractContextManager:
    """Inside of it figures look alike."""
    return plt.rc_context(STYLE)


def colours(count: int) -> list:
    """One colour a block, dark to light with falling noise, told apart in grey as well."""
    return sns.color_palette("viridis", max(count, 2))[:count] if count > 1 else [sns.color_palette("colorblind")[0]]


def svg(figure: Figure) -> str:
    """The figure as text, closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def panel(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """One plot of the width that two of a row have."""
    with style():
        figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes

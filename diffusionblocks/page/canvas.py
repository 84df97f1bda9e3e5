"""What all figures of the page have in common: size, style, colours of blocks, and how one becomes text. No torch."""

import hashlib
import io
import re
from contextlib import AbstractContextManager
from xml.etree import ElementTree

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
    "font.size": 9,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",  # letters as letters: their outlines were a third of the page
    "svg.hashsalt": "diffusionblocks",  # the same figure gives the same bytes
}


def style() -> AbstractContextManager:
    """Inside of it figures look alike."""
    return plt.rc_context(STYLE)


def colours(count: int) -> list:
    """One colour a block, dark to light with falling noise, told apart in grey as well."""
    return sns.color_palette("viridis", max(count, 2))[:count] if count > 1 else [sns.color_palette("colorblind")[0]]


def svg(figure: Figure) -> str:
    """The figure, closed, as one SVG element that can stand in a page among others: its ids are its own.

    Equal figures give equal texts, and figures that differ have no id in common.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=dict.fromkeys(METADATA))
    plt.close(figure)
    return _lean(buffer.getvalue())


METADATA = ("Creator", "Date", "Format", "Type")  # what matplotlib writes of itself, unless it is told not to
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # the first is what sizes were measured with


def _lean(text):
    """matplotlib's SVG as an element of HTML, at a third of the size and to the eye the same."""
    root = ElementTree.fromstring(text)
    view = {"viewBox": root.get("viewBox"), "font-family": FONTS, "stroke-linejoin": "round"}
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    referred = dict.fromkeys(re.findall(r'(?:url\(|href=")#(\w+)', text))
    ids = {name: f"{prefix}-{number}" for number, name in enumerate(referred)}
    for element in root.iter():
        element.tag, element.tail = element.tag.rpartition("}")[2], None
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.attrib = {} if element is root else dict(_attributes(element, ids))
    root.attrib = view
    return ElementTree.tostring(_flat(root), encoding="unicode")


def _attributes(element, ids):
    """Attributes of an element without what is said once for all, and lengths to a tenth of a point.

    No screen shows less. ids: {name: what it becomes}.
    """
    for name, value in element.attrib.items():
        name = name.rpartition("}")[2]
        if (name == "id" and value not in ids) or value.startswith("rotate(-0 "):
            continue
        if name == "style":
            value = ";".join(word for word in value.split("; ") if not word.startswith("font-family"))
        elif name in ("d", "x", "y") or value.startswith("translate("):
            value = " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}", value).split())
        elif value.startswith("data:"):
            value = "".join(value.split())
        named = re.fullmatch(r"(url\(#|#|)(\w+)(\)?)", value)
        yield name, f"{named[1]}{ids[named[2]]}{named[3]}" if named and named[2] in ids else value


def _flat(element):
    """An element without groups that say nothing, nor empty definitions."""
    for child in list(element):
        _flat(child)
    kept = [child for child in element if child.tag != "style"]  # a style would hold for the whole page
    found = [[*child] if child.tag == "g" and not child.attrib else [child] for child in kept]
    element[:] = [child for children in found for child in children if child.tag != "defs" or len(child)]
    return element


def panel(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """One plot of the width that two of a row have."""
    with style():
        figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def legend(axes: Axes, columns: int = 3) -> None:
    """What is drawn, above the plot, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)

"""What all figures of the page have in common: size, style, colours of blocks, and how one becomes text. No torch."""

import hashlib
import io
import math
import re
import textwrap
from base64 import b64decode, b64encode
from contextlib import AbstractContextManager
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from diffusionblocks.base.files import atomic

WIDTH = 4.0  # of a figure that a phone held upright shows whole, in inches
FULL = 7.0  # of one with several panels side by side, which scrolls there
PIXELS = 1.5  # of the page at most to a point, so that letters are as large as the text around them

LETTERS = 0.16  # height of a line of a title

INK, SOFT, LINE = "#1b1f24", "#59636e", "#d8dee4"  # of letters, of axes, of grids; on paper
ON_PAGE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"}  # report/style.css has them, light and dark

# Each stands out by a contrast of 3 or more (WCAG 1.4.11) from white as well as from the page's dark ground.
PALETTE = ("#0072b2", "#d55e00", "#00936b", "#c45aa8", "#937c10", "#7b61d1", "#0f8a9e", "#c2483f")

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": LINE,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # as publishers ask for
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # letters as letters: their outlines were a third of the page
    "svg.hashsalt": "diffusionblocks",  # the same figure gives the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a title is a dollar
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}


def style() -> AbstractContextManager:
    """Inside of it figures look alike."""
    return matplotlib.rc_context(STYLE)


def colours(count: int) -> list:
    """One colour a block, on the whole page the same for the same block; grey for a network that is not cut."""
    if count == 1:
        return [SOFT]
    # Beyond the palette hues of one lightness, in the middle between the two grounds.
    return list(PALETTE[:count]) if count <= len(PALETTE) else sns.husl_palette(count, s=0.9, l=0.52)


def named(block: int, count: int) -> str:
    """What a legend calls a block."""
    return f"block {block}" if count > 1 else "whole network"


def multiples(
    titles: list[str], xlabel: str, ylabel: str, *, sharex: bool = False, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of as many panels, each under its title, three a line at most; one alone is as wide as a phone.

    Their axes are numbered where they are not shared. Labels stand outside of the figure's own size; `svg` and `save`
    take them in.
    """
    count = len(titles)
    columns = count if count < 3 else 2 if count == 4 else 3
    lines, room = -(-count // columns), 0.2 if sharey else 0.55
    width = WIDTH if count == 1 else (FULL - room * (columns - 1)) / columns
    height = 2.4 if count == 1 else 1.5
    wrapped = [textwrap.wrap(title, int(width * 16)) for title in titles]  # letters of this size to an inch
    head, foot = _head(max(map(len, wrapped))), 0.3 if sharex else 0.55
    size = (WIDTH if count == 1 else FULL, lines * height + (lines - 1) * (head + foot))
    figure = Figure(figsize=size)
    grid = figure.subplots(
        lines,
        columns,
        sharex=sharex,
        sharey=sharey,
        squeeze=False,
        gridspec_kw={
            "left": 0,
            "right": 1,
            "bottom": 0,
            "top": 1,
            "wspace": room / width,
            "hspace": (head + foot) / height,
        },
    )
    for number, axes in enumerate(grid.flat):
        if number >= count:
            axes.set_visible(False)
            continue
        axes.set_title("\n".join(wrapped[number]))
        if number % columns == 0:
            axes.set_ylabel(ylabel)
        if number + columns >= count:
            axes.set_xlabel(xlabel)
            axes.tick_params(labelbottom=True)  # also above a place that is left empty
    return figure, list(grid.flat)[:count]


def _head(lines):
    """Inches that a title of so many lines takes."""
    return 0.08 + LETTERS * lines


def legend(figure: Figure) -> None:
    """What the figure's lines and areas are, each once, above all panels, where it hides nothing."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    top = max(axes.get_position().y1 for axes in figure.axes)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_position().y1 == top]
    above = top + _head(max(title.count("\n") + bool(title) for title in titles)) / figure.get_figheight()
    if found:
        letters = 6 + max(map(len, found))  # with the sign before them and the gap behind
        columns = int(figure.get_figwidth() * 14 / letters) or 1
        names = [name for column in range(columns) for name in list(found)[column::columns]]  # read in lines
        place = {"loc": "lower left", "bbox_to_anchor": (0, above), "borderpad": 0, "ncols": columns}
        figure.legend([found[name] for name in names], names, **place)


def svg(figure: Figure) -> str:
    """The figure as one SVG element that can stand in a page among others: its ids are its own, its ink is the page's.

    Equal figures give equal texts, and figures that differ have no id in common.
    """
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=dict.fromkeys(METADATA["svg"]))
    return _lean(buffer.getvalue())


def save(figure: Figure, path: Path) -> None:
    """The figure as a file of its own, dark on white. path: ends in `.svg` or `.pdf`. Raises UserError when the disk is
    full.
    """
    kind = path.suffix[1:]
    with style(), atomic(path) as temporary:
        about = dict.fromkeys(METADATA[kind])
        figure.savefig(temporary, format=kind, bbox_inches="tight", facecolor="white", metadata=about)


METADATA = {  # what matplotlib writes of itself and of the time, unless it is told not to
    "svg": ("Creator", "Date", "Format", "Type"),
    "pdf": ("Creator", "Producer", "CreationDate"),
}
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # the first is what sizes were measured with


def _lean(text):
    """matplotlib's SVG as an element of HTML, at a third of the size and to the eye the same."""
    root = ElementTree.fromstring(text)
    width = math.ceil(float(root.get("viewBox").split()[2]) * PIXELS)
    view = {"viewBox": root.get("viewBox"), "width": str(width), "font-family": FONTS, "stroke-linejoin": "round"}
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
            value = re.sub("|".join(ON_PAGE), lambda found: ON_PAGE[found[0]], value)
        elif name in ("d", "x", "y") or value.startswith("translate("):
            value = " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}", value).split())
        elif value.startswith("data:"):
            value = _repacked(value)
        named = re.fullmatch(r"(url\(#|#|)(\w+)(\)?)", value)
        yield name, f"{named[1]}{ids[named[2]]}{named[3]}" if named and named[2] in ids else value


def _repacked(address):
    """A picture's address with no more channels than it needs: of grey ones a third. Lossless WebP saved 5% more."""
    picture = Image.open(io.BytesIO(b64decode(address.partition(",")[2])))
    *rgb, alpha = (picture.getchannel(channel).tobytes() for channel in "RGBA")
    mode = ("L" if len(set(rgb)) == 1 else "RGB") + ("A" if set(alpha) != {255} else "")
    picture.convert(mode).save(packed := io.BytesIO(), format="png", optimize=True)
    return f"data:image/png;base64,{b64encode(packed.getvalue()).decode()}"


def _flat(element):
    """An element without groups that say nothing, nor empty definitions."""
    for child in list(element):
        _flat(child)
    kept = [child for child in element if child.tag != "style"]  # a style would hold for the whole page
    found = [[*child] if child.tag == "g" and not child.attrib else [child] for child in kept]
    element[:] = [child for children in found for child in children if child.tag != "defs" or len(child)]
    return element

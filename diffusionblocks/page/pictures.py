"""Generated images, and one image's way from noise, out of metrics.json. No torch.

Each function returns a figure. sets: {title of a data set: {title of a row: metrics.json of its first seed}}.
"""

import base64
import zlib

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diffusionblocks.page import canvas
from diffusionblocks.page.results import num_blocks

COLUMNS = 10  # of images in a line


def samples(sets: dict[str, dict[str, dict]]) -> Figure:
    """Generated images, a strip per row of the table.

    All rows on one data set start from the same noise and the same classes, so a column shows one image as each system
    finishes it.
    """
    with canvas.style():
        sheet = _Sheet(COLUMNS)
        for title, rows in sets.items():
            sheet.write(title, fontweight="bold")
            for row, run in rows.items():
                sheet.write(row)
                sheet.strip(unpacked(run["samples"]["images"])[:COLUMNS])
        return sheet.figure()


def trajectory(sets: dict[str, dict[str, dict]]) -> Figure:
    """One image on its way from noise, a strip per row: what the acting block takes the clean image to be.

    Above each picture its noise level; its frame tells the block that acted.
    """
    runs = [run for rows in sets.values() for run in rows.values()]
    with canvas.style():
        sheet = _Sheet(max(len(run["samples"]["steps"]) for run in runs))
        for title, rows in sets.items():
            sheet.write(title, fontweight="bold")
            for row, run in rows.items():
                steps, count = run["samples"]["steps"], num_blocks(run)
                sheet.write(row)
                sheet.number([f"{sigma:.2g}" for sigma, _ in steps])
                colours = canvas.colours(count)
                frames = [(colours[block], canvas.named(block, count)) for _, block in steps]
                sheet.strip(unpacked(run["samples"]["trajectory"])[: len(steps)], frames)
        return sheet.figure()


class _Sheet:
    """Words and strips of pictures, one below the other. Lengths in inches.

    columns: pictures that fill the width.
    """

    def __init__(self, columns):
        self.columns, self.below = columns, 0.0
        self.cell = canvas.WIDTH / columns
        self._figure = Figure()
        self.axes = self._figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")

    def write(self, words, **about):
        self.below += canvas.LETTERS * 1.5
        self.axes.text(0, self.below - 0.06, words, fontsize=8, **about)

    def number(self, labels):
        self.below += canvas.LETTERS
        for column, label in enumerate(labels):
            self.axes.text((column + 0.47) * self.cell, self.below - 0.04, label, fontsize=7, ha="center")

    def strip(self, images, frames=()):
        """images: uint8 (N, H, W, C), in one picture with transparent gaps. frames: (colour, label) of each."""
        count, high, wide = images.shape[:3]
        gap = max(wide // 10, 1)
        rgba = np.zeros((count, high, wide + gap, 4), np.uint8)
        rgba[:, :, :wide, :3] = images  # of grey the one channel for all three
        rgba[:, :, :wide, 3] = 255
        size = self.cell * wide / (wide + gap)
        tall = size * high / wide
        place = (0, count * self.cell, self.below + tall, self.below)
        self.axes.imshow(np.concatenate(rgba, axis=1), interpolation="none", extent=place, aspect="auto")
        for column, (colour, label) in enumerate(frames):
            corner = column * self.cell, self.below
            about = {"fill": False, "linewidth": 2, "edgecolor": colour, "label": label}
            self.axes.add_patch(Rectangle(corner, size, tall, **about))
        self.below += tall

    def figure(self):
        self._figure.set_size_inches(canvas.WIDTH, self.below)
        self.axes.set(xlim=(0, canvas.WIDTH), ylim=(self.below, 0))
        canvas.legend(self._figure)
        return self._figure


def unpacked(packed: dict) -> np.ndarray:
    """uint8 images (N, H, W, C) out of metrics.json."""
    images = np.frombuffer(zlib.decompress(base64.b64decode(packed["zlib"])), np.uint8).reshape(packed["shape"])
    return images.transpose(0, 2, 3, 1)

"""Generated images, and one image's way from noise, out of metrics.json. No torch.

Each function returns an SVG as text. rows: {row: metrics.json of its first seed}.
"""

import base64
import zlib

import matplotlib.pyplot as plt
import numpy as np

from diffusionblocks.page import canvas
from diffusionblocks.page.results import num_blocks


def samples(rows: dict[str, dict], columns: int = 10) -> str:
    """Generated images, a line per row of the table.

    All rows start from the same noise and the same classes, so a column shows one image as each system finishes it.
    """
    strips = {
        row: np.concatenate(list(unpacked(run["samples"]["images"])[:columns]), axis=1) for row, run in rows.items()
    }
    with canvas.style():
        height = 2 * canvas.WIDTH / columns
        figure, axes = plt.subplots(len(rows), 1, figsize=(2 * canvas.WIDTH, height * len(rows)), squeeze=False)
        for panel, (row, strip) in zip(axes[:, 0], strips.items(), strict=True):
            _picture(panel, strip)
            panel.set_ylabel(row, rotation=0, ha="right", va="center")
        figure.subplots_adjust(hspace=0.06)
        return canvas.svg(figure)


def trajectory(rows: dict[str, dict]) -> str:
    """One image on its way from noise, a line per row: what the acting block takes the clean image to be.

    Above each picture its noise level; its frame and the number below tell the block that acted.
    """
    columns = max(len(run["samples"]["steps"]) for run in rows.values())
    with canvas.style():
        figure, axes = plt.subplots(
            len(rows), columns, figsize=(2 * canvas.WIDTH, 1.55 * 2 * canvas.WIDTH / columns * len(rows)), squeeze=False
        )
        for panels, (row, run) in zip(axes, rows.items(), strict=True):
            colours = canvas.colours(num_blocks(run))
            panels[0].set_ylabel(row, rotation=0, ha="right", va="center", labelpad=8)
            for panel in panels:
                panel.set(xticks=[], yticks=[])
            steps = zip(panels, unpacked(run["samples"]["trajectory"]), run["samples"]["steps"], strict=False)
            for panel, image, (sigma, block) in steps:
                _picture(panel, image)
                panel.set_title(f"{sigma:.2g}", fontsize=7, loc="center", pad=2)
                panel.set_xlabel(block, fontsize=7, labelpad=2, color=colours[block], fontweight="bold")
                for side in panel.spines.values():
                    side.set(visible=True, color=colours[block], linewidth=2)
        figure.subplots_adjust(hspace=0.5, wspace=0.12)
        return canvas.svg(figure)


def unpacked(packed: dict) -> np.ndarray:
    """uint8 images (N, H, W, C) out of metrics.json."""
    images = np.frombuffer(zlib.decompress(base64.b64decode(packed["zlib"])), np.uint8).reshape(packed["shape"])
    return images.transpose(0, 2, 3, 1)


def _picture(axes, image):
    """One picture without axes; grey if it has one channel."""
    # Pixels as they are, for the browser to enlarge.
    picture = image.squeeze(-1) if image.shape[-1] == 1 else image
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)

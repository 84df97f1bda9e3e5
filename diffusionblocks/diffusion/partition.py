"""Which layers and which noise levels belong to which block (paper section 3.2; uniform variants: main text and E.6).

Block 0 has the first layers and the highest noise. Standard library only, so that planning can use it.
"""

import math
from itertools import pairwise

from diffusionblocks.base.components import load

TOLERANCE = 1e-6  # a float32 level that was rounded off its boundary still counts as lying on it


def layers_of(model: dict) -> int:
    """`num_layers` of a `model` section or of its keywords. Raises ValueError where that is no number of layers."""
    found = model.get("num_layers")
    if type(found) is not int or found < 1:
        raise ValueError(f"num_layers must be a whole number from 1, since blocks are cut from it, and is {found!r}")
    return found


def split_layers(num_layers: int, num_blocks: int, layers_per_block: list[int] | None = None) -> list[range]:
    """Contiguous layer ranges, one per block. Raises ValueError for a split that does not add up."""
    if not isinstance(num_blocks, int) or num_blocks < 1 or num_blocks > num_layers:
        raise ValueError(f"num_blocks is {num_blocks}, but {num_layers} layers make between 1 and {num_layers} blocks")
    if layers_per_block is None:
        if num_layers % num_blocks:
            raise ValueError(f"{num_layers} layers do not divide into {num_blocks} equal blocks: set layers_per_block")
        layers_per_block = [num_layers // num_blocks] * num_blocks
    if not isinstance(layers_per_block, list) or not all(isinstance(size, int) for size in layers_per_block):
        raise ValueError(f"layers_per_block {layers_per_block!r} must be a list of whole numbers")
    if len(layers_per_block) != num_blocks:
        raise ValueError(f"layers_per_block {layers_per_block} names {len(layers_per_block)} blocks, not {num_blocks}")
    if min(layers_per_block) < 1:
        raise ValueError(f"layers_per_block {layers_per_block} has a block without layers")
    if sum(layers_per_block) != num_layers:
        raise ValueError(f"layers_per_block {layers_per_block} adds up to {sum(layers_per_block)}, not {num_layers}")
    starts = [sum(layers_per_block[:b]) for b in range(num_blocks)]
    return [range(start, start + size) for start, size in zip(starts, layers_per_block, strict=True)]


def boundaries(num_blocks: int, partition: str, noise) -> list[float]:
    """num_blocks + 1 levels from the highest down to the lowest; block b lies between entries b and b + 1.

    partition: name of a function of `partitions`, or of a user's own. Raises ValueError where its levels do not fall
    from the noise's highest to its lowest.
    """
    cut = load("partition", partition)
    try:
        found = [float(cut(noise, 1 - block / num_blocks)) for block in range(num_blocks + 1)]
    except Exception as error:  # a user's own
        raise ValueError(f"partition {partition}: fails on {noise} ({type(error).__name__}: {error})") from error
    ends = math.isclose(found[0], noise.highest) and math.isclose(found[-1], noise.lowest, abs_tol=1e-12)
    found[0], found[-1] = noise.highest, noise.lowest  # not the floats beside them: both ends must have an owner
    if not ends or not all(high > low for high, low in pairwise(found)):
        raise ValueError(
            f"partition {partition}: its levels {found} do not fall from {noise.highest} (q = 1) to {noise.lowest} (0)"
        )
    return found


def interval(boundaries: list[float], block: int, overlap: float, noise) -> tuple[float, float]:
    """(low, high) on which a block trains: its own interval, widened at each end by `overlap` times its (log) width."""
    if not 0 <= overlap < float("inf"):
        raise ValueError(f"overlap must not be negative or infinite, and is {overlap}")
    return noise.widen(boundaries[block + 1], boundaries[block], overlap)


def owner(boundaries: list[float], sigma: float) -> int:
    """Index of the block that acts at `sigma`.

    Intervals are closed at the top, (sigma_{b+1}, sigma_b], so that a grid through the boundaries skips no block: with
    three blocks and four steps the blocks are 0, 1, 2, 2 (the official half-open rule gives 0, 0, 2, 2).
    """
    if not boundaries[-1] * (1 - TOLERANCE) <= sigma <= boundaries[0] * (1 + TOLERANCE):
        raise ValueError(f"sigma {sigma} lies outside [{boundaries[-1]}, {boundaries[0]}]")
    return sum(sigma <= inner * (1 + TOLERANCE) for inner in boundaries[1:-1])


def mass(boundaries: list[float], noise) -> list[float]:
    """Share of all training draws that falls into each block's own interval."""
    return [noise.cdf(high) - noise.cdf(low) for high, low in pairwise(boundaries)]

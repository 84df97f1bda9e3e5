"""Where the noise is cut into blocks, found by name; one file each.

A partition is a function (noise, q): the level below which a share q in [0, 1] of the blocks lies; it rises from the
noise's lowest level to its highest. Standard library only, so that planning can use it. Raises ValueError for a noise
that it cannot cut.
"""

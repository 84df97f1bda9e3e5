"""A data set, read once and written in the form that training and evaluation map into memory."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.data.source import call_source

# By what a source returns. By name, so that code for texts is not code behind images: an edit would prepare all anew.
WRITERS = {
    "ImageSet": "diffusionblocks.data.images.write",
    "LatentSet": "diffusionblocks.data.images.write",
    "TextSet": "diffusionblocks.data.text.write",
}


def prepare(section: dict, data_dir: str | Path, path: str | Path, shards: Sequence[str | Path] = ()) -> None:
    """Write the data set of a run's `data` section to `path` (safetensors; what it is stands in the header).

    shards: the files of its encoded shards, in order, for a source of latents. Raises UserError for a set that is not
    as it should be, naming the source's file or the shard.
    """
    kind, found = call_source(section, data_dir)
    importlib.import_module(WRITERS[kind]).write(path, found, shards)

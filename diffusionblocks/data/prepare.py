"""A data set, read once and written in the form that training and evaluation map into memory."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.base.source import SETS
from diffusionblocks.data.source import call_source


def prepare(section: dict, data_dir: str | Path, path: str | Path, shards: Sequence[str | Path] = ()) -> None:
    """Write the data set of a run's `data` section to `path` (safetensors; what it is stands in the header).

    shards: the files of its encoded shards, in order, for a source of latents. Raises UserError for a set that is not
    as it should be, naming the source's file or the shard.
    """
    kind, found = call_source(section, data_dir)
    # By name, so that code for texts is not code behind images: an edit would prepare all anew.
    importlib.import_module(f"diffusionblocks.data.{SETS[kind]}.write").write(path, found, shards)

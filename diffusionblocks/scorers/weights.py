"""What the verbs `extractor` and `teacher` have in common: a scorer's weights, obtained once for a data set."""

from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.sections import load_section


def write_weights(kind: str, section: dict, data, data_dir: str | Path, path: str | Path) -> None:
    """Write the weights of a section's network, fetched, unpacked or trained on `data`, an Images or a Text.

    kind: extractor or teacher. What is known of them stands in the file's header: section, title, the data's title.
    """
    chosen = load_section(kind, section)
    weights, about = chosen.obtain(data, data_dir)
    about = {"section": section, "title": chosen.title, "data": data.title, **about}
    tensors.write(path, {name: value.contiguous() for name, value in weights.items()}, about)

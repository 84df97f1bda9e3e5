"""A section of the configuration, `{name: ..., keyword: value}`: what it names, called with the rest. No torch."""

from typing import Any

from diffusionblocks.base.components import load


def keywords_of(section: dict) -> dict:
    """A section without its name: the keywords that its component is called with."""
    return {key: value for key, value in section.items() if key != "name"}


def load_section(kind: str, section: dict, *arguments: Any) -> Any:
    """What the component that a section names gives for these arguments and the section's keywords.

    Raises UserError if there is no such component.
    """
    return load(kind, section["name"])(*arguments, **keywords_of(section))

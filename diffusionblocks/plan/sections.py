"""A section of the configuration, `{name: ..., keyword: value}`, held against the component that it names."""

import hashlib
import json
import math

from diffusionblocks.base.components import PACKAGE, PLACES, Component, locate, names
from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.base.sections import keywords_of
from diffusionblocks.base.source import SETS, returned_set
from diffusionblocks.plan.source import Choice, class_keywords, decorator_keywords, function_keywords

# Whole numbers that may be 0: all test sequences, a network without layers around its core.
FROM_ZERO = ("test_size", "prelude_layers", "coda_layers")

SHAPES = {  # by kind: what a network is told of its data
    "images": ("image_size", "channels", "num_classes"),
    "text": ("vocab_size", "seq_len"),
}
LATENT = {"pixels": 8, "channels": 4}  # of data/images/latents.py: pixels of a side to one of a latent


def section_name(section: dict) -> str:
    """What files of a section are called: its name, and a hash of its keywords if it has any."""
    if "." in section["name"]:  # a user's own, which may share its last word with another
        return f"{section['name'].rpartition('.')[2]}-{fingerprint(section)[:8]}"
    keywords = keywords_of(section)
    return section["name"] + (f"-{fingerprint(keywords)[:8]}" if keywords else "")


def extractors_of(default: dict | None, metrics: dict[str, dict]) -> dict[str, dict]:
    """{name of its folder: section} of every extractor that a row needs: its own, and those that its metrics name."""
    named = (section.get("extractor") for section in metrics.values())
    return {section_name(section): section for section in (default, *named) if section}


def fingerprint(value) -> str:
    """Hash of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def component(where: str, kind: str, name) -> Component:
    """The component behind a name, at the key `where`. Raises UserError for a name that stands for nothing."""
    if not isinstance(name, str):
        raise UserError(f"config: {where}: needs the name of a {kind}, and is {name!r}")
    found = locate(kind, name)
    if found is None:
        there = names(kind)
        own = "a module" if PLACES[kind][1] else "a function in a module"
        raise UserError(
            f"config: {where}: no {kind} {name!r}{suggest(name, there)} (there are {', '.join(there)}; a name "
            f"with a dot is {own} that can be imported from here)"
        )
    if declared(found) is None:
        what = f"class {found.attribute}" if PLACES[kind][1] else f"function {found.attribute}"
        raise UserError(f"config: {where}: {found.file} has no {what}")
    return found


def declared(found: Component) -> dict | None:
    """{keyword: default} that a component takes, read from its source; None if the class or function is not there."""
    if PLACES[found.kind][1]:
        return class_keywords(found.file, found.attribute)
    return function_keywords(found.file).get(found.attribute)


def sizes(section: dict) -> dict | None:
    """{shape, train_size} of a `data` section, as its source says by @sizes (data/sizes.py); None if it does not.

    train_size may be None. Raises UserError for a declaration that lacks a size.
    """
    found = locate("data", section["name"])
    said = decorator_keywords(found.file, found.attribute, "sizes")
    if said is None:
        return None
    known, returned = {**declared(found), **keywords_of(section), **said}, returned_set(section)
    if returned == "LatentSet":
        known |= {"image_size": known["image_size"] // LATENT["pixels"], "channels": LATENT["channels"]}
    shape = {key: known.get(key) for key in SHAPES[SETS[returned]]}
    train_size = known.get("train_size")
    if returned == "TextSet" and "train_tokens" in known:
        train_size = known["train_tokens"] // known["seq_len"]
    elif returned == "ImageSet" and train_size and known.get("split") == "validation":
        train_size -= train_size // 5
    for key, value in {**shape, "train_size": train_size}.items():
        if type(value) is not int and not (value is None and key == "train_size"):
            raise UserError(f"{found.file}: @sizes of {found.attribute} should say {key}, a whole number, written out")
    return {"shape": shape, "train_size": train_size}


def check_section(where: str, kind: str, section: dict) -> Component:
    """Hold a section's name and keywords against its component. Raises UserError naming the key."""
    found = component(f"{where}.name", kind, section.get("name"))
    known = declared(found)
    check_keys(where, section, known)
    if found.file.is_relative_to(PACKAGE):  # what a user's own counts, and from where, nobody here can know
        for key, default in known.items():
            least = 0 if key in FROM_ZERO else 1
            if type(default) is int and section.get(key, least) < least:
                raise UserError(f"config: {where}.{key} is {section[key]}, and must be at least {least}")
    return found


def check_keys(where: str, section: dict, known: dict) -> None:
    """Refuse keys that are not in `known`, {keyword: default}, and values of another kind, or numbers not finite."""
    for key, value in section.items():
        if key == "name":
            continue
        if key not in known:
            raise UserError(
                f"config: {where}: unknown key {key!r}{suggest(key, known)} "
                f"(keys here: {', '.join(sorted(known)) or 'none'})"
            )
        default = known[key]
        if isinstance(default, Choice):
            if value not in default.values:
                raise UserError(f"config: {where}.{key}: {value!r} is not one of {', '.join(default.values)}")
        elif not _same_kind(value, default):
            hint = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)" if isinstance(default, float) else ""
            raise UserError(f"config: {where}.{key}: {value!r} should be of type {type(default).__name__}{hint}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config: {where}.{key}: {value} is no finite number")


def _same_kind(value, default):
    if default is None:  # anything goes
        return True
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))

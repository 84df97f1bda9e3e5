"""Components by the names that the configuration gives them: where one stands, without importing it, and the loader.

A plain name is a file (`models/vit.py`) or a function in one of a few files (`data/images/digits.py`) of this package.
A name with a dot is a user's own, anywhere importable: `my_nets.mixer` is a module for a kind that is a class, and the
function `mixer` of `my_nets` for the others. Standard library only: planning asks here too.
"""

import functools
import importlib
import importlib.util
import re
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from diffusionblocks.base.files import UserError

PACKAGE = Path(__file__).parent.parent
# Where this package has its own, and the class to look for; without one, a function of the component's own name.
PLACES = {
    "model": (("models",), "Model"),
    "method": (("methods",), "Method"),
    "data": (("data/images/sources", "data/text/sources"), None),
    "metric": (("evaluation/metrics",), None),
    "extractor": (("scorers/extractors",), None),
    "teacher": (("scorers/teachers",), None),
    "solver": (("diffusion/solvers",), None),
    "partition": (("diffusion/partitions",), None),
    "grid": (("diffusion/grids",), None),
}
NO_COMPONENT = ("__init__", "base")  # files of these folders that hold none


class Component(NamedTuple):
    """kind, name: as configured. module, attribute: what to import. file: the source."""

    kind: str
    name: str
    module: str
    attribute: str
    file: Path


def module_file(name: str) -> Path | None:
    """The source file of a module, or None. Of a user's package its own __init__ is imported, as Python does."""
    head, *tail = name.split(".")
    if head == PACKAGE.name:
        path = PACKAGE.joinpath(*tail)
        candidates = [path / "__init__.py", path.with_suffix(".py")]
        return next((file for file in candidates if file.is_file()), None)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # absent, or a name inside a module
        return None
    except Exception as error:  # whatever the user's own __init__ raises
        raise UserError(f"{head}: the package cannot be imported ({type(error).__name__}: {error})") from error
    file = Path(spec.origin) if spec and spec.origin else None
    return file if file and file.is_file() else None  # built-in modules have an origin without a file


def locate(kind: str, name: str) -> Component | None:
    """The Component behind a name, or None."""
    _, attribute = PLACES[kind]
    if "." in name:
        module, function = (name, attribute) if attribute else name.rsplit(".", 1)
        file = module_file(module)
        return file and Component(kind, name, module, function, file)
    if (found := _own(kind, PACKAGE).get(name)) is None:
        return None
    module = ".".join([PACKAGE.name, *found.relative_to(PACKAGE).with_suffix("").parts])
    return Component(kind, name, module, attribute or name, found)


def names(kind: str) -> list[str]:
    """Names of all components of a kind that come with this package."""
    return sorted(_own(kind, PACKAGE))


def load(kind: str, name: str) -> Any:
    """What a component's name stands for: a class, or a function. Raises UserError if there is none."""
    found = locate(kind, name)
    if found is None:
        raise UserError(f"config: {kind} {name!r}: there is none (there are {', '.join(names(kind))})")
    try:
        module = importlib.import_module(found.module)
    except UserError:
        raise
    except Exception as error:
        if found.file.is_relative_to(PACKAGE):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        line = "".join(f", line {frame.lineno}" for frame in frames if frame.filename == str(found.file))
        raise UserError(f"{found.file}{line}: it cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, found.attribute):
        raise UserError(f"{found.file}: has no {found.attribute!r}, which {kind} {name!r} names")
    return getattr(module, found.attribute)


@functools.cache
def _own(kind, package):
    """{name: file} of a kind's components in this package."""
    places, attribute = PLACES[kind]
    found = {}
    for place in places:
        path = package / place
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            if not file.is_file() or (file.stem in NO_COMPONENT and path.is_dir()):
                continue
            if attribute:
                found[file.stem] = file
            else:
                text = file.read_text(encoding="utf-8")
                found |= dict.fromkeys(re.findall(r"^def ([a-z]\w*)\(", text, re.MULTILINE), file)
    return found

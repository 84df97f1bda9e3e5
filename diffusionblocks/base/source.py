"""Source files, read without importing them: planning, `try` and data sources ask the same reader. No torch."""

import ast
import functools
from pathlib import Path

from diffusionblocks.base.components import locate
from diffusionblocks.base.files import UserError

SETS = {"ImageSet": "images", "LatentSet": "images", "TextSet": "text"}  # what a data source returns, and its kind


@functools.cache
def tree(file: Path) -> ast.Module:
    """A source file, parsed. Raises UserError, with the line, for one that is no valid Python."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"), file)
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: is no valid Python: {error.msg}") from None
    except ValueError as error:  # no UTF-8, or null bytes
        raise UserError(f"{file}: is no valid Python in UTF-8 ({error})") from None


def function_returns(file: Path, name: str) -> str | None:
    """The last word of a function's return annotation (`-> ImageSet`); None without one."""
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == name and node.returns is not None:
            return ast.unparse(node.returns).rpartition(".")[2].strip("'\"")
    return None


def returned_set(section: dict) -> str:
    """What the source of a `data` section says that it returns, a key of SETS. Raises UserError if it does not say."""
    found = locate("data", section["name"])
    said = function_returns(found.file, found.attribute)
    if said not in SETS:
        raise UserError(
            f"{found.file}: data source {section['name']} must say what it returns: `-> {'`, `-> '.join(SETS)}`"
        )
    return said

"""What the source of this package says, read without importing it: imports, and the keywords of a constructor.

Standard library only. Planning needs both in a fraction of the time that importing torch takes.
"""

import ast
import functools
from pathlib import Path

from diffusionblocks.base.components import PACKAGE, module_file
from diffusionblocks.base.files import UserError


@functools.cache
def tree(file: Path) -> ast.Module:
    """A source file, parsed. Raises UserError, with the line, for one that is no valid Python."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"), file)
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: is no valid Python: {error.msg}") from None


@functools.cache
def _imports(module, file):
    """Names that a module imports from this package or its own, wherever in it the import stands."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
    # Not this package itself: it holds the version alone, and a new version is no reason to train again.
    followed = (f"{PACKAGE.name}.", f"{module.partition('.')[0]}.")
    return sorted(name for name in names if name.startswith(followed))


def closure(*modules):
    """Sorted source files of `modules` and of all that they import, directly or not, from this package or their own.

    Snakemake sees the command `python -m diffusionblocks train`, not the code behind it. A rule that lists these files
    as input is run again when one of them changes, and only then.
    """
    return list(_closure(PACKAGE, modules))


@functools.cache  # hundreds of jobs ask for the same few
def _closure(package, modules):
    found, queue = set(), list(modules)
    while queue:
        module = queue.pop()
        file = module_file(module)
        if file and file not in found:
            found.add(file)
            queue += _imports(module, file)
    return sorted(str(file) for file in found)


class Choice(str):
    """The default of a keyword that is annotated Literal[...], with the values it may take."""

    values = ()


def class_keywords(file, name, function="__init__"):
    """{keyword: default} of a class: keyword-only arguments of `function`, or a dataclass's fields; None if absent.

    A default that is not a literal stands as None.
    """
    for node in tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == function:
                    return _keywords(item)
            return {item.target.id: _literal(item.value) for item in node.body if isinstance(item, ast.AnnAssign)}
    return None


def class_constant(file, name, constant, default=()):
    """The value of a class attribute that is assigned a literal."""
    for node in tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == constant:
                    return _literal(item.value)
    return default


def absent_members(file, name, wanted):
    """Functions of `wanted` that a class lacks; none where it may inherit them from a class of another file."""
    for node in tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            if any(ast.unparse(base) not in ("nn.Module", "base.Model", "base.Method") for base in node.bases):
                return []
            there = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            return [member for member in wanted if member not in there]
    return list(wanted)


def function_keywords(file):
    """{function: {keyword: default}} of a file's public functions, keyword-only arguments alone."""
    functions = [node for node in tree(file).body if isinstance(node, ast.FunctionDef)]
    return {node.name: _keywords(node) for node in functions if not node.name.startswith("_")}


def positional(file, name):
    """Names of the positional arguments of one of a file's functions; none if it is not there."""
    functions = [node for node in tree(file).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return [argument.arg for function in functions for argument in function.args.args]


def _keywords(function):
    found = {}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        value = _literal(default)
        if isinstance(argument.annotation, ast.Subscript) and ast.unparse(argument.annotation.value) == "Literal":
            value = Choice(value)
            value.values = ast.literal_eval(argument.annotation.slice)
        found[argument.arg] = value
    return found


def _literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def function_returns(file, name):
    """The last word of a function's return annotation (`-> ImageSet`), or None."""
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == name and node.returns is not None:
            return ast.unparse(node.returns).rpartition(".")[2].strip("'\"")
    return None


def decorator_keywords(file, name, decorator):
    """{keyword: value} of `@decorator(...)` above a function, those that are literals; None without the decorator."""
    aliases = {decorator}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom):
            aliases.update(alias.asname for alias in node.names if alias.name == decorator and alias.asname)
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in aliases:
                    found = {keyword.arg: _literal(keyword.value) for keyword in call.keywords if keyword.arg}
                    return {keyword: value for keyword, value in found.items() if value is not None}
    return None

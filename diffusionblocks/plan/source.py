"""What source files say, read without importing them: what they import, and keywords of classes and functions.

Standard library only. Planning needs both in a fraction of the time that importing torch takes.
"""

import ast
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusionblocks.base.components import PACKAGE, module_file
from diffusionblocks.base.source import tree

CONTRACTS = (PACKAGE / "models/base.py", PACKAGE / "methods/base.py")
MODULES = ("nn.Module", "torch.nn.Module", "Module", "object")  # which have no member of a contract


@functools.cache
def _imports(module, file):
    """Names that a module imports from this package or its own, wherever in it the import stands."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in _statements(tree(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
    # Not this package itself: it holds the version alone, and a new version is no reason to train again.
    followed = (f"{PACKAGE.name}.", f"{module.partition('.')[0]}.")
    return sorted(name for name in names if name.startswith(followed))


def _statements(node):
    """All statements in a node, at any depth. Expressions, nine nodes of ten, have none in them and are not entered."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(node, field, ()):
            yield inner
            yield from _statements(inner)


def closure(*modules: str) -> list[str]:
    """Sorted source files of `modules` and of all that they import, directly or not, from this package or their own.

    Snakemake sees the command `python -m diffusionblocks train`, not the code behind it. A rule that lists these files
    as input is run again when one of them changes, and only then.
    """
    return list(_closure(PACKAGE, modules))


@functools.cache  # hundreds of jobs ask for the same few; `package` tells their answers apart where a test moves it
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


def class_keywords(file: Path, name: str, function: str = "__init__") -> dict | None:
    """{keyword: default} of a class: keyword-only arguments of `function`, its own or the next ancestor's, or a
    dataclass's fields; None if there is no such class.

    A default that is not a literal stands as None.
    """
    lineage = list(_lineage(file, name))
    for _, node in lineage:
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == function:
                return _keywords(item)
    fields = [item for _, node in lineage[:1] for item in node.body if isinstance(item, ast.AnnAssign)]
    return {item.target.id: _literal(item.value) for item in fields} if lineage else None


def class_constant(file: Path, name: str, constant: str, default: Any = ()) -> Any:
    """The literal that a class, or else the next of its ancestors, assigns to an attribute, annotated or not."""
    for _, node in _lineage(file, name):
        for item in node.body:
            targets = getattr(item, "targets", [getattr(item, "target", None)])
            if isinstance(item, ast.Assign | ast.AnnAssign) and item.value and ast.unparse(targets[0]) == constant:
                return _literal(item.value)
    return default


def absent_members(file: Path, name: str, wanted: Iterable[str]) -> list[str]:
    """Functions of `wanted` that neither a class nor its ancestors define; the contract's own refusals do not count.

    None where it may inherit them from a class that cannot be followed.
    """
    there = set()
    for source, node in _lineage(file, name):
        if source not in CONTRACTS:
            there |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            if any(_class_behind(source, base) is None and ast.unparse(base) not in MODULES for base in node.bases):
                return []
    return [member for member in wanted if member not in there]


def derives(file: Path, name: str, contract: Path) -> bool:
    """Whether a class derives from the contract's, or may: from a class that cannot be followed."""
    for source, node in _lineage(file, name):
        if source == contract:
            return True
        if any(_class_behind(source, base) is None and ast.unparse(base) not in MODULES for base in node.bases):
            return True
    return False


def _lineage(file, name, seen=()):
    """(file, class) of a class and of its ancestors as far as they can be followed, each before its own."""
    node = next((node for node in tree(file).body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if node is None or (file, name) in seen:
        return
    yield file, node
    for base in node.bases:
        if found := _class_behind(file, base):
            yield from _lineage(*found, (*seen, (file, name)))


@functools.cache  # nodes are those of `tree`, which is
def _class_behind(file, base):
    """(file, name) of a base class: of the same file, or of a module of this package or beside the file; else None."""
    head, _, attribute = ast.unparse(base).rpartition(".")
    if not head and any(isinstance(node, ast.ClassDef) and node.name == attribute for node in tree(file).body):
        return file, attribute
    for node in tree(file).body:
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if (alias.asname or alias.name) != (head or attribute):
                continue
            source = f"{node.module or ''}" if isinstance(node, ast.ImportFrom) else ""
            level = node.level if isinstance(node, ast.ImportFrom) else 0
            module, wanted = (f"{source}.{alias.name}", attribute) if head else (source, alias.name)
            if found := _file_of(file, module.strip("."), level):
                return found, wanted
    return None


def _file_of(file, module, level):
    """The file of a module of this package, or of one beside `file`, found without importing anything."""
    if module.partition(".")[0] == PACKAGE.name:
        return module_file(module)
    folders = [file.parents[level - 1]] if level else file.parents
    paths = (folder.joinpath(*module.split(".")) for folder in folders)
    found = (candidate for path in paths for candidate in (path.with_suffix(".py"), path / "__init__.py"))
    return next((candidate for candidate in found if candidate.is_file()), None)


def function_keywords(file: Path) -> dict[str, dict]:
    """{function: {keyword: default}} of a file's public functions, keyword-only arguments alone."""
    functions = [node for node in tree(file).body if isinstance(node, ast.FunctionDef)]
    return {node.name: _keywords(node) for node in functions if not node.name.startswith("_")}


def positional(file: Path, name: str) -> list[str]:
    """Names of the positional arguments of one of a file's functions; none if it is not there."""
    functions = [node for node in tree(file).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return [argument.arg for function in functions for argument in function.args.args]


def _keywords(function):
    found = {}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        value = _literal(default)
        closed = isinstance(argument.annotation, ast.Subscript) and ast.unparse(argument.annotation.value) == "Literal"
        # Of names of values, in place of values, only running would tell what they are.
        if closed and (allowed := _literal(argument.annotation.slice)):
            value = Choice(value)
            value.values = allowed if isinstance(allowed, tuple) else (allowed,)
        found[argument.arg] = value
    return found


def _literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def call_keyword(file: Path, name: str, callee: str, keyword: str):
    """The literal of a keyword in the first call of `callee` within a function of a file; None if there is none."""
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == callee:
                    return next((_literal(given.value) for given in call.keywords if given.arg == keyword), None)
    return None


@functools.cache
def decorator_keywords(file: Path, name: str, decorator: str) -> dict | None:
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

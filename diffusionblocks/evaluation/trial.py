"""A component is tried with a few samples before any training: `python -m diffusionblocks try my_nets.mixer`."""

import ast
import contextlib
import importlib
import traceback
from pathlib import Path

from diffusionblocks.base.components import PLACES, Component, load, locate, module_file, names
from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.base.source import SETS, tree

# What tells the kind of a function that is a user's own, as planning reads it: the name of what it returns.
RETURNED = {
    **dict.fromkeys(SETS, "data"),
    **{"Extractor": "extractor", "Trained": "extractor", "Teacher": "teacher"},
}


def trial(name: str, kind: str | None = None, data_dir: str | Path = "results/downloads") -> str:
    """What was tried of component `name`, as text. Raises UserError, naming file, member and cure, for what is wrong.

    kind: model, method, data, metric, extractor, teacher, solver, partition or grid, where the source does not tell.
    data_dir: where a data source finds its archives.
    """
    component = _find(name, kind)
    with at_fault(component, "it cannot be imported"):
        thing = load(component.kind, name)
    # By name, so that what tries a function is not imported for a model.
    room = "networks" if component.kind in ("model", "method") else "functions"
    trials = importlib.import_module(f"diffusionblocks.evaluation.trial_{room}")
    lines = getattr(trials, f"try_{component.kind}")(component, thing, data_dir)
    return "\n".join([f"{component.kind} {name} ({component.file}) was tried:", *(f"  {line}" for line in lines)])


@contextlib.contextmanager
def at_fault(component: Component, what: str):
    """Makes a UserError of whatever is raised in here, naming the component's file and the line in it."""
    try:
        yield
    except UserError as error:
        if str(component.file) in str(error) or not _line(component, error.__cause__):
            raise
        raise _told(component, what, error.__cause__) from error.__cause__  # it was tried as a part of something else
    except Exception as error:
        raise _told(component, what, error) from error


def _told(component, what, error):
    if not _line(component, error) and error.__cause__:  # as whoever called the component tells it
        error = error.__cause__
    words = " ".join(str(error).split())
    return UserError(f"{component.file}{_line(component, error)}: {what}: {type(error).__name__}: {words}")


def _line(component, error):
    """`, line 12`, where an error came through the component's file; else nothing."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    mine = [frame.lineno for frame in frames if frame.filename == str(component.file)]
    return f", line {mine[-1]}" if mine else ""


def _find(name, kind):
    """The Component that a name stands for; its kind is read in the source where none is given."""
    if "." in name:
        kinds = [kind] if kind else _kinds(name)
    else:
        kinds = [each for each in PLACES if name in names(each) and kind in (None, each)]
    if len(kinds) > 1:
        raise UserError(f"{name}: is a {' and a '.join(kinds)}. Say which with --kind.")
    found = locate(kinds[0], name) if kinds else None
    if found is None:
        known = sorted({known for each in PLACES if kind in (None, each) for known in names(each)})
        raise UserError(
            f"{name}: there is no {kind or 'component'} of this name{suggest(name, known)} (one of your own has a dot, "
            "and can be imported from the current folder: the module of a model or a method, such as my_nets.mixer, or "
            "a function with its module)"
        )
    return found


def _kinds(name):
    """The kinds of a component of a user's own: of its classes if the name is a module, else of the function."""
    if file := module_file(name):
        classes = {node.name for node in tree(file).body if isinstance(node, ast.ClassDef)}
        if not classes & {"Model", "Method"}:
            raise UserError(
                f"{file}: has no class Model or Method. Name a function by its module and its own name: {name}.<name>."
            )
        return [kind for kind in ("model", "method") if kind.capitalize() in classes]
    module, _, function = name.rpartition(".")
    if (file := module_file(module)) is None:
        return []
    for node in tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == function:
            raise UserError(f"{file}: {function} is a class, and a model or a method is named by its module: {module}.")
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return [_function_kind(node, file)]
    raise UserError(f"{file}: has no function {function!r}")


def _function_kind(node, file):
    decorators = {_last_name(decorator) for decorator in node.decorator_list}
    returned = {_last_name(node.returns)}
    returned |= {_last_name(inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Return)}
    arguments = [argument.arg for argument in node.args.args]
    if "metric" in decorators:
        return "metric"
    for word, kind in RETURNED.items():
        if word in returned:
            return kind
    if arguments == ["noise", "q"]:
        return "partition"
    if arguments == ["noise", "num_steps"]:
        return "grid"
    if len(arguments) == 4 and any(isinstance(inner, ast.Yield) for inner in ast.walk(node)):
        return "solver"
    raise UserError(
        f"{file}, line {node.lineno}: nothing says what kind of component {node.name} is. A data source says what it "
        "returns (-> ImageSet, -> LatentSet or -> TextSet), and so does an extractor or a teacher (-> Extractor, "
        "-> Teacher); a metric is decorated with @metric(...); a partition takes (noise, q), a grid (noise, "
        "num_steps); a solver takes (z, sigmas, owners, to_z) and yields. See docs/extending.md, or say it with --kind."
    )


def _last_name(node):
    """`metric` of `metric`, `module.metric` and `module.metric(...)`; None for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Constant):  # an annotation that is text
        return str(node.value).rpartition(".")[2]
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)

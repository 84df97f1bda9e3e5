"""Every value of a resolved row, and where it was said."""

from collections.abc import Iterator
from dataclasses import MISSING, fields

from diffusionblocks.base.components import PLACES, locate
from diffusionblocks.evaluation.inputs import source_of
from diffusionblocks.plan.configuration import KEYS
from diffusionblocks.plan.row import TIMING, Row
from diffusionblocks.plan.sections import declared
from diffusionblocks.plan.source import class_keywords
from diffusionblocks.training.settings import Settings

DEFAULT = "default of "  # before the module that has it


def shown(row: Row) -> dict[str, list]:
    """{`model.width`: [value, the layer that says it, or None for a default]} of a row, for its table and page."""
    found = {".".join(path): [value, where] for path, value, where in values(row, {})}
    return {key: [value, None if where.startswith(DEFAULT) else where] for key, (value, where) in found.items()}


def values(row: Row, lines: dict) -> Iterator[tuple[tuple, object, str]]:
    """(path of keys, value, where it was said) of every value; what nobody says has the default of a component."""
    for key in KEYS:
        if key == "metrics":
            for column, section in row.metrics.items():
                yield from _metric(row, (key, column), section, lines)
        elif key in row.resolved:
            section = row.resolved[key]
            yield from ((path, value, _origin(row, path, lines)) for path, value in _leaves(section, (key,)))
            if key == "train":
                yield from _rest((key,), section, _settings(), Settings.__module__)
            elif key == "timing":
                yield from _rest((key,), section, TIMING, Row.__module__)
            elif key in PLACES:  # the section names a component
                yield from _component(key, (key,), section)


def _metric(row, where, section, lines):
    """What `_values` gives, of one column: the metric, who judges for it, and what it asks of the method."""
    asked = section["sampling"]
    said = {key: value for key, value in section.items() if key != "sampling"}
    yield from ((path, value, _origin(row, path, lines)) for path, value in _leaves(said, where))
    yield from _component("metric", where, section)
    for kind in ("teacher", "extractor"):
        if kind in section:
            yield from _component(kind, (*where, kind), section[kind])
    where = (*where, "sampling")
    for key, value in asked.items():  # of the column, or else of the row's section `sampling`, or else a default
        found = _origin(row, (*where, key), lines) or _origin(row, ("sampling", key), lines)
        yield (*where, key), value, found or f"{DEFAULT}{Row.__module__}"
    functions = {"predict": "predict", "samples": "extend" if row.continues else "sample"}
    if function := functions.get(source_of(row.inputs(section), row.kind)):
        method = row.component("method")
        yield from _rest(where, asked, class_keywords(method.file, method.attribute, function), method.module)


def _component(kind, where, section):
    found = locate(kind, section["name"])
    return _rest(where, section, declared(found), found.module)


def _rest(where, section, defaults, module):
    """The defaults, {keyword: value} of a module, of what a section does not say."""
    return [((*where, key), value, f"{DEFAULT}{module}") for key, value in defaults.items() if key not in section]


def _settings():
    """{key: default} of the section `train`, without what every row has to say."""
    given = {item.name: item.default_factory if item.default is MISSING else item.default for item in fields(Settings)}
    return {key: value() if callable(value) else value for key, value in given.items() if value is not MISSING}


def _leaves(value, path):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _origin(row, path, lines):
    """`file:line` of the last layer that says a value; None for a value that the row does not come to by layers."""
    if _at(row.resolved, path) is not None:
        for where, settings in reversed(row.layers):
            if _at(settings, path) is not None:
                return lines.get((*where, *path), ".".join(where))
    return None


def _at(settings, path):
    """What stands at a path of keys, or None."""
    for key in path:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings

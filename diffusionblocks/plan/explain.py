"""What a row comes to, and where each value was said."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

from diffusionblocks.base.components import PLACES, locate
from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.evaluation.inputs import source_of
from diffusionblocks.plan.configuration import KEYS, ROOT, read_all
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import TIMING, Row
from diffusionblocks.plan.sections import declared
from diffusionblocks.plan.source import class_keywords
from diffusionblocks.training.settings import Settings


def explain(name: str, scale: str | None = None, files: list[str | Path] = ()) -> str:
    """Every resolved value of the row `<table>/<row>`, a line each with file and line; then who is like it.

    files: configuration files of the user's, on top of config.yaml. Raises UserError for a row that is not there.
    """
    config, lines = read_all([ROOT / "config.yaml", *files])
    plan = Plan.of({**config, **({"scale": scale} if scale else {})})
    origins = {f"{table}/{row}": origin for (table, row), origin in plan.origins.items()}
    if name not in origins:
        raise UserError(f"{name!r}: no row of scale {plan.scale}{suggest(name, origins)} (rows: {', '.join(origins)})")
    row = plan.rows[origins[name]]
    found = [f"{name}, scale {plan.scale}"]
    if name != f"{row.table}/{row.name}":
        found.append(f"  is the run of {row.table}/{row.name}")
    told = [(f"{'.'.join(path)}: {value}", where) for path, value, where in _values(row, lines)]
    width = max(len(text) for text, _ in told)
    found += [f"  {text:<{width}}  {where}" for text, where in told]
    found.append(f"  seeds: {row.seeds}")
    if row.counted:
        found.append(f"  not trained: counted at the sizes of scale {row.scale}")
    else:
        found.append(f"  trained in {len(row.parts)} job{'s' * (len(row.parts) > 1)} a seed: {', '.join(row.parts)}")
    alike = [other for other, origin in origins.items() if other != name and _starts_from(plan.rows[origin], row)]
    found.append(f"  like it: {', '.join(alike) or 'no other row'}")
    same = [other for other, origin in origins.items() if other != name and plan.rows[origin] is row]
    return "\n".join(found + ([f"  the same run: {', '.join(same)}"] if same else []))


def _values(row: Row, lines: dict) -> Iterator[tuple[tuple, object, str]]:
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
        yield (*where, key), value, found or f"default of {Row.__module__}"
    functions = {"predict": "predict", "samples": "extend" if row.continues else "sample"}
    if function := functions.get(source_of(row.inputs(section), row.kind)):
        method = row.component("method")
        yield from _rest(where, asked, class_keywords(method.file, method.attribute, function), method.module)


def _component(kind, where, section):
    found = locate(kind, section["name"])
    return _rest(where, section, declared(found), found.module)


def _rest(where, section, defaults, module):
    """The defaults, {keyword: value} of a module, of what a section does not say."""
    return [((*where, key), value, f"default of {module}") for key, value in defaults.items() if key not in section]


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


def _starts_from(other: Row, row: Row) -> bool:
    """Whether the settings of `row` are among the layers of another row."""
    return other is not row and any(where == ("tables", row.table, "rows", row.name) for where, _ in other.layers)

"""What a row comes to, and where each value was said."""

from pathlib import Path

from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.plan.configuration import KEYS, ROOT, read_all
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import Row
from diffusionblocks.plan.sections import declared


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
    told = list(_values(row, lines))
    width = max(len(f"{'.'.join(path)}: {value}") for path, value, _ in told)
    found += [f"  {f'{chr(46).join(path)}: {value}':<{width}}  {where}" for path, value, where in told]
    found.append(f"  seeds: {row.seeds}")
    found.append(f"  trained in {len(row.parts)} job{'s' * (len(row.parts) > 1)} a seed: {', '.join(row.parts)}")
    alike = [other for other, origin in origins.items() if other != name and _starts_from(plan.rows[origin], row)]
    found.append(f"  like it: {', '.join(alike) or 'no other row'}")
    same = [other for other, origin in origins.items() if other != name and plan.rows[origin] is row]
    return "\n".join(found + ([f"  the same run: {', '.join(same)}"] if same else []))


def _values(row: Row, lines: dict):
    """(path, value, where it was said) of every value, defaults of the constructors included."""
    for key in KEYS:
        if key not in row.resolved:
            continue
        yield from ((path, value, _origin(row, path, lines)) for path, value in _leaves(row.resolved[key], (key,)))
        if key in ("data", "model", "method"):
            found = row.component(key)
            for keyword, default in declared(found).items():
                if keyword not in row.resolved[key]:
                    yield (key, keyword), default, f"default of {found.module}"


def _leaves(value, path):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _origin(row, path, lines):
    """`file:line` of the last layer that says a value."""
    for where, settings in reversed(row.layers):
        said = settings
        for key in path:
            said = said.get(key) if isinstance(said, dict) else None
        if said is not None:
            return lines.get((*where, *path), ".".join(where))
    return "?"


def _starts_from(other: Row, row: Row) -> bool:
    """Whether the settings of `row` are among the layers of another row."""
    return other is not row and any(where == ("tables", row.table, "rows", row.name) for where, _ in other.layers)

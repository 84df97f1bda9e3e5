"""What a row comes to, and where each value was said."""

from pathlib import Path

from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.plan.configuration import ROOT, read_all
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import Row
from diffusionblocks.plan.values import values


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
    told = [(f"{'.'.join(path)}: {value}", where) for path, value, where in values(row, lines)]
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


def _starts_from(other: Row, row: Row) -> bool:
    """Whether the settings of `row` are among the layers of another row."""
    return other is not row and any(where == ("tables", row.table, "rows", row.name) for where, _ in other.layers)

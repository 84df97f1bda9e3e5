"""From the layers of a configuration to the settings of one row (see workflow/tables/ for what a table is).

A row's settings are, each on top of the one before: all that the row which it is `like` has, or else its table's and
the table's at the chosen scale; its own; its own at the scale. A table may be `like` a row in the same way. At scale
`laptop` what is said of `demo` lies below what is said of it, in every place.

A table that is `counted` takes its settings from the scale that it names, whichever is chosen. What its rows are like
in another table is what is trained there; how it is measured they have from their own, and nothing starts from weights.
"""

from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.plan.configuration import KEYS, MEASURED, SCALES, merge


def layers(config: dict, table: str, row: str, seen: tuple = ()) -> list[tuple[tuple, dict]]:
    """[(path of keys, settings there)] of a row at the configured scale, the later ones on top.

    Raises UserError for a `like` that leads nowhere, or in a circle.
    """
    entry, where = config["tables"][table], ("tables", table, "rows", row)
    config, own = {**config, "scale": entry.get("counted", config["scale"])}, entry["rows"][row]
    seen = (*seen, where)
    if "like" in own:
        other = _named(config, own["like"], (*where, "like"), seen)
        below = layers(config, *other, seen)
        if "counted" in entry and other[0] != table:
            below = [
                (path, {key: found[key] for key in found if key not in (*MEASURED, "start")}) for path, found in below
            ]
            below += _at_scale(config, ("tables", table), entry)
    else:
        below = _of_table(config, table, seen)
    return below + _at_scale(config, where, own)


def resolve(found: list[tuple[tuple, dict]]) -> dict:
    """The settings that layers come to."""
    resolved = {}
    for _, settings in found:
        resolved = merge(resolved, {key: settings[key] for key in KEYS if key in settings})
    return resolved


def trained(config: dict, table: str, row: str) -> tuple[str, str]:
    """(table, row) of the run behind a row: itself, or the run that a row of text (`table1/vit_end_to_end`) names."""
    own = config["tables"][table]["rows"][row]
    return _named(config, own, ("tables", table, "rows", row), ()) if isinstance(own, str) else (table, row)


def started(config: dict, table: str, row: str, start: str, seen: tuple) -> tuple[str, str]:
    """(table, row) of the run whose weights a row starts from. seen: paths of the rows that start from this one.

    Raises UserError for one that is not trained, and where it starts from this row itself.
    """
    where = ("tables", table, "rows", row)
    other = _named(config, start, (*where, "start"), (*seen, where))
    if "counted" in config["tables"][other[0]]:
        raise UserError(f"config: {'.'.join(where)}.start: {start!r} is counted and not trained")
    return other


def has_settings(config: dict, table: str) -> bool:
    """Whether a table, or one that it is `like`, has settings for the configured scale."""
    seen = []
    while table in config["tables"] and table not in seen:
        entry = config["tables"][table]
        if "counted" in entry or any(scale in entry for scale in SCALES[config["scale"]]):
            return True
        seen.append(table)
        table = entry.get("like", "").partition("/")[0]
    return False


def check_like(config: dict, table: str) -> None:
    """A table's `like` must lead from row to row to an end, or it is no table of any scale and would go unnoticed."""
    rows = [f"{other}/{row}" for other, entry in config["tables"].items() for row in entry["rows"]]
    seen = [table]
    while like := config["tables"][seen[-1]].get("like"):
        where = f"config: tables.{seen[-1]}.like: {like!r}"
        if like not in rows:
            raise UserError(f"{where} is not <table>/<row>{suggest(like, rows)}")
        other = like.partition("/")[0]
        if other in seen:
            raise UserError(f"{where} leads back to {other}")
        seen.append(other)


def _of_table(config, table, seen):
    entry, where = config["tables"][table], ("tables", table)
    below = []
    if "like" in entry:
        other = _named(config, entry["like"], (*where, "like"), seen)
        if other[0] == table:
            raise UserError(f"config: tables.{table}.like: {entry['like']!r} leads back to {table}")
        below = layers(config, *other, seen)
    return below + _at_scale(config, where, entry)


def _at_scale(config, where, settings):
    found = [((*where, scale), settings[scale]) for scale in SCALES[config["scale"]] if scale in settings]
    return [(where, settings), *found]


def _named(config, name, where, seen):
    """(table, row) of a text `<table>/<row>`."""
    other, _, row = name.partition("/")
    entry = config["tables"].get(other, {})
    if not isinstance(entry.get("rows", {}).get(row), dict) or not has_settings(config, other):
        raise UserError(
            f"config: {'.'.join(where)}: {name!r} is not <table>/<row> of a row that is trained at scale "
            f"{config['scale']}"
        )
    if where[-1] == "like" and "counted" in entry and "counted" not in config["tables"][where[1]]:
        raise UserError(
            f"config: {'.'.join(where)}: {name!r} is counted and not trained; be like the row that it is like"
        )
    if ("tables", other, "rows", row) in seen:
        raise UserError(f"config: {'.'.join(where)}: {name!r} leads back to where it came from")
    return other, row

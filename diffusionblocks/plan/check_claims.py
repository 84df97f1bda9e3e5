"""Whether what a table prints and claims is of its rows and columns, before any of them is trained."""

from itertools import chain

from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.diffusion.partition import layers_of


def check_claims(plan) -> None:
    """Check what rows are compared with, and printed rows, claims, controls and cross-checks of every table of a Plan.

    Raises UserError naming the key.
    """
    for row in plan.rows.values():
        entry = plan.config["tables"][row.table]
        printed = (entry.get("printed") or {}).get("rows", {})
        _check_one(f"{row.where}.against: no row", row.against or row.name, entry["rows"])
        _check_one(f"{row.where}.paper_row: the table prints no row", row.paper_row, [row.name, *printed])
    for table in plan.tables:
        entry = plan.config["tables"][table]
        printed = entry.get("printed") or {}
        columns, printed_rows = printed.get("metrics", {}), printed.get("rows", {})
        rows = entry["rows"] | printed_rows
        for name, row in printed_rows.items():
            where = f"tables.{table}.printed.rows.{name}"
            for key in row.get("elsewhere", {}):
                _check_one(f"{where}.elsewhere: no metric", key, columns)
            _check_one(f"{where}.against: no row", row.get("against", name), rows)
        for index, claim in enumerate(entry.get("claims") or []):
            where = f"tables.{table}.claims.{index}"
            _check_keys(where, claim)
            for key in ("row", "against"):
                _check_one(f"{where}.{key}: no row", claim[key], rows)
            about = {**claim, "metric": claim.get("measured_as", {}).get(plan.scale, claim["metric"])}
            _check_metric(plan, table, where, about, ("row", "against"))
        for index, control in enumerate(entry.get("depth") or []):
            _check_control(plan, table, f"tables.{table}.depth.{index}", control)
        for metric in chain(*entry.get("cross_checks", {}).get(plan.scale, {}).items()):
            measured = {column for row in entry["rows"] for column in plan.rows[plan.origins[table, row]].metrics}
            _check_one(f"tables.{table}.cross_checks.{plan.scale}: no row measures", metric, sorted(measured))


def _check_keys(where, claim):
    """What a claim says must not contradict itself."""
    if ("margin" in claim) == ("factor" in claim):
        raise UserError(f"config: {where}: a claim has exactly one of margin and factor")
    if ("source" in claim) == claim.get("ours", False):
        raise UserError(
            f"config: {where}: say `source: <its place in the paper>`, or `ours: true` of a claim that is not the "
            "paper's, and not both"
        )
    if "stated" in claim and "factor" not in claim:
        raise UserError(f"config: {where}.stated: is for claims with a factor: leave it out")
    for scale in claim.get("not_tested", {}).keys() & claim.get("doubt", {}).keys():
        raise UserError(
            f"config: {where}: scale {scale} is in not_tested, which leaves no verdict to doubt: take it out of doubt"
        )


def _check_control(plan, table, where, control):
    """The control must be trained, and be shallower than the row that it is for."""
    if "counted" in plan.config["tables"][table]:
        raise UserError(f"config: {where}: is for tables that are trained, and {table} is counted: leave it out")
    layers = {}
    for key in ("deep", "shallow"):
        _check_one(f"{where}.{key}: no row", control[key], plan.config["tables"][table]["rows"])
        layers[key] = layers_of(plan.rows[plan.origins[table, control[key]]].model)
    if layers["shallow"] >= layers["deep"]:
        raise UserError(
            f"config: {where}.shallow: {control['shallow']} has {layers['shallow']} layers and {control['deep']} "
            f"{layers['deep']}: set model.num_layers of {control['shallow']} to those of one block"
        )
    _check_metric(plan, table, where, control, ("deep", "shallow"))


def _check_metric(plan, table, where, about, keys):
    """The metric of a claim or a control must be printed, or measured of one of the rows that it compares."""
    columns = (plan.config["tables"][table].get("printed") or {}).get("metrics", {})
    origins = [plan.origins.get((table, about[key])) for key in keys]
    measured = [column for origin in origins if origin for column in plan.rows[origin].metrics]
    _check_one(f"{where}.metric: neither measured nor printed is", about["metric"], [*columns, *measured])


def _check_one(what, word, known):
    if word not in known:
        raise UserError(f"config: {what} {word!r}{suggest(word, known)}")

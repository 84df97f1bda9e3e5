"""config.yaml -> resolved runs, their parts and the files they depend on. Standard library only: rules import this."""

import hashlib
import json

from diffusionblocks.codebase import class_keywords, closure, module_file
from diffusionblocks.files import UserError

SECTIONS = ("data", "model", "method", "train")


def merge(base, over):
    """`over` on top of `base`, key by key; a section that is given another `name` is replaced whole."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


def resolve(config, table, row):
    """All sections of a row at the configured scale: table, then scale, then row, then the row's own scale."""
    entry = config["tables"][table]
    layers, seen = [entry["rows"][row]], [row]
    while "like" in layers[0]:
        like = layers[0]["like"]
        if not isinstance(entry["rows"].get(like), dict) or like in seen:
            raise UserError(f"config: tables.{table}.rows.{row}.like: {like!r} is not another trained row of {table}")
        layers.insert(0, entry["rows"][like])
        seen.append(like)
    resolved = {}
    for layer in [entry, *layers]:
        for settings in (layer, layer.get(config["scale"], {})):
            resolved = merge(resolved, {key: settings[key] for key in (*SECTIONS, "metrics") if key in settings})
    return resolved


def run(config, table, row, seed):
    """What `run.json` holds: all that decides a trained model, and nothing that does not (no metrics).

    Raises UserError when the row lacks a section at this scale.
    """
    resolved = resolve(config, table, row)
    for section in SECTIONS:
        if section not in resolved:
            raise UserError(f"config: tables.{table}.rows.{row} has no section {section!r} at scale {config['scale']}")
    sections = {section: resolved[section] for section in SECTIONS}
    return {"scale": config["scale"], "table": table, "row": row, "seed": seed, **sections}


def trained(config, table, row):
    """(table, row) of the run behind a row: itself, or the run that a row of text (`table1/vit_end_to_end`) names."""
    value = config["tables"][table]["rows"][row]
    if not isinstance(value, str):
        return table, row
    other, _, other_row = value.partition("/")
    entry = config["tables"].get(other, {})
    if not isinstance(entry.get("rows", {}).get(other_row), dict) or config["scale"] not in entry:
        raise UserError(
            f"config: tables.{table}.rows.{row}: {value!r} is not <table>/<row> of a row that is trained at scale "
            f"{config['scale']}"
        )
    return other, other_row


def tables(config):
    """Names of the tables that have settings for the configured scale."""
    return [name for name, entry in config["tables"].items() if config["scale"] in entry]


def run_folders(config, table):
    """Folders `<table>/<row>/seed<n>` of all runs behind a table, each once."""
    rows = dict.fromkeys(trained(config, table, row) for row in config["tables"][table]["rows"])
    return [f"{table}/{row}/seed{seed}" for table, row in rows for seed in config["seeds"]]


def component_file(kind, name):
    """Source file of a model or method: a file of this package, or any importable module if the name has a dot."""
    return module_file(component_module(kind, name))


def component_module(kind, name):
    return name if "." in name else f"diffusionblocks.{kind}s.{name}"


def method_settings(run):
    """A run's method section with the defaults of the method's constructor filled in."""
    defaults = class_keywords(component_file("method", run["method"]["name"]), "Method")
    return {**defaults, **run["method"]}


def parts(run):
    """What is trained in jobs of their own: one per block where blocks share nothing, else everything at once."""
    method = method_settings(run)
    if method.get("sharing") == "independent":
        return [f"block{block}" for block in range(method["num_blocks"])]
    return ["all"]


def data_name(data):
    """File name of a prepared data set: its name, and a hash of its keywords if it has any."""
    keywords = {key: value for key, value in data.items() if key != "name"}
    return data["name"] + (f"-{fingerprint(keywords)[:8]}" if keywords else "")


def fingerprint(value):
    """Hash of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code(step, run=None):
    """Source files that a step depends on, with the architecture and the method that a run names."""
    chosen = [component_module(kind, run[kind]["name"]) for kind in ("model", "method")] if run else []
    return closure(f"diffusionblocks.{step}", *chosen)

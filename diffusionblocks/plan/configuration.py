"""config.yaml, the tables beside it and what a user puts on top: read with their lines, laid over each other.

One file under workflow/tables is one table. `--configfile mine.yaml` adds tables or changes keys of these; there a key
that is null removes what stood below it.
"""

from pathlib import Path
from typing import Any

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError

ROOT = PACKAGE.parent
TABLES = ROOT / "workflow/tables"
DISPLACED = {"steps": "epochs", "epochs": "steps"}  # two ways to say one thing: the later one counts


def merge(base: Any, over: Any, keep_null: bool = False) -> Any:
    """`over` on top of `base`, key by key; a section that is given another `name` is replaced whole.

    A null removes the key, or stays where it has to remove it from a layer further below (`keep_null`).
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        base = {}
    found = {key: value for key, value in base.items() if key in over or DISPLACED.get(key) not in over}
    for key, value in over.items():
        if value is None and not keep_null:
            found.pop(key, None)
        else:
            found[key] = merge(base.get(key, {} if isinstance(value, dict) else None), value, keep_null)
    return found


def read_yaml(path: str | Path) -> tuple[dict, dict]:
    """(content, {path of keys: line}) of a YAML file. Raises UserError, with the line, for what is no plain mapping.

    A key that stands twice is refused (YAML would drop the first without a word), and so is one that is no text (a row
    named 12 or yes).
    """
    import yaml  # comes with Snakemake; jobs do without

    path, lines = Path(path), {}
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        loader = loader_class(text)
        node = loader.get_single_node()
        found = {} if node is None else _plain(yaml, loader, node, (), lines, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: should hold keys and values, and holds {type(found).__name__}")
    return found, lines


def _plain(yaml, loader, node, where, lines, path):
    """The value of a YAML node, noting the line of every key."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(yaml, loader, item, (*where, index), lines, path) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    merged = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
    if merged:  # what `<<` brings may be said again
        loader.flatten_mapping(node)
    found = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise UserError(f"{path}:{line}: YAML reads the key {key_node.value!r} as {key!r}; put it in quotes")
        if key in found and not merged:
            first = lines[(*where, key)]
            raise UserError(f"{path}: the key {key!r} stands twice, in lines {first} and {line}; remove one")
        lines[(*where, key)] = line
        found[key] = _plain(yaml, loader, value_node, (*where, key), lines, path)
    return found


def read_tables(folder: Path = TABLES) -> tuple[dict, dict]:
    """({table: its entry}, {("tables", table, ...): "file:line"}) of all files in the folder, by name."""
    tables, lines = {}, {}
    for path in sorted(folder.glob("*.yaml")):
        entry, where = read_yaml(path)
        tables[path.stem] = entry
        shown = _shown(path)
        lines[("tables", path.stem)] = f"{shown}:1"
        lines |= {("tables", path.stem, *key): f"{shown}:{line}" for key, line in where.items()}
    return tables, lines


def complete(config: dict, folder: Path = TABLES) -> dict:
    """The configuration with all tables in it: those of `folder` under what `config["tables"]` says of them."""
    tables, _ = read_tables(folder)
    for name, entry in (config.get("tables") or {}).items():
        tables[name] = merge(tables.get(name, {}), entry, keep_null=True) if entry is not None else None
    tables = {name: entry for name, entry in tables.items() if entry is not None}
    for entry in tables.values():
        if isinstance(entry, dict) and isinstance(entry.get("rows"), dict):
            entry["rows"] = {row: own for row, own in entry["rows"].items() if own is not None}
    return {**config, "tables": tables}


def read_all(paths: list[str | Path], folder: Path = TABLES) -> tuple[dict, dict]:
    """(the complete configuration, {path of keys: "file:line"}) of configuration files, later ones on top."""
    config, lines = {}, {}
    for path in paths:
        over, where = read_yaml(path)
        config = merge(config, over, keep_null=True)
        lines |= {key: f"{_shown(Path(path))}:{line}" for key, line in where.items()}
    return complete(config, folder), read_tables(folder)[1] | lines


def _shown(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else str(path)

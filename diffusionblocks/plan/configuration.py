"""config.yaml, the tables beside it and what a user puts on top: read with their lines, laid over each other.

One file under workflow/tables is one table. `--configfile mine.yaml` adds tables or changes keys of these; there a key
that is null removes what stood below it.
"""

from pathlib import Path
from typing import Any

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError, in_words, listed

ROOT = PACKAGE.parent
TABLES = ROOT / "workflow/tables"
SECTIONS = ("data", "model", "method", "train")  # what decides a trained model
MEASURED = ("metrics", "sampling", "extractor", "seeds_at_most", "timing")  # how it is measured
KEYS = (*SECTIONS, "start", *MEASURED, "shape")  # what is laid over each other
# {scale: the sections of a table or row that make it up, each on top of the one before}.
SCALES = {"demo": ("demo",), "laptop": ("demo", "laptop"), "gpu": ("gpu",), "paper": ("paper",)}
ON_A_CPU = ("demo", "laptop")  # scales that are for two cores of a machine without a GPU
# Two ways to say one thing, {key: the later one that displaces it}. Warm-up may count in steps where training does not.
DISPLACED = {"steps": "epochs", "epochs": "steps", "warmup_epochs": "steps"}


def merge(base: Any, over: Any, keep_null: bool = False) -> Any:
    """`over` on top of `base`, key by key; a section that is given another `name` is replaced whole.

    A null removes the key, or stays where it has to remove it from a layer further below (`keep_null`).
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        base = {}
    said = {key for key, value in over.items() if value is not None}
    found = {key: value for key, value in base.items() if key in over or DISPLACED.get(key) not in said}
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
        found = {} if node is None else _plain(yaml, loader, node, (), lines, path, set())
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML in UTF-8 ({type(error).__name__})") from None
    except OSError as error:
        raise UserError(in_words(error, path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: should hold keys and values, and holds {type(found).__name__}")
    return found, lines


def _plain(yaml, loader, node, where, lines, path, flattened):
    """The value of a YAML node, noting the line of every key. flattened: ids of nodes whose `<<` is already put in."""
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return [_plain(yaml, loader, item, (*where, index), lines, path, flattened) for index, item in items]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
        loader.flatten_mapping(node)
        flattened.add(id(node))
    merged = id(node) in flattened  # what `<<` brings may be said again
    found = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise UserError(f"{path}:{line}: YAML reads the key {key_node.value!r} as {key!r}; put it in quotes")
        if key in found and not merged:
            first = lines[(*where, key)]
            raise UserError(f"{path}: the key {key!r} stands twice, in lines {first} and {line}; remove one")
        lines[(*where, key)] = line
        found[key] = _plain(yaml, loader, value_node, (*where, key), lines, path, flattened)
    return found


def read_tables(folder: Path = TABLES) -> tuple[dict, dict]:
    """({table: its entry}, {("tables", table, ...): "file:line"}) of all files in the folder, by name."""
    tables, lines = {}, {}
    for path in (folder / name for name in listed(folder) if name.endswith(".yaml")):
        entry, where = read_yaml(path)
        tables[path.stem] = entry
        shown = _shown(path)
        lines[("tables", path.stem)] = f"{shown}:1"
        lines |= {("tables", path.stem, *key): f"{shown}:{line}" for key, line in where.items()}
    return tables, lines


def complete(config: dict, folder: Path = TABLES) -> dict:
    """The configuration with all tables in it: those of `folder` under what `config["tables"]` says of them."""
    _check_plain("config", config)
    tables, _ = read_tables(folder)
    own = config.get("tables") or {}
    if not isinstance(own, dict):
        raise UserError(f"config: tables: should be a mapping of names to tables, and is {own!r}")
    for name, entry in own.items():
        tables[name] = merge(tables.get(name, {}), entry, keep_null=True) if entry is not None else None
    return {**config, "tables": {name: _without_nulls(entry) for name, entry in tables.items() if entry is not None}}


def _without_nulls(entry):
    """A table without what nulls have removed: rows with the claims about them, references, words, printed numbers.

    In sections they stay, since they are to remove keys of layers further below.
    """
    if not isinstance(entry, dict):
        return entry
    found = {key: value for key, value in entry.items() if value is not None or key in KEYS}
    if isinstance(found.get("rows"), dict):
        gone = {row for row, own in found["rows"].items() if own is None}
        found["rows"] = {row: _without_nulls(own) for row, own in found["rows"].items() if row not in gone}
        for key, named in (("claims", ("row", "against")), ("depth", ("deep", "shallow"))):
            if isinstance(found.get(key), list):
                found[key] = [about for about in found[key] if not _names(about, named, gone)]
    if "printed" in found:
        found["printed"] = merge({}, found["printed"])
    return found


def _names(about, keys, rows):
    return isinstance(about, dict) and any(isinstance(about.get(key), str) and about[key] in rows for key in keys)


def _check_plain(where, value):
    """Raise UserError for keys that are no text, and values that JSON does not have, such as YAML's dates."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{where}: YAML reads the key {key!r} as {type(key).__name__}; put it in quotes")
            _check_plain(f"{where}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_plain(f"{where}.{index}", inner)
    elif not isinstance(value, str | int | float | bool | None):
        raise UserError(f"{where}: YAML reads {value} as {type(value).__name__}; put it in quotes")


def read_all(paths: list[str | Path], folder: Path = TABLES) -> tuple[dict, dict]:
    """(what configuration files say, later ones on top, {path of keys: "file:line"} of that and of the tables).

    Not complete yet: what a null of theirs removes would come back when it is completed again.
    """
    config, lines = {}, {}
    for path in paths:
        over, where = read_yaml(path)
        config = merge(config, over, keep_null=True)
        lines |= {key: f"{_shown(Path(path))}:{line}" for key, line in where.items()}
    return config, read_tables(folder)[1] | lines


def _shown(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else str(path)

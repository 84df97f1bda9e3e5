"""What an estimate has to count: the rows that planning has written, with the sizes of their data and their updates.

Data need not be there: of a set that is prepared, its file says the sizes, of another the source itself (`@sizes`).
"""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusionblocks.base import rates
from diffusionblocks.base.components import locate
from diffusionblocks.base.files import UserError, read_about, suggest
from diffusionblocks.base.source import returned_set, tree
from diffusionblocks.data.download import ARCHIVES, Archive
from diffusionblocks.plan.code import digest, run_files
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.row import parts_of
from diffusionblocks.plan.sections import LATENT, extractors_of, fingerprint, section_name, sizes
from diffusionblocks.plan.source import class_keywords, decorator_keywords
from diffusionblocks.training.settings import Settings

# Keywords of DiffusionBlocks that move levels of noise, and cost nothing.
FREE = ("partition", "overlap", "loss_weight", "target_norm", "p_mean", "sigma_min", "sigma_max")
DECIDES = ("batch_size", "accumulate", "ema", "checkpoint_activations", "optimizer")  # of `train`, what an update costs
TOKEN_BYTES = ((256, 1), (1 << 15, 2))  # most tokens of a vocabulary that so many bytes hold, as data/text/write.py


class Asked:
    """tables: {table: {row: its origin, `<table>/<row>`}}, without those that are counted. rows: {origin: what is known
    of it, as `_row` says}. unknown: {origin: why it cannot be estimated}. results: folder of the scale's results.
    """

    def __init__(self, written: dict[str, dict], results: str | Path, tables: Iterable[str] = ()):
        """written: as Plan.written. tables: those that are asked for, by default all. Raises UserError for one that is
        not there or trains nothing.
        """
        self.results = Path(results)
        there = {name.partition("/")[2]: about for name, about in written.items() if name.startswith("tables/")}
        trained = {table: about for table, about in there.items() if not _is_counted(written, about)}
        for table in tables:
            if table not in there:
                raise UserError(f"estimate: no table {table!r}{suggest(table, trained)} (tables: {', '.join(trained)})")
            if table not in trained:
                raise UserError(f"estimate: {table} is counted, and nothing of it is trained")
        self.tables, self.rows, self.unknown, self.sections = {}, {}, {}, {}
        for table in dict.fromkeys(tables or trained):
            self.tables[table] = {row: about["run"] for row, about in trained[table]["rows"].items()}
            for about in trained[table]["rows"].values():
                if about["run"] not in self.rows and about["run"] not in self.unknown:
                    self._add(written, about["run"], len(about["metrics"]))
        self._add_starts(written)

    def _add_starts(self, written):
        """Add what rows start from and no table asked for has; trained for that, and not measured."""
        there = {run for rows in self.tables.values() for run in rows.values()}
        for rows in self.tables.values():
            for origin in [*rows.values()]:
                runs = _runs(written, origin)
                run = runs[0]
                while run := run.get("start"):
                    name = f"{run['table']}/{run['row']}"
                    if name not in there:
                        there.add(name)
                        rows[name] = name
                        self._add(written, name, len(runs), measured=False)

    def _add(self, written, origin, seeds, measured=True):
        run = _runs(written, origin)[0]
        nothing = {"metrics": {}, "extractor": None, "teachers": {}}
        evaluation = written[f"runs/{origin}/evaluation"] if measured else nothing
        samplings = [
            about for name, about in written.items() if measured and name.startswith(f"runs/{origin}/samples/")
        ]
        try:
            self.rows[origin] = _row(run, seeds, samplings, self.results)
        except UserError as error:
            self.unknown[origin] = str(error)
        extractors = extractors_of(evaluation["extractor"], evaluation["metrics"])
        self.sections[origin] = run["data"], extractors, evaluation["teachers"]

    def data(self) -> dict[str, int]:
        """{data set: bytes on disk, of those whose sizes are known}; latents twice, since their shards stay."""
        found = {}
        for row in self.rows.values():
            if row["train_size"] is not None:
                found[section_name(row["run"]["data"])] = row["data_bytes"]
        return found

    def features(self) -> int:
        """Bytes at most of all real images' features, of each data set and extractor once."""
        pairs = {(section_name(data), name) for data, extractors, _ in self.sections.values() for name in extractors}
        return len(pairs) * rates.FEATURES_BYTES

    def downloads(self, data_dir: str | Path) -> dict[str, tuple[float | None, bool]]:
        """{what is fetched: (bytes, or None where nobody here knows them; whether it lies in data_dir already)}."""
        found = {}
        for data, extractors, teachers in self.sections.values():
            archives = _archives("data", data)
            for section in extractors.values():
                archives += _archives("extractor", section)
            if returned_set(data) == "LatentSet":
                archives += [ARCHIVES["vae_config"], ARCHIVES["vae_weights"]]
            for archive in archives:
                name = Path(archive.url).name
                there = (Path(data_dir) / name).is_file() or (Path(data_dir) / "sd-vae-ft-ema" / name).is_file()
                found[name] = (archive.size, there)
            for teacher in teachers.values():
                if teacher["name"] in rates.TEACHERS:
                    name = teacher["name"]
                    found[name] = (rates.TEACHERS[name], (Path(data_dir) / name).is_dir())
        return found

    def brought(self) -> list[str]:
        """What the user has to put into data_dir, in words, each once."""
        sources = (locate("data", data["name"]) for data, *_ in self.sections.values())
        said = (decorator_keywords(found.file, found.attribute, "sizes") or {} for found in sources)
        return list(dict.fromkeys(words for one in said for words in one.get("bring", "").split("; ") if words))


def asked(config: dict, tables: Iterable[str] = ()) -> Asked:
    """What a configuration asks for. tables: names of tables or their aliases."""
    plan = Plan.of(config)
    return Asked(plan.written, plan.results, [name for table in tables for name in plan.aliases.get(table, [table])])


def _runs(written, origin):
    """run.json of a row, for each seed."""
    return [about for name, about in written.items() if name.startswith(f"runs/{origin}/seed")]


def _is_counted(written, table):
    return any("shape" in written[f"runs/{about['run']}/evaluation"] for about in table["rows"].values())


def _row(run, seeds, samplings, results) -> dict[str, Any]:
    """run: of one seed. seeds: their number. parts, shape; train_size: samples, or None. updates: of each block.
    samples: [{count, steps, passes, share, bytes}] of all that is generated for a seed, see `_samples`. data_bytes: of
    the prepared set. key: of all that decides what is counted. Raises UserError where the sizes are not known.
    """
    data, method = run["data"], run["method"]
    source = locate("data", data["name"])
    file = results / "data" / f"{section_name(data)}.safetensors"
    about = (read_about(file) if file.is_file() else None) or sizes(data)
    if about is None:
        raise UserError(
            f"data {data['name']} is not prepared yet, and {source.file} does not say its sizes (by @sizes, "
            "docs/extending.md)"
        )
    shape, train_size, settings = about["shape"], about["train_size"], Settings.of(run["train"])
    if settings.epochs and train_size is None:
        raise UserError(f"train.epochs: {source.file} should say train_size by @sizes, or the data be prepared")
    updates, _ = settings.updates((train_size or 0) // settings.batch_size)
    parts = parts_of(method)
    decides = {key: run["train"][key] for key in DECIDES if key in run["train"]}
    if method["name"] == "diffusionblocks":
        method = {key: value for key, value in method.items() if key not in FREE}
    code = digest(run_files("estimate", {**run, "method": method}))
    return {
        "run": run,
        "seeds": seeds,
        "parts": parts,
        "shape": shape,
        "train_size": train_size,
        "updates": updates,
        "samples": [_samples(run, shape, sampling) for sampling in samplings],
        "data_bytes": file.stat().st_size if file.is_file() else _data_bytes(data, shape, train_size or 0),
        "key": fingerprint([code, run["model"], method, decides, shape, parts]),
    }


def _data_bytes(data, shape, train_size):
    """Of a set's training samples, as prepared."""
    if "vocab_size" in shape:
        width = next((width for most, width in TOKEN_BYTES if shape["vocab_size"] <= most), 4)
        return train_size * shape["seq_len"] * width
    values = shape["channels"] * shape["image_size"] ** 2
    if returned_set(data) == "LatentSet":
        return train_size * (2 * 2 * values + 8)  # in half precision, in the shards and joined; and a label
    return train_size * (values + 8)


def _samples(run, shape, sampling):
    """count: samples. steps: levels of a chain, or None for one a block. passes: of the network at each level. share:
    of a training sample that is passed over. bytes: of all of them on disk.
    """
    method = locate("method", run["method"]["name"])
    text, goes_on = "vocab_size" in shape, "prompt_len" in sampling
    options = class_keywords(method.file, method.attribute, "extend" if goes_on else "sample") or {}
    options |= {key: value for key, value in sampling.items() if value is not None}
    count, share = sampling["num_samples"] * sampling["sets"], 1.0
    if goes_on:
        length = sampling["prompt_len"] + sampling["new_tokens"]
        share, size = length / shape["seq_len"], 4 * length
    elif text:
        size = 4 * shape["seq_len"]
    elif returned_set(run["data"]) == "LatentSet":
        size = 3 * (shape["image_size"] * LATENT["pixels"]) ** 2
    else:
        size = shape["channels"] * shape["image_size"] ** 2
    passes = (1 if options.get("guidance", 1) == 1 else 2) * (2 if options.get("solver") == "heun" else 1)
    return {
        "count": count,
        "steps": options.get("num_steps"),
        "passes": passes,
        "share": share,
        "bytes": count * size,
    }


def _archives(kind: str, section: dict) -> list[Archive]:
    """What a component fetches, as its source says: every `ARCHIVES["name"]` in its function."""
    found = locate(kind, section["name"])
    for node in tree(found.file).body if found else ():
        if isinstance(node, ast.FunctionDef) and node.name == found.attribute:
            return [
                ARCHIVES[inner.slice.value]
                for inner in ast.walk(node)
                if isinstance(inner, ast.Subscript)
                and ast.unparse(inner.value) == "ARCHIVES"
                and isinstance(inner.slice, ast.Constant)
                and inner.slice.value in ARCHIVES
            ]
    return []

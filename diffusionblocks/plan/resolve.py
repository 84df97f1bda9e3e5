"""config.yaml -> resolved runs, their parts and the files they depend on. Standard library only: rules import this."""

import hashlib
import json

from diffusionblocks.base.components import locate, names
from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation.inputs import served
from diffusionblocks.plan.source import (
    PACKAGE,
    absent_members,
    class_keywords,
    closure,
    function_keywords,
    module_file,
    positional,
)

SECTIONS = ("data", "model", "method", "train")
EVALUATION = ("metrics", "sampling", "extractor", "seeds")
# How much a row generates: images or texts in a set, sets (of other noise), jobs that share the work.
SAMPLES = {"num_samples": 50_000, "sets": 1, "shards": 1}
# Texts that go on from a prompt: `continuations` of each prompt, `prompt_len` and `new_tokens` in tokens.
CONTINUATIONS = {"continuations": 5, "prompt_len": 50, "new_tokens": 50}
# How often the likelihood of the test set is estimated, each time at other levels of noise.
LIKELIHOOD = {"passes": 10}
KINDS = {"images": "data/images/sources", "text": "data/text/sources"}  # of data, each with the folder of its sources


# Components that a step finds by name, beside a run's own.
USED = {
    "evaluation.evaluate": ("metric", "extractor", "teacher"),
    "scorers.extractor": ("extractor",),
    "scorers.reference": ("extractor",),
    "scorers.teacher": ("teacher",),
}


def merge(base, over):
    """`over` on top of `base`, key by key; a section that is given another `name` is replaced whole."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


def resolve(config, table, row, seen=()):
    """All sections of a row at the configured scale: table, then scale, then row, then the row's own scale.

    A table that is `like` a row of another starts from all of that row's. Raises UserError for a `like` that leads
    nowhere, or in a circle.
    """
    entry = config["tables"][table]
    layers, resolved, seen = [entry["rows"][row]], {}, (*seen, (table, row))
    while "like" in layers[0]:
        like = layers[0]["like"]
        if not isinstance(entry["rows"].get(like), dict) or (table, like) in seen:
            raise UserError(f"config: tables.{table}.rows.{row}.like: {like!r} is not another trained row of {table}")
        layers.insert(0, entry["rows"][like])
        seen = (*seen, (table, like))
    if "like" in entry:
        other, other_row = _named(config, entry["like"], f"tables.{table}.like")
        if (other, other_row) in seen or other == table:
            raise UserError(f"config: tables.{table}.like: {entry['like']!r} leads back to {table}")
        resolved = resolve(config, other, other_row, seen)
    for layer in [entry, *layers]:
        for settings in (layer, layer.get(config["scale"], {})):
            known = {key: settings[key] for key in (*SECTIONS, *EVALUATION) if key in settings}
            resolved = merge(resolved, known)
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
    return _named(config, value, f"tables.{table}.rows.{row}") if isinstance(value, str) else (table, row)


def _named(config, name, where):
    """(table, row) of a text `<table>/<row>`."""
    other, _, row = name.partition("/")
    entry = config["tables"].get(other, {})
    if not isinstance(entry.get("rows", {}).get(row), dict) or not _has_settings(config, other):
        raise UserError(
            f"config: {where}: {name!r} is not <table>/<row> of a row that is trained at scale {config['scale']}"
        )
    return other, row


def _has_settings(config, table):
    """Whether a table, or one that it is `like`, has settings for the configured scale."""
    seen = []
    while table in config["tables"] and table not in seen:
        entry = config["tables"][table]
        if config["scale"] in entry:
            return True
        seen.append(table)
        table = entry.get("like", "").partition("/")[0]
    return False


def tables(config):
    """Names of the tables that have settings for the configured scale."""
    return [name for name in config["tables"] if _has_settings(config, name)]


def aliases(config):
    """{another name: its tables} of the tables at the configured scale."""
    found = {}
    for table in tables(config):
        if alias := config["tables"][table].get("alias"):
            found.setdefault(alias, []).append(table)
    return found


def seeds(config, table, row):
    """Seeds of a trained row: its own if it names some."""
    return resolve(config, table, row).get("seeds", config["seeds"])


def run_folders(config, table):
    """Folders `<table>/<row>/seed<n>` of all runs behind a table, each once."""
    rows = dict.fromkeys(trained(config, table, row) for row in config["tables"][table]["rows"])
    return [f"{table}/{row}/seed{seed}" for table, row in rows for seed in seeds(config, table, row)]


def metrics(config, table, row):
    """A row's metrics, {column: section}; the row's `sampling`, and defaults under that, are those of generation."""
    resolved, found = resolve(config, table, row), {}
    for column, section in resolved.get("metrics", {}).items():
        sampling = section.get("sampling", {})
        if "nelbo" in " ".join(metric_inputs(section.get("name"))):
            sampling = {**LIKELIHOOD, **sampling}
        if from_samples(section.get("name")):
            sampling = {**sample_defaults(resolved), **merge(resolved.get("sampling", {}), sampling)}
        found[column] = {**section, "sampling": sampling}
    return found


def sample_defaults(resolved):
    """How much is generated where the configuration does not say."""
    return SAMPLES | (CONTINUATIONS if continues(resolved) else {})


def continues(run):
    """Whether a run's network writes texts on from a prompt, and does not make whole samples."""
    file = component_file("model", str(run.get("model", {}).get("name")))
    return file is not None and not absent_members(file, "Model", ("begin",))


def metric_inputs(metric):
    """What a metric is computed from: the names of its positional arguments."""
    found = metric and locate("metric", metric)
    return positional(found.file, found.attribute) if found else []


def from_samples(metric):
    """Whether a metric is computed from generated samples, and not from predictions on the test set."""
    return bool(served("samples", "teacher").intersection(metric_inputs(metric)))


def sample_sets(config, table, row):
    """{name: sampling section} of what a row's metrics need to have generated. The name does not depend on shards."""
    sections = metrics(config, table, row).values()
    wanted = [section["sampling"] for section in sections if from_samples(section["name"])]
    return {sample_name(sampling): sampling for sampling in wanted}


def sample_name(sampling):
    """Folder of generated samples: a hash of all that decides them."""
    return fingerprint({key: value for key, value in sampling.items() if key != "shards"})[:8]


def extractor(config, table, row):
    """A row's `extractor` section, or None, as for metrics that need no features."""
    needed = any("features" in metric_inputs(section.get("name")) for section in metrics(config, table, row).values())
    return resolve(config, table, row).get("extractor") if needed else None


def teachers(config, table, row):
    """The `teacher` sections that a row's metrics of texts name, {name of its file: section}."""
    sections = (section["teacher"] for section in metrics(config, table, row).values() if "teacher" in section)
    return {section_name(section): section for section in sections}


def data_kind(name):
    """ "images" or "text": the kind of a source by its name. None if there is no such source."""
    return next((kind for kind, file in KINDS.items() if name in _sources(file)), None)


def data_sources():
    """{source: {keyword: default}} of all kinds."""
    return {name: keywords for file in KINDS.values() for name, keywords in _sources(file).items()}


def _sources(folder):
    files = sorted((PACKAGE / folder).glob("*.py"))
    return {name: keywords for file in files for name, keywords in function_keywords(file).items()}


def components(kind):
    """{component: {keyword: default}} of a kind that is functions."""
    files = {locate(kind, name).file for name in names(kind)}
    return {name: keywords for file in files for name, keywords in function_keywords(file).items()}


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


def section_name(section):
    """File name of a prepared data set, or of an extractor: its name, and a hash of its keywords if it has any."""
    keywords = {key: value for key, value in section.items() if key != "name"}
    return section["name"] + (f"-{fingerprint(keywords)[:8]}" if keywords else "")


def fingerprint(value):
    """Hash of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code(step, run=None, data=None):
    """Source files that a step depends on, with what a run names: architecture, method, kind of data.

    data: a data section, in the place of a run.
    """
    chosen = []
    if run:
        chosen = [component_module(kind, run[kind]["name"]) for kind in ("model", "method")]
        kind = data_kind(run["data"]["name"])
    if run and step != "training.assemble":  # which joins weights and sees no data
        room = step.partition(".")[0]
        chosen += [
            f"diffusionblocks.data.{kind}.dataset",
            f"diffusionblocks.{room}.{kind}",
        ]  # the second, if there is one
    if data:
        kind = data_kind(data["name"])
        chosen += [locate("data", data["name"]).module, f"diffusionblocks.data.{kind}.write"]
    for used in USED.get(step, ()):
        if used != {"images": "teacher", "text": "extractor"}.get(run and kind):
            chosen += sorted({locate(used, name).module for name in names(used)})
    return closure(f"diffusionblocks.{step}", *chosen)

"""Every check of the configuration that is possible before a job starts; each failure is one UserError naming the key.

The frame is held against workflow/schemas/config.schema.yaml; the sections meet the constructors they go to, as the
source states them; splits and settings of training are tried. What metrics and samples need is in check_metrics. Needs
nothing beyond the standard library and what comes with Snakemake.
"""

import contextlib
import re

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.base.source import returned_set
from diffusionblocks.diffusion.noise import noise_of
from diffusionblocks.diffusion.partition import boundaries, interval, layers_of, split_layers
from diffusionblocks.diffusion.processes import check_process
from diffusionblocks.evaluation.inputs import TIMED
from diffusionblocks.plan.check_claims import check_claims
from diffusionblocks.plan.check_metrics import check_metrics
from diffusionblocks.plan.row import TIMING, noise_kind
from diffusionblocks.plan.sections import SHAPES, check_keys, check_section, component, declared
from diffusionblocks.plan.source import absent_members, class_constant, derives
from diffusionblocks.training.settings import Settings

SCHEMA = PACKAGE.parent / "workflow/schemas/config.schema.yaml"
# What training and evaluation will ask of a method, hours later; what a method asks of a network stands in its `needs`.
METHOD_MEMBERS = ("loss", "predict")
LOUDNESS = ("target_norm", "p_mean", "sigma_min", "sigma_max")  # options of a method that make its noise


def check_frame(config: dict) -> None:
    """Check keys and kinds of values against the JSON schema, and fill in its defaults."""
    import jsonschema  # both come with Snakemake; jobs, which check one run alone, do without
    import yaml

    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    for key, about in schema["properties"].items():
        if "default" in about:
            config.setdefault(key, about["default"])
    if isinstance(config.get("seeds"), list):  # `--config seeds=[0,1]` on the command line arrives as text
        config["seeds"] = [int(seed) if re.fullmatch("[0-9]+", str(seed)) else seed for seed in config["seeds"]]
    if isinstance(said := config.get("estimate"), dict):  # and so do its numbers
        for key, kind in (("share", float), ("runtime", int)):
            with contextlib.suppress(ValueError):  # the schema refuses it in words
                said |= {key: kind(said[key])} if isinstance(said.get(key), str) else {}
    if config["track_code"] in ("true", "false"):  # there Snakemake takes True and False alone for what they are
        config["track_code"] = config["track_code"] == "true"
    draft = jsonschema.Draft202012Validator
    kinds = draft.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # 600.0 is no number of steps
    validator = jsonschema.validators.extend(draft, type_checker=kinds)(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is None:
        return
    where = ".".join(str(step) for step in error.absolute_path) or "top level"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        key = next(key for key in error.instance if key not in known)
        raise UserError(f"config: {where}: unknown key {key!r}{suggest(key, known)} (keys here: {', '.join(known)})")
    if error.validator == "not":
        raise UserError(f"config: {where}: {error.instance!r} is the name of a rule, choose another")
    raise UserError(f"config: {where}: {_in_words(error)}")


def _in_words(error):
    """A violation of the schema as a sentence; the library's own where that is clear."""
    what, value = error.instance, error.validator_value
    match error.validator:
        case "pattern":
            form = "<table>/<row>" if "/" in value else "a small letter, then letters, digits or _"
            return f"{what!r} should be {form}"
        case "required":
            absent = next(key for key in value if key not in what)
            return f"needs {absent!r}"
        case "type":
            kinds = [value] if isinstance(value, str) else value
            words = {"object": "a mapping", "array": "a list", "string": "a text", "null": "null"}
            return f"{what!r} should be {' or '.join(words.get(kind, f'of type {kind}') for kind in kinds)}"
        case "minItems" | "minProperties":
            return f"{what!r} should not be empty"
        case "anyOf":
            return f"{what!r} should be `all` or a list of tables, such as [table1, table7]"
    return error.message


def check(plan) -> None:
    """Check every row of a Plan."""
    for alias in plan.aliases:
        if alias in plan.config["tables"]:
            raise UserError(f"config: alias {alias!r} is the name of a table")
    for row in plan.rows.values():
        check_run(row.run(0))
        check_counted(row)
        check_start(row)
        plan.compared(row)
        check_metrics(row)
        check_grids(row)
    check_times(plan)
    check_claims(plan)


def check_counted(row) -> None:
    """Check what a row that is counted has in place of data: their `shape`; and that no other row has one."""
    where = f"config: {row.where}"
    if not row.counted:
        if row.resolved.get("shape") is not None:
            raise UserError(f"{where}.shape: is for tables that are `counted`: the data say their sizes themselves")
        if "timing" in row.resolved:
            raise UserError(f"{where}.timing: is for tables that are `counted`; what is trained logs its seconds")
        return
    known, shape = SHAPES[row.kind], row.shape
    if not isinstance(shape, dict) or shape.keys() != set(known) or not all(type(n) is int for n in shape.values()):
        raise UserError(
            f"{where}.shape: should have sizes of {row.data['name']}, whole numbers: {', '.join(known)}. (A source "
            "that says them itself, by @sizes, needs none: docs/extending.md)"
        )
    _check_timing(f"{row.where}.timing", row)
    only_timed = all(set(row.inputs(section)) <= set(TIMED) for section in row.resolved.get("metrics", {}).values())
    if not only_timed and row.train.get("precision", "fp32") != "fp32":
        raise UserError(
            f"{where}.train.precision: updates are counted in single precision: set it to fp32, or leave this row only "
            f"metrics of {', '.join(TIMED)}"
        )
    if row.train.get("compile"):
        raise UserError(f"{where}.train.compile: updates are counted, and timed, without the compiler: set it to false")


def check_start(row) -> None:
    """Check that the row which a row starts from is one network, and is trained with every seed of its own."""
    start, where = row.start, f"config: {row.where}.start"
    if start is None:
        return
    name = f"{start.table}/{start.name}"
    if row.counted:
        raise UserError(f"{where}: is for rows that are trained, and this table is `counted`")
    if len(start.parts) > 1:
        raise UserError(
            f"{where}: {name} is trained in {len(start.parts)} blocks that share nothing, and blocks are cut from one "
            "network. Name a row that is trained end to end, or `sharing: joint`"
        )
    if layers_of(start.model) != layers_of(row.model):
        raise UserError(f"{where}: {name} has {layers_of(start.model)} layers, and this row {layers_of(row.model)}")
    if absent := [seed for seed in row.seeds if seed not in start.seeds]:
        raise UserError(
            f"{where}: {name} is not trained with seed {absent[0]} (seeds_at_most). Give this row the same "
            f"`seeds_at_most: {len(start.seeds)}`, or that one none"
        )


def _check_timing(where, row):
    """Hold `timing` against its keys; a batch of so few samples must still be one of the row's."""
    check_keys(where, row.resolved.get("timing", {}), TIMING)
    for key, value in row.timing.items():
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"config: {where}.{key}: {value!r} should be a whole number of at least 1")
    samples, accumulate = row.timing["samples_on_cpu"], row.train.get("accumulate", 1)
    if samples and min(samples, row.train["batch_size"]) % accumulate:
        raise UserError(f"config: {where}.samples_on_cpu: {samples} is no multiple of train.accumulate, {accumulate}")


def check_times(plan) -> None:
    """Check that rows which are timed together are timed alike. Raises UserError naming one that is not."""
    for first, *others in plan.timed_together.values():
        for row in others:
            if row.timing != first.timing:
                raise UserError(
                    f"config: {row.where}.timing: {row.timing} is not {first.timing}, that of {first.name}, with which "
                    "it is compared and timed"
                )


def check_run(run: dict) -> None:
    """Check one resolved run, as it stands in run.json."""
    where = f"tables.{run['table']}.rows.{run['row']}"
    source = check_section(f"{where}.data", "data", run["data"])
    model = component(f"{where}.model.name", "model", run["model"].get("name"))
    method = component(f"{where}.method.name", "method", run["method"].get("name"))
    check_section(f"{where}.method", "method", run["method"])
    _check_members(f"{where}.method", method, METHOD_MEMBERS, "see docs/extending.md")
    needs = class_constant(method.file, method.attribute, "needs")
    if not isinstance(needs, tuple) or not all(isinstance(member, str) for member in needs):
        raise UserError(f"config: {where}.method.name: `needs` of {method.file} must be a tuple of names, written out")
    _check_members(f"{where}.model", model, needs, f"method {run['method']['name']} needs them, see docs/extending.md")
    check_section(f"{where}.model", "model", run["model"])
    shards = {"shards": 1, **declared(source), **run["data"]}["shards"]
    if type(shards) is not int or shards < 1:
        raise UserError(f"config: {where}.data.shards must be a whole number of at least 1, and is {shards!r}")
    try:
        augmented = Settings.of(run["train"]).augment
    except UserError as error:
        raise UserError(f"config: {where}.{error}") from None
    if augmented and (returned := returned_set(run["data"])) != "ImageSet":
        raise UserError(
            f"config: {where}.train.augment: only an ImageSet is augmented, and {run['data']['name']} returns a "
            f"{returned}: set it to []"
        )
    settings = {**declared(method), **run["method"]}
    if "partition" in settings:
        component(f"{where}.method.partition", "partition", settings["partition"])
    try:
        num_layers, noise = layers_of(run["model"]), noise_of(noise_kind(model))
    except ValueError as error:
        raise UserError(f"config: {where}.model: {error}") from None
    try:
        _check_split(num_layers, settings, noise)
    except ValueError as error:
        raise UserError(f"config: {where}.method: {error}") from None


def check_grids(row) -> None:
    """Try the grids that a row's metrics name with the levels of its noise."""
    settings = row.method_settings
    if row.masks or not {"num_blocks", *LOUDNESS} <= settings.keys():
        return
    noise = noise_of(noise_kind(row.component("model"))).of_options(*(settings[key] for key in LOUDNESS))
    for column, section in row.metrics.items():
        sampling = section["sampling"]
        if "grid" in sampling:
            try:
                noise.levels(sampling.get("num_steps") or settings["num_blocks"], sampling["grid"])
            except ValueError as error:
                raise UserError(f"config: {row.where}.metrics.{column}.sampling.grid: {error}") from None


def _check_members(where, found, wanted, why):
    contract = f"{found.kind}s.base.{found.attribute}"
    if not derives(found.file, found.attribute, PACKAGE / f"{found.kind}s/base.py"):
        raise UserError(
            f"config: {where}.name: class {found.attribute} of {found.file} must derive from "
            f"diffusionblocks.{contract}, see docs/extending.md"
        )
    if absent := absent_members(found.file, found.attribute, wanted):
        raise UserError(
            f"config: {where}.name: class {found.attribute} of {found.file} lacks {', '.join(absent)} ({why})"
        )


def _check_split(num_layers, method, noise):
    """Try the split with what the method has of DiffusionBlocks' keywords; another method may have some of them."""
    if "num_blocks" in method and "layers_per_block" in method:
        split_layers(num_layers, method["num_blocks"], method["layers_per_block"])
    if {"partition", "num_blocks", "overlap", *LOUDNESS} <= method.keys():
        noise = noise.of_options(*(method[key] for key in LOUDNESS))
        interval(boundaries(method["num_blocks"], method["partition"], noise), 0, method["overlap"], noise)
    if "process" in method:
        check_process(method["process"], num_layers)

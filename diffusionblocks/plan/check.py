"""Every check of the configuration that is possible before a job starts; each failure is one UserError naming the key.

The frame is held against workflow/schemas/config.schema.yaml; the sections meet the constructors they go to, as the
source states them, and splits are tried. Needs nothing beyond the standard library and what comes with Snakemake.
"""

import difflib
from pathlib import Path

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.noise import NOISES
from diffusionblocks.diffusion.partition import boundaries, interval, split_layers
from diffusionblocks.evaluation.inputs import INPUTS, served
from diffusionblocks.plan.resolve import (
    LIKELIHOOD,
    aliases,
    component_file,
    components,
    continues,
    data_kind,
    data_sources,
    extractor,
    from_samples,
    method_settings,
    metric_inputs,
    metrics,
    run,
    sample_defaults,
    seeds,
    tables,
    trained,
)
from diffusionblocks.plan.source import (
    PACKAGE,
    Choice,
    absent_members,
    class_constant,
    class_keywords,
)

# What training and evaluation will ask of a method, hours later; what a method asks of a network stands in its `needs`.
METHOD_MEMBERS = ("loss", "predict")


def check_frame(config, schema_path):
    """Check keys and kinds of values against the JSON schema, and fill in its defaults."""
    import jsonschema  # both come with Snakemake; jobs, which check one run alone, do without
    import yaml

    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    for key, about in schema["properties"].items():
        if "default" in about:
            config.setdefault(key, about["default"])
    if isinstance(config.get("seeds"), list):  # `--config seeds=[0,1]` on the command line arrives as text
        config["seeds"] = [int(seed) if str(seed).isdigit() else seed for seed in config["seeds"]]
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
        raise UserError(f"config: {where}: unknown key {key!r}{_suggest(key, known)} (keys here: {', '.join(known)})")
    if error.validator == "not":
        raise UserError(f"config: {where}: {error.instance!r} is the name of a rule, choose another")
    hint = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)" if "number" in str(error.validator_value) else ""
    raise UserError(f"config: {where}: {error.message}{hint}")


def check(config):
    """Check every row of the configured scale."""
    for table in config["tables"]:
        _check_like(config, table)
    if not tables(config):
        raise UserError(f"config: no table has settings for scale {config['scale']!r}")
    for alias in aliases(config):
        if alias in config["tables"]:
            raise UserError(f"config: alias {alias!r} is the name of a table")
    for table in tables(config):
        for row in config["tables"][table]["rows"]:
            if trained(config, table, row) == (table, row):
                against = config["tables"][table]["rows"][row].get("against")
                if against is not None and against not in config["tables"][table]["rows"]:
                    raise UserError(
                        f"config: tables.{table}.rows.{row}.against: no row {against!r}"
                        f"{_suggest(against, config['tables'][table]['rows'])}"
                    )
                resolved = run(config, table, row, seeds(config, table, row)[0])
                check_run(resolved)
                _check_metrics(metrics(config, table, row), resolved, extractor(config, table, row))


def _check_like(config, table):
    """A table's `like` must lead from row to row to an end, or it is no table of any scale and would go unnoticed."""
    rows = [f"{other}/{row}" for other, entry in config["tables"].items() for row in entry["rows"]]
    seen = [table]
    while like := config["tables"][seen[-1]].get("like"):
        where = f"config: tables.{seen[-1]}.like: {like!r}"
        if like not in rows:
            raise UserError(f"{where} is not <table>/<row>{_suggest(like, rows)}")
        other = like.partition("/")[0]
        if other in seen:
            raise UserError(f"{where} leads back to {other}")
        seen.append(other)


def check_run(run):
    """Check one resolved run, as it stands in run.json."""
    where = f"tables.{run['table']}.rows.{run['row']}"
    _check_section(f"{where}.data", run["data"], data_sources())
    _check_component(f"{where}.method", run, "method")
    _check_component(f"{where}.model", run, "model")
    _check_latents(where, run)
    settings = class_keywords(PACKAGE / "training/settings.py", "Settings")
    _check_keys(f"{where}.train", run["train"], settings)
    for key in ("batch_size", "lr"):
        if key not in run["train"]:
            raise UserError(f"config: {where}.train needs {key}")
    if ("steps" in run["train"]) == ("epochs" in run["train"]):
        raise UserError(f"config: {where}.train needs exactly one of steps and epochs")
    if run["train"]["batch_size"] % run["train"].get("accumulate", 1):
        raise UserError(f"config: {where}.train.accumulate does not divide batch_size {run['train']['batch_size']}")
    if "num_layers" not in run["model"]:
        raise UserError(f"config: {where}.model needs num_layers: blocks are cut from it")
    if run["train"].get("min_lr", 0) > run["train"]["lr"]:
        raise UserError(f"config: {where}.train.min_lr {run['train']['min_lr']} is above lr {run['train']['lr']}")
    if run["train"].get("warmup_steps", 0) > run["train"].get("steps", float("inf")):
        raise UserError(f"config: {where}.train.warmup_steps exceeds steps {run['train']['steps']}")
    try:
        _check_split(run["model"], method_settings(run))
    except ValueError as error:
        raise UserError(f"config: {where}.method: {error}") from None


def _encoded(data):
    """Whether a data section's images become latents, by jobs that share the work."""
    return "shards" in data_sources()[data["name"]]


def _check_latents(where, run):
    if data_kind(run["data"]["name"]) == "text" and run["train"].get("augment"):
        raise UserError(f"config: {where}.train.augment: texts are not augmented, only [] is possible")
    if not _encoded(run["data"]):
        return
    if run["data"].get("shards", 1) < 1:
        raise UserError(f"config: {where}.data.shards must be at least 1, and is {run['data']['shards']}")
    if run["train"].get("augment"):
        raise UserError(
            f"config: {where}.train.augment: {run['data']['name']} becomes latents, of which only [] is possible"
        )


def _check_split(model, method):
    """Try the split with what the method has of DiffusionBlocks' keywords; another method may have some of them."""
    if "num_blocks" in method:
        split_layers(model["num_layers"], method["num_blocks"], method.get("layers_per_block"))
    if "partition" in method:
        kind = class_constant(component_file("model", model["name"]), "Model", "noise_kind", "edm")
        loudness = {key: method[key] for key in ("p_mean", "sigma_min") if key in method and kind == "edm"}
        noise = NOISES[kind](**loudness)
        interval(boundaries(method["num_blocks"], method["partition"], noise), 0, method.get("overlap", 0), noise)
    if method.get("process", "discrete") != "discrete" and model["num_layers"] != 1:  # NoProp's
        raise ValueError(f"process {method['process']} has one layer for all times, and model.num_layers is not 1")
    if not method.get("target_norm", 1) > 0:
        raise ValueError(f"target_norm must be above 0, and is {method['target_norm']}")


def _check_component(where, run, kind):
    name = run[kind].get("name")
    if component_file(kind, str(name)) is None:
        there = sorted(path.stem for path in (PACKAGE / f"{kind}s").glob("*.py") if path.stem != "__init__")
        raise UserError(
            f"config: {where}.name: no {kind} {name!r}{_suggest(name, there)} "
            f"(there are {', '.join(there)}; a name with a dot is a module that can be imported from here)"
        )
    keywords = class_keywords(component_file(kind, name), kind.capitalize())
    if keywords is None:
        raise UserError(f"config: {where}.name: {component_file(kind, name)} has no class {kind.capitalize()}")
    needed, why = METHOD_MEMBERS, "see docs/extending.md"
    if kind == "model":
        method = run["method"]["name"]
        needed = class_constant(component_file("method", method), "Method", "needs")
        why = f"method {method} needs them, see docs/extending.md"
    if absent := absent_members(component_file(kind, name), kind.capitalize(), needed):
        there = f"class {kind.capitalize()} of {component_file(kind, name)}"
        raise UserError(f"config: {where}.name: {there} lacks {', '.join(absent)} ({why})")
    _check_keys(where, run[kind], keywords)


def _check_metrics(sections, run, extractor):
    where = f"tables.{run['table']}.rows.{run['row']}.metrics"
    kind = data_kind(run["data"]["name"])
    known = {
        name: {**keywords, "sampling": None, "teacher": None, "beside": False}
        for name, keywords in components("metric").items()
    }
    method = method_settings(run)
    for column, metric in sections.items():
        _check_section(f"{where}.{column}", metric, known)
        inputs = metric_inputs(metric["name"])
        if foreign := sorted(name for name in inputs if name not in INPUTS or kind not in INPUTS[name].kinds):
            raise UserError(
                f"config: {where}.{column}: {metric['name']} needs {', '.join(foreign)}, and {kind} do not have that"
            )
        _check_sampling(f"{where}.{column}", metric, run)
        if served("teacher").intersection(inputs):
            if not continues(run):
                raise UserError(
                    f"config: {where}.{column}: {metric['name']} judges what follows a prompt, and model "
                    f"{run['model']['name']} writes whole texts"
                )
            if "teacher" not in metric:
                raise UserError(f"config: {where}.{column}: {metric['name']} needs a `teacher: {{name: ...}}`")
            _check_section(f"{where}.{column}.teacher", metric["teacher"], components("teacher"))
        if "features" in inputs:
            if extractor is None:
                raise UserError(
                    f"config: {where}.{column}: {metric['name']} needs an `extractor`, of the row or its table"
                )
            extractor_where = where.removesuffix("metrics") + "extractor"
            _check_section(extractor_where, extractor, components("extractor"))
            if extractor["name"] == "small_cnn" and _encoded(run["data"]):
                raise UserError(
                    f"config: {extractor_where}: small_cnn learns from images, {run['data']['name']} has latents"
                )
        num_steps = metric["sampling"].get("num_steps")
        if num_steps is not None and not isinstance(num_steps, int):
            raise UserError(f"config: {where}.{column}.sampling.num_steps: {num_steps!r} should be an int")
        if num_steps is not None and method.get("process") == "discrete":
            raise UserError(
                f"config: {where}.{column}.sampling.num_steps: a discrete process has a step for each layer"
            )
        if num_steps is not None and num_steps < method.get("num_blocks", 1):
            raise UserError(
                f"config: {where}.{column}.sampling.num_steps is {num_steps}: with fewer steps than the "
                f"{method.get('num_blocks', 1)} blocks some block would never act"
            )


def _check_sampling(where, metric, run):
    """A metric's `sampling` holds keywords of the function of the method that serves it."""
    inputs, name = metric_inputs(metric["name"]), run["method"]["name"]
    generated = from_samples(metric["name"])
    function = next((function for function in ("predict", "bound") if served(function).intersection(inputs)), None)
    if generated:
        function = "extend" if continues(run) else "sample"
    if function is None:  # computed from the network itself, such as what an update costs
        _check_keys(f"{where}.sampling", metric["sampling"], {})
        return
    file = component_file("method", name)
    if absent_members(file, "Method", (function,)):
        raise UserError(f"config: {where}: {metric['name']} needs `{function}`, which method {name} does not have")
    if function in ("predict", "bound") and (function == "bound") != _masks(run):
        masks = "masks tokens" if _masks(run) else "does not mask tokens"
        raise UserError(f"config: {where}: {metric['name']} is not for {run['model']['name']}, which {masks}")
    keywords = LIKELIHOOD if function == "bound" else class_keywords(file, "Method", function)
    if metric["sampling"].get("hand_off") == "hard" and data_kind(run["data"]["name"]) != "text":
        raise UserError(f"config: {where}.sampling.hand_off: hard is for texts")
    _check_keys(f"{where}.sampling", metric["sampling"], keywords | (sample_defaults(run) if generated else {}))
    if function == "bound" and metric["sampling"]["passes"] < 2:
        raise UserError(f"config: {where}.sampling.passes must be at least 2, and is {metric['sampling']['passes']}")
    if generated:
        _check_generation(f"{where}.sampling", metric["sampling"], run)


def _masks(run):
    return class_constant(component_file("model", run["model"]["name"]), "Model", "noise_kind", "edm") == "masking"


def _check_generation(where, sampling, run):
    for key in sample_defaults(run):
        if sampling[key] < 1:
            raise UserError(f"config: {where}.{key} must be at least 1, and is {sampling[key]}")
    if data_kind(run["data"]["name"]) == "text" and sampling["sets"] != 1:
        raise UserError(f"config: {where}.sets: of texts there is one set")
    if not 0 < sampling.get("top_p", 1) <= 1:
        raise UserError(f"config: {where}.top_p must lie above 0 and be at most 1, and is {sampling['top_p']}")
    if continues(run):
        seq_len = {**data_sources()[run["data"]["name"]], **run["data"]}["seq_len"]
        if sampling["prompt_len"] + sampling["new_tokens"] > seq_len:
            raise UserError(
                f"config: {where}: prompt_len {sampling['prompt_len']} and new_tokens {sampling['new_tokens']} exceed "
                f"the {seq_len} tokens of a sequence (data.seq_len)"
            )
    if sampling["shards"] > sampling["num_samples"] * sampling["sets"]:
        raise UserError(f"config: {where}.shards is {sampling['shards']}: more jobs than samples")
    if _masks(run):
        for key in ("guidance", "solver", "grid"):
            if key in sampling:
                raise UserError(f"config: {where}.{key}: is for noise of images, and this model masks tokens")
    if sampling.get("guidance", 1) != 1:
        file = component_file("model", run["model"]["name"])
        if absent_members(file, "Model", ("unconditional",)):
            raise UserError(f"config: {where}.guidance: class Model of {file} lacks `unconditional`; set it to 1")


def _check_section(where, section, known):
    """Check a section's name against `known`, {name: {keyword: default}}, and its keys against that entry."""
    name = section.get("name")
    if name not in known:
        raise UserError(
            f"config: {where}.name: {name!r} is not one of {', '.join(sorted(known))}{_suggest(name, known)}"
        )
    _check_keys(where, section, known[name])


def _check_keys(where, section, keywords):
    for key, value in section.items():
        if key == "name":
            continue
        if key not in keywords:
            raise UserError(
                f"config: {where}: unknown key {key!r}{_suggest(key, keywords)} "
                f"(keys here: {', '.join(sorted(keywords)) or 'none'})"
            )
        default = keywords[key]
        if isinstance(default, Choice):
            if value not in default.values:
                raise UserError(f"config: {where}.{key}: {value!r} is not one of {', '.join(default.values)}")
        elif not _same_kind(value, default):
            hint = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)" if isinstance(default, float) else ""
            raise UserError(f"config: {where}.{key}: {value!r} should be of type {type(default).__name__}{hint}")


def _same_kind(value, default):
    if default is None:  # anything goes
        return True
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _suggest(word, known):
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

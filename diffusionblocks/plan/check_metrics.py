"""Whether a row's metrics can be computed from what it trains and generates, before any of it is made."""

from diffusionblocks.base.files import UserError
from diffusionblocks.base.source import function_returns, returned_set
from diffusionblocks.diffusion.processes import check_process
from diffusionblocks.evaluation.inputs import FEATURES, OFFERED, TIMED_CHAIN, prompts, served, source_of
from diffusionblocks.evaluation.metric import check_declaration
from diffusionblocks.plan.row import GENERATED, LIKELIHOOD, Row
from diffusionblocks.plan.sections import check_keys, check_section, component, declared
from diffusionblocks.plan.source import call_keyword, class_keywords, decorator_keywords
from diffusionblocks.training.settings import CHOICES

WEIGHTS = ("averaged", "last")  # of a training with `ema`, those that generate
GENERATION = {"weights": None, "precision": None, "compile": False}  # keys of any `sampling` that generates
# Keys of a column beside its metric's keywords.
COLUMN = {"sampling": None, "teacher": None, "extractor": None, "beside": False}


def check_metrics(row: Row) -> None:
    """Check every column of a row. Raises UserError naming the column and the key."""
    for column, section in row.metrics.items():
        where = f"{row.where}.metrics.{column}"
        if "name" not in section:  # perhaps a null below has taken it, and a scale's layer adds to what is gone
            layers = [(path, (own.get("metrics") or {}).get(column)) for path, own in row.layers]
            said = [".".join(path) for path, own in layers if own is not None and "name" not in own]
            raise UserError(
                f"config: {where}: has no `name` of a metric. Give one, or, to be rid of the column, put "
                f"`metrics: {{{column}: null}}` at {' and '.join(said)}"
            )
        _check(where, section, row)


def _check(where, section, row):
    found = component(f"{where}.name", "metric", section.get("name"))
    check_keys(where, section, declared(found) | COLUMN)
    name, about = section["name"], decorator_keywords(found.file, found.attribute, "metric")
    try:
        check_declaration(found.file, name, about, declared(found))
    except UserError as error:
        raise UserError(f"config: {where}: {error}") from None
    inputs = set(row.inputs(section))
    try:
        source = source_of(sorted(inputs), row.kind)
    except ValueError as error:
        raise UserError(f"config: {where}: {found.file}: metric {name}: {error}") from None
    if (source == "count") != row.counted:
        why = "needs what is trained, and this table is" if row.counted else "is for tables that are"
        raise UserError(f"config: {where}: {name} {why} `counted`")
    for key, served_by in (("teacher", served("teacher")), ("extractor", set(FEATURES))):
        if key in section and not served_by & inputs:
            raise UserError(f"config: {where}.{key}: {name} is computed without one. Remove it.")
    _check_sampling(where, section, row)
    if served("teacher") & inputs:
        if not row.continues:
            raise UserError(
                f"config: {where}: {name} judges what follows a prompt, and model {row.model['name']} writes whole "
                "texts"
            )
        if "teacher" not in section:
            raise UserError(f"config: {where}: {name} needs a `teacher: {{name: ...}}`")
        judge = check_section(f"{where}.teacher", "teacher", section["teacher"])
        gives = call_keyword(judge.file, judge.attribute, "Teacher", "gives") or OFFERED.values()
        if absent := {OFFERED[given] for given in inputs & OFFERED.keys()} - set(gives):
            raise UserError(
                f"config: {where}.teacher: {section['teacher']['name']} has no {', '.join(sorted(absent))}, which "
                f"{name} needs. Take another teacher."
            )
    if inputs.intersection(FEATURES):
        said = f"{where if 'extractor' in section else row.where}.extractor"
        judge = section.get("extractor", row.extractor)
        if judge is None:
            raise UserError(f"config: {where}: {name} needs an `extractor`, its own or that of the row or its table")
        chosen = check_section(said, "extractor", judge)
        if function_returns(chosen.file, chosen.attribute) == "Trained" and returned_set(row.data) == "LatentSet":
            raise UserError(f"config: {said}: {chosen.name} is trained on pixels, and {row.data['name']} has latents")
    _check_least(where, section, row, about.get("least") or {}, declared(found))
    num_steps, method = section["sampling"].get("num_steps"), row.method_settings
    if num_steps is None:
        return
    if not isinstance(num_steps, int):
        raise UserError(f"config: {where}.sampling.num_steps: {num_steps!r} should be an int")
    if "process" in method:
        try:
            check_process(method["process"], row.model["num_layers"], num_steps)
        except ValueError as error:
            raise UserError(f"config: {where}.sampling: {error}") from None
    if num_steps < method.get("num_blocks", 1):
        raise UserError(
            f"config: {where}.sampling.num_steps is {num_steps}: with fewer steps than the "
            f"{method.get('num_blocks', 1)} blocks some block would never act"
        )


def _check_least(where, section, row, least, settings):
    """A metric says how much it needs, of what is generated and of its own keywords."""
    sampling, there = section["sampling"], {**settings, **section}
    if GENERATED & set(row.inputs(section)):
        there["samples"] = sampling["num_samples"]
        there["tokens"] = sampling.get("new_tokens") or {**declared(row.component("data")), **row.data}.get("seq_len")
        there["references"] = prompts(sampling)
    words = {
        "samples": "sampling.num_samples",
        "tokens": "sampling.new_tokens" if "new_tokens" in sampling else "data.seq_len",
        "references": "sampling: num_samples by continuations, the number of real texts to compare with,",
    }
    for key, value in least.items():
        if there.get(key) is not None and there[key] < value:
            raise UserError(
                f"config: {where}.{words.get(key, key)} is {there[key]}: {section['name']} needs at least {value}"
            )


def _check_sampling(where, section, row):
    """A metric's `sampling` holds keywords of the function of the method that serves it."""
    inputs, sampling = set(row.inputs(section)), section["sampling"]
    generated = GENERATED & inputs
    function = next((function for function in ("predict", "bound") if served(function) & inputs), None)
    if {"chain", *TIMED_CHAIN} & inputs:
        function = "predict"
    if generated:
        function = "extend" if row.continues else "sample"
    if function is None:  # computed from the network itself, such as what an update costs
        check_keys(f"{where}.sampling", sampling, {})
        return
    if not row.offers("method", function):
        raise UserError(
            f"config: {where}: {section['name']} needs `{function}`, which method {row.method['name']} does not have"
        )
    if function in ("predict", "bound") and (function == "bound") != row.masks:
        masks = "masks tokens" if row.masks else "does not mask tokens"
        raise UserError(f"config: {where}: {section['name']} is not for {row.model['name']}, which {masks}")
    method = row.component("method")
    known = LIKELIHOOD if function == "bound" else class_keywords(method.file, method.attribute, function)
    if sampling.get("hand_off") == "hard" and row.kind != "text":
        raise UserError(f"config: {where}.sampling.hand_off: hard is for texts")
    check_keys(f"{where}.sampling", sampling, known | (row.sample_defaults | GENERATION if generated else {}))
    if function == "bound" and sampling["passes"] < 2:
        raise UserError(f"config: {where}.sampling.passes must be at least 2, and is {sampling['passes']}")
    for kind in ("solver", "grid"):
        if kind in sampling:
            component(f"{where}.sampling.{kind}", kind, sampling[kind])
    if generated:
        _check_generation(f"{where}.sampling", sampling, row)


def _check_generation(where, sampling, row):
    if (weights := sampling.get("weights", WEIGHTS[0])) not in WEIGHTS:
        raise UserError(f"config: {where}.weights: {weights!r} is not one of {', '.join(WEIGHTS)}")
    if weights == "last" and row.train.get("ema") is None:
        raise UserError(f"config: {where}.weights: without train.ema there are none but the last weights; leave it out")
    precisions = CHOICES["precision"]
    if (precision := sampling.get("precision", precisions[0])) not in precisions:
        raise UserError(f"config: {where}.precision: {precision!r} is not one of {', '.join(precisions)}")
    if sampling.get("compile") and row.continues:
        raise UserError(
            f"config: {where}.compile: is for whole samples, and {row.model['name']} writes token by token, each a "
            "length of its own to compile; leave it out"
        )
    for key in row.sample_defaults:
        if sampling[key] < 1:
            raise UserError(f"config: {where}.{key} must be at least 1, and is {sampling[key]}")
    if row.kind == "text" and sampling["sets"] != 1:
        raise UserError(f"config: {where}.sets: of texts there is one set")
    if not 0 < sampling.get("top_p", 1) <= 1:
        raise UserError(f"config: {where}.top_p must lie above 0 and be at most 1, and is {sampling['top_p']}")
    if row.continues:
        data = {**declared(row.component("data")), **row.data}
        seq_len, test_size = data.get("seq_len"), data.get("test_size")
        if test_size and prompts(sampling) > test_size:
            raise UserError(
                f"config: {where}: num_samples {sampling['num_samples']} by continuations {sampling['continuations']} "
                f"needs {prompts(sampling)} prompts, and there are at most {test_size} test sequences (data.test_size)"
            )
        # A source need not have the keyword, and only its data set knows how long its sequences are.
        if seq_len is not None and sampling["prompt_len"] + sampling["new_tokens"] > seq_len:
            raise UserError(
                f"config: {where}: prompt_len {sampling['prompt_len']} and new_tokens {sampling['new_tokens']} exceed "
                f"the {seq_len} tokens of a sequence (data.seq_len)"
            )
    if sampling["shards"] > sampling["num_samples"] * sampling["sets"]:
        raise UserError(f"config: {where}.shards is {sampling['shards']}: more jobs than samples")
    if row.masks:
        for key in ("guidance", "solver", "grid"):
            if key in sampling:
                raise UserError(f"config: {where}.{key}: is for noise of images, and this model masks tokens")
    if sampling.get("guidance", 1) != 1 and not row.offers("model", "unconditional"):
        file = row.component("model").file
        raise UserError(f"config: {where}.guidance: class Model of {file} lacks `unconditional`; set it to 1")

"""Every configuration that cannot work is refused before a job starts, by one message that names the key."""

import copy
import math
import os
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Checkout

from diffusionblocks.base.files import UserError
from diffusionblocks.plan.check import check, check_frame, check_run
from diffusionblocks.plan.configuration import complete
from diffusionblocks.plan.plan import Plan

CONFIG = complete(yaml.safe_load((ROOT / "config.yaml").read_text()))


def edited(**changes):
    """The shipped configuration with values put in under dotted keys (`tables.table1.demo`, dots written as __)."""
    config = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *way, last = path.split("__")
        section = config
        for key in way:
            section = section.setdefault(key, {})
        section[last] = value
    return config


ROW = "tables__table1__rows__vit_diffusionblocks"
DIT = "tables__table2__rows__cifar10_dit_diffusionblocks"
ROW4 = "tables__table4__rows__lm1b_ar_diffusionblocks"


def refusal(config):
    """The message with which Snakemake would stop before any job."""
    with pytest.raises(UserError) as refused:
        check_frame(config)
        check(Plan(config))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def sampling(**keywords):
    return {"name": "accuracy", "sampling": keywords}


BAD = [
    # The frame
    ({"tables__table1__demo__train__stpes": 5}, ["table1.rows.vit_end_to_end.train", "stpes", "steps"]),
    ({"tables__table1__demo__train__lr": "1e-3"}, ["train.lr", "1e-3", "0.001"]),
    ({"tables__table1__rows__none": None}, ["tables.table1.rows.none"]),
    # Names
    ({f"{ROW}__method__name": "diffusionblock"}, ["method.name", "did you mean 'diffusionblocks'", "end_to_end"]),
    ({f"{ROW}__method__name": "no.such.module"}, ["method.name", "no.such.module"]),
    ({"tables__table1__demo__data__name": "digit"}, ["data.name", "digit", "did you mean 'digits'"]),
    ({f"{ROW}__metrics__column": {"name": "acuracy"}}, ["metrics.column", "acuracy", "did you mean 'accuracy'"]),
    # Keywords
    ({f"{ROW}__method__num_bloks": 3}, ["vit_diffusionblocks.method", "num_bloks", "did you mean 'num_blocks'"]),
    ({f"{ROW}__method__overlpa": 0.1}, ["overlpa", "did you mean 'overlap'"]),
    ({f"{ROW}__method__overlap": "1e-2"}, ["method.overlap", "1e-2", "1.0e-3"]),
    ({f"{ROW}__method__num_blocks": True}, ["method.num_blocks", "True", "int"]),
    ({f"{ROW}__method__partition": "log-uniform"}, ["method.partition", "log-uniform", "log_uniform"]),
    ({"tables__table1__model__nmu_heads": 4}, ["model", "nmu_heads", "did you mean 'num_heads'"]),
    ({"tables__table1__demo__data__split": "valid"}, ["data.split", "valid", "validation"]),
    ({f"{ROW}__metrics__column": {"name": "accuracy", "top": 5}}, ["metrics.column", "top"]),
    # Splits
    (
        {"tables__table1__demo__model__num_layers": 13, f"{ROW}__method__layers_per_block": [4, 4, 4]},
        ["vit_diffusionblocks.method", "layers_per_block [4, 4, 4]", "12, not 13"],
    ),
    ({f"{ROW}__method__num_blocks": 7}, ["vit_diffusionblocks.method", "num_blocks is 7", "6 layers"]),
    ({f"{ROW}__method__num_blocks": 4}, ["6 layers", "4 equal blocks", "layers_per_block"]),
    ({f"{ROW}__method__num_blocks": 0}, ["num_blocks is 0"]),
    ({f"{ROW}__method__layers_per_block": [3, 3]}, ["layers_per_block [3, 3]", "2 blocks, not 3"]),
    ({f"{ROW}__method__layers_per_block": [6, 0, 0]}, ["layers_per_block [6, 0, 0]", "without layers"]),
    (
        {f"{ROW}__metrics__chain": {"name": "accuracy_per_step", "sampling": {"num_steps": 2}}},
        ["metrics.chain", "num_steps is 2", "3 blocks"],
    ),
    ({"tables__table1__demo__model__num_layers": 0}, ["vit_end_to_end.model.num_layers is 0", "at least 1"]),
    ({"tables__table1__demo__model__num_layers": 6.0}, ["vit_end_to_end.model.num_layers", "6.0", "int"]),
    # NoProp
    ({"tables__table6__rows__noprop_ct__demo__model__num_layers": 3}, ["noprop_ct.method", "continuous", "one layer"]),
    (
        {"tables__table6__rows__noprop_dt__metrics": {"accuracy": {"sampling": {"num_steps": 4}}}},
        ["noprop_dt.metrics.accuracy.sampling", "num_steps is 4", "a step for each of 3 layers"],
    ),
    (
        {"tables__table6__rows__noprop_fm__demo__metrics": {"accuracy": {"sampling": {"num_steps": 0}}}},
        ["noprop_fm.metrics.accuracy.sampling.num_steps is 0"],
    ),
    (
        {"tables__table6__model__embedding": "prototypes"},
        ["model.embedding", "prototypes", "one_hot, learned, prototype"],
    ),
    (
        {"tables__table1__rows__vit_forward_forward__method__variant": "mended"},
        ["method.variant", "as_released, fixed"],
    ),
    # Generation
    ({f"{DIT}__sampling": {"num_step": 4}}, ["sampling", "num_step", "did you mean 'num_steps'"]),
    ({f"{DIT}__sampling": {"num_samples": 0}}, ["sampling.num_samples", "at least 1", "is 0"]),
    ({f"{DIT}__sampling": {"num_samples": 4e4}}, ["sampling.num_samples", "40000.0", "int"]),
    ({f"{DIT}__sampling": {"sets": 0}}, ["sampling.sets", "at least 1"]),
    ({f"{DIT}__sampling": {"num_samples": 40, "sets": 2, "shards": 81}}, ["sampling.shards", "81", "samples"]),
    ({f"{DIT}__sampling": {"num_steps": 2}}, ["sampling.num_steps", "2", "3 blocks"]),
    ({f"{DIT}__sampling": {"solver": "huen"}}, ["sampling.solver", "huen", "euler, heun"]),
    ({f"{DIT}__sampling": {"grid": "karass"}}, ["sampling.grid", "karass", "did you mean 'karras'"]),
    (
        {f"{DIT}__sampling": {"grid": "own.choices.rising"}},
        ["fid_test.sampling.grid", "own.choices.rising", "that fall from 80"],
    ),
    ({f"{ROW}__metrics__column": sampling(grid="own.choices.short")}, ["column.sampling.grid", "not 3 that fall"]),
    ({f"{DIT}__sampling": []}, ["cifar10_dit_diffusionblocks.sampling", "[]"]),
    ({f"{DIT}__model": {"name": "vit", "num_layers": 6}}, ["guidance", "unconditional", "models/vit.py"]),
    ({f"{DIT}__extractor": {"name": "smal_cnn"}}, ["diffusionblocks.extractor.name", "did you mean 'small_cnn'"]),
    ({f"{DIT}__extractor": {"step": 5}}, ["diffusionblocks.extractor", "step", "did you mean 'steps'"]),
    (
        {f"{DIT}__metrics": {"fid_test": {"extractor": {"name": "inception_v3_claen"}}}},
        ["diffusionblocks.metrics.fid_test.extractor.name", "did you mean 'inception_v3_clean'"],
    ),
    (
        {f"{DIT}__metrics": {"fid_test": {"extractor": {"name": "small_cnn", "step": 5}}}},
        ["diffusionblocks.metrics.fid_test.extractor", "step", "did you mean 'steps'"],
    ),
    (
        {f"{DIT}__metrics": {"fid_test": {"extractor": {"steps": 5}}}},
        ["diffusionblocks.metrics.fid_test.extractor.name", "needs the name of a"],
    ),
    ({f"{DIT}__metrics": {"fid_test": {"extractor": "small_cnn"}}}, ["metrics.fid_test.extractor", "small_cnn"]),
    (
        {f"{DIT}__metrics": {"layer_evaluations": {"extractor": {"name": "small_cnn"}}}},
        ["diffusionblocks.metrics.layer_evaluations.extractor", "computed without one", "Remove it"],
    ),
    (
        {f"{DIT}__metrics": {"fid_test": {"teacher": {"name": "small_lm"}}}},
        ["diffusionblocks.metrics.fid_test.teacher", "computed without one", "Remove it"],
    ),
    (
        {f"{ROW4}__metrics": {"next_token_loss": {"name": "next_token_loss", "extractor": {"name": "small_cnn"}}}},
        ["metrics.next_token_loss.extractor", "computed without one", "Remove it"],
    ),
    (
        {f"{DIT}__metrics": {"fid_tset": {"extractor": {"name": "small_cnn"}}}},
        ["metrics.fid_tset", "no `name`", "`metrics: {fid_tset: null}` at tables.table2.rows.cifar10_dit_diffusion"],
    ),
    ({f"{DIT}__metrics": {"fid_test": {"reference": "tets"}}}, ["metrics.fid_test.reference", "tets", "test, train"]),
    ({f"{DIT}__method": {"name": "end_to_end"}}, ["model", "models/dit.py", "lacks end_to_end_loss"]),
    ({"tables__table4__metrics__accuracy": {"name": "accuracy"}}, ["metrics.accuracy", "logits", "text"]),
    ({"tables__table1__metrics__bpc": {"name": "bpc"}}, ["metrics.bpc", "nelbo", "images"]),
    ({"tables__table4__metrics__bpc": {"name": "bpc"}}, ["metrics.bpc", "bound", "end_to_end"]),
    ({"tables__table4__metrics__ppl": {"name": "generative_perplexity"}}, ["metrics.ppl", "teacher"]),
    (
        {"tables__table4__demo__metrics__mauve__teacher": {"name": "small_ml"}},
        ["mauve.teacher.name", "small_ml", "small_lm"],
    ),
    ({"tables__table3__metrics__loss": {"name": "next_token_loss"}}, ["metrics.loss", "masked_diffusion", "masks"]),
    ({f"{ROW4}__metrics__bpc": {"name": "bpc"}}, ["metrics.bpc", "autoregressive", "does not mask"]),
    ({"tables__table3__sampling": {"solver": "heun"}}, ["sampling.solver", "masks"]),
    ({"tables__table3__sampling": {"grid": "karras"}}, ["sampling.grid", "masks"]),
    ({"tables__table4__demo__sampling": {"num_samples": 20, "new_tokens": 500}}, ["new_tokens", "500", "32"]),
    ({"tables__table4__demo__sampling": {"num_samples": 20, "sets": 3}}, ["sampling.sets", "one set"]),
    ({"tables__table4__rows__lm1b_ar_end_to_end__sampling": {"top_p": 0.0}}, ["top_p", "above 0"]),
    ({"tables__table3__metrics__bpc": {"name": "bpc", "sampling": {"passes": 1}}}, ["bpc.sampling.passes", "2"]),
    ({"tables__table3__metrics__speed": {"name": "relative_speed"}}, ["metrics.speed", "evaluations", "text"]),
    (
        {"tables__table3__metrics__mauve": {"name": "mauve", "teacher": {"name": "small_lm"}}},
        ["metrics.mauve", "masked_diffusion", "prompt"],
    ),
    (
        {f"{ROW}__metrics__accuracy": {"name": "accuracy", "sampling": {"hand_off": "hard"}}},
        ["accuracy.sampling.hand_off", "texts"],
    ),
    ({"tables__table3__sampling": {"prompt_len": 3}}, ["sampling", "prompt_len"]),
    ({"tables__table3__metrics__bpc": {"name": "bpc", "sampling": {"pass": 3}}}, ["bpc.sampling", "pass", "passes"]),
    ({"tables__table3__demo__train__augment": ["flip"]}, ["train.augment: only an ImageSet", "returns a TextSet"]),
    (
        {"tables__table3__method": {"name": "diffusionblocks", "num_blocks": 1, "partition": "log_uniform"}},
        ["log_uniform"],
    ),
    ({"tables__table1__metrics__fid": {"name": "fid"}}, ["metrics.fid", "end_to_end", "does not have"]),
    (
        {f"{ROW}__metrics__kid": {"name": "kid", "sampling": {"num_samples": 9}}},
        ["vit_diffusionblocks.metrics.kid", "needs an `extractor`"],
    ),
    ({f"{DIT}__sampling": {"weights": "latest"}}, ["fid_test.sampling.weights: 'latest' is not one of averaged, last"]),
    ({f"{DIT}__sampling": {"weights": "last"}, f"{DIT}__train__ema": None}, ["sampling.weights: without train.ema"]),
    ({f"{DIT}__sampling": {"precision": "fp16"}}, ["fid_test.sampling.precision: 'fp16' is not one of fp32, bf16"]),
    ({f"{DIT}__sampling": {"compile": "yes"}}, ["fid_test.sampling.compile: 'yes' should be of type bool"]),
    ({f"{ROW4}__method__sigma_max": 0.001}, ["blocks.method", "between 0 and sigma_max (0.001)", "is 0.002"]),
    ({f"{ROW4}__method__sigma_min": 70.0, f"{ROW4}__method__p_mean": -5.0}, ["hardly a draw falls", "move p_mean"]),
    ({"tables__table3__rows__mdm_diffusionblocks__method__sigma_max": 10.0}, ["masking noise takes none", "sigma_max"]),
    ({f"{ROW4}__sampling": {"end": "drawn"}}, ["mauve.sampling.end: 'drawn'", "greedy, sampled"]),
    ({f"{ROW4}__sampling": {"compile": True}}, ["sampling.compile: is for whole samples", "token by token"]),
    ({f"{ROW}__metrics__accuracy__sampling": {"weights": "last"}}, ["accuracy.sampling: unknown key 'weights'"]),
    # What could not be computed hours later
    ({f"{DIT}__sampling": {"num_samples": 1}}, ["metrics.fid", "sampling.num_samples is 1", "needs at least 2"]),
    (
        {f"{DIT}__metrics": {"some": {"name": "precision", "sampling": {"num_samples": 3}}}},
        ["metrics.some.sampling.num_samples is 3", "precision needs at least 4"],
    ),
    (
        {f"{DIT}__metrics": {"some": {"name": "recall", "sampling": {"num_samples": 3}}}},
        ["metrics.some.sampling.num_samples is 3", "recall needs at least 4"],
    ),
    (
        {f"{DIT}__metrics": {"some": {"name": "kid", "sampling": {"num_samples": 1}}}},
        ["metrics.some.sampling.num_samples is 1", "kid needs at least 2"],
    ),
    (
        {"tables__table4__demo__sampling": {"num_samples": 78, "prompt_len": 16, "new_tokens": 16, "continuations": 2}},
        ["metrics.mauve.sampling: num_samples by continuations", "real texts", "is 39", "mauve needs at least 40"],
    ),
    ({"tables__table4__metrics__mauve__kmeans_seeds": 0}, ["mauve.kmeans_seeds is 0", "needs at least 1"]),
    ({"tables__table4__metrics__mauve__scaling_factor": 0.0}, ["mauve.scaling_factor is 0.0", "needs at least"]),
    ({"tables__table4__demo__sampling__new_tokens": 3}, ["repetition.sampling.new_tokens is 3", "at least 4"]),
    ({"tables__table4__demo__sampling__new_tokens": 1}, ["distinct_2.sampling.new_tokens is 1", "at least 2"]),
    ({"tables__table3__demo__data__seq_len": 1}, ["distinct_2.data.seq_len is 1", "at least 2"]),
    (
        {"tables__table4__demo__data__test_size": 99},
        ["num_samples 200 by continuations 2 needs 100 prompts", "at most 99 test sequences (data.test_size)"],
    ),
    (
        {"tables__table4__demo__metrics__mauve__teacher": {"name": "ngram"}},
        ["mauve.teacher: ngram has no features, which mauve needs"],
    ),
    (
        {"tables__table4__demo__metrics__ppl_ngram__teacher": {"name": "minilm"}},
        ["ppl_ngram.teacher: minilm has no nll, which generative_perplexity needs"],
    ),
    (
        {"tables__table4__demo__metrics__real_text_ppl_ngram__teacher": {"name": "minilm"}},
        ["real_text_ppl_ngram.teacher: minilm has no nll"],
    ),
    ({"tables__table4__demo__data__test_size": -1}, ["data.test_size is -1", "at least 0"]),
    ({"tables__table4__demo__model__width": 0}, ["model.width is 0", "at least 1"]),
    ({f"{DIT}__extractor": {"steps": 0}}, ["extractor.steps is 0", "at least 1"]),
    ({"tables__table4__demo__metrics__ppl_small_lm__teacher__width": -8}, ["teacher.width is -8", "at least 1"]),
    ({f"{ROW}__method__overlap": math.inf}, ["method.overlap", "inf is no finite number"]),
    ({f"{DIT}__sampling": {"guidance": math.nan}}, ["sampling.guidance", "nan is no finite number"]),
    # Latents
    ({f"{DIT}__data": {"name": "imagenet", "shards": 0}}, ["data.shards", "at least 1"]),
    (
        {f"{DIT}__data": {"name": "imagenet"}, f"{DIT}__train": {"augment": ["flip"]}},
        ["train.augment: only an ImageSet", "returns a LatentSet"],
    ),
    ({f"{DIT}__data": {"name": "imagenet"}}, ["diffusionblocks.extractor", "small_cnn", "latents"]),
    # Seeds of a row
    ({f"{DIT}__seeds_at_most": 0}, ["cifar10_dit_diffusionblocks.seeds_at_most", "0"]),
    ({f"{DIT}__seeds_at_most": True}, ["cifar10_dit_diffusionblocks.seeds_at_most", "True", "integer"]),
    ({f"{DIT}__demo": {"seeds_at_most": "1"}}, ["cifar10_dit_diffusionblocks.demo.seeds_at_most", "'1'", "integer"]),
    ({f"{DIT}__seeds": [0]}, ["cifar10_dit_diffusionblocks", "seeds", "seeds_at_most"]),
    ({"select": ["table1", "table9"]}, ["select", "table9"]),
    # Names of targets
    ({"tables__table7__alias": "table1"}, ["alias", "'table1'", "table"]),
    ({"tables__table7__alias": "train"}, ["tables.table7.alias", "'train'", "name of a rule"]),
    ({"tables__sample": CONFIG["tables"]["table1"]}, ["tables", "'sample'", "name of a rule"]),
    # Steps and epochs
    ({f"{ROW}__train": {"epochs": 3, "steps": 3}}, ["vit_diffusionblocks.train", "exactly one of steps and epochs"]),
    # References between rows
    ({"tables__table1__rows__more": {"like": "nowhere"}}, ["rows.more.like", "nowhere"]),
    ({"tables__table1__rows__more": {"like": "more"}}, ["rows.more.like", "more"]),
    ({"tables__table1__rows__more": "table1/nowhere"}, ["rows.more", "table1/nowhere"]),
    ({"tables__table1__rows__more": "table9/vit_end_to_end"}, ["rows.more", "table9/vit_end_to_end"]),
    ({"tables__table1__rows__more": "vit_end_to_end"}, ["rows.more", "vit_end_to_end"]),
    ({"tables__table8__rows__b1": "table2/imagenet_dit"}, ["table8.rows.b1", "table2/imagenet_dit"]),
    # A table that is like a row of another. Table 8 has no settings of its own at any scale.
    ({"tables__table8__like": "table2/imagenet_dit"}, ["table8.like", "did you mean 'table2/imagenet_dit_"]),
    ({"tables__table8__like": "table_2/b1"}, ["table8.like", "table_2/b1"]),
    ({"tables__table8__like": "table_a2/b1"}, ["table8.like", "table_a2/b1", "trained"]),  # a row of text
    ({"tables__table8__like": "table8/b2"}, ["table8.like", "table8/b2", "back"]),
    ({"tables__table7__like": "table7/linear_4_4_4"}, ["table7.like", "table7/linear_4_4_4", "back"]),
    ({"tables__table8__like": "table_a2/b2", "tables__table_a2__like": "table8/b2"}, ["table_a2.like", "table8/b2"]),
    ({"tables__table2__like": "table7/linear_4_4_4"}, ["table7.like", "table2/cifar10_dit_diffusionblocks", "back"]),
    # What would fail hours later
    ({f"{ROW}__metrics__column": sampling(num_step=4)}, ["column", "num_step", "num_steps"]),
    ({f"{ROW}__metrics__column": sampling(num_steps="4")}, ["column", "num_steps", "'4'"]),
    ({"tables__table1__metrics__column": sampling(num_steps=4)}, ["vit_end_to_end", "column", "num_steps"]),
    ({f"{ROW}__method__layers_per_block": 4}, ["method", "layers_per_block"]),
    ({f"{ROW}__method__layers_per_block": [2, 2, "2"]}, ["method", "layers_per_block"]),
    ({"tables__table1__demo__train__accumulate": 7}, ["train.accumulate", "64"]),
    ({"tables__table1__demo__train__steps": 600.0}, ["train", "steps", "600.0"]),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(change) for change, _ in BAD])
def test_bad_configuration_is_refused_by_name(changes, words):
    message = refusal(edited(**changes))
    assert all(word in message for word in words), message


def without(path):
    config = copy.deepcopy(CONFIG)
    *way, last = path.split("__")
    section = config
    for key in way:
        section = section[key]
    del section[last]
    return config


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tables__table1__demo__train__steps", ["table1", "train", "exactly one of steps and epochs"]),
        ("tables__table1__demo__train__lr", ["table1", "train", "lr"]),
        ("tables__table1__demo__train__batch_size", ["table1", "train", "batch_size"]),
        ("tables__table1__demo__model__num_layers", ["table1", "model", "num_layers"]),
        ("tables__table1__demo__data", ["vit_end_to_end", "data", "demo"]),
        ("tables__table1__title", ["table1", "title"]),
        ("tables__table2__demo__extractor", ["cifar10_dit_end_to_end.metrics.fid_test", "`extractor`"]),
        ("tables__table2__demo", ["table8.rows.b1", "table2/imagenet_dit_end_to_end", "demo"]),
    ],
)
def test_missing_settings_are_named(path, words):
    message = refusal(without(path))
    assert all(word in message for word in words), message


def test_a_column_that_a_scale_adds_to_is_removed_at_that_scale():
    """A null below it is told where the column still is."""
    at_paper = {"scale": "paper", "tables__table2__paper__metrics__fid_test_last_weights": None}
    config = edited(**at_paper, tables__table2__metrics__fid_test_last_weights=None)
    check(Plan(config))
    assert "fid_test_last_weights" not in Plan(config).rows["table8", "b2"].metrics
    config = edited(scale="paper", tables__table2__metrics__fid_test_last_weights=None)
    message = refusal(config)
    assert "end_to_end.metrics.fid_test_last_weights: has no `name` of a metric" in message
    assert message.endswith("put `metrics: {fid_test_last_weights: null}` at tables.table2.paper")


def test_a_scale_without_a_table_is_refused():
    table = {key: value for key, value in CONFIG["tables"]["table1"].items() if key != "gpu"}
    assert "no table has settings for scale 'gpu'" in refusal(edited(scale="gpu", tables={"table1": table}))


def test_a_job_checks_its_own_run_too():
    """run.json by hand does not pass through planning."""
    run = Plan(edited()).rows["table1", "vit_diffusionblocks"].run(0)
    check_run(run)
    run["train"]["stpes"] = 5
    with pytest.raises(UserError, match=r"train: unknown key 'stpes'; did you mean 'steps'"):
        check_run(run)


@pytest.mark.slow
def test_snakemake_refuses_what_only_the_schema_knows(tmp_path):
    """The dry run itself stops: exit code, the key's name, and no file."""
    checkout = Checkout(tmp_path / "checkout")
    checkout.configure({"tables": {"table1": {"rows": {"vit_diffusionblocks": {"train": {"lr": "1e-3", "stpes": 5}}}}}})

    def files():
        skip = {".snakemake", "__pycache__"}
        return sorted(
            Path(folder, name)
            for folder, _, names in os.walk(checkout.folder)
            if not skip & set(Path(folder).parts)
            for name in names
        )

    before = files()
    refused = checkout.snakemake("-n", check=False)
    assert refused.returncode != 0
    assert "stpes" in refused.stdout + refused.stderr or "1e-3" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert files() == before


@pytest.mark.slow
def test_a_data_dir_of_a_variable_that_is_not_set_stops_everything(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    checkout.configure({"data_dir": "$ABSENT_HERE/data"})
    refused = checkout.snakemake("-n", check=False)
    assert "config: data_dir: $ABSENT_HERE/data: the variable ABSENT_HERE is not set" in refused.stdout + refused.stderr
    checkout.configure({"data_dir": "$HOME/data"})
    assert f"--data-dir {os.environ['HOME']}/data" in checkout.snakemake("-n", "-p").stdout


def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "own_nets").mkdir()
    (tmp_path / "own_nets/no_python.py").write_text("class Model:\n    def predict(self:\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["no_python.py, line 2", "no valid Python"]
    message = refusal(edited(**{f"{ROW}__model": {"name": "own_nets.no_python", "num_layers": 6}}))
    assert all(word in message for word in words), message

"""From config.yaml to runs: merging, every row built at every scale, and what is refused before a job starts."""

import copy
import dataclasses
import os
import re
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml
from conftest import Checkout

from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.augment import AUGMENTATIONS
from diffusionblocks.diffusion import partition
from diffusionblocks.methods import build
from diffusionblocks.plan import resolve as planning
from diffusionblocks.plan.check import check, check_frame, check_run
from diffusionblocks.plan.source import PACKAGE, class_keywords
from diffusionblocks.training.trainer import Settings

ROOT = PACKAGE.parent
SCHEMA_FILE = ROOT / "workflow/schemas/config.schema.yaml"
SCHEMA = yaml.safe_load(SCHEMA_FILE.read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "report/paper.yaml").read_text())
SHAPES = {
    "digits": {"image_size": 8, "channels": 1, "num_classes": 10},
    "fashion_mnist": {"image_size": 32, "channels": 1, "num_classes": 10},
    "fashion_mnist_16": {"image_size": 16, "channels": 1, "num_classes": 10},
    "cifar10": {"image_size": 32, "channels": 3, "num_classes": 10},
    "tiny_imagenet": {"image_size": 64, "channels": 3, "num_classes": 200},
    "cifar100": {"image_size": 32, "channels": 3, "num_classes": 100},
    "imagenet": {"image_size": 32, "channels": 4, "num_classes": 1000},  # latents
    "text8": {"vocab_size": 27, "seq_len": 256},
    "lm1b": {"vocab_size": 32_000, "seq_len": 256},
    "openwebtext": {"vocab_size": 32_000, "seq_len": 1024},
}
SCALES = ("demo", "gpu", "paper")
ROWS = [
    (scale, table, row)
    for scale in SCALES
    for table in planning.tables({**CONFIG, "scale": scale})
    for row in CONFIG["tables"][table]["rows"]
]


def edited(**changes):
    """config.yaml with values put in under dotted keys (`tables.table1.demo`, dots written as __)."""
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


# Merging


def test_merge_goes_key_by_key():
    base = {"a": 1, "model": {"name": "vit", "width": 64, "deep": {"x": 1, "y": 2}}}
    over = {"model": {"width": 128, "deep": {"y": 3}}, "b": 2}
    merged = planning.merge(base, over)
    assert merged == {"a": 1, "b": 2, "model": {"name": "vit", "width": 128, "deep": {"x": 1, "y": 3}}}
    assert base["model"]["width"] == 64 and base["model"]["deep"]["y"] == 2, "merging changes neither side"


def test_another_name_replaces_a_section_whole_and_the_same_name_does_not():
    base = {"method": {"name": "diffusionblocks", "overlap": 0.1, "num_blocks": 3}}
    assert planning.merge(base, {"method": {"name": "end_to_end"}}) == {"method": {"name": "end_to_end"}}
    same = planning.merge(base, {"method": {"name": "diffusionblocks", "num_blocks": 2}})
    assert same["method"] == {"name": "diffusionblocks", "overlap": 0.1, "num_blocks": 2}
    first = planning.merge({"method": {"overlap": 0.1}}, {"method": {"name": "diffusionblocks"}})
    assert first["method"] == {"overlap": 0.1, "name": "diffusionblocks"}, "a section that had no name keeps its keys"
    lists = planning.merge({"train": {"augment": ["crop", "flip"]}}, {"train": {"augment": []}})
    assert lists == {"train": {"augment": []}}


LAYERS = {
    "scale": "demo",
    "seeds": [3, 5],
    "tables": {
        "first": {
            "model": {"name": "vit", "num_layers": 6, "width": 1, "num_heads": 1, "mlp_width": 1},
            "method": {"name": "end_to_end"},
            "data": {"name": "digits"},
            "train": {"lr": 0.1, "batch_size": 1},
            "metrics": {"accuracy": {"name": "accuracy"}},
            "demo": {"model": {"width": 2, "num_heads": 2, "mlp_width": 2}, "train": {"steps": 5}},
            "paper": {"model": {"width": 99}, "train": {"epochs": 9}},
            "rows": {
                "plain": {},
                "own": {"model": {"num_heads": 3, "mlp_width": 3}, "demo": {"model": {"mlp_width": 4}}},
                "blocks": {"method": {"name": "diffusionblocks", "num_blocks": 2, "overlap": 0.3}},
                "alike": {"like": "blocks", "method": {"overlap": 0.2}, "metrics": {"more": {"name": "accuracy"}}},
                "more_alike": {"like": "alike", "method": {"sharing": "joint"}},
            },
        },
        "second": {"rows": {"plain": "first/plain", "blocks": "first/blocks"}, "demo": {}},
        "third": {"rows": {"plain": "first/plain"}, "paper": {}},
        "fourth": {
            "like": "first/own",
            "model": {"num_heads": 10, "mlp_width": 10, "patch_size": 10, "dropout": 10},
            "seeds": [7],
            "demo": {"model": {"mlp_width": 11, "patch_size": 11, "dropout": 11}},
            "rows": {
                "layered": {"model": {"patch_size": 12, "dropout": 12}, "demo": {"model": {"dropout": 13}}},
                "seeded": {"demo": {"seeds": [1, 2]}},
                "replaced": {"method": {"name": "diffusionblocks"}, "like": "seeded"},
            },
        },
        "fifth": {"like": "fourth/seeded", "rows": {"plain": {}}},
    },
}


def test_table_then_scale_then_row_then_its_scale():
    assert planning.resolve(LAYERS, "first", "plain")["model"] == {
        "name": "vit", "num_layers": 6, "width": 2, "num_heads": 2, "mlp_width": 2
    }  # fmt: skip
    own = planning.resolve(LAYERS, "first", "own")
    assert own["model"] == {"name": "vit", "num_layers": 6, "width": 2, "num_heads": 3, "mlp_width": 4}
    assert own["train"] == {"lr": 0.1, "batch_size": 1, "steps": 5}
    paper = planning.resolve({**LAYERS, "scale": "paper"}, "first", "own")
    assert paper["model"]["mlp_width"] == 3 and paper["model"]["width"] == 99
    assert paper["train"] == {"lr": 0.1, "batch_size": 1, "epochs": 9}


def test_like_takes_another_row_and_goes_on_from_there():
    assert planning.resolve(LAYERS, "first", "alike")["method"] == {
        "name": "diffusionblocks", "num_blocks": 2, "overlap": 0.2
    }  # fmt: skip
    assert set(planning.resolve(LAYERS, "first", "alike")["metrics"]) == {"accuracy", "more"}
    more = planning.resolve(LAYERS, "first", "more_alike")
    assert more["method"] == {"name": "diffusionblocks", "num_blocks": 2, "overlap": 0.2, "sharing": "joint"}
    assert set(more["metrics"]) == {"accuracy", "more"}


def test_a_table_that_is_like_a_row_of_another_starts_from_all_of_that_rows():
    """The other row, then this table, its scale, the row, the row's scale: each sets one key that no later one does."""
    assert planning.resolve(LAYERS, "fourth", "layered")["model"] == {
        "name": "vit", "num_layers": 6, "width": 2, "num_heads": 10, "mlp_width": 11, "patch_size": 12, "dropout": 13
    }  # fmt: skip
    assert planning.resolve(LAYERS, "fourth", "replaced")["method"] == {"name": "diffusionblocks"}
    paper = planning.resolve({**LAYERS, "scale": "paper"}, "fourth", "layered")["model"]
    assert (paper["width"], paper["mlp_width"], paper["dropout"]) == (99, 10, 12)


def test_seeds_of_a_row():
    seeds = {row: planning.seeds(LAYERS, "fourth", row) for row in LAYERS["tables"]["fourth"]["rows"]}
    assert seeds == {"layered": [7], "seeded": [1, 2], "replaced": [1, 2]}
    assert planning.seeds(LAYERS, "first", "plain") == [3, 5] and planning.seeds(LAYERS, "fifth", "plain") == [1, 2]
    folders = planning.run_folders(LAYERS, "fourth")
    assert folders[:3] == ["fourth/layered/seed7", "fourth/seeded/seed1", "fourth/seeded/seed2"]


def test_row_of_text_is_a_run_trained_elsewhere():
    assert planning.trained(LAYERS, "second", "plain") == ("first", "plain")
    assert planning.trained(LAYERS, "first", "own") == ("first", "own")
    assert planning.run_folders(LAYERS, "second") == [f"first/{r}/seed{s}" for r in ("plain", "blocks") for s in (3, 5)]
    assert planning.tables(LAYERS) == ["first", "second", "fourth", "fifth"]
    assert planning.tables({**LAYERS, "scale": "paper"}) == ["first", "third", "fourth", "fifth"], "through `like`"


def test_run_holds_what_decides_a_model_and_no_metrics():
    run = planning.run(LAYERS, "first", "blocks", 5)
    assert list(run) == ["scale", "table", "row", "seed", "data", "model", "method", "train"]
    assert (run["scale"], run["table"], run["row"], run["seed"]) == ("demo", "first", "blocks", 5)


GENERATION = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "t": {
            "demo": {},
            "extractor": {"name": "small_cnn"},
            "rows": {
                "row": {
                    "sampling": {"num_samples": 100, "guidance": 2.0, "shards": 4},
                    "metrics": {
                        "fid": {"name": "fid", "reference": "train"},
                        "fid_plain": {"name": "fid", "sampling": {"guidance": 1.0}},
                        "layers": {"name": "layer_evaluations"},
                    },
                },
                "predicts": {"sampling": {"num_steps": 3}, "metrics": {"accuracy": {"name": "accuracy"}}},
            },
        }
    },
}


def test_a_metric_has_the_rows_sampling_under_its_own():
    found = planning.metrics(GENERATION, "t", "row")
    common = {"num_samples": 100, "sets": 1, "shards": 4}
    assert found["fid"] == {"name": "fid", "reference": "train", "sampling": {**common, "guidance": 2.0}}
    assert found["fid_plain"]["sampling"] == {**common, "guidance": 1.0}
    predicts = planning.metrics(GENERATION, "t", "predicts")
    assert predicts["accuracy"]["sampling"] == {}, "a row says how it generates; predictions say it themselves"


def test_images_are_generated_once_for_all_metrics_that_agree():
    sets = planning.sample_sets(GENERATION, "t", "row")
    assert [sampling["guidance"] for sampling in sets.values()] == [2.0, 1.0]
    assert planning.sample_sets(GENERATION, "t", "predicts") == {}


def test_name_of_a_sample_set_forgets_shards_and_the_order_of_keys_and_nothing_else():
    sampling = {"num_samples": 10, "sets": 1, "shards": 1, "guidance": 2.0}
    name = planning.sample_name(sampling)
    assert planning.sample_name({"guidance": 2.0, "shards": 7, "sets": 1, "num_samples": 10}) == name
    others = [{"num_samples": 11}, {"sets": 2}, {"guidance": 1.0}, {"solver": "heun"}]
    names = {planning.sample_name({**sampling, **other}) for other in others} | {name}
    assert len(names) == 5 and all(re.fullmatch(r"[0-9a-f]{8}", name) for name in names)


def test_an_extractor_is_wanted_by_metrics_of_features_alone():
    assert planning.extractor(GENERATION, "t", "row") == {"name": "small_cnn"}
    assert planning.extractor(GENERATION, "t", "predicts") is None


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"name": "end_to_end"}, ["all"]),
        ({"name": "diffusionblocks"}, ["block0", "block1", "block2"]),  # the method's own defaults
        ({"name": "diffusionblocks", "num_blocks": 2}, ["block0", "block1"]),
        ({"name": "diffusionblocks", "sharing": "joint"}, ["all"]),
    ],
)
def test_parts(method, expected):
    assert planning.parts({"method": method}) == expected


def test_data_files_are_named_by_set_and_keywords():
    assert planning.section_name({"name": "digits"}) == "digits"
    names = {planning.section_name({"name": "digits", "split": split}) for split in ("test", "validation")}
    assert len(names) == 2 and all(re.fullmatch(r"digits-[0-9a-f]{8}", name) for name in names)
    assert planning.section_name({"split": "test", "name": "digits"}) in names


def test_fingerprint_forgets_the_order_of_keys_and_nothing_else():
    one = planning.fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert one == planning.fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert one != planning.fingerprint({"a": 1, "b": {"c": [2, 1], "d": None}})


# The configuration that is shipped


@pytest.mark.parametrize("scale", SCALES)
def test_shipped_configuration_passes_every_check(scale):
    config = edited(scale=scale)
    check_frame(config, SCHEMA_FILE)
    check(config)


def test_the_study_of_noise_passes_every_check():
    study = yaml.safe_load((ROOT / "workflow/studies/noise_level.yaml").read_text())
    config = edited(scale="demo", tables__noise_level=study["tables"]["noise_level"])
    check_frame(config, SCHEMA_FILE)
    check(config)
    assert len(planning.run_folders(config, "noise_level")) == 3 * 30


@pytest.mark.parametrize(("scale", "table", "row"), ROWS)
def test_every_row_is_built(scale, table, row):
    """On the meta device, where the paper's sizes cost nothing; the parts together are the whole."""
    config = edited(scale=scale)
    run = planning.run(config, *planning.trained(config, table, row), 0)
    Settings(**run["train"])
    shape = SHAPES.get(run["data"]["name"]) or {"vocab_size": 512, "seq_len": 64, **run["data"]}
    with torch.device("meta"):
        whole = build(run, shape, None).state_dict()
        parts = [build(run, shape, part).state_dict() for part in planning.parts(run)]
    assert sum(map(len, parts)) == len(whole)
    assert {name: value.shape for part in parts for name, value in part.items()} == {
        name: value.shape for name, value in whole.items()
    }


def test_paper_scale_is_appendix_e1():
    """Issue text, paper.md section 2: the ViT on CIFAR-100."""
    config = edited(scale="paper")
    for row in ("vit_end_to_end", "vit_diffusionblocks", "vit_diffusionblocks_joint"):
        run = planning.run(config, "table1", row, 0)
        assert run["data"] == {"name": "cifar100"}
        sizes = {"num_layers": 12, "patch_size": 4, "width": 128, "num_heads": 4, "mlp_width": 3072}
        assert run["model"] == {"name": "vit", "dropout": 0.1, **sizes}
        train = dataclasses.asdict(Settings(**run["train"]))
        assert (train["epochs"], train["batch_size"], train["lr"], train["warmup_epochs"]) == (500, 128, 5e-4, 10)
        assert train["min_lr"] < train["lr"], "a cosine, not a constant rate"
        assert {"flip", "randaugment"} <= set(train["augment"]) and train["ema"] is None
        method = planning.method_settings(run)
        if row != "vit_end_to_end":
            assert (method["num_blocks"], method["overlap"], method["partition"]) == (3, 0.05, "equi_probability")
            assert (method["target_norm"], method["p_mean"], method["loss_weight"]) == (1.0, -1.2, "decoupled")
    metrics = planning.resolve(config, "table1", "vit_diffusionblocks")["metrics"]
    assert metrics["accuracy_4_steps"]["sampling"]["num_steps"] == 4 and "sampling" not in metrics["accuracy"]


def test_forward_forward_at_paper_scale_is_the_released_script_on_the_papers_vit():
    config = edited(scale="paper")
    rows = {"": "as_released", "_fixed": "fixed", "_contrastive": None}
    for name, variant in rows.items():
        run = planning.run(config, "table1", f"vit_forward_forward{name}", 0)
        assert run["method"].get("variant") == variant and run["data"] == {"name": "cifar100"}
        assert run["model"] == {
            **planning.run(config, "table1", "vit_end_to_end", 0)["model"], "dropout": 0.0, "initialisation": "pytorch"
        }  # fmt: skip
        train = Settings(**run["train"])
        assert (train.epochs, train.batch_size, train.lr, train.weight_decay) == (500, 512, 0.004, 0.01)
        assert train.min_lr == train.lr and train.warmup_epochs == 0 and train.clip == 1e6


def test_paper_scale_of_table_a1_is_appendix_e1():
    config = edited(scale="paper")
    for row, blocks in (("vit_end_to_end", None), ("vit_diffusionblocks", 2)):
        run = planning.run(config, "table_a1", row, 0)
        sizes = {"num_layers": 12, "patch_size": 4, "width": 768, "num_heads": 12, "mlp_width": 3072}
        assert run["model"] == {"name": "vit", "dropout": 0.1, **sizes} and run["data"] == {"name": "tiny_imagenet"}
        train = Settings(**run["train"])
        assert (train.epochs, train.batch_size, train.lr, train.warmup_epochs) == (100, 256, 1e-4, 10)
        assert {"flip", "randaugment"} <= set(train.augment)
        assert planning.method_settings(run).get("num_blocks") == blocks
        if blocks:
            method = planning.method_settings(run)
            assert (method["overlap"], method["sharing"], method["target_norm"]) == (0.05, "independent", 1.0)


def test_paper_scale_of_table_6_is_noprops_own_and_the_papers():
    """baselines.md, sections 1.7 and 1.8."""
    config = edited(scale="paper")
    settings = {  # layers, epochs, learning rate, eta, steps of the chain
        "noprop_backprop": (10, 150, 0.001, None, None),
        "noprop_dt": (10, 150, 0.001, 0.1, None),
        "noprop_ct": (1, 1000, 0.001, 1.0, 1000),
        "noprop_ct_learned": (1, 1000, 0.001, 1.0, 1000),
        "noprop_fm": (1, 1000, 0.001, 1.0, 1000),
        "noprop_diffusionblocks": (3, 1000, 0.0001, None, 1000),
    }
    assert list(settings) == list(CONFIG["tables"]["table6"]["rows"])
    for row, (layers, epochs, lr, eta, steps) in settings.items():
        run, metrics = planning.run(config, "table6", row, 0), planning.metrics(config, "table6", row)
        model = {"batch_norm": row in ("noprop_backprop", "noprop_dt", "noprop_diffusionblocks"), "embedding_dim": 20}
        model = {**class_keywords(PACKAGE / "models/noprop_cnn.py", "Model"), **run["model"]} | {"name": "", **model}
        assert {**model, **run["model"]} == {**model, "name": "noprop_cnn"}
        assert model["num_layers"] == layers
        assert model["embedding"] == ("learned" if row == "noprop_ct_learned" else "prototype")
        train = Settings(**run["train"])
        assert (train.epochs, train.batch_size, train.lr, train.min_lr) == (epochs, 128, lr, lr)
        assert train.weight_decay == 0.001 and not train.augment
        assert run["method"].get("eta") == eta
        assert metrics["accuracy"]["sampling"].get("num_steps") == steps
    method = planning.method_settings(planning.run(config, "table6", "noprop_diffusionblocks", 0))
    assert (method["num_blocks"], method["overlap"], method["loss_weight"]) == (3, 0.1, "decoupled")


def test_paper_scale_is_appendix_e2():
    """Issue text, paper.md section 2: DiT-S/2 on CIFAR-10, DiT-L/2 on ImageNet's latents; no overlap in ablations."""
    config = edited(scale="paper")
    sizes = {
        "cifar10": {"num_layers": 12, "width": 384, "num_heads": 6, "mlp_width": 1536, "patch_size": 2},
        "imagenet": {"num_layers": 24, "width": 1024, "num_heads": 16, "mlp_width": 4096, "patch_size": 2},
    }
    data = {"table7": "cifar10", "table8": "imagenet", "table_a2": "cifar10"}
    for table in ("table2", *data):
        for row in CONFIG["tables"][table]["rows"]:
            origin = planning.trained(config, table, row)
            run, method = planning.run(config, *origin, 0), planning.method_settings(planning.run(config, *origin, 0))
            name = data.get(table) or row.partition("_")[0]
            assert run["data"] == {"name": name} and planning.seeds(config, *origin) == [0]
            assert run["model"] == {"name": "dit", "label_dropout": 0.1, **sizes[name]}
            train = Settings(**run["train"])
            assert (train.epochs, train.batch_size, train.lr) == (100, 512, {"cifar10": 1e-4, "imagenet": 5e-5}[name])
            assert train.min_lr == train.lr and train.ema == 0.9999
            assert method["overlap"] == (0.05 if row.endswith("_diffusionblocks") else 0)
            assert (method["sharing"], method["loss_weight"]) == ("independent", "per_sample")
            metrics = planning.metrics(config, *origin)
            assert {metrics[f"fid_{split}"]["reference"] for split in ("test", "train")} == {"test", "train"}
            sampling = metrics["fid_test"]["sampling"]
            assert {key: sampling[key] for key in ("num_samples", "sets", "num_steps", "guidance")} == {
                "num_samples": 50_000, "sets": 3, "num_steps": 50, "guidance": 2.0
            }  # fmt: skip
            assert planning.extractor(config, *origin) == {"name": "inception_v3_compat"}


def paper_run(table, row):
    """A run of scale paper, its settings of training and of its method with all defaults."""
    run = planning.run(edited(scale="paper"), *planning.trained(CONFIG, table, row), 0)
    return run, dataclasses.asdict(Settings(**run["train"])), planning.method_settings(run)


def test_paper_scale_is_appendix_e3():
    """paper.md section 2: masked diffusion on text8."""
    for row, blocks in (("mdm_end_to_end", 1), ("mdm_diffusionblocks", 3)):
        run, train, method = paper_run("table3", row)
        assert run["data"] == {"name": "text8"} and run["model"]["name"] == "masked_diffusion"
        assert [run["model"][key] for key in ("num_layers", "width", "num_heads")] == [12, 768, 12]
        wanted = {"epochs": 100, "batch_size": 256, "lr": 3e-4, "weight_decay": 0.03, "warmup_steps": 2000}
        assert {key: train[key] for key in wanted} == wanted
        assert method["num_blocks"] == blocks and method["loss_weight"] == "per_sample"
        assert method["overlap"] == (0.05 if blocks == 3 else 0.0)


def test_paper_scale_is_appendix_e4():
    """paper.md section 2: autoregressive transformers on LM1B and OpenWebText, and how they are judged."""
    for corpus, data in (("lm1b", "lm1b"), ("owt", "openwebtext")):
        for row in ("end_to_end", "diffusionblocks", *(("diffusionblocks_calibrated",) * (corpus == "lm1b"))):
            run, train, method = paper_run("table4", f"{corpus}_ar_{row}")
            assert run["data"]["name"] == data and run["model"]["name"] == "autoregressive"
            sizes = ("num_layers", "width", "num_heads", "mlp_width")
            assert [run["model"][key] for key in sizes] == [12, 768, 12, 2048]
            wanted = {"epochs": 10, "batch_size": 256, "lr": 3e-4, "warmup_steps": 2500}
            assert {key: train[key] for key in wanted} == wanted
            if row == "end_to_end":
                assert method["name"] == "end_to_end"
                continue
            assert (method["num_blocks"], method["overlap"]) == (4, 0.1)
            official = (-1.2, 1.0, "decoupled")
            assert ((method["p_mean"], method["target_norm"], method["loss_weight"]) == official) == (
                row == "diffusionblocks"
            )
    metrics = planning.metrics(edited(scale="paper"), "table4", "lm1b_ar_diffusionblocks")
    sampling = metrics["mauve"]["sampling"]
    assert [sampling[key] for key in ("num_samples", "continuations", "prompt_len", "new_tokens")] == [5000, 5, 50, 50]
    teachers = {name: section["teacher"]["name"] for name, section in metrics.items() if "teacher" in section}
    assert teachers["mauve"] == "gpt2_large" and teachers["ppl_llama2_7b"] == "llama2_7b"
    assert teachers["ppl_gpt2_xl"] == "gpt2_xl"


def test_paper_scale_is_appendix_e5():
    """paper.md section 2: Huginn at Pythia-70M's sizes, five epochs against fifteen of a single pass."""
    for row, epochs in (("huginn_end_to_end", 5), ("huginn_diffusionblocks", 15)):
        run, train, method = paper_run("table5", row)
        sizes = ("num_layers", "prelude_layers", "coda_layers", "width", "num_heads")
        defaults = planning.class_keywords(planning.component_file("model", "recurrent_depth"), "Model")
        model = {**defaults, **run["model"]}
        assert [model[key] for key in sizes] == [4, 2, 2, 512, 8]
        assert (model["mean_recurrence"], model["bptt_steps"], train["epochs"]) == (32, 8, epochs)
        assert method.get("num_blocks", 1) == 1


def test_rows_of_the_ablations_are_what_their_names_say():
    config = edited(scale="paper")
    partitions = {"uniform": "log_uniform", "equi_probability": "equi_probability", "linear": "uniform"}
    for row in CONFIG["tables"]["table7"]["rows"]:
        method = planning.method_settings(planning.run(config, "table7", row, 0))
        name, *layers = row.rsplit("_", 3)
        assert (method["partition"], method["layers_per_block"]) == (partitions[name], [int(count) for count in layers])
    for scale, table in ((scale, table) for scale in SCALES for table in ("table8", "table_a2")):
        config = edited(scale=scale)
        origins = {row: planning.trained(config, table, row) for row in CONFIG["tables"][table]["rows"]}
        counts = {row: planning.run(config, *origin, 0)["method"]["num_blocks"] for row, origin in origins.items()}
        assert counts == {"b1": 1, "b2": 2, "b3": 3, "b4": 4, "b6": 6}


@pytest.mark.parametrize(("table", "row"), [(table, row) for scale, table, row in ROWS if scale == "demo"])
def test_every_row_stands_beside_a_printed_one_or_says_what_it_is(table, row):
    settings = CONFIG["tables"][table]["rows"][row]
    assert row in PAPER[table]["rows"] or settings.get("paper_row") in PAPER[table]["rows"] or settings["remark"]


def test_every_printed_row_is_trained():
    for table, entry in CONFIG["tables"].items():
        assert set(PAPER[table]["rows"]) <= set(entry["rows"])
        for scale in SCALES:
            assert table in planning.tables(edited(scale=scale))


# One list each


def test_schema_and_settings_know_the_same_train_keys():
    known = SCHEMA["$defs"]["train"]["properties"]
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    assert set(known) == set(fields)
    for name, field in fields.items():
        missing = field.default_factory is dataclasses.MISSING
        default = field.default if missing else field.default_factory()
        if default not in (dataclasses.MISSING, None):
            jsonschema.validate(default, known[name])


def test_the_schema_knows_every_rule():
    """A table or an alias of the same name would be a second rule of that name."""
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    rules = re.findall(r"^(?:rule|use rule \w+ as) (\w+)", "\n".join(map(Path.read_text, files)), re.MULTILINE)
    assert sorted(rules) == sorted(SCHEMA["$defs"]["rules"]["enum"]) and "sample" in rules


def test_schema_and_code_offer_the_same_choices():
    known = SCHEMA["$defs"]["train"]["properties"]
    assert known["augment"]["items"]["enum"] == list(AUGMENTATIONS)
    keywords = class_keywords(PACKAGE / "methods/diffusionblocks.py", "Method")
    assert keywords["partition"].values == partition.STRATEGIES
    for precision in known["precision"]["enum"]:
        Settings(batch_size=1, lr=1.0, steps=1, precision=precision)


# Bad input


def refusal(config):
    """The message with which Snakemake would stop before any job."""
    with pytest.raises(UserError) as refused:
        check_frame(config, SCHEMA_FILE)
        check(config)
    assert "\n" not in str(refused.value)
    return str(refused.value)


BAD = [
    # The frame
    ({"sclae": "demo"}, ["sclae", "scale"]),
    ({"scale": "dmeo"}, ["scale", "dmeo", "demo"]),
    ({"seeds": []}, ["seeds"]),
    ({"seeds": [1, 1]}, ["seeds"]),
    ({"seeds": ["a"]}, ["seeds", "a"]),
    ({"tables__table1__trian": {}}, ["tables.table1", "trian", "train"]),
    ({f"{ROW}__trian": {}}, ["vit_diffusionblocks", "trian", "train"]),
    ({f"{ROW}__demo__trian": {}}, ["vit_diffusionblocks.demo", "trian", "train"]),
    ({"tables__table1__demo__train__stpes": 5}, ["table1.demo.train", "stpes", "steps"]),
    ({f"{ROW}__train": {"learning_rate": 0.1}}, ["vit_diffusionblocks.training.train", "learning_rate"]),
    ({"tables__table1__demo__train__lr": "1e-3"}, ["train.lr", "1e-3", "0.001"]),
    ({f"{ROW}__train": {"lr": "1e-3"}}, ["vit_diffusionblocks.training.train.lr", "1e-3", "0.001"]),
    ({"tables__table1__demo__train__steps": 0}, ["train.steps", "0"]),
    ({"tables__table1__demo__train__augment": ["corp"]}, ["train.augment", "corp", "crop"]),
    ({"tables__table1__demo__train__precision": "fp16"}, ["train.precision", "fp16", "bf16"]),
    ({"tables__table1__rows__none": None}, ["tables.table1.rows.none"]),
    # Names
    ({"tables__table1__model__name": "vti"}, ["model.name", "vti", "did you mean 'vit'"]),
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
    ({f"{ROW}__demo__method__loss_weight": None}, ["method.loss_weight", "decoupled"]),
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
    # NoProp
    ({"tables__table6__rows__noprop_ct__demo__model__num_layers": 3}, ["noprop_ct.method", "continuous", "one layer"]),
    (
        {"tables__table6__rows__noprop_dt__metrics": {"accuracy": {"sampling": {"num_steps": 4}}}},
        ["noprop_dt.metrics.accuracy.sampling.num_steps", "a step for each layer"],
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
    ({f"{DIT}__sampling": {"grid": "karas"}}, ["sampling.grid", "karas", "karras"]),
    ({f"{DIT}__sampling": []}, ["cifar10_dit_diffusionblocks.diffusion.solvers", "[]"]),
    ({f"{DIT}__model": {"name": "vit", "num_layers": 6}}, ["guidance", "unconditional", "models/vit.py"]),
    ({f"{DIT}__extractor": {"name": "smal_cnn"}}, ["diffusionblocks.extractor.name", "did you mean 'small_cnn'"]),
    ({f"{DIT}__extractor": {"step": 5}}, ["diffusionblocks.extractor", "step", "did you mean 'steps'"]),
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
    ({"tables__table3__demo__train__augment": ["flip"]}, ["train.augment", "text"]),
    (
        {"tables__table3__method": {"name": "diffusionblocks", "num_blocks": 1, "partition": "log_uniform"}},
        ["log_uniform"],
    ),
    ({"tables__table1__metrics__fid": {"name": "fid"}}, ["metrics.fid", "end_to_end", "does not have"]),
    (
        {f"{ROW}__metrics__kid": {"name": "kid", "sampling": {"num_samples": 9}}},
        ["vit_diffusionblocks.evaluation.metrics.kid", "needs an `extractor`"],
    ),
    # Latents
    ({f"{DIT}__data": {"name": "imagenet", "shards": 0}}, ["data.shards", "at least 1"]),
    ({f"{DIT}__data": {"name": "imagenet"}, f"{DIT}__train": {"augment": ["flip"]}}, ["train.augment", "latents"]),
    ({f"{DIT}__data": {"name": "imagenet"}}, ["diffusionblocks.extractor", "small_cnn", "latents"]),
    # Seeds of a row
    ({f"{DIT}__seeds": []}, ["cifar10_dit_diffusionblocks.seeds", "[]"]),
    ({f"{DIT}__seeds": [4, 4]}, ["cifar10_dit_diffusionblocks.seeds", "[4, 4]"]),
    ({f"{DIT}__demo": {"seeds": ["0"]}}, ["cifar10_dit_diffusionblocks.demo.seeds", "'0'", "integer"]),
    # Names of targets
    ({"tables__table7__alias": "table1"}, ["alias", "'table1'", "table"]),
    ({"tables__table7__alias": "train"}, ["tables.table7.alias", "'train'", "name of a rule"]),
    ({"tables__sample": CONFIG["tables"]["table1"]}, ["tables", "'sample'", "name of a rule"]),
    # Steps and epochs
    ({f"{ROW}__train": {"epochs": 3}}, ["vit_diffusionblocks.training.train", "exactly one of steps and epochs"]),
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
        ("tables__table2__demo", ["table7.like", "table2/cifar10_dit_diffusionblocks", "demo"]),
    ],
)
def test_missing_settings_are_named(path, words):
    message = refusal(without(path))
    assert all(word in message for word in words), message


def test_a_scale_without_a_table_is_refused():
    table = {key: value for key, value in CONFIG["tables"]["table1"].items() if key != "gpu"}
    assert "no table has settings for scale 'gpu'" in refusal(edited(scale="gpu", tables={"table1": table}))


def sampling(**keywords):
    return {"name": "accuracy", "sampling": keywords}


LATE = [
    ({f"{ROW}__metrics__column": sampling(num_step=4)}, ["column", "num_step", "num_steps"]),
    ({f"{ROW}__metrics__column": sampling(num_steps="4")}, ["column", "num_steps", "'4'"]),
    ({"tables__table1__metrics__column": sampling(num_steps=4)}, ["vit_end_to_end", "column", "num_steps"]),
    ({f"{ROW}__method__layers_per_block": 4}, ["method", "layers_per_block"]),
    ({f"{ROW}__method__layers_per_block": [2, 2, "2"]}, ["method", "layers_per_block"]),
    ({"tables__table1__demo__train__accumulate": 7}, ["train.accumulate", "64"]),
    ({"tables__table1__demo__train__steps": 600.0}, ["train", "steps", "600.0"]),
]


@pytest.mark.parametrize(("changes", "words"), LATE, ids=[str(change) for change, _ in LATE])
def test_what_would_fail_hours_later_is_refused_too(changes, words):
    message = refusal(edited(**changes))
    assert all(word in message for word in words), message


def test_a_job_checks_its_own_run_too():
    """run.json by hand does not pass the schema."""
    run = planning.run(edited(), "table1", "vit_diffusionblocks", 0)
    check_run(run)
    run["train"]["stpes"] = 5
    with pytest.raises(UserError, match=r"train: unknown key 'stpes'; did you mean 'steps'"):
        check_run(run)


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

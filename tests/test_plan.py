"""From the configuration to rows: layers on each other, lines, the files that planning writes, every row built."""

import copy
import json
import re
from unittest import mock

import pytest
import torch
import yaml
from conftest import ROOT

from diffusionblocks.base.files import UserError
from diffusionblocks.methods import build
from diffusionblocks.plan import explain as explaining
from diffusionblocks.plan.check import check_frame
from diffusionblocks.plan.configuration import complete, merge, read_yaml
from diffusionblocks.plan.explain import explain
from diffusionblocks.plan.layers import layers, resolve, trained
from diffusionblocks.plan.plan import Plan, plan
from diffusionblocks.plan.row import Row, sample_name
from diffusionblocks.plan.sections import fingerprint, section_name
from diffusionblocks.plan.start import keep_profile, keep_scale
from diffusionblocks.training.settings import Settings

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
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
# Those with tables of their own; text_cosine.yaml changes the shipped ones.
STUDIES = sorted(set((ROOT / "workflow/studies").glob("*.yaml")) - {ROOT / "workflow/studies/text_cosine.yaml"})
PLANS = {scale: Plan.of({**CONFIG, "scale": scale}) for scale in ("demo", "laptop", "gpu", "paper")}


# Merging


def test_merge_goes_key_by_key():
    base = {"a": 1, "model": {"name": "vit", "width": 64, "deep": {"x": 1, "y": 2}}}
    over = {"model": {"width": 128, "deep": {"y": 3}}, "b": 2}
    merged = merge(base, over)
    assert merged == {"a": 1, "b": 2, "model": {"name": "vit", "width": 128, "deep": {"x": 1, "y": 3}}}
    assert base["model"]["width"] == 64 and base["model"]["deep"]["y"] == 2, "merging changes neither side"


def test_another_name_replaces_a_section_whole_and_the_same_name_does_not():
    base = {"method": {"name": "diffusionblocks", "overlap": 0.1, "num_blocks": 3}}
    assert merge(base, {"method": {"name": "end_to_end"}}) == {"method": {"name": "end_to_end"}}
    same = merge(base, {"method": {"name": "diffusionblocks", "num_blocks": 2}})
    assert same["method"] == {"name": "diffusionblocks", "overlap": 0.1, "num_blocks": 2}
    first = merge({"method": {"overlap": 0.1}}, {"method": {"name": "diffusionblocks"}})
    assert first["method"] == {"overlap": 0.1, "name": "diffusionblocks"}, "a section that had no name keeps its keys"
    lists = merge({"train": {"augment": ["crop", "flip"]}}, {"train": {"augment": []}})
    assert lists == {"train": {"augment": []}}


def test_null_removes_what_stood_below():
    below = {"metrics": {"accuracy": {"name": "accuracy"}, "top_5": {"name": "top_5_accuracy"}}}
    assert merge(below, {"metrics": {"accuracy": None}}) == {"metrics": {"top_5": {"name": "top_5_accuracy"}}}
    kept = merge({"metrics": {}}, {"metrics": {"accuracy": None}}, keep_null=True)
    assert merge(below, kept) == {"metrics": {"top_5": {"name": "top_5_accuracy"}}}, "from a layer further below"


def test_steps_and_epochs_displace_each_other():
    assert merge({"train": {"epochs": 9, "lr": 1}}, {"train": {"steps": 5}}) == {"train": {"lr": 1, "steps": 5}}
    assert merge({"train": {"steps": 9}}, {"train": {"epochs": 5}}) == {"train": {"epochs": 5}}
    both = {"train": {"steps": 1, "epochs": 2}}
    assert merge({"train": {"epochs": 9}}, both) == both, "for Settings to refuse"


LAYERS = {
    "scale": "demo",
    "seeds": [3, 5],
    "tables": {
        "first": {
            "title": "First",
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
                "alike": {
                    "like": "first/blocks",
                    "method": {"overlap": 0.2},
                    "metrics": {"more": {"name": "accuracy"}},
                },
                "more_alike": {"like": "first/alike", "method": {"sharing": "joint"}},
            },
        },
        "second": {"rows": {"plain": "first/plain", "blocks": "first/blocks"}, "demo": {}},
        "third": {"rows": {"plain": "first/plain"}, "paper": {}},
        "fourth": {
            "like": "first/own",
            "model": {"num_heads": 10, "mlp_width": 10, "patch_size": 10, "dropout": 10},
            "seeds_at_most": 1,
            "demo": {"model": {"mlp_width": 11, "patch_size": 11, "dropout": 11}},
            "rows": {
                "layered": {"model": {"patch_size": 12, "dropout": 12}, "demo": {"model": {"dropout": 13}}},
                "seeded": {"demo": {"seeds_at_most": None}},
                "replaced": {"method": {"name": "diffusionblocks"}, "like": "fourth/seeded"},
            },
        },
        "fifth": {"like": "fourth/seeded", "rows": {"plain": {}}},
    },
}


def resolved(table, row, **changes):
    return resolve(layers({**LAYERS, **changes}, table, row))


def test_table_then_scale_then_row_then_its_scale():
    assert resolved("first", "plain")["model"] == {
        "name": "vit", "num_layers": 6, "width": 2, "num_heads": 2, "mlp_width": 2
    }  # fmt: skip
    own = resolved("first", "own")
    assert own["model"] == {"name": "vit", "num_layers": 6, "width": 2, "num_heads": 3, "mlp_width": 4}
    assert own["train"] == {"lr": 0.1, "batch_size": 1, "steps": 5}
    paper = resolved("first", "own", scale="paper")
    assert paper["model"]["mlp_width"] == 3 and paper["model"]["width"] == 99
    assert paper["train"] == {"lr": 0.1, "batch_size": 1, "epochs": 9}


def test_like_takes_another_row_and_goes_on_from_there():
    assert resolved("first", "alike")["method"] == {
        "name": "diffusionblocks", "num_blocks": 2, "overlap": 0.2
    }  # fmt: skip
    assert set(resolved("first", "alike")["metrics"]) == {"accuracy", "more"}
    more = resolved("first", "more_alike")
    assert more["method"] == {"name": "diffusionblocks", "num_blocks": 2, "overlap": 0.2, "sharing": "joint"}
    assert set(more["metrics"]) == {"accuracy", "more"}


def test_a_table_that_is_like_a_row_of_another_starts_from_all_of_that_rows():
    """The other row, then this table, its scale, the row, the row's scale: each sets one key that no later one does."""
    assert resolved("fourth", "layered")["model"] == {
        "name": "vit", "num_layers": 6, "width": 2, "num_heads": 10, "mlp_width": 11, "patch_size": 12, "dropout": 13
    }  # fmt: skip
    assert resolved("fourth", "replaced")["method"] == {"name": "diffusionblocks"}
    paper = resolved("fourth", "layered", scale="paper")["model"]
    assert (paper["width"], paper["mlp_width"], paper["dropout"]) == (99, 10, 12)


def test_seeds_are_the_configured_ones_or_the_first_of_them():
    seeds = {row: Row(LAYERS, "fourth", row).seeds for row in LAYERS["tables"]["fourth"]["rows"]}
    assert seeds == {"layered": [3], "seeded": [3, 5], "replaced": [3, 5]}
    assert Row(LAYERS, "first", "plain").seeds == [3, 5]
    many = {**LAYERS, "seeds": [0, 1, 2, 3, 4]}
    assert Row(many, "first", "plain").seeds == [0, 1, 2, 3, 4] and Row(many, "fourth", "layered").seeds == [0]


def test_row_of_text_is_a_run_trained_elsewhere():
    assert trained(LAYERS, "second", "plain") == ("first", "plain")
    assert trained(LAYERS, "first", "own") == ("first", "own")
    found = Plan(LAYERS)
    runs = [f"results/demo/runs/first/{row}/seed{seed}/metrics.json" for row in ("plain", "blocks") for seed in (3, 5)]
    assert found.metrics_of(["second"]) == runs and not [row for table, row in found.rows if table == "second"]
    assert found.tables == ["first", "second", "fourth", "fifth"]
    assert Plan({**LAYERS, "scale": "paper"}).tables == ["first", "third", "fourth", "fifth"], "through `like`"
    assert Plan({**LAYERS, "select": ["fourth"]}).tables == ["fourth"]


def test_run_holds_what_decides_a_model_and_no_metrics():
    run = Row(LAYERS, "first", "blocks").run(5)
    assert list(run) == ["scale", "table", "row", "seed", "data", "model", "method", "train"]
    assert (run["scale"], run["table"], run["row"], run["seed"]) == ("demo", "first", "blocks", 5)


def test_each_row_is_resolved_once(monkeypatch):
    counted = []
    monkeypatch.setattr("diffusionblocks.plan.row.resolve", lambda found: counted.append(found) or resolve(found))
    found = Plan.of({**CONFIG, "scale": "demo"})
    assert len(counted) == len(found.rows) == 119 and found.written


GENERATION = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "t": {
            "demo": {},
            "title": "T",
            "data": {"name": "digits"},
            "model": {"name": "dit", "num_layers": 3},
            "method": {"name": "diffusionblocks"},
            "train": {},
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
    found = Row(GENERATION, "t", "row").metrics
    common = {"num_samples": 100, "sets": 1, "shards": 4}
    assert found["fid"] == {"name": "fid", "reference": "train", "sampling": {**common, "guidance": 2.0}}
    assert found["fid_plain"]["sampling"] == {**common, "guidance": 1.0}
    predicts = Row(GENERATION, "t", "predicts").metrics
    assert predicts["accuracy"]["sampling"] == {}, "a row says how it generates; predictions say it themselves"


def test_images_are_generated_once_for_all_metrics_that_agree():
    sets = Row(GENERATION, "t", "row").sample_sets
    assert [sampling["guidance"] for sampling in sets.values()] == [2.0, 1.0]
    assert Row(GENERATION, "t", "predicts").sample_sets == {}


def test_name_of_a_sample_set_forgets_shards_and_the_order_of_keys_and_nothing_else():
    sampling = {"num_samples": 10, "sets": 1, "shards": 1, "guidance": 2.0}
    name = sample_name(sampling)
    assert sample_name({"guidance": 2.0, "shards": 7, "sets": 1, "num_samples": 10}) == name
    others = [{"num_samples": 11}, {"sets": 2}, {"guidance": 1.0}, {"solver": "heun"}, {"grid": "karras"}]
    names = {sample_name({**sampling, **other}) for other in others} | {name}
    assert len(names) == 6 and all(re.fullmatch(r"[0-9a-f]{8}", name) for name in names)


def test_an_extractor_is_wanted_by_metrics_of_features_alone():
    assert Row(GENERATION, "t", "row").extractor == {"name": "small_cnn"}
    assert Row(GENERATION, "t", "predicts").extractor is None


def test_a_metric_may_name_an_extractor_of_its_own():
    """Files of both, the row's and the metric's, are behind an evaluation, and each is asked for once."""
    own, config = {"name": "small_cnn", "width": 9}, copy.deepcopy(GENERATION)
    config["tables"]["t"]["rows"]["row"]["metrics"]["fid"]["extractor"] = own
    config["tables"]["t"]["rows"]["row"]["metrics"]["recall"] = {"name": "recall", "extractor": dict(own)}
    row, plain = Row(config, "t", "row"), Row(GENERATION, "t", "row")
    assert row.extractor == plain.extractor == {"name": "small_cnn"}
    named = f"small_cnn-{fingerprint({'width': 9})[:8]}"
    assert row.extractors == {"small_cnn": {"name": "small_cnn"}, named: own}
    folder = "results/demo/features/digits"
    assert row.scorer_files() == [
        f"{folder}/{name}/{file}.safetensors" for name in ("small_cnn", named) for file in ("weights", "reference")
    ]
    assert plain.scorer_files() == row.scorer_files()[:2]
    assert row.run(0) == plain.run(0) and row.sample_sets == plain.sample_sets
    assert row.evaluation()["metrics"]["fid"]["extractor"] == own
    written = Plan(config).written
    assert written[f"features/digits/{named}/extractor"] == own
    assert written["features/digits/small_cnn/extractor"] == {"name": "small_cnn"}
    for section in config["tables"]["t"]["rows"]["row"]["metrics"].values():
        if section["name"] == "fid":
            section["extractor"] = own
    assert Row(config, "t", "row").extractor is None, "what every metric replaces is not asked for"
    assert list(Row(config, "t", "row").extractors) == [named]


def test_a_metric_of_the_real_images_features_alone_wants_an_extractor_too(tmp_path, monkeypatch):
    (tmp_path / "own_spread.py").write_text("def spread(references): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = copy.deepcopy(GENERATION)
    config["tables"]["t"]["rows"]["row"]["metrics"] = {"spread": {"name": "own_spread.spread"}}
    assert Row(config, "t", "row").extractor == {"name": "small_cnn"}


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
    table = {**LAYERS["tables"]["first"], "method": method, "rows": {"row": {}}}
    assert Row({**LAYERS, "tables": {"first": table}}, "first", "row").parts == expected


def test_data_files_are_named_by_set_and_keywords():
    assert section_name({"name": "digits"}) == "digits"
    names = {section_name({"name": "digits", "split": split}) for split in ("test", "validation")}
    assert len(names) == 2 and all(re.fullmatch(r"digits-[0-9a-f]{8}", name) for name in names)
    assert section_name({"split": "test", "name": "digits"}) in names


def test_fingerprint_forgets_the_order_of_keys_and_nothing_else():
    one = fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert one == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert one != fingerprint({"a": 1, "b": {"c": [2, 1], "d": None}})


# Remarks


REMARKED = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "a": {
            "title": "a",
            "data": {"name": "digits"},
            "model": {"name": "vit"},
            "method": {"name": "end_to_end"},
            "train": {"steps": 1},
            "demo": {},
            "gpu": {},
            "rows": {
                "one": {
                    "title": "The first",
                    "remark": "of the row",
                    "paper_row": "other",
                    "demo": {"remark": "of the demo"},
                },
                "two": {"like": "a/one", "against": "one"},
                "three": {"gpu": {"remark": "of the gpu"}},
                "four": {"remark": "of the row", "demo": {"remark": ""}},
            },
        },
        "b": {"title": "b", "demo": {}, "gpu": {}, "rows": {"text": "a/one"}},
    },
}


@pytest.mark.parametrize(
    ("scale", "remarks"),
    [
        ("demo", {"one": "of the demo", "two": None, "three": None, "four": ""}),
        ("laptop", {"one": "of the demo", "two": None, "three": None, "four": ""}),
        ("gpu", {"one": "of the row", "two": None, "three": "of the gpu", "four": "of the row"}),
    ],
)
def test_remarks_go_from_the_configuration_to_the_rows(scale, remarks):
    """The scale's before the row's; neither a row that is `like` it nor one that is text has it; no run has it."""
    found = Plan({**REMARKED, "scale": scale})
    rows = found.written["tables/a"]["rows"]
    assert {row: about["remark"] for row, about in rows.items()} == remarks
    assert {row: (about["paper_row"], about["against"]) for row, about in rows.items()} == {
        "one": ("other", None),
        "two": ("two", "one"),
        "three": ("three", None),
        "four": ("four", None),
    }
    text = {"run": "a/one", "title": "The first", "paper_row": "text", "against": None, "remark": None}
    text |= {"series": "ours", "metrics": [f"results/{scale}/runs/a/one/seed0/metrics.json"]}
    assert found.written["tables/b"]["rows"] == {"text": {**text, "settings": rows["one"]["settings"]}}
    assert "remark" not in str([row.run(0) for row in found.rows.values()]), "it would train again"


def test_rows_are_called_what_their_file_says():
    """A row that is `like` another has a title of its own; one without, its name."""
    config = copy.deepcopy(REMARKED)
    config["tables"]["b"]["rows"] |= {"untitled": "a/two"}
    rows = {table: Plan({**config, "scale": "demo"}).written[f"tables/{table}"]["rows"] for table in ("a", "b")}
    titles = {row: about["title"] for table in rows.values() for row, about in table.items()}
    expected = {"one": "The first", "two": "two", "three": "three", "four": "four"}
    assert titles == {**expected, "text": "The first", "untitled": "untitled"}


@pytest.mark.parametrize("scale", PLANS)
def test_every_shipped_row_has_a_title_that_no_other_of_its_table_has(scale):
    for table in PLANS[scale].tables:
        rows = PLANS[scale].written[f"tables/{table}"]["rows"]
        assert len({about["title"] for about in rows.values()} - rows.keys()) == len(rows), table


def test_a_table_has_the_settings_of_its_rows_as_explain_does(explained):
    """Each value with the layer that says it; of a default with none. Not the line, which moves without a change."""
    for table in PLANS["demo"].tables:
        for about in PLANS["demo"].written[f"tables/{table}"]["rows"].values():
            told = explained[about["run"]]
            assert {key: str(value) for key, (value, _) in about["settings"].items()} == {
                key: value for key, (value, _) in told.items()
            }
            for key, (_, layer) in about["settings"].items():
                assert (layer is None) == told[key][1].startswith("default of "), key
    said = PLANS["demo"].written["tables/table8"]["rows"]["b1"]["settings"]
    assert said["train.steps"] == [200, "tables.table2.rows.imagenet_dit_end_to_end.demo"]
    assert said["train.clip"] == [1.0, None]


def test_a_laptop_has_what_the_demo_has_and_its_own_on_top():
    """In every place: the row's own of any scale go before the table's."""
    config = copy.deepcopy(LAYERS)
    first = config["tables"]["first"]
    first["laptop"], first["rows"]["own"]["laptop"] = {"train": {"steps": 7, "lr": 0.1}}, {"train": {"lr": 0.2}}
    demo, laptop = (Plan({**config, "scale": scale}) for scale in ("demo", "laptop"))
    assert laptop.tables == demo.tables == ["first", "second", "fourth", "fifth"]
    of_demo, of_laptop = (plan.rows["first", "own"].resolved for plan in (demo, laptop))
    assert of_laptop == {**of_demo, "train": {**of_demo["train"], "steps": 7, "lr": 0.2}}


@pytest.mark.parametrize(
    ("seeds", "found"),
    [
        ({"demo": [4, 5], "laptop": [1], "gpu": [2], "paper": [3]}, [4, 5]),
        ([7], [7]),
        ({"demo": [4]}, "seeds: needs 'laptop'"),
        ({"demo": [4], "laptop": [], "gpu": [2], "paper": [3]}, r"seeds.laptop: \[\] should not be empty"),
        ({"demo": [4], "laptop": [1], "gpu": [2], "paper": [3], "else": [1]}, "seeds: unknown key 'else'"),
        (3, "seeds: 3 should be a list"),
    ],
)
def test_seeds_may_differ_between_scales(seeds, found):
    config = {**copy.deepcopy(CONFIG), "seeds": seeds}
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            Plan.of(config)
    else:
        assert Plan.of(config).rows["table1", "vit_end_to_end"].seeds == found


def test_the_schema_knows_remarks_of_rows():
    config = copy.deepcopy(REMARKED)
    config["tables"]["a"]["rows"]["one"] |= {scale: {"remark": "of the scale"} for scale in ("demo", "gpu", "paper")}
    check_frame(config)


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("rows", "one", "remark"), 5, r"rows\.one\.remark: 5 should be a text or null"),
        (("rows", "one", "gpu", "remark"), ["a"], r"rows\.one\.gpu\.remark: \['a'\] should be a text or null"),
        (("rows", "one", "remarks"), "a", r"rows\.one: unknown key 'remarks'; did you mean 'remark'"),
        (("rows", "one", "gpu", "remarks"), "a", r"rows\.one\.gpu: unknown key 'remarks'; did you mean 'remark'"),
        (("remark",), "a", r"tables\.a: unknown key 'remark'"),
        (("demo", "remark"), "a", r"tables\.a\.demo: unknown key 'remark'"),
    ],
)
def test_the_schema_refuses_remarks_of_another_kind_or_place(way, value, message):
    """Of a table there are none: nothing would show them."""
    config = copy.deepcopy(REMARKED)
    section = config["tables"]["a"]
    for key in way[:-1]:
        section = section.setdefault(key, {})
    section[way[-1]] = value
    with pytest.raises(UserError, match=message):
        check_frame(config)


# Files


def test_all_yaml_of_the_repository_is_read_as_it_was_meant():
    for path in ROOT.rglob("*.yaml"):
        if not {".venv", "results", ".snakemake", ".git"} & set(path.relative_to(ROOT).parts):
            read_yaml(path)


def test_a_table_of_ones_own_and_a_change_of_another_lie_over_the_shipped_ones():
    mine = {"mine": {"title": "Mine", "like": "table1/vit_end_to_end", "rows": {"plain": {}}, "demo": {}}}
    change = {
        "table1": {"demo": {"train": {"epochs": 2}}, "rows": {"vit_forward_forward_contrastive": None, "new": {}}}
    }
    found = Plan.of({**CONFIG, "tables": {**mine, **change, "table6": None}})
    assert "table6" not in found.tables and ("table1", "vit_forward_forward_contrastive") not in found.rows
    claims, shipped = (one.written["tables/table1"]["claims"] for one in (found, Plan.of(CONFIG)))
    about = [claim for claim in shipped if "vit_forward_forward_contrastive" in (claim["row"], claim["against"])]
    assert about and [claim for claim in shipped if claim not in about] == claims, "they go with the row"
    assert found.rows["mine", "plain"].train["epochs"] == 2, "steps, which stood there, are displaced"
    assert "steps" not in found.rows["table1", "new"].train
    assert found.written["tables/mine"]["paper"] is None and found.written["tables/mine"]["claims"] == []
    assert CONFIG["scale"] == "demo" and "tables" not in CONFIG


def test_a_table_without_its_control_has_no_control():
    found = Plan.of({**CONFIG, "tables": {"table1": {"rows": {"vit_shallow": None}}}}).written["tables/table1"]
    assert found["depth"] == [] and found["claims"]
    assert all("vit_shallow" not in (claim["row"], claim["against"]) for claim in found["claims"])


@pytest.mark.parametrize(("said", "meant"), [("false", False), ("true", True), (False, False)])
def test_a_switch_of_the_command_line_arrives_as_text(said, meant):
    assert Plan.of({**CONFIG, "track_code": said}).config["track_code"] is meant


def test_a_row_can_drop_a_metric_of_its_table():
    drop = {"table1": {"rows": {"vit_end_to_end": {"metrics": {"accuracy": None}}}}}
    found = Plan.of({**CONFIG, "tables": drop})
    assert found.rows["table1", "vit_end_to_end"].metrics == {} and found.rows["table1", "vit_diffusionblocks"].metrics


def test_every_written_file_has_a_name_that_the_rule_knows(tmp_path):
    for found in PLANS.values():
        assert all(re.fullmatch(Plan.PLANNED, name) for name in found.written)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLANS["demo"].written))
    name = "runs/table1/vit_end_to_end/seed0/run"
    plan(path, name, tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == PLANS["demo"].written[name]
    with pytest.raises(UserError, match="has no runs/table1/none"):
        plan(path, "runs/table1/none/seed0/run", tmp_path / "run.json")


def test_explain_names_the_line_of_every_value():
    text = explain("table_a3/b4_calibrated", "demo")
    found = dict(re.findall(r"^  ([\w.]+): .*? {2,}(\S+)$", text, re.MULTILINE))
    for key in ("method.p_mean", "method.overlap", "method.num_blocks", "model.width", "metrics.mauve.name"):
        file, line = found[key].split(":")
        assert key.rpartition(".")[2] in (ROOT / file).read_text().splitlines()[int(line) - 1]
    assert "seeds: [0, 1, 2]" in text and "method.p_mean: 0.0" in text
    assert "table1/vit_diffusionblocks_joint" in explain("table1/vit_diffusionblocks").split("like it:")[1]
    with pytest.raises(UserError, match=r"no row .*did you mean 'table1/vit_end_to_end'"):
        explain("table1/vit_end_to_ende")


def test_explain_sees_the_users_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("tables:\n  table1:\n    demo:\n      train:\n        lr: 0.5\n")
    assert re.search(r"train\.lr: 0\.5 +\S*mine\.yaml:5", explain("table1/vit_end_to_end", "demo", [path]))
    own = {"table2": {"metrics": {"fid_test": {"extractor": {"name": "small_cnn", "steps": 9}}}}}
    path.write_text(json.dumps({"tables": own}))
    told = explain("table2/cifar10_dit_end_to_end", "demo", [path])
    assert re.search(r"metrics\.fid_test\.extractor\.steps: 9 +\S*mine\.yaml:1", told)
    assert re.search(r"metrics\.fid_test\.extractor\.width: 64 +default of \S+\.small_cnn", told)
    assert "metrics.fid_train.extractor" not in told
    path.write_text("tables: {table6: null, table1: {rows: {vit_forward_forward_contrastive: null}}}")
    told = explain("table1/vit_end_to_end", "demo", [path])
    assert "vit_diffusionblocks" in told and "contrastive" not in told and "table6" not in told


# A profile's scale


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        (["--profile", "slurm", "all"], "paper"),
        (["--profile", "slurm", "--config", "scale=demo"], "demo"),
        (["--profile", "slurm", "--configfile", "workflow/profiles/gpu/gpu.yaml"], "gpu"),
        (
            [
                "--profile",
                "slurm",
                "--default-resources",
                "slurm_partition=x",
                *("mem_mb=1", "runtime=1", "cpus_per_task=1"),
            ],
            "paper",
        ),
        (["--profile", "workflow/profiles/gpu", "--resources", "gpu=2", "--cores", "4"], "gpu"),
        (["--profile", "workflow/profiles/gpu", "--restart-times", "2", "-c4"], "gpu"),
        (["--mode", "subprocess", "--profile", "slurm", "--set-resources", "base64//eA=="], "paper"),
        (["all"], "demo"),
    ],
)
def test_a_profile_that_loses_nothing_is_left_alone(arguments, scale, monkeypatch):
    """What is refused stands in test_bad_inputs.py."""
    monkeypatch.chdir(ROOT)
    keep_scale({"scale": scale}, arguments)
    keep_profile(arguments)


# The configuration that is shipped


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_passes_every_check(file):
    """Its header says the command that makes it, and where its figures are written down."""
    text = file.read_text()
    study = yaml.safe_load(text)
    found = Plan.of({**CONFIG, **study})
    (target,) = re.findall(rf"^#   snakemake (\w+) --configfile workflow/studies/{file.name}$", text, re.MULTILINE)
    tables = dict.fromkeys(table for name, tables, _ in found.targets() if name == target for table in tables)
    assert [*tables] == [*study["tables"]] and found.metrics_of([*tables])
    page = re.search(r"docs/studies/\w+\.md", text)[0]
    assert f"workflow/studies/{file.name}" in (ROOT / page).read_text()


def test_the_study_of_noise_passes_every_check():
    study = yaml.safe_load((ROOT / "workflow/studies/noise_level.yaml").read_text())
    assert len(Plan.of({**CONFIG, **study}).metrics_of(["noise_level"])) == 3 * 10


def test_the_optimizer_of_texts_is_block_diffusions_or_a_cosine():
    """At scale paper; tables 5 and A3 follow table 4."""
    study = yaml.safe_load((ROOT / "workflow/studies/text_cosine.yaml").read_text())
    other = Plan.of({**CONFIG, **study, "scale": "paper"})
    rows = [key for key in PLANS["paper"].rows if key[0] in ("table4", "table5", "table_a3")]
    assert len(rows) > 10
    for key in rows:
        train, cosine = (Settings.of(plan.rows[key].run(0)["train"]) for plan in (PLANS["paper"], other))
        assert (train.lr, train.min_lr, train.weight_decay, train.ema) == (0.0003, 0.0003, 0.0, 0.9999), key
        assert (cosine.lr, cosine.min_lr, cosine.weight_decay, cosine.ema) == (0.0003, 0.0, 0.01, None), key
        assert train.warmup_steps == cosine.warmup_steps == 2500


@pytest.mark.parametrize("scale", PLANS)
def test_every_row_is_built(scale):
    """On the meta device, where the paper's sizes cost nothing; the parts together are the whole."""
    for row in PLANS[scale].rows.values():
        run = row.run(0)
        Settings.of(run["train"])
        shape = SHAPES.get(run["data"]["name"]) or {"vocab_size": 512, "seq_len": 64, **run["data"]}
        with torch.device("meta"):
            whole = build(run, shape, None).state_dict()
            parts = [build(run, shape, part).state_dict() for part in row.parts]
        assert sum(map(len, parts)) == len(whole)
        assert {name: value.shape for part in parts for name, value in part.items()} == {
            name: value.shape for name, value in whole.items()
        }


def test_rows_of_the_ablations_are_what_their_names_say():
    partitions = {"uniform": "log_uniform", "equi_probability": "equi_probability", "linear": "uniform"}
    for (table, name), row in PLANS["paper"].rows.items():
        if table == "table7":
            split, *counts = name.rsplit("_", 3)
            found = row.method_settings
            assert (found["partition"], found["layers_per_block"]) == (partitions[split], list(map(int, counts)))
    for found in PLANS.values():
        for table in ("table8", "table_a2"):
            origins = {row: found.origins[table, row] for row in found.config["tables"][table]["rows"]}
            counts = {row: found.rows[origin].method["num_blocks"] for row, origin in origins.items()}
            assert counts == {"b1": 1, "b2": 2, "b3": 3, "b4": 4, "b6": 6}


def test_every_row_stands_beside_a_printed_one_or_says_what_it_is():
    for about in (value for name, value in PLANS["demo"].written.items() if name.startswith("tables/")):
        printed = about["paper"]["rows"]
        for row, own in about["rows"].items():
            assert row in printed or own["paper_row"] in printed or own["remark"]
        assert set(printed) <= set(about["rows"])


def test_the_schema_knows_every_rule():
    known = complete(CONFIG) and yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk")) + (ROOT / "Snakefile").read_text()
    rules = set(re.findall(r"^rule (\w+):", text, re.MULTILINE)) | set(re.findall(r"use rule \w+ as (\w+)", text))
    assert rules == set(known["$defs"]["rules"]["enum"]) and "sample" in rules


# What `explain` says of values that nobody says


@pytest.fixture(scope="module")
def explained():
    """{row: {path of keys: (value as text, where it was said)}} of every row of scale demo that is trained."""
    read = explaining.read_all([ROOT / "config.yaml"])  # once for all rows: it takes a third of a second
    planned = mock.patch.object(explaining.Plan, "of", return_value=PLANS["demo"])
    with planned, mock.patch.object(explaining, "read_all", return_value=read):
        told = {f"{table}/{name}": explain(f"{table}/{name}") for table, name in PLANS["demo"].rows}
    said = re.compile(r"^  ([\w.]+): (.*?) {2,}(\S.*)$", re.MULTILINE)
    return {row: {key: (value, where) for key, value, where in said.findall(text)} for row, text in told.items()}


def test_explain_has_every_value_with_its_source(explained):
    for (table, name), row in PLANS["demo"].rows.items():
        found = explained[f"{table}/{name}"]
        for key, value in vars(Settings.of(row.train)).items():
            assert found[f"train.{key}"][0] == str(value)
        for column, section in row.metrics.items():
            for key, value in section["sampling"].items():
                assert found[f"metrics.{column}.sampling.{key}"][0] == str(value)
        for key, (_, where) in found.items():
            said, _, line = where.rpartition(":")
            if said:
                text = (ROOT / said).read_text().splitlines()[int(line) - 1]
                assert key.rpartition(".")[2] in text, (key, where)
            else:
                assert re.fullmatch(r"default of diffusionblocks\.[\w.]+", where), (key, where)


def test_explain_says_which_module_a_default_is_of(explained):
    found = explained["table_a3/b4_calibrated"]
    assert found["train.clip"] == ("1.0", f"default of {Settings.__module__}")
    assert found["metrics.mauve.sampling.shards"] == ("1", "default of diffusionblocks.plan.row")
    assert found["metrics.mauve.sampling.num_samples"] == found["sampling.num_samples"]
    assert found["metrics.mauve.sampling.hand_off"] == ("soft", "default of diffusionblocks.methods.diffusionblocks")
    assert found["metrics.mauve.scaling_factor"] == ("2.0", "default of diffusionblocks.evaluation.metrics.language")
    assert found["metrics.mauve_c5.scaling_factor"][1].startswith("workflow/tables/table4.yaml:")
    assert found["metrics.mauve.teacher.width"] == ("96", "default of diffusionblocks.scorers.teachers.trained")
    found = explained["table2/cifar10_dit_diffusionblocks"]
    assert found["extractor.width"] == ("64", "default of diffusionblocks.scorers.extractors.small_cnn")
    assert explained["table3/mdm_diffusionblocks"]["metrics.bpc.sampling.passes"][1].startswith(
        "workflow/tables/table3"
    )

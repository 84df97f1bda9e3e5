"""The bill before the run: against sums done by hand, real files, real memory; what it says where it cannot know."""

import csv
import json
import sys

import pytest
import torch
import yaml
from conftest import ROOT, Checkout, shipped
from page_helpers import IMAGES, measured, written_page
from page_helpers import plan as table_of

from diffusionblocks.base import rates, tensors
from diffusionblocks.data.chance import Chance
from diffusionblocks.data.source import call_source
from diffusionblocks.evaluation import count, estimate
from diffusionblocks.evaluation.dispatch import Flop
from diffusionblocks.methods import build
from diffusionblocks.plan import bill
from diffusionblocks.plan.estimate import Asked, asked
from diffusionblocks.plan.sections import sizes
from diffusionblocks.training.trainer import Trainer
from diffusionblocks.verbs import main

LINEAR = """
from torch import nn
from torch.nn import functional as F
from diffusionblocks.models import base

class Model(base.Model):
    def __init__(self, shape, noise=None, target_norm=1.0, *, num_layers=1):
        super().__init__()
        pixels = shape["channels"] * shape["image_size"] ** 2
        self.layers = nn.ModuleList(nn.Linear(pixels, shape["num_classes"], bias=False) for _ in range(num_layers))

    def end_to_end_prediction(self, batch):
        return self.layers[0](batch["image"].flatten(1))

    def end_to_end_loss(self, batch):
        return F.cross_entropy(self.end_to_end_prediction(batch), batch["label"], reduction="none")
"""
TRAIN = {"steps": 50, "batch_size": 16, "lr": 0.1}
FLOP = 50 * 16 * 2 * (2 * 64 * 10)  # samples, forward and the gradient of the weights, a product of 64 x 10
H100 = bill.Rate("h100", 0.5, {"": 1440})


def config(scale="demo", **tables):
    found = {**yaml.safe_load((ROOT / "config.yaml").read_text()), "scale": scale}
    return {**found, "tables": tables, "select": [*tables]} if tables else found


def table(model, **changes):
    common = {
        "data": {"name": "digits"},
        "model": {"name": model, "num_layers": 1},
        "method": {"name": "end_to_end"},
        "train": TRAIN,
    }
    common["metrics"] = {"accuracy": {"name": "accuracy"}}
    return {"title": "Mine", "demo": {**common, **changes}, "rows": {"plain": {}}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, in which results are looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def billed(given, tables=(), rate=H100):
    wanted = asked(given, tables)
    counted, failed = estimate.estimate(wanted.rows, "estimate.json")
    return bill.bill(wanted, counted, rate), wanted.unknown | failed


def test_a_linear_network_by_hand(own, place):
    found, unknown = billed(config(mine=table(own(LINEAR))))
    (line,) = found["lines"]
    assert not unknown and (line["updates"], line["parameters"], line["seeds"]) == (50, 640, 3)
    assert line["tflop"] == pytest.approx(FLOP / 1e12)
    assert line["hours"] == pytest.approx(FLOP / (0.5 * 495e12) / 3600)
    assert line["disk_bytes"] == 640 * 4 and line["checkpoint_bytes"] == 3 * 640 * 4 + 4  # two moments, a step
    assert found["total"]["tflop"] == pytest.approx(3 * FLOP / 1e12) and found["total"]["trainings"] == 3


def test_epochs_are_those_of_the_data(own, place):
    train = {"epochs": 3, "batch_size": 100, "lr": 0.1}
    found, _ = billed(config(mine=table(own(LINEAR), train=train)))
    assert found["lines"][0]["updates"] == 3 * (1437 // 100)
    held_out = {"name": "digits", "split": "validation"}
    found, _ = billed(config(mine=table(own(LINEAR), train=train, data=held_out)))
    assert found["lines"][0]["updates"] == 3 * ((1437 - 1437 // 5) // 100)


def test_what_is_prepared_says_its_own_sizes(own, place):
    about = {"shape": {"image_size": 4, "channels": 2, "num_classes": 5}, "train_size": 30}
    path = place / "results/demo/data/digits.safetensors"
    tensors.write(path, {"train_labels": torch.zeros(3)}, about)
    wanted = asked(config(mine=table(own(LINEAR), train={"epochs": 2, "batch_size": 10, "lr": 0.1})))
    assert wanted.rows["mine/plain"]["shape"] == about["shape"] and wanted.rows["mine/plain"]["updates"] == 6
    assert wanted.data() == {"digits": path.stat().st_size}


def test_a_run_of_two_tables_is_counted_once(own, place):
    mine = table(own(LINEAR))
    other = {**mine, "rows": {"again": "mine/plain"}}
    found, _ = billed(config(mine=mine, other=other))
    assert found["tables"]["other"]["trainings"] == 0 and found["total"] == found["tables"]["mine"]
    alone, _ = billed(config(mine=mine, other=other), ["other"])
    assert alone["total"] == found["total"], "where the first table is not asked for, the second has to train it"


def test_an_optimizer_with_less_state_is_counted_apart(own, place):
    mine = table(own(LINEAR))
    mine["rows"]["factored"] = {"train": {"optimizer": "adafactor"}}
    found, _ = billed(config(mine=mine))
    assert [line["checkpoint_bytes"] for line in found["lines"]] == [(3 * 640 + 1) * 4, (640 + 64 + 10 + 1) * 4]


def test_links_are_jobs_within_the_time_limit(own, place):
    row = {"run": {"train": TRAIN}, "updates": 50, "seeds": 1, "samples": []}
    part = {"network": 640, "peak": 9, "held": 5, "weights": 1, "checkpoint": 1, "blocks": 1}
    part |= {"passes": {"forward": 1, "backward": 1}}
    for seconds, limit, links in ((59, 1, 1), (61, 1, 2), (150, 1, 3), (150, 3, 1), (0, 1, 1)):
        flop = seconds * 0.5 * 495e12 / (50 * 16)  # of a sample
        rate = bill.Rate("h100", 0.5, {"": 99, "t": limit})
        (line,) = bill._lines("t/r", row, {"parts": {"all": {**part, "flop": flop}}}, rate)
        assert line["links"] == links


def test_time_limits_by_table_and_row():
    rate = bill.Rate.of("paper", None, None, ["720", "table4=2880", "table4/owt=9"])
    assert rate.device == "h100" and rate.share == rates.SHARE
    assert [rate.limit(run) for run in ("table1/a", "table4/b", "table4/owt")] == [720, 2880, 9]
    assert bill.by_table({("a", "x"): 1, ("a", "y"): 1, ("b", "x"): 1, ("b", "y"): 2}) == "a=1 b/x=1 b/y=2"
    assert bill.Rate.of("demo", None, None, []).device == "cpu"


def test_files_on_disk_are_as_large_as_predicted(tmp_path):
    row = shipped().rows["table1", "vit_diffusionblocks"]
    run, shape = row.run(0), row.shape
    parts = count.counted_parts(run, row.parts, shape)
    trainer = Trainer(run, "block0", Chance(shape, 64, "cpu"), torch.device("cpu"))
    trainer.update(0)
    for name, values in (("weights", trainer.weights()), ("checkpoint", trainer.tensors())):
        tensors.write(tmp_path / name, values, {"run": run})
        size = (tmp_path / name).stat().st_size
        assert parts["block0"][name] == pytest.approx(size, rel=0.02), name


@pytest.mark.parametrize(
    ("row", "megabytes"),
    [("table2/cifar10_dit_end_to_end", 30_806), ("table2/cifar10_dit_diffusionblocks", 11_014)],
)
def test_memory_in_bf16_is_near_what_a_gpu_measured(row, megabytes, place, monkeypatch):
    """docs/measurements.md, an H200, whose layers kept all that autograd keeps, as before a compiler."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    wanted = Asked(shipped("paper").written, "results/paper", ["table2"])
    counted, _ = estimate.estimate({row: wanted.rows[row]}, "estimate.json")
    line = next(iter(bill._lines(row, wanted.rows[row], counted[row], H100)))
    assert line["peak_bytes"] / 1e6 == pytest.approx(megabytes, rel=0.06)
    (part, *_) = counted[row]["parts"].values()
    assert part["held"] < line["peak_bytes"] < part["peak"]


@pytest.mark.parametrize("row", ["cifar10_dit_end_to_end", "cifar10_dit_diffusionblocks"])
def test_a_pass_of_a_network_is_a_third_of_an_update(row):
    row = shipped().rows["table2", row]
    parts = count.counted_parts(row.run(0), row.parts, row.shape)
    about = {"count": 1, "steps": 21, "passes": 1, "share": 1.0, "bytes": 0}
    with count.META:
        method = build(row.run(0), row.shape, None).eval()
    batch = Chance(row.shape, 1, count.META).train_batch(torch.arange(1, device=count.META))
    eps = torch.empty(1, *method.z_shape, device=count.META)
    with torch.no_grad(), Flop() as counter:
        method.predict(batch, eps, num_steps=21)
    assert bill._evaluations(parts, about) == pytest.approx(counter.total, rel=0.1)
    assert bill._evaluations(parts, {**about, "passes": 2}) == 2 * bill._evaluations(parts, about)


def test_samples_are_those_that_metrics_ask_for():
    wanted = Asked(shipped("paper").written, "results/paper", ["table2", "table3", "table4"])
    images, of_the_last_weights = wanted.rows["table2/imagenet_dit_end_to_end"]["samples"]
    assert (
        images
        == of_the_last_weights
        == {"count": 150_000, "steps": 50, "passes": 2, "share": 1.0, "bytes": 150_000 * 3 * 256 * 256}
    )
    (texts,) = wanted.rows["table3/mdm_end_to_end"]["samples"]
    assert texts == {"count": 100, "steps": 1000, "passes": 1, "share": 1.0, "bytes": 100 * 256 * 4}
    (more,) = wanted.rows["table4/owt_ar_diffusionblocks"]["samples"]
    assert more == {"count": 5000, "steps": None, "passes": 1, "share": 100 / 1024, "bytes": 5000 * 100 * 4}


def test_downloads_and_what_to_bring(tmp_path):
    wanted = Asked(shipped("paper").written, tmp_path, ["table1", "table2", "table4"])
    (tmp_path / "cifar-10-binary.tar.gz").write_text("")
    found = wanted.downloads(tmp_path)
    assert found["cifar-100-binary.tar.gz"] == (168_513_733, False) and found["cifar-10-binary.tar.gz"][1]
    assert found["diffusion_pytorch_model.safetensors"][0] == 334_643_276, "the autoencoder of latents"
    assert found["weights-inception-2015-12-05-6726825d.pth"][0] == 95_628_359 and found["gpt2_xl"][0] == 6.4e9
    of_images = Asked(shipped("paper").written, tmp_path, ["table2"])
    assert of_images.features() == 2 * 2 * rates.FEATURES_BYTES, "of two data sets, by two extractors"
    assert wanted.brought()[0].startswith("ImageNet") and len(wanted.brought()) == 3
    assert not Asked(shipped().written, tmp_path).downloads(tmp_path), "the demo downloads nothing"


# Where sizes come from


@pytest.mark.parametrize("name", ["digits", "fashion_mnist_16"])
def test_images_have_the_sizes_that_are_declared(name):
    _, found = call_source({"name": name}, "nowhere")
    _, channels, size, _ = found["train_images"].shape
    shape = {"image_size": size, "channels": channels, "num_classes": int(found["train_labels"].max()) + 1}
    assert sizes({"name": name}) == {"shape": shape, "train_size": len(found["train_images"])}


@pytest.mark.parametrize("name", ["sotu_characters", "sotu_sentences", "sotu_documents"])
def test_texts_have_the_sizes_that_are_declared(name):
    said = sizes({"name": name, "seq_len": 32})
    _, found = call_source({"name": name, "seq_len": 32}, "nowhere")
    tokens = len(found["tokenizer"].encode([text for split, text in found["documents"] if split == "train"]))
    assert said["shape"] == {"vocab_size": found["tokenizer"].vocab_size, "seq_len": 32}
    assert said["train_size"] == pytest.approx(tokens / 32, rel=0.05)


def test_latents_have_the_sizes_of_their_images():
    shape = {"image_size": 64, "channels": 4, "num_classes": 1000}
    assert sizes({"name": "imagenet", "image_size": 512})["shape"] == shape


SOURCE = """
from diffusionblocks.data.images.source import ImageSet
from diffusionblocks.data.sizes import sizes

{}
def mine(data_dir) -> ImageSet:
    raise OSError("not to be called")
"""


@pytest.mark.parametrize(
    ("decorator", "words"),
    [
        ("", "data {name}.mine is not prepared yet, and {file} does not say its sizes (by @sizes"),
        ("@sizes(channels=1, num_classes=10)", "@sizes of mine should say image_size, a whole number"),
        ("@sizes(image_size=8, channels=1.0, num_classes=10)", "@sizes of mine should say channels"),
        ("@sizes(image_size=8, channels=1, num_classes=10)", "train.epochs: {file} should say train_size by @sizes"),
    ],
)
def test_a_source_that_does_not_say_its_sizes_leaves_the_rest_to_be_estimated(own, place, capsys, decorator, words):
    name, file = own(SOURCE.format(decorator)), own.file
    given = table(own(LINEAR))
    train = {"epochs": 1, "batch_size": 5, "lr": 0.1}
    given["rows"]["unknown"] = {"data": {"name": f"{name}.mine"}, "demo": {"train": train}}
    found, unknown = billed(config(mine=given))
    assert list(unknown) == ["mine/unknown"] and [line["row"] for line in found["lines"]] == ["plain"]
    assert words.format(name=name, file=file) in unknown["mine/unknown"]
    assert bill.told(asked(config(mine=given)), found, unknown, H100, ".").count("not estimated") == 1


def test_a_network_that_needs_data_leaves_the_rest_to_be_estimated(own, place):
    asks = LINEAR.replace('reduction="none")', 'reduction="none") * batch["image"].sum().item()')
    given = table(own(LINEAR))
    given["rows"]["asks"] = {"model": {"name": own(asks), "num_layers": 1}}
    found, unknown = billed(config(mine=given))
    assert [line["row"] for line in found["lines"]] == ["plain"]
    assert unknown["mine/asks"].startswith("cannot be counted without data (")


# The verb


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "estimate", *arguments])
    main()


def test_the_verb_with_a_table_of_ones_own(own, place, capsys, monkeypatch):
    (place / "mine.yaml").write_text(yaml.safe_dump({"tables": {"mine": table(own(LINEAR))}, "seeds": [0]}))
    said = "mine", "--configfile", "mine.yaml"
    run(monkeypatch, *said, "--output", "bill.csv", "--device", "a100", "--share", "0.2")
    text = capsys.readouterr().out
    assert text.startswith("mine\n") and "1 trainings: " in text and "one A100 at 20% of 312 TFLOP/s" in text
    assert max(map(len, text.splitlines())) <= 100
    (line,) = csv.DictReader((place / "bill.csv").open())
    assert line["row"] == "plain" and float(line["tflop"]) == pytest.approx(FLOP / 1e12)
    monkeypatch.setattr(estimate, "counted_parts", None)  # all that it needs is kept
    run(monkeypatch, *said, "--output", "bill.json", "--runtime", "1")
    kept = json.loads((place / "bill.json").read_text())
    assert kept["total"]["trainings"] == 1 and kept["runtime"] == {"": 1} and kept["device"] == "cpu"
    (place / "results/demo/estimate.json").write_text("no JSON")
    run(monkeypatch, *said)
    assert "plain: not estimated: cannot be counted" in capsys.readouterr().out, "what cannot be read is counted again"


def test_config_says_what_an_hour_is(own, place, capsys, monkeypatch):
    said = {"tables": {"mine": table(own(LINEAR))}, "estimate": {"device": "l40s", "share": 0.25, "runtime": 7}}
    (place / "mine.yaml").write_text(yaml.safe_dump(said))
    run(monkeypatch, "mine", "--configfile", "mine.yaml")
    text = capsys.readouterr().out
    assert "one L40S at 25%" in text and "time limits of 7 minutes" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel1"], "estimate: no table 'tabel1'; did you mean 'table1'?"),
        (["memory"], "estimate: memory is counted, and nothing of it is trained"),
        (["table1", "--device", "h10"], "estimate: device 'h10' is not one of h100, "),
        (["table1", "--share", "0"], "estimate: share 0.0 should be above 0 and at most 1"),
        (["table1", "--configfile", "mine.yaml"], "config: estimate.runtime: 'soon' should be of type integer"),
        (["table1", "--runtime", "1h"], "estimate: runtime '1h' should be minutes"),
        (["table1", "--plan", "plan.json"], "plan.json: no such file"),
    ],
)
def test_what_is_refused_in_a_line(place, capsys, monkeypatch, arguments, words):
    (place / "mine.yaml").write_text("estimate: {runtime: soon}")
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_an_alias_is_its_tables(place):
    assert list(asked(config("paper"), ["ablation_block_count"]).tables) == ["table8", "table_a2", "table_a3"]


@pytest.mark.parametrize("scale", ["demo", "laptop", "gpu", "paper"])
def test_every_row_of_every_scale_has_sizes(scale, place):
    wanted = asked(config(scale))
    assert not wanted.unknown and len(wanted.rows) > 50 and all(row["updates"] for row in wanted.rows.values())


@pytest.mark.slow
def test_what_takes_days_at_scale_paper(place):
    found, unknown = billed(config("paper"), ["table2", "table4"], rate=bill.Rate.of("paper", None, None, []))
    hours = {(line["row"], line["part"]): line["hours"] for line in found["lines"]}
    assert not unknown
    assert 40 < hours["owt_ar_end_to_end", "all"] < 55 and 40 < hours["imagenet_dit_end_to_end", "block0"] < 50
    assert found["total"]["hours"] == pytest.approx(sum(one["hours"] for one in found["tables"].values()))


# In the workflow, and on its page


@pytest.mark.slow
def test_the_rule_takes_the_profiles_time_limits(tmp_path, monkeypatch):
    copy = Checkout(tmp_path / "checkout")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "squeue"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    done = copy.snakemake("estimate", "-p", "--profile", "slurm", "--config", "scale=demo", "select=[table1]")
    assert "--runtime table1=720" in done.stderr and "time limits of 720 minutes" in done.stdout
    assert "not estimated" not in done.stdout
    assert "vit_diffusionblocks_joint" in (copy.folder / "results/demo/logs/estimate.log").read_text()
    again = copy.snakemake("estimate", "--config", "estimate={share: 0.1}", "select=[table1]")
    assert "at 10% of" in again.stdout and "time limits of 1440 minutes" in again.stdout


def test_the_page_sets_what_was_predicted_beside_what_was_measured(tmp_path):
    from diffusionblocks.page.predicted import predicted
    from diffusionblocks.page.results import Results

    runs = {name: measured(name, fid_test=1.0) for name in ("a", "b", "c")}
    for about in runs.values():
        about["run"]["train"] = {"precision": "fp32"}
    runs["c"]["parts"]["block0"]["attempts"][0]["hardware"] = "an abacus"
    path = table_of(tmp_path, {name: [about] for name, about in runs.items()}, IMAGES)
    kept = {f"table1/{name}": {"flop": 0.4 * 0.096e12 * 0.5, "run": about["run"] | {}} for name, about in runs.items()}
    for entry in kept.values():
        entry["run"] = {key: value for key, value in entry["run"].items() if key != "seed"}
    kept["table1/b"]["run"] = {**kept["table1/b"]["run"], "train": {"precision": "bf16"}}  # settings of another time
    found = predicted(Results(path), kept)
    assert list(found) == ["a", "c"] and found["a"]["predicted"] == pytest.approx(0.5)
    assert (
        found["a"]["measured"] == 1.0 and found["a"]["reached"] == pytest.approx(20) and found["c"]["predicted"] is None
    )
    (tmp_path / "estimate.json").write_text(json.dumps(kept))
    assert "of the rate of" not in written_page(tmp_path, path)
    page = written_page(tmp_path, path, estimate=[tmp_path / "estimate.json"])
    assert "of the rate of" in page and "20.0%" in page


def test_several_devices_are_predicted_together(tmp_path):
    """A training's processes, each with its threads or a GPU; none where their number has changed on the way."""
    from diffusionblocks.page.predicted import predicted
    from diffusionblocks.page.results import Results

    def of(*attempts):
        about = measured("a", fid_test=1.0, attempts=["aaa"] * len(attempts))
        about["run"]["train"] = {"precision": "fp32"}
        for entry, said in zip(about["parts"]["block0"]["attempts"], attempts, strict=True):
            entry |= said
        run = {key: value for key, value in about["run"].items() if key != "seed"}
        kept = {"table1/a": {"flop": 0.4 * 0.096e12, "run": run}}
        return predicted(Results(table_of(tmp_path, {"a": [about]}, IMAGES)), kept)["a"]

    threads = {"processes": 2, "hardware": "AMD EPYC, 4 threads"}
    assert of(threads)["predicted"] == pytest.approx(1 / 8) and of(threads)["reached"] == pytest.approx(40 / 8)
    alone, several = {"hardware": "NVIDIA H100"}, {"hardware": "NVIDIA H100", "processes": 4}
    assert of(several)["predicted"] == pytest.approx(of(alone)["predicted"] / 4)
    assert of(alone, several)["predicted"] is of(alone, several)["reached"] is None


@pytest.mark.parametrize(
    ("hardware", "device"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("AMD EPYC 9B14, 1 thread", "cpu"),
        ("NVIDIA GeForce RTX 2080", None),
    ],
)
def test_names_of_hardware(hardware, device):
    assert rates.device_of(hardware) == device

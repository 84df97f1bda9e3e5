"""From trained weights to images and their numbers, through the files that the jobs hand on."""

import base64
import copy
import json
import zlib

import numpy as np
import pytest
import torch
from helpers import write_model

from diffusionblocks import methods
from diffusionblocks.base import model_file, tensors
from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.data.prepare import prepare
from diffusionblocks.evaluation.evaluate import evaluate
from diffusionblocks.evaluation.metrics.generation import fid
from diffusionblocks.methods import build
from diffusionblocks.sampling.sample import sample
from diffusionblocks.scorers.extractor import extract, extractor, load_extractor
from diffusionblocks.scorers.reference import reference

CPU = torch.device("cpu")
RUN = {
    "scale": "demo",
    "table": "table2",
    "row": "cifar10_dit_diffusionblocks",
    "seed": 3,
    "data": {"name": "digits"},
    "model": {"name": "dit", "num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4},
    "method": {"name": "diffusionblocks", "num_blocks": 3},
    "train": {"batch_size": 8, "lr": 0.01, "steps": 4},
}
SMALL_CNN = {"name": "small_cnn", "width": 8, "steps": 30}
SAMPLING = {"num_samples": 25, "sets": 2, "shards": 1, "num_steps": 12, "guidance": 1.5}


class Job:
    """A row's files, with weights that no training made."""

    def __init__(self, folder):
        self.folder = folder
        self.data, self.model, self.run = (folder / name for name in ("digits.safetensors", "model.json", "run"))
        prepare(RUN["data"], "nowhere", self.data)
        write_json(self.run, RUN)
        torch.manual_seed(0)
        method = build(RUN, Pictures(self.data, CPU).shape, None)
        with torch.no_grad():
            weights = {name: value + 0.1 * torch.randn(value.shape) for name, value in method.state_dict().items()}
        write_model(self.model, weights, RUN)
        entries = [{"event": "start", "step": 0}, {"step": 4, "block": 0, "loss": 1.0, "samples_per_second": 9.0}]
        self.log = folder / "block0.jsonl"
        self.log.write_text("".join(json.dumps(entry) + "\n" for entry in [*entries, {"event": "end"}]))
        self.extractor, self.reference = folder / "extractor.safetensors", folder / "reference.safetensors"
        extractor(SMALL_CNN, self.data, None, self.extractor)
        reference(self.extractor, self.data, None, self.reference)

    def shards(self, **options):
        """Paths of the generated images of a row's `sampling` section."""
        sampling, paths = {**SAMPLING, **options}, []
        for shard in range(sampling["shards"]):
            paths.append(self.folder / f"{json.dumps(options)}-{shard}.safetensors")
            sample(self.run, self.model, self.data, sampling, shard, paths[-1])
        return paths

    def evaluate(self, sections, shards, extractor=None, log=None, more=(), default=SMALL_CNN):
        path, scorers = self.folder / "metrics.json", (self.reference, *more, extractor or self.extractor)  # any order
        evaluate(self.run, self.model, self.data, sections, [log or self.log], path, shards, scorers, extractor=default)
        return read_json(path)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("generation"))


def images(paths):
    return torch.cat([tensors.read(path, "")[0]["images"] for path in paths])


def unpacked(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["zlib"])), np.uint8).reshape(packed["shape"])


def test_any_number_of_jobs_makes_the_same_images(job):
    whole = images(job.shards())
    assert whole.shape == (50, 1, 8, 8) and whole.dtype == torch.uint8
    for number in (3, 7):
        paths = job.shards(shards=number)
        assert [tensors.about(path, "")["first"] for path in paths] == [50 * shard // number for shard in range(number)]
        off = (images(paths).int() - whole.int()).abs()
        assert off.max() <= 1 and off.sum() <= 3  # a sum's rounding may depend on the size of a batch
    assert not torch.equal(whole[25:], whole[:25])  # the second set is another
    assert len(whole.flatten(1).unique(dim=0)) == 50


def test_shards_say_what_they_cost_and_how_the_first_image_came_about(job):
    first, second = job.shards(shards=2)
    about = tensors.about(first, "")
    assert about["evaluations"] == {"layers": 12, "networks": 12, "num_layers": 3}
    assert about["run"] == RUN and about["idle_blocks"] == [] and about["seconds"] > 0
    found = tensors.read(first, "")[0]
    assert found["trajectory"].shape == (10, 1, 8, 8) and len(about["trajectory"]) == 10
    assert torch.equal(found["trajectory"][-1], found["images"][0])  # the last step is the image
    sigmas, blocks = zip(*about["trajectory"], strict=True)
    assert sigmas[0] == 80 and sigmas[-1] == 0.002 and blocks[0] == 0 and blocks[-1] == 2
    assert tensors.read(second, "")[0].keys() == {"images"}
    assert tensors.about(job.shards(num_steps=1)[0], "")["idle_blocks"] == [1, 2]


def test_metrics_are_those_of_all_shards_set_by_set(job):
    sections = {
        "fid": {"name": "fid", "reference": "test"},
        "fid_train": {"name": "fid", "reference": "train"},
        "layers": {"name": "layer_evaluations"},
        "speed": {"name": "relative_speed", "beside": False},
    }
    sections = {column: {**section, "sampling": SAMPLING} for column, section in sections.items()}
    paths = job.shards(shards=3)
    found = job.evaluate(sections, reversed(paths))  # in whatever order they come
    network, _ = load_extractor(job.extractor, CPU)
    sets = [extract(network, images(paths)[i : i + 25], CPU).numpy() for i in (0, 25)]
    known = {key: value.numpy() for key, value in tensors.read(job.reference, "")[0].items()}
    for column, split in (("fid", "test"), ("fid_train", "train")):
        statistics = {key: known[f"{split}_{key}"] for key in ("mu", "sigma")}
        each = [fid([values], {"test": statistics}) for values in sets]
        assert abs(each[0] / each[1] - 1) > 1e-3
        assert found["metrics"][column]["value"] == pytest.approx(min(each))
        assert found["metrics"][column]["extractor"] == "small CNN trained on the data"
        assert found["metrics"][column]["samples"] == 25
    declared = {"unit": "", "better": "lower", "beside": False, "over_sets": "least"}
    assert found["metrics"]["fid"] | declared == found["metrics"]["fid"]
    assert found["metrics"]["layers"]["beside"] and not found["metrics"]["speed"]["beside"], "as the column says"
    assert found["metrics"]["layers"]["value"] == 12 and found["metrics"]["speed"]["value"] == 3
    assert [record["first"] for record in found["sampling"]] == [0, 16, 33]


def test_a_column_may_name_an_extractor_of_its_own(job, tmp_path):
    """Beside one that has the row's: each number is of its own features and references, and says whose."""
    own = {"name": "small_cnn", "width": 12, "steps": 3}
    extractor(own, job.data, None, tmp_path / "weights")
    weights, about = tensors.read(tmp_path / "weights", "")
    tensors.write(tmp_path / "weights", weights, {**about, "title": "another CNN"})
    reference(tmp_path / "weights", job.data, None, tmp_path / "reference")
    shards, plain = job.shards(), {"name": "fid", "reference": "test", "sampling": SAMPLING}
    sections = {"plain": plain, "own": {**plain, "extractor": own}, "train": {**plain, "reference": "train"}}
    files = (tmp_path / "reference", tmp_path / "weights")
    found = job.evaluate(sections, shards, more=files)["metrics"]
    titles = {column: number["extractor"] for column, number in found.items()}
    assert titles == {"plain": "small CNN trained on the data", "own": "another CNN", "train": titles["plain"]}
    for column, (weights, real) in {"plain": (job.extractor, job.reference), "own": reversed(files)}.items():
        known = {key: tensors.read(real, "")[0][f"test_{key}"].numpy() for key in ("mu", "sigma")}
        values = extract(load_extractor(weights, CPU)[0], images(shards), CPU).numpy()
        assert found[column]["value"] == pytest.approx(fid([values[:25], values[25:]], {"test": known}))
    assert abs(found["plain"]["value"] / found["own"]["value"] - 1) > 1e-3
    alone = job.evaluate({column: sections[column] for column in ("plain", "train")}, shards)["metrics"]
    assert alone == {column: found[column] for column in alone}, "the others' numbers stay what they are"
    assert job.evaluate({"own": sections["own"]}, shards, more=files, default=None)["metrics"]["own"] == found["own"]
    with pytest.raises(UserError, match=r"by \{.*'width': 12.*\}: hand over this extractor's weights"):
        job.evaluate(sections, shards)
    with pytest.raises(UserError, match=r"name an `extractor` in evaluation\.json"):
        job.evaluate(sections, shards, more=files, default=None)


def test_last_weights_make_images_of_their_own(job, tmp_path):
    """And where they are the averaged ones, the same."""
    averaged, _ = model_file.read(job.model)
    plain, with_last = job.shards(), copy.copy(job)
    with_last.folder, with_last.model = tmp_path, tmp_path / "model.json"
    for change, same in ((0.0, True), (0.1, False)):
        last = {f"last.{name}": value + change for name, value in averaged.items()}
        write_model(with_last.model, averaged | last, RUN)
        assert torch.equal(images(with_last.shards()), images(plain))
        assert torch.equal(images(with_last.shards(weights="averaged")), images(plain))
        assert torch.equal(images(with_last.shards(weights="last")), images(plain)) == same
    assert with_last.shards(weights="last") and tensors.about(with_last.shards(weights="last")[0], "")["sampling"] == {
        **SAMPLING,
        "weights": "last",
    }
    with pytest.raises(UserError, match="has no last weights beside averaged ones"):
        job.shards(weights="last")


@pytest.mark.parametrize("averaged", [False, True])
def test_a_method_may_have_a_module_called_last(tmp_path, monkeypatch, averaged):
    method, run = torch.nn.ModuleDict({"last": torch.nn.Linear(2, 2)}), {"table": "t", "row": "r"}
    monkeypatch.setattr(methods, "build", lambda *_: copy.deepcopy(method))
    found = {name: value.detach() for name, value in method.named_parameters()}
    last = {f"last.{name}": value + 1 for name, value in found.items()} if averaged else {}
    write_model(tmp_path / "model.json", found | last, run)
    for weights, more in (("averaged", 0), *([("last", 1)] if averaged else [])):
        loaded = methods.load_trained(run, tmp_path / "model.json", {}, weights)
        assert torch.equal(loaded["last"].weight, method["last"].weight + more)


def test_images_may_be_made_in_bf16_and_compiled(job, monkeypatch):
    """The same images but for the rounding within layers, and the same cost."""
    plain, half = (job.shards(**options) for options in ({}, {"precision": "bf16"}))
    compiled = []

    def compiler(forward, dynamic):
        compiled.append(forward)
        return lambda *arguments, **keywords: forward(*arguments, **keywords)

    monkeypatch.setattr(torch, "compile", compiler)
    both = job.shards(precision="bf16", compile=True)
    assert len(compiled) == 3
    assert torch.equal(images(job.shards(precision="fp32", compile=False)), images(plain))
    assert torch.equal(images(both), images(half)) and not torch.equal(images(half), images(plain))
    off = (images(half).float() - images(plain).float()).abs()
    assert off.mean() < 1 and off.max() < 26, "grey levels, of 255"
    costs = [tensors.about(paths[0], "")["evaluations"] for paths in (plain, half, both)]
    assert costs[0] == costs[1] == costs[2]
    assert tensors.about(both[0], "")["sampling"] == {**SAMPLING, "precision": "bf16", "compile": True}


def test_the_page_gets_the_first_images_and_their_way(job):
    paths = job.shards()
    found = job.evaluate({"layers": {"name": "layer_evaluations", "sampling": SAMPLING}}, paths)["samples"]
    made = tensors.read(paths[0], "")[0]
    np.testing.assert_array_equal(unpacked(found["images"]), made["images"][:20])
    np.testing.assert_array_equal(unpacked(found["trajectory"]), made["trajectory"])
    assert found["steps"] == tensors.about(paths[0], "")["trajectory"]


def test_files_of_another_kind_are_refused(job, tmp_path):
    sections, shards = {"fid": {"name": "fid", "sampling": SAMPLING}}, job.shards()
    for wrong in (job.reference, job.data):
        with pytest.raises(UserError, match=r"hand over this extractor's weights and one reference \(--scorers\)"):
            job.evaluate(sections, shards, extractor=wrong)
    for wrong in (job.data, job.model.with_suffix(".part")):
        with pytest.raises(UserError, match=rf"{wrong}: was generated by another run"):
            job.evaluate(sections, [wrong])
    cut = tmp_path / "cut.jsonl"
    cut.write_text(job.log.read_text().splitlines()[0] + "\n")
    for log in (job.run, cut):
        with pytest.raises(UserError, match=rf"{log}: is not the log of a part that is trained \(--logs\)"):
            job.evaluate(sections, shards, log=log)


@pytest.mark.parametrize(
    ("chosen", "starts"), [([1, 2], "16, 33"), ([0, 2], "0, 33"), ([0, 1], "0, 16"), ([0, 1, 1, 2], "0, 16, 16, 33")]
)
def test_shards_that_are_missing_or_there_twice_are_refused(job, chosen, starts):
    shards = job.shards(shards=3)
    with pytest.raises(UserError, match=rf"start with the samples \[{starts}\], are not the 3 shards"):
        job.evaluate({"fid": {"name": "fid", "sampling": SAMPLING}}, [shards[number] for number in chosen])


def test_images_and_references_of_something_else_are_refused(job, tmp_path):
    wanted, shards = {"fid": {"name": "fid", "sampling": SAMPLING}}, job.shards()
    with pytest.raises(UserError, match=r"no samples of .*'guidance': 1\.5.* hand over all shards"):
        job.evaluate(wanted, job.shards(guidance=1.0))
    found, about = tensors.read(shards[0], "")
    tensors.write(tmp_path / "other", found, {**about, "run": {**RUN, "seed": 4}})
    with pytest.raises(UserError, match="was generated by another run than table2/cifar10_dit_diffusionblocks"):
        job.evaluate(wanted, [tmp_path / "other"])
    weights, about = tensors.read(job.extractor, "")
    tensors.write(tmp_path / "extractor", weights, {**about, "test_accuracy": 0.0})
    with pytest.raises(UserError, match="is of another extractor than"):
        job.evaluate(wanted, shards, extractor=tmp_path / "extractor")


def test_images_of_other_weights_are_not_made(job, tmp_path):
    write_json(tmp_path / "run", {**RUN, "seed": 4})
    with pytest.raises(UserError, match="was trained with other settings"):
        sample(tmp_path / "run", job.model, job.data, SAMPLING, 0, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_a_metric_of_classifiers_is_refused_for_a_generator(job):
    with pytest.raises(UserError, match=r"need scores \(N, classes\) of the test images, .* predicts \(360, 1, 8, 8\)"):
        job.evaluate({"accuracy": {"name": "accuracy"}}, [])


def test_a_columns_section_may_say_where_it_stands(job):
    section = {"name": "layer_evaluations", "sampling": SAMPLING}
    found = job.evaluate({"a": section, "b": {**section, "beside": False}}, job.shards())["metrics"]
    assert (found["a"]["beside"], found["b"]["beside"]) == (True, False)

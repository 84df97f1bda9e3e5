"""A row that starts from another's trained weights: which go where, what is refused, what is trained again."""

import contextlib

import pytest
import torch
import yaml
from conftest import ROOT, Checkout, trainings
from conftest import TINY as TINY_RUN
from helpers import SIZES, TINY, known, shaken, write_model
from test_faults import Job, digits, tiny  # noqa: F401 (digits is a fixture)
from test_team import Shared, assert_alike

from diffusionblocks.base import model_file, tensors
from diffusionblocks.base.components import load
from diffusionblocks.base.files import Interrupted, UserError, read_about, read_json_lines, write_json
from diffusionblocks.methods import build
from diffusionblocks.plan.check import check, check_frame
from diffusionblocks.plan.code import digest, run_files
from diffusionblocks.plan.configuration import complete, merge
from diffusionblocks.plan.estimate import Asked
from diffusionblocks.plan.explain import explain
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.stale import stale
from diffusionblocks.training import train as training
from diffusionblocks.training.assemble import assemble
from diffusionblocks.training.start import copy_into

SHAPE = {**TINY, "vocab_size": 11, "seq_len": 6}
BLOCKS = {"name": "diffusionblocks", "num_blocks": 3}
ORIGINS = {"vit": "end_to_end", "autoregressive": "end_to_end", "dit": "whole", "masked_diffusion": "whole"}


def method(model, name, part=None, **options):
    """A method with tiny sizes; `whole` is DiffusionBlocks of a single block."""
    section = {"name": name} if name == "end_to_end" else {**BLOCKS, **({"num_blocks": 1} if name == "whole" else {})}
    if name == "joint":
        section["sharing"] = "joint"
    model = {"name": model, **known(load("model", model), {**SIZES, "dropout": 0.0}), **options}
    torch.manual_seed(1 if part is None else 2)
    return build({"table": "t", "row": "r", "model": model, "method": section}, SHAPE, part).eval()


@pytest.fixture
def written(tmp_path):
    """written(method): the file of its weights, as `assemble` makes it."""

    def written(trained):
        path = tmp_path / "model.json"
        write_model(path, trained.state_dict(), {})
        return path

    return written


def layers_of(found):
    """The layers of a method's blocks, in order."""
    return [layer for block in found.blocks for layer in found.acting(block)[1]]


@pytest.mark.parametrize("model", ORIGINS)
@pytest.mark.parametrize("sharing", ["joint", "diffusionblocks"])
def test_layer_i_goes_to_the_block_that_owns_it(model, sharing, written):
    origin = shaken(method(model, ORIGINS[model]))
    path, (network,) = written(origin), origin.models.values()
    parts = ["all"] if sharing == "joint" else ["block0", "block1", "block2"]
    found = [method(model, sharing, part) for part in parts]
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in found]
    counts = [copy_into(part, path) for part in found]
    layers = [layer for part in found for layer in layers_of(part)]
    assert len(layers) == len(network.layers) == 3
    for theirs, mine in zip(network.layers, layers, strict=True):
        mine = mine.state_dict()
        for name, value in theirs.state_dict().items():
            if name in mine:  # a denoiser's norms may have no weights
                assert torch.equal(mine[name], value), name
    for part, first, (copied, total) in zip(found, before, counts, strict=True):
        (own,) = part.models.values()
        around = {name: value for name, value in network.state_dict().items() if not name.startswith("layers.")}
        expected = 0
        for name, value in own.state_dict().items():
            there = around.get(name)
            if not name.startswith("layers."):
                fits = there is not None and there.shape == value.shape
                full = next(key for key in first if key.endswith(f".{name}"))
                assert torch.equal(value, there if fits else first[full]), name
                expected += value.numel() * fits
        mine = sum(value.numel() for layer in layers_of(part) for name, value in layer.named_parameters()
                   if name in dict(network.layers[0].named_parameters()))  # fmt: skip
        assert (copied, total) == (expected + mine, sum(value.numel() for value in part.parameters()))


@torch.no_grad()
@pytest.mark.parametrize("model", ["vit", "autoregressive"])
def test_an_end_to_end_network_cut_into_blocks_with_open_gates_is_the_same_network(model, written):
    """Its blocks' layers one after another compute what it did. What the plain norms have learned an AR block lacks."""
    origin = method(model, "end_to_end")
    shaken(torch.nn.ModuleList(part for layer in origin.models["all"].layers for part in (layer.attention, layer.mlp)))
    path = written(origin)
    found = [method(model, "diffusionblocks", f"block{block}", gates="open") for block in range(3)]
    for part in found:
        copy_into(part, path)
    x = torch.randn(2, 5, SIZES["width"], generator=torch.Generator().manual_seed(3))
    level = torch.randn(2, SIZES["width"] // 6)
    plain = cut = x
    for layer in origin.models["all"].layers:
        plain = layer(plain)
    for part in found:
        for layer in layers_of(part):
            if model == "autoregressive":  # clean halves, which see the clean tokens before them
                cut = layer(torch.cat([cut, cut]), torch.cat([level, level])).chunk(2)[0]
            else:
                cut = layer(cut, level)
    torch.testing.assert_close(cut, plain)
    assert not torch.allclose(cut, x)


def test_what_is_never_trained_keeps_its_rows(written):
    origin = shaken(method("autoregressive", "end_to_end"))
    found = method("autoregressive", "diffusionblocks", "block1", head="frozen")
    table = found.models["block1"].tokens.weight.clone()
    copied, _ = copy_into(found, written(origin))
    assert torch.equal(found.models["block1"].tokens.weight, table) and copied


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("end_to_end", {"width": 12}, r"models.all.layers.0.norm1.weight is \(12,\), and here \(24,\). Give both"),
        ("end_to_end", {"num_layers": 2}, "has no layer 2 like the one here. Give both rows the same layers, as many"),
        ("diffusionblocks", {}, "holds 3 networks, and blocks are cut from one"),
    ],
)
def test_a_model_of_which_nothing_fits_is_refused(name, options, words, written):
    path = written(method("vit", name, **options))
    with pytest.raises(UserError, match=f"{path}: {words}"):
        for block in range(3):
            copy_into(method("vit", "diffusionblocks", f"block{block}"), path)


def test_a_method_of_one_s_own_says_where_its_blocks_are(written):
    part = method("vit", "diffusionblocks", "block1")
    part.__class__ = type("Method", (type(part),), {"first_layer": load("method", "end_to_end").first_layer})
    with pytest.raises(UserError, match="`first_layer` is asked for"):
        copy_into(part, written(method("vit", "end_to_end")))


# Planning

MINE = """
tables:
  mine:
    title: Mine
    like: table1/vit_diffusionblocks
    rows:
      scratch: {}
      started: {start: table1/vit_end_to_end}
      alike: {like: mine/started, method: {sharing: joint}}
      again: {like: mine/started, start: mine/alike}
      not_any_more: {like: mine/started, start: null}
      only_here: {demo: {start: table1/vit_diffusionblocks_joint}}
"""


def config(text=MINE, **changes):
    return {**yaml.safe_load((ROOT / "config.yaml").read_text()), **yaml.safe_load(text), **changes}


def test_a_run_says_the_run_that_it_starts_from():
    plan = Plan.of(config())
    origin = plan.rows["table1", "vit_end_to_end"]
    for row, start in {
        "scratch": None,
        "started": origin.run(2),
        "alike": origin.run(2),
        "again": plan.rows["mine", "alike"].run(2),
        "not_any_more": None,
        "only_here": plan.rows["table1", "vit_diffusionblocks_joint"].run(2),
    }.items():
        assert plan.rows["mine", row].run(2).get("start") == start, row
        assert plan.written[f"runs/mine/{row}/seed2/run"].get("start") == start
    assert plan.rows["mine", "started"].start_files(1) == [
        "results/demo/runs/table1/vit_end_to_end/seed1/model.json",
        "results/demo/runs/table1/vit_end_to_end/seed1/parts/all.safetensors",
    ]
    assert plan.rows["mine", "scratch"].start_files(1) == [] == origin.start_files(1)


def test_a_change_of_the_origin_changes_what_starts_from_it():
    before = Plan.of(config())
    changed = config()
    changed["tables"]["table1"] = {"rows": {"vit_end_to_end": {"demo": {"train": {"steps": 70}}}}}
    after = Plan.of(changed)
    different = {name for name in before.written if before.written[name] != after.written[name]}
    rows = {name.split("/")[2] for name in different if name.endswith("/run") and name.startswith("runs/mine")}
    assert rows == {"started", "alike", "again"}


def test_the_origin_is_planned_where_its_table_is_not_asked_for():
    plan = Plan.of(config(select=["mine"]))
    assert ("table1", "vit_end_to_end") in plan.rows and "tables/table1" not in plan.written
    assert "runs/table1/vit_end_to_end/seed0/run" in plan.written
    assert not any("table1" in file for file in plan.metrics_of(["mine"]))


def test_explain_says_where_it_was_said(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    assert "start: table1/vit_end_to_end" in (text := explain("mine/started", files=[tmp_path / "mine.yaml"]))
    assert f"{tmp_path}/mine.yaml:8" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{start: table1/vit_end_to_edn}", ["mine.rows.a.start", "'table1/vit_end_to_edn' is not <table>/<row>"]),
        ("{start: memory/vit_end_to_end}", ["mine.rows.a.start", "is counted and not trained"]),
        ("{start: mine/a}", ["mine.rows.a.start", "leads back to where it came from"]),
        ("{start: mine/b}, b: {start: mine/c}, c: {start: mine/a}", ["mine.rows.c.start", "'mine/a' leads back"]),
        ("{start: table1/vit_diffusionblocks}", ["mine.rows.a.start", "3 blocks that share nothing", "one network"]),
        (
            "{start: mine/b}, b: {method: {sharing: joint}, seeds_at_most: 1}",
            ["mine.rows.a.start", "seed 1", "most: 1"],
        ),
        (
            "{start: mine/b}, b: {method: {sharing: joint}, demo: {model: {num_layers: 9}}}",
            ["mine.rows.a.start", "mine/b has 9 layers, and this row 6"],
        ),
        ("{start: vit_end_to_end}", ["mine.rows.a.start", "<table>/<row>"]),
        ("{start: 3}", ["mine.rows.a.start", "3"]),
    ],
)
def test_a_start_that_cannot_be_is_refused(text, words):
    rows = yaml.safe_load(f"{{a: {text}}}")
    table = {"title": "Mine", "like": "table1/vit_diffusionblocks", "rows": rows}
    found = complete({**config("{}"), "tables": {"mine": table}})
    with pytest.raises(UserError) as refused:
        check_frame(found)
        check(Plan(found))
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_counted_row_starts_from_nothing():
    """Its own `start` is refused; that of a row which it is like goes without a word."""
    memory = {"rows": {"mine": {"like": "mine/started"}}}
    text = config()
    text["tables"]["memory"] = memory
    assert Plan.of(text).rows["memory", "mine"].start is None
    text["tables"]["memory"] = {"rows": {"mine": {"like": "mine/started", "start": "table1/vit_end_to_end"}}}
    with pytest.raises(UserError, match=r"memory.rows.mine.start: is for rows that are trained"):
        Plan.of(text)


def test_an_estimate_counts_what_has_to_be_trained_before():
    written = Plan.of(config()).written
    found = Asked(written, "results/demo", ["mine"])
    assert found.tables["mine"]["table1/vit_end_to_end"] == "table1/vit_end_to_end"
    assert found.rows["table1/vit_end_to_end"]["samples"] == [] and found.rows["table1/vit_end_to_end"]["seeds"] == 3
    both = Asked(written, "results/demo", ["mine", "table1"])
    assert "table1/vit_end_to_end" not in both.tables["mine"]
    assert "table1/vit_end_to_end" not in Asked(written, "results/demo", ["table4"]).rows


# Training


class Started(Shared):
    """A job that starts from the weights of a model, `start_from`."""

    def __init__(self, folder, data, run, start_from=None, part="block1"):
        Job.__init__(self, folder, data, run, part)
        self.start_from, self.processes = start_from, 1

    def here(self, seconds=300):
        code = digest(run_files("train", self.run))
        files = self.folder / "run.json", self.part, self.weights, self.data, self.state
        training.train(*files, seconds, code, processes=self.processes, start=self.start_from)

    def joined(self):
        """The model, of a run of one part."""
        assemble(self.folder / "run.json", [self.weights], self.folder / "model.json", [self.part])
        return self.folder / "model.json"


@pytest.fixture(scope="module")
def origin(tmp_path_factory, digits):  # noqa: F811
    """A trained end-to-end run: (its run, its model)."""
    job = Started(tmp_path_factory.mktemp("origin"), digits, tiny("vit_end_to_end"), part="all")
    job.here()
    return job.run, job.joined()


@pytest.fixture
def started(tmp_path, digits, origin):  # noqa: F811
    """started(name): a job of block 1 that starts from the origin, in a folder of its own."""

    def started(name="job", model=origin[1], **train):
        run = {**tiny(**train), "start": origin[0]}
        run["model"]["keep_cls"] = False
        (tmp_path / name).mkdir()
        return Started(tmp_path / name, digits, run, model)

    return started


def test_training_starts_there_and_says_so(started, origin, capsys):
    job = started(steps=1, lr=1e-12, min_lr=0.0, warmup_steps=0)
    job.here()
    found, about = tensors.read(job.weights, "")
    theirs, whole = model_file.read(origin[1])
    layer = [key for key in theirs if key.startswith("models.all.layers.1.")]
    assert len(layer) > 8
    for key in [*layer, "models.all.head.weight", "models.all.positions"]:
        mine = key.replace("all.layers.1", "block1.layers.0").replace("models.all", "models.block1")
        torch.testing.assert_close(found[mine], theirs[key])
    assert about["start"] == whole["digest"]
    start = read_json_lines(job.log)[0]
    assert 0 < start["copied"] < start["parameters"] == sum(value.numel() for value in found.values())
    said = f"{start['copied']} of {start['parameters']} parameters start as table1/vit_end_to_end ended"
    assert said in capsys.readouterr().out


def test_a_killed_training_that_started_elsewhere_ends_with_the_same_bits(started, monkeypatch):
    whole, killed = started("whole"), started("killed")
    whole.here()
    update = training.Trainer.update

    def interrupted(self, step):
        if step == 5:
            signals.append(1)
        return update(self, step)

    signals = []
    monkeypatch.setattr(training, "_stop_request", lambda: contextlib.nullcontext(signals))
    monkeypatch.setattr(training.Trainer, "update", interrupted)
    with pytest.raises(Interrupted):
        killed.here()
    monkeypatch.undo()
    killed.here()
    assert tensors.read(whole.weights, "")[1]["digest"] == tensors.read(killed.weights, "")[1]["digest"]


@pytest.mark.slow
def test_processes_that_share_a_training_all_start_there(started):
    """One that did not would add the gradients of other weights."""
    one, two = (started(name, accumulate=2) for name in ("one", "two"))
    two.processes = 2
    one.here()
    two.here()
    assert_alike(one, two)


def test_what_it_starts_from_must_be_given_and_be_the_right_one(started, origin, tmp_path):
    job = started()
    job.start_from = None
    with pytest.raises(UserError, match="starts from table1/vit_end_to_end: give that run's model with --start"):
        job.here()
    other = tmp_path / "other.json"
    write_json(other, {**model_file.about(origin[1]), "run": {**origin[0], "seed": 1}})
    job.start_from = other
    with pytest.raises(UserError, match=f"{other}: is not the run that .* table1/vit_end_to_end, seed 0"):
        job.here()
    job.start_from, _ = origin[1], job.run.pop("start")
    job.configure(job.run)
    with pytest.raises(UserError, match=r"has no `start` in its run.json, and takes no weights. Leave it out"):
        job.here()


def test_a_checkpoint_of_other_first_weights_is_refused(started, origin, monkeypatch):
    job = started()
    signals = [1]
    monkeypatch.setattr(training, "_stop_request", lambda: contextlib.nullcontext(signals))
    with pytest.raises(Interrupted):
        job.here()
    monkeypatch.undo()
    other = origin[1].with_name("trained_again.json")
    write_json(other, {**model_file.about(origin[1]), "digest": "of other weights"})
    job.start_from = other
    with pytest.raises(
        UserError, match=r"belongs to another configuration \(start: '.*' there, 'of other weights' here"
    ):
        job.here()


def test_parts_of_different_first_weights_are_not_joined(started):
    job = started()
    job.here()
    values, about = tensors.read(job.weights, "")
    other = job.folder / "parts/block0.safetensors"
    tensors.write(other, values, {**about, "part": "block0", "start": "of other weights"})
    with pytest.raises(UserError, match="was trained with other first weights than"):
        assemble(job.folder / "run.json", [job.weights, other], job.folder / "m", ["block0", "block1"], any_code=True)


def test_parts_that_started_from_weights_that_are_no_more_are_stale(started, origin, monkeypatch):
    job = started()
    job.here()
    monkeypatch.chdir(job.folder)
    plan = Plan.of(config(select=["mine"]))
    row = plan.rows["mine", "started"]
    part = row.folder + "/seed0/parts/block1.safetensors"
    theirs = row.start_files(0)[0]
    run, start = row.run(0), {"run": row.start.run(0)}
    values = {"x": torch.zeros(1)}
    tensors.write(part, values, {"run": run, "code": digest(run_files("train", run)), "start": "first"})
    write_json(theirs, {**start, "digest": "first"})
    assert stale(plan) == {}
    write_json(theirs, {**start, "digest": "second"})
    assert stale(plan) == {part: f"started from other weights than those of {theirs}"}


@pytest.mark.slow
def test_the_workflow_trains_the_origin_first_and_both_again_when_it_changes(tmp_path):
    rows = {"started": {"like": "table1/vit_diffusionblocks", "start": "table1/vit_end_to_end"}}
    rows["started"]["model"] = {"keep_cls": None}
    settings = merge(TINY_RUN, {"tables": {"mine": {"title": "Mine", "like": "table1/vit_end_to_end", "rows": rows}}})
    checkout = Checkout(tmp_path / "checkout", settings=settings)
    part = "results/demo/runs/mine/started/seed0/parts/block1.safetensors"
    checkout.snakemake(part)
    assert trainings(checkout.plan(part)[1]) == [], "nothing is left to do"
    start = read_json_lines((checkout.folder / part).with_suffix(".jsonl"))[0]
    assert 0 < start["copied"] < start["parameters"]
    about = read_about(checkout.folder / part)
    assert about["run"]["start"]["row"] == "vit_end_to_end" and about["start"]
    longer = {"tables": {"table1": {"rows": {"vit_end_to_end": {"demo": {"train": {"steps": 7}}}}}}}
    checkout.configure(merge(settings, longer))
    both = [("mine", "started", "block1"), ("table1", "vit_end_to_end", "all")]
    assert trainings(checkout.plan(part)[1]) == both

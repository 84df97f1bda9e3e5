"""What is counted without memory or data, against what a training process holds, and against sums done by hand."""

import json

import pytest
import torch
import yaml
from conftest import ROOT, Checkout, shipped
from torch import nn

from diffusionblocks.base.files import UserError
from diffusionblocks.data.chance import Chance
from diffusionblocks.evaluation import count
from diffusionblocks.evaluation.metrics import memory
from diffusionblocks.plan.plan import Plan
from diffusionblocks.training.trainer import Trainer

CPU = torch.device("cpu")
IMAGES = {"image_size": 16, "channels": 1, "num_classes": 10}
TEXT = {"vocab_size": 64, "seq_len": 32}
ROWS = (
    "table1/vit_end_to_end",
    "table1/vit_diffusionblocks",
    "table1/vit_diffusionblocks_joint",
    "table2/cifar10_dit_diffusionblocks",
    "table3/mdm_diffusionblocks",
    "table4/lm1b_ar_end_to_end",
    "table4/lm1b_ar_diffusionblocks",
    "table5/huginn_end_to_end",
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(count, "DRAWS", 4)


@pytest.fixture(scope="module")
def demo():
    return shipped()


def row_of(plan, name, **train):
    row = plan.rows[tuple(name.split("/"))]
    run = row.run(0)
    if "bptt_steps" in run["model"]:
        run["model"] = {**run["model"], "bptt_steps": 1}  # or what is kept would hang on the depth that is drawn
    return {**run, "train": {**run["train"], "ema": 0.99, **train}}, row.parts, IMAGES if row.kind == "images" else TEXT


def trained(run, part, shape):
    """A trainer on the CPU whose blocks have all had an update, and the bytes at the peak of another of each."""
    data = Chance(shape, run["train"]["batch_size"], CPU)
    with count.Live(CPU) as live:
        trainer = Trainer(run, part, data, CPU)
        count._every_block(trainer)
        live.peak = live.now
        count._every_block(trainer)
    return trainer, live.peak


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "adamw") for name in ROWS), (ROWS[0], "adafactor")])
def test_what_is_counted_is_what_training_holds(demo, name, optimizer):
    run, parts, shape = row_of(demo, name, optimizer=optimizer)
    counted = count.counted(run, parts, shape)
    trainer, peak = trained(run, parts[0], shape)
    held = trainer.memory()
    for kind in ("parameter", "gradient", "optimizer", "average"):
        plural = kind + "s" if f"{kind}s" in counted else kind
        assert counted[plural] == held[f"{kind}_bytes"] > 0, kind
    # Other kernels of attention, and other copies in between.
    assert counted["peak"] == pytest.approx(peak, rel=0.2)


@pytest.mark.parametrize("name", ROWS)
def test_activations_are_those_that_autograd_keeps(demo, name):
    run, parts, shape = row_of(demo, name)
    counted = count.counted(run, parts, shape)
    trainer, _ = trained(run, parts[0], shape)
    weights = {value.data_ptr() for value in trainer.method.parameters()}
    most = 0
    for block in trainer.blocks:
        kept = {}

        def pack(value, kept=kept):
            if value.data_ptr() not in weights:
                kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value.detach()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            objective, *_ = trainer.method.loss(next(trainer.batches.micro_batches(0)), block)
        most = max(most, sum(kept.values()))
        del objective
    assert counted["activations"] == pytest.approx(most, rel=0.15)


def test_micro_batches_and_checkpointing_keep_fewer_activations_and_the_same_state(demo):
    kept = {}
    for name, train in (("whole", {}), ("halves", {"accumulate": 2}), ("again", {"checkpoint_activations": True})):
        kept[name] = count.counted(*row_of(demo, "table1/vit_end_to_end", **train))
    assert len({one["parameters"] + one["optimizer"] for one in kept.values()}) == 1
    assert kept["halves"]["activations"] == pytest.approx(kept["whole"]["activations"] / 2, rel=0.01)
    assert kept["halves"]["flop"] == kept["whole"]["flop"]
    assert kept["again"]["activations"] < kept["whole"]["activations"] / 5
    assert 1.2 < kept["again"]["flop"] / kept["whole"]["flop"] < 4 / 3  # a layer's last product is not asked for


class ByHand(nn.Module):
    """Two layers of a 4 x 4 matrix each, on 3 samples, and the mean square of what comes out."""

    blocks = (0,)

    def __init__(self):
        super().__init__()
        net = nn.Module()
        net.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))
        net.all_layers = lambda: list(net.layers)
        self.models = nn.ModuleDict({"all": net})

    def loss(self, batch, block):
        x = batch["x"]
        for layer in self.models["all"].layers:
            x = layer(x)
        return x.pow(2).mean(), None, None


def test_sums_by_hand():
    with count.META:
        method, batch = ByHand(), {"x": torch.empty(3, 4)}
    # Each layer keeps the 3 x 4 floats that enter it, the square those that enter that.
    assert count.activations(method, batch, 0) == {"activations": 3 * 48, "of_layers": 2 * 48, "run": 2}
    with count.Flop() as counter:
        method.loss(batch, 0)[0].backward()
    # Forward a product a layer, backward two; nobody asks for the gradient of what enters the first.
    assert counter.total == (2 + 3) * 2 * 3 * 4 * 4


def test_the_formulas():
    whole = {
        "layers": {"parameters": 12 * 10, "moments": 24 * 10, "activations": 12 * 100, "held": 12, "run": 12},
        "micro_batch": 8,
        "checkpointing": False,
    }
    block = {**whole, "layers": {"parameters": 4 * 10, "moments": 8 * 10, "held": 4, "run": 4}}

    def formula(row, **changed):
        return memory.memory_by_formula({**row, **changed}, whole) * memory.MB

    assert formula(whole) == pytest.approx((4 * 10 + 100) * 12)
    assert formula(whole, checkpointing=True) == pytest.approx(4 * 10 * 12 + 100)
    assert formula(block) == pytest.approx((4 * 10 + 100) * 12 / 3)
    assert formula(block, checkpointing=True) == pytest.approx(4 * 10 * 12 / 3 + 100)
    assert formula(whole, micro_batch=2) == pytest.approx((4 * 10 + 100 / 4) * 12)
    assert formula(whole, layers={**whole["layers"], "moments": 12}) == pytest.approx((2 * 10 + 1 + 100) * 12)


def test_factors_at_the_papers_sizes():
    """At every scale, since the table names the one that it counts."""
    for whole, block, factor in (
        ("vit_end_to_end", "vit_block", 2.91),
        ("dit_s2_end_to_end", "dit_s2_block", 2.90),
        ("dit_l2_end_to_end", "dit_l2_block", 2.94),
        ("mdm_end_to_end", "mdm_block", 2.98),
        ("tiny_imagenet_vit_end_to_end", "tiny_imagenet_vit_block", 1.82),
        ("ar_end_to_end", "ar_block", 1.85),
        ("huginn_end_to_end", "huginn_diffusionblocks", 0.97),
    ):
        assert parameters(whole) / parameters(block) == pytest.approx(factor, abs=0.005), block


def test_a_block_of_the_vit_has_its_share_of_the_peak_too():
    """To a twentieth of three: its conditioned layers keep hardly more than plain ones."""
    rows = [shipped().rows["memory", f"vit_{name}"] for name in ("end_to_end", "block")]
    whole, block = (count.counted(row.run(0), row.parts, row.shape) for row in rows)
    assert memory.peak_factor(block, whole) >= 0.95 * 3


def test_cheaper_autoregressive_blocks_at_the_papers_sizes():
    names = ("end_to_end", "block", "block_frozen", "block_single_frozen")
    rows = [shipped().rows["memory", f"ar_{name}"] for name in names]
    whole, own, frozen, single = (count.counted(row.run(0), row.parts, row.shape) for row in rows)
    table = 32_000 * 768 * 4
    for one in (frozen, single):  # no head; of the table no gradient and no moments
        assert own["parameters"] - one["parameters"] == table
        assert one["parameters"] - one["gradients"] == table
        assert one["optimizer"] == pytest.approx(2 * one["gradients"], rel=1e-6)
        assert memory.state_factor(one, whole) == pytest.approx(4.56, abs=0.005)
        around = memory.memory_around_layers(own) - memory.memory_around_layers(one)
        assert around == pytest.approx((4 + 3) * table / memory.MB)  # all four of the head's, three of the table's
    # Of each block the product that gives the head's gradient, at all tokens but the first.
    assert own["flop"] - frozen["flop"] == 4 * 2 * 255 * 32_000 * 768
    assert memory.work_factor(own, whole) > 2.2 and memory.work_factor(single, whole) < 1.4
    assert memory.peak_factor(own, whole) < 1.9 and memory.peak_factor(single, whole) > 3


@pytest.mark.parametrize(
    ("row", "layers"),
    [("dit_end_to_end_50_steps", 600), ("dit_diffusionblocks_50_steps", 200), ("vit_diffusionblocks_b3", 12)],
)
def test_layers_of_a_chain_are_those_of_appendix_h(row, layers):
    found = shipped().rows["inference", row]
    sampling = found.metrics["layer_evaluations"]["sampling"]
    assert count.chain(found.run(0), found.shape, sampling) == {"layers": layers}


def parameters(name):
    row = shipped().rows["memory", name]
    run, shape = row.run(0), row.shape
    with count.META:
        trainer = Trainer(run, row.parts[0], Chance(shape, run["train"]["batch_size"], count.META), count.META)
    return sum(value.numel() for value in trainer.parameters.values())


def config():
    return {**yaml.safe_load((ROOT / "config.yaml").read_text()), "scale": "demo"}


def counted_table(**changes):
    rows = {
        "whole": {"like": "table1/vit_end_to_end", "shape": IMAGES},
        "block": {"like": "table1/vit_diffusionblocks", "shape": IMAGES, "against": "whole"},
    }
    table = {
        "title": "Counted",
        "counted": "demo",
        "metrics": {"peak": {"name": "peak_memory"}, "factor": {"name": "peak_factor"}},
        "rows": rows,
    }
    return {**config(), "tables": {"mine": {**table, **changes}}, "select": ["mine"]}


def test_a_counted_row_has_what_is_trained_from_elsewhere_and_its_metrics_from_its_own_table():
    for scale in ("demo", "paper"):
        plan = Plan.of({**counted_table(), "scale": scale})
        row = plan.rows["mine", "block"]
        assert row.model["num_layers"] == 6 and row.run(0)["scale"] == "demo" and row.results == f"results/{scale}"
        assert list(row.metrics) == ["peak", "factor"] and row.seeds == [0]
        assert not [name for name in plan.written if name.startswith("data/")], "no data are prepared"
        assert plan.compared(row) == [f"results/{scale}/runs/mine/whole/seed0/metrics.json"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"rows": {"a": {"like": "table1/vit_end_to_end", "shape": {"channels": 1}}}},
            "rows.a.shape: should have sizes of digits",
        ),
        ({"metrics": {"accuracy": {"name": "accuracy"}}}, "accuracy needs what is trained, and this table is"),
        ({"train": {"precision": "bf16"}}, "train.precision: updates are counted in single precision"),
        ({"train": {"compile": True}}, "train.compile: updates are counted"),
        (
            {"rows": {"a": {"like": "table1/vit_end_to_end", "shape": IMAGES, "against": "b"}}},
            "rows.a.against: 'b' is no other row of mine that is counted",
        ),
        (
            {"rows": {"a": {"like": "table1/vit_end_to_end", "shape": IMAGES, "against": "a"}}},
            "rows.a.against: 'a' is no other row",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused_before_any_job(changes, words):
    with pytest.raises(UserError) as refused:
        Plan.of(counted_table(**changes))
    assert words in str(refused.value)


def test_what_is_counted_has_no_place_in_a_table_that_trains():
    for row, words in (
        ({"like": "memory/vit_block"}, "'memory/vit_block' is counted and not trained"),
        ({"like": "table1/vit_end_to_end", "shape": IMAGES}, "shape: is for tables that are `counted`"),
        ({"like": "table1/vit_end_to_end", "metrics": {"peak": {"name": "peak_memory"}}}, "is for tables that are"),
    ):
        table = {"title": "Mine", "demo": {}, "rows": {"a": row}}
        with pytest.raises(UserError) as refused:
            Plan.of({**config(), "tables": {"mine": table}, "select": ["mine"]})
        assert words in str(refused.value)


def test_metrics_of_what_was_trained_are_no_row_to_compare_with(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="is not of a row that is counted"):
        count._counted_in(tmp_path / "metrics.json")


@pytest.mark.slow
def test_from_a_counted_table_to_its_page(tmp_path):
    """With the claim and the number of the paper's that the counted one contradicts."""
    printed = {"title": "Memory", "source": "Appendix G", "metrics": {"factor": {"unit": "×", "better": "higher"}}}
    printed["rows"] = {"block": {"factor": 3, "against": "whole"}}
    claim = {"text": "A third.", "metric": "peak", "row": "block", "against": "whole", "factor": 30, "ours": True}
    table = counted_table(printed=printed, claims=[claim])["tables"]["mine"]
    copy = Checkout(tmp_path / "checkout")
    copy.configure({"tables": {"mine": table}})
    copy.snakemake("mine", "--cores", "1")
    metrics = json.loads((copy.folder / "results/demo/runs/mine/block/seed0/metrics.json").read_text())
    assert 2 < metrics["metrics"]["factor"]["value"] < 3 and metrics["parts"] == {}
    page = (copy.folder / "results/demo/tables/mine.html").read_text()
    assert "did not hold" in page and "No data are read: counted at the sizes of digits" in page
    again = copy.snakemake("mine", "-n")
    assert "Nothing to be done" in again.stdout

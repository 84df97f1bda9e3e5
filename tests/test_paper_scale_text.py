"""Every row of the text tables at the paper's sizes: one update of one of its parts, and twenty tokens from it all."""

import json

import psutil
import pytest
import torch
from conftest import shipped

from diffusionblocks.methods import build
from diffusionblocks.training.trainer import Trainer

pytestmark = pytest.mark.slow

PLAN = shipped("paper")


def networks():
    """{Row: names of all rows whose networks and blocks are the same}: noise, corpus and epochs change no shape."""
    found = {}
    for (table, name), origin in PLAN.origins.items():
        if table in ("table3", "table4", "table5", "table_a3"):
            row = PLAN.rows[origin]
            key = json.dumps([row.model, row.method["name"], row.parts])
            found.setdefault(key, (row, []))[1].append((table, name))
    return dict(found.values())


NEW = 20
CPU = torch.device("cpu")


class Data:
    """Sequences of chance tokens, shorter than the paper's: no size of the network depends on their length."""

    train_size, train_device = 4, CPU

    def __init__(self, vocab_size, seq_len=32):
        self.shape = {"vocab_size": vocab_size, "seq_len": seq_len}
        self.tokens = torch.randint(vocab_size, (4, seq_len), generator=torch.Generator().manual_seed(0))

    def train_batch(self, indices, augmentations=()):
        return {"tokens": self.tokens[indices]}


def test_all_rows_are_covered():
    assert sum(map(len, networks().values())) == 3 + 7 + 3 + 5


@pytest.mark.skipif(psutil.virtual_memory().available < 8e9, reason="takes 8 GB of memory")
@pytest.mark.parametrize("row", networks(), ids=lambda row: f"{row.table}-{row.name}")
def test_a_step_and_twenty_tokens(row):
    run = row.run(0)
    data = Data(27 if run["data"]["name"] == "text8" else 32_000)
    train = {**run["train"], "batch_size": 1, "accumulate": 1, "precision": "fp32", "compile": False}
    trainer = Trainer({**run, "train": train}, row.parts[0], data, CPU)
    (network,) = trainer.method.models.values()
    head = getattr(network, "head", network.tokens).weight  # where layers start as nothing, only it moves at first
    before = head.detach().clone()
    _, values = trainer.update(0)
    assert values.isfinite().all() and values[0] > 0 and not torch.equal(head, before)
    del trainer, network, head

    method = build(run, data.shape, None).eval()
    with torch.inference_mode():
        if row.continues:
            eps, draws = torch.randn(1, 4 + NEW, run["model"]["width"]), torch.rand(1, 4 + NEW)
            # The recurrent chain has 32 levels, whose matrices of 32,000 rows take minutes here: four will do.
            recurrent = (run["model"]["name"], run["method"]["name"]) == ("recurrent_depth", "diffusionblocks")
            levels = {"num_steps": 4} if recurrent else {}
            written = method.extend(data.tokens[:1, :4], eps, draws, **levels)
            assert written.shape == (1, 4 + NEW) and torch.equal(written[:, :4], data.tokens[:1, :4])
        else:
            *_, (_, last) = method.sample([{}], [torch.rand(1, NEW, 32)], CPU, num_steps=NEW)
            written = last.prediction
            assert written.shape == (1, 32) and written.min() >= 0
    assert written.max() < data.shape["vocab_size"]

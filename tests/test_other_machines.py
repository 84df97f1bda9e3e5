"""Blocks that were trained on another machine come home, and nothing is trained again (docs/other_machines.md)."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import Checkout

from diffusionblocks.base.files import read_json

pytestmark = pytest.mark.slow

RUN, DATA = "results/demo/runs/table1/vit_diffusionblocks/seed0", "results/demo/data/digits.safetensors"


def train_there(checkout, part):
    """Train a part by the verb, in a checkout with run.json and the data set, and without Snakemake."""
    places = ["--data", "digits.safetensors", "--state", f"state/{part}", "-o", f"parts/{part}.safetensors"]
    command = [sys.executable, "-m", "diffusionblocks", "train", "run.json", part, *places]
    environment = {**os.environ, "PYTHONPATH": str(checkout.folder), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=checkout.folder, env=environment, check=True)


def bring(there, home, *parts):
    """Copy weights and logs, with the times that they have there: an hour before the repository came to be here."""
    for part in parts:
        for suffix in (".safetensors", ".jsonl"):
            source = there.folder / f"parts/{part}{suffix}"
            os.utime(source, (before := home.folder.stat().st_mtime - 3600, before))
            shutil.copy2(source, home.folder / RUN / "parts")


def test_blocks_of_two_machines_are_joined_and_evaluated_without_training(tmp_path):
    home, there = Checkout(tmp_path / "home"), Checkout(tmp_path / "there")
    home.snakemake(f"{RUN}/run.json", f"{RUN}/parts/block0.safetensors", DATA)
    for file in (f"{RUN}/run.json", DATA):
        shutil.copy(home.folder / file, there.folder)
    train_there(there, "block1")
    vit = there.folder / "diffusionblocks/models/vit.py"
    source = vit.read_text()
    vit.write_text(source + "# another version\n")
    train_there(there, "block2")

    bring(there, home, "block1", "block2")
    assert home.planned(f"{RUN}/metrics.json")["train"] == 2, "older than the code here, so they have to be touched"
    came = [f"{RUN}/parts/{part}.safetensors" for part in ("block1", "block2")]
    home.snakemake(*came, "--touch")
    left = {"assemble": 1, "evaluate": 1, "plan": 1}
    said = home.snakemake(f"{RUN}/metrics.json", "-n").stdout
    assert f"Made again: a result that the plan would make otherwise; {came[1]} was made by other code" in said
    assert home.planned(f"{RUN}/metrics.json") == {**left, "train": 1}

    vit.write_text(source)
    train_there(there, "block2")
    bring(there, home, "block2")
    home.snakemake(*came, "--touch")
    assert home.planned(f"{RUN}/metrics.json") == left
    home.snakemake(f"{RUN}/metrics.json")
    parts = read_json(home.folder / RUN / "metrics.json")["parts"]
    assert sorted(parts) == ["block0", "block1", "block2"] and all(part["step"] == 6 for part in parts.values())
    (home.folder / "diffusionblocks/models/vit.py").touch()  # as git may: the content is what counts
    assert home.planned(f"{RUN}/metrics.json") == {}

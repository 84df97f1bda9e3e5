"""Tables of generated images through the workflow: from config row to page, what tables share, what a change redoes."""

import copy
import json
import re
from collections import Counter

import pandas as pd
import pytest
import torch
from conftest import TINY_GENERATION, trainings

from diffusionblocks.base import tensors
from diffusionblocks.page import pictures
from diffusionblocks.scorers import fidelity
from diffusionblocks.scorers.extractor import extract, load_extractor

pytestmark = pytest.mark.slow

RUNS = "results/demo/runs/table2"
PAPER = {  # printed FID against train and against test
    "cifar10_dit_end_to_end": (32.84, 39.83),
    "cifar10_dit_diffusionblocks": (30.59, 37.20),
    "imagenet_dit_end_to_end": (9.01, 12.09),
    "imagenet_dit_diffusionblocks": (9.00, 10.63),
}
DATA = {
    "cifar10": ("scikit-learn digits", "CIFAR-10"),
    "imagenet": ("Fashion-MNIST 16x16 (6,000 images)", "ImageNet 256x256"),
}
CNN = "small CNN trained on the data"


@pytest.fixture
def changed(generated, tmp_path):
    """A copy of the checkout with table 2, to be changed."""
    return generated.copy(tmp_path / "checkout")


def samples_of(seed, weights=None):
    """The folder of a run's images that were made of the averaged weights, or of the last ones."""
    (name,) = (
        path.stem
        for path in (seed.parent / "samples").glob("*.json")
        if json.loads(path.read_text()).get("weights") == weights
    )
    return seed / "samples" / name


def test_from_config_row_to_csv(generated):
    table = pd.read_csv(generated.folder / "results/demo/tables/table2.csv").set_index(["metric", "row"])
    assert table["paper"].dropna().to_dict() == {
        (metric, row): numbers[i]
        for row, numbers in PAPER.items()
        for i, metric in enumerate(("fid_train", "fid_test"))
    }
    for row in PAPER:
        title, paper = DATA[row.partition("_")[0]]
        for metric in ("fid_train", "fid_test"):
            line = table.loc[metric, row]
            assert (line["extractor"], line["samples"], line["seeds"]) == (CNN, 40, 1) and line["ours"] > 0
            of_the_paper = {"fid_train": "Inception-v3", "fid_test": "Inception-v3 (clean)"}[metric]
            assert line["stand_in"] == f"{title} for {paper}; {CNN} for {of_the_paper}"
        last = table.loc["fid_test_last_weights", row]  # in the table, with no number of the paper beside it
        assert last["ours"] > 0 and last["ours"] != table.loc["fid_test", row]["ours"] and not last["beside"]
    fid = table.loc["fid_test"]
    assert fid["note"].dropna().to_dict() == dict.fromkeys(
        ("cifar10_dit_end_to_end", "cifar10_dit_shallow"), "least of 2 sets"
    )
    assert fid.loc["cifar10_dit_diffusionblocks", "gap"] == pytest.approx(
        fid.loc["cifar10_dit_diffusionblocks", "ours"] - fid.loc["cifar10_dit_end_to_end", "ours"]
    )
    # Twelve steps through six layers, or each through the two of the block that acts, or of the control.
    assert table.loc["layer_evaluations", "ours"].tolist() == [72, 24, 72, 24, 24, 24]
    assert table.loc["relative_speed", "ours"].tolist() == [1, 3, 1, 3, 1, 1]
    assert table.loc[("fid_test", "cifar10_dit_shallow"), "stand_in"] == fid.loc["cifar10_dit_end_to_end", "stand_in"]


def test_page_shows_numbers_and_pictures(generated):
    page = (generated.folder / "results/demo/tables/table2.html").read_text()
    drawn = dict(re.findall(r'<figure id="table2-(\S+)">.*?aria-label="([^"]+)"', page, re.DOTALL))
    assert [*drawn] == ["outcomes", "samples", "trajectory", "losses", "partition"]
    for title, _ in DATA.values():
        assert all(f" in the manner of {title}: " in drawn[name] for name in ("samples", "trajectory"))
    assert page.count('data-verdict="cannot tell"') == page.count("data-verdict=") == 6
    assert "Also measured" in page and "relative_speed" in page and "40 samples" in page
    assert f"{CNN} for Inception-v3" in page and "39.83" in page and "sampling 2" in page


def test_of_two_sets_the_better_counts_and_jobs_end_elsewhere_than_sets(generated):
    """FID computed here from the files of the three jobs, which are in order: 26 + 27 + 27 images, two sets of 40."""
    folder = generated.folder / RUNS / "cifar10_dit_end_to_end/seed0"
    found = [tensors.read(file, "")[0] for file in sorted(samples_of(folder).glob("*.safetensors"))]
    assert [len(shard["images"]) for shard in found] == [26, 27, 27]
    assert ["trajectory" in shard for shard in found] == [True, False, False]
    images = torch.cat([shard["images"] for shard in found])
    (made,) = generated.folder.glob("results/demo/features/digits/*")
    network, _ = load_extractor(made / "weights.safetensors", "cpu")
    reference = tensors.read(made / "reference.safetensors", "")[0]
    values = extract(network, images, "cpu").numpy()
    measured = json.loads((folder / "metrics.json").read_text())
    for split in ("train", "test"):
        theirs = {key: reference[f"{split}_{key}"] for key in ("mu", "sigma")}
        scores = [fidelity.fid(half, theirs) for half in (values[:40], values[40:])]
        assert measured["metrics"][f"fid_{split}"]["value"] == pytest.approx(min(scores)) and scores[0] != scores[1]
    shown = pictures.unpacked(measured["samples"]["images"])
    assert torch.equal(torch.tensor(shown), images[:20].permute(0, 2, 3, 1))


# What tables share


def test_the_ablations_of_the_block_count_train_what_no_other_table_has(generated):
    jobs, imagenet = generated.plan("table8")
    assert Counter(part[:2] for part in trainings(imagenet)) == {
        ("table8", f"b{blocks}"): blocks for blocks in (2, 3, 4, 6)
    }
    assert (jobs["sample"], jobs["evaluate"]) == (4, 4) and not {"extractor", "reference"} & set(jobs)
    _, cifar10 = generated.plan("table_a2")
    own = {("table_a2", f"b{blocks}"): blocks for blocks in (2, 4, 6)}
    assert Counter(part[:2] for part in trainings(cifar10)) == {("table7", "equi_probability_4_4_4"): 3, **own}
    _, both = generated.plan("ablation_block_count")
    assert sorted(both) == sorted(imagenet + cifar10)


def test_a_table_by_its_name_trains_nothing_of_the_others(fresh):
    jobs, files = fresh.plan("table7")
    splits = ("4_4_4", "3_6_3", "6_4_2", "2_4_6")
    rows = [f"{partition}_{split}" for partition in ("uniform", "equi_probability", "linear") for split in splits]
    assert set(trainings(files)) == {("table7", row, f"block{block}") for row in rows for block in range(3)}
    assert (jobs["prepare"], jobs["extractor"], jobs["reference"], jobs["table"]) == (1, 1, 1, 1)
    assert sorted(fresh.plan("ablation_partitioning")[1]) == sorted(files)


# What a change does again. One of the planned files is the table's own, which has the settings of its rows.


def altered(row=None, **changes):
    """The tiny configuration with other settings at the demo scale of table 2, or of one of its rows."""
    settings = copy.deepcopy(TINY_GENERATION)
    table = settings["tables"]["table2"]
    level = table["rows"].setdefault(row, {}) if row else table
    for section, values in changes.items():
        level.setdefault("demo", {}).setdefault(section, {}).update(values)
    return settings


@pytest.mark.parametrize(
    ("settings", "jobs"),
    [
        (altered("imagenet_dit_diffusionblocks", sampling={"num_steps": 14}), {"plan": 4, "sample": 2, "evaluate": 1}),
        (altered(sampling={"solver": "heun"}), {"plan": 19, "sample": 20, "evaluate": 6}),
        (altered(metrics={"kid": {"name": "kid"}}), {"plan": 7, "evaluate": 6}),
        (altered(extractor={"steps": 21}), {"plan": 9, "extractor": 2, "reference": 2, "evaluate": 6}),
        (altered(metrics={"fid_train": {"extractor": {"name": "small_cnn", "steps": 21}}}),
         {"plan": 9, "extractor": 2, "reference": 2, "evaluate": 6}),
        (altered("imagenet_dit_diffusionblocks", train={"lr": 0.01}),
         {"plan": 2, "train": 3, "assemble": 1, "sample": 2, "evaluate": 1}),
    ],
)  # fmt: skip
def test_a_changed_setting_redoes_what_depends_on_it(changed, settings, jobs):
    changed.configure(settings)
    assert changed.planned("table2") == {**jobs, "table": 1, "figures": 1, "page_of_table": 1, "table2": 1}


def test_another_number_of_jobs_makes_the_same_images(changed):
    row = "cifar10_dit_end_to_end"
    names = [samples_of(changed.folder / RUNS / row / "seed0", weights).name for weights in (None, "last")]
    changed.configure(altered(row, sampling={"shards": 2}))
    jobs, files = changed.plan("table2")
    assert jobs == {"plan": 7, "sample": 8, "evaluate": 2, "table": 1, "figures": 1, "page_of_table": 1, "table2": 1}, (
        "of the row and of its control, which is like it"
    )
    for name in names:
        assert {f"{RUNS}/{row}/seed0/samples/{name}/{shard}.safetensors" for shard in (0, 1)} <= set(files)


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("diffusion/chains.py", {"train": 10, "assemble": 6, "sample": 20, "evaluate": 6}),  # the method imports it
        ("diffusion/solvers/euler.py", {"sample": 20, "evaluate": 6}),
        ("diffusion/solvers/heun.py", {}),
        ("sampling/sample.py", {"sample": 20, "evaluate": 6}),
        ("scorers/extractors/small_cnn.py", {"extractor": 2, "reference": 2, "evaluate": 6}),
        ("evaluation/metrics/generation.py", {"evaluate": 6}),
    ],
)
def test_an_edit_redoes_what_it_can_affect(changed, file, jobs):
    path = changed.folder / "diffusionblocks" / file
    path.write_text(path.read_text() + "\n# edited\n")
    assert changed.planned("table2") == (
        {**jobs, "table": 1, "figures": 1, "page_of_table": 1, "table2": 1} if jobs else {}
    )

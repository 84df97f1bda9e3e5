"""Results that were made by other settings or other code are made again, whatever Snakemake remembers of them."""

import os
import shutil
import time

import pytest
from conftest import TINY
from test_cluster import HOLD, PART, Cluster, until

from diffusionblocks.plan.configuration import merge

pytestmark = pytest.mark.slow

RUNS = "results/demo/runs/table1"
NO_MEMORY = ("--rerun-triggers", "mtime")


@pytest.fixture
def copied(finished, tmp_path):
    """The finished checkout as `cp -a` of its results brings it: without Snakemake's own records."""
    checkout = finished.copy(tmp_path / "checkout")
    shutil.rmtree(checkout.folder / ".snakemake")
    return checkout


def test_results_that_were_copied_are_taken_as_they_are(copied):
    assert copied.planned("all", *NO_MEMORY) == {}


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"demo": {"train": {"steps": 7}}}, {"train": 8, "evaluate": 6, "plan": 7}),
        ({"rows": {"vit_end_to_end": {"metrics": {"accuracy": {"name": "accuracy"}, "more": {"name": "accuracy"}}}}},
         {"evaluate": 2, "plan": 3}),  # and of its control, which is like it; the table's own file has the settings
        ({"rows": {"vit_end_to_end": {"remark": "another word"}}}, {"plan": 1}),
    ],
)  # fmt: skip
def test_results_of_other_settings(copied, change, jobs):
    copied.configure(merge(TINY, {"tables": {"table1": change}}))
    planned = copied.planned("all", *NO_MEMORY)
    assert {rule: count for rule, count in planned.items() if rule in ("train", "evaluate", "plan")} == jobs


@pytest.mark.parametrize(
    ("file", "jobs"),
    [("models/vit.py", {"train": 9, "evaluate": 7}), ("evaluation/images.py", {"evaluate": 7}), ("models/dit.py", {})],
)
def test_results_of_other_code(copied, file, jobs):
    path = copied.folder / "diffusionblocks" / file
    before = path.stat()
    path.write_text(path.read_text() + "\n# edited\n")
    os.utime(path, (before.st_atime, before.st_mtime))  # no younger than what it has made
    planned = copied.planned("all", *NO_MEMORY)
    assert {rule: count for rule, count in planned.items() if rule in ("train", "evaluate")} == jobs
    copied.configure({**TINY, "track_code": False})
    assert "train" not in copied.planned("all", *NO_MEMORY)


def test_one_file_from_elsewhere(copied):
    shutil.copy(copied.folder / RUNS / "vit_end_to_end/seed0/metrics.json",
                copied.folder / RUNS / "vit_diffusionblocks/seed0/metrics.json")  # fmt: skip
    output = copied.snakemake("all", "-n", *NO_MEMORY)
    assert f"a result that the plan would make otherwise; {RUNS}/vit_diffusionblocks" in output.stderr + output.stdout
    assert copied.planned("all", *NO_MEMORY)["evaluate"] == 1
    assert copied.planned(f"{RUNS}/vit_end_to_end/seed0/metrics.json", *NO_MEMORY) == {}, "only within what is asked"


def test_code_that_is_edited_while_it_trains_has_not_trained(tmp_path):
    """Snakemake alone takes the code at the end of the job for the code that ran."""
    checkout = Cluster(tmp_path / "checkout", steps=6)
    checkout.before("diffusionblocks/training/train.py", "        log = state.log.read_text", HOLD)
    (checkout.folder / "window").touch()
    with checkout.running(PART, profile=None) as snakemake:
        assert until((checkout.folder / PART).exists, 90), checkout.output()
        path = checkout.folder / "diffusionblocks/models/vit.py"
        path.write_text(path.read_text() + "\n# edited\n")
        time.sleep(0.1)
        (checkout.folder / "window").unlink()
        assert until(lambda: snakemake.poll() is not None, 60)
    if snakemake.returncode:  # the code is younger than the parts: Snakemake throws them away
        os.utime(path, (0, 0))
        checkout.snakemake(PART, check=False)
    assert checkout.planned(PART).get("train") == 1, checkout.output()

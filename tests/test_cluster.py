"""Table 1 on a real SLURM: every block of a run is a job of its own, side by side on different nodes."""

import json
import time

import pytest
from conftest import Checkout

pytestmark = pytest.mark.slow

ROW = "results/demo/runs/table1/vit_diffusionblocks/seed0"


def submit(checkout, *arguments, **options):
    """Snakemake through the profile as users start it, asking for job states sooner than the profile does."""
    sooner = ["--slurm-init-seconds-before-status-checks", "2", "--max-status-checks-per-second", "1"]
    return checkout.snakemake("--profile", "slurm", *arguments, *sooner, configfile=None, **options)


def until(condition, seconds):
    """Wait for a condition, and say whether it came true."""
    for _ in range(seconds * 5):
        if condition():
            return True
        time.sleep(0.2)
    return False


def ended_jobs(slurm, count):
    """SLURM's own records of at least `count` jobs; the last line may come a moment after Snakemake is done."""
    until(lambda: len(slurm.jobs()) >= count, 10)
    return slurm.jobs()


def test_blocks_are_jobs_side_by_side_on_different_nodes(slurm, tmp_path, capsys):
    checkout = Checkout(tmp_path / "checkout")
    checkout.ask_often()
    # The demo as it is, except for one seed. The blocks of one run go first and three jobs at a time, so that the three
    # nodes get all of them at once.
    first = ["--prioritize", f"{ROW}/model.safetensors", "--jobs", "3"]
    submit(checkout, "table1", *first, "--config", "scale=demo", "seeds=[0]")
    assert (checkout.folder / "results/demo/tables/table1.html").exists()

    jobs = {job["JobId"]: job for job in ended_jobs(slurm, 15) if job["Comment"]}  # the doctor's has none
    assert all(job["JobState"] == "COMPLETED" for job in jobs.values())
    assert len(jobs) == 8 + 6  # eight parts and six evaluations; tables and pages need no job
    blocks = {}
    for log in sorted((checkout.folder / ROW / "parts").glob("*.jsonl")):
        start = json.loads(log.read_text().splitlines()[0])
        blocks[log.stem] = jobs[start["slurm_job_id"]]
        assert blocks[log.stem]["NodeList"] == start["node"], "the job's own log and SLURM's record disagree"
    with capsys.disabled():
        print("\nSLURM's records of the blocks of one run:")
        for block, job in blocks.items():
            print(f"  {block}: job {job['JobId']} on {job['NodeList']} from {job['StartTime']} to {job['EndTime']}")
    assert set(blocks) == {"block0", "block1", "block2"}
    assert len({job["JobId"] for job in blocks.values()}) == 3
    assert len({job["NodeList"] for job in blocks.values()}) == 3
    assert max(job["StartTime"] for job in blocks.values()) < min(job["EndTime"] for job in blocks.values())

"""What `status` reads out of the folders of a running workflow, made up, and of a finished one."""

import json
import os
import socket
import sys

import pytest
from test_lock import dead_pid, write_lock

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.base.lock import owner
from diffusionblocks.plan import watch
from diffusionblocks.plan.status import status
from diffusionblocks.verbs import main

BLOCKS = {"name": "diffusionblocks", "num_blocks": 3}
ROWS = {("table1", "whole"): {"name": "end_to_end"}, ("table1", "blocks"): BLOCKS, ("table7", "joint"): BLOCKS}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder with a plan of two tables, nine trainings of one seed among them, and a row that is counted."""
    written = {"runs/memory/block/seed0/run": {}, "runs/memory/block/evaluation": {"shape": {}, "parts": ["all"]}}
    for (table, row), method in ROWS.items():
        sharing = {} if row == "whole" else {"sharing": "joint" if row == "joint" else "independent"}
        run = {"table": table, "row": row, "seed": 0, "method": {**method, **sharing}, "train": {"batch_size": 50}}
        written[f"runs/{table}/{row}/seed0/run"] = run
        written[f"runs/{table}/{row}/evaluation"] = {"metrics": {}, "teachers": {}}
    folder = tmp_path / "results/demo"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(written))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusionblocks.plan.status.queue", lambda folder: [])
    return folder


def train(results, part, *steps, speeds=(100.0, 300.0), loss=1.5):
    """The folder of a training of table1/blocks with a log up to some updates."""
    state = results / f"state/table1/blocks/seed0/{part}"
    state.mkdir(parents=True)
    records = [{"event": "start", "step": 0, "total": 400}]
    for step, speed in zip(steps, speeds, strict=False):
        records.append({"step": step, "block": 0, "loss": loss, "samples_per_second": speed})
    (state / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return state


def test_each_training_that_runs_or_was_stopped_has_a_line(results, capsys, monkeypatch):
    for file in ("runs/table1/whole/seed0/metrics.json", "runs/table1/blocks/seed0/parts/block2.safetensors"):
        (results / file).parent.mkdir(parents=True)
        (results / file).touch()
    write_lock(train(results, "block0", 100, 200), socket.gethostname(), os.getppid())
    stopped = train(results, "block1", 100, 200, loss=0.25)
    tensors.write(stopped / "checkpoint.safetensors", {}, {"step": 150, "total": 400})
    write_lock(stopped, socket.gethostname(), dead_pid(), started="1")
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "status"])
    main()
    head, *lines, done = capsys.readouterr().out.splitlines()
    assert "results/demo: of 5 trainings 2 done, 1 running, 1 stopped, 1 waiting. No Snakemake works here." in head
    assert [line.split() for line in lines] == [
        ["training", "update", "loss", "samples/s", "time", "left", "where"],
        # 200 updates of 50 samples, of which 100 took 1 s and as many 1/3 s
        ["table1/blocks/seed0/block0", "200", "of", "400", "1.5000", "150", "0:01:06", socket.gethostname()],
        ["table1/blocks/seed0/block1", "150", "of", "400", "0.2500", "150", "0:01:23", "stopped"],
    ]
    assert done == "done: table1 2 of 4, table7 0 of 1"
    assert (stopped / "lock.json").exists(), "nothing is removed"


def test_what_is_trained_again_is_not_done(results):
    """Numbers and model of the earlier training stay until it ends."""
    made = results / "runs/table1/blocks/seed0"
    made.mkdir(parents=True)
    for file in ("metrics.json", "model.json"):
        (made / file).touch()
    write_lock(train(results, "block0", 100), socket.gethostname(), os.getppid())
    train(results, "block1", 100)
    write_lock(results / "state/table1/blocks/seed0/block2", socket.gethostname(), os.getppid())
    assert "of 5 trainings 0 done, 2 running, 1 stopped, 2 waiting." in status(results)


def test_a_results_folder_that_is_a_link_is_that_of_its_workflow(results, tmp_path):
    (results.parent).rename(tmp_path / "disk")
    (tmp_path / "results").symlink_to("disk")
    (tmp_path / "disk/demo").rename(tmp_path / "elsewhere")
    (tmp_path / "disk/demo").symlink_to("../elsewhere")
    write_lock(tmp_path / ".snakemake", socket.gethostname(), os.getppid())
    assert "Snakemake works on" in status(tmp_path / "results/demo") and "Snakemake works on" in status()


def test_it_says_who_works_and_what_slurm_has(results, monkeypatch):
    state = results / "state/table7/joint/seed0/all"
    write_lock(state, "node7", 3, slurm_job_id="17")  # which has written no log yet
    write_lock(results.parent.parent / ".snakemake", socket.gethostname(), os.getppid())
    jobs = [("17", "RUNNING", "None"), ("18", "PENDING", "Priority"), ("19", "PENDING", "Priority")]
    monkeypatch.setattr("diffusionblocks.plan.status.queue", lambda folder: jobs)
    said = status(results)
    assert f"Snakemake works on {socket.gethostname()}, process {os.getppid()}. SLURM: 1 running, 2 pending." in said
    assert ["table7/joint/seed0/all", "beginning", "node7,", "job", "17"] in [
        line.split() for line in said.splitlines()
    ]
    monkeypatch.setattr("diffusionblocks.plan.status.queue", lambda folder: None)
    assert "SLURM does not answer." in status(results)


def test_of_another_host_the_last_sign_of_life_is_believed(tmp_path):
    lock = write_lock(tmp_path, "another-node", 1)
    assert owner(tmp_path)["host"] == "another-node"
    os.utime(lock, (0, 0))
    assert owner(tmp_path) is None and lock.exists()
    lock.write_text('{"host": "elsew')
    assert owner(tmp_path) is None and owner(tmp_path / "absent") is None


def test_the_last_workflow_is_meant_and_none_is_one_message(results, tmp_path, monkeypatch):
    other = results.parent / "laptop"
    other.mkdir()
    (other / "plan.json").write_text("{}")
    os.utime(results / "plan.json", (0, 0))
    assert "results/laptop: of 0 trainings 0 done" in status()
    monkeypatch.chdir(watch.ROOT / "docs")
    with pytest.raises(UserError, match=r"docs/results: no workflow was started here\. Name its folder"):
        status()


@pytest.mark.slow
def test_of_a_finished_workflow(finished):
    said = status(finished.folder / "results/demo")
    assert "of 9 trainings 9 done. No Snakemake works here." in said and "done: table1 9 of 9" in said

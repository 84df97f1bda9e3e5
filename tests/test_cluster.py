"""A real SLURM: blocks side by side, and faults, after which the bits are those of a run that nothing disturbed.

A machine can have only one such cluster, so all that needs it is in this file, which one process of pytest-xdist takes.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, Checkout

from diffusionblocks.base.files import read_about, read_json_lines

pytestmark = pytest.mark.slow

ROW = "results/demo/runs/table1/vit_diffusionblocks/seed0"

PART = f"{ROW}/parts/block0.safetensors"
STATE = "results/demo/state/table1/vit_diffusionblocks/seed0/block0"
LOG = "results/demo/logs/runs/table1/vit_diffusionblocks/seed0/train-block0.log"


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


class Cluster(Checkout):
    """A checkout whose Snakemake submits to SLURM, and is looked at while it runs."""

    def __init__(self, folder, steps=3000):
        super().__init__(folder)
        train = {**TINY["tables"]["table1"]["demo"]["train"], "steps": steps, "log_every": 10}
        demo = {**TINY["tables"]["table1"]["demo"], "train": train}
        self.configure({**TINY, "tables": {"table1": {"demo": demo}}})
        profile = "workflow/profiles/slurm/profile.v9+.yaml"
        self.edit(profile, "runtime: 720 if", "runtime: 9 if")  # so near to its limit that a signal is SLURM's warning
        self.ask_often()

    def edit(self, file, old, new):
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def before(self, file, line, statement):
        """Put a statement before a line of the copy's code."""
        indent = line[: len(line) - len(line.lstrip())]
        self.edit(file, line, f"{indent}{statement}\n{line}")

    @contextmanager
    def running(self, *targets, profile="slurm"):
        """Snakemake in the background, killed in the end where it still runs; its output lies in `output`."""
        command = [f"{Path(sys.executable).parent}/snakemake", *targets, "--config", "scale=demo"]
        command += ["--configfile", "tiny.yaml", *(["--profile", profile] if profile else [])]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        with open(self.folder / "output", "a") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def output(self):
        return (self.folder / "output").read_text()

    def steps(self):
        """Updates in the training's log so far."""
        log = self.folder / STATE / "log.jsonl"
        return max((entry["step"] for entry in read_json_lines(log)), default=0) if log.exists() else 0

    def about(self):
        path = self.folder / STATE / "checkpoint.safetensors"
        return (read_about(path) if path.exists() else None) or {}

    def job(self):
        """Id of the only job that is queued or runs."""
        found = slurm_says("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i").split()
        return found[0] if found else None


def slurm_says(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def queued_again(job):
    """Wait until SLURM has queued a job again, and have it start at once: it would let a node rest for two minutes."""
    assert until(lambda: slurm_says("squeue", "-h", "-t", "PENDING", "-j", job, "-o", "%i"), 60)
    slurm_says("scontrol", "update", f"jobid={job}", "StartTime=now")


def trainers(folder):
    """Processes that train in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"diffusionblocks\0train" in (path / "cmdline").read_bytes() and (path / "cwd").readlink() == folder:
                found.append(int(path.name))
        except OSError:
            continue
    return found


REMOVED = "The last Snakemake in this folder was killed; its locks are removed."
# A pause between the weights and the end of a training.
HOLD = 'while Path("window").exists(): time.sleep(0.1)'


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(part, steps): the file as trainings that nothing disturbs make it."""
    made = {}

    def read(part, steps):
        if steps not in made:
            made[steps] = Cluster(tmp_path_factory.mktemp("undisturbed") / "checkout", steps)
            made[steps].snakemake(*(PART.replace("block0", f"block{block}") for block in range(3)))
        return tensor_bytes(made[steps].folder / part)

    return read


def tensor_bytes(path):
    """A tensor file without its header, which tells of the code, changed by a test."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_blocks_are_jobs_side_by_side_on_different_nodes(slurm, tmp_path, capsys):
    checkout = Checkout(tmp_path / "checkout")
    checkout.ask_often()
    # The demo as it is, except for one seed. The blocks of one run go first and three jobs at a time, so that the three
    # nodes get all of them at once.
    first = ["--prioritize", f"{ROW}/model.json", "--jobs", "3"]
    submit(checkout, "table1", *first, "--config", "scale=demo", "seeds=[0]")
    assert (checkout.folder / "results/demo/tables/table1.html").exists()

    jobs = {job["JobId"]: job for job in ended_jobs(slurm, 15) if job["Comment"]}  # the doctor's has none
    assert all(job["JobState"] == "COMPLETED" for job in jobs.values())
    assert len(jobs) == 9 + 7  # nine parts and seven evaluations; tables and pages need no job
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


# Faults


def test_a_training_goes_on_through_many_time_limits(slurm, tmp_path, undisturbed, told):
    """SLURM's warning before the limit makes the job save and queue itself again, more often than it has retries."""
    checkout = Cluster(tmp_path / "checkout")
    with checkout.running(PART) as snakemake:
        reached, links = 0, []
        while len(links) < 3:
            assert until(lambda step=reached: checkout.steps() > step + 100, 90), checkout.output()
            links.append(checkout.job())
            slurm_says("scancel", "--signal=TERM", links[-1])  # as SLURM itself does when the limit is near
            assert until(lambda step=reached: checkout.about().get("step", 0) > step, 30)
            reached = checkout.about()["step"]
            queued_again(links[-1])
        assert until(lambda: snakemake.poll() is not None, 120), checkout.output()
    assert snakemake.returncode == 0, checkout.output()
    assert len(set(links)) == 1, "one job, queued again"
    starts = [entry["step"] for entry in read_json_lines(checkout.folder / PART.replace("safetensors", "jsonl"))
              if entry.get("event") == "start"]  # fmt: skip
    assert len(starts) == 4 and starts == sorted(set(starts))
    assert tensor_bytes(checkout.folder / PART) == undisturbed(PART, 3000)
    told(
        "a training longer than its time limit",
        f"SLURM's warning at updates {', '.join(map(str, starts[1:]))} of 3000, oftener than there are retries",
        "saved, had SLURM queue the same job again, went on",
        "no update",
    )


def test_stopped_while_it_saves_slowly_and_when_it_is_done(slurm, tmp_path, undisturbed, told):
    """A save that takes long is finished, whatever signal asks for it; a training that is done is not made again."""
    checkout = Cluster(tmp_path / "checkout")
    checkout.before("diffusionblocks/training/train.py", "            progress = {", "__import__('time').sleep(12)")
    checkout.before("diffusionblocks/training/train.py", "        log = state.log.read_text", HOLD)
    (checkout.folder / "window").touch()
    parts = [PART.replace("block0", f"block{block}") for block in range(3)]
    states = [checkout.folder / STATE.replace("block0", f"block{block}") for block in range(3)]

    def saved(block):
        path = states[block] / "checkpoint.safetensors"
        return (read_about(path) or {}).get("step", 0) if path.exists() else 0

    with checkout.running(*parts) as snakemake:
        assert until(lambda: all((state / "log.jsonl").exists() for state in states), 90), checkout.output()
        jobs = dict(re.findall(r"block(\d)\|(\d+)", slurm_says("squeue", "-h", "-o", "%k|%i")))
        first = trainers(checkout.folder)
        slurm_says("scancel", jobs["0"])
        slurm_says("scancel", "--signal=USR1", jobs["1"])
        assert until(lambda: 0 < saved(0) < 3000 and 0 < saved(1) < 3000, 60), checkout.output()
        queued_again(jobs["1"])
        assert until(lambda: (checkout.folder / parts[2]).exists(), 90), checkout.output()
        slurm_says("scancel", jobs["2"])
        assert until(lambda: not set(first) & set(trainers(checkout.folder)), 60), "a trainer outlived its job"
        assert saved(2) == 3000
        (checkout.folder / "window").unlink()
        assert until(lambda: snakemake.poll() is not None, 150), checkout.output()
    assert snakemake.returncode == 0, checkout.output()
    assert [tensor_bytes(checkout.folder / part) for part in parts] == [undisturbed(part, 3000) for part in parts]
    assert "going on after step 3000 of 3000" in (checkout.folder / LOG.replace("block0", "block2")).read_text()
    slow = "finished a save of 12 s, then ended; the next attempt went on"
    told("`scancel`, a time limit, pre-emption", "SIGTERM to all of a job under pgid", slow, "no update")
    told("a warning by SIGUSR1", "`scancel --signal=USR1`", slow, "no update")
    told("a kill between the end of a training and that of its job", "`scancel` in that window",
         "Snakemake deleted the parts; the next attempt wrote them again", "no update")  # fmt: skip


def test_a_controller_that_is_away_costs_nothing(slurm, tmp_path, told):
    """While a job runs and another is to be submitted; with sacct installed and no accounting."""
    checkout = Cluster(tmp_path / "checkout", steps=6)
    checkout.before("diffusionblocks/training/assemble.py", "    model_file.write(", "__import__('time').sleep(10)")
    row = "results/demo/runs/table1/vit_end_to_end/seed0"
    log = checkout.folder / row.replace("runs", "logs/runs") / "assemble.log"
    with checkout.running(f"{row}/metrics.json", "--jobs", "2") as snakemake:
        assert until(log.exists, 90), checkout.output()
        slurm.stop_controller()
        time.sleep(25)
        assert snakemake.poll() is None
        slurm.start_controller()
        assert until(lambda: snakemake.poll() is not None, 120), checkout.output()
    assert snakemake.returncode == 0 and (checkout.folder / row / "metrics.json").exists(), checkout.output()
    assert "restart" not in checkout.output()
    told("SLURM's controller away", "slurmctld ended for 25 s while a job ran and another was to be submitted, without "
         "accounting", "both went on when it was back; no retry was spent", "the 25 s")  # fmt: skip


def test_jobs_of_a_lost_snakemake_are_waited_for_and_taken_over(slurm, tmp_path, undisturbed, told):
    """Two kills: of Snakemake while its job trains, and a start beside a Snakemake that lives."""
    checkout = Cluster(tmp_path / "checkout")
    checkout.edit("diffusionblocks/plan/watch.py", "PAUSE = 60", "PAUSE = 1")
    checkout.before("diffusionblocks/training/train.py", "        log = state.log.read_text", HOLD)
    (checkout.folder / "window").touch()
    with checkout.running(PART) as lost:
        assert until(lambda: checkout.steps() > 0, 90), checkout.output()
        beside = checkout.snakemake("--unlock", check=False)
        assert beside.returncode and f"process {lost.pid}" in beside.stderr and "scancel" not in beside.stderr
    job = checkout.job()
    with checkout.running(PART) as snakemake:
        assert until(lambda: f"scancel {job}" in checkout.output(), 60), checkout.output()
        (checkout.folder / "window").unlink()
        assert until(lambda: snakemake.poll() is not None, 120), checkout.output()
    assert snakemake.returncode == 0, checkout.output()
    assert tensor_bytes(checkout.folder / PART) == undisturbed(PART, 3000)
    assert [record["JobState"] for record in slurm.jobs() if "rule_train" in record["Comment"]] == ["COMPLETED"]
    assert "Nothing to be done" in checkout.output()
    assert checkout.output().count(REMOVED) == 1
    told("Snakemake killed, login node lost", "SIGKILL to Snakemake while its job trained; then the same command",
         "removed its locks, waited for the job, took its parts", "no update")  # fmt: skip
    told("a second Snakemake in the folder", "`--unlock` beside one that lives", "refused, naming its host and process",
         "nothing")  # fmt: skip


# Of a local Snakemake


def test_outputs_that_snakemake_throws_away_are_only_written_again(tmp_path, undisturbed, told):
    """A file of code with a time stamp in the future; a Snakemake that is killed while its trainer ends."""
    checkout = Cluster(tmp_path / "checkout", steps=300)
    future = checkout.folder / "diffusionblocks/models/vit.py"
    os.utime(future, (time.time() + 3600, time.time() + 3600))
    failed = checkout.snakemake(PART, check=False)
    assert failed.returncode and "older modification time" in failed.stdout + failed.stderr
    assert not (checkout.folder / PART).exists() and checkout.about()["step"] == 300
    os.utime(future)
    checkout.snakemake(PART)
    assert "going on after step 300 of 300" in (checkout.folder / LOG).read_text()
    assert tensor_bytes(checkout.folder / PART) == undisturbed(PART, 300)
    told("outputs that Snakemake finds wanting", "a file of code with a time stamp in the future", "Snakemake deleted "
         "the parts; the next attempt wrote them again", "no update")  # fmt: skip


def test_a_snakemake_that_is_killed_while_its_trainer_ends(tmp_path, undisturbed, told):
    checkout = Cluster(tmp_path / "checkout", steps=300)
    checkout.before("diffusionblocks/training/train.py", "        log = state.log.read_text", HOLD)
    (checkout.folder / "window").touch()
    with checkout.running(PART, profile=None):
        assert until((checkout.folder / PART).exists, 90), checkout.output()
    assert not trainers(checkout.folder), "all of its processes were killed"
    (checkout.folder / "window").unlink()
    assert list((checkout.folder / ".snakemake/locks").iterdir())
    assert REMOVED in checkout.snakemake(PART).stderr
    assert "going on after step 300 of 300" in (checkout.folder / LOG).read_text()
    assert tensor_bytes(checkout.folder / PART) == undisturbed(PART, 300)
    told("a local Snakemake killed while a trainer ends", "SIGKILL to all of its processes; then the same command",
         "its locks were removed, the parts written again", "no update")  # fmt: skip

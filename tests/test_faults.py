"""Kills, full disks, damaged files, losses that are not finite: one message, nothing lost, nothing half written."""

import copy
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch
from conftest import shipped
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusionblocks import verbs as program
from diffusionblocks.base import files, model_file
from diffusionblocks.base.files import Interrupted, UserError, read_about, read_json, read_json_lines, write_json
from diffusionblocks.data.prepare import prepare
from diffusionblocks.evaluation.evaluate import evaluate
from diffusionblocks.models import vit
from diffusionblocks.plan import code as program_code
from diffusionblocks.plan.code import digest, run_files
from diffusionblocks.plan.row import parts_of
from diffusionblocks.plan.source import PACKAGE
from diffusionblocks.training import checkpoint as states
from diffusionblocks.training import train as training
from diffusionblocks.training.trainer import Trainer

pytestmark = pytest.mark.slow

ROOT = PACKAGE.parent
STEPS = 300
KEPT = ["state/checkpoint.safetensors", "state/log.jsonl"]


def tiny(row="vit_diffusionblocks", **train):
    """A run of table 1 at tiny size, with dropout, so that a resumed run must draw the same random numbers."""
    run = copy.deepcopy(shipped().rows["table1", row].run(0))
    run["model"] |= {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 24, "patch_size": 4, "dropout": 0.2}
    run["train"] |= {"lr": 0.001, "steps": 12, "warmup_steps": 3, "batch_size": 16, "log_every": 1, **train}
    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.safetensors"
    prepare({"name": "digits"}, "nowhere", path)
    return path


class Job:
    """A training job with files of its own under `folder`."""

    def __init__(self, folder, data, run, part="block1"):
        self.folder, self.data, self.part = folder, data, part
        self.weights, self.log = folder / f"parts/{part}.safetensors", folder / f"parts/{part}.jsonl"
        self.state = folder / "state"
        self.checkpoint = self.state / "checkpoint.safetensors"
        self.configure(run)

    def configure(self, run):
        self.run = run
        write_json(self.folder / "run.json", run)

    def arguments(self, seconds):
        places = ["--data", self.data, "--state", self.state, "-o", self.weights, "--checkpoint-seconds", seconds]
        return [str(word) for word in ("train", self.folder / "run.json", self.part, *places)]

    def start(self, seconds=300, limit=None):
        """A process of its own; `limit` is the largest file that it may write."""

        def restrict():
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            [sys.executable, "-m", "diffusionblocks", *self.arguments(seconds)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=restrict,
        )  # fmt: skip

    def finish(self, seconds=300, **options):
        process = self.start(seconds, **options)
        output, errors = process.communicate()
        return process.returncode, output, errors

    def here(self, seconds=300):
        """Train inside this process."""
        code = digest(run_files("train", self.run))
        training.train(self.folder / "run.json", self.part, self.weights, self.data, self.state, seconds, code)

    def stop(self, step, number):
        """Start a process, send it a signal once its log has reached a step, return what it left: code and errors.

        Where this process got no time to send it before the other was done, all is done again.
        """
        log = self.state / "log.jsonl"
        for _ in range(5):
            process = self.start(seconds=0 if number == signal.SIGKILL else 3600)
            while process.poll() is None:
                if log.exists() and any(entry["step"] >= step for entry in read_json_lines(log)):
                    process.send_signal(number)
                    break
                time.sleep(0.005)
            _, errors = process.communicate()
            if process.returncode or errors:
                return process.returncode, errors
            shutil.rmtree(self.weights.parent)
        raise AssertionError(f"five processes ended by themselves in spite of signal {number}")

    def bits(self):
        return {name: (value.shape, value.numpy().tobytes()) for name, value in load_file(self.weights).items()}

    def files(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def command(capsys, *words):
    """(exit code, last line of errors) of a verb, run inside this process."""
    arguments, sys.argv = sys.argv, ["diffusionblocks", *map(str, words)]
    try:
        program.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = arguments
    return code, capsys.readouterr().err


# Kills


@pytest.mark.parametrize(
    ("row", "part", "settings"),
    [
        ("vit_end_to_end", "all", {"steps": STEPS, "ema": 0.9}),
        ("vit_diffusionblocks", "block1", {"steps": STEPS, "augment": ["crop"], "accumulate": 2}),
        ("vit_diffusionblocks_joint", "all", {"steps": STEPS // 3}),
    ],
)
def test_killed_at_a_random_step_ends_with_the_same_bits(tmp_path, digits, row, part, settings, told):
    run = tiny(row, **settings)
    straight, killed = (Job(tmp_path / name, digits, run, part) for name in ("straight", "killed"))
    step = random.randrange(5, STEPS // 2)
    code, errors = killed.stop(step, signal.SIGKILL)
    assert code == -signal.SIGKILL and not killed.weights.exists(), errors

    code, output, errors = killed.finish()
    assert code == 0, errors
    resumed = int(re.search(rf"going on after step (\d+) of {STEPS}", output)[1])
    assert step - 1 <= resumed < STEPS
    straight.here()
    assert killed.bits() == straight.bits(), f"killed after step {step}, resumed after step {resumed}"
    # Nor does the log tell of the kill, apart from the second start; speed and memory are measured anew.
    logs = [
        [
            (r["step"], r["block"], r["loss"], r["gradient_norm"], r["lr"])
            for r in read_json_lines(job.log)
            if "loss" in r
        ]
        for job in (straight, killed)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == STEPS
    starts = [entry["step"] for entry in read_json_lines(killed.log) if entry.get("event") == "start"]
    assert starts == [0, resumed]
    if part == "all" and "ema" in settings:
        told("a node lost, SIGKILL", f"killed after update {step} of {STEPS}, a checkpoint after every update",
             f"the next attempt went on after update {resumed}", "what was made since the last checkpoint, which is at "
             "most five minutes old")  # fmt: skip
    assert killed.files() == [f"parts/{part}.jsonl", f"parts/{part}.safetensors", "run.json", *KEPT]


def test_sigterm_saves_and_a_restart_goes_on_even_over_a_full_disk(tmp_path, digits, capsys):
    run = tiny(steps=STEPS, log_every=10)
    straight, stopped = (Job(tmp_path / name, digits, run) for name in ("straight", "stopped"))
    code, errors = stopped.stop(20, signal.SIGTERM)
    assert code == 143, errors
    step = int(
        re.search(r"error: table1/vit_diffusionblocks seed 0 block1: stopped on request after step (\d+)", errors)[1]
    )
    assert 20 <= step < STEPS and str(stopped.state) in errors and "Traceback" not in errors
    saved = stopped.checkpoint.read_bytes()
    assert json.loads(safe_open(stopped.checkpoint, "pt").metadata()["about"])["step"] == step
    assert stopped.files() == ["run.json", *KEPT]

    # A disk that is too small for the next checkpoint: the one that is there stays.
    code, _, errors = stopped.finish(seconds=0, limit=len(saved) // 2)
    assert code == 2 and errors.count("\n") == 1, errors
    assert (
        errors.startswith(f"error: {stopped.checkpoint}: the disk is full") and "start the same command again" in errors
    )
    assert stopped.checkpoint.read_bytes() == saved
    assert stopped.files() == ["run.json", *KEPT]

    stopped.here()
    straight.here()
    assert f"going on after step {step} of {STEPS}" in capsys.readouterr().out
    assert stopped.bits() == straight.bits()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_in_the_middle_of_an_update_loses_nothing(tmp_path, digits, monkeypatch, number):
    """Wherever the signal arrives, the step that the message names is the one that is saved."""
    append = states.State.append

    def interrupt(self, *records):
        if records[0].get("step") == 5 and "loss" in records[0]:
            os.kill(os.getpid(), number)
        append(self, *records)

    monkeypatch.setattr(states.State, "append", interrupt)
    job = Job(tmp_path, digits, tiny())
    with pytest.raises(Interrupted) as stop:
        job.here(seconds=3600)
    step = int(re.search(r"after step (\d+)", str(stop.value))[1])
    assert job.checkpoint.exists(), f"the message says step {step}, and nothing was saved"
    assert json.loads(safe_open(job.checkpoint, "pt").metadata()["about"])["step"] == step


def test_nohup_is_heeded(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(states.State, "trim_log", lambda self, step: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        job = Job(tmp_path, digits, tiny())
        job.here()
        assert job.weights.exists() and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopped_between_the_weights_and_the_log(tmp_path, digits, monkeypatch):
    """The next attempt repeats the last moments of a job, and the log still has one end, as evaluate expects."""
    job, straight = (Job(tmp_path / name, digits, tiny()) for name in ("stopped", "straight"))
    straight.here()

    def full(path, text):
        raise UserError("the disk is full")

    monkeypatch.setattr(training, "write_text", full)
    with pytest.raises(UserError, match="full"):
        job.here()
    monkeypatch.undo()
    job.here()
    assert job.bits() == straight.bits()
    ends = [entry for entry in read_json_lines(job.log) if entry.get("event") == "end"]
    assert len(ends) == 1


def test_kill_while_a_checkpoint_is_written_leaves_no_litter(tmp_path, digits):
    """What a trainer that is gone was writing is removed by the next one."""
    job = Job(tmp_path, digits, tiny())
    job.state.mkdir()
    (job.state / ".checkpoint.safetensors.999999.tmp").write_bytes(b"half a checkpoint")
    job.here()
    assert job.files() == ["parts/block1.jsonl", "parts/block1.safetensors", "run.json", *KEPT]


# Two trainers


def test_two_trainers_at_once(tmp_path, digits, capsys):
    job = Job(tmp_path, digits, tiny(steps=5000))
    first = job.start()
    while not (job.state / "log.jsonl").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    code, errors = command(capsys, *job.arguments(300))
    assert code == 2 and errors.startswith(f"error: {job.state}: another trainer works here"), errors
    for word in (str(first.pid), socket.gethostname(), str(job.state / "lock.json")):
        assert word in errors
    assert first.poll() is None, "the first one goes on"
    first.terminate()
    first.communicate()
    assert first.returncode == 143 and not (job.state / "lock.json").exists()


# Checkpoints


@pytest.fixture
def stopped(tmp_path, digits, monkeypatch):
    """A job that was stopped after step 7 of 12, with a checkpoint of that step."""
    job = Job(tmp_path, digits, tiny())
    update = Trainer.update

    def interrupt(self, step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupt)
        with pytest.raises(Interrupted, match="step 7"):
            job.here()
    return job


def test_checkpoint_of_another_configuration(stopped, capsys):
    before = stopped.checkpoint.read_bytes()
    run = copy.deepcopy(stopped.run)
    run["train"]["lr"], run["model"]["width"] = 0.5, 48
    stopped.configure(run)
    code, errors = command(capsys, *stopped.arguments(300))
    assert code == 2 and errors.count("\n") == 1
    for word in (
        "run.train.lr: 0.001 there, 0.5 here",
        "run.model.width: 24 there, 48 here",
        str(stopped.state),
        "Delete",
    ):
        assert word in errors
    assert stopped.checkpoint.read_bytes() == before and not stopped.weights.exists()


def test_checkpoint_of_other_code(stopped, capsys, monkeypatch):
    """It is refused, or gone on with where the user says so; the part then tells of both."""
    old = read_about(stopped.checkpoint)["identity"]["code"]
    monkeypatch.setattr(program_code, "digest", lambda files: "new")
    code, errors = command(capsys, *stopped.arguments(300))
    assert code == 2 and errors.count("\n") == 1 and f"code: '{old}' there, 'new' here" in errors
    assert "track_code=false" in errors and str(stopped.state) in errors and stopped.checkpoint.exists()
    assert command(capsys, *stopped.arguments(300), "--code", "any")[0] == 0
    assert read_about(stopped.weights)["code"] == f"{old}+new"


def test_checkpoint_of_an_older_version(stopped, capsys):
    """It says neither its code nor how many updates there are to be."""
    about = read_about(stopped.checkpoint)
    del about["total"], about["identity"]["code"]
    save_file(load_file(stopped.checkpoint), stopped.checkpoint, metadata={"about": json.dumps(about)})
    code, errors = command(capsys, *stopped.arguments(300))
    assert code == 2 and errors.count("\n") == 1 and "code: None there" in errors, errors


@pytest.mark.parametrize("change", ["code", "configuration"])
def test_a_finished_checkpoint_does_not_outlive_a_change(tmp_path, digits, capsys, monkeypatch, change):
    """Trained anew, and not written out once more as what the new code or configuration has made."""
    job = Job(tmp_path, digits, tiny())
    job.here()
    before = job.bits()
    if change == "code":
        monkeypatch.setattr(program_code, "digest", lambda files: "new")
    else:
        job.configure({**job.run, "seed": 1})
    code, errors = command(capsys, *job.arguments(300))
    assert code == 0, errors
    assert (job.bits() == before) == (change == "code")
    starts = [entry["step"] for entry in read_json_lines(job.log) if entry.get("event") == "start"]
    assert starts == [0] and (read_about(job.weights)["code"] == "new") == (change == "code")


def test_checkpoint_of_another_part(stopped, capsys):
    stopped.part = "block2"
    code, errors = command(capsys, *stopped.arguments(300))
    assert code == 2 and "part: 'block1' there, 'block2' here" in errors


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_damaged_checkpoint(stopped, capsys, keep):
    content = stopped.checkpoint.read_bytes()
    cut = content[: int(keep * len(content)) if 0 < keep < 1 else keep]
    stopped.checkpoint.write_bytes(cut)
    code, errors = command(capsys, *stopped.arguments(300))
    assert (
        code == 2 and errors.startswith(f"error: {stopped.checkpoint}: absent, damaged") and errors.count("\n") == 1
    ), errors
    assert f"Delete {stopped.state}" in errors
    assert not stopped.weights.exists() and not (stopped.state / "lock.json").exists()


def test_checkpoint_of_an_older_network(stopped, capsys):
    """The code has changed since: the tensors no longer fit, although the settings are the same."""
    with safe_open(stopped.checkpoint, "pt") as file:
        about = file.metadata()
    tensors = load_file(stopped.checkpoint)
    tensors["model.models.block1.old.weight"] = tensors.pop("model.models.block1.head.weight")
    save_file(tensors, stopped.checkpoint, metadata=about)
    code, errors = command(capsys, *stopped.arguments(300))
    assert code == 2 and str(stopped.checkpoint) in errors and str(stopped.state) in errors, errors


def test_checkpoint_goes_on_with_the_log_up_to_it(stopped):
    with open(stopped.state / "log.jsonl", "a") as log:
        log.write(
            '{"step": 9, "block": 1, "loss": 1.0}\n{"step": 10, "blo'
        )  # written after the checkpoint, then killed
    stopped.here()
    steps = [entry["step"] for entry in read_json_lines(stopped.log) if "loss" in entry]
    assert steps == list(range(1, 13))
    events = [(entry["event"], entry["step"]) for entry in read_json_lines(stopped.log) if "event" in entry]
    assert events == [("start", 0), ("start", 7), ("end", 12)]


# A network that breaks its contract


def test_a_broken_network_is_refused_before_its_first_update_and_not_when_it_goes_on(stopped, capsys, monkeypatch):
    monkeypatch.setattr(vit.Model, "loss", lambda self, logits, batch, z: logits.mean())
    fresh = Job(stopped.folder / "fresh", stopped.data, stopped.run)
    code, errors = command(capsys, *fresh.arguments(300))
    assert code == 2 and errors.count("\n") == 1, errors
    assert f"error: {PACKAGE / 'models/vit.py'}: class Model: `loss` gives float32 ()" in errors
    assert not fresh.weights.exists() and not fresh.checkpoint.exists()
    monkeypatch.undo()
    met = []
    monkeypatch.setattr(Trainer, "check", lambda self: met.append(self.part))
    stopped.here()
    fresh.here()
    assert met == ["block1"] and stopped.weights.exists()


# Full disks


def test_full_disk_keeps_the_prepared_data(tmp_path, digits):
    path = tmp_path / "digits.safetensors"
    path.write_bytes(b"as it was")
    section = tmp_path / "sections/data.json"
    write_json(section, {"name": "digits"})
    done = subprocess.run(
        [sys.executable, "-m", "diffusionblocks", "prepare", str(section), "-o", str(path)],
        cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {path}: the disk is full")
    assert path.read_bytes() == b"as it was" and [file.name for file in tmp_path.glob("*.*")] == [path.name]


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount the small disk that this test fills")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk, tmp_path, digits, capsys, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0)
    (small_disk / "digits.safetensors").write_bytes(b"as it was")
    write_json(tmp_path / "data.json", {"name": "digits"})
    code, errors = command(capsys, "prepare", tmp_path / "data.json", "-o", small_disk / "digits.safetensors")
    assert code == 2 and errors.startswith(f"error: {small_disk / 'digits.safetensors'}: the disk is full"), errors
    assert [file.name for file in small_disk.iterdir()] == ["digits.safetensors"]
    assert (small_disk / "digits.safetensors").read_bytes() == b"as it was"

    job = Job(tmp_path / "job", digits, tiny(steps=3, warmup_steps=0))
    job.state = small_disk / "state"
    code, errors = command(capsys, *job.arguments(0))
    assert code == 2 and f"{small_disk / 'state/checkpoint.safetensors'}: the disk is full" in errors, errors
    assert sorted(file.name for file in job.state.iterdir()) == ["log.jsonl"] and not job.weights.exists()

    # Full to the last byte: not even a line of the log, nor the lock, can be written.
    with pytest.raises(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    code, errors = command(capsys, *job.arguments(0))
    assert code == 2 and "disk is full" in errors and "Traceback" not in errors, errors
    assert not (job.state / "lock.json").exists(), "half a lock would make the next start wait"
    (small_disk / "filler").unlink()


@pytest.mark.parametrize("moment", ["first line", "checkpoint", "weights"])
def test_a_trainer_waits_for_space(small_disk, tmp_path, digits, monkeypatch, capsys, moment, told):
    """Nothing computed is lost, and no attempt is spent, while a disk is full; the bits are those of an empty disk."""
    job, straight = (Job(tmp_path / name, digits, tiny()) for name in ("job", "straight"))
    straight.here()
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    if moment == "weights":
        job.weights, job.log = small_disk / "parts/block1.safetensors", small_disk / "parts/block1.jsonl"
    else:
        job.state = small_disk / "state"
    filler, freed = small_disk / "filler", []

    def fill():
        with suppress(OSError), open(filler, "ab", buffering=0) as file:
            while not freed:
                file.write(bytes(4096))

    def wait(seconds):
        assert not freed, "it goes on at once where there is space"
        if "waiting for space" in capsys.readouterr().out:
            freed.append(seconds)
            filler.unlink()

    monkeypatch.setattr(files, "sleep", wait)
    owner, name = {
        "first line": (states.State, "trim_log"),
        "checkpoint": (states.State, "save"),
        "weights": (Trainer, "weights"),
    }[moment]
    whole = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **keywords: (fill(), whole(*args, **keywords))[1])
    job.here()
    assert freed and job.bits() == straight.bits()
    losses = [[entry["loss"] for entry in read_json_lines(one.log) if "loss" in entry] for one in (job, straight)]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    told(
        "a full disk",
        f"filled before the {moment}",
        "waited for space, for up to half an hour, and went on",
        "no update",
    )


# A loss that is not finite


@pytest.mark.parametrize(("row", "part"), [("vit_diffusionblocks", "block2"), ("vit_end_to_end", "all")])
def test_diverged_training_says_where(tmp_path, digits, capsys, row, part):
    job = Job(tmp_path, digits, tiny(row, lr=1e30, warmup_steps=0), part)
    code, errors = command(capsys, *job.arguments(300))
    assert code == 2 and errors.count("\n") == 1 and f"error: table1/{row} seed 0 {part}: step " in errors, errors
    assert "train.lr (now 1e+30)" in errors and str(job.state) in errors and "no checkpoint" in errors
    if row == "vit_diffusionblocks":
        sigma = float(re.search(r"step \d+, block 2, sigma ([\d.e+-]+):", errors)[1])
        assert 0.002 <= sigma <= 0.24, "the level of the worst sample lies in the block's interval"
    else:
        assert "sigma" not in errors
    assert not job.weights.exists() and not job.log.exists() and not (job.state / "lock.json").exists()


@pytest.mark.parametrize(("log_every", "seconds"), [(1, 0), (100, 0), (4, 300)])
def test_not_finite_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path, digits, capsys, monkeypatch, log_every, seconds
):
    job = Job(tmp_path, digits, tiny(log_every=log_every, accumulate=2))
    update = Trainer.update

    def poisoned(self, step):
        if step == 5:  # the sixth update
            next(iter(self.parameters.values())).data.fill_(float("nan"))
        return update(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", poisoned)
        code, errors = command(capsys, *job.arguments(seconds))  # a checkpoint after every step, or none
    assert code == 2 and re.search(r"step 6, block 1, sigma \S+: loss (nan|inf)", errors), errors
    low, high = 0.17, 0.54
    assert low <= float(re.search(r"sigma ([\d.e+-]+):", errors)[1]) <= high
    assert not job.weights.exists()
    if not seconds:
        assert f"The last good checkpoint is {job.checkpoint}" in errors
        assert json.loads(safe_open(job.checkpoint, "pt").metadata()["about"])["step"] == 5
        assert all(value.isfinite().all() for value in load_file(job.checkpoint).values())
        job.here()  # it is good: without the poison, training goes on from it
        assert job.weights.exists()
    else:
        assert not job.checkpoint.exists() and "no checkpoint" in errors


# Files of other runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """All parts of a tiny run, trained, assembled and evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    run = tiny(steps=2, warmup_steps=0)
    jobs = [Job(folder, digits, run, part) for part in parts_of(run["method"])]
    for job in jobs:
        job.state = folder / f"state-{job.part}"
        job.here()
    return folder, run, jobs


def test_assembled_model_is_the_union_of_its_parts(trained, tmp_path, digits, capsys):
    folder, run, jobs = trained
    parts = [job.weights for job in jobs]
    code, errors = command(capsys, "assemble", folder / "run.json", *parts, "-o", tmp_path / "model.json")
    assert code == 0, errors
    model, _ = model_file.read(tmp_path / "model.json")
    for part in parts:
        for name, value in load_file(part).items():
            assert torch.equal(model.pop(name), value)
    assert not model
    write_json(
        tmp_path / "evaluation.json", {"metrics": {"accuracy": {"name": "accuracy"}}, "teachers": {}, "extractor": None}
    )
    places = ["--data", digits, "--logs", *(job.log for job in jobs), "-o", tmp_path / "metrics.json"]
    files = [folder / "run.json", tmp_path / "model.json", tmp_path / "evaluation.json"]
    code, errors = command(capsys, "evaluate", *files, *places)
    assert code == 0, errors
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["run"] == run and metrics["metrics"]["accuracy"]["samples"] == 360
    assert set(metrics["parts"]) == {"block0", "block1", "block2"}


@pytest.mark.parametrize("damage", ["another run", "another part", "cut", "text", "absent", "no header"])
def test_assemble_refuses_a_part_that_does_not_belong(trained, tmp_path, capsys, damage):
    folder, run, jobs = trained
    parts = [job.weights for job in jobs]
    bad = tmp_path / "block1.safetensors"
    content = parts[1].read_bytes()
    if damage == "another run":
        other = {**run, "seed": 1}
        save_file(load_file(parts[1]), bad, metadata={"about": json.dumps({"run": other, "part": "block1"})})
    elif damage == "another part":
        bad.write_bytes(parts[2].read_bytes())
    elif damage == "cut":
        bad.write_bytes(content[:-10])
    elif damage == "text":
        bad.write_text("this is not what you are looking for")
    elif damage == "no header":
        save_file(load_file(parts[1]), bad)
    model = tmp_path / "model.json"
    code, errors = command(capsys, "assemble", folder / "run.json", parts[0], bad, parts[2], "-o", model)
    assert code == 2 and errors.startswith(f"error: {bad}: ") and "train it again" in errors, errors
    assert not model.exists()


@pytest.mark.parametrize("damage", ["another run", "one part short", "absent"])
def test_evaluate_refuses_a_model_that_does_not_belong(trained, tmp_path, digits, damage):
    folder, run, jobs = trained
    model, words = tmp_path / "model.json", "no such file"
    parts = {job.weights: read_about(job.weights)["digest"] for job in jobs}
    if damage == "another run":
        model_file.write(model, {**run, "seed": 1}, "a digest", parts)
        words = "was trained with other settings than table1/vit_diffusionblocks"
    if damage == "one part short":
        model_file.write(model, run, "a digest", dict(list(parts.items())[:2]))
        words = "Assemble it from all parts"
    with pytest.raises(UserError, match=words) as refusal:
        evaluate(folder / "run.json", model, digits, {"accuracy": {"name": "accuracy"}}, [], tmp_path / "metrics.json")
    assert str(model) in str(refusal.value) and not (tmp_path / "metrics.json").exists()


# Bad input to a job


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_damaged_prepared_data(tmp_path, digits, capsys, damage):
    job = Job(tmp_path, tmp_path / "digits.safetensors", tiny())
    if damage == "cut":
        job.data.write_bytes(digits.read_bytes()[:-10])
    else:
        save_file(load_file(digits), job.data, metadata={"about": "not JSON"})
    code, errors = command(capsys, *job.arguments(300))
    assert code == 2 and f"error: {job.data}: absent, damaged" in errors and "run prepare again" in errors, errors
    assert not job.weights.exists()

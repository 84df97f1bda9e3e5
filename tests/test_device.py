"""A job that holds a GPU never computes on the CPU without a word."""

import json
import platform
import subprocess
import sys
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import torch

from diffusionblocks.base import device, gpu
from diffusionblocks.base.files import UserError
from diffusionblocks.verbs import main

SAID = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", gpu.CHOICE)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without a GPU, whatever this one has; `machine(name)` gives it a file in /dev."""
    for variable in SAID:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(gpu, "DEVICES", tmp_path)
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    return lambda name: (tmp_path / name).touch()


@pytest.mark.parametrize(
    "said",
    [
        {"SLURM_JOB_GPUS": "0"},
        {"SLURM_STEP_GPUS": "1"},
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""},
        {gpu.CHOICE: "cuda"},
    ],
)
def test_a_job_that_holds_a_gpu_stops_where_torch_cannot_use_it(machine, monkeypatch, said):
    for variable, value in said.items():
        monkeypatch.setenv(variable, value)
    variable, value = next(iter(said.items()))
    with pytest.raises(UserError, match=f"{variable}={value}: .*built without CUDA.*{gpu.CHOICE}=cpu"):
        device.pick_device()


@pytest.mark.parametrize("name", ["nvidia0", "nvidia12", "driver"])
def test_so_does_one_on_a_machine_with_a_gpu(machine, name):
    machine(name)
    with pytest.raises(UserError, match=f"{name}: .*built without CUDA"):
        device.pick_device()


def test_a_job_of_a_cluster_asks_whether_it_may_open_the_gpu(machine, monkeypatch):
    machine("nvidia0")
    machine("driver")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with pytest.raises(UserError, match="nvidia0"):
        device.pick_device()

    def denied(path, flags):
        raise PermissionError

    monkeypatch.setattr(gpu.os, "open", denied)
    assert device.pick_device().type == "cpu"


def test_torch_says_why(machine, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11000).\nPlease update it.")

    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch, "zeros", broken)
    with pytest.raises(UserError, match=r"driver on your system is too old \(found version 11000\)\. Mend that"):
        device.pick_device()


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_no_gpu_is_wanted(machine, monkeypatch, hidden):
    machine("nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.pick_device().type == "cpu"


def test_the_cpu_can_be_chosen_all_the_same(machine, monkeypatch):
    machine("nvidia0")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(gpu.CHOICE, "cpu")
    assert device.pick_device().type == "cpu"
    assert device.os.environ["CUDA_VISIBLE_DEVICES"] == ""  # whatever library asks torch


def test_another_choice_is_refused(machine, monkeypatch):
    monkeypatch.setenv(gpu.CHOICE, "gpu")
    with pytest.raises(UserError, match="should be cpu or cuda"):
        device.pick_device()


@pytest.mark.parametrize(
    "environment, files, words",
    [
        ({}, [], "on the CPU"),
        ({}, ["nvidia0"], "on a GPU (*/nvidia0)"),
        ({"SLURM_JOB_GPUS": "0"}, [], "on a GPU (SLURM_JOB_GPUS=0)"),
        ({"SLURM_JOB_GPUS": "0", gpu.CHOICE: "cpu"}, ["nvidia0"], "on the CPU"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia0", "kfd"], "on the CPU"),
        ({gpu.CHOICE: "cuda"}, [], "on a GPU (DIFFUSIONBLOCKS_DEVICE=cuda)"),
        ({}, ["kfd"], "on a GPU if torch finds one"),
        ({gpu.CHOICE: "cpu"}, ["dxg"], "on the CPU"),
    ],
)
def test_the_first_line_of_a_log_says_where_a_job_computes(machine, monkeypatch, environment, files, words):
    for name in files:
        machine(name)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert fnmatch(gpu.expected(), words)


def test_the_device_is_named(machine, capsys):
    device.pick_device()
    said = capsys.readouterr().out
    assert said.startswith("device: cpu (") and "1 thread" in said and said.count("\n") == 1


# Every verb that computes: what it is given does not matter, since the device comes first.
@pytest.mark.parametrize("verb", ["train", "sample", "evaluate", "reference", "extractor", "teacher", "encode"])
def test_every_verb_that_computes_stops_first(machine, monkeypatch, capsys, tmp_path, verb):
    given = tmp_path / "given.json"
    keys = (
        "table",
        "row",
        "seed",
        "data",
        "model",
        "method",
        "train",
        "name",
        "metrics",
        "teachers",
        "extractor",
        "num_samples",
    )
    given.write_text(json.dumps(dict.fromkeys(keys, "x") | {"sets": 1, "shards": 1}))
    arguments = {
        "train": ["all", "--data", "x", "--state", "x"],
        "sample": ["x", given, "0", "--data", "x"],
        "evaluate": ["x", given, "--data", "x", "--logs", "x"],
        "reference": ["--data", "x"],
        "extractor": ["--data", "x"],
        "teacher": ["--data", "x"],
        "encode": ["0"],
    }[verb]
    monkeypatch.setattr("diffusionblocks.plan.check.check_run", lambda run: None)
    monkeypatch.setattr("diffusionblocks.plan.code.run_files", lambda *_, **__: [])
    monkeypatch.setattr("sys.argv", ["diffusionblocks", verb, *map(str, [given, *arguments, "-o", tmp_path / "out"])])
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert "SLURM_JOB_GPUS=0: this job is to compute on a GPU" in said.err
    assert said.out.startswith(f"making {tmp_path / 'out'} on a GPU (SLURM_JOB_GPUS=0): process ")


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="only glibc is told to keep what is freed")
def test_large_blocks_that_are_freed_are_used_again():
    program = (
        "import resource, torch; from diffusionblocks.base.device import pick_device\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def use(): a, b = torch.ones(2**23), torch.ones(2**22); del a; b.add_(1)\n"
        "pick_device(); [use() for _ in range(5)]  # aligned blocks need some room beside them\n"
        "before = faults(); use(); use(); print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 1000  # of 12,288 pages each time


def test_an_older_c_library_keeps_what_it_may(monkeypatch):
    """Before 2.35 glibc refuses a threshold above 32 MB; with the other one set, it would stay at 128 kB."""
    taken = {}

    def mallopt(key, value):
        if key == device.M_MMAP_THRESHOLD and value > 1 << 25:
            return 0
        taken[key] = value
        return 1

    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    device._keep_freed_memory()
    assert taken == {device.M_MMAP_THRESHOLD: 1 << 25, device.M_TRIM_THRESHOLD: (1 << 31) - 1}

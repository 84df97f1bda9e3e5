"""What is checked of a machine, and of a cluster's node, before the first training."""

import os
import re
import shutil
import sys

import pytest

from diffusionblocks.base.files import UserError
from diffusionblocks.training import doctor as module
from diffusionblocks.training.doctor import doctor


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """srun(commands): a program in the place of SLURM's that notes how it was called and runs the script."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def srun(commands="exec sh -s"):
        (programs / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" > {programs}/asked\n{commands}\n')
        (programs / "srun").chmod(0o755)
        return programs / "asked"

    return srun


def failures(capsys, *arguments):
    with pytest.raises(UserError, match="checks have failed"):
        doctor(*arguments)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "FAILED ")) for line in lines), lines
    return [line for line in lines if line.startswith("FAILED")]


def test_a_machine_that_will_do(tmp_path, capsys):
    doctor(tmp_path / "results", None, tmp_path / "nodes.txt")
    said = capsys.readouterr().out
    assert said == (tmp_path / "nodes.txt").read_text() and said.count("\n") == 5
    assert all(line.startswith("ok ") for line in said.splitlines())
    assert sys.executable in said and "device: cpu" in said
    assert list((tmp_path / "results").iterdir()) == []


def test_a_machine_that_will_not(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.delenv("DIFFUSIONBLOCKS_DEVICE", raising=False)
    monkeypatch.setattr(module, "NEEDED", 1 << 60)
    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", refuse)
    lines = failures(capsys, tmp_path, None, tmp_path / "nodes.txt")
    assert [re.search(r"disk|device|results", line)[0] for line in lines] == ["results", "disk", "device"]
    assert "SLURM_JOB_GPUS=0" in lines[2] and "Permission denied" in lines[0]
    assert not (tmp_path / "nodes.txt").exists()


def refuse(**_):
    raise PermissionError(13, "Permission denied")


def test_a_node_that_will_do(tmp_path, capsys, srun):
    asked = srun()
    doctor(tmp_path, {"slurm_partition": "gpu", "gpu": "2", "gpu_model": "a100", "qos": ""}, tmp_path / "nodes.txt")
    assert "--partition=gpu --gpus=a100:2 sh -s" in asked.read_text() and "qos" not in asked.read_text()
    assert f"folder {os.getcwd()}" in (tmp_path / "nodes.txt").read_text()


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ("echo 'srun: error: invalid partition specified: gpu' >&2; exit 1", "invalid partition specified: gpu"),
        ("exit 1", "no word"),
        ("sed 's#^ *cd .* ||#cd /nowhere ||#' | sh -s 2>/dev/null", "is not there: mount the same file system"),
        ("sed 's#-x [^ ]*#-x /nowhere/python#' | sh -s", "nodes must see .venv"),
        ("sed 's#--seen .*#--seen /nowhere#' | sh -s", "/nowhere is not there: mount the same file system"),
        ("export SLURM_JOB_GPUS=0; unset DIFFUSIONBLOCKS_DEVICE; exec sh -s", "SLURM_JOB_GPUS=0"),
    ],
)
def test_a_node_that_will_not(tmp_path, capsys, srun, commands, words):
    srun(commands)
    lines = failures(capsys, tmp_path, {"slurm_partition": "gpu"})
    assert words in lines[-1], lines


def test_no_srun(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "srun" in failures(capsys, tmp_path, {})[0]

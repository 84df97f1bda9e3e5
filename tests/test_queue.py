"""What is asked of SLURM's queue, of a program in its place."""

import os
import subprocess

import pytest

from diffusionblocks.base.files import UserError
from diffusionblocks.plan import cluster


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """queue(lines): a program squeue that prints these lines and notes how it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def queue(*lines, code=0):
        text = "".join(f"{line}\n" for line in lines)
        (programs / "answer").write_text(text)
        (programs / "squeue").write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" > {programs}/asked\ncat {programs}/answer\nexit {code}\n'
        )
        (programs / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return programs / "asked"

    return queue


def test_jobs_of_this_folder_that_snakemake_started(queue, tmp_path):
    asked = queue(
        f"11|rule_train_wildcards_block0|{tmp_path}",
        f"12|rule_evaluate_wildcards|{tmp_path}",
        f"13|(null)|{tmp_path}",
        f"14|my rule_book|{tmp_path}",
        f"15|rule_train|{tmp_path}/other",
        "16|rule_train|/elsewhere",
        "",
        "slurm_load_jobs error",
    )
    assert cluster.running_jobs(tmp_path) == ["11", "12"]
    assert cluster.running_jobs(str(tmp_path)) == ["11", "12"]
    words = asked.read_text().split()
    states = set(words[words.index("-t") + 1].split(","))
    assert "-h" in words and {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"} <= states


def test_a_second_start_is_refused_while_jobs_run(queue, tmp_path):
    queue(f"11|rule_train|{tmp_path}", f"12|rule_train|{tmp_path}")
    with pytest.raises(UserError, match=r"\(11, 12\).*scancel 11 12") as refusal:
        cluster.refuse_second_start(tmp_path)
    assert "checkpoint" in str(refusal.value) and "squeue" in str(refusal.value)


def test_no_jobs_no_refusal(queue, tmp_path):
    queue("11|rule_train|/elsewhere")
    cluster.refuse_second_start(tmp_path)
    queue(f"11|rule_train|{tmp_path}", code=1)  # installed, but no cluster answers
    cluster.refuse_second_start(tmp_path)


def test_no_slurm_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    def nothing_may_run(*_, **__):
        raise AssertionError("there is nothing to run")

    monkeypatch.setattr(subprocess, "run", nothing_may_run)
    assert cluster.running_jobs(tmp_path) == []
    cluster.refuse_second_start(tmp_path)

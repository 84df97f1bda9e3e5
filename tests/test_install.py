"""The lock that `make` installs from, what `make` does where uv cannot be had, and when it asks Snakemake."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

BUILD = {"torch", "torchvision"}  # come by version alone, in the build that suits the machine
# Stands in for Python: `-m venv` makes an environment with this file as its python; `pip install uv` puts a uv there.
PYTHON = """#!/bin/sh
echo "$*" >> log
case "$*" in
  "-m venv "*) mkdir -p .venv/bin && cp python .venv/bin/python ;;
  *" uv=="*) %s ;;
esac
"""
UV = "printf '#!/bin/sh\\necho uv $* >> log\\n%s\\n' > .venv/bin/uv && chmod +x .venv/bin/uv"


def pins(text):
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def test_the_lock_has_the_pinned_versions_with_hashes_and_no_build_of_torch():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = pins((ROOT / "constraints.txt").read_text())
    locked = pins(lock)
    assert pinned.items() <= locked.items() | {(name, pinned[name]) for name in BUILD}, "run: make lock"
    entries = re.split(r"\n(?! )", lock.strip())
    assert len(entries) == len(locked)
    assert all(re.search(r"\\\n    --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert not [name for name in locked if name in BUILD | {"triton"} or name.startswith(("nvidia-", "cuda-"))]
    assert "://" not in lock and "index" not in lock


def make(folder, python):
    """Run make's installation in `folder` with a stand-in for Python: (what came of it, the commands that were run)."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(python)
    (folder / "python").chmod(0o755)
    command = ["make", "--silent", ".venv/installed", "PYTHON=./python"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done, (folder / "log").read_text().splitlines()


@pytest.mark.parametrize(
    ("uv", "falls_back"),
    [(UV % "", False), ("echo no such package >&2; exit 1", True), (UV % "echo no route >&2; exit 1", True)],
    ids=["uv", "no uv", "a uv that fails"],
)
def test_make_installs_by_uv_or_says_in_one_line_that_pip_does(tmp_path, uv, falls_back):
    done, log = make(tmp_path, PYTHON % uv)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (tmp_path / ".venv/installed").read_text() == f"{tmp_path}\n"
    assert done.stdout.count("\n") == done.stdout.count("so pip does") == falls_back
    asked = [line for line in log if "torch" not in line and " uv==" not in line and " install " in line]
    assert [line.startswith("-m pip ") for line in asked[-2:]] == [falls_back] * 2
    assert "--require-hashes -r requirements.lock" in asked[-2]
    assert "-c constraints.txt -e .[workflow,eval,mauve,dev]" in asked[-1]


def test_make_shows_what_pip_says_where_neither_can_install(tmp_path):
    done, _ = make(tmp_path, PYTHON % "exit 1" + 'case "$*" in *.lock*) echo disk full >&2; exit 1 ;; esac\n')
    assert done.returncode and "disk full" in done.stderr and not (tmp_path / ".venv/installed").exists()


@pytest.mark.parametrize("cache", [None, "", "elsewhere"])
def test_ci_brings_axe_core_to_where_the_audit_looks_for_it(tmp_path, monkeypatch, cache):
    (line,) = re.findall(r"^npm .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    (tmp_path / "npm").write_text('#!/bin/sh\necho "$3"\n')
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", "/a home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if cache is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    (looked,) = re.findall("^CACHE = (.+)$", (ROOT / "tests/test_audit.py").read_text(), re.MULTILINE)
    done = subprocess.run(["bash", "-euc", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(eval(looked, {"os": os, "Path": Path})), "this test imports no browser's tests"


@pytest.fixture
def demo(tmp_path):
    """`make demo` in a folder with all that the workflow is read from, and programs that write down their arguments."""
    for name in (
        "Snakefile",
        "config.yaml",
        "rules/a.smk",
        "workflow/tables/a.yaml",
        "report/a",
        "envs/a",
        "profiles/a",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "diffusionblocks").mkdir()
    (tmp_path / "diffusionblocks/code.py").touch()
    make(tmp_path, PYTHON % "")
    snakemake = tmp_path / ".venv/bin/snakemake"
    work = "mkdir -p results/demo diffusionblocks/__pycache__; touch results/demo/report.html diffusionblocks/a.pyc"
    snakemake.write_text(f"#!/bin/sh\necho asked >> log\n{work}\nexit $FAILS\n")
    snakemake.chmod(0o755)

    def run(fails=0):
        (tmp_path / "log").unlink()
        command = ["make", "--silent", "demo", "PYTHON=./python"]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"FAILS": str(fails)}, stdout=subprocess.DEVNULL)
        return "asked" in (tmp_path / "log").read_text(), done.returncode

    return run


def test_make_does_not_ask_snakemake_where_nothing_has_changed(demo):
    assert [demo(), demo(), demo()] == [(True, 0), (False, 0), (False, 0)]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "diffusionblocks/code.py").touch(),
        lambda folder: (folder / "diffusionblocks/new.py").touch(),
        lambda folder: (folder / "config.yaml").touch(),
        lambda folder: (folder / "workflow/tables/a.yaml").unlink(),
        lambda folder: (folder / "results/demo/report.html").unlink(),
        lambda folder: (folder / "results/demo/report.html").write_text("x"),
        lambda folder: shutil.rmtree(folder / "results/demo"),
        lambda folder: shutil.rmtree(folder / "results"),
    ],
    ids=["code", "new code", "config", "a table gone", "a result gone", "a result changed", "a scale gone", "all gone"],
)
def test_make_asks_snakemake_where_anything_has(demo, change, tmp_path):
    assert [demo(), demo()] == [(True, 0), (False, 0)]
    change(tmp_path)
    assert [demo(), demo()] == [(True, 0), (False, 0)]


def test_make_asks_again_after_a_failure(demo):
    assert demo(fails=1) == (True, 2)
    assert [demo(), demo()] == [(True, 0), (False, 0)]

"""Who may import whom, what planning costs, and which source files a step's outputs depend on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusionblocks.plan import source as codebase
from diffusionblocks.plan.resolve import code
from diffusionblocks.plan.source import PACKAGE, Choice, class_keywords, closure, function_keywords

ROOT = PACKAGE.parent
HEAVY = {"torch", "numpy", "pandas", "yaml", "safetensors", "snakemake", "sklearn", "matplotlib"}


def loaded(program, *arguments):
    """Those of HEAVY that a fresh process has imported after running a program."""
    program += "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


VERB = "from diffusionblocks.__main__ import main; main()"


def test_floors_hold():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_planning_needs_the_standard_library_alone():
    assert (
        loaded("import diffusionblocks.plan.resolve, diffusionblocks.plan.check, diffusionblocks.plan.cluster") == set()
    )


def test_light_verbs_stay_light(tmp_path):
    assert loaded(VERB, "plan", '{"row": "x"}', "-o", tmp_path / "run.json") == set()
    assert json.loads((tmp_path / "run.json").read_text()) == {"row": "x"}
    assert "torch" not in loaded(
        VERB, "table", "table1", "{}", "--paper", "report/paper.yaml", "-o", tmp_path / "t.csv"
    )
    assert (tmp_path / "t.csv").exists()
    modules = "import diffusionblocks.training.assemble, diffusionblocks.data.prepare, diffusionblocks.page.page"
    assert "torch" not in loaded(modules)


# Which files a step depends on


def files(paths):
    return {str(Path(path).relative_to(codebase.PACKAGE)) for path in paths} - {"__init__.py"}  # a version number


DIGITS, TEXT = {"data": {"name": "digits"}}, {"data": {"name": "sotu_characters"}}
RUN = {**DIGITS, "model": {"name": "vit"}, "method": {"name": "end_to_end"}}


def test_training_depends_on_its_own_model_and_method_only(tmp_path, monkeypatch):
    copy = tmp_path / PACKAGE.name  # with another model and another method in it
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "models/other.py").write_text("from diffusionblocks.layers.vision import MLP\n")
    (copy / "methods/other.py").write_text("")
    monkeypatch.setattr(codebase, "PACKAGE", copy)
    found = files(code("train", RUN))
    assert {"train.py", "trainer.py", "state.py", "files.py", "noise.py", "layers.py"} <= found
    assert {
        "models/vit.py",
        "methods/end_to_end.py",
        "methods/__init__.py",
        "data/images.py",
        "data/augment.py",
    } <= found
    absent = [
        "evaluate.py",
        "report.py",
        "tables.py",
        "config.py",
        "check.py",
        "metrics.py",
        "assemble.py",
        "figures.py",
    ]
    absent += ["models/other.py", "methods/other.py", "methods/diffusionblocks.py", "partition.py", "data/sources.py"]
    assert not found & set(absent)
    other = files(code("train", {**DIGITS, "model": {"name": "other"}, "method": {"name": "diffusionblocks"}}))
    assert {"models/other.py", "methods/diffusionblocks.py", "partition.py", "layers.py"} <= other
    assert "models/vit.py" not in other


def test_steps_depend_on_what_they_use():
    assert {"evaluate.py", "metrics.py", "models/vit.py"} <= files(code("evaluate", RUN))
    assert files(code("tables")) == {"tables.py", "files.py"}
    assert {"data/sources.py", "data/download.py"} <= files(code("data.prepare", **DIGITS))
    assert {"data/texts.py", "data/tokens.py"} <= files(code("data.prepare", **TEXT))
    assert "data/texts.py" not in files(code("data.prepare", **DIGITS))
    assert "data/sources.py" not in files(code("data.prepare", **TEXT))
    assert not {"data/images.py", "trainer.py"} & files(code("data.prepare"))


NETWORK = {"train", "assemble", "sample", "evaluate"}  # steps that build a run's network


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("sample.py", {"sample"}),
        ("sample_images.py", {"sample"}),
        ("evaluate_images.py", {"evaluate"}),
        ("metrics.py", {"evaluate"}),
        ("generated.py", {"evaluate"}),
        ("features.py", {"features", "evaluate"}),
        ("extractors.py", {"features", "evaluate"}),
        ("fidelity.py", {"features", "evaluate"}),
        ("data/pictures.py", {"sample", "features", "evaluate"}),
        ("data/latents.py", {"data.encode", "sample", "features", "evaluate"}),
        ("data/images.py", {"train", "sample", "features", "evaluate"}),
        ("data/sources.py", {"data.prepare", "data.encode"}),
        ("data/text.py", set()),
        ("data/texts.py", set()),
        ("sample_text.py", set()),
        ("evaluate_text.py", set()),
        ("teachers.py", set()),
        ("models/autoregressive.py", set()),
        ("models/dit.py", NETWORK),
        ("sampling.py", NETWORK),  # the method imports it
        ("models/vit.py", set()),
        ("config.py", set()),
        ("codebase.py", set()),
        ("check.py", set()),
    ],
)
def test_what_an_edit_of_a_file_does_again(file, steps):
    run = {**DIGITS, "model": {"name": "dit"}, "method": {"name": "diffusionblocks"}}
    alone = ("data.encode", "features", "tables", "report")
    found = {step for step in alone if file in files(code(step))}
    found |= {"data.prepare"} if file in files(code("data.prepare", **DIGITS)) else set()
    assert found | {step for step in NETWORK if file in files(code(step, run))} == steps


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("data/texts.py", {"data.prepare"}),
        ("data/text.py", {"train", "sample", "teaching", "evaluate"}),
        ("sample_text.py", {"sample"}),
        ("evaluate_text.py", {"evaluate"}),
        ("teachers.py", {"teaching", "evaluate"}),
        ("models/autoregressive.py", NETWORK),
        ("data/images.py", set()),
        ("generated.py", set()),
    ],
)
def test_what_an_edit_does_again_of_texts(file, steps):
    run = {**TEXT, "model": {"name": "autoregressive"}, "method": {"name": "diffusionblocks"}}
    found = {step for step in NETWORK if file in files(code(step, run))}
    found |= {"data.prepare"} if file in files(code("data.prepare", **TEXT)) else set()
    assert found | ({"teaching"} if file in files(code("teaching")) else set()) == steps


def test_closure_finds_imports_wherever_they_stand(tmp_path, monkeypatch):
    package = tmp_path / PACKAGE.name
    package.mkdir()
    sources = {
        "__init__.py": "",
        "a.py": "import os\ndef f():\n    from diffusionblocks.b import thing\n",
        "b.py": "import diffusionblocks.c as c, json\nfrom diffusionblocks import d\n",
        "c.py": "from diffusionblocks import a\n",  # a circle ends
        "d.py": "if False:\n    from elsewhere import e\n",
        "e.py": "",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    monkeypatch.setattr(codebase, "PACKAGE", package)
    assert files(closure("diffusionblocks.a")) == {"a.py", "b.py", "c.py", "d.py"}
    assert files(closure("diffusionblocks.e")) == {"e.py"}


def test_modules_outside_the_package_are_dependencies_too(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text("from diffusionblocks.layers.vision import MLP\n")
    (tmp_path / "my").mkdir()
    (tmp_path / "my/net.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = code("train", {**DIGITS, "model": {"name": "my.net"}, "method": {"name": "end_to_end"}})
    assert str(tmp_path / "my/net.py") in found
    found = closure("my_models")
    assert str(tmp_path / "my_models.py") in found and str(PACKAGE / "layers.py") in found


# What the source says about keywords


def test_keywords_are_read_without_importing(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(
        "raise RuntimeError('nobody may run this')\n"
        "class Method:\n"
        "    def __init__(self, model, part=None, *, a=1, b='x', c=None, d=f(), e: Literal['u', 'v'] = 'u', f): ...\n"
        "class Settings:\n    size: int\n    rate: float = 0.5\n    other = 3\n"
        "def metric(x, *, top=5): ...\n"
        "def _hidden(x, *, no=1): ...\n"
    )
    found = class_keywords(path, "Method")
    assert found == {"a": 1, "b": "x", "c": None, "d": None, "e": "u", "f": None}
    assert isinstance(found["e"], Choice) and found["e"].values == ("u", "v") and not isinstance(found["b"], Choice)
    assert class_keywords(path, "Settings") == {"size": None, "rate": 0.5}
    assert class_keywords(path, "Absent") is None
    assert function_keywords(path) == {"metric": {"top": 5}}


@pytest.mark.parametrize("name", ["diffusionblocks.models.absent", "absent_module", "absent_package.module"])
def test_a_module_that_is_not_there_has_no_file(name):
    assert codebase.module_file(name) is None


def test_an_outside_module_is_followed_into_its_own_package(tmp_path, monkeypatch):
    for name, text in {
        "__init__": "",
        "net": "from . import parts\nfrom outside.sizes import WIDTH\nimport json\n",
        "parts": "from .deep import x\n",
        "deep": "",
        "sizes": "",
        "unused": "",
    }.items():
        (tmp_path / "outside").mkdir(exist_ok=True)
        (tmp_path / "outside" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {Path(file).stem for file in codebase.closure("outside.net")}
    assert {"net", "parts", "deep", "sizes"} <= found and "unused" not in found and "json" not in found

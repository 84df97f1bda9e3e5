"""Who may import whom, what planning costs, and which source files a step's outputs depend on."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from diffusionblocks.base import components
from diffusionblocks.plan import source as codebase
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.source import PACKAGE, Choice, class_keywords, closure, function_keywords

ROOT = PACKAGE.parent
PLAN = Plan.of({**yaml.safe_load((ROOT / "config.yaml").read_text()), "scale": "demo"})
HEAVY = {"torch", "numpy", "pandas", "yaml", "safetensors", "snakemake", "sklearn", "matplotlib"}


def loaded(program, *arguments, ended=0):
    """Those of HEAVY that a fresh process has imported after running a program, whose exit code is `ended`."""
    told = "import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    program = f"import atexit\natexit.register(lambda: exec({told!r}))\n{program}"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ended, done.stderr
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


VERB = "from diffusionblocks.verbs import main; main()"


def test_floors_hold():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_planning_needs_the_standard_library_alone():
    assert loaded("import diffusionblocks.plan.plan, diffusionblocks.plan.check, diffusionblocks.plan.start") == set()


def test_light_verbs_stay_light(tmp_path):
    (tmp_path / "plan.json").write_text('{"row": {"x": 1}}')
    assert loaded(VERB, "plan", tmp_path / "plan.json", "row", "-o", tmp_path / "run.json") == set()
    assert json.loads((tmp_path / "run.json").read_text()) == {"x": 1}
    (tmp_path / "t.json").write_text(json.dumps(PLAN.written["tables/table1"]))
    light = loaded(VERB, "table", tmp_path / "t.json", "-o", tmp_path / "t.csv", ended=2)  # no run has been measured
    assert "pandas" in light and "torch" not in light
    modules = "import diffusionblocks.training.assemble, diffusionblocks.data.prepare, diffusionblocks.page.page"
    assert "torch" not in loaded(modules)


# Which files a step depends on


def files(paths):
    """Names of files, relative to the package."""
    found = {str(Path(path).relative_to(PACKAGE)) for path in paths}
    return {name for name in found if not name.endswith("__init__.py")}


def wildcards(**values):
    return SimpleNamespace(**values, keys=values.keys)


ROWS = {
    "vit": wildcards(table="table1", row="vit_diffusionblocks"),
    "dit": wildcards(table="table2", row="cifar10_dit_diffusionblocks"),
    "text": wildcards(table="table4", row="lm1b_ar_diffusionblocks"),
}
for named in ROWS.values():
    named.sampling = next(iter(PLAN.row(named).sample_sets), None)
STEPS = ("train", "assemble", "sample", "evaluate")  # of a row
OTHERS = {
    "prepare": wildcards(data="digits"),
    "encode": wildcards(data="digits"),
    "extractor": wildcards(data="digits", extractor="small_cnn"),
    "reference": wildcards(data="digits", extractor="small_cnn"),
    "teacher": wildcards(data=PLAN.row(ROWS["text"]).data_name, teacher="ngram"),
    "table": None,
    "figures": None,
    "page": None,
}


def behind(file, row):
    """Steps that a file is code behind: of a row, and of all that is not a row's."""
    found = {step for step in STEPS if file in files(PLAN.code(step, ROWS[row]))}
    return found | {step for step, named in OTHERS.items() if file in files(PLAN.code(step, named))}


NETWORK = {"train", "assemble", "sample", "evaluate"}  # steps that build a run's network


@pytest.mark.parametrize(
    ("file", "row", "steps"),
    [
        ("training/trainer.py", "dit", {"train"}),
        ("training/assemble.py", "dit", {"assemble"}),
        ("sampling/images.py", "dit", {"sample"}),
        ("evaluation/images.py", "dit", {"evaluate"}),
        ("evaluation/metrics/generation.py", "dit", {"evaluate"}),
        ("evaluation/metrics/language.py", "dit", set()),
        ("scorers/extractors/small_cnn.py", "dit", {"extractor", "reference", "evaluate"}),
        ("scorers/extractors/inception.py", "dit", set()),
        ("scorers/teachers/trained.py", "dit", {"teacher"}),
        ("data/images/dataset.py", "dit", {"train", "sample", "extractor", "reference", "evaluate"}),
        ("data/images/sources/digits.py", "dit", {"prepare", "encode"}),
        ("data/images/sources/cifar.py", "dit", set()),
        ("data/text/dataset.py", "dit", {"teacher"}),
        ("data/text/sources/sotu.py", "dit", set()),
        ("models/dit.py", "dit", NETWORK),
        ("models/vit.py", "dit", set()),
        ("methods/diffusionblocks.py", "dit", NETWORK),
        ("methods/noprop.py", "dit", set()),
        ("diffusion/partition.py", "dit", NETWORK),
        ("diffusion/partitions/equi_probability.py", "dit", NETWORK),
        ("diffusion/partitions/uniform.py", "dit", set()),
        ("diffusion/solvers/euler.py", "dit", {"sample", "evaluate"}),
        ("diffusion/solvers/heun.py", "dit", set()),
        ("diffusion/grids/quantiles.py", "dit", {"sample", "evaluate"}),
        ("diffusion/grids/karras.py", "dit", set()),
        ("plan/row.py", "dit", set()),
        ("plan/check.py", "dit", set()),
        ("page/table.py", "dit", {"table", "figures", "page"}),
        ("page/figures.py", "dit", {"figures"}),
        ("data/text/dataset.py", "text", {"train", "sample", "evaluate", "teacher"}),
        ("sampling/text.py", "text", {"sample"}),
        ("evaluation/metrics/language.py", "text", {"evaluate"}),
        ("scorers/teachers/trained.py", "text", {"teacher", "evaluate"}),
        ("scorers/teachers/downloaded.py", "text", set()),
        ("models/autoregressive.py", "text", NETWORK),
        ("data/images/dataset.py", "text", {"extractor", "reference"}),
        ("models/vit.py", "vit", {"train", "assemble", "evaluate", "sample"}),
    ],
)
def test_what_an_edit_of_a_file_does_again(file, row, steps):
    assert (PACKAGE / file).is_file(), "no such file: this test would say nothing"
    assert behind(file, row) == steps


@pytest.mark.parametrize(
    ("folder", "used"),
    [
        ("models", {"base", "vit", "dit", "autoregressive"}),
        ("methods", {"base", "diffusionblocks"}),
        ("data/images/sources", {"digits"}),
        ("data/text/sources", set()),
        ("diffusion/solvers", {"euler"}),
        ("diffusion/partitions", {"equi_probability"}),
        ("diffusion/grids", {"quantiles"}),
        ("scorers/extractors", {"base", "small_cnn"}),
        ("scorers/teachers", {"base", "trained"}),
        ("evaluation/metrics", {"classification", "cost", "generation", "language"}),
    ],
)
def test_a_new_component_is_code_behind_nothing_that_does_not_use_it(folder, used):
    """Of all files in a folder of components only those that rows name are code behind their steps."""
    everything = {file for row in ROWS.values() for step in STEPS for file in files(PLAN.code(step, row))}
    everything |= {file for step, named in OTHERS.items() for file in files(PLAN.code(step, named))}
    assert {Path(file).stem for file in everything if str(Path(file).parent) == folder} == used
    assert len([*(PACKAGE / folder).glob("*.py")]) > len(used)


def test_extractors_of_the_row_and_of_a_column_are_code_behind_its_evaluation():
    found = files(Plan.of({**PLAN.config, "scale": "paper"}).code("evaluate", ROWS["dit"]))
    assert {file for file in found if "extractors/" in file} == {
        f"scorers/extractors/{name}.py" for name in ("base", "inception", "inception_clean")
    }


def test_a_users_own_components_are_code_behind_the_steps_that_use_them(tmp_path, monkeypatch):
    texts = {
        "net": "from diffusionblocks.models import vit\nclass Model(vit.Model): ...\n",
        "cut": "def mine(noise, q):\n    return noise.quantile(q)\n",
        "score": "def mine(labels): ...\n",
        "source": "def mine(data_dir) -> ImageSet: ...\n",
    }
    (tmp_path / "own_parts").mkdir()
    for name, text in {"__init__": "", **texts}.items():
        (tmp_path / f"own_parts/{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    settings = {
        "model": {"name": "own_parts.net", "num_layers": 6},
        "data": {"name": "own_parts.source.mine"},
        "method": {"name": "diffusionblocks", "partition": "own_parts.cut.mine"},
        "train": {"steps": 1, "batch_size": 1, "lr": 0.1},
        "metrics": {"mine": {"name": "own_parts.score.mine"}},
    }
    table = {"title": "Mine", "demo": {}, "rows": {"row": settings}}
    plan = Plan({"scale": "demo", "seeds": [0], "tables": {"mine": table}})
    row = wildcards(table="mine", row="row", sampling=None)
    found = {step: {Path(file).stem for file in plan.code(step, row) if str(tmp_path) in file} for step in STEPS}
    assert found == {
        "train": {"net", "cut"},
        "assemble": {"net", "cut"},
        "sample": {"net", "cut"},
        "evaluate": {"net", "cut", "score"},
    }
    prepared = plan.code("prepare", wildcards(data=plan.row(row).data_name))
    assert {Path(file).stem for file in prepared if str(tmp_path) in file} == {"source"}


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
    for module in (codebase, components):
        monkeypatch.setattr(module, "PACKAGE", package)
    assert [Path(file).name for file in closure("diffusionblocks.a")] == ["a.py", "b.py", "c.py", "d.py"]
    assert [Path(file).name for file in closure("diffusionblocks.e")] == ["e.py"]


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
    assert components.module_file(name) is None


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

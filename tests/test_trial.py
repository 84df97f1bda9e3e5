"""`try`: which component a name stands for, and that every one of this package is tried."""

import subprocess
import sys

import pytest
from users import DATA, EXTRACTOR, METHOD, METRIC, MODEL, PARTITION, SOLVER, TEACHER, TEXTS, refusal

from diffusionblocks.base.components import names
from diffusionblocks.evaluation.trial import trial
from diffusionblocks.plan.source import PACKAGE

# What is right


@pytest.mark.parametrize("kind", ["model", "method", "metric", "solver", "partition", "grid"])
def test_all_of_this_package_are_tried(kind):
    for name in names(kind):
        text = trial(name, kind)
        assert text.startswith(f"{kind} {name} (") and " was tried:\n  " in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits", ["ImageSet: scikit-learn digits", "train: uint8 (1437, 1, 8, 8), labels 0 to 9"]),
        ("sotu_characters", ["TextSet: State of the Union", "tokens of 27; sequences of 256"]),
        ("small_cnn", ["small CNN trained on the data: 64 features"]),
        ("small_lm", ["`features` of 20 texts", "`nll` of 20 texts"]),
        ("ngram", ["7-gram of characters: `nll` of 20 texts"]),
        ("dit", ["sharing joint: an update", "a chain of 3 to images; a sample"]),
        ("masked_diffusion", ["a likelihood; a sample"]),
        ("recurrent_depth", ["with end_to_end: an update", "a chain of 3 to tokens; a text"]),
        ("noprop", ["noprop_cnn with noprop: an update"]),
        ("log_uniform", ["EDM: three blocks at 80, 2.339, 0.0684, 0.002", "Masking: refused ("]),
    ],
)
def test_what_is_said_of_a_component(name, words):
    text = trial(name)
    for word in words:
        assert word in text


def test_components_of_a_users_own_are_tried(own):
    text = trial(own(MODEL))
    assert "with diffusionblocks, sharing joint: an update, loss " in text and "with end_to_end: an update" in text
    assert "a chain of 3 to class logits" in text and "noprop" not in text
    assert "vit with " in trial(own(METHOD))
    assert trial(f"{own(METRIC)}.mine").startswith("metric ")
    assert "ImageSet: mine" in trial(f"{own(DATA)}.mine")
    assert "TextSet: mine" in trial(f"{own(TEXTS)}.mine")
    assert "mine: 4 features" in trial(f"{own(EXTRACTOR)}.mine")
    assert "mine: `nll` of 20 texts" in trial(f"{own(TEACHER)}.mine")
    assert "24 evaluations" in trial(f"{own(SOLVER)}.mine")
    assert "EDM: three blocks at 80" in trial(f"{own(PARTITION)}.mine")


# Names


def test_a_name_that_is_not_there():
    assert "did you mean 'vit'" in refusal("vti")
    assert "there is no metric of this name; did you mean 'accuracy'" in refusal("accuracyy", "metric")
    assert "there is no component of this name (one of your own has a dot" in refusal("nowhere.at_all")
    assert "there is no model of this name" in refusal("accuracy", "model")


def test_a_module_without_what_is_sought(own):
    name = own("def thing():\n    pass\n\n\nclass Other:\n    pass\n")
    assert f"{own.file}: has no class Model or Method. Name a function by its module and its own name: {name}.<" in (
        refusal(name)
    )
    assert f"{own.file}: has no function 'other'" in refusal(f"{name}.other")
    assert f"{own.file}: Other is a class, and a model or a method is named by its module: {name}." in (
        refusal(f"{name}.Other")
    )
    message = refusal(f"{name}.thing")
    assert f"{own.file}, line 1: nothing says what kind of component thing is" in message and "-> ImageSet" in message


def test_a_module_that_is_two_things(own):
    name = own(MODEL + METHOD)
    assert "is a model and a method. Say which with --kind" in refusal(name)
    assert trial(name, "model").startswith("model ")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Model(:\n", ", line 1: is no valid Python: invalid syntax"),
        ("class Model: ...\nreturn\n", ": it cannot be imported: SyntaxError: 'return' outside function"),
        ("import absent_package\n\n\nclass Model:\n    pass\n", ", line 1: it cannot be imported: ModuleNotFoundError"),
        ("class Model:\n    pass\n\n\n1 / 0\n", ", line 5: it cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_cannot_be_read(own, source, words):
    name = own(source)
    assert refusal(name).startswith(f"{own.file}{words}")


# As a command


@pytest.mark.slow
def test_the_verb(own, tmp_path):
    def run(name, *arguments):
        command = [sys.executable, "-m", "diffusionblocks", "try", name, *arguments]
        environment = {"PYTHONPATH": str(PACKAGE.parent)}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)

    good, bad = own(MODEL), own(MODEL.replace("reduction=", "reductoin="))
    done = run(good)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"model {good} (")
    done = run(bad, "--kind", "model")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert own.file in done.stderr and done.stdout == ""

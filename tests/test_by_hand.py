"""Verbs by hand: a file that is absent, a folder or another than the one asked for is one message."""

import json
import sys

import pytest
from conftest import shipped
from page_helpers import IMAGES, TEMPLATE, measured, plan

from diffusionblocks.verbs import main


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused(verb, *words): what a verb says that ends with exit code 2, in a folder with some files."""
    run = shipped().rows["table1", "vit_diffusionblocks"].run(0)
    contents = {"run": run, "name": {"name": "digits"}, "metrics": {"metrics": {}, "curves": {}}, "list": [1]}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    plan(tmp_path, {"a": [measured("a", fid_test=5.0)]}, IMAGES)
    monkeypatch.chdir(tmp_path)

    def refused(*words):
        monkeypatch.setattr(sys, "argv", ["diffusionblocks", *map(str, words), "-o", "out/file"])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return said.removeprefix("error: ").strip()

    return refused


TRAIN = ("all", "--data", "d", "--state", "s")
PAGE = ("--template", TEMPLATE, "--figures", "figures.json", "--tables")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prepare", "run.json"), "run.json: is another file than the one asked for here: it has no name"),
        (("encode", "list.json", "0"), "list.json: is another file than the one asked for here: it has no name"),
        (("extractor", "run.json", "--data", "d"), "it has no name"),
        (("teacher", "run.json", "--data", "d"), "it has no name"),
        (("train", "name.json", *TRAIN), "name.json: is another file than the one asked for here: it has no table"),
        (("assemble", "name.json", "part"), "name.json: is another file"),
        (("sample", "run.json", "m", "name.json", "0", "--data", "d"), "name.json: is another file"),
        (("sample", "name.json", "m", "name.json", "0", "--data", "d"), "it has no table"),
        (("evaluate", "run.json", "m", "metrics.json", "--data", "d", "--logs", "l"), "it has no teachers"),
        (("table", "run.json"), "run.json: is another file than the one asked for here: it has no title, paper"),
        (("page", "run.json", *PAGE, "other.csv"), "run.json: is another file"),
        (("page", "table1.json", *PAGE, "other.csv"), "other.csv: no table of this workflow"),
        (("page", "table1.json", *PAGE, "absent.csv"), "absent.csv: no table of this workflow"),
        (("prepare", "absent.json"), "absent.json: no such file"),
        (("prepare", "folder"), "folder: is a folder, and a file belongs here"),
        (("plan", "folder", "x"), "folder: is a folder, and a file belongs here"),
    ],
)
def test_a_wrong_file_is_one_message(refused, words, said):
    assert said in refused(*words)


def test_an_absent_log_is_one_message(refused, monkeypatch):
    """As evaluation opens it, with everything else there."""
    from diffusionblocks.evaluation import evaluate as module

    def evaluate(run, model, data, metrics, logs, *_):
        for log in logs:
            module.read_json_lines(log)

    monkeypatch.setattr(module, "evaluate", evaluate)
    with open("evaluation.json", "w") as file:
        json.dump({"metrics": {}, "teachers": {}, "extractor": None}, file)
    words = ("evaluate", "run.json", "m", "evaluation.json", "--data", "d", "--logs")
    assert refused(*words, "absent.jsonl").startswith("absent.jsonl: no such file")
    assert refused(*words, "folder").startswith("folder: is a folder")


@pytest.mark.parametrize(
    "words", [("autoencoder", "--data-dir"), ("train", "run.json", "all", "--data", "d", "--state")]
)
def test_a_variable_that_is_not_set_makes_no_folder(refused, tmp_path, words):
    there = sorted(tmp_path.iterdir())
    assert f"{words[-1]}: $ABSENT_HERE/x: the variable ABSENT_HERE is not set" in refused(*words, "$ABSENT_HERE/x")
    assert sorted(tmp_path.iterdir()) == there


def test_nor_does_it_where_something_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "plan", "plan.json", "x", "-o", "$ABSENT_HERE/x"])
    with pytest.raises(SystemExit):
        main()
    assert "-o: $ABSENT_HERE/x: the variable ABSENT_HERE is not set" in capsys.readouterr().err


def test_a_folder_of_a_variable_is_looked_in(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLACE_HERE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "try", "imagenet", "--data-dir", "$PLACE_HERE/data"])
    with pytest.raises(SystemExit):
        main()
    assert f"{tmp_path}/data/imagenet/train: no such folder" in capsys.readouterr().err

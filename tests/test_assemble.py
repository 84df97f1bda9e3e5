"""Parts, as they come back from other machines, are joined where they belong together, and else refused."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import shipped

from diffusionblocks.base import model_file, tensors
from diffusionblocks.base.files import UserError, write_json
from diffusionblocks.plan.code import digest, run_files
from diffusionblocks.plan.stale import stale
from diffusionblocks.training.assemble import assemble
from diffusionblocks.verbs import main

RUN = {"table": "table1", "row": "vit_diffusionblocks", "seed": 0}
NAMES = ["block0", "block1", "block2"]


def weights(part):
    return {f"{part}.weight": np.arange(6, dtype=np.float32).reshape(2, 3), f"{part}.count": np.array(3)}


def header(part, /, **changes):
    about = {"run": RUN, "part": part, "data": {"title": "digits"}, "code": "1234", "step": 6}
    return {**about, "digest": tensors.digest(weights(part), framework="np"), **changes}


@pytest.fixture
def parts(tmp_path):
    """Three parts of a run, and its run.json."""
    write_json(tmp_path / "run.json", RUN)
    for part in NAMES:
        tensors.write(tmp_path / f"{part}.safetensors", weights(part), header(part), framework="np")
    return [tmp_path / f"{part}.safetensors" for part in NAMES]


def join(paths, **options):
    folder = paths[0].parent
    assemble(folder / "run.json", paths, folder / "model.json", NAMES, **options)
    return model_file.read(folder / "model.json")


def test_the_model_is_the_union_in_any_order(parts):
    found, about = join(parts[::-1])
    assert about.pop("parts") == {f"{part}.safetensors": header(part)["digest"] for part in NAMES}
    assert about == {"run": RUN, "digest": tensors.digest(found)}
    assert sorted(found) == sorted(name for part in NAMES for name in weights(part))
    assert all((found[name].numpy() == value).all() for part in NAMES for name, value in weights(part).items())


def test_planning_has_a_model_joined_anew_whose_parts_hold_other_weights(tmp_path, monkeypatch):
    """As `cp -p` brings them: no younger than the model, which nobody could read any more."""
    monkeypatch.chdir(tmp_path)
    plan = shipped()
    row = plan.rows["table1", "vit_diffusionblocks"]
    model, *files = row.model_files(0)
    about = {"run": row.run(0), "code": digest(run_files("train", row.run(0)))}
    for file, part in zip(files, NAMES, strict=True):
        tensors.write(file, weights(part), header(part, **about), framework="np")
    digests = [header(part)["digest"] for part in NAMES]
    model_file.write(model, row.run(0), "all", dict(zip(files, digests, strict=True)))
    assert stale(plan) == {}
    tensors.write(files[1], weights("block1"), header("block1", **about, digest="other"), framework="np")
    assert stale(plan) == {model: "was joined of other weights than its parts now hold"}
    os.unlink(files[1])
    assert stale(plan) == {}, "a part that is absent is trained first"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": {**RUN, "seed": 1}}, "was trained with other settings than .*run.json. Delete it and train it again"),
        ({"data": {"title": "mnist"}}, "was trained with other data than .*block0.safetensors. Delete the one"),
        ({"code": "5678"}, "was trained with other code than .*block0.safetensors. Delete the one"),
        ({"part": "block2"}, "holds part block2, which its name must say. Rename it"),
        ({"code": None}, "does not say its code, as parts of an older version do not. Delete it and train"),
        ({"data": None, "digest": None}, "does not say its data, digest"),
        ({"digest": "of other weights"}, "its weights have changed since they were written. Copy it anew"),
        ({"identity": {}}, "is a checkpoint after step 6, and no trained part. Go on with its training"),
    ],
)
def test_a_part_that_does_not_belong_is_refused(parts, changes, said):
    tensors.write(parts[1], weights("block1"), header("block1", **changes), framework="np")
    with pytest.raises(UserError, match=f"^{parts[1]}: {said}"):
        join(parts)
    assert not (parts[0].parent / "model.json").exists()


def test_parts_of_different_code_are_joined_where_code_does_not_count(parts):
    tensors.write(parts[1], weights("block1"), header("block1", code="5678"), framework="np")
    assert len(join(parts, any_code=True)[0]) == 6


def test_a_part_that_is_missing_or_there_twice_is_refused(parts):
    with pytest.raises(UserError, match=r"run\.json: of its parts, block1 is not among those given. Train it"):
        join([parts[0], parts[2]])
    with pytest.raises(UserError, match=f"^{parts[1]}: is part block1, as {parts[1]} is. Hand over each part once"):
        join([*parts, parts[1]])


def test_weights_that_a_copy_has_changed_are_refused(parts):
    whole = parts[1].read_bytes()
    parts[1].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a bit of the last tensor
    with pytest.raises(UserError, match=f"^{parts[1]}: its weights have changed"):
        join(parts)
    parts[1].write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"^{parts[1]}: absent, damaged"):
        join(parts)


def test_weights_are_kept_once_and_may_be_moved_with_their_model(parts):
    found, _ = join(parts)
    folder = parts[0].parent
    assert (folder / "model.json").stat().st_size < 1000
    folder.rename(folder.with_name("elsewhere"))
    assert model_file.read(folder.with_name("elsewhere") / "model.json")[0].keys() == found.keys()


@pytest.mark.parametrize("linked", [False, True])
def test_a_model_in_another_folder_finds_its_parts(parts, tmp_path, monkeypatch, linked):
    """Also by the command's relative names, and where its folder is a link to one elsewhere."""
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "out").symlink_to("far/away" if linked else "far")
    monkeypatch.chdir(tmp_path)
    assemble("run.json", [path.name for path in parts], "out/model.json", NAMES)
    assert len(model_file.read(tmp_path / "out/model.json")[0]) == 6


def test_a_model_whose_parts_are_not_what_they_were_is_refused(parts):
    join(parts)
    model, whole = parts[0].parent / "model.json", parts[1].read_bytes()
    for content, said in (
        (None, "absent, damaged .* is joined of it: train it again, or bring it back"),
        (whole[:-1], "absent, damaged .* is joined of it: train it again, or bring it back"),
        (parts[2].read_bytes(), f"has other weights than {model} was joined of. Delete {model}, and assemble again"),
    ):
        parts[1].unlink(missing_ok=True)
        if content:
            parts[1].write_bytes(content)
        with pytest.raises(UserError, match=f"^{parts[1]}: {said}"):
            model_file.read(model)
    with pytest.raises(UserError, match=f"^{parts[0]}: holds weights, and no word of the parts of a model. Give model"):
        model_file.about(parts[0])
    for text, said in (("[]", "does not say the run, digest and parts of a model. Delete it"), ("{", "not valid JSON")):
        model.write_text(text)
        with pytest.raises(UserError, match=f"^{model}: {said}"):
            model_file.about(model)


def test_a_digest_is_of_names_types_shapes_and_bytes():
    value = torch.arange(6.0).reshape(2, 3)
    known = tensors.digest({"a": value, "b": torch.tensor(True)})
    assert known == tensors.digest({"b": np.array(True), "a": value.numpy()}, framework="np")
    others = [{"c": value}, {"a": value.int()}, {"a": value.flatten()}, {"a": value + 1}, {"a": value.bfloat16()}]
    assert len({tensors.digest(each) for each in [{"a": value}, *others]}) == 6


def test_the_verb_asks_for_all_parts_of_the_run(parts, monkeypatch, capsys):
    """As by hand: which parts there are follows from the method's section in run.json."""
    folder = parts[0].parent
    run = {**RUN, "data": {}, "model": {}, "train": {}, "method": {"name": "diffusionblocks", "num_blocks": 3}}
    write_json(folder / "run.json", run)
    for part, path in zip(NAMES, parts, strict=True):
        tensors.write(path, weights(part), header(part, run=run), framework="np")
    words = ["diffusionblocks", "assemble", "run.json", *(f"{part}.safetensors" for part in NAMES[:2]), "-o", "model"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and "block2 is not among those given" in capsys.readouterr().err
    assert not (folder / "model").exists() and json.loads((folder / "run.json").read_text()) == run


@pytest.mark.parametrize(
    "row", [("table1", "vit_diffusionblocks"), ("table3", "mdm_end_to_end"), ("table6", "noprop_dt")]
)
def test_a_part_says_the_code_that_planning_puts_behind_its_training(row):
    wildcards = SimpleNamespace(table=row[0], row=row[1], keys=lambda: ("table", "row"))
    assert run_files("train", shipped().rows[row].run(0)) == shipped().code("train", wildcards)


def test_the_hash_of_code_is_of_contents_and_not_of_places(tmp_path):
    for folder, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(text)
    a, b, c = (digest([str(tmp_path / folder / "net.py")]) for folder in "abc")
    assert a == b != c

"""Whatever a user brings that cannot be: one line that names the file or key and says what to do; nothing is written.

Each case runs through the entry that a user or a rule takes, mostly a verb's own command line.
"""

import contextlib
import copy
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Checkout, shipped

from diffusionblocks import verbs as program
from diffusionblocks.base import device
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import UserError, in_words, write_json
from diffusionblocks.data.prepare import prepare
from diffusionblocks.plan import start
from diffusionblocks.plan.configuration import read_tables
from diffusionblocks.scorers.pretrained import identity

NOBODY = 65534


@pytest.fixture(scope="session")
def brought(tmp_path_factory):
    """(a prepared data set, the settings of a tiny run on it)."""
    path = tmp_path_factory.mktemp("brought") / "digits.safetensors"
    prepare({"name": "digits"}, "nowhere", path)
    run = copy.deepcopy(shipped().rows["table1", "vit_diffusionblocks"].run(0))
    run["model"] |= {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 24}
    run["train"] |= {"steps": 3, "warmup_steps": 0}
    return path, run


class Place:
    """A folder for one case, which nobody may enter, too; `hidden` are the files and folders that nobody may."""

    def __init__(self, folder, brought, monkeypatch):
        self.folder, (self.digits, self.run), self.patch = folder, brought, monkeypatch
        self.hidden = {}

    def file(self, name, content=""):
        """A file of this text, of these bytes, or of this value as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, (str, bytes)):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            write_json(path, content)
        return path

    def hide(self, path, mode=0):
        """Take rights away from a file or folder while the command runs."""
        self.hidden[path] = mode
        return path

    def files(self):
        return {path: path.lstat().st_mtime_ns for path in self.folder.rglob("*") if not path.is_dir()}

    @contextlib.contextmanager
    def as_nobody(self):
        """In here this process has no more rights than modes give: those of root would open everything."""
        modes = {path: path.stat().st_mode for path in self.hidden}
        for path, mode in self.hidden.items():
            path.chmod(mode)
        root = self.hidden and os.geteuid() == 0
        try:
            if root:
                os.seteuid(NOBODY)
            yield
        finally:
            if root:
                os.seteuid(0)
            for path, mode in reversed(modes.items()):
                path.chmod(mode)


@pytest.fixture
def place(brought, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="bad-"))  # pytest's own is closed to all others
    folder.chmod(0o755)
    monkeypatch.chdir(ROOT)
    yield Place(folder, brought, monkeypatch)
    monkeypatch.undo()
    shutil.rmtree(folder)


# What a user may do: each gives, for a Place, a function that makes the command.


def config(text):
    """A configuration file on top of ours, as a row of it is explained."""
    return lambda place: ["explain", "table1/vit_end_to_end", "--configfile", place.file("mine.yaml", text)]


def row(text):
    """The same for settings of one row, at scale demo."""
    return config(f"tables: {{table1: {{rows: {{vit_diffusionblocks: {text}}}}}}}")


def prepared(section, **files):
    """`prepare` of a data section, with files in data_dir: their names with __ for / and _dot_ for a dot."""

    def command(place):
        (place.folder / "data").mkdir()
        for name, content in files.items():
            place.file(f"data/{name.replace('__', '/').replace('_dot_', '.')}", content)
        names = [place.file("section.json", section), "--data-dir", place.folder / "data"]
        return ["prepare", *names, "-o", place.folder / "out/data.safetensors"]

    return command


def images(*folders, **more):
    """ImageNet with one image in each of these folders."""
    return prepared({"name": "imagenet"}, **{f"imagenet__{folder}__1_dot_JPEG": "x" for folder in folders}, **more)


def train(change=None, part="block1", **files):
    """`train` of the tiny run after a change of its settings, with other files than those that belong there."""

    def command(place):
        run = copy.deepcopy(place.run)
        if change:
            change(run)
        place.file("run.json", run)
        place.file("digits.safetensors", place.digits.read_bytes())
        for name, content in files.items():
            name = name.replace("__", "/").replace("_dot_", ".")
            place.file(name, content) if content is not None else (place.folder / name).unlink()
        places = ["--data", place.folder / "digits.safetensors", "--state", place.folder / "state"]
        return ["train", place.folder / "run.json", part, *places, "-o", place.folder / "parts/block1.safetensors"]

    return command


def tampered(command, change):
    """Another command after a change of its Place."""

    def changed(place):
        arguments = command(place)
        change(place)
        return arguments

    return changed


def hidden(command, name, mode=0):
    return tampered(command, lambda place: place.hide(place.folder / name, mode))


def environment(command, **variables):
    return tampered(command, lambda place: [place.patch.setenv(*item) for item in variables.items()])


def failing(command, owner, member, number):
    """The same where a call to the system is answered with this number, by no name of a file."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return tampered(command, lambda place: place.patch.setattr(owner, member, fail))


def verb(*words):
    """A verb; of the words, {} is the case's folder."""
    return lambda place: [str(word).replace("{}", str(place.folder)) for word in words]


def given(name, content, *words):
    """A verb after one file was made."""
    return tampered(verb(*words), lambda place: place.file(name, content))


def page(template):
    """The page of a table, by a template."""
    words = (
        "page",
        "{}/t.json",
        "--tables",
        "{}/t.csv",
        "--figures",
        "{}/f",
        "--template",
        template,
        "-o",
        "{}/t.html",
    )
    return given("t.json", TABLE, *words)


def snakemake(function, *arguments):
    """What Snakefile asks before anything is planned; an argument may be a function of the Place."""

    def command(place):
        return partial(function, *[argument(place) if callable(argument) else argument for argument in arguments])

    return command


def profile(content, *arguments):
    """A start with a profile of the user's."""
    name = "mine/profile.v9+.yaml"
    return snakemake(start.keep_profile, lambda place: ["--profile", str(place.file(name, content).parent), *arguments])


def silent_slurm(place):
    """SLURM's programs, and no cluster behind them."""
    for name in ("sbatch", "squeue"):
        place.file(name, "#!/bin/sh\necho error: many lines >&2\necho fatal: nobody >&2\nexit 1\n").chmod(0o755)
    place.patch.setenv("PATH", str(place.folder))


def set_run(section, **values):
    return lambda run: run[section].update(values)


TWICE = "tables:\n  t:\n    rows:\n      a: {}\n      b: {}\n      a: {}\n"
OWT = {"name": "openwebtext", "seq_len": 4}
TOKENIZER = json.dumps({"model": {"type": "BPE", "vocab": {"<x>": 0}, "merges": []}})
SLURM = str(ROOT / "workflow/profiles/slurm")
GPU = str(ROOT / "workflow/profiles/gpu/gpu.yaml")
TABLE = {"table": "t", "title": "T", "paper": None, "rows": {"a": {"paper_row": "a", "metrics": ["{}/none.json"]}}}

# {name: (command, what the line has: the file or key, what is wrong, what to do)}
CASES = {
    # Configuration: the frame
    "key of the top": (config("sclae: demo"), ["sclae", "did you mean 'scale'"]),
    "scale": (config("scale: dmeo"), ["config: scale", "dmeo", "demo"]),
    "no seeds": (config("seeds: []"), ["config: seeds", "should not be empty"]),
    "seeds twice": (config("seeds: [1, 1]"), ["config: seeds", "non-unique"]),
    "seed of text": (config("seeds: [a]"), ["config: seeds", "'a'", "should be of type integer"]),
    "seeds no list": (config("seeds: 3"), ["config: seeds", "should be a list"]),
    "select no list": (config("select: table1"), ["config: select", "should be `all` or a list"]),
    "track_code of text": (config("track_code: maybe"), ["config: track_code", "should be of type boolean"]),
    "date": (config("data_dir: 2026-11-26"), ["config.data_dir", "date", "put it in quotes"]),
    "tables a list": (config("tables: [a]"), ["config: tables", "should be a mapping"]),
    "tables of text": (config("tables: text"), ["config: tables", "'text'", "should be a mapping"]),
    "table a list": (config("tables: {table1: [x]}"), ["tables.table1", "should be a mapping"]),
    "key of a table": (config("tables: {table1: {trian: {}}}"), ["tables.table1", "trian", "did you mean 'train'"]),
    "table without rows": (config("tables: {table1: {rows: null}}"), ["tables.table1", "needs 'rows'"]),
    "table of nothing": (config("tables: {mine: {}}"), ["tables.mine", "needs 'title'"]),
    "table's name": (config("tables: {Mine: {title: x, rows: {a: {}}}}"), ["'Mine'", "should be a small letter"]),
    "no section": (
        config("tables: {table8: {like: null, demo: {data: {name: digits}}}}"),
        ["table8.rows", "no section", "model"],
    ),
    "key of a row": (row("{trian: {}}"), ["vit_diffusionblocks", "trian", "did you mean 'train'"]),
    "key of a row's scale": (row("{demo: {trian: {}}}"), ["vit_diffusionblocks.demo", "trian", "did you mean 'train'"]),
    # Sections
    "setting": (row("{train: {learning_rate: 0.1}}"), ["vit_diffusionblocks.train", "learning_rate", "keys here"]),
    "number of text": (row("{train: {lr: 1e-3}}"), ["vit_diffusionblocks.train.lr", "'1e-3'", "write 0.001"]),
    "steps": (config("tables: {table1: {demo: {train: {steps: 0}}}}"), ["train.steps", "0", "must be at least 1"]),
    "fractions of steps": (config("tables: {table1: {demo: {train: {steps: 9.0}}}}"), ["train.steps", "write 9"]),
    "accumulate": (config("tables: {table1: {demo: {train: {accumulate: 7}}}}"), ["train.accumulate", "divide", "64"]),
    "augment": (
        config("tables: {table1: {demo: {train: {augment: [corp]}}}}"),
        ["train.augment", "corp", "did you mean 'crop'"],
    ),
    "precision": (row("{train: {precision: fp16}}"), ["train.precision", "fp16", "is not one of", "bf16"]),
    "warm-up of steps": (
        config("tables: {table1: {demo: {train: {warmup_epochs: 5}}}}"),
        ["train.warmup_epochs", "say warmup_steps"],
    ),
    "warm-up of epochs": (
        config("tables: {table1: {gpu: {train: {warmup_epochs: 50}}}}\nscale: gpu"),
        ["train.warmup_epochs", "exceeds epochs"],
    ),
    "model's name": (config("tables: {table1: {model: {name: vti}}}"), ["model.name", "vti", "did you mean 'vit'"]),
    "model of null": (
        config("tables: {table1: {model: {name: null}}}"),
        ["table1.model.name", "None should be a text"],
    ),
    "model of a date": (config("tables: {table1: {model: {width: 2026-11-26}}}"), ["model.width", "put it in quotes"]),
    "metric without a name": (
        config("tables: {table1: {metrics: {x: {}}}}"),
        ["metrics.x: has no", "name` of a metric"],
    ),
    "key of sampling": (
        row("{metrics: {column: {name: accuracy, sampling: {num_step: 4}}}}"),
        ["column", "num_step", "did you mean 'num_steps'"],
    ),
    "steps of text": (
        row('{metrics: {column: {name: accuracy, sampling: {num_steps: "4"}}}}'),
        ["column", "num_steps", "'4'", "should be"],
    ),
    "steps of a method without": (
        config("tables: {table1: {metrics: {column: {name: accuracy, sampling: {num_steps: 4}}}}}"),
        ["vit_end_to_end", "column", "num_steps", "keys here"],
    ),
    "layers no list": (row("{method: {layers_per_block: 4}}"), ["method", "layers_per_block", "list"]),
    "layers of text": (
        row('{method: {layers_per_block: [2, 2, "2"]}}'),
        ["method", "layers_per_block", "whole number"],
    ),
    # YAML
    "key twice": (config(TWICE), ["mine.yaml", "'a' stands twice, in lines 4 and 6", "remove one"]),
    "key a number": (config("tables:\n  table1:\n    rows:\n      12: {}\n"), ["mine.yaml:4", "'12'", "in quotes"]),
    "key a boolean": (config("tables:\n  yes: {}\n"), ["mine.yaml:2", "'yes' as True", "in quotes"]),
    "no YAML": (config("a: [1\nb: 2\n"), ["mine.yaml:2", "not valid YAML"]),
    "no mapping": (config("- a\n"), ["mine.yaml", "should hold keys and values"]),
    "no UTF-8": (config(b"a: \xe9\n"), ["mine.yaml", "YAML in UTF-8"]),
    "no configuration": (
        verb("explain", "table1/x", "--configfile", "{}/mine.yaml"),
        ["mine.yaml: no such", "Bring it"],
    ),
    "no row": (verb("explain", "table1/vit_end_to_nd"), ["vit_end_to_nd", "did you mean 'table1/vit_end_to_end'"]),
    # Files of the workflow
    "no run": (train(run_dot_json=None), ["run.json: no such file", "Run the step"]),
    "empty run": (train(run_dot_json=""), ["run.json: not valid JSON", "Delete it"]),
    "run cut short": (train(run_dot_json='{"table"'), ["run.json: not valid JSON", "Delete it"]),
    "run of a list": (train(run_dot_json=[1]), ["run.json", "another file than the one asked for"]),
    "section for a run": (train(run_dot_json={"name": "vit"}), ["run.json", "it has no table, row"]),
    "setting of a run": (train(set_run("train", stpes=5)), ["train", "stpes", "did you mean 'steps'"]),
    "batch above the data": (train(set_run("train", batch_size=1438)), ["train.batch_size 1438 exceeds the 1437"]),
    "patches that do not fit": (train(set_run("model", patch_size=3)), ["patch_size 3"]),
    "no data": (train(digits_dot_safetensors=None), ["digits.safetensors: absent", "run prepare again"]),
    "data of text": (train(digits_dot_safetensors="no images"), ["digits.safetensors: absent, damaged", "run prepare"]),
    "checkpoint of text": (
        train(state__checkpoint_dot_safetensors="none"),
        ["state/checkpoint.safetensors: absent, damaged", "Delete"],
    ),
    "part of text": (
        given("part", "none", "assemble", ROOT / "tests/none.json", "{}/part", "-o", "{}/model.json"),
        ["tests/none.json: no such file", "Run the step"],
    ),
    "no plan": (
        verb("plan", "{}/plan.json", "tables/t", "-o", "{}/t.json"),
        ["plan.json: no such file", "ask snakemake"],
    ),
    "name of no plan": (
        given("plan.json", {}, "plan", "{}/plan.json", "tables/t", "-o", "{}/t.json"),
        ["plan.json: has no tables/t", "Start snakemake again"],
    ),
    "table without metrics": (
        given("t.json", TABLE, "table", "{}/t.json", "-o", "{}/t.csv"),
        ["none.json: no such file", "ask snakemake"],
    ),
    "no csv": (verb("show", "{}/t.csv"), ["t.csv: no table of this workflow", "Ask snakemake"]),
    "csv of another program": (given("t.csv", "a,b\n1,2\n", "show", "{}/t.csv"), ["t.csv: no table", "Ask snakemake"]),
    "no template": (
        page("{}/none"),
        ["/none: no such file", "Bring it there"],
    ),
    # Data
    "data of nobody": (prepared({"name": "absent"}), ["data 'absent': there is none", "sotu_characters"]),
    "section of a list": (prepared([1]), ["section.json: is another file", "no name"]),
    "vocabulary": (prepared({"name": "sotu_documents", "vocab_size": 100}), ["data.vocab_size: 100", "512, 4096"]),
    "no novels": (prepared({"name": "sotu_documents", "novels": True}), ["data: Austen's novels", "Run: mkdir"]),
    "no ImageNet": (images(), ["imagenet/train: no such folder", "Put the images there", "data_dir"]),
    "no val": (images("train__n1"), ["imagenet/val: no such folder", "<class>"]),
    "class not in val": (images("train__n1", "train__n2", "val__n1"), ["imagenet/val/n2: no such class folder"]),
    "class not in train": (images("train__n1", "val__n2", "val__n1"), ["imagenet/train/n2: no such class folder"]),
    "no classes": (
        prepared({"name": "imagenet"}, imagenet__train__a="x"),
        ["imagenet/train: has no class folders", "Images belong into"],
    ),
    "class without images": (
        images("train__n1", imagenet__train__n2__a="x"),
        ["imagenet/train/n2: has no image", "Fill this class folder or remove it"],
    ),
    "file for a folder": (
        prepared({"name": "imagenet"}, imagenet="x"),
        ["imagenet/train: runs through a file", "Move"],
    ),
    "file for a class": (
        prepared({"name": "imagenet"}, imagenet__train="x"),
        ["imagenet/train: runs through a file", "Move that file away"],
    ),
    "links in a circle": (
        tampered(images(), lambda place: (place.folder / "data/imagenet").symlink_to("imagenet")),
        ["data/imagenet/train: too many levels of links", "Make the links anew"],
    ),
    "Fashion-MNIST as a page": (
        prepared({"name": "fashion_mnist"}, **{"train-images-idx3-ubyte_dot_gz": "<html>not found</html>"}),
        ["train-images-idx3-ubyte.gz: corrupt", "Fetch it again"],
    ),
    "CIFAR-10 cut short": (
        prepared({"name": "cifar10"}, **{"cifar-10-binary_dot_tar_dot_gz": "x"}),
        ["cifar-10-binary.tar.gz: truncated: 1 bytes", "Delete it and start again"],
    ),
    "folder for an archive": (
        tampered(prepared({"name": "cifar10"}), lambda place: (place.folder / "data/cifar-10-binary.tar.gz").mkdir()),
        ["cifar-10-binary.tar.gz: ", "Delete it"],
    ),
    "no OpenWebText": (
        prepared(OWT),
        ["openwebtext: has no .tar", "urlsf_subset00.tar to urlsf_subset20.tar", "data_dir"],
    ),
    "no tokenizer": (prepared(OWT, openwebtext__a_dot_jsonl="{}"), ["llama2/tokenizer.json: no such file", "data_dir"]),
    "tokenizer cut short": (
        prepared(OWT, openwebtext__a_dot_jsonl="{}", llama2__tokenizer_dot_json="{"),
        ["llama2/tokenizer.json: not a tokenizer", "on request"],
    ),
    "tokenizer without a start": (
        prepared(OWT, openwebtext__a_dot_jsonl="{}", llama2__tokenizer_dot_json=TOKENIZER),
        ["llama2/tokenizer.json: has no tokens <s> and </s>", "on request"],
    ),
    # What the file system refuses
    "configuration unreadable": (
        hidden(config("scale: demo"), "mine.yaml"),
        ["mine.yaml: permission denied", "Ask its owner"],
    ),
    "tables unreadable": (
        hidden(snakemake(read_tables, lambda place: place.file("tables/a.yaml").parent), "tables"),
        ["tables: permission denied", "Ask its owner"],
    ),
    "teacher unreadable": (
        hidden(snakemake(identity, lambda place: place.file("gpt2_xl/a.safetensors").parent), "gpt2_xl"),
        ["gpt2_xl: permission denied", "Ask its owner"],
    ),
    "run unreadable": (hidden(train(), "run.json"), ["run.json: permission denied", "Ask its owner"]),
    "data unreadable": (
        hidden(train(), "digits.safetensors"),
        ["digits.safetensors: permission denied", "Ask its owner"],
    ),
    "data a folder": (
        tampered(train(digits_dot_safetensors=None), lambda place: (place.folder / "digits.safetensors").mkdir()),
        ["digits.safetensors: is a folder", "Move it away"],
    ),
    "ImageNet unreadable": (
        hidden(images("train__n1", "val__n1"), "data/imagenet/train"),
        ["data/imagenet/train: permission denied", "Ask its owner"],
    ),
    "class unreadable": (
        hidden(images("train__n1", "val__n1"), "data/imagenet/train/n1"),
        ["data/imagenet/train/n1: permission denied", "Ask its owner"],
    ),
    "data_dir closed": (
        hidden(prepared({"name": "cifar10"}), "data"),
        ["data/cifar-10-binary.tar.gz: permission denied"],
    ),
    "data_dir closed to IDX": (hidden(prepared({"name": "fashion_mnist"}), "data"), ["gz: permission denied", "Ask"]),
    "data_dir closed to novels": (
        hidden(prepared({"name": "sotu_documents", "novels": True}), "data"),
        ["Rdata.rdb: permission denied", "Ask its owner"],
    ),
    "data_dir read-only": (
        hidden(prepared({"name": "cifar10"}), "data", 0o555),
        ["data/cifar-10-binary.tar.gz.part: permission denied", "name another place"],
    ),
    "archive unreadable": (
        hidden(prepared({"name": "text8"}, text8_dot_zip=b"x" * 31_344_016), "data/text8.zip"),
        ["text8.zip: permission denied", "Ask its owner"],
    ),
    "IDX unreadable": (
        hidden(
            prepared({"name": "fashion_mnist"}, **{"train-images-idx3-ubyte_dot_gz": "x"}),
            "data/train-images-idx3-ubyte.gz",
        ),
        ["train-images-idx3-ubyte.gz: permission denied", "Ask its owner"],
    ),
    "OpenWebText closed": (
        hidden(prepared(OWT, openwebtext__a_dot_jsonl="{}"), "data/openwebtext"),
        ["data/openwebtext: permission denied", "Ask its owner"],
    ),
    "tokenizer unreadable": (
        hidden(
            prepared(OWT, openwebtext__a_dot_jsonl="{}", llama2__tokenizer_dot_json="{"), "data/llama2/tokenizer.json"
        ),
        ["llama2/tokenizer.json: permission denied", "Ask its owner"],
    ),
    "output closed": (
        tampered(prepared({"name": "digits"}), lambda place: place.hide(place.file("out/a").parent, 0o555)),
        ["out/data.safetensors: permission denied", "name another place"],
    ),
    "output a folder": (
        tampered(prepared({"name": "digits"}), lambda place: place.file("out/data.safetensors/a")),
        ["out/data.safetensors: is a folder", "Move it away"],
    ),
    "output through a file": (
        tampered(prepared({"name": "digits"}), lambda place: place.file("out")),
        ["out: is a file, and a folder belongs here", "Move it away"],
    ),
    "output's name": (
        verb("plan", ROOT / "tests/none.json", "x", "-o", "{}/" + 255 * "x"),
        ["tests/none.json: no such file"],
    ),
    "state closed": (
        tampered(train(), lambda place: place.hide(place.file("state/a").parent, 0o555)),
        ["state/lock.json: permission denied", "Ask its owner"],
    ),
    "csv unreadable": (hidden(given("t.csv", "a", "show", "{}/t.csv"), "t.csv"), ["t.csv: permission denied", "Ask"]),
    "template unreadable": (
        hidden(
            tampered(page("{}/page"), lambda place: place.file("page")),
            "page",
        ),
        ["/page: permission denied", "Ask its owner"],
    ),
    "read-only file system": (
        failing(prepared({"name": "digits"}), Path, "touch", errno.EROFS),
        ["making", "data.safetensors: its file system is read-only", "Name another place"],
    ),
    "stale handle": (
        failing(prepared({"name": "digits"}), Path, "read_text", errno.ESTALE),
        ["making", "stale handle", "Start the same command again"],
    ),
    "too many files": (
        failing(prepared({"name": "digits"}), Path, "read_text", errno.EMFILE),
        ["making", "too many open files", "ulimit -n"],
    ),
    # The environment
    "threads of text": (environment(train(), OMP_NUM_THREADS="many"), ["OMP_NUM_THREADS: 'many'", "such as 1"]),
    "no threads": (environment(train(), OMP_NUM_THREADS="0"), ["OMP_NUM_THREADS: '0'", "unset it"]),
    "no headers": (
        tampered(
            train(set_run("train", compile=True)),
            lambda place: place.patch.setattr(device, "HEADERS", [str(place.folder)]),
        ),
        ["train.compile", "no Python.h", "python3-dev", "set train.compile to false"],
    ),
    "no compiler": (
        environment(train(set_run("train", compile=True)), CXX="no-such-compiler", CC="no-such-compiler"),
        ["train.compile", "no-such-compiler", "Install it", "set train.compile to false"],
    ),
    # Command lines of Snakemake
    "set-resources alone": (
        snakemake(start.keep_profile, ["--profile", SLURM, "--set-resources", "train:runtime=9"]),
        ["profile.v9+.yaml", "train:slurm_partition=gpu train:gpu=1 train:mem_mb=32000", "Change the file"],
    ),
    "set-resources by =": (
        snakemake(start.keep_profile, [f"--profile={SLURM}", "--set-resources=train:gpu=2"]),
        ["--set-resources train:gpu=2 train:slurm_partition=gpu", "reference:runtime=240"],
    ),
    "default-resources alone": (
        snakemake(start.keep_profile, ["--profile", SLURM, "--default-resources"]),
        ["--default-resources slurm_partition=cpu mem_mb=8000", "Change the file"],
    ),
    "resources of a list": (profile("resources: [gpu=1, mem_mb=2]", "--res", "gpu=2"), ["--resources gpu=2 mem_mb=2"]),
    "cores of a profile": (
        profile("cores: 1"),
        ["mine/profile.v9+.yaml: `cores: 1` would be lost", "default", "(--cores 1)"],
    ),
    "key twice in a profile": (
        profile("jobs: 1\njobs: 2\n"),
        ["profile.v9+.yaml", "'jobs' stands twice", "remove one"],
    ),
    "key twice in config.yaml": (
        snakemake(start.keep_keys, lambda place: [place.file("config.yaml", "seeds: [1]\nseeds: [2]\n")]),
        ["config.yaml: the key 'seeds' stands twice, in lines 1 and 2", "remove one"],
    ),
    "scale lost": (
        snakemake(
            start.keep_scale,
            {"scale": "demo"},
            [f"--profile={SLURM}", "--config", "seeds=[0]", "--configfile", "mine.yaml"],
        ),
        ["slurm is for scale paper", "--config scale=paper"],
    ),
    "scale of two files": (
        snakemake(start.keep_scale, {"scale": "paper"}, ["--profile", SLURM, "--configfile", GPU]),
        ["gpu.yaml asks for gpu", "--config scale=gpu"],
    ),
    "another folder": (
        snakemake(start.right_place, ROOT, lambda place: place.folder),
        ["this workflow runs in its own folder alone", "without --directory: cd"],
    ),
    "another checkout": (
        snakemake(start.right_place, lambda place: place.folder, lambda place: place.folder),
        [str(ROOT), "was moved or copied", "rm -rf .venv"],
    ),
    "no SLURM": (
        environment(snakemake(start.refuse_without_slurm, "slurm"), PATH=""),
        ["no sbatch on this machine", "Start on a login node"],
    ),
    "silent SLURM": (
        tampered(snakemake(start.refuse_without_slurm, "slurm"), silent_slurm),
        ["no cluster answers (fatal: nobody)", "Start on a login node"],
    ),
}


@pytest.mark.parametrize(("command", "words"), CASES.values(), ids=CASES)
def test_bad_input_is_one_line_that_names_it_and_the_cure(place, capsys, command, words):
    command = command(place)
    before = place.files()
    with place.as_nobody():
        line = said(command, capsys)
    assert line.count("\n") == 1 and all(word in line for word in words), line
    assert place.files() == before


def said(command, capsys, output=None):
    """The line with which a command is refused; what it printed before that goes into the list `output`."""
    if callable(command):
        with pytest.raises((UserError, OSError)) as refused:
            command()
        return f"{in_words(refused.value) if isinstance(refused.value, OSError) else refused.value}\n"  # as or_stop
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as refused:
        patch.setattr(sys, "argv", ["diffusionblocks", *map(str, command)])
        program.main()
    printed, errors = capsys.readouterr()
    if output is not None:
        output.append(printed)
    assert refused.value.code == 2 and errors.startswith("error: "), errors
    return errors


@pytest.mark.parametrize(("said", "threads"), [("", 1), (" 2 ", 2), ("3,1", 3)])
def test_threads_are_what_openmp_would_take(monkeypatch, said, threads):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    pick_device()
    assert asked == [threads]


def test_a_log_begins_with_the_process_that_writes_it(place, capsys):
    """Snakemake shows no log after an empty one, so no verb that a rule calls may be killed before its first line."""
    said(train(digits_dot_safetensors=None)(place), capsys, told := [])
    assert re.fullmatch(
        rf"making \S+/block1\.safetensors on .+: process {os.getpid()} on \S+, 20\S+ \S+\ndevice: .+\n", told[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--configfile", "{}/twice.yaml"], ["twice.yaml: the key 'a' stands twice"]),
        (["--profile", "slurm", "--set-resources", "train:runtime=9"], ["train:slurm_partition=gpu"]),
        (["--directory", "{}"], ["without --directory"]),
    ],
)
def test_snakemake_asks_all_that(fresh, place, arguments, words):
    place.file("twice.yaml", TWICE)
    arguments = [argument.format(place.folder) for argument in arguments]
    refused = fresh.snakemake("-n", *arguments, check=False, configfile=None)
    assert refused.returncode == 1 and all(word in refused.stdout for word in words), refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "> {log[0]}", "echo first > {log[0]}"], ids=["absent", "empty", "written"])
def test_a_log_behind_an_empty_one_is_shown_once(tmp_path, first):
    """As SLURM's own is, which has the cause where a job never began."""
    checkout = Checkout(tmp_path / "checkout")
    file = checkout.folder / "rules/plan.smk"
    rule = file.read_text().replace('{planned}}.log"', '{planned}}.log", f"{RESULTS}/logs/{{planned}}.slurm"')
    command = f"{first}; " * bool(first) + "echo out of memory > {log[1]}; false"
    file.write_text(re.sub('"python -m .*"', f'"{command}"', rule))
    failed = checkout.snakemake("results/demo/tables/table1.json", check=False)
    shown = (failed.stdout + failed.stderr).splitlines()
    assert failed.returncode == 1 and shown.count("out of memory") == 1, shown


def test_a_checkout_that_was_moved_with_its_environment_is_told_from_one_that_was_not(place):
    shutil.copy(ROOT / "Makefile", place.folder)
    ready = place.file(".venv/installed", "/old/place\n")
    make = partial(subprocess.run, ["make", "-n", "demo"], cwd=place.folder, capture_output=True, text=True)
    assert "/old/place" in (errors := make().stderr) and "rm -rf .venv && make demo" in errors
    ready.write_text(f"{place.folder}\n")
    assert "another folder" not in make().stderr


def test_every_pip_command_is_pinned_and_safe_in_any_shell():
    """zsh takes * and [] outside of quotes for file names."""
    files = [
        ROOT / "README.md",
        ROOT / "pyproject.toml",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("diffusionblocks/**/*.py"),
    ]
    whole = [re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in files]  # of a message that goes over two lines
    commands = [command for text in whole for command in re.findall(r"pip install ([^`\n]+)", text)]
    assert len(commands) > 8
    for command in commands:
        assert ("-c constraints.txt" in command) != ("==" in command), command
        assert not re.search(r"[*\[]", re.sub(r"'[^']*'|\{.*?\}", "", command)), command

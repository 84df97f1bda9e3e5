"""Programs that a test may need, and a finished workflow that several tests look at."""

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import slurm_cluster
import yaml

from diffusionblocks.plan.plan import Plan

ROOT = Path(__file__).parent.parent
# Small enough for seconds a job; everything else is the demo as users run it.
TINY = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "table1": {
            "demo": {
                "model": {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 24},
                "train": {"steps": 6, "warmup_steps": 2, "log_every": 2},
            },
            "rows": {"vit_forward_forward_contrastive": {"demo": {"train": {"steps": 6}}}},
        }
    },
}
# Tables 2, 7, 8 and A2 likewise. A row and its control make two sets of images in three jobs, so that sets and jobs end
# at different images.
TINY_GENERATION = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "table2": {
            "demo": {
                "model": {"width": 16, "num_heads": 2, "mlp_width": 16},
                "train": {"steps": 4, "warmup_steps": 1, "log_every": 2},
                "sampling": {"num_samples": 40, "num_steps": 12},
                "extractor": {"name": "small_cnn", "steps": 20},
            },
            "rows": {
                "cifar10_dit_end_to_end": {"sampling": {"sets": 2, "shards": 3}},
                "imagenet_dit_end_to_end": {"demo": {"sampling": {"num_samples": 40}}},
            },
        },
        "table7": {"demo": {"seeds_at_most": 1}},
    },
}
# Tables 3, 4, 5 and A3 likewise.
TINY_TEXT = {
    "scale": "demo",
    "seeds": [0],
    "tables": {
        "table3": {
            "demo": {
                "data": {"seq_len": 16, "test_size": 50},
                "model": {"num_layers": 3, "width": 16, "num_heads": 2, "mlp_width": 16},
                "train": {"steps": 4, "warmup_steps": 1, "log_every": 2},
                "sampling": {"num_samples": 6, "num_steps": 8},
            }
        },
        "table4": {
            "demo": {
                "data": {"seq_len": 16, "test_size": 50},
                "model": {"width": 16, "num_heads": 2, "mlp_width": 16},
                "train": {"steps": 4, "warmup_steps": 1, "log_every": 2},
                "sampling": {"num_samples": 80, "prompt_len": 6, "new_tokens": 6},
                "metrics": {
                    column: {"teacher": {"name": "small_lm", "width": 8, "steps": 5}}
                    for column in ("mauve", "mauve_c5", "ppl_small_lm")
                },
            },
            "rows": {
                "lm1b_ar_diffusionblocks": {
                    "demo": {"metrics": {"mauve_16_levels": {"teacher": {"name": "small_lm", "width": 8, "steps": 5}}}}
                }
            },
        },
        "table5": {"demo": {"model": {"name": "recurrent_depth", "width": 16, "num_heads": 2, "mlp_width": 16}}},
    },
}
TEXT = ("table3", "table4", "table5", "table_a3")
GENERATION = ("table2", "table7", "table8", "table_a2")


@functools.cache
def shipped(scale="demo"):
    """The plan of the configuration as it is shipped; not to be changed."""
    return Plan.of({**yaml.safe_load((ROOT / "config.yaml").read_text()), "scale": scale})


# Whoever asks for one of these waits for a workflow, a cluster or a browser.
SLOW = {"finished", "generated", "written", "fresh", "slurm"}


def pytest_collection_modifyitems(items):
    """Mark slow tests; files with any come first, the cluster's before all, so that xdist ends with short ones."""
    for item in items:
        if SLOW.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_cluster.py", item.path not in slow))


def missing_program(reason, variable):
    """Skip a test for want of a program, or fail where `variable` says that it must be there (as .ci/run does)."""
    if os.environ.get(variable):
        pytest.fail(reason)
    pytest.skip(reason)


def trainings(files):
    """(table, row, part) of all trainings that write some of the files, in the order of their names."""
    found = (re.search(r"runs/(\w+)/(\w+)/seed\d+/parts/(\w+)\.safetensors$", file) for file in files)
    return sorted(match.groups() for match in found if match)


class Checkout:
    """A copy of the repository in which a test may run the workflow and change files.

    tables: those that the copy has, or None for all. settings: what goes on top of them, in tiny.yaml.
    """

    def __init__(self, folder, tables=("table1",), settings=TINY):
        self.folder = folder
        ignore = shutil.ignore_patterns(
            "results", ".venv", ".git", ".snakemake", "*_cache", "__pycache__", "*.egg-info"
        )
        shutil.copytree(ROOT, folder, symlinks=True, ignore=ignore)
        for path in (folder / "workflow/tables").glob("*.yaml"):
            if tables is not None and path.stem not in tables:
                path.unlink()
        self.configure(settings)

    def ask_often(self):
        """Have Snakemake ask SLURM for the state of jobs every second; its plugin asks ever more rarely."""
        profile, rules = self.folder / "workflow/profiles/slurm/profile.v9+.yaml", self.folder / "rules/common.smk"
        profile.write_text(profile.read_text().replace("per-second: 0.2", "per-second: 2"))
        rules.write_text(
            f"{rules.read_text()}\n\nfrom snakemake_interface_executor_plugins.executors import remote\n\n"
            "pause = property(lambda self: 1, lambda self, value: None)\n"
            "remote.RemoteExecutor.next_seconds_between_status_checks = pause\n"
        )

    def configure(self, settings):
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(settings))

    def snakemake(self, *arguments, check=True, configfile="tiny.yaml", **options):
        """Run Snakemake in the copy, on the copy's own package."""
        command = [str(Path(sys.executable).parent / "snakemake"), *arguments]
        if configfile:
            command += ["--configfile", configfile]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment, timeout=900, **options
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def plan(self, *arguments, **options):
        """What a dry run would do: {rule: number of jobs}, and all files that it would write."""
        output = self.snakemake(*arguments, "-n", **options).stdout
        table = re.search(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", output, re.MULTILINE)
        jobs = {rule: int(count) for rule, count in re.findall(r"(\w+) +(\d+)", table[1])} if table else {}
        lines = re.findall(r"^ +output: (.+)$", output, re.MULTILINE)
        files = [file for line in lines for file in line.split(", ")]
        return {rule: count for rule, count in jobs.items() if rule != "total"}, files

    def planned(self, *arguments):
        return self.plan(*arguments)[0]

    def copy(self, folder):
        """Another copy in the same state, finished runs included."""
        other = object.__new__(Checkout)
        other.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return other


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A checkout in which all of table 1 has run to the end at tiny size. Tests that change it work on a copy."""
    checkout = Checkout(tmp_path_factory.mktemp("workflow") / "checkout")
    checkout.output = checkout.snakemake("all").stderr
    return checkout


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A checkout of the tables of generated images in which table 2 has run at tiny size; to be copied likewise."""
    checkout = Checkout(tmp_path_factory.mktemp("generation") / "checkout", GENERATION, TINY_GENERATION)
    checkout.snakemake("table2")
    return checkout


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A checkout of the tables of texts in which tables 3 and 5 have run at tiny size; to be copied likewise."""
    checkout = Checkout(tmp_path_factory.mktemp("text") / "checkout", TEXT, TINY_TEXT)
    checkout.snakemake("table3", "table5")
    return checkout


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """A checkout of all tables as they are shipped, for dry runs alone."""
    return Checkout(tmp_path_factory.mktemp("fresh") / "checkout", None, {})


@pytest.fixture
def slurm(monkeypatch):
    """A real SLURM of three nodes on this host, whose GPUs are not real: sbatch hands the variable on to all jobs."""
    monkeypatch.setenv("DIFFUSIONBLOCKS_DEVICE", "cpu")
    if reason := slurm_cluster.why_not():
        missing_program(reason, "REQUIRE_SLURM")
    # Not pytest's own folder: SLURM's sockets lie in it, and their paths may have no more than 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster.cluster(Path(folder)) as cluster:
        yield cluster


# The table of docs/reliability.md, made by the tests: (fault, what was done, what happened, what was lost).
FAULTS = []
BEGIN, END = "<!-- made by the tests -->\n", "<!-- end -->\n"


def pytest_addoption(parser):
    parser.addoption(
        "--reliability", type=Path, help="file whose table of faults is written anew by the tests that ran"
    )


def pytest_configure(config):
    if config.getoption("--reliability") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--reliability: each process knows only its own tests; leave out -n")


def pytest_sessionfinish(session, exitstatus):
    path = session.config.getoption("--reliability")
    if path is None or exitstatus:
        return
    before, _, rest = path.read_text().partition(BEGIN)
    head = "| fault | what was done | what happened | lost |\n| --- | --- | --- | --- |\n"
    rows = "".join(f"| {' | '.join(row)} |\n" for row in FAULTS)
    path.write_text(f"{before}{BEGIN}{head}{rows}{END}{rest.partition(END)[2]}")


@pytest.fixture
def told():
    """told(fault, what was done, what happened, what was lost): a row of the table of faults; the test asserts it."""
    return lambda *row: FAULTS.append(row)


COUNTER = itertools.count()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(source): the name of a module of the user's own, importable from here, with a file of this source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        package = f"nets{next(COUNTER)}"  # another one each time, since Python keeps what it has imported
        (tmp_path / package).mkdir()
        path = tmp_path / package / "own.py"
        path.write_text(textwrap.dedent(source))
        write.file = str(path)
        return f"{package}.own"

    return write

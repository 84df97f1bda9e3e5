"""Programs that a test may need, and a finished workflow that several tests look at."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import slurm_cluster
import yaml

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
            }
        }
    },
}


def missing_program(reason, variable):
    """Skip a test for want of a program, or fail where `variable` says that it must be there (as .ci/run does)."""
    if os.environ.get(variable):
        pytest.fail(reason)
    pytest.skip(reason)


class Checkout:
    """A copy of the repository in which a test may run the workflow and change files."""

    def __init__(self, folder):
        self.folder = folder
        ignore = shutil.ignore_patterns(
            "results", ".venv", ".git", ".snakemake", "*_cache", "__pycache__", "*.egg-info"
        )
        shutil.copytree(ROOT, folder, symlinks=True, ignore=ignore)
        self.configure(TINY)

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

    def planned(self, *arguments):
        """{rule: number of jobs} that a dry run would start."""
        output = self.snakemake(*arguments, "-n", "--quiet", "rules").stdout + "\n"
        lines = output.partition("job ")[2].partition("\n\n")[0].splitlines()
        counts = [line.split() for line in lines if len(line.split()) == 2 and line.split()[1].isdigit()]
        return {rule: int(count) for rule, count in counts if rule != "total"}

    def copy(self, folder):
        """Another copy in the same state, finished runs included."""
        other = object.__new__(Checkout)
        other.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return other


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A checkout whose default workflow has run to the end at tiny size. Tests that change it work on a copy."""
    checkout = Checkout(tmp_path_factory.mktemp("workflow") / "checkout")
    checkout.output = checkout.snakemake("all").stderr
    return checkout


@pytest.fixture
def slurm():
    """A real SLURM of three nodes on this host."""
    if reason := slurm_cluster.why_not():
        missing_program(reason, "REQUIRE_SLURM")
    # Not pytest's own folder: SLURM's sockets lie in it, and their paths may have no more than 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster.cluster(Path(folder)) as cluster:
        yield cluster

import os
import shlex
import sys
from pathlib import Path

from diffusionblocks.base.files import UserError, user_path
from diffusionblocks.plan import cluster
from diffusionblocks.plan.plan import Plan


def or_stop(function, *arguments):
    """Call a function of the package; its UserError becomes Snakemake's one-line refusal."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


or_stop(cluster.keep_scale, config, sys.argv)
PLAN = or_stop(Plan.of, config)
RESULTS = PLAN.results
RUN = f"{RESULTS}/runs/{{table}}/{{row}}/seed{{seed}}"
DATA_DIR = or_stop(user_path, "config: data_dir", PLAN.config["data_dir"])

# Jobs find the Python that runs Snakemake, whether or not its environment is activated; conda brings its own.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def code(step):
    """Input function: the source files behind a step, so that an edit reruns what it can affect and nothing else."""

    def files(wildcards):
        paths = [os.path.relpath(file) for file in PLAN.code(step, wildcards)]
        # The same files either way: leaving them out would itself count as a change of the inputs.
        return paths if PLAN.config["track_code"] else [ancient(path) for path in paths]

    return files


def data_of(wildcards):
    return PLAN.row(wildcards).data_file


wildcard_constraints:
    table=r"\w+",
    row=r"\w+",
    seed=r"\d+",
    part=r"all|block\d+",
    data=r"\w+(-[0-9a-f]{8})?",
    sampling=r"[0-9a-f]{8}",
    shard=r"\d+",
    extractor=r"\w+(-[0-9a-f]{8})?",
    teacher=r"\w+(-[0-9a-f]{8})?",
    planned=PLAN.PLANNED,


onstart:
    # Jobs of an earlier, lost Snakemake go on under SLURM; a second trainer beside one would write the same files.
    or_stop(cluster.refuse_second_start, os.getcwd())
    PLAN.write()

import json
import os
import shlex
import sys
from pathlib import Path

from diffusionblocks import cluster
from diffusionblocks import config as planning
from diffusionblocks.check import check, check_frame
from diffusionblocks.files import UserError


def or_stop(function, *arguments):
    """Call a function of the package; its UserError becomes Snakemake's one-line refusal."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


or_stop(
    check_frame, config, workflow.source_path("../workflow/schemas/config.schema.yaml")
)
or_stop(check, config)

# Jobs find the Python that runs Snakemake, whether or not its environment is activated; conda brings its own.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

RESULTS = f"results/{config['scale']}"
RUN = "runs/{table}/{row}/seed{seed}"
TABLES = planning.tables(config)


def run_of(wildcards):
    return planning.run(config, wildcards.table, wildcards.row, int(wildcards.seed))


def run_json(wildcards):
    return json.dumps(run_of(wildcards), sort_keys=True)


def data_of(wildcards):
    name = planning.data_name(run_of(wildcards)["data"])
    return f"{RESULTS}/data/{name}.safetensors"


def section_of(wildcards):
    """The data section that a prepared file was made from, as JSON."""
    sections = [
        planning.run(config, table, row, 0)["data"]
        for table in TABLES
        for row in config["tables"][table]["rows"]
        if planning.trained(config, table, row) == (table, row)
    ]
    found = {planning.data_name(section): section for section in sections}
    return json.dumps(found[wildcards.data], sort_keys=True)


def parts_of(suffix):
    """Input function: the files of all parts of a run."""

    def files(wildcards):
        parts = planning.parts(run_of(wildcards))
        folder = f"{RESULTS}/{RUN}".format(**wildcards)
        return [f"{folder}/parts/{part}{suffix}" for part in parts]

    return files


def metrics_section(wildcards):
    resolved = planning.resolve(config, wildcards.table, wildcards.row)
    return json.dumps(resolved.get("metrics", {}))


def metrics_of(tables):
    """metrics.json of every run behind the tables, each once."""
    folders = [
        folder for table in tables for folder in planning.run_folders(config, table)
    ]
    return [
        f"{RESULTS}/runs/{folder}/metrics.json" for folder in dict.fromkeys(folders)
    ]


def rows_of(wildcards):
    """A table's rows as JSON: where each was trained, whom it is compared with, what was measured."""
    rows = {}
    for row, settings in config["tables"][wildcards.table]["rows"].items():
        table, trained = planning.trained(config, wildcards.table, row)
        folders = [f"{table}/{trained}/seed{seed}" for seed in config["seeds"]]
        paper_row = row if isinstance(settings, str) else settings.get("paper_row", row)
        rows[row] = {
            "run": f"{table}/{trained}",
            "paper_row": paper_row,
            "against": None if isinstance(settings, str) else settings.get("against"),
            "metrics": [f"{RESULTS}/runs/{folder}/metrics.json" for folder in folders],
        }
    return json.dumps(rows)


def code(step):
    """Input function: the source files behind a step, so that an edit reruns what it can affect and nothing else."""

    def files(wildcards):
        run = run_of(wildcards) if "row" in wildcards.keys() else None
        paths = [os.path.relpath(file) for file in planning.code(step, run)]
        # The same files either way: leaving them out would itself count as a change of the inputs.
        return paths if config["track_code"] else [ancient(path) for path in paths]

    return files


wildcard_constraints:
    table=r"\w+",
    row=r"\w+",
    seed=r"\d+",
    part=r"all|block\d+",


# Jobs of an earlier, lost Snakemake go on under SLURM; a second trainer beside one would write the same files.
onstart:
    or_stop(cluster.refuse_second_start, os.getcwd())

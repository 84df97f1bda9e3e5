import json
import os
import shlex
import sys
from pathlib import Path

from diffusionblocks.plan import cluster
from diffusionblocks.plan import resolve as planning
from diffusionblocks.plan.check import check, check_frame
from diffusionblocks.base.files import UserError


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
    name = planning.section_name(run_of(wildcards)["data"])
    return f"{RESULTS}/data/{name}.safetensors"


def trained_rows():
    """(table, row) of every row of the scale that is trained and not borrowed from another table."""
    rows = [(table, row) for table in TABLES for row in config["tables"][table]["rows"]]
    return [row for row in rows if planning.trained(config, *row) == row]


def section_of(wildcards):
    """The data section that a prepared file was made from, as JSON."""
    sections = [planning.run(config, *row, 0)["data"] for row in trained_rows()]
    found = {planning.section_name(section): section for section in sections}
    return json.dumps(found[wildcards.data], sort_keys=True)


def shards_of(wildcards):
    """The encoded shards that a prepared file joins; a source without the keyword `shards` has none."""
    section = json.loads(section_of(wildcards))
    keywords = planning.data_sources()[section["name"]]
    count = section.get("shards", keywords.get("shards", 0))
    return [
        f"{RESULTS}/data/{wildcards.data}/shard{shard}.safetensors"
        for shard in range(count)
    ]


def parts_of(suffix):
    """Input function: the files of all parts of a run."""

    def files(wildcards):
        parts = planning.parts(run_of(wildcards))
        folder = f"{RESULTS}/{RUN}".format(**wildcards)
        return [f"{folder}/parts/{part}{suffix}" for part in parts]

    return files


def metrics_section(wildcards):
    return json.dumps(planning.metrics(config, wildcards.table, wildcards.row))


def samples_of(wildcards):
    """All shards of all samples that a run's metrics need to have generated."""
    sets = planning.sample_sets(config, wildcards.table, wildcards.row)
    folder = f"{RESULTS}/{RUN}".format(**wildcards)
    return [
        f"{folder}/samples/{name}/{shard}.safetensors"
        for name, sampling in sets.items()
        for shard in range(sampling["shards"])
    ]


def sampling_of(wildcards):
    sets = planning.sample_sets(config, wildcards.table, wildcards.row)
    return json.dumps(sets[wildcards.sampling], sort_keys=True)


def scorers_of(wildcards):
    """What a run's metrics need to judge samples: an extractor's weights and the real images' features, or teachers."""
    data = planning.section_name(run_of(wildcards)["data"])
    section = planning.extractor(config, wildcards.table, wildcards.row)
    teachers = planning.teachers(config, wildcards.table, wildcards.row)
    files = [f"{RESULTS}/teachers/{data}/{name}.safetensors" for name in teachers]
    if section is not None:
        folder = f"{RESULTS}/features/{data}/{planning.section_name(section)}"
        files += [f"{folder}/weights.safetensors", f"{folder}/reference.safetensors"]
    return files


def teacher_of(wildcards):
    """The teacher section behind its file name, as JSON."""
    sections = [planning.teachers(config, *row) for row in trained_rows()]
    found = {name: section for row in sections for name, section in row.items()}
    return json.dumps(found[wildcards.teacher], sort_keys=True)


def extractor_of(wildcards):
    """The extractor section behind its file name, as JSON."""
    sections = [planning.extractor(config, *row) for row in trained_rows()]
    found = {planning.section_name(section): section for section in sections if section}
    return json.dumps(found[wildcards.extractor], sort_keys=True)


def metrics_of(tables):
    """metrics.json of every run behind the tables, each once."""
    folders = [
        folder for table in tables for folder in planning.run_folders(config, table)
    ]
    return [
        f"{RESULTS}/runs/{folder}/metrics.json" for folder in dict.fromkeys(folders)
    ]


def rows_of(wildcards):
    """A table's rows as JSON: where each was trained, whom it is compared with, what is remarked, what was measured."""
    rows = {}
    for row, settings in config["tables"][wildcards.table]["rows"].items():
        table, trained = planning.trained(config, wildcards.table, row)
        seeds = planning.seeds(config, table, trained)
        folders = [f"{table}/{trained}/seed{seed}" for seed in seeds]
        own = {} if isinstance(settings, str) else settings  # text: another table's run
        rows[row] = {
            "run": f"{table}/{trained}",
            "paper_row": own.get("paper_row", row),
            "against": own.get("against"),
            "remark": own.get(config["scale"], {}).get("remark", own.get("remark")),
            "metrics": [f"{RESULTS}/runs/{folder}/metrics.json" for folder in folders],
        }
    return json.dumps(rows)


def code(step):
    """Input function: the source files behind a step, so that an edit reruns what it can affect and nothing else."""

    def files(wildcards):
        run = run_of(wildcards) if "row" in wildcards.keys() else None
        return tracked(planning.code(step, run))

    return files


def code_of_source(step):
    """Input function: the source files behind a step and the data source that its wildcard names."""
    return lambda wildcards: tracked(
        planning.code(step, data=json.loads(section_of(wildcards)))
    )


def tracked(files):
    paths = [os.path.relpath(file) for file in files]
    # The same files either way: leaving them out would itself count as a change of the inputs.
    return paths if config["track_code"] else [ancient(path) for path in paths]


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


# Jobs of an earlier, lost Snakemake go on under SLURM; a second trainer beside one would write the same files.
onstart:
    or_stop(cluster.refuse_second_start, os.getcwd())

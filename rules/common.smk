import functools
import os
import shlex
import signal
import sys
from pathlib import Path

from diffusionblocks.base import slurm
from diffusionblocks.base.files import UserError, in_words, user_path
from diffusionblocks.plan import bill, start, watch
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.progress import Progress
from diffusionblocks.plan.stale import stale, told


def or_stop(function, *arguments):
    """Call a function of the package; its UserError, or an OSError, becomes Snakemake's one-line refusal."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    except OSError as error:
        raise WorkflowError(in_words(error)) from None


or_stop(start.right_place, workflow.basedir, os.getcwd())


configfile: "config.yaml"


or_stop(start.keep_keys, workflow.configfiles)
or_stop(start.keep_profile, sys.argv)
or_stop(start.keep_scale, config, sys.argv)
or_stop(watch.refuse_unlock, sys.argv)
PLAN = or_stop(Plan.of, config)
RESULTS = PLAN.results
RUN = f"{RESULTS}/runs/{{table}}/{{row}}/seed{{seed}}"
DATA_DIR = or_stop(user_path, "config: data_dir", PLAN.config["data_dir"])

# Jobs find the Python that runs Snakemake, whether or not its environment is activated; conda brings its own.
SAME_PYTHON = not workflow.deployment_settings.deployment_method
if SAME_PYTHON:
    # This replaces Snakemake's own prefix, whose first half has a step fail that is piped to `tee`.
    shell.prefix(
        f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    )


@functools.cache
def look_at_disk():
    """Once, before Snakemake looks at any file: clear up after one that was killed, wait for its jobs that go on, and
    have what was made otherwise made again.
    """
    if not workflow.is_main_process or workflow.executor_plugin is None:
        return
    if not workflow.dryrun:
        or_stop(watch.unlock_abandoned)
    if not (workflow.dryrun or workflow.touch):
        watch.wait_for_jobs(os.getcwd())
    if found := stale(PLAN):
        logger.warning(told(found))
        workflow.dag.forcefiles.update(found)


def code(step):
    """Input function: the source files behind a step, so that an edit reruns what it can affect and nothing else."""

    def files(wildcards):
        look_at_disk()
        paths = [os.path.relpath(file) for file in PLAN.code(step, wildcards)]
        # The same files either way: leaving them out would itself count as a change of the inputs.
        return paths if PLAN.config["track_code"] else [ancient(path) for path in paths]

    return files


def data_of(wildcards):
    return PLAN.row(wildcards).data_file


def asked_of_slurm(wildcards):
    """What a training asks SLURM for, as an option of the verb `doctor`; nothing where it runs here."""
    if workflow.local_exec:
        return ""
    resources = workflow.get_rule("train").resources
    found = {name: resources[name].raw for name in slurm.ASKED if name in resources}
    return " ".join(
        [
            "--asked",
            *(f"{name}={shlex.quote(str(value))}" for name, value in found.items()),
        ]
    )


def estimate_with(wildcards):
    """Options of the verb `estimate`: what config.yaml says, and the time limits that a profile has for trainings."""
    said, train = dict(PLAN.config.get("estimate") or {}), workflow.get_rule("train")
    if not workflow.local_exec and "runtime" in train.resources:
        limits = {}
        for row in (row for row in PLAN.rows.values() if not row.counted):
            given = {"table": row.table, "row": row.name, "seed": "0"}
            given = type(wildcards)(fromdict=given | {"part": row.parts[0]})
            asked = train.expand_resources(given, [], 1)
            limits[row.table, row.name] = asked["runtime"]
        said["runtime"] = bill.by_table(limits)
    return " ".join(
        f"--{name} {value if name == 'runtime' else shlex.quote(str(value))}"
        for name, value in said.items()
    )


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


def refuse_shares():
    """Look at the number of processes of every training that is to be done, and not hours later at its turn."""
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == "train":
            job.params


GUARD, PROGRESS = watch.Guard(RESULTS), Progress(workflow, PLAN.rows)
if workflow.is_main_process:
    PROGRESS.listen(logger)
if workflow.remote_exec:
    # It would end the Snakemake around a trainer, and SLURM then the trainer, which has understood and is saving.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


onstart:
    or_stop(start.refuse_without_slurm, workflow.executor_plugin.name)
    refuse_shares()
    or_stop(GUARD.start, not workflow.local_exec, SAME_PYTHON)
    watch.lift_default_limit(workflow.scheduler)
    or_stop(PLAN.write)
    PROGRESS.start(workflow.dag.needrun_jobs())


onsuccess:
    GUARD.end()


onerror:
    GUARD.end(failed=log)

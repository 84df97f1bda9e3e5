"""The verbs that rules call; each also runs by hand, reads its settings from files, and imports only what it needs."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from diffusionblocks.base.components import PACKAGE, PLACES
from diffusionblocks.base.files import UserError, in_words, read_json, user_path
from diffusionblocks.base.gpu import expected
from diffusionblocks.base.rates import DEVICES, RUNTIME, SHARE

DATA_DIR = "results/downloads"
# Keys that tell the files of settings from each other; all are written by planning.
RUN_KEYS = ("table", "row", "seed", "data", "model", "method", "train")
TABLE_KEYS = ("table", "title", "paper", "rows")


def settings(path: str | Path, *keys: str) -> dict:
    """A JSON file of settings. Raises UserError for one that is absent, or another than the verb asks for."""
    found = read_json(path)
    if absent := [key for key in keys if not isinstance(found, dict) or key not in found]:
        raise UserError(f"{path}: is another file than the one asked for here: it has no {', '.join(absent)}")
    return found


def code_behind(step: str, *given: dict, **more: dict) -> str:
    """Hash of a step's source files. Taken before torch is imported and the network built: what is read here runs."""
    from diffusionblocks.plan.code import digest, run_files

    return digest(run_files(step, *given, **more))


def plan(args):
    """Write one file of settings out of the plan that Snakemake has made."""
    from diffusionblocks.plan.plan import plan

    plan(args.plan, args.name, args.output)


def explain(args):
    """Print every resolved value of a row, with the file and line that it comes from, and the rows that are like it."""
    from diffusionblocks.plan.explain import explain

    print(explain(args.row, args.scale, args.configfile))


def try_(args):
    """Try a component with a few samples, before anything is trained with it."""
    from diffusionblocks.evaluation.trial import trial

    print(trial(args.name, args.kind, args.data_dir))


def estimate(args):
    """Say what training costs before anything is trained: hours, memory, jobs, disk and downloads of each row."""
    from diffusionblocks.plan import bill
    from diffusionblocks.plan.configuration import ROOT, read_all
    from diffusionblocks.plan.estimate import Asked, asked

    said = {}
    if args.plan:
        wanted, scale = Asked(read_json(args.plan), args.plan.parent, args.tables), args.plan.parent.name
    else:
        config, _ = read_all([ROOT / "config.yaml", *args.configfile])
        config |= {"scale": args.scale} if args.scale else {}
        wanted, scale, said = asked(config, args.tables), config["scale"], config.get("estimate") or {}
    told = {key: said.get(key) if getattr(args, key) is None else getattr(args, key) for key in ("device", "share")}
    rate = bill.Rate.of(scale, **told, runtime=args.runtime or [str(said[key]) for key in said if key == "runtime"])

    from diffusionblocks.evaluation.estimate import estimate

    counted, failed = estimate(wanted.rows, wanted.results / "estimate.json")
    found = bill.bill(wanted, counted, rate)
    print(bill.told(wanted, found, wanted.unknown | failed, rate, args.data_dir))
    if args.output:
        bill.write(args.output, found, rate)


def doctor(args):
    """Check what a job needs of this machine or, with --asked, of a node of the cluster."""
    from diffusionblocks.training.doctor import doctor, here

    if args.seen:
        print("\n".join(here(args.results, args.seen)))
    else:
        asked = None if args.asked is None else dict(item.partition("=")[::2] for item in args.asked)
        doctor(args.results, asked, args.output)


def autoencoder(args):
    """Fetch the autoencoder that makes latents, and write which it is."""
    from diffusionblocks.data.autoencoder import autoencoder

    autoencoder(args.data_dir, args.output)


def encode(args):
    """Encode one shard of a data set's training images as latents."""
    from diffusionblocks.data.encode import encode

    encode(settings(args.section, "name"), args.shard, args.data_dir, args.output)


def prepare(args):
    """Read a data set once and write it in the form that training maps into memory."""
    from diffusionblocks.data.prepare import prepare

    prepare(settings(args.section, "name"), args.data_dir, args.output, args.shards)


def train(args):
    """Train one part of a run, or go on with it."""
    from diffusionblocks.plan.check import check_run

    run = settings(args.run, *RUN_KEYS)
    check_run(run)
    code = code_behind("train", run)

    from diffusionblocks.training.train import train

    places = args.output, args.data, args.state
    train(args.run, args.part, *places, args.checkpoint_seconds, code, args.code == "any", args.processes, args.start)


def assemble(args):
    """Join the parts of a run into one model."""
    from diffusionblocks.plan.row import parts_of
    from diffusionblocks.training.assemble import assemble

    names = parts_of(settings(args.run, *RUN_KEYS)["method"])
    assemble(args.run, args.parts, args.output, names, args.state, any_code=args.code == "any")


def sample(args):
    """Generate a shard of a trained model's images or texts."""
    run, sampling = settings(args.run, *RUN_KEYS), settings(args.sampling, "num_samples", "sets", "shards")
    code = code_behind("sample", run, sampling)

    from diffusionblocks.sampling.sample import sample

    sample(args.run, args.model, args.data, sampling, args.shard, args.output, args.data_dir, code)


def extractor(args):
    """Obtain the weights of the network whose features FID compares."""
    from diffusionblocks.scorers.extractor import extractor

    extractor(settings(args.section, "name"), args.data, args.data_dir, args.output)


def reference(args):
    """Compute the statistics of the real images' features."""
    from diffusionblocks.scorers.reference import reference

    reference(args.weights, args.data, args.data_dir, args.output)


def teacher(args):
    """Obtain the weights of a network that scores texts."""
    from diffusionblocks.scorers.teacher import teacher

    teacher(settings(args.section, "name"), args.data, args.data_dir, args.output)


def evaluate(args):
    """Measure a trained model."""
    run, evaluation = settings(args.run, *RUN_KEYS), settings(args.evaluation, "metrics", "teachers", "extractor")
    code = code_behind("evaluate", run, evaluation=evaluation)

    from diffusionblocks.evaluation.evaluate import evaluate

    files = args.logs, args.output, args.samples, args.scorers
    evaluate(args.run, args.model, args.data, evaluation["metrics"], *files, code, evaluation["extractor"])


def timing(args):
    """Time an update of rows that are compared with each other, in turn."""
    from diffusionblocks.plan.code import digest, timing_files

    asked = settings(args.asked, "updates", "updates_on_cpu", "samples_on_cpu", "compared", "timed")
    code = digest(timing_files(asked))

    from diffusionblocks.evaluation.timing import timing

    timing(asked, args.output, code)


def count(args):
    """Count what an update of a row holds and computes; nothing is trained."""
    run, evaluation = settings(args.run, *RUN_KEYS), settings(args.evaluation, "metrics", "parts", "shape")
    code = code_behind("count", run, evaluation=evaluation)

    from diffusionblocks.evaluation.count import count

    count(args.run, evaluation, args.output, args.compared, args.timing, code)


def table(args):
    """Set the measured numbers of a table beside the paper's."""
    from diffusionblocks.page.table import table

    settings(args.plan, *TABLE_KEYS)
    table(args.plan, args.output)


def show(args):
    """Print what a run comes to, or tables."""
    from diffusionblocks.page.summary import summary

    for folder in filter(Path.is_dir, args.results):
        print(summary(folder))
    if tables := [path for path in args.results if not path.is_dir()]:
        from diffusionblocks.page.table import show

        show(tables)


def status(args):
    """Say how far each training of a workflow is, while it runs and afterwards."""
    from diffusionblocks.plan.status import status

    print(status(args.results))


def figures(args):
    """Draw the figures of a table."""
    from diffusionblocks.page.figures import figures

    settings(args.plan, *TABLE_KEYS)
    figures(args.plan, args.output)


def page(args):
    """Write the page from the tables and all that was measured on the way."""
    from diffusionblocks.page.page import page

    for path in args.plans:
        settings(path, *TABLE_KEYS)
    page(args.plans, args.tables, args.figures, args.template, args.output, args.estimate)


def so_far(args):
    """Write the page of those tables of a run that are finished, and say what the others lack."""
    from diffusionblocks.page.so_far import so_far

    print(so_far(args.results))


def verdicts(args):
    """Write what became of the claims of some tables."""
    from diffusionblocks.page.claims import verdicts

    for path in args.plans:
        settings(path, *TABLE_KEYS)
    verdicts(args.plans, args.tables, args.output)


def claims(args):
    """Print what became of the paper's claims and of ours."""
    from diffusionblocks.page.summary import told

    print(told(args.claims))


def exports(args):
    """Write a run's tables, figures and claims as files for papers, and as an RO-Crate."""
    from diffusionblocks.page.exports import exports

    for path in args.plans:
        settings(path, *TABLE_KEYS)
    exports(args.plans, args.tables, args.copied, args.settings, args.output)


def ship(args):
    """Put the tables, the page and the metrics of a finished run into a folder that is small enough to be committed."""
    from diffusionblocks.page.ship import ship

    print(ship(args.results, args.folder, args.any_commit))


def verify(args):
    """Compare the numbers of a run with those that ship; the exit code is 1 where some are outside or missing."""
    from diffusionblocks.page.verify import verify

    verify(args.results, args.folder or PACKAGE.parent / "docs/results" / args.results.resolve().name)


def compare(args):
    """Say how a run differs from another, of whichever scale: numbers beyond their spread, rows, settings."""
    if not args.folder:
        raise UserError(
            "config: with: names no folder to compare with. Name that of another run, or of one that ships: snakemake "
            "compare --config with=docs/results/laptop"
        )

    from diffusionblocks.page.compare import side_by_side

    print(side_by_side(args.results, args.folder, args.output))


def written(option: str) -> dict:
    """Of an option that says where something is written: the type of its value, with ~ and $VARIABLES put in."""
    return {"type": lambda text: Path(user_path(option, text))}


RUN, SECTION = ("run", "run.json of a row and a seed"), ("section", "its section of the configuration, a JSON file")
MODEL, DATA = ("model", "assembled model"), ("--data", {"required": True, "help": "prepared data set"})
DIRECTORY = ("--data-dir", written("--data-dir") | {"default": DATA_DIR, "help": "folder of archives and downloads"})
SHARD = ("shard", {"type": int, "help": "which shard, from 0"})


def files(name: str, help: str, nargs: str = "+") -> tuple:
    """An option that takes files."""
    rest = {"default": ()} if nargs == "*" else {"required": True}
    return name, {"nargs": nargs, "type": Path, "help": help, **rest}


# Of each verb that writes a file: what it is given, (name, help) or (name, keywords of add_argument).
VERBS = {
    plan: [("plan", "plan.json"), ("name", "which file of it, such as tables/table1")],
    autoencoder: [DIRECTORY],
    encode: [SECTION, SHARD, DIRECTORY],
    prepare: [SECTION, DIRECTORY, files("--shards", "encoded shards, in order, of a data set that has them", "*")],
    train: [
        *(RUN, ("part", "which part: all, block0, block1, ..."), DATA),
        (
            "--state",
            written("--state")
            | {"required": True, "help": "folder of this part's checkpoint, kept until the parts are joined"},
        ),
        ("--checkpoint-seconds", {"type": float, "default": 300, "help": "time between two checkpoints"}),
        (
            "--code",
            {"choices": ["same", "any"], "default": "same", "help": "that a checkpoint may be of"},
        ),
        ("--start", {"nargs": "?", "type": Path, "help": "model of the run that this one starts from, if it does"}),
        ("--processes", {"type": int, "default": 1, "help": "that share out every update, each on a GPU of its own"}),
    ],
    assemble: [
        *(RUN, ("parts", {"nargs": "+", "help": "weights of all parts"})),
        ("--state", {"type": Path, "help": "folder of the parts' checkpoints, which are deleted then"}),
        ("--code", {"choices": ["same", "any"], "default": "same", "help": "that made the parts"}),
    ],
    sample: [RUN, MODEL, ("sampling", "what is to be generated, a JSON file"), SHARD, DATA, DIRECTORY],
    extractor: [SECTION, DATA, DIRECTORY],
    reference: [("weights", "the extractor's weights"), DATA, DIRECTORY],
    teacher: [SECTION, DATA, DIRECTORY],
    evaluate: [
        *(RUN, MODEL, ("evaluation", "evaluation.json of the row"), DATA),
        files("--logs", "training logs of all parts"),
        files("--samples", "all shards of all generated samples", "*"),
        files("--scorers", "of images each extractor's weights and reference, of texts the teachers' weights", "*"),
    ],
    timing: [("asked", "which rows are timed, and how, a JSON file")],
    count: [
        *(RUN, ("evaluation", "evaluation.json of the row")),
        files("--compared", "metrics.json of the counted row that it is compared with", "*"),
        files("--timing", "timing.json, of a row that is timed", "*"),
    ],
    table: [("plan", "<table>.json: its rows, and what the paper prints")],
    figures: [("plan", "<table>.json")],
    page: [
        ("plans", {"nargs": "+", "type": Path, "help": "<table>.json of the tables"}),
        files("--tables", "csv files of the tables, in the same order"),
        files("--figures", "their drawn figures, in the same order"),
        ("--template", {"type": Path, "required": True, "help": "page template; its style sheet lies beside it"}),
        files("--estimate", "what `estimate` has counted before, to set beside what was measured", "*"),
    ],
    verdicts: [
        ("plans", {"nargs": "+", "type": Path, "help": "<table>.json of the tables"}),
        files("--tables", "csv files of the tables, in the same order"),
    ],
    exports: [
        ("plans", {"nargs": "+", "type": Path, "help": "<table>.json of the tables"}),
        files("--tables", "csv files of the tables, in the same order"),
        ("--settings", {"type": Path, "required": True, "help": "plan.json, with the settings of all rows"}),
        files("--copied", "the page, and whatever else belongs to the run", "*"),
    ],
}
# Of these, on a GPU where there is one.
COMPUTE = (encode, train, sample, extractor, reference, teacher, evaluate, timing)
# Verbs that print.
PRINT = {
    show: [("results", {"nargs": "+", "type": Path, "help": "results/<scale>, or csv files of tables"})],
    status: [("results", {"type": Path, "nargs": "?", "help": "results/<scale>, by default of the last workflow"})],
    claims: [("claims", "claims.json, of a run or of a table")],
    try_: [
        ("name", "vit, or a component of your own that can be imported from here: my_nets.mixer"),
        ("--kind", {"choices": sorted(PLACES), "help": "what it is, where its source does not tell"}),
        DIRECTORY,
    ],
    doctor: [
        ("results", "folder of the results"),
        ("--asked", {"nargs": "*", "metavar": "NAME=VALUE", "help": "what a training asks SLURM for, as in a profile"}),
        ("--seen", {"help": "a file that the machine that asks has written"}),
        ("--output", {"type": Path, "help": "file to write, if all is well"}),
    ],
    estimate: [
        ("tables", {"nargs": "*", "help": "of these tables alone; by default of all"}),
        ("--scale", {"help": "demo, laptop, gpu or paper; by default the configured one"}),
        ("--configfile", {"nargs": "+", "default": [], "help": "your own on top, as for snakemake"}),
        ("--plan", {"type": Path, "help": "plan.json, in place of these two"}),
        ("--device", {"help": f"whose hours: {', '.join(DEVICES)}"}),
        ("--share", {"type": float, "help": f"of its rate that is reached, by default {SHARE}"}),
        (
            "--runtime",
            {
                "nargs": "+",
                "default": [],
                "metavar": "[TABLE=]MINUTES",
                "help": f"time limit of trainings, by default {RUNTIME}",
            },
        ),
        DIRECTORY,
        ("--output", written("--output") | {"help": "file to write besides: all columns, as .csv or .json"}),
    ],
    so_far: [("results", {"type": Path, "help": "folder of the run, results/<scale>"})],
    ship: [
        ("results", {"type": Path, "help": "folder of the run, results/<scale>"}),
        ("folder", written("folder") | {"help": "docs/results/<scale>, which is replaced as a whole"}),
        ("--any-commit", {"action": "store_true", "help": "also numbers of several commits, or of changed sources"}),
    ],
    verify: [
        ("results", {"type": Path, "help": "folder of the run, results/<scale>"}),
        ("folder", {"type": Path, "nargs": "?", "help": "what `ship` has written, by default docs/results/<scale>"}),
    ],
    compare: [
        ("results", {"type": Path, "help": "folder of the run, results/<scale>"}),
        ("folder", written("folder") | {"nargs": "?", "help": "of another run, or what `ship` has written of one"}),
        ("--output", written("--output") | {"help": "file to write besides: all numbers, as .csv"}),
    ],
    explain: [
        ("row", "<table>/<row>"),
        ("--scale", {"help": "demo, laptop, gpu or paper; by default the configured one"}),
        ("--configfile", {"nargs": "+", "default": [], "help": "your own on top, as for snakemake"}),
    ],
}


def parser() -> argparse.ArgumentParser:
    """The command line of all verbs."""
    main = argparse.ArgumentParser(prog="python -m diffusionblocks", description=__doc__)
    verbs = main.add_subparsers(required=True, metavar="verb")
    for function, arguments in (VERBS | PRINT).items():
        sub = _add(verbs, function, arguments)
        if function in VERBS:
            sub.add_argument("-o", "--output", **written("-o"), required=True, help="file to write")
    return main


def _add(verbs, function: Callable, arguments: list) -> argparse.ArgumentParser:
    sub = verbs.add_parser(function.__name__.rstrip("_"), help=function.__doc__, description=function.__doc__)
    sub.set_defaults(function=function)
    for name, about in arguments:
        sub.add_argument(name, **({"help": about} if isinstance(about, str) else about))
    return sub


def main() -> None:
    """Run the verb that the command line names; exit with a line for what a user can mend."""
    making = "diffusionblocks"
    try:
        args = parser().parse_args()
        making = f"making {args.output}" if args.function in VERBS else args.function.__name__.rstrip("_")
        if args.function in VERBS:  # the first line of a log, so that none is empty where the job is killed
            where = f" {expected()}" if args.function in COMPUTE else ""
            print(f"{making}{where}: process {os.getpid()} on {platform.node()}, {time.strftime('%F %T')}", flush=True)
        args.function(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever reads has seen enough (`explain ... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno is None:  # of a library, about no file
            raise
        print(f"error: {in_words(error, None if error.filename else making)}", file=sys.stderr)
        sys.exit(UserError.exit_code)

"""The verbs that rules call; each also runs by hand, and imports only what it needs."""

import argparse
import json
import sys
from pathlib import Path

from diffusionblocks.base.components import PLACES
from diffusionblocks.base.files import NO_SPACE, UserError, read_json, write_json

DATA_DIR = "results/downloads"


def plan(args):
    """Write a resolved run to run.json."""
    write_json(args.output, json.loads(args.run))


def autoencoder(args):
    """Fetch the autoencoder that makes latents, and write which it is."""
    from diffusionblocks.data.autoencoder import autoencoder

    autoencoder(args.data_dir, args.output)


def encode(args):
    """Encode one shard of a data set's training images as latents."""
    from diffusionblocks.data.encode import encode

    encode(json.loads(args.section), args.shard, args.data_dir, args.output)


def prepare(args):
    """Read a data set once and write it in the form that training maps into memory."""
    from diffusionblocks.data.prepare import prepare

    prepare(json.loads(args.section), args.data_dir, args.output, args.shards)


def train(args):
    """Train one part of a run, or go on with it."""
    from diffusionblocks.plan.check import check_run
    from diffusionblocks.training.train import train

    check_run(read_json(args.run))
    train(args.run, args.part, args.output, args.data, args.state, args.checkpoint_seconds)


def assemble(args):
    """Join the parts of a run into one model."""
    from diffusionblocks.training.assemble import assemble

    assemble(args.run, args.parts, args.output)


def sample(args):
    """Generate a shard of a trained model's images or texts."""
    from diffusionblocks.sampling.sample import sample

    sample(args.run, args.model, args.data, json.loads(args.sampling), args.shard, args.output, args.data_dir)


def extractor(args):
    """Obtain the weights of the network whose features FID compares."""
    from diffusionblocks.scorers.extractor import extractor

    extractor(json.loads(args.section), args.data, args.data_dir, args.output)


def reference(args):
    """Compute the statistics of the real images' features."""
    from diffusionblocks.scorers.reference import reference

    reference(args.weights, args.data, args.data_dir, args.output)


def teacher(args):
    """Obtain the weights of a network that scores texts."""
    from diffusionblocks.scorers.teacher import teacher

    teacher(json.loads(args.section), args.data, args.data_dir, args.output)


def evaluate(args):
    """Measure a trained model."""
    from diffusionblocks.evaluation.evaluate import evaluate

    metrics = json.loads(args.metrics)
    evaluate(args.run, args.model, args.data, metrics, args.logs, args.output, args.samples, args.scorers)


def try_(args):
    """Meet a component with a few samples, before anything is trained with it."""
    from diffusionblocks.evaluation.trial import trial

    print(trial(args.name, args.kind, args.data_dir))


def table(args):
    """Set the measured numbers of a table beside the paper's."""
    from diffusionblocks.page.table import table

    table(args.name, json.loads(args.rows), args.paper, args.output)


def show(args):
    """Print tables."""
    from diffusionblocks.page.table import show

    show(args.tables)


def report(args):
    """Write the page from the tables and all that was measured on the way."""
    from diffusionblocks.page.page import report

    report(args.tables, args.metrics, args.template, args.claims, args.output)


def parser():
    main = argparse.ArgumentParser(prog="python -m diffusionblocks", description=__doc__)
    verbs = main.add_subparsers(required=True, metavar="verb")

    def verb(function, *positional):
        sub = verbs.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        for name, help in positional:
            sub.add_argument(name, help=help)
        sub.add_argument("-o", "--output", type=Path, required=True, help="file to write")
        return sub

    def with_data(sub):
        sub.add_argument("--data", required=True, help="prepared data set")
        sub.add_argument("--data-dir", default=DATA_DIR, help="folder of archives")

    verb(plan, ("run", "the resolved run as JSON"))
    sub = verb(autoencoder)
    sub.add_argument("--data-dir", default=DATA_DIR, help="folder of downloads")
    sub = verb(encode, ("section", "a run's data section as JSON"))
    sub.add_argument("shard", type=int, help="number of the shard, from 0")
    sub.add_argument("--data-dir", default=DATA_DIR, help="folder of the images, and of downloads")
    sub = verb(prepare, ("section", "a run's data section as JSON"))
    sub.add_argument("--data-dir", default=DATA_DIR, help="folder of archives that are already there")
    sub.add_argument("--shards", nargs="*", default=[], help="encoded shards, in order, of a data set that has them")
    sub = verb(train, ("run", "run.json"), ("part", "which part: all, block0, block1, ..."))
    sub.add_argument("--data", required=True, help="prepared data set")
    sub.add_argument("--state", required=True, help="folder of this part's checkpoint, kept until the part is trained")
    sub.add_argument("--checkpoint-seconds", type=float, default=300, help="time between two checkpoints")
    sub = verb(assemble, ("run", "run.json"))
    sub.add_argument("parts", nargs="+", help="weights of all parts")
    sub = verb(sample, ("run", "run.json"), ("model", "assembled model"), ("sampling", "sampling section as JSON"))
    sub.add_argument("shard", type=int, help="which shard of the samples: 0, 1, ...")
    with_data(sub)
    sub = verb(extractor, ("section", "an extractor section as JSON"))
    with_data(sub)
    sub = verb(reference, ("weights", "the extractor's weights"))
    with_data(sub)
    sub = verb(teacher, ("section", "a teacher section as JSON"))
    with_data(sub)
    sub = verb(evaluate, ("run", "run.json"), ("model", "assembled model"), ("metrics", "metrics section as JSON"))
    sub.add_argument("--data", required=True, help="prepared data set")
    sub.add_argument("--logs", nargs="+", type=Path, required=True, help="training logs of all parts")
    sub.add_argument("--samples", nargs="*", type=Path, default=(), help="all shards of all generated samples")
    sub.add_argument(
        "--scorers",
        nargs="*",
        type=Path,
        default=(),
        help="of images the extractor's weights and the reference statistics, of texts the weights of all teachers",
    )
    sub = verb(table, ("name", "table of the paper"), ("rows", "its rows and their metrics files as JSON"))
    sub.add_argument("--paper", required=True, help="the paper's numbers")
    sub = verbs.add_parser("show", help=show.__doc__, description=show.__doc__)
    sub.set_defaults(function=show)
    sub.add_argument("tables", nargs="+", help="csv files of the tables")
    sub = verbs.add_parser("try", help=try_.__doc__, description=try_.__doc__)
    sub.set_defaults(function=try_)
    sub.add_argument("name", help="vit, or a component of your own that can be imported from here: my_nets.mixer")
    sub.add_argument("--kind", choices=sorted(PLACES), help="what it is, where its source does not tell")
    sub.add_argument("--data-dir", default=DATA_DIR, help="folder of archives, for a data source")
    sub = verb(report)
    sub.add_argument("--tables", nargs="+", type=Path, required=True, help="csv files of the tables")
    sub.add_argument("--metrics", nargs="+", type=Path, required=True, help="metrics.json of all runs in them")
    sub.add_argument("--template", type=Path, required=True, help="page template; its style sheet lies beside it")
    sub.add_argument("--claims", required=True, help="the paper's claims")
    return main


def main():
    args = parser().parse_args()
    try:
        args.function(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        print(f"error: the disk is full ({error}). Free some space and start the same command again.", file=sys.stderr)
        sys.exit(UserError.exit_code)


if __name__ == "__main__":
    main()

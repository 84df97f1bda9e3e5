"""A finished run -> the few small files of it that ship with the repository. No torch.

A shipped folder holds every table's csv, the page, claims.json, about.json, and one archive of text from which all but
the last can be made again: `<table>.json` and metrics.json files, under the paths that the former name.
"""

import glob
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError, exists, listed, read_json, write_json
from diffusionblocks.page.claims import verdicts
from diffusionblocks.page.cost import cost
from diffusionblocks.page.differ import not_as_planned
from diffusionblocks.page.headline import ABOUT, CLAIMS, METRICS, PAGE, headline, into_readme, named
from diffusionblocks.page.page import in_bytes, page
from diffusionblocks.page.results import Results, commits, read
from diffusionblocks.page.table import table

ROOT = PACKAGE.parent
SOURCES = ("Snakefile", "config.yaml", "diffusionblocks", "report", "rules", "workflow")  # of numbers and of the page
MOST = {PAGE: 3_000_000, METRICS: 6_000_000}  # bytes that a repository should carry


def ship(results: Path, folder: Path, any_commit: bool = False) -> str:
    """Put what ships of a finished run into a folder, in place of what an earlier call has put there.

    results: results/<scale>, with all tables of the plan measured. any_commit: also numbers of several commits, or of
    none. The README's block of this folder is written anew, if it has one. Returns what was done, for the terminal.
    Raises UserError for a run that is absent, unfinished or of several commits, for sources that were changed since the
    last commit, and for a folder that holds something else; nothing is written then.
    """
    plan = _plan(results)
    plans = _finished(results, plan)
    if listed(folder) and not exists(folder / ABOUT):
        raise UserError(f"{folder}: holds files that `ship` has not put there. Move them away, or name another folder.")
    commit, readme = _commit(), ROOT / "README.md"
    with whole(folder) as new:
        tables, frames = [Results(path) for path in plans.values()], []
        for name, path in plans.items():
            made, there = new / f"{name}.csv", path.with_suffix(".csv")
            table(path, made)
            if made.read_bytes() != there.read_bytes():
                raise UserError(f"{there}: is not what its metrics say. Make it anew: snakemake all")
            frames.append(read(made))
        measured_by = commits(frames)
        if not any_commit:
            _refuse_commits(results, measured_by, frames)
        figures = [path.with_name(f"{name}-figures.json") for name, path in plans.items()]
        csvs = [new / f"{name}.csv" for name in plans]
        estimate = [path for path in (results / "estimate.json",) if exists(path)]
        page(list(plans.values()), csvs, figures, ROOT / "report/page.html.jinja", new / PAGE, estimate)
        verdicts(list(plans.values()), csvs, new / CLAIMS)
        _pack([*plans.values(), *estimate, *_metrics(tables)], new / METRICS)
        about = {"date": time.strftime("%Y-%m-%d"), "scale": tables[0].plan["scale"], "tables": list(plans)}
        logs = _only_started_from(results, plan, tables)
        write_json(new / ABOUT, {**about, "commits": measured_by, "page_commit": commit, **cost(tables, logs)})
        name = named(folder, readme)
        block = headline(new, name) if name else None
        sizes = {name: (new / name).stat().st_size for name in MOST}
    told = [f"{folder}: {len(plans)} tables", *map(_told, sizes, sizes.values())]
    if block:
        into_readme(readme, name, block)
        told.append(f"{readme}: shows its headline")
    return "\n".join(told)


def _told(name, size):
    more = f", more than the {in_bytes(MOST[name])} that a repository should carry" if size > MOST[name] else ""
    return f"{name}: {in_bytes(size)}{more}"


def planned(results: Path) -> dict[str, dict]:
    """{table: its `<table>.json`} of all tables that a run is to have, in order. Raises UserError for no run."""
    return _tables(results, _plan(results))


def _plan(results):
    """All that planning wrote of a run: {name of a file, without .json: its content}."""
    if not exists(results / "plan.json"):
        raise UserError(
            f"{results}: no such run: it has no plan.json. Make one (snakemake all), or name another folder."
        )
    return read_json(results / "plan.json")


def _tables(results, plan):
    found = {name[7:]: about for name, about in plan.items() if name[:7] == "tables/"} if isinstance(plan, dict) else {}
    if not found:
        raise UserError(f"{results}/plan.json: names no table. Start snakemake again: it writes the plan anew.")
    return found


def _finished(results, plan):
    """{table: path of its `<table>.json`} of a run in which everything planned is there, as planned."""
    absent, found = {}, {}
    for name, about in _tables(results, plan).items():
        path = found[name] = results / f"tables/{name}.json"
        made = [results / f"tables/{name}{end}" for end in (".json", ".csv", "-figures.json")]
        metrics = [Path(file) for row in about["rows"].values() for file in row["metrics"]]
        for file in metrics:
            if not file.resolve().is_relative_to(results.resolve()):
                raise UserError(f"{path}: {file} is not in {results} from here. Start this where the run was made.")
        lacking = [str(file) for file in (*made, *metrics) if not exists(file)]
        if not lacking and read_json(path) != about:
            lacking = [f"{path} of these settings"]
        if not lacking:
            lacking = [
                f"{file} of these settings: {why}" for file in metrics if (why := _otherwise(results, file, plan))
            ]
        if lacking:
            absent[name] = lacking[0]
    if absent:
        first, file = next(iter(absent.items()))
        raise UserError(
            f"{results}: unfinished, {len(absent)} of {len(found)} tables are missing: {', '.join(absent)} ({first} "
            f"lacks {file}). Finish it: snakemake all"
        )
    return found


def _otherwise(results, file, plan):
    """Why a metrics.json is not of the settings that are planned; None if it is."""
    folder = file.resolve().relative_to(results.resolve()).parent.as_posix()  # runs/<table>/<row>/seed<n>
    names = f"{folder}/run", f"{Path(folder).parent}/evaluation"
    if absent := [name for name in names if name not in plan]:
        return f"plan.json has no {absent[0]}"
    written = results / f"{names[1]}.json"
    if exists(written) and read_json(written) != plan[names[1]]:
        return f"{written} is of others"
    return not_as_planned(read_json(file), *(plan[name] for name in names))


def _git(*arguments):
    return subprocess.run(
        ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _commit():
    """The commit of the sources that make the page. Raises UserError for changed ones; `unknown` without git."""
    try:
        commit, changed = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--", *SOURCES)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    if changed:
        files = ", ".join(line[2:].strip() for line in changed.splitlines()[:3])
        raise UserError(f"{ROOT}: sources are not as commit {commit} has them, such as {files}. Commit them first.")
    return commit


def _refuse_commits(results, measured_by, frames):
    """Raise UserError unless all numbers are of one commit, saying which are of which."""
    nowhere = [commit for commit in measured_by if commit == "unknown" or commit.endswith("-dirty")]
    if len(measured_by) == 1 and not nowhere:
        return
    rows = pd.concat(frames).dropna(subset="commit")
    told = [
        f"{commit} ({rows[rows['commit'].str.contains(commit, regex=False)]['run'].iloc[0]})" for commit in measured_by
    ]
    why = "has numbers of several commits" if len(measured_by) > 1 else "has numbers of no commit"
    raise UserError(f"{results}: {why}: {', '.join(told)}. Make them anew (snakemake all), or add --any-commit.")


def _metrics(tables):
    """Paths of all metrics.json, each once."""
    return sorted({file for results in tables for row in results.plan["rows"].values() for file in row["metrics"]})


def _pack(files, path):
    """Write files of text into one compressed archive; the same files give the same bytes."""
    with tarfile.open(path, "w:xz", preset=9, format=tarfile.GNU_FORMAT) as archive:
        for file in files:
            content = Path(file).read_bytes()
            entry = tarfile.TarInfo(Path(os.path.relpath(file)).as_posix())  # without times and owners
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _only_started_from(results, plan, tables):
    """Logs of all parts of the rows that others start from and that no table shows, so that nothing measures them."""
    measured = {Path(file).resolve().parent for file in _metrics(tables)}
    folders = [(results / name).parent for name in plan if name.startswith("runs/") and name.endswith("/run")]
    return sorted(log for at in folders if at.resolve() not in measured for log in at.glob("parts/*.jsonl"))


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` at the end; whatever goes wrong before, that is as it was."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for litter in folder.parent.glob(f".{glob.escape(folder.name)}.????????"):  # of an attempt that was killed
        if exists(litter / "old") and not exists(folder):  # between its last two steps
            (litter / "old").rename(folder)
        shutil.rmtree(litter, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        new, old = Path(place, "new"), Path(place, "old")
        new.mkdir()
        yield new
        if exists(folder):
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if exists(old):
                old.rename(folder)
            raise

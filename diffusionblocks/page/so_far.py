"""The page of the tables of a run that are finished, where others are not: still running, or failed. No torch."""

import json
import os
import tempfile
from pathlib import Path

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError, exists, read_json, write_text
from diffusionblocks.page.figures import figures
from diffusionblocks.page.page import page
from diffusionblocks.page.ship import planned
from diffusionblocks.page.table import table

PAGE = "so_far.html"  # beside report.html, which is Snakemake's and of a whole run


def so_far(results: Path) -> str:
    """Write the page of the finished tables, which says of each other one what it lacks; a line for the terminal.

    results: results/<scale>, as seen from where the run was made. Raises UserError for no run, and where no table is
    finished.
    """
    plan = read_json(results / "plan.json") if exists(results / "plan.json") else {}
    finished, absent = {}, []
    for name, about in planned(results).items():
        files = [file for row in about["rows"].values() for file in row["metrics"]]
        lacking = [file for file in files if not _measured(file, results, plan)]
        if lacking:
            title = about["paper"]["source"] if about["paper"] else about["title"]
            done = len(files) - len(lacking)
            absent.append(f"{title} ({name}): {done} of {len(files)} runs are measured; next is {lacking[0]}")
        else:
            finished[name] = about
    if not finished:
        raise UserError(f"{results}: no table is finished yet. {absent[0]}. Go on with it: snakemake")
    with tempfile.TemporaryDirectory() as folder:
        plans = [Path(folder, f"{name}.json") for name in finished]
        tables, drawn = [path.with_suffix(".csv") for path in plans], []
        for path, csv, about in zip(plans, tables, finished.values(), strict=True):
            write_text(path, json.dumps(about))  # in its order, which is a table's
            table(path, csv)
            drawn.append(_drawn(path, results, about))
        page(plans, tables, drawn, PACKAGE.parent / "report/page.html.jinja", results / PAGE, absent=absent)
    unfinished = f"; unfinished: {', '.join(line.split(':')[0] for line in absent)}" if absent else ""
    return f"{results / PAGE}: {len(finished)} of {len(finished) + len(absent)} tables{unfinished}"


def _measured(file, results, plan):
    """Whether a run is measured, with the settings that are planned now."""
    settings = os.path.relpath(Path(file).with_name("run"), results)
    return exists(file) and plan.get(settings) in (None, read_json(file)["run"])


def _drawn(plan, results, about):
    """The figures of a table: those that are there already, unless something was measured after them."""
    there = results / f"tables/{about['table']}-figures.json"
    files = [file for row in about["rows"].values() for file in row["metrics"]]
    if exists(there) and all(os.stat(there).st_mtime >= os.stat(file).st_mtime for file in files):
        return there
    figures(plan, plan.with_suffix(".figures"))
    return plan.with_suffix(".figures")

"""Tables and metrics -> one self-contained page that sets every number of the paper beside ours. No torch."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from diffusionblocks.base import rates
from diffusionblocks.base.files import read_json, write_text
from diffusionblocks.page.claims import verdict, worth_of_depth
from diffusionblocks.page.cost import environments, jobs
from diffusionblocks.page.predicted import predicted
from diffusionblocks.page.results import Results, decimals, read


def page(
    plan_paths: list[Path | str],
    table_paths: list[Path | str],
    figure_paths: list[Path | str],
    template_path: Path,
    path: Path | str,
    estimate_paths: Sequence[Path | str] = (),
) -> None:
    """Write the page of some tables.

    plan_paths: the `<table>.json` that planning wrote of each; their metrics files must be there. table_paths: the csv
    of each, and figure_paths its drawn figures, in the same order. template_path: a template of jinja2, with style.css
    beside it. estimate_paths: what was counted before, or nothing. Raises UserError as `Results` and `read` do, and
    when the disk is full.
    """
    open(template_path).close()  # of one that it cannot open, jinja2 only says that it has not found it
    tables, frames = [Results(plan) for plan in plan_paths], [read(file) for file in table_paths]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "bytes": in_bytes, "duration": duration}
    drawn = [read_json(file) for file in figure_paths]
    estimate = {run: about for file in estimate_paths for run, about in read_json(file).items()}
    sections = [section(*of_table, estimate) for of_table in zip(tables, frames, drawn, strict=True)]
    text = environment.get_template(template_path.name).render(
        style=(template_path.parent / "style.css").read_text(encoding="utf-8"),
        scale=tables[0].plan["scale"],
        sections=sections,
        printed=any(results.printed for results in tables),
        claims=[claim for part in sections for claim in part["claims"]],
        stand_ins=sorted(_words(frames, "stand_in", "; ")),
        commits=sorted(_words(frames, "commit", " ")),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        environments=environments(tables),
        share=100 * rates.SHARE,
    )
    write_text(path, text)


def section(results: Results, frame: pd.DataFrame, drawn: list[dict], estimate: dict | None = None) -> dict:
    """All that the page shows of one table. frame: its csv; drawn: its figures, as `figures` writes them; estimate: as
    `predicted` takes it.
    """
    frame = frame.assign(decimals=2)
    for (_, unit), lines in frame[frame["unit"].notna()].groupby(["metric", "unit"]):
        values = pd.concat([lines["paper"], lines["ours"]]).dropna()
        frame.loc[lines.index, "decimals"] = decimals(list(values), unit)
    lines = {row: lines.to_dict("records") for row, lines in frame.groupby("row", sort=False)}
    properties = {row: results.properties(row) for row in lines}
    claims, depth = results.plan["claims"], results.plan["depth"]
    return {
        "name": results.name,
        "title": results.title,
        "printed": results.printed,
        "subject": results.paper["title"],
        "rows": {row: [line for line in found if not line["beside"]] for row, found in lines.items()},
        "headings": list(dict.fromkeys(heading for known in properties.values() for heading in known)),
        "properties": properties,
        "data": {row: _data(results, row) for row in results.runs},
        "remarks": {row: results.remark(row) for row in lines if results.remark(row)},
        "more": _more(frame),
        "timed": sorted(frame[frame["beside"]]["timed"].dropna().unique()),  # where; in the table a note says it
        "claims": [verdict(claim, frame, depth) for claim in claims],
        "depth": depth and {**depth, "worth": worth_of_depth(depth, claims, frame)},
        "figures": drawn,
        "texts": _texts(results),
        "jobs": [
            {"row": row, "seed": run["run"]["seed"], "part": part, **values}
            for row, seeds in results.runs.items()
            for run in seeds
            for part, values in jobs(run)
        ],
        "predicted": predicted(results, estimate or {}),
        "parameters": {row: seeds[0]["parameters"] for row, seeds in results.runs.items()},
        "settings": {row: json.dumps(seeds[0]["run"], indent=2) for row, seeds in results.runs.items()},
    }


def _data(results, row):
    """What a row was trained on: the paper's data set, or one of our own choice."""
    titles = sorted({run["data"]["title"] for run in results.runs[row]})
    return "as in the paper" if titles == [results.expected_data(row)] else "; ".join(titles)


def _more(frame):
    """What stands beside the table: ({metric: unit or ""}, {row: {metric: its line}})."""
    lines = frame[frame["beside"] & frame["ours"].notna()]
    rows = {row: found.set_index("metric").to_dict("index") for row, found in lines.groupby("row", sort=False)}
    units = {line["metric"]: line["unit"] if isinstance(line["unit"], str) else "" for line in lines.to_dict("records")}
    return units, rows


def _texts(results):
    """[(prompt, {row: text})] of the first seeds' first texts, all rows of a prompt together; prompt None if none."""
    found = {}
    for row, seeds in results.runs.items():
        for number, (prompt, text) in enumerate((seeds[0]["samples"] or {}).get("texts", [])):
            # Without a prompt, the first texts of all rows stand together, then the second ones.
            _, texts = found.setdefault(prompt or number, (prompt or None, {}))
            texts[row] = text
    return list(found.values())


def _words(frames, column, separator):
    """What the cells of a column name, each once."""
    return {word for frame in frames for cell in frame[column].dropna() for word in cell.split(separator)}


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number for the page; what is missing is shown as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−") if sign else f"{value:.{digits}f}".replace("-", "−")


def in_bytes(value: float) -> str:
    """Bytes with the largest unit of which there is at least one: `42.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000


def duration(seconds: float) -> str:
    """`1 h 00 min`, `2 min 05 s` or `7 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

"""Tables and metrics -> one self-contained page that sets every number of the paper beside ours. No torch."""

import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from diffusionblocks.base import rates
from diffusionblocks.base.files import read_json, write_text
from diffusionblocks.page import first
from diffusionblocks.page.claims import of_table, worth_of_depth
from diffusionblocks.page.cost import environments, jobs
from diffusionblocks.page.intervals import interval
from diffusionblocks.page.predicted import predicted
from diffusionblocks.page.results import Results, decimals, read

GROUPS = ("resources", "paper", "ours")  # of tables, in the page's order


def page(
    plan_paths: list[Path | str],
    table_paths: list[Path | str],
    figure_paths: list[Path | str],
    template_path: Path,
    path: Path | str,
    estimate_paths: Sequence[Path | str] = (),
    absent: Sequence[str] = (),
) -> None:
    """Write the page of some tables.

    plan_paths: the `<table>.json` that planning wrote of each; their metrics files must be there. table_paths: the csv
    of each, and figure_paths its drawn figures, in the same order. template_path: a template of jinja2, with its parts,
    styles and script beside it. estimate_paths: what was counted before, or nothing. absent: a line for each table that
    is not there, and why. Raises UserError as `Results` and `read` do, and when the disk is full.
    """
    open(template_path).close()  # of one that it cannot open, jinja2 only says that it has not found it
    found = [
        (Results(plan), read(csv), read_json(drawn))
        for plan, csv, drawn in zip(plan_paths, table_paths, figure_paths, strict=True)
    ]
    found.sort(key=lambda of_table: _place(of_table[0]))
    tables, frames = [results for results, *_ in found], [frame for _, frame, _ in found]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "bytes": in_bytes, "duration": duration, "amount": amount}
    environment.filters |= {"interval": interval, "better_by": first.better_by, "sentence": first.sentence}
    estimate = {run: about for file in estimate_paths for run, about in read_json(file).items()}
    sections = [section(*of_table, estimate) for of_table in found]
    _draw_once(sections)
    claims = [claim for part in sections for claim in part["claims"]]
    printed = [claim for claim in claims if not claim["ours"]]
    printed.sort(key=lambda claim: claim["table"] in {part["name"] for part in sections if part["group"] == GROUPS[0]})
    text = environment.get_template(template_path.name).render(
        style="\n".join(_read_all(template_path.parent, "css")),
        script="\n".join(_read_all(template_path.parent, "js")),
        scale=tables[0].plan["scale"],
        facts=first.facts(tables),
        sections=sections,
        printed=any(results.printed for results in tables),
        absent=absent,
        counted=first.counted(printed),
        experiments=first.experiments(tables, printed),
        ours=first.experiments(tables, [claim for claim in claims if claim["ours"]]),
        costs=first.costs(tables, [claim for claim in claims if not claim["ours"]]),
        jobs=first.jobs_of_blocks(tables),
        limits=first.limits(claims),
        models=sorted({name for part in sections for name in part["models"]}),
        commits=sorted(_words(frames, "commit", " ")),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        environments=environments(tables),
        share=100 * rates.SHARE,
    )
    write_text(path, text)


def _place(results):
    """Where a table stands on the page, its group first; the paper's tables as the paper numbers them."""
    number = re.fullmatch(r"Table (A?)(\d+)", results.title)
    if not results.printed:
        return 2, "", 0
    return (1, number[1], int(number[2])) if number else (0, results.title, 0)


def _read_all(folder, ending):
    """The texts of all files with this ending in the template's folder, in the order of their names."""
    return [file.read_text(encoding="utf-8") for file in sorted(folder.glob(f"*.{ending}"))]


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
        "group": GROUPS[_place(results)[0]],
        "models": first.models(results),
        "stand_ins": first.stand_ins(results, frame),
        "subject": results.paper["title"],
        "rows": {row: [line for line in found if not line["beside"]] for row, found in lines.items()},
        "headings": list(dict.fromkeys(heading for known in properties.values() for heading in known)),
        "properties": properties,
        "data": {row: _data(results, row) for row in results.runs},
        "remarks": {row: results.remark(row) for row in lines if results.remark(row)},
        "more": _more(frame),
        "timed": sorted(frame[frame["beside"]]["timed"].dropna().unique()),  # where; in the table a note says it
        "claims": of_table(results, frame),
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


def _draw_once(sections):
    """Have figures say what the template shows: {id, caption, svg, first}; first: caption of the same one further up,
    to which a link leads, None where it is drawn.
    """
    seen = {}
    for group in (group for part in sections for group in part["figures"]):
        images, group["images"] = group["images"], []
        for caption, svg in images:
            about = seen.get(svg, {"id": f"figure-{len(seen)}", "first": None})
            group["images"].append({"caption": caption, "svg": svg, **about})
            seen.setdefault(svg, {"id": about["id"], "first": caption})


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


def amount(value: float, unit: str) -> str:
    """A number with its unit: `68.0 GB`, `0.0181 s`, `2,400 GFLOP`."""
    if unit == "MB":
        return in_bytes(1e6 * value)
    shown = (
        f"{value:.{decimals([value], unit)}f}" if unit == "s" else f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
    )
    return f"{shown} {unit}".rstrip()


def duration(seconds: float) -> str:
    """`1 h 00 min`, `2 min 05 s` or `7 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

"""Tables and metrics -> one self-contained page that sets every number of the paper beside ours. No torch."""

import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from diffusionblocks.base import rates
from diffusionblocks.base.files import read_json, write_text
from diffusionblocks.page import first, wording
from diffusionblocks.page.claims import of_table
from diffusionblocks.page.controls import worth_of_depth
from diffusionblocks.page.cost import environments
from diffusionblocks.page.intervals import interval
from diffusionblocks.page.origins import origins
from diffusionblocks.page.results import Results, commits, read
from diffusionblocks.page.rows import rows
from diffusionblocks.page.timeline import timeline
from diffusionblocks.page.wording import in_words

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
    environment.filters |= {"number": number, "error": error, "bytes": in_bytes, "duration": duration}
    environment.filters |= {"amount": amount, "interval": interval, "better_by": first.better_by}
    environment.filters |= {"sentence": first.sentence, "in_words": in_words, "signed": signed}
    estimate = {run: about for file in estimate_paths for run, about in read_json(file).items()}
    sections = [section(*of_table, estimate) for of_table in found]
    claims = [claim for part in sections for claim in part["claims"]]
    printed = [claim for claim in claims if not claim["ours"]]
    printed.sort(key=lambda claim: claim["table"] in {part["name"] for part in sections if part["group"] == GROUPS[0]})
    costs = first.costs(tables, printed)
    text = environment.get_template(template_path.name).render(
        style="\n".join(_read_all(template_path.parent, "css")),
        script="\n".join(_read_all(template_path.parent, "js")),
        scale=tables[0].plan["scale"],
        facts=first.facts(tables),
        sections=sections,
        printed=any(results.printed for results in tables),
        absent=absent,
        counted=first.counted(printed),
        grey=sum(claim["grey"] for claim in printed),
        experiments=first.experiments(tables, printed),
        ours=first.experiments(tables, [claim for claim in claims if claim["ours"]]),
        counted_ours=first.counted([claim for claim in claims if claim["ours"]]),
        pinned=any("seeds_at_most" in (claim["because"] or "") for claim in claims),
        costs=costs,
        in_short=first.in_short(costs),
        jobs=first.jobs_of_blocks(tables),
        timeline=timeline(tables),
        limits=first.limits(claims),
        models=sorted({name for part in sections for name in part["models"]}),
        commits=commits(frames),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        environments=environments(tables),
        share=100 * rates.SHARE,
    )
    write_text(path, text)


def _place(results):
    """Where a table stands on the page, its group first; the paper's tables as the paper numbers them."""
    number = re.fullmatch(r"Table (A?)(\d+)", results.title)
    if not results.printed:
        return 2, "", 0
    if number:
        return 1, number[1], int(number[2])
    return (0, results.title, 0) if results.counted else (1, "B", 0)


def _read_all(folder, ending):
    """The texts of all files with this ending in the template's folder, in the order of their names."""
    return [file.read_text(encoding="utf-8") for file in sorted(folder.glob(f"*.{ending}"))]


def section(results: Results, frame: pd.DataFrame, drawn: list[dict], estimate: dict | None = None) -> dict:
    """All that the page shows of one table. frame: its csv; drawn: its figures, as `figures` writes them; estimate: as
    `predicted` takes it.
    """
    claims, table = of_table(results, frame), rows(results, frame)
    return {
        "name": results.name,
        "title": results.title,
        "printed": results.printed,
        "group": GROUPS[_place(results)[0]],
        "models": first.models(results),
        "subject": results.paper["title"],
        "table": table,
        "title_of": results.title_of,
        "claims": claims,
        "stand_ins": sorted({*table["stand_ins"], *_stand_ins(claims)}),
        "depth": [{**one, "worth": worth_of_depth(one, claims, frame)} for one in results.plan["depth"]],
        "figures": drawn,
        "texts": _texts(results),
        "origins": origins(results, estimate or {}),
    }


def _stand_ins(claims):
    return (word for claim in claims if claim["stand_in"] for word in claim["stand_in"].split("; "))


def _texts(results):
    """[(prompt, {row: text})] of the first seeds' first texts, all rows of a prompt together; prompt None if none."""
    found = {}
    for row, seeds in results.runs.items():
        for number, (prompt, text) in enumerate((seeds[0]["samples"] or {}).get("texts", [])):
            # Without a prompt, the first texts of all rows stand together, then the second ones.
            _, texts = found.setdefault(prompt or number, (prompt or None, {}))
            texts[row] = text
    return list(found.values())


def signed(value: float, half: float | None) -> str:
    """A difference and its error for the page: `−2.10 ± 0.50`."""
    return wording.signed(value, half).replace("-", "−")


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number for the page; what is missing is shown as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−") if sign else f"{value:.{digits}f}".replace("-", "−")


def error(value: float, digits: int = 2) -> Markup:
    """` ± 0.72` behind a number; nothing where it is not known, or nothing varies."""
    if value is None or math.isnan(value) or value == 0:
        return Markup("")
    shown = number(value, digits) if value >= 0.5 / 10**digits else f"<{number(10**-digits, digits)}"
    return Markup(' <small class="error">± {}</small>').format(shown)


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
    short = f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
    shown = f"{value:.{wording.decimals([value], unit)}f}" if unit == "s" else short
    return f"{shown} {unit}".rstrip()


def duration(seconds: float) -> str:
    """`1 h 00 min`, `2 min 05 s` or `7 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

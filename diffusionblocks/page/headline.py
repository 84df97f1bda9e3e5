"""What the README shows of results that ship: a block between two comments, which `ship` writes. No torch."""

import json
import lzma
import tarfile
from pathlib import Path

import pandas as pd

from diffusionblocks.base.files import UserError, exists, read_json, unreadable, write_text
from diffusionblocks.page.claims import column
from diffusionblocks.page.controls import shallow_of
from diffusionblocks.page.results import read
from diffusionblocks.page.wording import decimals

# What `ship` puts beside the tables.
PAGE, CLAIMS, ABOUT, METRICS = "report.html", "claims.json", "about.json", "metrics.tar.xz"
END = "<!-- end of results -->\n"


def headline(folder: Path, name: str) -> str:
    """What the README says of a shipped folder: of each table of the paper, what its first claim compares, what others
    compare with the same row in the same metric, and what is compared with a deep row that has a control.

    name: what the folder is called there. Every number is one of its csv files.
    """
    about, lines = read_json(folder / ABOUT), []
    for plan in _shipped_plans(folder, about["tables"]):
        frame = read(folder / f"{plan['table']}.csv")
        claims = [claim for claim in plan["claims"] if "margin" in claim and not claim.get("ours")]
        shown = [(claim["against"], claim["metric"]) for claim in claims[:1]]
        shown += [(control["deep"], control["metric"]) for control in plan["depth"]]
        for claim in claims if plan["paper"] else ():
            if (claim["against"], claim["metric"]) not in shown:
                continue
            metric = column(claim, about["scale"])
            cells = frame[frame["metric"] == metric].set_index("row")
            compared = (claim["against"], shallow_of(claim, plan["depth"]), claim["row"])
            found = [_cell(cells, row) for row in compared]
            better = "".join(f", {word} is better" for word in cells["better"].dropna().unique())
            lines.append(" | ".join([plan["paper"]["source"], f"{metric}{better}", *found]))
    hardware = "; ".join(dict.fromkeys(machine["hardware"] for machine in about["machines"]))
    head = (
        f"Measured at scale `{about['scale']}` ({about['date']}, commit {', '.join(about['commits'])}, "
        f"{about['job_hours']:.1f} hours of jobs on {hardware}): mean ± standard deviation over seeds, in brackets "
        f"what the paper prints, of other data and larger networks. [All tables]({name}), [the page]({name}/{PAGE}); "
        f"`python -m diffusionblocks verify results/{about['scale']}` compares a run of yours with them.\n"
    )
    columns = ["", "metric", "compared with", "its layers of one block", "blocks"]
    rows = [" | ".join(columns), " | ".join(["---"] * len(columns)), *lines]
    return "\n".join([head, *(f"| {row} |" for row in rows), ""])


def _cell(cells, row):
    """A row's name and its number, ± its spread, with the printed one in brackets; nothing for no row."""
    if row is None or row not in cells.index:
        return ""
    line = cells.loc[row]
    if pd.isna(line["ours"]):
        return f"{row}: –"
    digits = decimals([line["ours"]], line["unit"])
    spread = f" ± {line['std']:.{digits}f}" if not pd.isna(line["std"]) else ""
    printed = f" [{line['paper']:.{digits}f}]" if not pd.isna(line["paper"]) else ""
    return f"{row}: **{line['ours']:.{digits}f}**{spread}{printed}"


def _shipped_plans(folder, names):
    """`<table>.json` of the tables of a shipped folder."""
    inside = archived(folder, "tables")
    found = {Path(name).stem: content for name, content in inside.items()}
    if absent := [name for name in names if name not in found]:
        raise UserError(f"{folder / METRICS}: damaged (it has no {absent[0]}). Ship the run again.")
    return [found[name] for name in names]


def archived(folder: Path, within: str = "") -> dict[str, dict]:
    """{path: content} of the files that a shipped folder's archive holds, of those in a folder of this name if one is
    given. Raises UserError for an archive that is absent or damaged.
    """
    path = folder / METRICS
    try:
        with tarfile.open(path, "r:xz") as archive:
            entries = [entry for entry in archive if within in ("", Path(entry.name).parent.name)]
            return {entry.name: json.load(archive.extractfile(entry)) for entry in entries}
    except (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError) as error:
        raise unreadable(path, error, f"{path}: damaged ({error}). Ship the run again.") from None


def marker(name: str) -> str:
    """The line of the README after which the block of a shipped folder stands, up to `END`."""
    return f"<!-- results of {name} -->\n"


def named(folder: Path, readme: Path) -> str | None:
    """What the README calls a folder, if it has a place for it. Raises UserError for a place without an end."""
    if not (exists(readme) and folder.resolve().is_relative_to(readme.parent)):
        return None
    name = folder.resolve().relative_to(readme.parent).as_posix()
    _, begin, rest = readme.read_text(encoding="utf-8").partition(marker(name))
    if begin and END not in rest:
        raise UserError(f"{readme}: after {begin.strip()} there is no line {END.strip()}. Put it there.")
    return name if begin else None


def into_readme(readme: Path, name: str, block: str) -> None:
    """Put a folder's block into the README, in place of what stood there."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(marker(name))
    write_text(readme, f"{before}{begin}{block}{rest[rest.index(END) :]}")

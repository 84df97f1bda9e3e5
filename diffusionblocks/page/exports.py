"""A run's tables, figures and claims as files for papers, and as an RO-Crate that says what is what. No torch.

A crate is a folder with ro-crate-metadata.json, which other programs read: which files there are, who made them with
which software, when and under which licence (https://www.researchobject.org/ro-crate, profile Process Run Crate).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import UserError, write_text
from diffusionblocks.page import figures
from diffusionblocks.page.cost import cost
from diffusionblocks.page.latex import latex
from diffusionblocks.page.results import Results, read
from diffusionblocks.page.rows import rows
from diffusionblocks.page.ship import whole

CITATION = PACKAGE.parent / "CITATION.cff"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PAPER = "https://arxiv.org/abs/2506.14202"
HEADINGS = {"paper": "{}, paper", "ours": "{}", "error": "{} ±", "gap": "{}, gap", "gap_error": "{}, gap ±"}
TYPES = {
    ".csv": "text/csv",
    ".tex": "application/x-tex",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".html": "text/html",
    ".json": "application/json",
}
COPIED = {
    "report.html": "The report: every number of the paper beside ours, with where ours come from.",
    "claims.json": "What became of each claim of the paper, with its statistics.",
    "plan.json": "Settings of every row, as they were resolved.",
    "CITATION.cff": "How to cite the software and the paper.",
}


def exports(
    plan_paths: Sequence[Path], table_paths: Sequence[Path], copied: Sequence[Path], settings: Path, folder: Path
) -> None:
    """Write a run's tables as csv (wide) and LaTeX, its figures as SVG and PDF, and what they are, into a new folder.

    plan_paths: `<table>.json` of each table; table_paths: their csv files, in the same order, which are copied too;
    copied: the page and whatever else belongs to the run; settings: plan.json, with all that rows were trained and
    measured with. What stood in the folder is gone. Raises UserError as `Results` and `read` do.
    """
    tables, frames = [Results(path) for path in plan_paths], [read(path) for path in table_paths]
    with whole(folder) as new:
        for name in ("tables", "figures"):
            (new / name).mkdir()
        files = {}  # {name: what it is}
        for results, frame, csv in zip(tables, frames, table_paths, strict=True):
            about, shown = f"{results.title}: {results.paper['title']}", rows(results, frame)
            wide(shown).to_csv(new / f"tables/{results.name}.csv", index=False)
            write_text(new / f"tables/{results.name}.tex", _latex(results, shown, about))
            shutil.copyfile(csv, new / f"tables/{results.name}-long.csv")
            drawn = figures.export(results, new / "figures")
            files |= {
                f"tables/{results.name}.csv": f"{about}. A line for each row.",
                f"tables/{results.name}.tex": f"{about}. LaTeX, with the package booktabs.",
                f"tables/{results.name}-long.csv": f"{about}. A line for each row and metric, with each seed's value.",
                **{f"figures/{path.name}": f"{about}. A figure." for path in drawn},
            }
        for path in (*copied, settings):
            shutil.copyfile(path, new / path.name)
            files[path.name] = COPIED.get(path.name, path.name)
        _describe(new, files, tables, frames, settings.name)


def wide(shown: dict) -> pd.DataFrame:
    """A table with a line for each row, and columns in words: what the paper prints, ours, its error, and the gaps.

    shown: what `rows` makes of a table. Columns of which no row has anything are left out.
    """
    lines = {}
    for part in (shown["main"], shown["more"]):
        for row in part["rows"]:
            line = lines.setdefault(row["row"], {"row": row["row"], "name": row["words"], "seeds": row["seeds"]})
            for column in part["columns"]:
                words = column["words"] + (f" ({column['unit']})" if column["unit"] else "")
                cell = row["cells"].get(column["metric"], {})
                line |= {heading.format(words): cell.get(key) for key, heading in HEADINGS.items()}
    return pd.DataFrame(list(lines.values())).dropna(axis="columns", how="all")


def _latex(results, shown, about):
    """Both of a table's parts, with what a reader must know of the numbers."""
    stand_ins = f" Measured on or by stand-ins: {'; '.join(shown['stand_ins'])}." if shown["stand_ins"] else ""
    seeds = f", {shown['seeds']} seeds" if shown["seeds"] else ""
    caption = f"{about}. Scale {results.plan['scale']}{seeds}; ±: 90% confidence interval of Student's t.{stand_ins}"
    parts = [("", caption, shown["main"]), ("-more", f"{about}, what was measured besides.", shown["more"])]
    written = [latex(part, words, f"tab:{results.name}{end}") for end, words, part in parts if part["columns"]]
    return "\n".join([r"% \usepackage{booktabs}", *written])


def _describe(folder, files, tables, frames, settings):
    """Write ro-crate-metadata.json, and read it back: every file that it names must be there, and no other."""
    citation, spent = yaml.safe_load(CITATION.read_text(encoding="utf-8")), cost(tables)
    shutil.copyfile(CITATION, folder / CITATION.name)
    files = {**files, CITATION.name: COPIED[CITATION.name]}
    scale, commits = tables[0].plan["scale"], _commits(frames)
    crate = ROCrate(version="1.1")
    crate.name = f"{citation['title']}: a run at scale {scale}"
    crate.description = f"{len(tables)} tables at scale {scale}, measured by commit {commits}."

    def add(identifier, kind, **about):
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **about}))

    def author(about):
        if "name" in about:
            return add(f"#{about['name']}", "Organization", name=about["name"])
        name = f"{about['given-names']} {about['family-names']}"
        return add(about.get("orcid", f"#{name}"), "Person", name=name)

    crate.license = add(f"https://spdx.org/licenses/{citation['license']}", "CreativeWork", name=citation["license"])
    crate.creator = [author(about) for about in citation["authors"]]
    paper = citation["references"][0]
    authors = [author(about) for about in paper["authors"]]
    crate.root_dataset["citation"] = add(PAPER, "ScholarlyArticle", name=paper["title"], author=authors)
    if spent["last_job"]:
        crate.datePublished = spent["last_job"][:10]
    software = add(
        "#diffusionblocks",
        "SoftwareApplication",
        name=citation["title"],
        version=citation["version"],
        softwareVersion=commits,
        license=crate.license,
        softwareRequirements=[
            add(f"#{name}-{version}", "SoftwareApplication", name=name, version=version)
            for name, version in _packages(spent["machines"])
        ],
    )
    entities = [
        crate.add_file(folder / name, name, properties={"name": name, "description": what} | _type(name))
        for name, what in files.items()
    ]
    given = next(entity for entity in entities if entity.id == settings)
    hardware = "; ".join(dict.fromkeys(machine["hardware"] for machine in spent["machines"]))
    action = add(
        "#run",
        "CreateAction",
        name=f"snakemake all --config scale={scale}",
        description=f"{spent['jobs']} jobs, {spent['job_hours']} hours in all, on {hardware}",
        agent=crate.creator,
        instrument=software,
        object=given,
        result=[entity for entity in entities if entity is not given],
    )
    for key, when in (("startTime", "first_job"), ("endTime", "last_job")):
        if spent[when]:
            action[key] = spent[when]
    crate.root_dataset["mentions"] = action
    crate.root_dataset["conformsTo"] = add(PROFILE, "CreativeWork", name="Process Run Crate")
    crate.metadata.write(folder)
    found = {entity.id for entity in ROCrate(folder).get_entities() if entity.type == "File"}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if other := sorted(found ^ (there - {"ro-crate-metadata.json"})):
        raise UserError(f"the RO-Crate of {crate.name} names other files than are there, such as {other[0]}")


def _type(name):
    return {"encodingFormat": TYPES[Path(name).suffix]} if Path(name).suffix in TYPES else {}


def _commits(frames):
    return " ".join(sorted({word for frame in frames for cell in frame["commit"].dropna() for word in cell.split()}))


def _packages(machines):
    """(name, version) of all that is said to have been at work, each once."""
    told = dict.fromkeys(word for machine in machines for word in machine["versions"].split(", ") if word)
    return [tuple(word.rsplit(" ", 1)) for word in told]

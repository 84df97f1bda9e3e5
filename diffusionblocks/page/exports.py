"""A run's tables, figures and claims as files for papers, and as an RO-Crate that says what is what. No torch.

A crate is a folder with ro-crate-metadata.json, which other programs read: which files there are, who made them with
which software, when and under which licence (https://www.researchobject.org/ro-crate, profile Process Run Crate).
"""

import math
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
from diffusionblocks.page.latex import HEAD, latex, pages
from diffusionblocks.page.results import Results, commits, read
from diffusionblocks.page.rows import rows
from diffusionblocks.page.ship import whole
from diffusionblocks.page.wording import in_words

CITATION = PACKAGE.parent / "CITATION.cff"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PAPER = "https://arxiv.org/abs/2506.14202"
HEADINGS = {
    **{"paper": "{}, paper", "ours": "{}", "error": "{} ±"},
    **{"gap": "{}, gap", "gap_error": "{}, gap ±", "paper_gap": "{}, gap in the paper"},
}
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
            about = ": ".join(
                dict.fromkeys([results.title, results.paper["title"]])
            )  # one and the same where it is ours
            shown = rows(results, frame)
            wide(results, shown).to_csv(new / f"tables/{results.name}.csv", index=False)
            write_text(new / f"tables/{results.name}.tex", _latex(results, shown, about))
            shutil.copyfile(csv, new / f"tables/{results.name}-long.csv")
            drawn = figures.export(results, new / "figures")
            files |= {
                f"tables/{results.name}.csv": f"{about}. A line for each row.",
                f"tables/{results.name}.tex": f"{about}. LaTeX, with the packages booktabs and graphicx.",
                f"tables/{results.name}-long.csv": f"{about}. A line for each row and metric, with each seed's value.",
                **{f"figures/{path.name}": f"{about}. A figure." for path in drawn},
            }
        for path in (*copied, settings):
            shutil.copyfile(path, new / path.name)
            files[path.name] = COPIED.get(path.name, path.name)
        _describe(new, files, tables, frames, settings.name)


def wide(results: Results, shown: dict) -> pd.DataFrame:
    """A table with a line for each row, and columns in words: what the paper prints, ours, its error, and the gaps.

    shown: what `rows` makes of a table. Rows that nothing trains have the paper's numbers alone, and so have columns
    that nothing measures; what has one value for all stands in each line. properties: as the paper has them; notes: all
    that are of the row. Columns of which no row has anything are left out, and so are rows.
    """
    parts = (shown["main"], shown["more"])
    cells = {
        (row["row"], metric): cell for part in parts for row in part["rows"] for metric, cell in row["cells"].items()
    }
    columns = {column["metric"]: column for part in parts for column in part["columns"]}
    unmeasured = {
        metric: {"words": in_words(metric), "unit": about.get("unit", "")}
        for metric, about in results.paper["metrics"].items()
        if metric not in columns
    }
    lines = {}
    for row in results.rows():
        known = {}
        for metric, column in {**columns, **unmeasured}.items():
            printed = results.of_row(row).get(metric) if row in results.paper["rows"] else None
            cell = cells.get((row, metric), {"paper": printed if metric in results.paper["metrics"] else None})
            known |= {heading.format(_in_words(column)): cell.get(key) for key, heading in HEADINGS.items()}
        for constant in shown["constants"]:
            if constant["metric"] in results.numbers(row):
                values = constant["values"]
                known[_in_words(constant)] = values.get(results.runs[row][0]["data"]["title"], values.get(None))
        if any(pd.notna(value) for value in known.values()):
            notes = "; ".join(note["text"] for note in shown["notes"] if row in note["rows"])
            seeds = len(results.runs[row]) if row in results.runs else None
            about = {"row": row, "name": results.title_of(row), "seeds": seeds}
            lines[row] = {**about, **known, **results.properties(row), "notes": notes or None}
    return pd.DataFrame(list(lines.values())).astype({"seeds": "Int64"}).dropna(axis="columns", how="all")


def _in_words(column):
    return column["words"] + (f" ({column['unit']})" if column["unit"] else "")


def _latex(results, shown, about):
    """A table's main part, with what a reader must know of its numbers, and what was measured besides."""
    stand_ins = f" Measured on or by stand-ins: {'; '.join(shown['stand_ins'])}." if shown["stand_ins"] else ""
    number = None if shown["counted"] else shown["seeds"]
    seeds = f", {number} seed{'s' * (number > 1)}" if number else ""
    error = "±: half of a 90% confidence interval of Student's t"
    caption = f"{about}. Scale {results.plan['scale']}{seeds}; {error}.{stand_ins}"
    texts = {
        heading: {row: known.get(heading, "") for row, known in shown["properties"].items()}
        for heading in shown["headings"]
    }
    if not shown["seeds"]:
        texts["seeds"] = {row: len(runs) for row, runs in results.runs.items()}
    label, besides = f"tab:{results.name}", f"{about}, what was measured besides."
    tables = [
        *_numbered(pages(shown["main"], width=math.inf), caption, label, texts, _notes(shown)),
        *_numbered(pages(shown["more"]), besides, f"{label}-more"),
    ]
    return HEAD + "\n".join(tables)


def _numbered(parts, caption, label, texts=None, notes=()):
    """A `table` of each part, with a label and a caption of its own; notes stand below the last."""
    for number, part in enumerate(parts, 1):
        of = f" Part {number} of {len(parts)}." if len(parts) > 1 else ""
        last = number == len(parts)
        yield latex(part, caption + of, label + f"-{number}" * bool(of), texts, notes if last else ())


def _notes(shown):
    """(mark or None, text) of all that stands below a table on the page, too."""
    for note in shown["notes"]:
        of_one = f"{note['words'][0]}: " if note["words"] and len(note["words"]) == 1 else ""
        yield note["mark"], of_one + note["text"]
    if sizes := shown["sizes"]:
        counted = (f"{how} at the sizes of {', '.join(names)}" for how, names in sizes.items())
        yield None, f"No data are read: {'; '.join(counted)}."
    for constant in shown["constants"]:
        values = ", ".join(
            f"{value:.{constant['decimals']}f}" + (f" ({title})" if title else "")
            for title, value in constant["values"].items()
        )
        on_same = " on the same data" if len(constant["values"]) > 1 else ""
        yield (
            None,
            f"{_in_words(constant)}: {values}, the same in all rows{on_same}.",
        )
    for metric, numbers in shown["unmeasured"].items():
        printed = ", ".join(f"{value:.2f} ({words})" for words, value in numbers.items())
        yield None, f"{metric}: not measured at this scale. The paper prints {printed}."
    for why, columns in shown["without"].items():
        yield None, f"{', '.join(columns)}: {why}."
    if rows := shown["left_out"]:
        yield (
            None,
            f"Left out, since nothing of them is measured at this scale: {'; '.join(row['words'] for row in rows)}.",
        )
    if rows := shown["untrained"]:
        printed = (
            row["words"] + "".join(f" ({metric} {value:.2f})" for metric, value in row["numbers"].items())
            for row in rows
        )
        yield None, f"Printed in the paper, and not part of this workflow yet: {'; '.join(printed)}."


def _describe(folder, files, tables, frames, settings):
    """Write ro-crate-metadata.json, and read it back: every file that it names must be there, and no other."""
    citation, spent = yaml.safe_load(CITATION.read_text(encoding="utf-8")), cost(tables)
    shutil.copyfile(CITATION, folder / CITATION.name)
    files = {**files, CITATION.name: COPIED[CITATION.name]}
    scale, measured_by = tables[0].plan["scale"], " ".join(commits(frames))
    crate = ROCrate(version="1.1")
    crate.name = f"{citation['title']}: a run at scale {scale}"
    crate.description = f"{len(tables)} tables at scale {scale}, measured by commit {measured_by}."

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
        softwareVersion=measured_by,
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


def _packages(machines):
    """(name, version) of all that is said to have been at work, each once."""
    told = dict.fromkeys(word for machine in machines for word in machine["versions"].split(", ") if word)
    return [tuple(word.rsplit(" ", 1)) for word in told]

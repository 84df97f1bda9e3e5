"""A run's tables as LaTeX and csv, its figures as files, and the RO-Crate that says what is what."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import shipped
from page_helpers import IMAGES, NOPROP, measured, plan
from rocrate.rocrate import ROCrate

from diffusionblocks.base.files import UserError, write_json
from diffusionblocks.page import exports as exporting
from diffusionblocks.page.exports import exports, wide
from diffusionblocks.page.latex import HEAD, HEIGHT, escaped, latex, pages
from diffusionblocks.page.results import Results, read
from diffusionblocks.page.rows import rows
from diffusionblocks.page.table import table
from diffusionblocks.verbs import main

COMMANDS = re.compile(r"\\[&%$#_{}]")  # a letter of the text, and no command


def cell(**about):
    empty = dict.fromkeys(("paper", "ours", "error", "gap", "gap_error"))
    return {**empty, "decimals": 2, **about}


def part(columns, **lines):
    """A part of a table, as `rows` gives it. columns: {metric: (unit, better)}; lines: {row: {metric: cell}}."""
    return {
        "columns": [
            {"metric": name, "words": name, "unit": unit, "better": better} for name, (unit, better) in columns.items()
        ],
        "rows": [
            {"row": row, "words": row.replace("and", "&"), "seeds": 3, "marks": [], "cells": cells}
            for row, cells in lines.items()
        ],
    }


ODD = part(
    {"fid_test": ("", "lower"), "accuracy": ("%", "higher")},
    one_and_all={"fid_test": cell(paper=40.0, ours=-1.5, error=0.25), "accuracy": cell(ours=99.0)},
    other={"fid_test": cell(ours=float("inf"), error=float("nan"))},
)


def cells(line):
    """The cells of a line of a `tabular`, those that span several counted as so many."""
    found = COMMANDS.sub("x", line).removesuffix(r" \\").split(" & ")
    return sum(int((re.search(r"\\multicolumn\{(\d+)\}", one) or [0, 1])[1]) for one in found)


def is_sound(text):
    """Whether a file of LaTeX has booktabs' rules in order, environments that end, and lines of as many cells."""
    assert text.isascii() and text.startswith(HEAD)
    for body in re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL):
        (kinds,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", body)
        assert re.findall(r"\\(\w+rule)", body) == ["toprule", "midrule", "bottomrule"]
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert len(lines) > 2 and {cells(line) for line in lines} == {len(kinds)}
        plain = COMMANDS.sub("", body)
        assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert "nan" not in text and text.count(r"\begin{") == text.count(r"\end{")
    return True


def test_a_table_of_latex():
    text = latex(ODD, "100% of #1", "tab:odd")
    assert is_sound(HEAD + text)
    assert r"\caption{100\% of \#1}" in text and r"\label{tab:odd}" in text
    lines = text.splitlines()
    assert r" & \multicolumn{2}{c}{fid\_test $\downarrow$} & \multicolumn{1}{c}{accuracy (\%) $\uparrow$} \\" in lines
    assert r" & paper & ours & ours \\" in lines
    assert r"{}one\_\&\_all & 40.00 & $-$1.50 $\pm$ 0.25 & 99.00 \\" in lines
    assert r"{}other & -- & $\infty$ & -- \\" in lines


def test_text_that_latex_reads_as_commands_is_escaped():
    assert escaped(r"50% of a_b & {c} #1 $x$ ~ ^ \ <|>") == (
        r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{}\textbar{}\textgreater{}"
    )
    assert escaped("σ ≤ 80, 3 ×") == r"$\sigma$ $\leq$ 80, 3 $\times$"
    assert escaped("λ → µ, Ω ≈ 10⁻³ m²") == r"$\lambda$ $\to$ $\mu$, $\Omega$ $\approx$ 10$^{-}$$^{3}$ m$^{2}$"
    small = {chr(code) for code in range(ord("α"), ord("ω") + 1)} - {"ο"}
    capital = set("ΓΔΘΛΞΠΣΥΦΨΩ")  # the others look Latin, and LaTeX has no command of them
    assert all(escaped(letter).isascii() for letter in small | capital)


def test_a_title_is_never_an_option_of_the_line_before():
    """`\\\\` and `\\midrule` take what follows in brackets, and a star, wherever it stands."""
    odd = part({"kid": ("", None)}, a={"kid": cell(ours=1.0)}, b={"kid": cell(ours=1.0)}, c={"kid": cell(ours=1.0)})
    for row, words in zip(odd["rows"], ("[2 blocks]", "* ours", "(plain)"), strict=True):
        row["words"] = words
    text = latex(odd, "[odd]", "tab:odd", notes=[(1, "[a]"), (None, "*b")])
    assert not re.search(r"(\\\\|rule)\s*[\[*(]", text)
    assert "{}[2 blocks] & 1.00" in text and "$^{1}$ [a]\\par\n*b\\par" in text


def test_what_a_page_has_no_room_for_is_cut_between_metrics_and_rows():
    three = dict.fromkeys(("fid", "kid", "recall"), ("", None))
    rows = {f"row{number}": {name: cell(ours=number, gap=number) for name in three} for number in range(HEIGHT + 1)}
    rows["row0"] = {"recall": cell(ours=0.0)}
    wide_one = part(three, **rows)
    found = [([c["metric"] for c in one["columns"]], [r["row"] for r in one["rows"]]) for one in pages(wide_one)]
    all_of_them = [f"row{number}" for number in range(HEIGHT + 1)]
    assert (
        found
        == [
            (["fid", "kid"], all_of_them[1:]),  # two columns each; a row without any of them is left out
            (["recall"], all_of_them[:HEIGHT]),
            (["recall"], all_of_them[HEIGHT:]),
        ]
    )
    assert [len(one["columns"]) for one in pages(wide_one, width=math.inf)] == [3, 3]
    assert pages({**wide_one, "columns": []}) == []


def test_every_letter_of_what_ships_can_be_set():
    """Titles of tables and rows of all scales, and the data sets that stand in for each other."""
    for about in (about for name, about in shipped().written.items() if name.startswith("tables/")):
        paper = about["paper"] or {}
        words = [
            about["title"],
            paper.get("title", ""),
            str(paper.get("data", "")),
            *(row["title"] for row in about["rows"].values()),
        ]
        assert escaped(" ".join(words)).isascii()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of two tables, one of them our own, with all that exports are made of."""
    monkeypatch.chdir(tmp_path)
    Path("results/demo/tables").mkdir(parents=True)
    values = {"a": (40.0, 42.0, 44.0), "b": (30.0, 31.0, 32.0)}
    for name, paper in (("table1", IMAGES), ("mine", None)):
        seeds = {
            row: [measured(row, seed=seed, blocks=2, fid_test=value, kid=1.0) for seed, value in enumerate(found)]
            for row, found in values.items()
        }
        for run in (run for found in seeds.values() for run in found):
            run["evaluation"] |= {"time": f"2026-11-2{run['run']['seed']}T10:00:00+0000"}
        path = plan(Path("results/demo/tables"), seeds, paper, name=name)
        table(path, path.with_suffix(".csv"))
    write_json("results/demo/plan.json", {})
    write_json("results/demo/claims.json", [])
    Path("results/demo/report.html").write_text("the page")
    return Path("results/demo")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures that are drawn in no time."""

    def export(results, folder):
        path = folder / f"{results.name}-figure.svg"
        path.write_text("<svg/>")
        return [path]

    monkeypatch.setattr(exporting.figures, "export", export)


def export(run):
    plans = [run / f"tables/{name}.json" for name in ("table1", "mine")]
    copied = [run / "report.html", run / "claims.json"]
    exports(plans, [path.with_suffix(".csv") for path in plans], copied, run / "plan.json", run / "exports")
    return run / "exports"


def test_a_run_is_exported(run, monkeypatch):
    (run / "exports").mkdir()
    (run / "exports/old.tex").write_text("of a table that is no more")
    words = [run / "tables/table1.json", run / "tables/mine.json"]
    files = [path.with_suffix(".csv") for path in words]
    more = [
        "--settings",
        run / "plan.json",
        "--copied",
        run / "report.html",
        run / "claims.json",
        "-o",
        run / "exports",
    ]
    monkeypatch.setattr("sys.argv", ["diffusionblocks", "exports", *map(str, [*words, "--tables", *files, *more])])
    main()
    folder = run / "exports"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tables = {f"tables/{name}{end}" for name in ("table1", "mine") for end in (".csv", ".tex", "-long.csv")}
    others = {"report.html", "claims.json", "plan.json", "CITATION.cff", "ro-crate-metadata.json"}
    drawings = {name for name in found if name.startswith("figures/")}
    assert found == tables | others | drawings
    assert {Path(name).suffix for name in drawings} == {".svg", ".pdf"} and len(drawings) > 2
    assert (folder / "tables/mine-long.csv").read_bytes() == (run / "tables/mine.csv").read_bytes()
    assert all(is_sound((folder / f"tables/{name}.tex").read_text()) for name in ("table1", "mine"))
    assert (
        r"\caption{Table 2: Images. Scale demo, 3 seeds; $\pm$: half of a 90\% "
        in (folder / "tables/table1.tex").read_text()
    )
    assert r"\caption{Ours. Scale demo" in (folder / "tables/mine.tex").read_text()
    assert not list(run.glob(".exports*")), "no temporary folder is left"


def test_a_wide_table_has_a_line_for_each_row(run):
    results = Results(run / "tables/table1.json")
    frame = wide(results, rows(results, read(run / "tables/table1.csv"))).set_index("row")
    assert list(frame.index) == ["a", "b"] and frame.loc["a", "seeds"] == 3
    words = next(
        column for column in frame if column.lower().startswith("fid") and "," not in column and "±" not in column
    )
    assert frame[words].to_dict() == {"a": 42.0, "b": 31.0}
    assert frame[f"{words}, paper"].to_dict() == {"a": 40.0, "b": 30.0}
    assert frame.loc["b", f"{words}, gap"] == -11.0 and frame.loc["b", f"{words} ±"] == pytest.approx(
        2.92 / 3**0.5, 1e-3
    )
    assert not frame.isna().all().any(), "no column is empty"


def test_exports_have_all_that_the_page_says_of_a_table(tmp_path):
    """What the paper says in words, what nothing measures or trains, what is the same for all, gaps, seeds, notes."""
    timed = {"accuracy": 40.0, "relative_speed": 3.0}
    seeds = {
        "dt": [measured("dt", seed=seed, **timed) for seed in (0, 1)],
        "ct": {"metrics": [measured("ct", **timed | {"accuracy": 50.0})], "against": "dt", "remark": "[more] steps"},
    }
    path = plan(tmp_path, seeds, NOPROP, name="noprop")
    table(path, path.with_suffix(".csv"))
    results = Results(path)
    shown = rows(results, read(path.with_suffix(".csv")))

    frame = wide(results, shown).set_index("row")
    assert list(frame.index) == ["dt", "ct", "untrained"] and frame["seeds"].tolist()[:2] == [2, 1]
    assert frame["continuous time"].tolist()[:2] == ["no", "yes"]
    assert frame["accuracy (%), paper"].tolist() == [46.06, 21.31, 1.0]
    assert frame["relative speed (×)"].tolist()[:2] == [3.0, 3.0]
    assert frame.loc["ct", "accuracy (%), gap"] == 10.0
    assert "[more] steps" in frame.loc["ct", "notes"] and "33.99" in frame.loc["ct", "notes"]

    text = exporting._latex(results, shown, "Table 6")
    assert is_sound(text)
    (line,) = [line for line in text.splitlines() if line.startswith("{}ct")]
    assert line == r"{}ct$^{1,2}$ & 21.31 & 50.00 & +10.00 & yes & no & 1 \\"
    for words in ("continuous time", "seeds", "[more] steps", r"relative speed ($\times$): 3.00, the same in all rows"):
        assert words in text
    assert r"not part of this workflow yet: untrained (accuracy 1.00).\par" in text


def test_the_crate_says_what_is_what(run, undrawn):
    folder = export(run)
    crate = ROCrate(folder)
    files = {entity.id: entity for entity in crate.get_entities() if entity.type == "File"}
    assert all((folder / name).is_file() and entity["description"] for name, entity in files.items())
    assert files["tables/table1.tex"]["encodingFormat"] == "application/x-tex"
    assert set(files) == {entity.id for entity in crate.root_dataset["hasPart"]}
    assert "scale demo" in crate.name and str(crate.datePublished)[:10] == "2026-11-22"
    assert crate.license.id == "https://spdx.org/licenses/Apache-2.0"
    assert [author["name"] for author in crate.creator] == ["The diffusionblocks contributors"]
    paper = crate.root_dataset["citation"]
    assert paper.id == "https://arxiv.org/abs/2506.14202" and paper["author"][0]["name"] == "Makoto Shing"
    action = crate.root_dataset["mentions"]
    assert action["object"].id == "plan.json" and {entity.id for entity in action["result"]} == set(files) - {
        "plan.json"
    }
    assert (action["startTime"], action["endTime"]) == ("2026-11-20T10:00:00+0000", "2026-11-22T10:00:00+0000")
    software = action["instrument"]
    assert software["softwareVersion"] == "aaa" and software["softwareRequirements"][0]["name"] == "torch"


def test_the_same_run_gives_the_same_crate(run, undrawn):
    first = (export(run) / "ro-crate-metadata.json").read_bytes()
    assert (export(run) / "ro-crate-metadata.json").read_bytes() == first
    assert json.loads(first)["@context"] == "https://w3id.org/ro/crate/1.1/context"


def test_a_crate_that_names_other_files_than_are_there_is_refused(run, undrawn, monkeypatch):
    folder = export(run)
    before = (folder / "ro-crate-metadata.json").read_bytes()
    drawn = exporting.figures.export

    def forgets(results, folder):
        (folder / "stray.svg").write_text("")
        return drawn(results, folder)

    monkeypatch.setattr(exporting.figures, "export", forgets)
    with pytest.raises(UserError, match=r"names other files than are there, such as figures/stray\.svg"):
        export(run)
    assert (folder / "ro-crate-metadata.json").read_bytes() == before, "what was there stays"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here; the tests above look at its structure")
def test_latex_compiles(run, undrawn, tmp_path):
    files = [path.read_text() for path in (export(run) / "tables").glob("*.tex")]
    body = "\n".join([*files, latex(ODD, "100% of #1", "tab:odd")])
    (tmp_path / "all.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs,graphicx}}\\begin{{document}}{body}\\end{{document}}"
    )
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, check=True)

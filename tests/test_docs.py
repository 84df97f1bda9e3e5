"""The documentation's links lead somewhere, and what should be said of all tables, data and networks is said of all."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import diffusionblocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = ROOT / "diffusionblocks"
TABLES = [path.stem for path in (ROOT / "workflow/tables").glob("*.yaml")]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Of its headings, as the usual viewers of Markdown make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if not re.match("https?:", link):
            name, _, anchor = link.partition("#")
            there = (page.parent / name).resolve() if name else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


def test_what_the_readme_names_of_the_documentation_is_there():
    """Links are looked at above; here what stands in commands and in its places to be filled."""
    made = r"(ship|verify) results/\w+ docs/results/\w+|<!-- results of .+? -->"  # folders that `ship` makes
    text = re.sub(made, "", (ROOT / "README.md").read_text())
    named = {name.rstrip("./") for name in re.findall(r"\bdocs/[\w./-]+", text)}
    assert "docs/cluster.md" in named and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_sources_name_pages_that_are_there():
    files = [*PACKAGE.rglob("*.py"), *ROOT.glob("rules/*.smk"), *ROOT.glob("workflow/**/*.yaml")]
    named = {name for file in files for name in re.findall(r"docs/[\w/]+\.md", file.read_text())}
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_stands_in_the_index():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / name).resolve() for name in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_terms_are_said_of_every_data_set_and_network():
    rooms = ("data/images/sources", "data/text/sources", "scorers/extractors", "scorers/teachers")
    kinds = "ImageSet|TextSet|LatentSet|Extractor|Trained|Teacher"
    text = "".join(file.read_text() for room in rooms for file in (PACKAGE / room).glob("*.py"))
    names = set(re.findall(rf"^def ([a-z]\w*)\([^)]*\) -> (?:{kinds}):", text, re.MULTILINE))
    said = set(re.findall(r"`(\w+)`", (ROOT / "docs/data.md").read_text()))
    assert len(names) > 15 and names <= said


def test_needs_are_said_of_every_table():
    lines = re.findall(r"^\| (.+?) \|", (ROOT / "docs/needs.md").read_text(), re.MULTILINE)
    said = {word for line in lines for word in re.split(", ", line.replace("`", ""))}
    short = {table: table.removeprefix("table").removeprefix("_").upper() for table in TABLES if "table" in table}
    assert {short.get(table, table) for table in TABLES} <= said


def test_citation_is_of_this_version_and_names_the_paper():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type", "abstract", "keywords", "license"} <= found.keys()
    assert found["version"] == diffusionblocks.__version__
    (paper,) = found["references"]
    assert {"type", "title", "authors", "year", "url", "identifiers"} <= paper.keys()
    page = (ROOT / "report/provenance.html.jinja").read_text()  # whose BibTeX says the same
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert all(f"{{{text}}}" in page for text in (found["title"], paper["title"], names, str(paper["year"])))
    assert all(author["name"] in page for author in found["authors"])

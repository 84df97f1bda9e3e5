"""What the page shows of a table: its numbers, its words, and what it says of a table of one's own."""

import html
import math
import re
from functools import partial

import pytest
from page_helpers import (
    IMAGES,
    NOPROP,
    headings,
    lines_of,
    measured,
    plan,
    shown_section,
    words_of,
    written,
    written_page,
)

from diffusionblocks.page.page import duration, in_bytes, number


@pytest.fixture
def shown(tmp_path):
    """shown(rows, paper): the page's section of a table."""
    return partial(shown_section, tmp_path)


def test_texts_of_all_rows_stand_under_their_prompt(shown):
    part = shown({row: [written(row, f"{row} word")] for row in ("a", "b")})
    assert part["texts"] == [
        ("we the people", {"a": "a word", "b": "b word"}),
        ("fellow citizens", {"a": "a words", "b": "b words"}),
    ]
    assert "Generated images" not in headings(part)


def test_texts_without_a_prompt_are_numbered(tmp_path, shown):
    rows = {row: [written(row, f"{row} word", ("", ""))] for row in ("a", "b")}
    assert shown(rows)["texts"] == [(None, {"a": "a word", "b": "b word"}), (None, {"a": "a words", "b": "b words"})]
    made = written_page(tmp_path, plan(tmp_path, rows, IMAGES))
    assert "<summary>Sample 1</summary>" in made and "<summary>Sample 2</summary>" in made
    assert "the same prompts" not in made


# Numbers


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.005,), "1.00"),
        ((-1.256,), "−1.26"),
        ((1.256, 1, True), "+1.3"),
        ((-1.0, 2, True), "−1.00"),
        ((7, 0), "7"),
        ((None,), "–"),
        ((math.nan,), "–"),
        ((math.nan, 2, True), "–"),
    ],
)
def test_numbers_of_the_page(arguments, text):
    assert number(*arguments) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (42_120_000, "42.1 MB"), (5e12, "5000 GB")],
)
def test_bytes(value, text):
    assert in_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (9_000, "2 h 30 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


# The whole page


@pytest.fixture
def page(tmp_path):
    """page(paper, remarks): the page of a table with two trained rows, the second with a remark, and a printed one."""

    def page(paper, remarks):
        rows = {row: {"metrics": [measured(accuracy=40.0)], "remark": remarks.get(row)} for row in ("dt", "ct")}
        rows["dt_longer"] = {**rows["dt"], "paper_row": "dt", "remark": remarks.get("dt_longer")}
        return written_page(tmp_path, plan(tmp_path, rows, paper, name="table6"))

    return page


def test_a_table_of_the_paper_is_named_as_there(page):
    made = page(NOPROP, {})
    assert "<h2>Table 6</h2>" in made and "In the paper: NoProp." in made and "<h1>DiffusionBlocks, reproduced" in made


# Figures


def test_a_figure_has_an_address_words_and_a_caption(tmp_path):
    rows = {row: [measured(row, blocks=blocks, loss=blocks, fid_test=5.0)] for row, blocks in (("a", 1), ("b", 2))}
    made = written_page(tmp_path, plan(tmp_path, rows, IMAGES), plan(tmp_path, rows, IMAGES, name="table2"))
    pattern = r'<figure id="(\S+)">.*?<div role="img" aria-label="[^"]+"><svg .*?<figcaption>[^<]+</figcaption>'
    names = ("outcomes", "samples", "trajectory", "losses", "partition")
    found = [f"{table}-{name}" for table in ("table1", "table2") for name in names]
    assert re.findall(pattern, made, re.DOTALL) == found
    ids = re.findall(r' id="([^"]*)"', made)
    assert len({*ids}) == len(ids), "also of figures that are equal"
    assert {*re.findall(r'href="#([^"]*)"', made)} <= {*ids}
    assert not re.search(r"<metadata|image/svg|<style.*?<style", made, re.DOTALL)


# The order of the page


def test_the_papers_tables_stand_in_its_order_and_what_is_counted_before_them(tmp_path):
    sources = {
        "table_a2": "Table A2",
        "table8": "Table 8",
        "memory": "Appendix G",
        "table1": "Table 1",
        "b": "Figure 3",
    }
    sources["mine"] = None
    papers = {name: source and {**IMAGES, "source": source} for name, source in sources.items()}
    rows = {"a": [measured("a", fid_test=5.0)]}
    counted = {"a": [{**measured("a", fid_test=5.0), "parts": {}}]}
    made = written_page(
        tmp_path,
        *(plan(tmp_path, counted if name == "memory" else rows, paper, name=name) for name, paper in papers.items()),
    )
    titles = re.findall("<h2>(.*?)</h2>", made)
    assert titles[:4] == ["Memory and compute", "Appendix G", "Table 1", "Table 8"]
    assert titles[4:7] == ["Table A2", "Figure 3", "Not in the paper"], "what is trained is no matter of compute"
    assert titles[7:] == ["Ours", "Stand-ins and limits", "Provenance, and how to cite"]
    contents = re.findall(r'href="#(\w+)"', made[made.index("<nav") : made.index("</nav>")])
    assert contents == ["first", "resources", "memory", *("table1", "table8", "table_a2", "b", "ours", "mine"), *ENDS]
    assert set(contents) <= set(re.findall(r' id="(\w+)"', made))


ENDS = ("limits", "provenance")


def test_the_first_screen_says_what_was_run_and_how_to_go_on(page):
    made = page(NOPROP, {})
    first = made[made.index('<section id="first"') : made.index("</section>")]
    for said in ("<strong>demo</strong>", "<dd>digits</dd>", "<dd>aaa</dd>", "<dd>cpu</dd>", "in 9 jobs"):
        assert said in first
    assert "snakemake table6 --config scale=demo" in first
    assert "What held" not in made, "nothing is claimed of this table"


def test_one_line_stands_for_an_experiment_and_the_others_come_when_asked_for(tmp_path):
    rows = {row: [measured(row, fid_test=value)] for row, value in (("a", 5.0), ("b", 4.0))}
    claim = {"metric": "fid_test", "row": "b", "against": "a", "margin": 0, "source": "Table 2"}
    claims = [{**claim, "text": "Better."}, {**claim, "text": "Much better.", "margin": 2}]
    made = written_page(tmp_path, plan(tmp_path, rows, IMAGES, claims=claims))
    lines = re.findall(r'<tr id="claim-table1-\d" class="(\w+)" data-verdict="cannot tell">', made)
    assert lines == ["main", "more"] and "Show all 2 claims" in made
    assert "Show all" not in written_page(tmp_path, plan(tmp_path, rows, IMAGES, claims=claims[:1]))


def test_a_page_needs_no_network_and_no_script(page):
    made = page(NOPROP, {})
    assert not re.search(r'(?:src|href)="(?!#|https://arxiv|data:)', made)
    body = re.sub("<script>.*?</script>", "", made, flags=re.DOTALL)
    assert " hidden>" not in body.replace('<span class="choice" hidden>', ""), "only what the script serves"


# Claims, and what depth is worth


def claimed(folder, deep, shallow, blocks, judged_by="accuracy"):
    """The page, in one line, without tags and script, of a table whose blocks should be at most two points behind."""
    rows = {"deep": deep, "shallow": shallow, "blocks": blocks}
    rows = {row: [measured(row, accuracy=value) for value in values] for row, values in rows.items()}
    paper = {"title": "ViT", "source": "Table 1", "data": "digits", "metrics": {"accuracy": {}}, "rows": {"deep": {}}}
    claim = {"metric": "accuracy", "row": "blocks", "margin": 0}
    claims = [
        {**claim, "text": "Near.", "against": "deep", "margin": -2},
        {**claim, "text": "Deeper.", "against": "shallow", "ours": True},
    ]
    depth = [{"metric": judged_by, "deep": "deep", "shallow": "shallow"}]
    made = written_page(folder, plan(folder, rows, paper, claims=claims, depth=depth))
    return html.unescape(" ".join(re.sub("<[^>]+>", " ", made[made.index("<body>") : made.index("<script>")]).split()))


def test_the_page_says_that_a_scale_without_depth_decides_nothing(tmp_path):
    made = claimed(tmp_path, [98.4, 98.0, 98.6], [98.0, 98.4, 98.3], [98.3, 98.2, 98.4])
    assert "At scale demo, the one claim of the paper that is looked at here: 1 cannot be told yet." in made
    assert "Near. – 0.03 ± 0.35 points worse to the control 0.07 ± 0.42 better cannot tell Depth is not shown" in made
    assert made.index("Not in the paper") < made.index("Deeper. – 0.07 ± 0.42 points better cannot tell")
    assert (
        "What depth is worth here deep against shallow, which has the layers of one block; both are trained end to "
        "end. accuracy (%): +0.10 ± 0.73 (half of a 90% interval, seed by seed), 3 seeds. This scale cannot tell "
        "whether blocks reach end to end: depth is not shown to be worth anything here, within the error." in made
    )


def test_where_depth_counts_the_page_says_so(tmp_path):
    made = claimed(tmp_path, [98.4, 98.0, 98.6], [90.0, 90.1, 90.2], [98.3, 98.2, 98.4])
    assert "better held 3" in made and "looked at here: 1 held." in made and "cannot tell" not in made.split("Seeds")[1]
    assert "3 seeds. Depth is worth something, so blocks can be held against end to end." in made
    made = claimed(tmp_path, [90.0, 90.1, 90.2], [98.4, 98.0, 98.6], [90.1, 90.0, 90.2])
    assert "did not hold Worse than the control (shallow) 3" in made
    assert "blocks reach end to end: depth is worth less than nothing here." in made


def test_one_seed_says_nothing_of_depth(tmp_path):
    made = claimed(tmp_path, [98.4], [90.0], [98.3])
    assert "0.10 points worse to the control 8.30 better cannot tell One seed: no spread is known" in made
    assert "Verdicts that are not given, or not to be leaned on One seed: no spread is known ( " in made
    assert "accuracy (%): +8.40, 1 seed. The spread is not known, so nothing can be said." in made


def test_what_no_row_measures_says_nothing_of_depth(tmp_path):
    made = claimed(tmp_path, [98.4], [90.0], [98.3], judged_by="mauve")
    assert re.search("one block; both are trained end to end. mauve: not measured.", made, re.IGNORECASE)
    assert "accuracy (%): +8.40, 1 seed." in made


def test_a_table_without_a_control_says_nothing_of_depth(page):
    assert "What depth is worth" not in page(NOPROP, {})


# A table of one's own


OWN = {"a": {"metrics": [measured("a", accuracy=40.0, training_seconds=9.0)], "remark": "Longer."},
       "b": {"metrics": [measured("b", blocks=2, title="clothes", accuracy=42.5)], "against": "a"}}  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """A page with one table of one's own alone: its text."""
    return written_page(tmp_path, plan(tmp_path, OWN, name="mixers", title="Mixers & others", figures=["block_count"]))


def test_a_table_of_ones_own_is_never_called_the_papers(own):
    assert "<h1>Measured with DiffusionBlocks</h1>" in own and "<h2>Mixers &amp; others</h2>" in own
    body = own[own.index("<body>") : own.index("<h3>The software")]
    assert not re.search(r"paper|Table [\dA]|arxiv|[Ss]tand-in|What held|reproduced", body)
    assert "Quality against the number of blocks" in own
    groups, head, *lines = lines_of(own)
    assert head == ["row", "measured", "gap"] and groups[1].startswith("accuracy (%)")
    assert lines == [["a1", "40.00", "–"], ["b", "42.50", "+2.50"]]
    assert "1 a: Longer." in words_of(own) and "Data: digits (a); clothes (b). 1 seed of each row." in words_of(own)


def test_beside_tables_of_the_paper_it_keeps_its_title(tmp_path):
    printed = plan(tmp_path, {"dt": [measured("dt", title="clothes", accuracy=40.0)]}, NOPROP, name="table6")
    made = written_page(tmp_path, printed, plan(tmp_path, OWN, name="mixers", title="Mixers"))
    assert re.findall("<h2>(.*?)</h2>", made) == [
        "Table 6",
        "Not in the paper",
        "Mixers",
        "Stand-ins and limits",
        "Provenance, and how to cite",
    ]
    assert made.count("In the paper:") == 1 and "</a>: clothes for digits</li>" in made

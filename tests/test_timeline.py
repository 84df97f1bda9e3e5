"""When jobs ran and where, of made-up records whose times are known."""

import re
from xml.etree import ElementTree

import pytest
from page_helpers import measured, plan

from diffusionblocks.page.results import Results
from diffusionblocks.page.timeline import Bar, _axis, _lanes, at_once, bars_of, timeline

DAY = "2026-11-26T"


def attempt(begin, node="node1", step=0, total=100):
    return {"time": f"{DAY}{begin}+0000", "node": node, "hardware": "GPU", "step": step, "total": total, "commit": "a"}


def job(seconds, *attempts):
    return {"losses": {}, "seconds": float(seconds), "attempts": list(attempts)}


def run(row, evaluated="12:10:00", **parts):
    found = measured(row, fid_test=5.0)
    ended = {"time": f"{DAY}{evaluated}+0000", "seconds": 3.0, "hardware": "GPU", "commit": "a"}
    return {**found, "parts": parts, "sampling": [], "evaluation": {**ended, "node": "node1"}}


@pytest.fixture
def tables(tmp_path):
    """A row end to end, stopped and gone on with, and one of three blocks, on three nodes at once."""
    whole = run("whole", all=job(100, attempt("12:00:00"), attempt("12:05:00", step=40)))
    blocks = {f"block{i}": job(60, attempt("12:00:30", f"node{i}")) for i in range(3)}
    rows = {
        "whole": [whole],
        "blocks": {"metrics": [run("blocks", **blocks)], "against": "whole", "title": "In blocks"},
    }
    return [Results(plan(tmp_path, rows))]


def test_trainings_begin_at_their_time_and_evaluations_end_at_it(tables):
    bars = sorted(bars_of(tables))
    noon = bars[0].begin
    found = {(bar.row, bar.part): [] for bar in bars}
    for bar in bars:
        found[bar.row, bar.part].append((bar.begin - noon, bar.end - noon, bar.node, bar.kind))
    # Forty updates of a hundred before it was stopped, sixty afterwards; a hundred seconds in all.
    assert found["t/whole", "all"] == [(0, 40, "node1", "whole"), (300, 360, "node1", "whole")]
    assert [found["t/blocks", f"block{i}"] for i in range(3)] == [[(30, 90, f"node{i}", "block")] for i in range(3)]
    assert found["t/whole", "evaluation"] == [(597, 600, "node1", "other")]


def test_a_row_of_two_tables_is_drawn_once(tables):
    assert bars_of(tables * 2) == bars_of(tables)


def test_the_caption_says_how_many_ran_at_once_and_where(tables):
    drawn = timeline(tables)
    # Two rows with one evaluation each; four trainings, one of them in two attempts.
    assert drawn["caption"].startswith(
        "7 jobs, up to 4 at a time, on node1, node0, node2. Pauses are cut out (dashed, 2)."
    )
    assert "each block of “In blocks” is a job of its own" in drawn["parts_caption"]
    assert "up to 3 of them ran at a time, on 3 nodes" in drawn["parts_caption"]
    assert [words for words, _ in drawn["kinds"]] == [
        *("training of one block", "training of a whole network", "sampling, evaluation, timing")
    ]
    for name in ("overview", "parts"):
        root = ElementTree.fromstring(drawn[name])
        left, width = (float(root.get("viewBox").split()[i]) for i in (0, 2))
        for path in root.iter("path"):
            begin = [float(x) for x in re.findall(r"M([\d.]+)", path.get("d"))]
            assert all(left <= x <= width for x in begin)
    names = [text.text for text in ElementTree.fromstring(drawn["parts"]).iter("text") if text.get("text-anchor")]
    assert names == ["whole 0 all", "In blocks 0 block0", "In blocks 0 block1", "In blocks 0 block2"]


def bar(begin, end, node="n"):
    return Bar(begin, end, node, "block", "t/a", 0, "block0")


def test_what_ends_within_the_second_that_another_begins_is_no_overlap():
    """Times are whole seconds, cut off."""
    assert at_once([bar(0, 10.4), bar(10, 20)]) == 1 and at_once([bar(0, 10.4), bar(8, 20), bar(9, 9.5)]) == 2
    assert [len(lane) for lane in _lanes([bar(0, 10.4), bar(3, 5), bar(10, 20), bar(12, 13)])] == [2, 2]


def test_pauses_are_cut_and_what_is_worked_keeps_its_share():
    night = 50_000
    place, pauses = _axis([bar(0, 100), bar(50, 150), bar(night, night + 50)])
    assert pauses == [150]
    assert place(150) == pytest.approx(3 * (place(night + 50) - place(night))) and place(night) > place(150)
    place, pauses = _axis([bar(0, 100), bar(101, 200)])
    assert not pauses and place(100) == pytest.approx(place(200) / 2)


def test_without_times_there_is_none_and_without_blocks_no_parts(tmp_path):
    assert timeline([Results(plan(tmp_path, {"a": [measured("a", fid_test=5.0)]}))]) is None
    drawn = timeline([Results(plan(tmp_path, {"a": [run("a", all=job(5, attempt("12:00:00")))]}))])
    assert drawn["parts"] is None and drawn["caption"].startswith("2 jobs, up to 1 at a time, on node1.")


def test_a_thousand_jobs_are_small(tmp_path):
    rows = {}
    for number in range(50):
        parts = {}
        for i in range(20):
            parts[f"block{i}"] = job(30, attempt(f"{number % 12 + 10}:{2 * i:02d}:{number:02d}", f"node{i % 16}"))
        rows[f"row{number}"] = [run(f"row{number}", **parts)]
    drawn = timeline([Results(plan(tmp_path, rows))])
    assert "on 16 nodes" in drawn["caption"] and len(drawn["overview"]) + len(drawn["parts"]) < 60_000

"""Which job ran where and when, by the records of all jobs: that blocks were trained apart, and at once. No torch.

Plain SVG in the colours of the page, so that it is small with a thousand jobs and follows light and dark.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

from diffusionblocks.page.cost import instant
from diffusionblocks.page.results import Results

WIDTH, MARGIN, TICK = 760, 190, 80  # of a drawing, its names at the left, at least between two times; in pixels
IDLE = 0.05  # a pause longer than this share of all work is cut
HEIGHT = 420  # of the overview, at most
SEEDS = 3  # of the row whose parts are drawn one by one
# What a bar stands for, and its colour: the page's, with what it is where there is no style sheet.
KINDS = {
    "block": ("training of one block", "var(--accent, #1f5c8f)"),
    "whole": ("training of a whole network", "var(--ink, currentColor)"),
    "other": ("sampling, evaluation, timing", "var(--soft, gray)"),
}
STYLE = "display:block;width:100%;min-width:36rem;max-width:52rem;height:auto;font:11px system-ui,sans-serif"


class Bar(NamedTuple):
    """A job at work: from begin to end, in seconds since 1970, on a node (or what is known of the machine)."""

    begin: float
    end: float
    node: str
    kind: str
    row: str
    seed: int
    part: str


def timeline(tables: list[Results]) -> dict | None:
    """overview: an SVG of all jobs, by machine; parts: one of the parts of the first row that was trained in several
    jobs, and of the row that it is compared with, or None; caption and parts_caption: what they show, in words; kinds:
    [(what a bar stands for, its colour)]. None where no job says when it ran.
    """
    bars = sorted(bars_of(tables))
    if not bars:
        return None
    place, pauses = _axis(bars)
    nodes = list(dict.fromkeys(bar.node for bar in bars))
    lanes = [(node, lane) for node in nodes for lane in _lanes([bar for bar in bars if bar.node == node])]
    names = [node if i == 0 or lanes[i - 1][0] != node else "" for i, (node, _) in enumerate(lanes)]
    height = max(2.0, min(14.0, HEIGHT / len(lanes)))
    where = ", ".join(nodes) if len(nodes) < 4 else f"{len(nodes)} nodes"
    words = f"{len(bars)} jobs, up to {at_once(bars)} at a time, on {where}"
    drawn = {
        "overview": _svg(words, list(zip(names, (lane for _, lane in lanes), strict=True)), place, pauses, height),
        "caption": f"{words}.{_cut(pauses)} Times of day are those of {_day(bars[0].begin)}.",
        "kinds": [about for kind, about in KINDS.items() if any(bar.kind == kind for bar in bars)],
    }
    return drawn | _parts(tables, bars)


def bars_of(tables: Iterable[Results]) -> set[Bar]:
    """All jobs that say when they ran, each once. A training of several attempts has a bar for each."""
    found = set()
    for run in (run for results in tables for seeds in results.runs.values() for run in seeds):
        row, seed = f"{run['run']['table']}/{run['run']['row']}", run["run"]["seed"]
        kind = "block" if len(run["parts"]) > 1 else "whole"
        for part, about in run["parts"].items():
            for begin, seconds, attempt in _attempts(about):
                found.add(Bar(begin, begin + seconds, _node(attempt), kind, row, seed, part))
        ended = [("sampling", job) for job in run["sampling"]] + [("evaluation", run["evaluation"])]
        for part, job in ended:
            if "time" in job:
                end = _seconds(job["time"])
                found.add(Bar(end - job["seconds"], end, _node(job), "other", row, seed, part))
        if "time" in (run.get("timing") or {}):  # of all rows that were timed together
            end = _seconds(run["timing"]["time"])
            found.add(Bar(end - run["timing"]["seconds"], end, _node(run["timing"]), "other", "", 0, "timing"))
    return found


def _attempts(about):
    """(begin, seconds, record) of each attempt at a training; its seconds are shared out by its updates."""
    attempts = [attempt for attempt in about["attempts"] if "time" in attempt]
    steps = [attempt.get("step", 0) for attempt in attempts]
    for i, (attempt, first) in enumerate(zip(attempts, steps, strict=True)):
        last = steps[i + 1] if i + 1 < len(steps) else attempt.get("total")
        share = (last - first) / attempt["total"] if attempt.get("total") else 1
        yield _seconds(attempt["time"]), about["seconds"] * share, attempt


def _seconds(text):
    return instant(text).timestamp()


def _node(job):
    return job.get("node") or job["hardware"]


def at_once(bars: Iterable[Bar]) -> int:
    """How many jobs ran at the same time, at most. A record's second is no overlap."""
    changes = sorted((moment, change) for bar in bars for moment, change in ((bar.begin + 1, 1), (bar.end, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return max(most, 1)


def _lanes(bars: list[Bar]) -> list[list[Bar]]:
    """Bars of one node on as few lines as none covers another."""
    lanes, ends = [], []
    for bar in bars:
        if ends and ends[0][0] <= bar.begin + 1:  # times are whole seconds
            number = heapq.heappop(ends)[1]
            lanes[number].append(bar)
        else:
            number = len(lanes)
            lanes.append([bar])
        heapq.heappush(ends, (bar.end, number))
    return lanes


def _axis(bars) -> tuple[Callable[[float], float], list[float]]:
    """(pixels to the right of the names of a moment, moments after which a pause was cut out)."""
    spans = []
    for bar in bars:
        if spans and bar.begin <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], bar.end)
        else:
            spans.append([bar.begin, bar.end])
    limit = max(IDLE * sum(end - begin for begin, end in spans), 1.0)
    merged = spans[:1]
    for begin, end in spans[1:]:
        if begin - merged[-1][1] <= limit:
            merged[-1][1] = end
        else:
            merged.append([begin, end])
    starts, total = [], 0.0
    for begin, end in merged:
        starts.append((begin, end, total))
        total += end - begin + limit / 2
    scale = (WIDTH - MARGIN) / max(total - limit / 2, 1.0)

    def place(moment):
        begin, end, before = next(span for span in reversed(starts) if span[0] <= moment or span is starts[0])
        return (min(moment, end) - begin + before) * scale

    return place, [end for _, end in merged[:-1]]


def _parts(tables, bars):
    """The drawing of the parts of one row, one line each, and what it shows."""
    nothing = {"parts": None, "parts_caption": None}
    for results in tables:
        for row, seeds in results.runs.items():
            if len(seeds[0]["parts"]) < 2:
                continue
            wanted = [other for other in (results.against(row), row) if other in results.runs]
            lines = []
            for title, run in (
                (results.title_of(other), run) for other in wanted for run in results.runs[other][:SEEDS]
            ):
                about = run["run"]
                name = f"{about['table']}/{about['row']}", about["seed"]
                found = defaultdict(list)
                for bar in bars:
                    if (bar.row, bar.seed) == name and bar.kind != "other":
                        found[bar.part].append(bar)
                lines += [(f"{title} {about['seed']} {part}", found[part]) for part in run["parts"] if found[part]]
            own = [bar for _, line in lines for bar in line if bar.kind == "block"]
            if not own:
                continue
            place, pauses = _axis(sorted(bar for _, line in lines for bar in line))
            nodes = len({bar.node for bar in own})
            words = (
                f"{results.title}: each block of “{results.title_of(row)}” is a job of its own, which reads no other; "
                f"up to {at_once(own)} of them ran at a time{f', on {nodes} nodes' if nodes > 1 else ''}"
            )
            return {
                "parts": _svg(words, lines, place, pauses, 14.0),
                "parts_caption": f"{words}.{_cut(pauses)} A line is a row, a seed and what was trained.",
            }
    return nothing


def _cut(pauses):
    return f" Pauses are cut out (dashed, {len(pauses)})." if pauses else ""


def _svg(title, lines, place, pauses, height):
    """Lines of bars, each with its name, over an axis of times."""
    step = height + (4 if height > 8 else 1)
    bottom = len(lines) * step
    right = f'fill="currentColor" x="{MARGIN - 6}" text-anchor="end"'
    found = [
        f'<svg viewBox="0 0 {WIDTH + 10} {bottom + 18:.0f}" role="img" style="{STYLE}"><title>{escape(title)}</title>'
    ]
    paths, last = defaultdict(list), -100.0
    for number, (name, bars) in enumerate(lines):
        top = number * step
        if name:
            short = name if len(name) < 34 else f"…{name[-32:]}"
            found.append(f'<text {right} y="{max(top + height - 3, 9):.1f}">{escape(short)}</text>')
        for bar in bars:
            left, width = MARGIN + place(bar.begin), max(place(bar.end) - place(bar.begin), 1)
            paths[bar.kind].append(f"M{left:.1f} {top:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z")
    found += [f'<path style="fill:{KINDS[kind][1]}" d="{"".join(drawn)}"/>' for kind, drawn in paths.items()]
    for moment in pauses:
        found.append(
            f'<path stroke="currentColor" stroke-dasharray="3 3" d="M{MARGIN + place(moment) + 2:.1f} 0v{bottom:.1f}"/>'
        )
    every = sorted(bar for _, bars in lines for bar in bars)
    for bar in every:
        left = place(bar.begin)
        if left - last >= TICK and left <= WIDTH - MARGIN - TICK / 2:
            found.append(
                f'<text fill="currentColor" x="{MARGIN + left:.1f}" y="{bottom + 13:.1f}">{_clock(bar.begin)}</text>'
            )
            last = left
    return "".join([*found, "</svg>"])


def _clock(moment):
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S")


def _day(moment):
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d, UTC")

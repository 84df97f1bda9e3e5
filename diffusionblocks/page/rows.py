"""A table as the page shows it: a row per system, a group of columns per metric, what is said once. No torch.

In the table stands what the paper prints and something here measures; in a table of one's own, all that does not stand
beside. Every other number has a second table. What is the same for many rows is a note; what nothing measures at this
scale, and what nothing trains, is named below.
"""

import itertools
from collections.abc import Callable, Iterable

import pandas as pd

from diffusionblocks.page import table
from diffusionblocks.page.claims import column
from diffusionblocks.page.results import Results
from diffusionblocks.page.wording import decimals, in_words

CELL = ("paper", "ours", "error", "gap", "gap_error", "paper_gap", "decimals")
COUNTED = "none: "  # how the title of what has no data begins
Lines = dict[tuple[str, str], dict]  # of a csv, by row and metric


def rows(results: Results, frame: pd.DataFrame) -> dict:
    """What the template shows of a table. frame: its csv.

    main, more: {columns, rows}, the table and the second one, as `_part` has them
    headings, properties: of words about rows, see `Results.properties`; seeds: of each row, None where they differ
    notes: as `_notes`; constants: as `_constants`, of columns that need no table
    stand_ins: [text]; data, judges: as `_share`, of what stands in for nothing
    sizes: {how: names of data} of rows without data, which are counted; counted: whether nothing here was trained
    untrained: [{id, words, numbers: {metric: value}}] of rows that are printed and that nothing here trains
    unmeasured: {metric: {row: value}} of columns that are printed, and that no row has
    in_place: {column: the one that is measured in its place for a claim} of these, in words
    left_out: [{id, words}] of rows without a number at this scale; without: {why: columns that rows are without}
    """
    lines = {(line["row"], line["metric"]): line for line in _with_decimals(frame)}
    measured = {key: line for key, line in lines.items() if _is(line["ours"])}
    trained = [row for row in results.rows() if row in results.runs]
    there = [row for row in trained if any(row == name for name, _ in measured)]
    metrics = list(dict.fromkeys(metric for _, metric in measured))
    printed = [metric for metric in results.paper["metrics"] if metric in metrics]
    inside = printed or [metric for metric in metrics if not all(_beside(measured, metric))]
    constants = _constants(results, measured, [metric for metric in metrics if metric not in inside])
    others = [metric for metric in metrics if metric not in {*inside, *constants}]
    notes, properties = _notes(results, measured), {row: results.properties(row) for row in there}
    stand_ins = sorted({text for key in measured for text in table.stand_ins(results, *key)})
    data, sizes, without = _data(results, trained)
    counts = {len(results.runs[row]) for row in there}
    numbers = {row: _printed(results, row) for row in results.paper["rows"]}
    return {
        "main": _part(results, lines, there, inside, notes),
        "more": _part(results, measured, there, others, notes),
        "headings": list(dict.fromkeys(heading for known in properties.values() for heading in known)),
        "properties": properties,
        "seeds": counts.pop() if len(counts) == 1 else None,
        "notes": notes,
        "constants": list(constants.values()),
        "stand_ins": stand_ins,
        "data": _share({row: data[row] for row in there}, results.title_of, stand_ins),
        "sizes": sizes,
        "counted": bool(there) and not any(run["parts"] for row in there for run in results.runs[row]),
        "judges": _share(_judges(measured), in_words, stand_ins),
        "untrained": [
            {**named(results, row), "numbers": {in_words(metric): value for metric, value in known.items()}}
            for row, known in numbers.items()
            if row not in results.runs
        ],
        "unmeasured": {
            in_words(metric): {
                results.title_of(row): known[metric] for row, known in numbers.items() if metric in known
            }
            for metric in results.paper["metrics"]
            if trained and metric not in metrics and any(metric in known for known in numbers.values())
        },
        "in_place": {
            in_words(claim["metric"]): in_words(found)
            for claim in results.plan["claims"]
            if (found := column(claim, results.plan["scale"])) != claim["metric"] and found in metrics
        },
        "left_out": [named(results, row) for row in trained if row not in there],
        "without": without,
    }


def named(results: Results, row: str) -> dict[str, str]:
    """{row, id, words} of a row; the id is its permalink, and `<id>-origin` where its numbers come from."""
    return {"row": row, "id": f"{results.name}-{row}", "words": results.title_of(row)}


def _with_decimals(frame):
    """The csv's lines, each with the decimals that its metric's numbers have."""
    found = {}
    for (metric, unit), lines in frame[frame["unit"].notna()].groupby(["metric", "unit"]):
        numbers, errors = (
            pd.concat([lines[a], lines[b]]).dropna() for a, b in (("paper", "ours"), ("error", "gap_error"))
        )
        found[metric] = decimals(numbers, unit, errors)
    return [{**line, "decimals": found.get(line["metric"], 2)} for line in frame.to_dict("records")]


def _is(value):
    """Whether a cell of the csv holds something: an empty one is NaN."""
    return value == value


def _beside(measured, metric):
    return (line["beside"] for (_, name), line in measured.items() if name == metric)


def _printed(results, row):
    """{metric: number} that the paper prints of a row."""
    return {metric: value for metric, value in results.of_row(row).items() if metric in results.paper["metrics"]}


def _part(results: Results, lines: Lines, there: list[str], metrics: list[str], notes: list[dict]) -> dict:
    """{columns: as `_column`, rows: [{row, id, words, own, seeds, marks, cells: {metric: {CELL}}}]} of some metrics.

    own: whether the paper does not print the row; marks: of its notes.
    """
    found = []
    for row in there:
        cells = {metric: lines[row, metric] for metric in metrics if (row, metric) in lines}
        if any(_is(line["ours"]) for line in cells.values()):
            about = {
                "own": results.printed and row not in results.paper["rows"],
                "seeds": len(results.runs[row]),
                "marks": [note["mark"] for note in notes if note["mark"] and row in note["rows"]],
                "cells": {metric: {key: line[key] for key in CELL} for metric, line in cells.items()},
            }
            found.append({**named(results, row), **about})
    return {"columns": [_column(lines, metric) for metric in metrics], "rows": found}


def _column(lines, metric):
    """{metric, words, unit, better, samples: in words, gaps: whether a row has one}."""
    own = [line for (_, name), line in lines.items() if name == metric and _is(line["ours"])]
    samples = sorted({int(line["samples"]) for line in own if _is(line["samples"])} - {0})
    return {
        "metric": metric,
        "words": in_words(metric),
        "unit": next((line["unit"] for line in own if _is(line["unit"])), ""),
        "better": next((line["better"] for line in own if _is(line["better"])), None),
        "samples": " to ".join(f"{number:,}" for number in dict.fromkeys((*samples[:1], *samples[-1:]))),
        "gaps": any(_is(line["gap"]) or _is(line["paper_gap"]) for line in own),
    }


def _constants(results, measured, metrics):
    """{metric: {words, unit, decimals, values: {data: value}}} of those that have one value for all rows and seeds on
    the same data, several rows on each; the data are None where they make no difference.
    """
    found = {}
    for metric in metrics:
        values, having = {}, {}
        for row in (row for row, name in measured if name == metric):
            for run in results.runs[row]:
                values.setdefault(run["data"]["title"], set()).add(run["metrics"][metric]["value"])
                having.setdefault(run["data"]["title"], set()).add(row)
        if all(len(values[title]) == 1 and len(having[title]) > 1 for title in values):
            first = {title: next(iter(known)) for title, known in values.items()}
            if len(set(first.values())) == 1:
                first = {None: next(iter(first.values()))}
            digits = next(line["decimals"] for (_, name), line in measured.items() if name == metric)
            found[metric] = {**_column(measured, metric), "decimals": digits, "values": first}
    return found


def _notes(results, measured):
    """[{text, rows, mark, words}] of what numbers say of themselves, of those printed elsewhere, and of remarks, each
    text once.

    rows: that it is of; mark: its number; words: of its rows. What is of all rows has neither.
    """
    found, columns, having = {}, {}, {}
    for (row, metric), line in measured.items():
        having.setdefault(metric, {})[row] = None
        texts = table.notes(results.numbers(row)[metric])
        if _is(line["elsewhere"]):
            texts.append(f"{in_words(metric)}: {line['elsewhere']:g} in {line['elsewhere_source']}")
        for text in texts:
            found.setdefault(text, {})[row] = None
            columns.setdefault(text, {})[metric] = None
    everywhere = {text: {row for metric in of_text for row in having[metric]} for text, of_text in columns.items()}
    for row in dict.fromkeys(row for row, _ in measured):
        if remark := results.remark(row):
            found.setdefault(remark, {})[row] = None
    notes, marks = [], itertools.count(1)
    for text, of_rows in found.items():
        general = len(of_rows) > 1 and of_rows.keys() == everywhere.get(text)
        words = None if general else [results.title_of(row) for row in of_rows]
        notes.append({"text": text, "rows": [*of_rows], "words": words, "mark": None if general else next(marks)})
    return notes


def _data(results, trained):
    """({row: titles of its data}, {how: whose sizes}, {why: columns that rows are without}).

    What was counted has no data: its title says the other two, in one text (evaluation/count.py).
    """
    data, sizes, without = {row: {} for row in trained}, {}, {}
    for row in trained:
        for title in (run["data"]["title"] for run in results.runs[row]):
            if not title.startswith(COUNTED):
                data[row][title] = None
                continue
            first, *others = title.removeprefix(COUNTED).split("; ")
            how, _, name = first.partition(" at the sizes of ")
            sizes.setdefault(how, {})[name] = None
            for columns, _, why in (other.partition(": ") for other in others):
                without.setdefault(why, {}).update(dict.fromkeys(map(in_words, columns.split(", "))))
    return data, *({key: list(names) for key, names in found.items()} for found in (sizes, without))


def _judges(measured):
    """{metric: titles of the extractors and teachers behind it}."""
    found = {}
    for (_, metric), line in measured.items():
        if _is(line["extractor"]):
            found.setdefault(metric, {})[line["extractor"]] = None
    return found


def _share(titles: dict[str, Iterable[str]], words: Callable[[str], str], stand_ins: list[str]) -> dict:
    """{title: what has it, in words} of {what: its titles}, without titles that stand in for something.

    Nothing is said where all have it.
    """
    found = {}
    for what, of_one in titles.items():
        for title in of_one:
            if not any(text.startswith(f"{title} for ") for text in stand_ins):
                found.setdefault(title, []).append(words(what))
    return {title: [] if len(having) == len(titles) else having for title, having in found.items()}

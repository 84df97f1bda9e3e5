"""metrics.json of a table's runs and the paper's numbers -> one csv in long form. No torch.

Columns that other programs rely on: row, metric, paper, ours, std, seeds, values, stand_in, commit.
"""

from pathlib import Path

import pandas as pd

from diffusionblocks.base.files import atomic
from diffusionblocks.page import statistics
from diffusionblocks.page.results import COLUMNS, Results, columns_of, counterpart, is_variant, read
from diffusionblocks.page.wording import decimals

MISSING = "not part of this workflow yet"


def table(plan_path: Path | str, path: Path | str) -> None:
    """Write a table's csv, a line per row and metric; printed rows that nothing here trains are kept, with a note.

    plan_path: the `<table>.json` that planning wrote; its `metrics` files must be there.
    paper, ours: in the metric's unit; std: over seeds (empty for one seed); values: of each seed, in their order,
    with semicolons between, so that rows can be compared seed by seed; gap: ours minus ours of `against`; error and
    gap_error: of ours and of the gap, as page/statistics.py has it (empty for one seed).
    row_title: what people call the row.
    elsewhere: what another paper than the one reproduced prints for the same.
    beside: this number stands below the table on the page, not in it. What the paper prints never does.
    Raises UserError as `Results` does, and when the disk is full.
    """
    results = Results(plan_path)
    lines = {(line["row"], line["metric"]): line for row in results.rows() for line in _lines(results, row)}
    for (row, metric), line in lines.items():
        _add_gaps(results, line, lines, counterpart(metric, results.numbers(row), results.numbers(line["against"])))
    if all(line["beside"] for line in lines.values()):  # a table of one's own, of descriptions alone
        for line in lines.values():
            line["beside"] = False
    frame = pd.DataFrame(list(lines.values())).reindex(columns=COLUMNS)
    frame = frame.astype({"seeds": "Int64", "samples": "Int64"})  # whole numbers that may be missing
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False)


def show(paths: list[Path | str]) -> None:
    """Print the tables to a terminal: what the paper prints, and what was measured in its place.

    Raises UserError for a file that is absent or none of ours.
    """
    for path in paths:
        frame = read(path, ["row", "metric", "paper", "ours", "std", "seeds", "beside", "unit"])
        frame = frame[~frame["beside"].astype(bool)].set_index(["row", "metric"])
        shown = [column for column in ("paper", "ours", "std") if column != "paper" or frame[column].notna().any()]
        for column in shown:  # of a table of one's own nothing is printed
            frame[column] = [_shown(*cell) for cell in zip(frame[column], frame["unit"], strict=True)]
        frame["seeds"] = ["-" if pd.isna(seeds) else f"{seeds:.0f}" for seeds in frame["seeds"]]
        print(f"\n{Path(path).stem}\n{frame[[*shown, 'seeds']].to_string()}")


def _shown(value, unit):
    return "-" if pd.isna(value) else f"{value:.{decimals([value], unit)}f}"


def _lines(results, row):
    """The lines of a row: the paper's metrics first, then what was measured besides."""
    numbers, printed, properties = results.numbers(row), results.of_row(row), results.properties(row)
    for metric in dict.fromkeys([*results.paper["metrics"], *numbers]):
        number, known = numbers.get(metric, {}), results.paper["metrics"].get(metric, {})
        elsewhere = printed.get("elsewhere", {}).get(metric, {})
        line = {
            "table": results.name,
            "title": results.paper["title"],
            "row": row,
            "row_title": results.title_of(row),
            "metric": metric,
            "unit": known.get("unit") or number.get("unit"),
            "better": known.get("better") or number.get("better"),
            "paper": printed.get(metric),
            "against": results.against(row),
            "run": results.plan["rows"][row]["run"] if row in results.runs else None,
            "note": None if row in results.runs else MISSING,
            # As text, since the csv is in long form and tables have other properties, or none.
            "properties": "; ".join(f"{heading}: {value}" for heading, value in properties.items()) or None,
            "elsewhere": elsewhere.get("value"),
            "elsewhere_source": elsewhere.get("source"),
            "remark": results.remark(row),
            "beside": metric not in results.paper["metrics"]
            and (number["beside"] or _is_another(results, row, metric)),
        }
        yield {**line, **_measured(results, row, metric)} if number else line


def _measured(results, row, metric):
    """What a line says of a number of ours."""
    seeds, number = results.runs[row], results.numbers(row)[metric]
    values = pd.Series(results.values(row, metric))
    _, error = statistics.interval(results.values(row, metric))
    commits = {seed["evaluation"]["commit"] for seed in seeds}
    for seed in seeds:
        commits |= {attempt["commit"] for part in seed["parts"].values() for attempt in part["attempts"]}
    return {
        "ours": values.mean(),
        "std": values.std(),
        "error": error,
        "seeds": len(values),
        "values": ";".join(str(float(value)) for value in values),
        "samples": number["samples"],
        "extractor": number.get("extractor"),
        "stand_in": "; ".join(stand_ins(results, row, metric)),
        "commit": " ".join(sorted(commits)),
        "scale": seeds[0]["run"]["scale"],
        "note": "; ".join(notes(number)) or None,
        "timed": number["timed"]["where"] if "timed" in number else None,
    }


def stand_ins(results: Results, row: str, metric: str) -> list[str]:
    """What was taken in place of the paper's data set and feature extractor; in a table of one's own, nothing is."""
    data, extractor = results.expected_data(row), results.numbers(row)[metric].get("extractor")
    titles = sorted({seed["data"]["title"] for seed in results.runs[row]} - {data}) if data else []
    expected = _expected_extractor(results, row, metric)
    return [f"{title} for {data}" for title in titles] + (
        [f"{extractor} for {expected}"] if extractor and expected and extractor != expected else []
    )


def _expected_extractor(results, row, metric):
    """The extractor behind the printed numbers of a metric, or of the one that this is a variant of."""
    known, numbers = results.paper["metrics"], results.numbers(row)
    plain = [column for column in _printed_alike(results, row, metric) if is_variant(numbers[metric], numbers[column])]
    return known.get(metric if metric in known else next(iter(plain), None), {}).get("extractor")


def _is_another(results, row, metric):
    """Whether the paper prints this metric with other settings, such as FID to the other half of the data."""
    alike, numbers = _printed_alike(results, row, metric), results.numbers(row)
    return bool(alike) and not any(is_variant(numbers[metric], numbers[column]) for column in alike)


def _printed_alike(results, row, metric):
    """Columns of a row that the paper prints and that were measured by the same metric as a column."""
    numbers = results.numbers(row)
    return [column for column in columns_of(numbers, numbers[metric]["name"]) if column in results.paper["metrics"]]


def notes(number: dict) -> list[str]:
    """What a reader must know of a number: a grid of levels may miss the interval of a block altogether."""
    found = []
    if number.get("sets", 1) > 1:
        found.append(f"{number['over_sets']} of {number['sets']} sets")
    if number.get("idle_blocks"):
        found.append(f"never acts: block {', '.join(map(str, number['idle_blocks']))}")
    if number.get("references"):
        blind = f", by features that {number['blind']}" if number.get("blind") else ""
        found.append(f"{number['name']}: against {number['references']:,} real texts{blind}")
    if about := number.get("timed"):
        found.append(f"timed on {about['where']}; {about['how']}")
    return found


def _add_gaps(results, line, lines, column):
    """Gaps to the row that a line is compared with: the printed one, and ours to the other row's `column`."""
    for key, gap, metric in (("paper", "paper_gap", line["metric"]), ("ours", "gap", column)):
        value, other = line.get(key), lines.get((line["against"], metric), {}).get(key)
        if value is not None and other is not None:
            line[gap] = value - other
    if "gap" in line:
        (row, metric), against = (line["row"], line["metric"]), line["against"]
        ours, theirs = results.values(row, metric), results.values(against, column)
        _, line["gap_error"] = statistics.difference(ours, theirs, statistics.are_paired(ours, theirs))

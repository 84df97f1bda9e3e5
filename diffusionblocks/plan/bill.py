"""The bill before the run: what was asked for (estimate.py) and counted, as hours, bytes and jobs, and their sums."""

import csv
import math
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from diffusionblocks.base import rates
from diffusionblocks.base.files import UserError, atomic, write_json
from diffusionblocks.plan.configuration import ON_A_CPU
from diffusionblocks.plan.estimate import Asked

COLUMNS = (
    *("table", "row", "run", "part", "seeds", "updates", "parameters", "tflop", "hours", "links"),
    *("peak_bytes", "disk_bytes", "checkpoint_bytes"),
)
COLUMNS_OF_TEXT = 100
HEAD = ("row", "jobs", "M par.", "TFLOP", "peak GB", "longest", "links", "time", "samples", "disk")
WIDTHS = (36, 7, 12, 8, 8, 6, 8, 8, 7)  # the first of the row and its jobs together, since some names are long


class Rate(NamedTuple):
    """A device at a share of its rate, and the minutes of a training's time limit: {table, row or "": minutes}."""

    device: str
    share: float
    runtime: dict[str, int]

    @classmethod
    def of(cls, scale: str, device: str | None, share: float | None, runtime: Iterable[str]) -> "Rate":
        """What a user has said, with defaults. runtime: "720" for all, "table1=720", "table1/vit_end_to_end=720".
        Raises UserError for what is out of range.
        """
        device = device or (rates.DEVICE_ON_A_CPU if scale in ON_A_CPU else rates.DEVICE)
        rates.rates(device)
        share = rates.SHARE if share is None else share
        if not 0 < share <= 1:
            raise UserError(f"estimate: share {share} should be above 0 and at most 1")
        minutes = {"": rates.RUNTIME}
        for said in runtime:
            name, _, value = said.rpartition("=")
            if not re.fullmatch("[1-9][0-9]*", value):
                raise UserError(f"estimate: runtime {said!r} should be minutes, or <table>=minutes")
            minutes[name] = int(value)
        return cls(device, share, minutes)

    def hours(self, flop: float, precision: str) -> float:
        return rates.seconds(flop, self.device, precision, self.share) / 3600

    def limit(self, run: str) -> int:
        """Minutes of the time limit of a run's trainings."""
        return next(self.runtime[name] for name in (run, run.partition("/")[0], "") if name in self.runtime)


def by_table(limits: dict[tuple[str, str], int]) -> str:
    """Values of the option --runtime for {(table, row): minutes}: of a table whose rows agree, its name alone."""
    found = {}
    for (table, row), minutes in limits.items():
        alike = {other for (name, _), other in limits.items() if name == table} == {minutes}
        found[table if alike else f"{table}/{row}"] = minutes
    return " ".join(f"{name}={minutes}" for name, minutes in found.items())


def bill(asked: Asked, counted: dict[str, dict], rate: Rate) -> dict[str, Any]:
    """All that is estimated, as plain values: `lines`, a dictionary of COLUMNS each, of every part of every row and of
    its samples; sums by `tables` and in `total`. A run that several tables share is in the first one's sums alone.

    counted: as evaluation/estimate.py gives it. hours and tflop: of one seed; in sums, of all of them. links:
    jobs, one after another, that a training takes with the time limit. peak_bytes: on the device, without the data set.
    disk_bytes: weights, or samples. checkpoint_bytes: those that go when the parts are joined.
    """
    lines, tables, seen = [], {}, set()
    for table, rows in asked.tables.items():
        own = []
        for row, run in rows.items():
            if run in counted and run not in seen:
                own += [
                    {"table": table, "row": row, **line} for line in _lines(run, asked.rows[run], counted[run], rate)
                ]
            seen.add(run)
        tables[table] = _sums(own)
        lines += own
    return {"lines": lines, "tables": tables, "total": _sums(lines)}


def _lines(run, row, counted, rate):
    train, parts = row["run"]["train"], counted["parts"]
    precision = train.get("precision", "fp32")
    for part, found in parts.items():
        flop = row["updates"] * train["batch_size"] * found["flop"]
        hours, rest = rate.hours(flop, precision), found["peak"] - found["held"]
        yield {
            "run": run,
            "part": part,
            "seeds": row["seeds"],
            "updates": row["updates"] * found["blocks"],
            "parameters": found["network"],
            "tflop": flop / 1e12,
            "hours": hours,
            "links": max(1, math.ceil(hours * 60 / rate.limit(run))),
            "peak_bytes": found["held"] + round(rest * (rates.BF16_MEMORY if precision == "bf16" else 1)),
            "disk_bytes": found["weights"],
            "checkpoint_bytes": found["checkpoint"],
        }
    for number, samples in enumerate(row["samples"]):
        flop = samples["count"] * _evaluations(parts, samples)
        yield {
            **{"run": run, "part": f"samples{number or ''}", "seeds": row["seeds"], "tflop": flop / 1e12},
            **{"hours": rate.hours(flop, "fp32"), "disk_bytes": samples["bytes"]},
        }


def _evaluations(parts, samples):
    """FLOP of a generated sample: forward passes of the blocks, each as often as its share of the levels."""
    blocks = sum(part["blocks"] for part in parts.values())
    forward = 0
    for part in parts.values():  # a backward pass is twice the arithmetic of a forward one
        once, back = part["passes"]["forward"], part["passes"]["backward"]
        forward += part["flop"] * once / (once + 2 * back)
    return forward / blocks * (samples["steps"] or blocks) * samples["passes"] * samples["share"]


def _sums(lines):
    trained = [line for line in lines if "updates" in line]
    generated = [line for line in lines if "updates" not in line]

    def total(key, of):
        return sum(line[key] * line["seeds"] for line in of)

    return {
        "trainings": sum(line["seeds"] for line in trained),
        "jobs": total("links", trained),
        "parameters": sum(line["parameters"] for line in trained),
        "tflop": total("tflop", trained),
        "hours": total("hours", trained),
        "longest_hours": max((line["hours"] for line in trained), default=0),
        "links": max((line["links"] for line in trained), default=0),
        "peak_bytes": max((line["peak_bytes"] for line in trained), default=0),
        "sampling_hours": total("hours", generated),
        "sampling_tflop": total("tflop", generated),
        "disk_bytes": total("disk_bytes", lines),
        "checkpoint_bytes": total("checkpoint_bytes", trained),
    }


def told(asked: Asked, found: dict, unknown: dict[str, str], rate: Rate, data_dir: str | Path) -> str:
    """The bill for a terminal, about 100 columns wide. unknown: {run: why it is not in the bill}."""
    text = []
    for table, rows in asked.tables.items():
        text += ["", table, _cells(HEAD)]
        for row, run in rows.items():
            lines = [line for line in found["lines"] if (line["table"], line["row"]) == (table, row)]
            if run in unknown:
                text.append(f"{row}: not estimated: {unknown[run]}")
            elif lines:
                text += [_of(row, _sums(lines)), *_unlike(lines)]
            else:
                text.append(f"{row}: is {run}, and counted there")
        text.append(_of(f"all of {table}", found["tables"][table], whole=True))
    text += ["", _cells(HEAD), _of("all", found["total"], whole=True), ""]
    for note in _notes(asked, found["total"], rate, data_dir):
        text += textwrap.wrap(note, COLUMNS_OF_TEXT, subsequent_indent="  ")
    return "\n".join(text[1:])


def _notes(asked, total, rate, data_dir):
    """What the numbers mean, and what else is needed."""
    known, limits = rates.rates(rate.device), sorted({rate.limit(run) for run in asked.rows})
    rated = f"{known.bf16:g} TFLOP/s" + ("" if known.bf16 == known.fp32 else f" (fp32: {known.fp32:g})")
    yield (
        f"{total['trainings']} trainings: {_time(total['hours']) or 'no time'} of one {rate.device.upper()} at "
        f"{rate.share:.0%} of {rated}. Small updates reach less of it, and take longer (docs/measurements.md)."
    )
    yield (
        f"Samples: {_time(total['sampling_hours']) or 'none'}, if a pass of a network costs its share of an update. "
        "Evaluations are not in either."
    )
    yield (
        f"{total['jobs']} jobs of trainings, with time limits of {' or '.join(map(str, limits))} minutes; links: those "
        "that one training takes, one after another."
    )
    yield "time: of all parts and seeds, one after another; longest: of one part; jobs: parts, of all seeds."
    yield (
        f"peak: GB of one part, without the data set; in bf16 {rates.BF16_MEMORY:g} of what float32 takes beyond what "
        "is held."
    )
    yield (
        f"disk: GB of weights and samples, {_gb(total['disk_bytes'])} in all; checkpoints, until parts are joined, "
        f"{_gb(total['checkpoint_bytes'])} at most; data {_gb(sum(asked.data().values()))}; features of real images "
        f"{_gb(asked.features())} at most."
    )
    absent = {name: size for name, (size, there) in asked.downloads(data_dir).items() if not there}
    if absent:
        yield f"To be downloaded: {_gb(sum(absent.values()))}."
        yield from (f"  {name}: {_gb(size)}" for name, size in absent.items())
    if brought := asked.brought():
        yield f"To be put into {data_dir} by you, if it is not there:"
        yield from (f"  {words}" for words in brought)


def _of(name, sums, whole=False):
    """A line of sums; those of whole tables say nothing of parameters, of networks that differ."""
    parameters = "" if whole else f"{sums['parameters'] / 1e6:,.1f}"
    return _cells(
        (
            *(name, f"{sums['trainings']}", parameters, _short(sums["tflop"])),
            *(_short(sums["peak_bytes"] / 1e9), _time(sums["longest_hours"]), f"{sums['links']}", _time(sums["hours"])),
            *(_time(sums["sampling_hours"]), _short(sums["disk_bytes"] / 1e9)),
        )
    )


def _unlike(lines):
    """A line for all parts that are alike, where others are not."""
    groups = {}
    for line in lines:
        if "updates" in line:
            groups.setdefault((line["parameters"], round(line["hours"], 6)), []).append(line)
    if len(groups) > 1:
        for alike in groups.values():
            yield _of(f"  {', '.join(line['part'] for line in alike)}", _sums(alike))


def _cells(values):
    row, jobs, *rest = values
    cells = (f"{value:>{width}}" for value, width in zip(rest, WIDTHS[1:], strict=True))
    return f"{row} {jobs:>{max(len(jobs), WIDTHS[0] - 1 - len(row))}}" + "".join(cells)


def _short(value):
    """A number with two or three digits, more before the point where it has them."""
    if value < 0.001:
        return "0.000" if value else "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _time(hours):
    if not hours:
        return ""
    if hours >= 1:
        return f"{_short(hours)} h"
    minutes = hours * 60
    return (
        f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min" if minutes >= 1 else f"{_short(minutes * 60)} s"
    )


def _gb(size):
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def write(path: Path, found: dict, rate: Rate) -> None:
    """Write the bill: as .csv its lines, else as JSON all of it. Raises UserError when the disk is full."""
    if path.suffix != ".csv":
        write_json(path, {"device": rate.device, "share": rate.share, "runtime": rate.runtime, **found})
        return
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(found["lines"])

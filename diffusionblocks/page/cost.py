"""What a run has cost: its jobs, their hours, and the machines that they ran on. No torch."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from diffusionblocks.base.cores import cores
from diffusionblocks.base.files import read_json_lines
from diffusionblocks.page.results import Results

FORMAT = "%Y-%m-%dT%H:%M:%S%z"  # of times in records


def jobs(run: dict) -> Iterator[tuple[str, dict]]:
    """(part, values) of all jobs of a run but the first steps: each block's training, sampling, evaluation."""
    yield from run["parts"].items()
    for number, shard in enumerate(run["sampling"]):
        yield f"sampling {number}", {"seconds": shard["seconds"], "attempts": [shard]}
    if timing := run.get("timing"):  # of all rows that were timed together
        yield "timing", {"seconds": timing["seconds"], "attempts": [timing]}
    yield "evaluation", {"seconds": run["evaluation"]["seconds"], "attempts": [run["evaluation"]]}


def instant(text: str) -> datetime:
    """When a record was written, in UTC. text: its local time with an offset, `2026-11-26T17:48:03+0100`."""
    return datetime.strptime(text, FORMAT).astimezone(UTC)


def environments(tables: list[Results]) -> list[tuple[str, str]]:
    """Each combination of hardware and versions that some job ran on, once."""
    found = {}
    for run in (run for results in tables for seeds in results.runs.values() for run in seeds):
        for attempt in (attempt for _, job in jobs(run) for attempt in job["attempts"]):
            versions = ", ".join(f"{name} {version}" for name, version in attempt["versions"].items())
            found[attempt["hardware"], versions] = None
    return list(found)


def cost(tables: list[Results], logs: Sequence[Path] = ()) -> dict:
    """What the jobs of some tables have cost together, and where.

    logs: of trainings that no table tells of, as those of rows that others only start from. job_hours: of all jobs, one
    after another; jobs: how many; first_job, last_job: when these two began, in UTC, None where no job says it; cores:
    of this machine; machines: [{hardware, versions}], each once.
    """
    rows = [(about["metrics"], results.runs[row]) for results in tables for row, about in results.plan["rows"].items()]
    found = {}
    for file, run in (pair for files, runs in rows for pair in zip(files, runs, strict=True)):
        for part, values in jobs(run):
            # Rows that were timed together have one job, which each of them tells of.
            found[str(values["attempts"]) if part == "timing" else (file, part)] = values
    for log in logs:
        records = read_json_lines(log)
        seconds = sum(record["seconds"] for record in records if record.get("event") == "end")
        found[log] = {"seconds": seconds, "attempts": [record for record in records if record.get("event") == "start"]}
    attempts = [attempt for job in found.values() for attempt in job["attempts"]]
    times = sorted(instant(attempt["time"]) for attempt in attempts if "time" in attempt)
    return {
        "job_hours": round(sum(job["seconds"] for job in found.values()) / 3600, 3),
        "jobs": len(found),
        "first_job": times[0].strftime(FORMAT) if times else None,
        "last_job": times[-1].strftime(FORMAT) if times else None,
        "cores": cores(),
        "machines": [{"hardware": hardware, "versions": versions} for hardware, versions in environments(tables)],
    }

"""What the first screen of the page says: the run, what held, each experiment, memory and compute. No torch."""

import itertools
import math
from collections import Counter

from diffusionblocks.page.claims import counts
from diffusionblocks.page.cost import cost, instant
from diffusionblocks.page.results import Results, num_blocks
from diffusionblocks.page.wording import decimals, half, in_words

# What follows the number of claims with this verdict.
VERDICTS = {
    "held": "held",
    "did not hold": "did not hold",
    "cannot tell": "cannot be told yet",
    "not tested": "cannot be tested here",
    "not measured": "not measured",
}

SHORT = ("peak_memory", "seconds_per_iteration")  # metrics of the first screen


def facts(tables: list[Results]) -> dict:
    """What was run, where and when: {data: titles, hours, jobs, first, last: days and minutes, hardware: names}."""
    trained = [seeds[0] for results in tables for seeds in results.runs.values() if seeds[0]["parts"]]
    spent = cost(tables)
    return {
        "data": list(dict.fromkeys(run["data"]["title"] for run in trained)),
        "seconds": 3600 * spent["job_hours"],
        "jobs": spent["jobs"],
        "first": _minute(spent["first_job"]),
        "last": _minute(spent["last_job"]),
        "hardware": list(dict.fromkeys(machine["hardware"] for machine in spent["machines"])),
    }


def counted(claims: list[dict]) -> list[tuple[str, int, str]]:
    """(verdict, how many, in words) of the verdicts that some claim has."""
    return [(verdict, number, VERDICTS[verdict]) for verdict, number in counts(claims).items() if number]


def experiments(tables: list[Results], claims: list[dict]) -> list[dict]:
    """What the matrix shows: {table, name, data, models, claims}, one for each data set of each table.

    claims: those that are to be shown, in the order of the tables; the first of an experiment stands for it. data: None
    where its table has one data set alone; models: the names of its networks, by which a reader may choose.
    """
    of_name, found = {results.name: results for results in tables}, {}
    for claim in claims:
        results = of_name[claim["table"]]
        found.setdefault((claim["table"], results.expected_data(claim["row"])), []).append(claim)
    several = Counter(table for table, _ in found)
    return [
        {
            "table": table,
            "name": of_name[table].title,
            "data": data if several[table] > 1 else None,
            "models": models(of_name[table]),
            "claims": members,
        }
        for (table, data), members in found.items()
    ]


def models(results: Results) -> list[str]:
    """Names of the networks of a table."""
    return list(dict.fromkeys(seeds[0]["run"]["model"]["name"] for seeds in results.runs.values()))


def costs(tables: list[Results], claims: list[dict]) -> list[dict]:
    """What a job takes, end to end against a block, of all that some claim has counted or timed.

    A dict for each metric: {name, metric: in words, unit, timed: where or None, scale: whose sizes, lines}, a line
    {label: of the network, title: of the row, name: of its table, layers, blocks, table, against, row: the two numbers,
    ratio, asked: the claim's, paper: its ratio or None}. Claims that the scale cannot test have none.
    """
    of_name, found = {results.name: results for results in tables}, {}
    for claim in claims:
        if claim["kind"] != "factor" or claim["ratio"] is None or claim["verdict"] == "not tested":
            continue
        results, metric = of_name[claim["table"]], claim["metric"]
        number, run = results.numbers(claim["row"])[metric], results.runs[claim["row"]][0]
        values = {side: sum(values) / len(values) for side, values in _sides(results, claim)}
        group = found.setdefault(
            (number["name"], claim["timed"], claim["scale"]),
            {
                "name": number["name"],
                "metric": in_words(number["name"]) + (" per sample" if number["unit"] == "GFLOP" else ""),
                "unit": number["unit"],
                "timed": claim["timed"],
                "scale": claim["scale"],
                "lines": [],
            },
        )
        group["lines"].append(
            {
                "label": _shared(results.title_of(claim["row"]), results.title_of(claim["against"])),
                "title": results.title_of(claim["row"]),
                "name": results.title,
                "layers": _layers(run["run"].get("model", {})),
                "blocks": num_blocks(run),
                "table": claim["table"],
                **values,
                "ratio": claim["ratio"],
                "asked": claim["factor"],
                "paper": (claim["paper"] or {}).get("ratio"),
            }
        )
    for group in found.values():
        # The network, where that tells lines apart; else the row, with its table where rows of two have one title.
        for longer in (lambda line: line["title"], lambda line: f"{line['title']}, {line['name']}"):
            known = Counter(line["label"] for line in group["lines"])
            for line in group["lines"]:
                line["label"] = line["label"] if known[line["label"]] == 1 else longer(line)
    return list(found.values())


def in_short(costs: list[dict]) -> list[dict]:
    """What the first screen says of `costs`: peak memory, and seconds of one block, which must be fewer."""
    found = []
    for group in costs:
        lines = [line for line in group["lines"] if line["asked"] > 1]
        if group["name"] in SHORT and lines:
            found.append({**group, "lines": lines})
    return found


def jobs_of_blocks(tables: list[Results]) -> list[dict]:
    """What a job of this run has held and how long it took, of rows in blocks beside the row they are compared with.

    {table, name: its title, row, against: titles, blocks, bytes, seconds: a pair each, of the row's largest job and of
    the other's}; bytes are those of parameters, gradients, optimizer and averages. Rows whose blocks are trained in one
    process have no line.
    """
    found = []
    for results in tables:
        for row, seeds in results.runs.items():
            other = results.runs.get(results.against(row), [{"parts": {}}])[0]["parts"]
            parts = seeds[0]["parts"]
            if len(parts) < 2 or len(other) != 1:
                continue
            sides = [[*parts.values()], [*other.values()]]
            if not all(_held(job) is not None for side in sides for job in side):
                continue
            found.append(
                {
                    "table": results.name,
                    "name": results.title,
                    "row": results.title_of(row),
                    "against": results.title_of(results.against(row)),
                    "blocks": len(parts),
                    "bytes": [max(_held(job) for job in side) for side in sides],
                    "seconds": [max(job["seconds"] for job in side) for side in sides],
                }
            )
    return found


def limits(claims: list[dict]) -> dict[str, list[dict]]:
    """{why: claims} of those that this scale cannot test, or whose verdict should not be leaned on."""
    found = {}
    for claim in claims:
        if claim["because"] and (claim["grey"] or claim["verdict"] == "not tested"):
            found.setdefault(claim["because"], []).append(claim)
    return found


def sentence(words: str) -> str:
    """Words with a capital letter first."""
    return words[:1].upper() + words[1:]


def better_by(claim: dict, of: str = "gap") -> str:
    """In words how much better or worse a claim's row is: `2.10 ± 0.50 points worse`.

    of: gap, or without its unit control or paper.
    """
    found = claim[of]
    mean, error = (found["gap"], None) if of == "paper" else (found["mean"], half(found))
    unit = {"%": " points"}.get(claim["unit"], f" {claim['unit']}" if claim["unit"] else "") if of == "gap" else ""
    if mean is None:
        return ""
    if not math.isfinite(mean):
        return "infinitely better" if mean > 0 else "infinitely worse" if mean < 0 else "not a number"
    digits = 2 if of == "paper" else decimals([mean], errors=[error])  # the paper prints no more
    spread = f" ± {error:.{digits}f}" if error is not None and math.isfinite(error) else ""
    word = "equal" if not mean else "better" if mean > 0 else "worse"
    return f"{abs(mean):.{digits}f}{spread}{unit} {word}" if mean or spread else word


def _sides(results, claim):
    for side in ("row", "against"):
        yield side, results.values(claim[side], claim["metric"])


def _held(job):
    """Bytes that a job has held; None where it does not say one of the kinds."""
    kinds = [job.get(f"{kind}_bytes") for kind in ("parameter", "gradient", "optimizer", "average")]
    return None if None in kinds else sum(kinds)


def _layers(model):
    """Of a recurrent network those of its core, which recur."""
    return f"core of {model['num_layers']}" if model.get("name") == "recurrent_depth" else model.get("num_layers")


def _minute(time):
    """`2026-11-26 17:48`, in UTC, of what jobs say of their time; None for none."""
    return time and f"{instant(time):%Y-%m-%d %H:%M}"


def _shared(one, other):
    """What two titles begin with, up to a comma; the first one where that is nothing."""
    pairs = zip(one.split(", "), other.split(", "), strict=False)
    return ", ".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)) or one

"""Where the numbers of a row come from: seeds, settings, jobs, files, commands. No torch."""

from math import isfinite
from statistics import fmean, stdev

from diffusionblocks.page.cost import instant, jobs
from diffusionblocks.page.predicted import predicted
from diffusionblocks.page.results import Results, num_blocks
from diffusionblocks.page.rows import named

ALIKE = 0.5  # of a row's settings: with more that differ they are shown whole


def origins(results: Results, estimate: dict[str, dict]) -> list[dict]:
    """A dict for each row that was measured, as the template of the same name shows it. estimate: as of `predicted`.

    row, id, words; run: `<table>/<row>` of the run behind it; data: [title]; parameters, blocks: numbers
    trained, sampled: whether; commits, hardware, began: [text] of all jobs; seeds
    numbers: [{metric, values: of the seeds, mean, std: None of one seed, unit, samples}]
    settings: as `_differences`, to those of `like`, {row, id, words}, or all where that is None
    folder, logs: paths in which `seed<n>` is to be filled in; weights: {seed: hash} of those known
    jobs: {part: [{seconds, where, and of a training its speed and bytes} of each seed]}; predicted: of `predicted`
    """
    expected, full, found = predicted(results, estimate), {}, []
    for row, runs in results.runs.items():
        own = _said(results.plan["rows"][row], runs[0]["run"])
        like = results.against(row) if results.against(row) in full else next(iter(full), None)
        settings = _differences(own, full[like]) if like else _differences(own, {})
        if like and len(settings) > ALIKE * len(own):
            like, settings = None, _differences(own, {})
        full[row] = own
        done = [job for run in runs for job in jobs(run)]
        attempts = [attempt for _, values in done for attempt in values["attempts"]]
        place = f"results/{results.plan['scale']}"
        run = results.plan["rows"][row]["run"]
        found.append(
            {
                **named(results, row),
                "run": run,
                "folder": f"{place}/runs/{run}/seed<n>",
                "logs": f"{place}/logs/runs/{run}/seed<n>",
                "seeds": results.seeds(row),
                "numbers": [_number(results, row, metric) for metric in results.numbers(row)],
                "settings": settings,
                "like": named(results, like) if like else None,
                "data": sorted({run["data"]["title"] for run in runs}),
                "parameters": runs[0]["parameters"],
                "blocks": num_blocks(runs[0]),
                "trained": bool(runs[0]["parts"]),
                "sampled": bool(runs[0]["sampling"]),
                "jobs": _by_part(done),
                "weights": {run["run"]["seed"]: run["weights"] for run in runs if run.get("weights")},
                "commits": sorted({attempt["commit"] for attempt in attempts}),
                "hardware": sorted({attempt["hardware"] for attempt in attempts}),
                "began": sorted({f"{instant(one['time']):%Y-%m-%d %H:%M} UTC" for one in attempts if "time" in one}),
                "predicted": expected.get(row),
            }
        )
    return found


def _by_part(done):
    """{part: its job of each seed, with the nodes and SLURM jobs that it ran in} of [(part, job)]."""
    found = {}
    for part, values in done:
        places = [(attempt.get("node", "this host"), attempt.get("slurm_job_id")) for attempt in values["attempts"]]
        where = "; ".join(", ".join(filter(None, place)) for place in places)
        found.setdefault(part, []).append({**values, "where": where})
    return found


def _number(results, row, metric):
    number = results.numbers(row)[metric]
    values = results.values(row, metric)
    return {
        "metric": metric,
        "values": values,
        "mean": fmean(values),
        "std": stdev(values) if len(values) > 1 and all(map(isfinite, values)) else None,
        **{key: number.get(key) for key in ("unit", "samples")},
    }


def _said(about, run):
    """{key: (value, layer or None)} of a row's settings; of a plan of an older version those of its run.json alone."""
    if "settings" in about:
        return {
            key: (value, layer and layer.removeprefix("tables.")) for key, (value, layer) in about["settings"].items()
        }
    sections = {key: run[key] for key in ("data", "model", "method", "train") if key in run}
    return {f"{key}.{name}": (value, None) for key, section in sections.items() for name, value in section.items()}


def _differences(own, other):
    """[(key, value, layer)] of settings that another row lacks or has otherwise; layer "" of those only it has."""
    changed = [(key, *found) for key, found in own.items() if key not in other or other[key][0] != found[0]]
    return changed + [(key, None, "") for key in other if key not in own]

"""Tables and metrics -> one self-contained page that sets every number of the paper beside ours. No torch."""

import base64
import json
import math
import re
import time
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from diffusionblocks.base.files import read_json, write_text
from diffusionblocks.page import figures

WIDE = ("Generated images", "One image on its way from noise")  # figures that take the page's whole width


def report(table_paths, metric_paths, template_path, claims_path, path):
    """Write the page of the given tables. metric_paths: metrics.json of every run behind them."""
    frames = [pd.read_csv(file) for file in table_paths]
    runs = {}
    for metrics in map(read_json, metric_paths):
        run = metrics["run"]
        runs.setdefault(f"{run['table']}/{run['row']}", []).append(metrics)
    claims = yaml.safe_load(Path(claims_path).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "bytes": in_bytes, "duration": duration}
    sections = [section(frame, runs, claims) for frame in frames]
    everything = [metrics for seeds in runs.values() for metrics in seeds]
    page = environment.get_template(template_path.name).render(
        style=(template_path.parent / "style.css").read_text(encoding="utf-8"),
        scale=everything[0]["run"]["scale"],
        sections=sections,
        claims=[claim for part in sections for claim in part["claims"]],
        stand_ins=sorted(
            {name for frame in frames for cell in frame["stand_in"].dropna() for name in cell.split("; ")}
        ),
        commits=sorted({commit for frame in frames for cell in frame["commit"].dropna() for commit in cell.split()}),
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        environments=_environments(everything),
    )
    write_text(path, page)


def section(frame, runs, claims):
    """All that the page shows of one table."""
    name = frame["table"].iloc[0]
    rows = {row: lines.to_dict("records") for row, lines in frame.groupby("row", sort=False)}
    trained = {row: runs[lines[0]["run"]] for row, lines in rows.items() if isinstance(lines[0]["run"], str)}
    return {
        "name": name,
        "title": table_title(name),
        "subject": frame["title"].iloc[0],
        "rows": {row: [line for line in lines if isinstance(line["better"], str)] for row, lines in rows.items()},
        "properties": _properties(frame),
        "remarks": _of_rows(frame, "remark"),
        "more": _more(frame),
        "claims": [verdict(claim, frame) for claim in claims.get(name, [])],
        "figures": _figures(trained, frame),
        "texts": _texts(trained),
        "jobs": [
            {"row": row, "seed": run["run"]["seed"], "part": part, **values}
            for row, seeds in trained.items()
            for run in seeds
            for part, values in _jobs(run)
        ],
        "parameters": {row: seeds[0]["parameters"] for row, seeds in trained.items()},
        "settings": {row: json.dumps(seeds[0]["run"], indent=2) for row, seeds in trained.items()},
    }


def _properties(frame):
    """What the paper prints of a row beside its numbers: (headings, {row: {heading: yes or no})."""
    rows = {
        row: dict(each.rsplit(": ", 1) for each in text.split("; "))
        for row, text in _of_rows(frame, "properties").items()
    }
    return list(dict.fromkeys(heading for known in rows.values() for heading in known)), rows


def _of_rows(frame, column):
    """{row: its text} of a column that says the same in all lines of a row; a row without one is left out."""
    return frame.drop_duplicates("row").set_index("row")[column].dropna().to_dict()


def _more(frame):
    """What was measured and the paper does not print: (metrics, {row: {metric: its line}})."""
    lines = frame[frame["better"].isna() & frame["ours"].notna()]
    rows = {row: found.set_index("metric").to_dict("index") for row, found in lines.groupby("row", sort=False)}
    return list(lines["metric"].unique()), rows


def _jobs(run):
    """(part, values) of all jobs of a run but the first steps: each block's training, sampling, evaluation."""
    yield from run["parts"].items()
    for number, shard in enumerate(run["sampling"]):
        yield f"sampling {number}", {"seconds": shard["seconds"], "attempts": [shard]}
    yield "evaluation", {"seconds": run["evaluation"]["seconds"], "attempts": [run["evaluation"]]}


def table_title(name):
    """`table_a1` -> `Table A1`, `table7` -> `Table 7`."""
    return "Table " + name.removeprefix("table").removeprefix("_").upper()


def verdict(claim, frame):
    """A claim with what our numbers say of it: held, did not hold, or undecided within two standard errors.

    A claim with a `factor` is about something counted: it holds when `against` has at least so many times of it.
    """
    cells = frame[(frame["metric"] == claim["metric"]) & frame["ours"].notna()].set_index("row")
    if not {claim["row"], claim["against"]} <= set(cells.index):
        return {**claim, "verdict": "not measured", "difference": None, "error": None, "ratio": None}
    ours, other = (cells.loc[row] for row in (claim["row"], claim["against"]))
    if "factor" in claim:
        ratio = other["ours"] / ours["ours"]
        word = "held" if ratio >= claim["factor"] else "did not hold"
        return {**claim, "verdict": word, "ratio": ratio, "difference": None, "error": None}
    sign = -1 if ours["better"] == "lower" else 1
    difference = sign * (ours["ours"] - other["ours"])
    variance = sum(row["std"] ** 2 / row["seeds"] for row in (ours, other))
    # With one seed no spread is known, and nothing can be decided.
    error = math.inf if math.isnan(variance) else 2 * math.sqrt(variance)
    distance = difference - claim["margin"]
    word = "held" if distance >= error else "did not hold" if distance < -error else "undecided"
    return {
        **claim,
        "verdict": word,
        "ratio": None,
        "difference": sign * difference,
        "error": error if math.isfinite(error) else None,
        "seeds": int(min(ours["seeds"], other["seeds"])),
        "stand_in": ours["stand_in"] if isinstance(ours["stand_in"], str) else None,
    }


def _figures(trained, frame):
    """[(heading, explanation, [(alternative text, image)])] of the figures that the rows' measurements allow."""
    baselines, limits = _baselines(frame, "accuracy"), figures.loss_limits(trained.values())
    pictured = {}  # rows on other data have pictures of their own
    for row, seeds in trained.items():
        if "images" in (seeds[0]["samples"] or {}):
            pictured.setdefault(seeds[0]["data"]["title"], {})[row] = seeds[0]
    chains = {
        row: seeds for row, seeds in trained.items() if any(name in seeds[0]["curves"] for name in figures.CHAINS)
    }
    parts = {}
    for row, seeds in trained.items():
        if "partition" in seeds[0]:
            same = [name for name, value in parts.items() if value == seeds[0]["partition"]]
            name = f"{same[0]}, {row}" if same else row  # rows with one partition share a figure
            parts[name] = parts.pop(same[0]) if same else seeds[0]["partition"]
    groups = [
        (
            "Generated images",
            "The same noise and the same ten classes for every row, seed 0; not selected.",
            [(f"Images generated from {title}", figures.samples(rows)) for title, rows in pictured.items()],
        ),
        (
            "One image on its way from noise",
            "What the acting block takes the clean image to be, at some of the steps; above the noise level, below and "
            "in the frame's colour the block.",
            [(f"An image's way, {title}", figures.trajectory(rows)) for title, rows in pictured.items()],
        ),
        (
            "Quality against the number of blocks",
            "Mean and range over seeds. FID is relative to that of one block, lower is better; of MAUVE higher is.",
            _block_counts(trained, frame),
        ),
        (
            "Cross-entropy of the next token along the chain",
            "Each token from the z that the blocks before left, all true tokens before it given; the first step, from "
            "pure noise, shows what the context says. Dashed: the block shown the true token under its own noise.",
            _loss_chains(trained, frame),
        ),
        (
            "What each masking rate costs",
            "The bound's density over the masking rate, by the block that owns it; the area is the bits per character.",
            _likelihoods(trained, frame),
        ),
        (
            "Training loss per block",
            "Unweighted loss of each block on its own noise levels, mean and range over seeds. A block at low noise "
            "sees a target that is nearly clean, so its loss is low from the start.",
            [(f"Training loss of {row}", figures.losses(row, seeds, limits)) for row, seeds in trained.items()],
        ),
        (
            "Accuracy along the chain of blocks",
            "Each step is one block's prediction from the z that the blocks before it left. Dashed: the same block "
            "shown the true label under its own noise, which at low noise can be read off without the image.",
            [
                (f"Accuracy along the chain, {row}", figures.chain(row, seeds, baselines.get(row)))
                for row, seeds in chains.items()
            ],
        ),
        (
            "Noise partition",
            "Which block owns which noise levels (area: share of all training draws), and the intervals on which the "
            "blocks train, overlap included (bars).",
            [
                (f"Noise partition of {row}", figures.partition(row.replace(", ", "\n"), value))
                for row, value in parts.items()
            ],
        ),
    ]
    return [
        {
            "heading": heading,
            "text": text,
            "wide": heading in WIDE,
            "images": [(alt, _embed(svg)) for alt, svg in images],
        }
        for heading, text, images in groups
        if images
    ]


def _block_counts(trained, frame):
    """The figure of a table whose rows differ in the number of blocks (b1, b2, b2_calibrated, ...), if this is one."""
    name, found = table_title(frame["table"].iloc[0]), []
    for metric, ylabel, relative in (("fid_test", "FID / FID of one block", True), ("mauve", "MAUVE", False)):
        ours, paper = {}, {}
        printed = frame[frame["metric"] == metric].set_index("row")["paper"].dropna()
        for row, seeds in trained.items():
            match = re.fullmatch(r"b(\d+)(_\w+)?", row)
            if match and metric in seeds[0]["metrics"]:
                count, label = int(match[1]), (match[2] or "_ours").strip("_")
                ours.setdefault(label, {})[count] = [run["metrics"][metric]["value"] for run in seeds]
                if row in printed:
                    paper[count] = printed[row]
        if any(len(values) > 1 for values in ours.values()) and (1 in paper or not relative):
            alternative = f"{metric} against the number of blocks, {name}"
            found.append((alternative, figures.block_count(name, ylabel, ours, paper, relative)))
    return found


def _loss_chains(trained, frame):
    chained = {row: seeds for row, seeds in trained.items() if "loss_chain" in seeds[0]["curves"]}
    baselines = _baselines(frame, "next_token_loss")
    return [
        (
            f"Cross-entropy along the chain, {row}",
            figures.chain(row, seeds, baselines.get(row), figures.LOSS_CHAINS, "nats per token", math.inf),
        )
        for row, seeds in chained.items()
    ]


def _likelihoods(trained, frame):
    against = frame.set_index("row")["against"].dropna().to_dict()
    drawn = {row: seeds for row, seeds in trained.items() if "bpc_by_level" in seeds[0]["curves"]}
    return [
        (f"Bits per character by masking rate, {row}", figures.likelihood(row, seeds, drawn.get(against.get(row))))
        for row, seeds in drawn.items()
    ]


def _baselines(frame, metric):
    """{row: what the row that it is compared with reaches in a metric}."""
    ours = frame[frame["metric"] == metric].set_index("row")["ours"]
    against = frame.set_index("row")["against"].dropna().to_dict()
    return {row: ours.get(other) for row, other in against.items()}


def _texts(trained):
    """[(prompt or "", {row: text})] of the first seeds' first texts, all rows of a prompt together."""
    found = {}
    for row, seeds in trained.items():
        for number, (prompt, text) in enumerate((seeds[0]["samples"] or {}).get("texts", [])):
            key = prompt or f"Sample {number + 1}"
            found.setdefault(key, {})[row] = text
    return list(found.items())


def _embed(svg):
    """As an image of its own: the ids inside one SVG cannot meet those of another."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _environments(runs):
    """Each combination of hardware and versions that some job ran on, once."""
    found = {}
    for run in runs:
        attempts = [attempt for part in run["parts"].values() for attempt in part["attempts"]]
        for job in (*attempts, *run["sampling"], run["evaluation"]):
            versions = ", ".join(f"{name} {version}" for name, version in job["versions"].items())
            found[job["hardware"], versions] = None
    return list(found)


def number(value, digits=2, sign=False):
    """A number for the page; what is missing is shown as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−") if sign else f"{value:.{digits}f}".replace("-", "−")


def in_bytes(value):
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000


def duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

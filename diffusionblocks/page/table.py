"""metrics.json of a table's runs + the paper's numbers -> one csv in long form. No torch.

Columns that other programs rely on: row, metric, paper, ours, std, seeds, stand_in, commit.
"""

from pathlib import Path

import pandas as pd
import yaml

from diffusionblocks.base.files import UserError, atomic, read_json

COLUMNS = [
    *("table", "title", "row", "metric", "unit", "better", "paper", "ours", "std", "seeds", "samples"),
    *("extractor", "against", "paper_gap", "gap", "stand_in", "commit", "scale", "run", "note"),
    *("properties", "elsewhere", "elsewhere_source", "remark"),
]
MISSING = "not part of this workflow yet"
# Metrics of ours beside MAUVE, by the beginning of their names.
OF_TEXTS = {
    "ppl_": {"better": "lower"},
    "real_text_ppl_": {"better": "lower"},
    "distinct_2": {"unit": "%", "better": "higher"},
    "repetition": {"unit": "%", "better": "lower"},
}


def table(name, rows, paper_path, path):
    """Write the table's csv, a line per row and metric; printed rows that nothing here trains are kept, with a note.

    rows: {row: {"run": <table>/<row> of the trained run, "paper_row": name in paper.yaml, "against": row or None,
    "remark": text or None, "metrics": [files, one per seed]}}.
    paper, ours: in the metric's unit; std: over seeds (empty for one seed); gap: ours minus ours of `against`.
    elsewhere: what another paper than the one reproduced prints for the same.
    """
    paper = yaml.safe_load(Path(paper_path).read_text(encoding="utf-8")).get(name)
    if paper is None:
        raise UserError(f"{paper_path}: has no table {name!r}. Add its title, metrics and printed rows.")
    lines = []
    for row in dict.fromkeys([*paper["rows"], *rows]):
        paper_row = rows.get(row, {}).get("paper_row", row)
        if paper_row != row and paper_row not in paper["rows"]:
            raise UserError(f"config: tables.{name}.rows.{row}.paper_row: {paper_path} prints no row {paper_row!r}")
        printed = paper["rows"].get(paper_row, {})
        seeds = [read_json(file) for file in rows[row]["metrics"]] if row in rows else []
        measured = list(dict.fromkeys(metric for seed in seeds for metric in seed["metrics"]))
        for metric in dict.fromkeys([*paper["metrics"], *measured]):
            elsewhere = printed.get("elsewhere", {}).get(metric, {})
            about = paper["metrics"].get(metric) or _like(metric, paper["metrics"])
            lines.append(
                {
                    "table": name,
                    "title": paper["title"],
                    "row": row,
                    "metric": metric,
                    "unit": about.get("unit", ""),
                    "better": about.get("better", ""),
                    "paper": printed.get(metric),
                    "against": rows.get(row, {}).get("against") or printed.get("against"),
                    "run": rows[row]["run"] if row in rows else None,
                    "note": None if row in rows else MISSING,
                    "properties": _properties(paper.get("properties", {}), printed),
                    "elsewhere": elsewhere.get("value"),
                    "elsewhere_source": elsewhere.get("source"),
                    "remark": rows.get(row, {}).get("remark"),
                    **(
                        _measured(seeds, metric, printed.get("data") or paper["data"], about)
                        if metric in measured
                        else {}
                    ),
                }
            )
    frame = _with_gaps(pd.DataFrame(lines).reindex(columns=COLUMNS))
    frame = frame.astype({"seeds": "Int64", "samples": "Int64"})  # whole numbers that may be missing
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False)


def _properties(headings, printed):
    """`continuous time: no; block-wise: yes`: what a row is, where the paper prints that in columns of their own."""
    # As text, since the csv is in long form and tables have other properties, or none.
    known = [(heading, printed[key]) for key, heading in headings.items() if key in printed]
    return "; ".join(f"{heading}: {'yes' if value else 'no'}" for heading, value in known) or None


def _like(metric, known):
    """Unit and direction of a variant (`accuracy_4_steps`) are those of the metric it is named after.

    Where texts are judged, what a loop of a few words would betray stands beside, and perplexities under other teachers
    than the paper's, which are other metrics.
    """
    known = {**known, **OF_TEXTS} if "mauve" in known else known
    return next((about for name, about in known.items() if metric.startswith(name)), {})


def show(paths):
    """The tables as text for a terminal: what the paper prints, and what was measured in its place."""
    for path in paths:
        frame = pd.read_csv(path)
        frame = frame[frame["better"].notna()].set_index(["row", "metric"])[["paper", "ours", "std", "seeds"]]
        print(f"\n{Path(path).stem}\n{frame.to_string(float_format='{:.2f}'.format, na_rep='-')}")


def _measured(seeds, metric, data, about):
    values = pd.Series([seed["metrics"][metric]["value"] for seed in seeds])
    extractor, expected = seeds[0]["metrics"][metric].get("extractor"), about.get("extractor")
    stand_ins = [f"{title} for {data}" for title in sorted({seed["data"]["title"] for seed in seeds} - {data})]
    if extractor and expected and extractor != expected:
        stand_ins.append(f"{extractor} for {expected}")
    commits = {seed["evaluation"]["commit"] for seed in seeds}
    for seed in seeds:
        commits |= {attempt["commit"] for part in seed["parts"].values() for attempt in part["attempts"]}
    return {
        "ours": values.mean(),
        "std": values.std(),
        "seeds": len(values),
        "samples": seeds[0]["metrics"][metric]["samples"],
        "extractor": extractor,
        "stand_in": "; ".join(stand_ins),
        "commit": " ".join(sorted(commits)),
        "scale": seeds[0]["run"]["scale"],
        "note": _note(seeds[0]["metrics"][metric]),
    }


def _note(number):
    """What a reader must know of a number: a grid of levels may miss the interval of a block altogether."""
    notes = (
        [f"{'least' if number['name'] == 'fid' else 'mean'} of {number['sets']} sets"]
        if number.get("sets", 1) > 1
        else []
    )
    if number.get("idle_blocks"):
        notes.append(f"never acts: block {', '.join(map(str, number['idle_blocks']))}")
    return "; ".join(notes) or None


def _with_gaps(frame):
    for index, line in frame[frame["against"].notna()].iterrows():
        # The other row may lack a variant (`accuracy_4_steps`): then it is its plain metric that counts.
        like = frame["metric"].map(lambda metric, name=line["metric"]: name.startswith(metric))
        others = frame[(frame["row"] == line["against"]) & like]
        for column, gap in (("paper", "paper_gap"), ("ours", "gap")):
            known = others[others[column].notna()]
            if len(known):
                frame.loc[index, gap] = line[column] - known.loc[known["metric"].str.len().idxmax(), column]
    return frame

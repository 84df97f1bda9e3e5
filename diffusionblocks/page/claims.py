"""What the paper and we claim, and what our numbers say of it: held, did not hold, cannot tell. No torch.

A claim with a margin holds where the error leaves a row better than another by more than the margin, and does not
where it leaves it better by less: the 90% interval of their difference (page/statistics.py) lies beyond the margin, or
short of it. With a margin of 0 or more that is superiority, with a negative one non-inferiority. One seed decides
nothing. Where no value spreads over seeds, the difference itself decides, unless it is the margin exactly.

Controls. A claim against a row that has a control is held against that as well (page/controls.py).

Cross-checks. A table may name another column that measures the same otherwise (images over another grid of levels). A
claim is then judged by it too, and where that verdict is another one, the claim's own is grey.

docs/claims.md has the statistics, their error rates, and what each key of a claim means.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from diffusionblocks.base.components import PACKAGE
from diffusionblocks.base.files import write_json
from diffusionblocks.page.controls import controlled, shallow_of
from diffusionblocks.page.cost import jobs
from diffusionblocks.page.gap import gap_of, measured_in, text_of
from diffusionblocks.page.results import Results, read
from diffusionblocks.page.statistics import CONFIDENCE, bootstrap, seeds_to_decide, sign_flip
from diffusionblocks.page.wording import VERDICTS, in_words, signed


def of_table(results: Results, frame: pd.DataFrame) -> list[dict]:
    """Every claim of a table with what its csv says of it, in the order of the table's file.

    results: the table; frame: its csv. Each is a dict as docs/claims.md describes it, with one of `VERDICTS`.
    """
    return [
        _of_claim(results, frame, claim, f"{results.name}-{number}")
        for number, claim in enumerate(results.plan["claims"], 1)
    ]


def verdicts(plan_paths: Sequence[Path | str], table_paths: Sequence[Path | str], path: Path | str) -> None:
    """Write what became of the claims of some tables: claims.json, which docs/claims.md describes.

    plan_paths: `<table>.json` of each; table_paths: their csv files, in the same order. What is infinite is written as
    null. Raises UserError as `Results` and `read` do, and when the disk is full.
    """
    tables = [Results(plan) for plan in plan_paths]
    claims = [claim for pair in zip(tables, map(read, table_paths), strict=True) for claim in of_table(*pair)]
    about = {"scale": tables[0].plan["scale"], "confidence": CONFIDENCE}
    for key, ours in (("counts", False), ("counts_of_ours", True)):
        about[key] = counts([claim for claim in claims if claim["ours"] == ours])
    write_json(path, _finite({**about, "claims": claims}))


def column(claim: dict, scale: str) -> str:
    """The column that decides a claim at a scale: its metric, or what is measured there in place of it."""
    return claim.get("measured_as", {}).get(scale, claim["metric"])


def counts(claims: list[dict]) -> dict[str, int]:
    """{verdict: how many claims have it}, of all verdicts."""
    found = Counter(claim["verdict"] for claim in claims)
    return {verdict: found[verdict] for verdict in VERDICTS}


def _of_claim(results, frame, claim, name):
    scale = results.plan["scale"]
    metric = column(claim, scale)
    cells = measured_in(metric, frame)
    lines = frame[frame["metric"] == metric].set_index("row")
    one = lines.loc[claim["row"]] if claim["row"] in lines.index else {}
    untested, doubt = (claim.get(key, {}).get(scale) for key in ("not_tested", "doubt"))
    found = {
        "id": name,
        "table": results.name,
        "source": claim.get("source"),
        "text": claim["text"],
        "ours": claim.get("ours", False),
        "kind": "factor" if "factor" in claim else "better" if claim["margin"] >= 0 else "not worse",
        "metric": metric,
        "in_place_of": None if metric == claim["metric"] else claim["metric"],
        "unit": text_of(one.get("unit")),
        "better": text_of(one.get("better")),
        **{key: claim[key] for key in ("row", "against")},
        **{key: claim.get(key) for key in ("margin", "factor")},
        "paper": _printed(results, claim),
        **{"gap": None, "ratio": None, "control": None, "cross_check": None},
        **{"verdict": "not measured", "because": None},
        **{"grey": False, "more": None},
        "stand_in": _stand_in(results, claim, one),
        "scale": text_of(one.get("scale")) or scale,
        "timed": text_of(one.get("timed")),
    }
    absent = [row for row in (claim["row"], claim["against"]) if row not in cells.index]
    if not absent and "factor" in claim:
        found |= _by_ratio(claim, cells)
    elif not absent:
        found |= _by_gap(claim, cells, results)
        found |= _cross_checked(found, claim, frame, results)
    else:
        titles = " and ".join(map(results.title_of, absent))
        found["because"] = f"{in_words(metric)} of {titles} is not measured at scale {scale}"
    if untested:
        return found | {"verdict": "not tested", "because": untested, "grey": False, "more": None}
    if doubt and not absent:
        found |= {"because": "; ".join(filter(None, [found["because"], doubt])), "grey": True}
    return found


def _by_ratio(claim, cells):
    """Of something counted or timed: how many times as much `against` has."""
    ours, other = (float(cells.loc[claim[key], "ours"]) for key in ("row", "against"))
    ratio = other / ours if ours else math.inf
    return {"ratio": ratio, "verdict": "held" if ratio >= claim["factor"] else "did not hold"}


def _decided(claim, cells, results):
    """(gap, the control's row and the gap to it or None for each, verdict, what the control says or None)."""
    shallow = shallow_of(claim, results.plan["depth"])
    ours, other = (cells.loc[claim[key]] for key in ("row", "against"))
    gap = gap_of(ours, other)
    word = {1: "held", -1: "did not hold", 0: "cannot tell"}[gap.side(claim["margin"])]
    if shallow not in cells.index:
        return gap, None, None, word, None
    control, worth = gap_of(ours, cells.loc[shallow]), gap_of(other, cells.loc[shallow])
    return gap, shallow, control, *controlled(word, control, worth, results.title_of(shallow))


def _by_gap(claim, cells, results):
    gap, shallow, control, word, why = _decided(claim, cells, results)
    margin = claim["margin"]
    more, pinned = _more(claim, gap, control, shallow, results) if word == "cannot tell" else (None, None)
    tests = {
        "p": sign_flip(gap.ours, gap.other, gap.paired, margin),
        "bootstrap": bootstrap(gap.ours, gap.other, gap.paired),
    }
    return {
        "gap": gap.shown() | tests,
        "control": control and {"row": shallow, **control.shown()},
        "verdict": word,
        "because": "; ".join(filter(None, [why, _unknown(gap, margin), pinned])) or None,
        "grey": gap.seeds == 1,
        "more": more,
    }


def _cross_checked(found, claim, frame, results):
    """What the column says that checks a claim's; nothing where there is none, or it is not measured of both rows."""
    metric = results.plan["cross_checks"].get(found["metric"])
    cells = measured_in(metric, frame)
    if not {claim["row"], claim["against"]} <= set(cells.index):
        return {}
    gap, *_, word, _ = _decided(claim, cells, results)
    about = {"cross_check": {"metric": metric, "verdict": word, **gap.shown()}}
    if word == found["verdict"]:
        return about
    why = f"by {in_words(metric)}: {word} ({signed(gap.mean, gap.half)})"
    return about | {"grey": True, "because": "; ".join(filter(None, [found["because"], why]))}


def _unknown(gap, margin):
    """Why the error of a gap is none, in words; None where it is known."""
    if gap.half is None:
        return "one seed: no spread is known" if gap.seeds == 1 else "infinite with some seed, so no spread is known"
    if gap.half == 0:
        exact = "" if gap.side(margin) else ", and the gap is the margin exactly"
        return f"no value differs between seeds{exact}"
    return None


def _more(claim, gap, control, shallow, results):
    """({seeds, hours} after which a claim that is open would be decided, if means and spreads stay, what keeps its rows
    from having so many); None for each where there is none.

    Below the margin, or behind the control, one of the two suffices; else both must be cleared.
    """
    distances = [(gap.mean - claim["margin"], gap)] + ([(control.mean, control)] if control else [])
    known = [(distance, seeds_to_decide(distance, found.half, found.seeds)) for distance, found in distances]
    refuting = [needed for distance, needed in known if distance < 0 and needed is not None]
    proving = [needed for distance, needed in known if distance >= 0]
    if refuting:
        needed = min(refuting)
    elif len(proving) < len(known) or None in proving:
        return None, None
    else:
        needed = max(proving)
    rows = [claim["row"], claim["against"], *([shallow] if control else [])]
    counted = {row: len(results.runs[row]) for row in rows}
    hours = sum(max(0, needed - counted[row]) * _hours(results.runs[row]) for row in rows)
    return {"seeds": needed - min(counted.values()), "hours": hours}, _pinned(results, rows, needed)


def _pinned(results, rows, needed):
    """Which files keep rows from having so many seeds, in words; None where no row's `seeds_at_most` does."""
    places = {}
    for row in rows:
        most, layer = results.plan["rows"][row].get("settings", {}).get("seeds_at_most") or (None, None)
        if most and most < needed:
            file = f"workflow/tables/{layer.split('.')[1]}.yaml"
            places[file if (PACKAGE.parent / file).exists() else layer] = None
    return f"more need seeds_at_most lifted in {' and '.join(places)}" if places else None


def _hours(runs):
    """Hours of all jobs of a row, one after another; mean over its seeds."""
    return sum(values["seconds"] for run in runs for _, values in jobs(run)) / len(runs) / 3600


def _printed(results, claim):
    """What the paper prints of both rows, or the ratio that it states in words."""
    if claim.get("ours"):
        return None
    metric, stated = claim["metric"], claim.get("stated")
    row, against = (results.of_row(claim[key]).get(metric) for key in ("row", "against"))
    if row is None or against is None:
        return None if stated is None else {"row": row, "against": against, "gap": None, "ratio": stated}
    if "factor" in claim:
        return {"row": row, "against": against, "gap": None, "ratio": against / row}
    better = results.paper["metrics"][metric].get("better")
    return {"row": row, "against": against, "gap": (row - against) * (-1 if better == "lower" else 1), "ratio": None}


def _stand_in(results, claim, line):
    """What its numbers were measured with in place of the paper's data, features or teacher, in words."""
    found, judge = text_of(line.get("stand_in")), text_of(line.get("extractor"))
    asked = results.paper["metrics"].get(claim["metric"], {}).get("extractor")
    if line.get("metric", claim["metric"]) != claim["metric"] and judge and asked:
        return "; ".join(filter(None, [found, f"{judge} for {asked}"]))
    return found


def _finite(value):
    """The same with null in place of what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What the paper claims, and what our numbers say of it: held, did not hold, undecided or not measured. No torch."""

import math

import pandas as pd

NOTHING = {"difference": None, "error": None, "ratio": None}


def verdict(claim: dict, frame: pd.DataFrame) -> dict:
    """A claim with what the table's csv says of it.

    claim: {text, metric, row, against} and `margin` or `factor`. With a margin it holds when `row` is better than
    `against` by at least that much in the metric's unit (negative: may be worse by it), and is undecided within two
    standard errors of the difference, or with one seed. With a factor it is about something counted or
    timed, and holds when `against` has at least so many times as much.
    """
    cells = frame[(frame["metric"] == claim["metric"]) & frame["ours"].notna()].set_index("row")
    if not {claim["row"], claim["against"]} <= set(cells.index):
        return {**claim, **NOTHING, "verdict": "not measured"}
    ours, other = (cells.loc[row] for row in (claim["row"], claim["against"]))
    if "factor" in claim:
        ratio = other["ours"] / ours["ours"]
        word = "held" if ratio >= claim["factor"] else "did not hold"
        return {
            **claim,
            **NOTHING,
            "verdict": word,
            "ratio": ratio,
            "scale": ours["scale"],
            "timed": _text(ours["timed"]),
        }
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
        "stand_in": _text(ours["stand_in"]),
    }


def _text(cell):
    """What a cell of a csv says; None for an empty one."""
    return cell if isinstance(cell, str) else None

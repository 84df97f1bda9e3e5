"""What the paper and we claim, and what our numbers say of it: held, did not hold, undecided or not measured. No torch.

A row is ahead of another, or behind it, where they differ by more than the error: two standard errors of the
difference. Where both have the same seeds, it is that of the differences of each seed, since rows of one seed are
tested with the same draws and, where their parts have the same names, see the same data in the same order; otherwise
their own spreads add up. With one seed no spread is known, and nothing is decided.

The control. A table may name a row `deep`, trained end to end, and a row `shallow`, trained end to end too, with the
layers of one block: it fits where a block does, and needs no method. To claim that blocks are as good as end to end
is to claim that they make use of all layers, so a claim against `deep` is held against `shallow` as well:

- blocks behind `shallow`: did not hold, even within the margin: a block's layers, trained as usual, do better;
- the margin kept, and ahead of `shallow`: held. Nothing less is evidence, and this is, even where end to end itself
  makes nothing of its depth;
- the margin kept, but not ahead of `shallow`: undecided. Either depth is worth nothing at this scale, so that any net
  of one block's size keeps the margin, or the margin is wider than what depth is worth;
- the margin missed: did not hold. No control excuses it: where depth is worth nothing, end to end is the easier to
  reach;
- undecided against `deep`: it stays so, and where depth is worth nothing, more seeds alone will not help.
"""

import math
from statistics import stdev
from typing import NamedTuple

import pandas as pd

NOTHING = {"difference": None, "error": None, "ratio": None, "because": None, "control": None}


class Gap(NamedTuple):
    """How far a row is from another in a metric.

    difference: first minus second, in the metric's unit; better: by how much the first is better; error: two standard
    errors, infinite with one seed; seeds: of the row that has fewer; paired: whether the error is that of the
    differences of each seed.
    """

    difference: float
    better: float
    error: float
    seeds: int
    paired: bool

    @property
    def side(self) -> int:
        """1 where the first row is ahead, -1 where it is behind, 0 where the error does not tell."""
        return (self.better > self.error) - (self.better < -self.error)

    def shown(self) -> dict:
        """For the page: the error is None where no spread is known."""
        error = self.error if math.isfinite(self.error) else None
        return {"difference": self.difference, "error": error, "seeds": self.seeds, "paired": self.paired}


def verdict(claim: dict, frame: pd.DataFrame, depth: dict | None = None) -> dict:
    """A claim with what the table's csv says of it.

    claim: {text, metric, row, against}, `margin` or `factor`, and `ours` if the paper does not claim it. With a margin
    it holds when `row` is better than `against` by at least that much in the metric's unit (negative: may be worse by
    it), and is undecided within the error. With a factor it is about something counted or timed, and holds when
    `against` has at least so many times as much. depth: {deep, shallow}, the table's control, if it has one; a claim
    against `deep` is then judged as the head of this file says: `control` is the Gap to `shallow`, and `because` says
    in words what it changed.
    """
    cells = _cells(claim["metric"], frame)
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
    gap = _gap(ours, other)
    distance = gap.better - claim["margin"]
    word = "held" if distance >= gap.error else "did not hold" if distance < -gap.error else "undecided"
    word = word if math.isfinite(gap.error) else "undecided"  # the distance may be infinite, too
    found = {**claim, **NOTHING, "verdict": word, **gap.shown(), "stand_in": _text(ours["stand_in"])}
    if is_about_depth(claim, depth) and depth["shallow"] in cells.index:
        control, worth = _gap(ours, cells.loc[depth["shallow"]]), _gap(other, cells.loc[depth["shallow"]])
        word, because = _controlled(word, control, worth, depth["shallow"])
        found |= {"verdict": word, "because": because, "control": {"row": depth["shallow"], **control.shown()}}
    return found


def is_about_depth(claim: dict, depth: dict | None) -> bool:
    """Whether a claim compares a row with the deep one, so that the control has a say in it."""
    deep_one = depth is not None and claim["against"] == depth["deep"] and claim["row"] != depth["shallow"]
    return deep_one and "margin" in claim


def worth_of_depth(depth: dict, claims: list[dict], frame: pd.DataFrame) -> list[dict]:
    """What `deep` has over `shallow`, in the metric of `depth` and in those of claims that the control has a say in.

    A dict each: metric, unit, better (the direction) and worth, one of "something", "nothing" (within the error), "less
    than nothing" (the deep row is behind), "unknown" (one seed) and "not measured"; if measured, what `Gap.shown` has.
    """
    found = []
    for metric in dict.fromkeys([depth["metric"], *(c["metric"] for c in claims if is_about_depth(c, depth))]):
        cells = _cells(metric, frame)
        if not {depth["deep"], depth["shallow"]} <= set(cells.index):
            found.append({"metric": metric, "worth": "not measured"})
            continue
        deep, shallow = (cells.loc[depth[key]] for key in ("deep", "shallow"))
        gap = _gap(deep, shallow)
        known = {1: "something", 0: "nothing", -1: "less than nothing"}
        about = {"metric": metric, "unit": _text(deep["unit"]), "better": _text(deep["better"])}
        found.append({**about, "worth": known[gap.side] if math.isfinite(gap.error) else "unknown", **gap.shown()})
    return found


def _controlled(word, control, worth, shallow):
    """(verdict, what the control says in words or None) of a claim against the deep row; see the head of this file."""
    if control.side < 0:
        return "did not hold", f"worse than {shallow}, a net of one block’s size"
    if word == "did not hold" or (word == "held" and control.side > 0):
        return word, None
    if worth.side <= 0 and math.isfinite(worth.error):
        return "undecided", "depth is worth nothing at this scale"
    equal = f"no better than {shallow}, a net of one block’s size, within the error"
    return "undecided", equal if word == "held" else None


def _cells(metric, frame):
    """What was measured in a metric: a line for each row, by its name."""
    return frame[(frame["metric"] == metric) & frame["ours"].notna()].set_index("row")


def _gap(ours, other):
    sign, difference = -1 if ours["better"] == "lower" else 1, float(ours["ours"] - other["ours"])
    seeds = int(min(ours["seeds"], other["seeds"]))
    # Rows of a table have the first so many of the configured seeds: as many are the same ones.
    paired, variance = ours["seeds"] == other["seeds"], sum(row["std"] ** 2 / row["seeds"] for row in (ours, other))
    if seeds == 1:
        variance = math.inf
    elif paired:
        values = ([float(value) for value in row["values"].split(";")] for row in (ours, other))
        differences = [a - b for a, b in zip(*values, strict=True)]
        variance = stdev(differences) ** 2 / seeds if all(map(math.isfinite, differences)) else math.inf
    return Gap(difference, sign * difference, 2 * math.sqrt(variance), seeds, bool(paired and seeds > 1))


def _text(cell):
    """What a cell of a csv says; None for an empty one."""
    return cell if isinstance(cell, str) else None

"""By how much a row of a table is better than another in a metric, seed by seed. No torch."""

from typing import NamedTuple

import pandas as pd

from diffusionblocks.page.statistics import are_paired, difference


class Gap(NamedTuple):
    """By how much a row is better than another in a metric, in its unit.

    ours, other: the values of each seed, turned round where lower is better; mean: of the difference; half: its error,
    None where no spread is known; paired: whether the error is that of the differences of each seed.
    """

    ours: list[float]
    other: list[float]
    paired: bool
    mean: float
    half: float | None

    @property
    def seeds(self) -> int:
        """Of the row that has fewer."""
        return min(len(self.ours), len(self.other))

    def side(self, margin: float = 0.0) -> int:
        """1 where the error leaves it above the margin, -1 where it leaves it below, 0 where it does not tell."""
        if self.half is None:
            return 0
        return (self.mean - self.half > margin) - (self.mean + self.half < margin)

    def shown(self) -> dict:
        low, high = (None, None) if self.half is None else (self.mean - self.half, self.mean + self.half)
        return {"mean": self.mean, "low": low, "high": high, "seeds": self.seeds, "paired": self.paired}


def gap_of(ours: pd.Series, other: pd.Series) -> Gap:
    """The gap of two lines of `measured_in`."""
    a, b = ([direction(ours) * float(value) for value in str(row["values"]).split(";")] for row in (ours, other))
    paired = are_paired(a, b)
    return Gap(a, b, paired, *difference(a, b, paired))


def measured_in(metric: str, frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured in a metric, of a table's csv: a line for each row, by its name."""
    return frame[(frame["metric"] == metric) & frame["ours"].notna()].set_index("row")


def direction(line: pd.Series) -> int:
    """-1 where lower is better, else 1."""
    return -1 if line["better"] == "lower" else 1


def text_of(cell: object) -> str | None:
    """What a cell of a csv says; None for an empty one."""
    return cell if isinstance(cell, str) else None

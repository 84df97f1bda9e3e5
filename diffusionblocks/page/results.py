"""One table as planning wrote it, with what its runs measured, and its csv. No torch."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

from diffusionblocks.base.files import read_json, unreadable
from diffusionblocks.evaluation.metric import FACTS

# Of a table's csv.
COLUMNS = [
    *("table", "title", "row", "metric", "unit", "better", "paper", "ours", "std", "seeds", "samples"),
    *("extractor", "against", "paper_gap", "gap", "stand_in", "commit", "scale", "run", "note"),
    *("properties", "elsewhere", "elsewhere_source", "remark", "beside", "timed", "values"),
    *("row_title", "error", "gap_error"),
]
NUMBERS = {"paper", "ours", "std", "seeds", "samples", "paper_gap", "gap", "elsewhere", "error", "gap_error"}
# All else is text, whatever it looks like: a row may be called `null` or `007`, and a commit be of digits alone.
TEXTS = dict.fromkeys([column for column in COLUMNS if column not in {*NUMBERS, "beside"}], str)


class Results:
    """A `<table>.json` and the metrics.json files that it names.

    runs: {row: [metrics of each seed]}, rows as in the table's file; paper: what the paper prints of this table, with
    no rows and no metrics for a table of one's own (`printed` tells which). Raises UserError for an absent file.
    """

    def __init__(self, plan_path: Path | str) -> None:
        self.plan = read_json(plan_path)
        self.name, self.printed = self.plan["table"], self.plan["paper"] is not None
        self.paper = {"title": self.plan["title"], "metrics": {}, "rows": {}, **(self.plan["paper"] or {})}
        self.title = self.paper["source"] if self.printed else self.plan["title"]  # `Table 1`, or a title of one's own
        self.runs = {row: [read_json(file) for file in about["metrics"]] for row, about in self.plan["rows"].items()}

    @property
    def counted(self) -> bool:
        """Whether nothing of it was trained: an update of each row was counted, or timed."""
        return not any(seeds[0]["parts"] for seeds in self.runs.values())

    def rows(self) -> list[str]:
        """All rows: first those of the paper, trained or not, then those that are ours alone."""
        return list(dict.fromkeys([*self.paper["rows"], *self.plan["rows"]]))

    def of_row(self, row: str) -> dict:
        """What the paper prints of a row, or of the printed row that it stands beside; may be empty."""
        return self.paper["rows"].get(self._ours(row).get("paper_row", row), {})

    def against(self, row: str) -> str | None:
        """The row that a row is compared with: the one that its settings name, else the paper's."""
        return self._ours(row).get("against") or self.of_row(row).get("against")

    def title_of(self, row: str) -> str:
        """What people call a row; its name where nobody has said, as of a row that is printed and not trained."""
        return self._ours(row).get("title", row)

    def remark(self, row: str) -> str | None:
        return self._ours(row).get("remark")

    def properties(self, row: str) -> dict[str, str]:
        """{heading: yes or no} of what the paper says of a row in columns of their own, without what it leaves out."""
        headings, printed = self.paper.get("properties", {}), self.of_row(row)
        return {heading: "yes" if printed[key] else "no" for key, heading in headings.items() if key in printed}

    def expected_data(self, row: str) -> str | None:
        """The data set behind the printed numbers; a run on any other is a stand-in.

        A row that is printed nowhere is measured on the data of the row that it is compared with.
        """
        printed = (self.of_row(name).get("data") for name in (row, self.against(row)) if name)
        return next(filter(None, printed), self.paper.get("data"))

    def numbers(self, row: str | None) -> dict[str, dict]:
        """{column: its number} of a row's first seed; none for a row that nothing trains."""
        return self.runs[row][0]["metrics"] if row in self.runs else {}

    def values(self, row: str, column: str) -> list[float]:
        """A column's value for each seed, in the metric's unit."""
        return [run["metrics"][column]["value"] for run in self.runs[row]]

    def seeds(self, row: str) -> list[int]:
        return [run["run"]["seed"] for run in self.runs[row]]

    def mean_of(self, row: str | None, metric: str) -> float | None:
        """What a row reaches in the metric of this name, in its plainest column, mean over seeds; None if nothing."""
        columns = columns_of(self.numbers(row), metric)
        return fmean(self.values(row, columns[0])) if columns else None

    def _ours(self, row: str) -> dict:
        return self.plan["rows"].get(row, {})


def read(path: Path | str, columns: list[str] = COLUMNS) -> pd.DataFrame:
    """Columns of a table's csv. Raises UserError for a file that is absent or none of ours."""
    try:
        return pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=[""])[columns]
    except (OSError, KeyError, ValueError) as error:
        damaged = f"{path}: no table of this workflow ({error}). Ask snakemake for it."
        raise unreadable(path, error, damaged) from None


def commits(frames: Sequence[pd.DataFrame]) -> list[str]:
    """The commits behind the numbers of some tables, each once. frames: their csv files."""
    return sorted({word for frame in frames for cell in frame["commit"].dropna() for word in cell.split()})


def num_blocks(run: dict) -> int:
    """Number of blocks that a run has trained; 1 for a method without blocks. run: its metrics.json."""
    return len(run["partition"]["layers"]) if "partition" in run else run["run"]["method"].get("num_blocks", 1)


def columns_of(numbers: dict[str, dict], name: str) -> list[str]:
    """Columns whose numbers the metric of this name gave, those with the fewest settings first."""
    found = [column for column, number in numbers.items() if number["name"] == name]
    return sorted(found, key=lambda column: (len(numbers[column].get("sampling", {})), len(numbers[column])))


def is_variant(number: dict, plain: dict) -> bool:
    """Whether a number has every setting of another of its metric, however the method predicted.

    `accuracy_4_steps` is a variant of `accuracy`, and MAUVE with a factor of its own is one of MAUVE; FID to the
    training images is none of FID to the test images.
    """
    return _settings(plain).items() <= _settings(number).items()


def counterpart(column: str, numbers: dict[str, dict], others: dict[str, dict]) -> str | None:
    """The column among another row's numbers that a column is compared with.

    The same one, else the plainest of those that it is a variant of.
    """
    if column in others or column not in numbers:
        return column if column in others else None
    alike = columns_of(others, numbers[column]["name"])
    return next((other for other in alike if is_variant(numbers[column], others[other])), None)


def _settings(number):
    return {key: value for key, value in number.items() if key not in FACTS}

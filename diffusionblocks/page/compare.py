"""Two runs side by side: which numbers moved beyond their spread, what only one of them has, which settings differ. No
torch.

A number is within the spread where the two means differ by no more than t times the standard error of their difference,
s sqrt(1/n + 1/m) for n and m seeds. s is the standard deviation over seeds of that row and metric on both sides
together; where these leave fewer than four degrees of freedom (three seeds against one), of all rows of the table in
that metric. t is Student's for its degrees of freedom, so that chance alone puts one number in a thousand outside: with
two standard errors, a run of 300 numbers that is right would never pass. Where nothing has a spread (what is counted,
or one seed everywhere) numbers must agree to six digits. What is timed is not compared: it is the machine's.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from diffusionblocks.base.files import UserError, atomic, exists, read_json
from diffusionblocks.page.differ import WHICH, differences, of_numbers
from diffusionblocks.page.headline import ABOUT, archived
from diffusionblocks.page.results import read
from diffusionblocks.page.ship import planned

STUDENT = (636.6, 31.6, 12.92, 8.61, 6.87, 5.96, 5.41, 5.04, 4.78, 4.59)  # two-sided, 0.001; 1, 2, ... degrees
FEWEST = 4  # degrees of freedom that a row's own spread needs to be its tolerance
EQUAL = 1e-6  # relative: of numbers without a spread, which differ in the order of a sum at most
TIMES = ("s", "ms")  # units
COLUMNS = ["row", "metric", "unit", "better", "ours", "std", "seeds", "timed", "commit"]
SIDES = [f"{name}_{side}" for side in ("there", "here") for name in ("ours", "std", "seeds", "commit")]
LINES = ["table", "row", "metric", "unit", "better", *SIDES, "allowed", "verdict"]
MOST = 20  # lines of a kind that a terminal shows
NAMES = 8  # names in a line


@dataclass(frozen=True)
class Side:
    """One of two runs that are compared.

    folder: the run's, or one that ships; csvs: where its tables' csv files are; tables: names of those that it has
    measured.
    """

    folder: Path
    csvs: Path
    scale: str
    tables: list[str]

    @classmethod
    def of(cls, folder: Path) -> "Side":
        """That of a run, finished or not, or of what ships of one. Raises UserError for another folder."""
        if exists(folder / ABOUT):
            about = read_json(folder / ABOUT)
            if not isinstance(about, dict) or not {"scale", "tables"} <= about.keys():
                raise UserError(f"{folder / ABOUT}: is none of a shipped run. Name a folder that `ship` wrote.")
            return cls(folder, folder, about["scale"], about["tables"])
        plans, csvs = planned(folder), folder / "tables"
        measured = [name for name in plans if exists(csvs / f"{name}.csv")]
        return cls(folder, csvs, next(iter(plans.values()))["scale"], measured)

    def settings(self) -> dict[tuple[str, str], dict]:
        """{(table, row): what its first seed was trained and measured with, and how many seeds there are} of all rows
        whose metrics.json is there.
        """
        archive = archived(self.folder) if exists(self.folder / ABOUT) else None
        inside = archive and {_below(name): content for name, content in archive.items()}
        found = {}
        for table in self.tables:
            for row, about in self._content(f"tables/{table}.json", inside)["rows"].items():
                metrics = self._content(_below(about["metrics"][0]), inside)
                if metrics:
                    run = {key: value for key, value in metrics["run"].items() if key not in WHICH}
                    found[table, row] = {"seeds": len(about["metrics"]), **run, "metrics": of_numbers(metrics)}
        return found

    def _content(self, name, inside):
        if inside is not None:
            return inside.get(name)
        return read_json(self.folder / name) if exists(self.folder / name) else None


def _below(path):
    """The name below its run's folder of a file that is named results/<scale>/..., from where the run was made."""
    return "/".join(Path(path).parts[2:])


@dataclass(frozen=True)
class Compared:
    """What a comparison has found.

    lines: one for each number of either side: table, row, metric, unit, better, of each side its mean, standard
    deviation, seeds and commit (`ours_there`, `ours_here`, ...), allowed, which is the greatest difference that is
    within the spread, and verdict: within, outside, missing (here), new (here) or timed. tables: {verdict: names} of
    those that are missing or new as a whole.
    """

    lines: pd.DataFrame
    tables: dict[str, list[str]]

    def of(self, verdict: str) -> pd.DataFrame:
        """The lines with a verdict."""
        return self.lines[self.lines["verdict"] == verdict]

    def count(self, verdict: str) -> int:
        """How many numbers have a verdict, a table as a whole counted once."""
        return len(self.of(verdict)) + len(self.tables.get(verdict, ()))

    def names(self, verdict: str) -> list[str]:
        """What is missing or new: tables, then rows as a whole, then `table/row/metric`."""
        whole = self.lines.groupby(["table", "row"])["verdict"].agg(lambda found: set(found) == {verdict})
        lines = self.of(verdict)[["table", "row", "metric"]].itertuples(index=False)
        names = (f"{table}/{row}" if whole[table, row] else f"{table}/{row}/{metric}" for table, row, metric in lines)
        return [*self.tables[verdict], *dict.fromkeys(names)]


def compare(here: Side, there: Side) -> Compared:
    """Compare the csv files of two runs. Raises UserError for one that is damaged, or that ships and is not there."""
    lines, tables = [], {"missing": [], "new": []}
    for name in dict.fromkeys([*there.tables, *here.tables]):
        if name not in here.tables or name not in there.tables:
            tables["new" if name in here.tables else "missing"].append(name)
            continue
        sides = [_numbers(side.csvs / f"{name}.csv") for side in (here, there)]
        both = sides[1].add_suffix("_there").join(sides[0].add_suffix("_here"), how="outer")
        timed = both[["timed_there", "timed_here"]].eq(True).any(axis=1)
        spreads = both[~timed].dropna(subset=["ours_there", "ours_here"])
        both["allowed"] = [
            _allowed(key, line, spreads) if key in spreads.index else math.nan for key, line in both.iterrows()
        ]
        both["verdict"] = [_verdict(line) for _, line in both.iterrows()]
        for column in ("unit", "better"):
            both[column] = both[f"{column}_here"].fillna(both[f"{column}_there"])
        lines.append(both.reset_index().assign(table=name)[LINES])
    return Compared(pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=LINES), tables)


def _numbers(path):
    """All numbers of a table's csv, by row and metric, and of each whether it is timed."""
    frame = read(path, COLUMNS)
    try:
        frame = frame.astype({"ours": float, "std": float, "seeds": float})
    except ValueError as error:
        raise UserError(f"{path}: no table of this workflow ({error}). Ask snakemake for it.") from None
    frame["timed"] = frame["timed"].notna() | frame["unit"].isin(TIMES)
    return frame[frame["ours"].notna()].set_index(["row", "metric"])


def _allowed(key, line, both):
    """The greatest difference of two means that is within the spread."""
    variance, freedom = _pooled(line.to_frame().T)
    if freedom < FEWEST:
        variance, freedom = _pooled(both.xs(key[1], level="metric"))
    equal = EQUAL * min(abs(line["ours_there"]), abs(line["ours_here"]))  # one of them may be infinite
    if not freedom:
        return equal
    t = STUDENT[min(int(freedom), len(STUDENT)) - 1]
    return max(equal, t * math.sqrt(variance * (1 / line["seeds_there"] + 1 / line["seeds_here"])))


def _pooled(lines):
    """(variance, degrees of freedom) over seeds of some lines, both sides together."""
    sides = [lines[[f"std_{side}", f"seeds_{side}"]].set_axis(["std", "seeds"], axis=1) for side in ("there", "here")]
    known = pd.concat(sides).astype(float)
    known = known[(known["seeds"] > 1) & known["std"].notna()]
    freedom = float((known["seeds"] - 1).sum())
    return float((known["std"] ** 2 * (known["seeds"] - 1)).sum() / freedom) if freedom else 0.0, freedom


def _verdict(line):
    if pd.isna(line["ours_here"]) or pd.isna(line["ours_there"]):
        return "missing" if pd.isna(line["ours_here"]) else "new"
    if pd.isna(line["allowed"]):
        return "timed"
    return "outside" if abs(line["ours_here"] - line["ours_there"]) > line["allowed"] else "within"


def _shown(line, side):
    """`31 ± 1 (3)`: mean, standard deviation and seeds of one side of a line."""
    spread = "" if pd.isna(line[f"std_{side}"]) else f" ± {line[f'std_{side}']:.3g}"
    return f"{line[f'ours_{side}']:.5g}{spread} ({line[f'seeds_{side}']:.0f})"


def side_by_side(results: Path, folder: Path, path: Path | None = None) -> str:
    """How a run differs from another, for a terminal; with `path`, all numbers into a csv there.

    results: the run's folder, results/<scale>; folder: another run's, of whichever scale, or one that ships. Both may
    be unfinished. Raises UserError for folders of something else, and for files that are damaged.
    """
    if results.resolve() == folder.resolve():
        raise UserError(f"{folder}: is the run itself. Name the folder of another run.")
    here, there = Side.of(results), Side.of(folder)
    found, settings = compare(here, there), (there.settings(), here.settings())
    changed = {row: _changed(*(side[row] for side in settings)) for row in settings[1] if row in settings[0]}
    if path:
        _write(path, found.lines, changed)
    lines = [f"{word}: {side.folder}, scale {side.scale}" for word, side in (("there", there), ("here", here))]
    return "\n".join(
        [*lines, *_told_settings(changed), *_told_moved(found.of("outside")), *told(found, results, folder)]
    )


def told(found: Compared, results: Path, folder: Path) -> list[str]:
    """What is missing and new, and how many numbers of each verdict there are."""
    lines = []
    for verdict in ("missing", "new"):
        if names := found.names(verdict):
            lines.append(f"{verdict.capitalize()}: {_some(names)}")
    lines.append(
        f"{results} against {folder}: {found.count('within')} numbers within the spread, {found.count('outside')} "
        f"outside, {found.count('missing')} missing, {found.count('new')} new; {found.count('timed')} that are timed "
        "are not compared"
    )
    return lines


def moved(lines: pd.DataFrame, other: str = "there") -> str:
    """Numbers that are outside, one in a line. other: what the side that this run is compared with is called."""
    shown = lines[["table", "row", "metric"]].copy()
    for heading, side in ((other, "there"), ("here", "here")):
        shown[heading] = [_shown(line, side) for _, line in lines.iterrows()]
    shown["allowed"] = lines["allowed"].map("± {:.3g}".format)
    shown["here is"] = [_direction(line) for _, line in lines.iterrows()]
    return "Outside the spread (mean ± standard deviation, seeds):\n" + shown.to_string(index=False)


def _told_moved(lines):
    """The numbers that moved most, of their tolerance."""
    if lines.empty:
        return []
    far = ((lines["ours_here"] - lines["ours_there"]).abs() / lines["allowed"]).sort_values(ascending=False)
    rest = [f"... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return ["", moved(lines.loc[far.index[:MOST]]), *rest, ""]


def _told_settings(changed):
    """Each setting that differs, with the rows in which it does so alike."""
    alike = {}
    for row, settings in changed.items():
        for key, pair in settings.items():
            alike.setdefault((key, *pair), []).append("/".join(row))
    if not alike:
        return ["No setting differs."] if changed else []
    ordered = sorted(alike, key=lambda change: -len(alike[change]))
    lines = [f"  {key}: {was} there, {now} here ({_some(alike[key, was, now], 2)})" for key, was, now in ordered[:MOST]]
    rest = [f"  ... and {len(alike) - MOST} more"] if len(alike) > MOST else []
    return ["", "Settings that differ:", *lines, *rest]


def _changed(there, here):
    """The settings in which a row differs, without columns that one side does not have, of which its number tells."""
    both = there["metrics"].keys() & here["metrics"].keys()
    sides = ({**side, "metrics": {key: side["metrics"][key] for key in both}} for side in (there, here))
    return differences(*sides)


def _write(path, lines, changed):
    """All numbers, a line each, with what differs in the settings of its row."""
    told = {
        row: "; ".join(f"{key}: {was} | {now}" for key, (was, now) in found.items()) for row, found in changed.items()
    }
    frame = lines.copy()
    frame["settings"] = [told.get(row) for row in zip(frame["table"], frame["row"], strict=True)]
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False)


def _direction(line):
    """Whether what moved is better or worse here; nothing where neither direction is."""
    sign = {"higher": 1, "lower": -1}.get(line["better"], 0) * (line["ours_here"] - line["ours_there"])
    return "better" if sign > 0 else "worse" if sign < 0 else ""


def _some(names, most=NAMES):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

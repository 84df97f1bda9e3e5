"""A run's numbers against those that ship with the repository: within the spread, outside, missing, new. No torch.

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

from diffusionblocks.base.files import UserError, exists, read_json
from diffusionblocks.page.headline import ABOUT
from diffusionblocks.page.results import read
from diffusionblocks.page.ship import planned

STUDENT = (636.6, 31.6, 12.92, 8.61, 6.87, 5.96, 5.41, 5.04, 4.78, 4.59)  # two-sided, 0.001; 1, 2, ... degrees
FEWEST = 4  # degrees of freedom that a row's own spread needs to be its tolerance
EQUAL = 1e-6  # relative: of numbers without a spread, which differ in the order of a sum at most
TIMES = ("s", "ms")  # units
COLUMNS = ["row", "metric", "unit", "ours", "std", "seeds", "timed"]


class Differs(UserError):
    """Numbers that are outside or missing."""

    exit_code = 1


@dataclass(frozen=True)
class Compared:
    """What a comparison has found.

    outside: a line for each number, with columns table, row, metric, shipped, here, and allowed, which is the greatest
    difference that is within the spread; missing: `table/row/metric`, or a table as a whole; new: likewise, of numbers
    that do not ship; timed: how many are not compared.
    """

    within: int
    outside: pd.DataFrame
    missing: list[str]
    new: list[str]
    timed: int


def verify(results: Path, folder: Path) -> None:
    """Compare a run, finished or not, with a shipped folder, and print what was found.

    Raises `Differs` where numbers are outside or missing, and UserError for a run of another scale and for files that
    are absent or damaged.
    """
    if not exists(folder / ABOUT):
        raise UserError(f"{folder}: has no {ABOUT}, so it is none of a shipped run. Name a folder that `ship` wrote.")
    about = read_json(folder / ABOUT)
    try:
        scale, tables = about["scale"], about["tables"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / ABOUT}: is none of a shipped run ({error}). Name a folder that `ship` wrote."
        ) from None
    here = next(iter(planned(results).values()))["scale"]
    if here != scale:
        raise UserError(f"{results}: is of scale {here}, and {folder} ships scale {scale}. Name one of that scale.")
    found = compare(results / "tables", folder, tables, list(planned(results)))
    print(_told(found, results, folder))
    if len(found.outside) or found.missing:
        raise Differs(f"{results}: outside the spread: {len(found.outside)}, missing: {len(found.missing)}")


def compare(here: Path, shipped: Path, tables: list[str], planned: list[str]) -> Compared:
    """Compare the csv files of two folders. tables: those that ship; planned: those of the run, there or not."""
    within, timed, outside, missing, new = 0, 0, [], [], []
    for name in dict.fromkeys([*tables, *planned]):
        path = here / f"{name}.csv"
        if not exists(path):
            missing += [name] if name in tables else []
            continue
        if name not in tables:
            new.append(name)
            continue
        sides = _numbers(shipped / path.name).add_suffix("_shipped"), _numbers(path).add_suffix("_here")
        both = sides[0].join(sides[1], how="outer")
        is_timed = both[["timed_shipped", "timed_here"]].eq(True).any(axis=1)
        timed += int(is_timed.sum())
        both = both[~is_timed]
        missing += ["/".join((name, *key)) for key in both.index[both["ours_here"].isna()]]
        new += ["/".join((name, *key)) for key in both.index[both["ours_shipped"].isna()]]
        both = both.dropna(subset=["ours_shipped", "ours_here"])
        allowed = [_allowed(key, line, both) for key, line in both.iterrows()]
        off = (both["ours_here"] - both["ours_shipped"]).abs() > allowed
        within += int((~off).sum())
        both = both.assign(table=name, allowed=allowed)[off]
        both["shipped"], both["here"] = (
            [_shown(line, side) for _, line in both.iterrows()] for side in ("shipped", "here")
        )
        outside.append(both.reset_index()[["table", "row", "metric", "shipped", "here", "allowed"]])
    return Compared(within, pd.concat(outside) if outside else pd.DataFrame(), missing, new, timed)


def _numbers(path):
    """ours, std, seeds and whether it is timed, of all numbers of a table's csv, by row and metric."""
    frame = read(path, COLUMNS)
    try:
        frame = frame.astype({"ours": float, "std": float, "seeds": float})
    except ValueError as error:
        raise UserError(f"{path}: no table of this workflow ({error}). Ask snakemake for it.") from None
    frame["timed"] = frame["timed"].notna() | frame["unit"].isin(TIMES)
    return frame[frame["ours"].notna()].set_index(["row", "metric"])[["ours", "std", "seeds", "timed"]]


def _allowed(key, line, both):
    """The greatest difference of two means that is within the spread."""
    variance, freedom = _pooled(line.to_frame().T)
    if freedom < FEWEST:
        variance, freedom = _pooled(both.xs(key[1], level="metric"))
    equal = EQUAL * min(abs(line["ours_shipped"]), abs(line["ours_here"]))  # one of them may be infinite
    if not freedom:
        return equal
    t = STUDENT[min(int(freedom), len(STUDENT)) - 1]
    return max(equal, t * math.sqrt(variance * (1 / line["seeds_shipped"] + 1 / line["seeds_here"])))


def _pooled(lines):
    """(variance, degrees of freedom) over seeds of some lines, both sides together."""
    sides = [lines[[f"std_{side}", f"seeds_{side}"]].set_axis(["std", "seeds"], axis=1) for side in ("shipped", "here")]
    known = pd.concat(sides).astype(float)
    known = known[(known["seeds"] > 1) & known["std"].notna()]
    freedom = float((known["seeds"] - 1).sum())
    return float((known["std"] ** 2 * (known["seeds"] - 1)).sum() / freedom) if freedom else 0.0, freedom


def _shown(line, side):
    spread = "" if pd.isna(line[f"std_{side}"]) else f" ± {line[f'std_{side}']:.3g}"
    return f"{line[f'ours_{side}']:.5g}{spread} ({line[f'seeds_{side}']:.0f})"


def _told(found, results, folder):
    """What was found, for a terminal."""
    lines = []
    if len(found.outside):
        frame = found.outside.assign(allowed=found.outside["allowed"].map("± {:.3g}".format))
        lines += ["Outside the spread (mean ± standard deviation, seeds):", frame.to_string(index=False), ""]
    for word, names in (("Missing", found.missing), ("New", found.new)):
        if names:
            lines.append(f"{word}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}")
    lines.append(
        f"{results} against {folder}: {found.within} numbers within the spread, {len(found.outside)} outside, "
        f"{len(found.missing)} missing, {len(found.new)} new; {found.timed} that are timed are not compared"
    )
    return "\n".join(lines)

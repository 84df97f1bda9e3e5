"""What a finished run comes to, on one screen of a terminal. Of claims.json alone, so that it takes no time."""

import textwrap
from pathlib import Path

from diffusionblocks.base.files import UserError, read_json
from diffusionblocks.page.wording import counted, half, signed

WIDTH, LINES = 100, 25  # of a terminal
COLUMNS = (11, 44, 16, 6)  # table, who is compared in what, ours, the paper's; the verdict takes the rest


def summary(folder: Path) -> str:
    """Counts of verdicts, of each table the first claim of the paper (or of ours), and where the report lies.

    folder: results/<scale>, whose claims.json (docs/claims.md) `snakemake all` writes. Raises UserError where it has
    none, or another file of that name.
    """
    path = folder / "claims.json"
    about = read_json(path)
    try:
        first = {}
        for claim in sorted(about["claims"], key=lambda claim: claim["ours"]):  # the paper's first
            first.setdefault(claim["table"], claim)
        tables = list(dict.fromkeys(claim["table"] for claim in about["claims"]))
        lines = [_line(first[table]) for table in tables]
        head = textwrap.wrap(counted(about), WIDTH)
        scale = about["scale"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no claims.json ({error}). Ask snakemake for it: snakemake claims") from None
    if lines:
        head += [
            "",
            _cells("", "better by (or times less)", "ours ± 90%", "paper", "verdict"),
        ]
    asks = f"All claims: snakemake claims --config scale={scale}. A table's numbers: {folder}/tables/<table>.csv"
    tail = ["", asks, f"Report: {folder.resolve()}/report.html"]
    room = LINES - len(head) - len(tail)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} tables more"]
    return "\n".join([*head, *lines, *tail])


def _line(claim):
    """The first claim of a table: who is compared in what, ours, the paper's, and what became of it."""
    row, against = claim["row"], claim["against"]
    while "_" in row and against.startswith(first := row[: row.index("_") + 1]):  # `vit_` of both says nothing
        row, against = row.removeprefix(first), against.removeprefix(first)
    gap, paper, ours = claim["gap"], claim["paper"] or {}, "–"
    if claim["ratio"] is not None:
        ours = f"{claim['ratio']:.2f} times"
    elif gap:
        ours = signed(gap["mean"], half(gap))
    printed = ""
    if paper.get("gap") is not None:
        printed = f"{paper['gap']:+.2f}"
    elif paper.get("ratio") is not None:
        printed = f"{paper['ratio']:.2f}"
    compared = f"{claim['metric']}: {row} against {against}"
    table = claim["source"].split(",")[0] if claim["source"] else claim["table"]
    return _cells(table, compared, ours, printed, _verdict(claim))


def _verdict(claim):
    """With a question mark where a reader should not lean on it."""
    return claim["verdict"] + ("?" if claim["grey"] else "")


def _cells(*cells):
    """A line of the width of a terminal; what does not fit into its column ends with dots."""
    fitted = [
        cell if len(cell) <= width else f"{cell[: width - 1]}…" for cell, width in zip(cells, COLUMNS, strict=False)
    ]
    text = "  ".join(cell.ljust(width) for cell, width in zip(fitted, COLUMNS, strict=True))
    return f"{text}  {cells[-1]}".rstrip()

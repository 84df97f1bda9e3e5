"""claims.json in a terminal: what a finished run comes to, on one screen, and every claim. No pandas, so at once."""

import contextlib
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from diffusionblocks.base.files import UserError, read_json
from diffusionblocks.page.wording import counted, half, in_words, signed

WIDTH, LINES = 100, 25  # of a terminal
COLUMNS = (11, 44, 16, 6)  # table, who is compared in what, ours, the paper's; the verdict takes the rest
OF_ALL = (16, 22)  # where every claim is listed: verdict and number; the claim takes the rest


def summary(folder: Path) -> str:
    """Counts of verdicts, of each table the first claim of the paper (or of ours), and where the report lies.

    folder: results/<scale>, whose claims.json (docs/claims.md) `snakemake all` writes. Raises UserError where it has
    none, or another file of that name.
    """
    with _claims(folder / "claims.json") as about:
        first = {}
        for claim in sorted(about["claims"], key=lambda claim: claim["ours"]):  # the paper's first
            first.setdefault(claim["table"], claim)
        tables = list(dict.fromkeys(claim["table"] for claim in about["claims"]))
        lines = [_line(first[table]) for table in tables]
        head = textwrap.wrap(counted(about), WIDTH)
        scale = about["scale"]
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


def told(path: Path | str) -> str:
    """Every claim of a claims.json, in at most 100 columns. Raises UserError for a file that is absent or none such."""
    with _claims(path) as about:
        lines = [line for claim in about["claims"] for line in _told(claim)]
        said = counted(about)
        if any(claim["grey"] for claim in about["claims"]):
            said += " Do not lean on those with a question mark."
    head = _padded("verdict", "ours, better by", "claim")
    return "\n".join([head, *lines, "", *textwrap.wrap(said, WIDTH)])


@contextlib.contextmanager
def _claims(path: Path | str) -> Iterator[dict]:
    """What a claims.json holds, and one UserError for whatever it turns out not to hold."""
    about = read_json(path)
    try:
        yield about
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no claims.json ({error}). Ask snakemake for it: snakemake claims") from None


def _line(claim):
    """The first claim of a table: who is compared in what, ours, the paper's, and what became of it."""
    row, against = claim["row"], claim["against"]
    while "_" in row and against.startswith(first := row[: row.index("_") + 1]):  # `vit_` of both says nothing
        row, against = row.removeprefix(first), against.removeprefix(first)
    paper, printed = claim["paper"] or {}, ""
    if paper.get("gap") is not None:
        printed = f"{paper['gap']:+.2f}"
    elif paper.get("ratio") is not None:
        printed = f"{paper['ratio']:.2f}"
    compared = f"{claim['metric']}: {row} against {against}"
    table = claim["source"].split(",")[0] if claim["source"] else claim["table"]
    return _cells(table, compared, _ours(claim) or "–", printed, _verdict(claim))


def _told(claim):
    """The lines of a claim where every claim is listed."""
    text = f"{claim['source'] or claim['table'] + ', ours'}: {claim['text']}"
    text += f" [{claim['because']}]" if claim["because"] else ""
    ours = [_ours(claim)]
    if claim["ratio"] is None and (gap := claim["gap"]):
        seeds = f"{gap['seeds']} seed{'s' * (gap['seeds'] > 1)}"
        ours += textwrap.wrap(f"{in_words(claim['metric'])}, {seeds}", OF_ALL[1] - 1)
    if more := claim["more"]:
        ours.append(f"{more['seeds']} more: {_time(more['hours'])}")
    grey = " ?" if claim["grey"] else ""
    columns = [claim["verdict"] + grey], ours, textwrap.wrap(text, WIDTH - sum(OF_ALL))
    return [_padded(*cells) for cells in zip_longest(*columns, fillvalue="")]


def _ours(claim):
    """What we have of a claim: the ratio, or the difference and its error; nothing where neither is measured."""
    if claim["ratio"] is not None:
        return f"{claim['ratio']:.2f} times"
    return signed(claim["gap"]["mean"], half(claim["gap"])) if claim["gap"] else ""


def _padded(*cells):
    return "".join(f"{cell:{width}}" for cell, width in zip(cells, (*OF_ALL, 0), strict=True)).rstrip()


def _time(hours):
    units = ((1, "hours"), (60, "minutes"), (3600, "seconds"))
    number, unit = next((hours * n, unit) for n, unit in units if hours * n >= 2 or unit == "seconds")
    return f"{number:.0f} {unit}"


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

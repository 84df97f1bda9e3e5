"""A table as LaTeX, with the rules of the package booktabs. No torch."""

import math

# What LaTeX reads as commands, and what pdflatex has no letter for.
ESCAPES = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "§": r"\S{}"},
        **{"–": "--", "—": "---", "’": "'", "‘": "`", "“": "``", "”": "''", "…": r"\ldots{}", "\u00a0": "~"},
        **{"×": r"$\times$", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "√": r"$\surd$", "∞": r"$\infty$"},
        **{"≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "σ": r"$\sigma$", "α": r"$\alpha$", "β": r"$\beta$"},
    }
)
ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$"}


def latex(part: dict, caption: str, label: str) -> str:
    """A `table` with a line for each row and one or two columns for each metric: what the paper prints, where it does,
    and ours with its error.

    part: `main` or `more` of `rows` (page/rows.py). caption: plain text.
    """
    printed = {column["metric"]: _is_printed(part, column["metric"]) for column in part["columns"]}
    groups = [
        (_heading(column), ("paper", "ours") if printed[column["metric"]] else ("ours",)) for column in part["columns"]
    ]
    below = [word for _, words in groups for word in words]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{{label}}}",  # no text: as it is
        rf"\begin{{tabular}}{{l{'r' * len(below)}}}",
        r"\toprule",
        _line(["", *(rf"\multicolumn{{{len(words)}}}{{c}}{{{heading}}}" for heading, words in groups)]),
        _line(["", *below]),
        r"\midrule",
        *(_line([escaped(row["words"]), *_cells(row, part, printed)]) for row in part["rows"]),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(ESCAPES)


def _is_printed(part, metric):
    return any(not _absent(row["cells"].get(metric, {}).get("paper")) for row in part["rows"])


def _heading(column):
    unit = f" ({column['unit']})" if column["unit"] else ""
    return escaped(column["words"] + unit) + ARROWS.get(column["better"], "")


def _cells(row, part, printed):
    for column in part["columns"]:
        cell = row["cells"].get(column["metric"], {})
        digits = cell.get("decimals", 2)
        if printed[column["metric"]]:
            yield _number(cell.get("paper"), digits)
        error = "" if _absent(cell.get("error")) else rf" $\pm$ {_number(cell['error'], digits)}"
        yield _number(cell.get("ours"), digits) + error


def _number(value, digits):
    if _absent(value):
        return "--"
    return escaped(f"{value:.{digits}f}".replace("inf", "∞").replace("-", "−"))


def _absent(value):
    return value is None or math.isnan(value)


def _line(cells):
    return " & ".join(cells) + r" \\"

"""A table as LaTeX, with the rules of the package booktabs. No torch."""

import math
from collections.abc import Iterable

# Letters and signs that LaTeX has in formulas alone, each before the name of its command.
SIGNS = """
α alpha β beta γ gamma δ delta ε varepsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi
ρ rho ς varsigma σ sigma τ tau υ upsilon φ varphi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi
Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega ϵ epsilon ϕ phi ϑ vartheta ϱ varrho µ mu
× times ÷ div ± pm ∓ mp · cdot ⋅ cdot ∘ circ √ surd ∞ infty ∂ partial ∇ nabla ℓ ell ≤ leq ≥ geq ≪ ll ≫ gg ≠ neq
≈ approx ≃ simeq ∼ sim ≡ equiv ∝ propto ∥ parallel → to ← leftarrow ↔ leftrightarrow ⇒ Rightarrow
⇔ Leftrightarrow ↑ uparrow ↓ downarrow ↦ mapsto ∈ in ∉ notin ⊂ subset ⊆ subseteq ∪ cup ∩ cap ∅ emptyset ∀ forall
∃ exists ¬ neg ∑ sum ∏ prod ∫ int ⊕ oplus ⊗ otimes † dagger ‡ ddagger ′ prime ⟨ langle ⟩ rangle
"""
WIDTH, HEIGHT = 4, 40  # of a table that a page has room for: columns of numbers, lines of rows
# A table that is wider than the text is made as wide.
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
HIGH, LOW = (dict(zip(letters, "0123456789+-", strict=True)) for letters in ("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉₊₋"))
# What LaTeX reads as commands, and what pdflatex has no letter for.
ESCAPES = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "§": r"\S{}"},
        **{"–": "--", "—": "---", "’": "'", "‘": "`", "“": "``", "”": "''", "…": r"\ldots{}", "\u00a0": "~"},
        **{letter: rf"$\{name}$" for letter, name in zip(*[iter(SIGNS.split())] * 2, strict=True)},
        **{letter: f"$^{{{plain}}}$" for letter, plain in HIGH.items()},
        **{letter: f"$_{{{plain}}}$" for letter, plain in LOW.items()},
        **{"−": "$-$", "°": r"$^{\circ}$", "‑": "-", "\u202f": r"\,", "\u2009": r"\,"},
    }
)
ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$"}
HEAD = r"""% \usepackage{booktabs,graphicx}
% For pdflatex. Letters of other scripts than Latin and Greek need xelatex or lualatex, and a font that has them.
"""


def latex(
    part: dict,
    caption: str,
    label: str,
    texts: dict[str, dict[str, str]] | None = None,
    notes: Iterable[tuple[int | None, str]] = (),
) -> str:
    """A `table` with a line for each row and one to three columns for each metric: what the paper prints, where it
    does, ours with its error, and the gap, where there is one.

    part: `main` or `more` of `rows` (page/rows.py). caption: plain text. texts: {heading: {row: text}} of columns
    behind the numbers; notes: (mark or None, text) of what stands below, in small letters.
    """
    texts, notes = texts or {}, list(notes)
    marked = any(mark for mark, _ in notes)
    groups = [(_heading(column), _words(part, column)) for column in part["columns"]]
    below = [word for _, words in groups for word in words]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{{label}}}",  # no text: as it is
        FITTED,
        rf"\begin{{tabular}}{{l{'r' * len(below)}{'c' * len(texts)}}}",
        r"\toprule",
        _line(
            [
                "",
                *(rf"\multicolumn{{{len(words)}}}{{c}}{{{heading}}}" for heading, words in groups),
                *map(escaped, texts),
            ]
        ),
        _line(["", *below, *("" for _ in texts)]),
        r"\midrule",
        *(_line([_title(row, marked), *_cells(row, part), *_of_row(row, texts)]) for row in part["rows"]),
        r"\bottomrule",
        r"\end{tabular}}",  # the second brace closes FITTED
        *_below(notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def pages(part: dict, width: float = WIDTH) -> list[dict]:
    """A part of a table as parts that a page has room for: the next metrics, the next rows that have any of them.

    width: columns of numbers; a metric's stay together.
    """
    batches, used = [], 0
    for column in part["columns"]:
        used += (more := len(_words(part, column)))
        if not batches or used > width:
            batches.append([])
            used = more
        batches[-1].append(column)
    found = []
    for columns in batches:
        rows = [row for row in part["rows"] if any(column["metric"] in row["cells"] for column in columns)]
        chunks = [rows[first : first + HEIGHT] for first in range(0, len(rows), HEIGHT)]
        found += [{**part, "columns": columns, "rows": chunk} for chunk in chunks]
    return found


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(ESCAPES)


def _words(part, column):
    """The words above the cells of a metric."""
    cells = [row["cells"].get(column["metric"], {}) for row in part["rows"]]
    has = {key: any(not _absent(cell.get(key)) for cell in cells) for key in ("paper", "gap")}
    return [word for word in ("paper", "ours", "gap") if has.get(word, True)]


def _heading(column):
    unit = f" ({column['unit']})" if column["unit"] else ""
    return escaped(column["words"] + unit) + ARROWS.get(column["better"], "")


def _title(row, marked):
    """A row's title and its notes' marks. The braces: behind the end of a line, `[` or `*` would be an option of it."""
    marks = f"$^{{{','.join(map(str, row['marks']))}}}$" if marked and row["marks"] else ""
    return "{}" + escaped(row["words"]) + marks


def _cells(row, part):
    for column in part["columns"]:
        cell = row["cells"].get(column["metric"], {})
        for word in _words(part, column):
            yield _with_error(cell, word)


def _with_error(cell, word):
    digits, error = cell.get("decimals", 2), cell.get({"ours": "error", "gap": "gap_error"}.get(word))
    shown = "" if _absent(error) else rf" $\pm$ {_number(error, digits)}"
    return _number(cell.get(word), digits, sign=word == "gap") + shown


def _of_row(row, texts):
    return (escaped(str(known.get(row["row"], ""))) for known in texts.values())


def _below(notes):
    """Paragraphs as wide as the text, each behind its mark."""
    if not notes:
        return []
    marked = [(f"$^{{{mark}}}$ " if mark else "") + escaped(text) for mark, text in notes]
    return [
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize",
        *(f"{text}\\par" for text in marked),
        r"\end{minipage}",
    ]


def _number(value, digits, sign=False):
    if _absent(value):
        return "--"
    return escaped(f"{value:{'+' if sign else ''}.{digits}f}".replace("inf", "∞").replace("-", "−"))


def _absent(value):
    return value is None or math.isnan(value)


def _line(cells):
    return " & ".join(cells) + r" \\"

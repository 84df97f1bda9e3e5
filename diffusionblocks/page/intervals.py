"""A claim as one small drawing: the measured difference and its error, beside what the claim asks for. No torch.

Right is better. Three lanes, from the top: ours with its error, what the paper prints, ours to the shallow control.
Zero is a line, and what the claim asks for begins at the dashed one; of a factor, the axis is logarithmic, and zero is
where both have as much.
"""

import math

WIDTH, HEIGHT, PAD = 200, 32, 9
OURS, PAPER, CONTROL = 8, 18, 27  # heights of the lanes


def interval(claim: dict) -> str:
    """The drawing of a claim, an SVG element without words; nothing where there is no finite number to draw.

    claim: as `claims.of_table` gives it.
    """
    asked, lanes = _asked(claim), _lanes(claim)
    ours, finite = lanes["ours"][1], [value for lane in lanes.values() for value in lane if _finite(value)]
    if not _finite(ours):
        return ""
    least, most = min(0.0, asked, *finite), max(0.0, asked, *finite)
    width = most - least or 1.0

    def x(value):
        return round(PAD + (WIDTH - 2 * PAD) * (value - least) / width, 1)

    drawn = [
        f'<path class="asked" d="M{x(asked)} 0H{WIDTH}V{HEIGHT}H{x(asked)}z"/>',
        f'<path class="zero" d="M{x(0)} 0V{HEIGHT}"/><path class="margin" d="M{x(asked)} 0V{HEIGHT}"/>',
    ]
    for name, height in (("ours", OURS), ("control", CONTROL)):
        low, mean, high = lanes[name]
        if _finite(low) and _finite(high):
            drawn.append(f'<path class="{name}" d="M{x(low)} {height}H{x(high)}"/>')
        if _finite(mean):
            mark = f'<circle class="ours" cx="{x(mean)}" cy="{height}" r="4"/>'
            drawn.append(mark if name == "ours" else f'<path class="{name}" d="M{x(mean)} {height - 4}v8"/>')
    if _finite(lanes["paper"][1]):
        drawn.append(f'<path class="paper" d="M{x(lanes["paper"][1])} {PAPER - 4}l4 4l-4 4l-4 -4z"/>')
    return f'<svg class="interval" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{"".join(drawn)}</svg>'


def _asked(claim):
    return math.log(claim["factor"]) if claim["kind"] == "factor" else claim["margin"] or 0.0


def _lanes(claim):
    """{lane: (low, mean, high)} of a claim, better to the right; None for what there is not."""
    nothing = (None, None, None)
    gap, paper = claim["gap"], (claim["paper"] or {}).get("gap")
    if claim["kind"] == "factor":
        ratios = {"ours": claim.get("ratio"), "paper": (claim["paper"] or {}).get("ratio"), "control": None}
        return {name: (None, math.log(ratio), None) if ratio else nothing for name, ratio in ratios.items()}
    found = {"ours": gap, "control": claim["control"]}
    lanes = {name: (lane["low"], lane["mean"], lane["high"]) if lane else nothing for name, lane in found.items()}
    return {**lanes, "paper": (None, paper, None)}


def _finite(value):
    return value is not None and math.isfinite(value)

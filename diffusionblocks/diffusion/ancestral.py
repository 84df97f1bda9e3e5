"""Ancestral sampling of a masked diffusion model (Shi et al. 2024, MD4): a solver for `sampling`'s drivers."""

import math

from diffusionblocks.diffusion.noise import MASK, Masking


def masking_levels(num_steps, grid="cosine"):
    """`num_steps` levels from 1 down; the last step goes to 0, which is not among them.

    `uniform`: equal steps, so equally many tokens appear in each. `cosine`, MD4's default: few at first, when they know
    little of each other. Raises ValueError for no steps.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {num_steps}")
    level = {"uniform": lambda t: t, "cosine": lambda t: math.cos(math.pi / 2 * (1 - t))}[grid]
    return [level(1 - step / num_steps) for step in range(num_steps)]


def ancestral(z, levels, owners, draws):
    """Unmask tokens level by level; returns them all. z: (N, n), all MASK.

    At a step from t to s a masked token appears with probability (alpha(s) - alpha(t)) / (1 - alpha(t)), drawn from the
    network's softmax, and stays. draws: (N, steps, n) uniforms in [0, 1), one for each token and step: those below that
    probability, divided by it, are uniforms again and choose the token. The few left masked at the end take the
    likeliest.
    """
    keep = Masking().keep
    for step, (t, following, block) in enumerate(zip(levels, [*levels[1:], 0.0], owners, strict=True)):
        logits = yield z, t, block
        share = (keep(following) - keep(t)) / (1 - keep(t))
        u = draws[:, step]
        appear = (z == MASK) & (u < share)
        z = z.masked_scatter(appear, _choose(_at(logits, appear), u[appear] / share))
    left = z == MASK
    return z.masked_scatter(left, _at(logits, left).argmax())


def _at(logits, where):
    """The logits of some positions only (where: (N, n)): those of all the others are never computed."""
    return logits._replace(hidden=logits.hidden[where])


def _choose(logits, u):
    """Tokens (M,) by the inverse distribution function of the softmax, in double precision, at uniforms u (M,)."""
    cumulated = logits.full().double().softmax(-1).cumsum(-1)
    return (cumulated <= u[:, None] * cumulated[:, -1:]).sum(-1).clamp(max=cumulated.shape[-1] - 1)

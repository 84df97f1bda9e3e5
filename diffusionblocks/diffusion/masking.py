"""The masking noise of MD4 (Shi et al. 2024), whose schedule the paper cuts into blocks for table 3; its sampler."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar, Self

from diffusionblocks.diffusion.edm import EDM, Tensor

MASK = -1  # what a masked token is in z


@dataclass(frozen=True)
class Masking:
    """Each token is kept with probability alpha(t), else it becomes MASK; t in [0, 1], alpha falls linearly.

    MD4's linear schedule, squeezed by eps at both ends so that its weight stays finite. Equal steps of t are equal
    drops of alpha, which is how the paper cuts it into blocks: alpha_b = 1 - b / B. Block 0 owns the t nearest 1.
    """

    eps: float = 1e-4
    lowest: float = 0.0
    highest: float = 1.0
    of_tokens: ClassVar[bool] = True

    @classmethod
    def of_options(cls, target_norm: float, p_mean: float, sigma_min: float, sigma_max: float) -> Self:
        """Raises ValueError for any option that is not at its default: all of them are about sigmas."""
        if (target_norm, p_mean, sigma_min, sigma_max) != (1, EDM.p_mean, EDM.sigma_min, EDM.sigma_max):
            raise ValueError("a network with masking noise takes none of target_norm, p_mean, sigma_min and sigma_max")
        return cls()

    def keep(self, t: float | Tensor) -> float | Tensor:
        """alpha(t)."""
        return (1 - 2 * self.eps) * (1 - t) + self.eps

    def cdf(self, t: float) -> float:
        """Share of all training draws below `t`."""
        return t

    def quantile(self, q: float) -> float:
        """The inverse of `cdf`."""
        return min(max(q, self.lowest), self.highest)

    def widen(self, low: float, high: float, overlap: float) -> tuple[float, float]:
        """(low, high), moved apart by `overlap` times their distance at each end, within 0 and 1."""
        width = (high - low) * overlap
        return max(low - width, self.lowest), min(high + width, self.highest)

    def figure(self) -> dict[str, float]:
        """Levels are uniform."""
        return {}

    def spread(self, u: Tensor) -> Tensor:
        """Uniforms (N,) at equal distances, all moved by the first of `u` (N,): MD4's low-discrepancy times."""
        return (u[:1] + u.new_ones(len(u)).cumsum(0) / len(u)) % 1

    def sample(self, u: Tensor, low: float, high: float) -> Tensor:
        """Levels in [low, high) of uniforms u, any shape."""
        return low + u * (high - low)

    def weight(self, t: Tensor) -> Tensor:
        """-alpha'(t) / (1 - alpha(t)); times the nats of the masked tokens it is the density of MD4's NELBO at t."""
        return (1 - 2 * self.eps) / (1 - self.keep(t))

    def reconstruction(self, vocab_size: int) -> float:
        """MD4's reconstruction term in nats per token: what is masked at t = 0 is guessed."""
        return (1 - self.keep(0.0)) * math.log(vocab_size)

    def randomness(self, z0: Tensor) -> Tensor:
        """Uniforms in [0, 1) in the shape of z0, one for each token."""
        return z0.float().uniform_()

    def corrupt(self, z0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """z: the tokens z0 (N, n), MASK where u >= alpha(t). u: (N, n) uniforms; t: (N,)."""
        return z0.where(u < self.keep(t)[:, None], MASK)

    def levels(self, num_steps: int, grid: str = "quantiles") -> list[float]:
        """`num_steps` levels from 1 down; the last step goes to 0, which is not among them.

        MD4's cosine of equal steps: few tokens appear at first, when they know little of each other. `grid` is for
        sigmas.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, not {num_steps}")
        evenly = [1 - step / num_steps for step in range(num_steps)]
        return [math.cos(math.pi / 2 * (1 - t)) for t in evenly]

    def chain_shape(self, num_steps: int, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """A uniform in double precision for each step and token."""
        return (num_steps, *z_shape)

    def chain(self, draws: Tensor, levels: list[float], owners: list[int], to_z: Callable, solver: str) -> Generator:
        """Unmask tokens level by level; returns them all. draws: (N, steps, n) uniforms in [0, 1), in float64.

        At a step from t to s a masked token appears with probability (alpha(s) - alpha(t)) / (1 - alpha(t)), drawn from
        the network's softmax, and stays. Of its uniforms, those below that probability, divided by it, are uniforms
        again and choose the token: of single precision's 2^24 values a step of a thousand would leave 2^14 of them, and
        rare tokens would go. The few left masked at the end take the likeliest. No other solver is known for masks, and
        `to_z` is for those.
        """
        z = draws.new_full(draws.shape[::2], MASK).long()
        for step, (t, following, block) in enumerate(zip(levels, [*levels[1:], 0.0], owners, strict=True)):
            logits = yield z, t, block
            share = (self.keep(following) - self.keep(t)) / (1 - self.keep(t))
            u = draws[:, step]
            appear = (z == MASK) & (u < share)
            z = z.masked_scatter(appear, _choose(_at(logits, appear), u[appear] / share))
        left = z == MASK
        return z.masked_scatter(left, _at(logits, left).argmax())

    def seen(self, z: Tensor, draws: Tensor) -> Tensor:
        """Tokens, as they are."""
        return z


def _at(logits, where):
    """The logits of some positions only (where: (N, n)): those of all the others are never computed."""
    return logits._replace(hidden=logits.hidden[where])


def _choose(logits, u):
    """Tokens (M,) by the inverse distribution function of the softmax, in double precision, at uniforms u (M,)."""
    cumulated = logits.full().double().softmax(-1).cumsum(-1)
    return (cumulated <= u[:, None] * cumulated[:, -1:]).sum(-1).clamp(max=cumulated.shape[-1] - 1)

"""EDM noise (Karras et al. 2022, table 1) with the paper's truncated log-normal levels (section 3 and appendix A)."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, ClassVar, Self

from diffusionblocks.base.components import load

Tensor = Any  # torch's, which is not imported here: planning asks for levels
_NORMAL = NormalDist()
LEAST_MASS = 1e-9  # of the log-normal between the ends; of less, quantiles have no digits left


@dataclass(frozen=True)
class EDM:
    """Variance-exploding noise z = z0 + sigma eps; log sigma ~ N(p_mean, p_std^2), cut to [sigma_min, sigma_max]."""

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    of_tokens: ClassVar[bool] = False

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min must lie between 0 and sigma_max ({self.sigma_max}), and is {self.sigma_min}")
        if not self._normal_cdf(self.sigma_max) - self._normal_cdf(self.sigma_min) > LEAST_MASS:
            raise ValueError(
                f"with p_mean {self.p_mean} hardly a draw falls between sigma_min {self.sigma_min} and sigma_max "
                f"{self.sigma_max}: move p_mean towards the logarithms of both"
            )

    @classmethod
    def of_options(cls, target_norm: float, p_mean: float, sigma_min: float, sigma_max: float) -> Self:
        """Its options, and how long targets are, which a network sees to. Raises ValueError for impossible values."""
        if target_norm <= 0:
            raise ValueError(f"target_norm must be above 0, and is {target_norm}")
        return cls(p_mean=p_mean, sigma_min=sigma_min, sigma_max=sigma_max)

    @property
    def lowest(self) -> float:
        return self.sigma_min

    @property
    def highest(self) -> float:
        return self.sigma_max

    def figure(self) -> dict[str, float]:
        """Mean and deviation of log sigma."""
        return {"p_mean": self.p_mean, "p_std": self.p_std}

    def _normal_cdf(self, sigma):
        return _NORMAL.cdf((math.log(sigma) - self.p_mean) / self.p_std)

    def cdf(self, sigma: float) -> float:
        """Probability that a level drawn from the truncated distribution is below `sigma` (a float)."""
        low, high = self._normal_cdf(self.sigma_min), self._normal_cdf(self.sigma_max)
        return (self._normal_cdf(sigma) - low) / (high - low)

    def quantile(self, q: float) -> float:
        """The sigma below which a share `q` in [0, 1] of all draws lies; the inverse of `cdf`."""
        if q <= 0:
            return self.sigma_min
        if q >= 1:
            return self.sigma_max
        low, high = self._normal_cdf(self.sigma_min), self._normal_cdf(self.sigma_max)
        sigma = math.exp(self.p_mean + self.p_std * _NORMAL.inv_cdf(low + q * (high - low)))
        return min(max(sigma, self.sigma_min), self.sigma_max)

    def widen(self, low: float, high: float, overlap: float) -> tuple[float, float]:
        """(low, high), moved apart by `overlap` times their log distance at each end, within lowest and highest."""
        ratio = (high / low) ** overlap
        return max(low / ratio, self.lowest), min(high * ratio, self.highest)

    def spread(self, u: Tensor) -> Tensor:
        """Levels are drawn from independent uniforms, as they come."""
        return u

    def sample(self, u: Tensor, low: float, high: float) -> Tensor:
        """Draw levels from the distribution cut to [low, high] by its inverse CDF.

        u: float64 tensor of uniforms in [0, 1), any shape; the result has its shape and type. In float32 the quantiles
        near 1 would collapse, hence float64.
        """
        q_low, q_high = self._normal_cdf(low), self._normal_cdf(high)
        standard = math.sqrt(2) * (2 * (q_low + u * (q_high - q_low)) - 1).erfinv()  # the normal quantile function
        return (self.p_mean + self.p_std * standard).exp().clamp(low, high)

    def precondition(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise of a tensor of levels (EDM table 1)."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        return c_skip, c_out, 1 / total.sqrt(), sigma.log() / 4

    def weight(self, sigma: Tensor) -> Tensor:
        """EDM loss weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def randomness(self, z0: Tensor) -> Tensor:
        """Standard normal eps in the shape of z0."""
        return z0.new_empty(z0.shape).normal_()

    def corrupt(self, z0: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """z = z0 + sigma eps. z0, eps: (N, ...); sigma: (N,)."""
        return z0 + sigma.reshape(-1, *[1] * (z0.dim() - 1)) * eps

    def levels(self, num_steps: int, grid: str = "quantiles") -> list[float]:
        """`num_steps` sigmas from sigma_max to sigma_min; a single one is sigma_max.

        grid: name of a function of `grids`, or of a user's own. Raises ValueError where its levels do not fall from one
        to the other, or are not as many.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, not {num_steps}")
        if num_steps == 1:
            return [self.sigma_max]
        place = load("grid", grid)
        try:
            found = [float(sigma) for sigma in place(self, num_steps)]
        except Exception as error:  # a user's own
            raise ValueError(f"grid {grid}: fails for {num_steps} steps ({type(error).__name__}: {error})") from error
        ends = found and math.isclose(found[0], self.highest) and math.isclose(found[-1], self.lowest)
        if len(found) != num_steps or not ends or not all(high > low for high, low in pairwise(found)):
            raise ValueError(
                f"grid {grid}: its levels {found} are not {num_steps} that fall from {self.highest} to {self.lowest}"
            )
        found[0], found[-1] = self.highest, self.lowest  # not the floats beside them, which have no owner
        return found

    def chain_shape(self, num_steps: int, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Standard normal noise, in which a chain starts."""
        return z_shape

    def chain(self, eps: Tensor, levels: list[float], owners: list[int], to_z: Callable, solver: str) -> Generator:
        """The solver from sigma_max eps on; its state is kept in double precision, as in EDM's sampler."""
        return load("solver", solver)(eps.double() * levels[0], levels, owners, to_z)

    def seen(self, z: Tensor, eps: Tensor) -> Tensor:
        """z in the precision of eps."""
        return z.to(eps.dtype)


def euler_step(
    z: Tensor, denoised: Tensor, sigma: float, sigma_next: float, denoised_next: Tensor | None = None
) -> Tensor:
    """One Euler step of dz/dsigma = (z - D) / sigma from `sigma` to `sigma_next`.

    Equations 3-4 of the paper print the opposite sign, with which noise would grow; this is EDM's (and the official
    code's). `denoised_next` is the same prediction in the coordinates of the block that takes over: only the noise of z
    is carried across the hand-off. Without it the step is the ordinary one, r z + (1 - r) D, r = sigma_next / sigma.
    """
    ratio = sigma_next / sigma
    return (denoised if denoised_next is None else denoised_next) + ratio * (z - denoised)


def hand_over(
    z: Tensor, prediction: Tensor, step: int, sigmas: list[float], owners: list[int], to_z: Callable
) -> Tensor:
    """z at the level after `step`, by an Euler step; where another block takes over, in that block's coordinates.

    owners: the block of each sigma. to_z(prediction, block): the clean target that a prediction stands for, in that
    block's coordinates. Blocks with embedding tables of their own hand over the noise of z alone, so no block needs
    another's table in training.
    """
    block, following = owners[step], owners[step + 1]
    denoised = to_z(prediction, block)
    handed_on = denoised if following == block else to_z(prediction, following)
    return euler_step(z, denoised, sigmas[step], sigmas[step + 1], handed_on)

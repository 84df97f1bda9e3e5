"""EDM noise (Karras et al. 2022, table 1) with the paper's truncated log-normal levels (section 3 and appendix A), and
the masking noise of MD4 (Shi et al. 2024), whose schedule the paper cuts into blocks for table 3.

Levels (sigma, or t for masking) are plain floats or tensors; nothing here needs to import torch.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
MASK = -1  # what a masked token is in z


@dataclass(frozen=True)
class EDM:
    """Variance-exploding noise z = z0 + sigma eps; log sigma ~ N(p_mean, p_std^2), cut to [sigma_min, sigma_max]."""

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min must lie between 0 and sigma_max, and is {self.sigma_min}")

    @property
    def lowest(self):
        return self.sigma_min

    @property
    def highest(self):
        return self.sigma_max

    def describe(self) -> dict[str, float]:
        """What a figure of the levels needs: mean and standard deviation of log sigma before it is cut."""
        return {"p_mean": self.p_mean, "p_std": self.p_std}

    def _normal_cdf(self, sigma):
        return _NORMAL.cdf((math.log(sigma) - self.p_mean) / self.p_std)

    def cdf(self, sigma):
        """Probability that a level drawn from the truncated distribution is below `sigma` (a float)."""
        low, high = self._normal_cdf(self.sigma_min), self._normal_cdf(self.sigma_max)
        return (self._normal_cdf(sigma) - low) / (high - low)

    def quantile(self, q):
        """The sigma below which a share `q` in [0, 1] of all draws lies; the inverse of `cdf`."""
        if q <= 0:
            return self.sigma_min
        if q >= 1:
            return self.sigma_max
        low, high = self._normal_cdf(self.sigma_min), self._normal_cdf(self.sigma_max)
        sigma = math.exp(self.p_mean + self.p_std * _NORMAL.inv_cdf(low + q * (high - low)))
        return min(max(sigma, self.sigma_min), self.sigma_max)

    def widen(self, low, high, overlap):
        """(low, high), moved apart by `overlap` times their log distance at each end, within lowest and highest."""
        ratio = (high / low) ** overlap
        return max(low / ratio, self.lowest), min(high * ratio, self.highest)

    def spread(self, u):
        """Levels are drawn from independent uniforms, as they come."""
        return u

    def sample(self, u, low, high):
        """Draw levels from the distribution cut to [low, high] by its inverse CDF.

        u: float64 tensor of uniforms in [0, 1), any shape; the result has its shape and type. In float32 the quantiles
        near 1 would collapse, hence float64.
        """
        q_low, q_high = self._normal_cdf(low), self._normal_cdf(high)
        standard = math.sqrt(2) * (2 * (q_low + u * (q_high - q_low)) - 1).erfinv()  # the normal quantile function
        return (self.p_mean + self.p_std * standard).exp().clamp(low, high)

    def precondition(self, sigma):
        """c_skip, c_out, c_in, c_noise of a tensor of levels (EDM table 1)."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        return c_skip, c_out, 1 / total.sqrt(), sigma.log() / 4

    def weight(self, sigma):
        """EDM loss weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def randomness(self, z0):
        """Standard normal eps in the shape of z0."""
        return z0.new_empty(z0.shape).normal_()

    def corrupt(self, z0, sigma, eps):
        """z = z0 + sigma eps. z0, eps: (N, ...); sigma: (N,)."""
        return corrupt(z0, sigma, eps)


@dataclass(frozen=True)
class Masking:
    """Each token is kept with probability alpha(t), else it becomes MASK; t in [0, 1], alpha falls linearly.

    MD4's linear schedule, squeezed by eps at both ends so that its weight stays finite. Equal steps of t are equal
    drops of alpha, which is how the paper cuts it into blocks: alpha_b = 1 - b / B. Block 0 owns the t nearest 1.
    """

    eps: float = 1e-4
    lowest: float = 0.0
    highest: float = 1.0

    def describe(self) -> dict[str, float]:
        """What a figure of the levels needs: nothing, since they are uniform."""
        return {}

    def keep(self, t):
        """alpha(t)."""
        return (1 - 2 * self.eps) * (1 - t) + self.eps

    def cdf(self, t):
        """Share of all training draws below `t`."""
        return t

    def quantile(self, q):
        """The inverse of `cdf`."""
        return min(max(q, self.lowest), self.highest)

    def widen(self, low, high, overlap):
        """(low, high), moved apart by `overlap` times their distance at each end, within 0 and 1."""
        width = (high - low) * overlap
        return max(low - width, self.lowest), min(high + width, self.highest)

    def spread(self, u):
        """Uniforms (N,) at equal distances, all moved by the first of `u` (N,): MD4's low-discrepancy times."""
        return (u[:1] + u.new_ones(len(u)).cumsum(0) / len(u)) % 1

    def sample(self, u, low, high):
        """Levels in [low, high) of uniforms u, any shape."""
        return low + u * (high - low)

    def weight(self, t):
        """-alpha'(t) / (1 - alpha(t)); times the nats of the masked tokens it is the density of MD4's NELBO at t."""
        return (1 - 2 * self.eps) / (1 - self.keep(t))

    def randomness(self, z0):
        """Uniforms in [0, 1) in the shape of z0, one for each token."""
        return z0.float().uniform_()

    def corrupt(self, z0, t, u):
        """z: the tokens z0 (N, n), MASK where u >= alpha(t). u: (N, n) uniforms; t: (N,)."""
        return z0.where(u < self.keep(t)[:, None], MASK)


NOISES = {"edm": EDM, "masking": Masking}  # by a model's `noise_kind`


def corrupt(z0, sigma, eps):
    """z = z0 + sigma eps. z0, eps: (N, ...); sigma: (N,)."""
    return z0 + sigma.reshape(-1, *[1] * (z0.dim() - 1)) * eps


def euler_step(z, denoised, sigma, sigma_next, denoised_next=None):
    """One Euler step of dz/dsigma = (z - D) / sigma from `sigma` to `sigma_next`.

    Equations 3-4 of the paper print the opposite sign, with which noise would grow; this is EDM's (and the official
    code's). `denoised_next` is the same prediction in the coordinates of the block that takes over: only the noise of z
    is carried across the hand-off. Without it the step is the ordinary one, r z + (1 - r) D, r = sigma_next / sigma.
    """
    ratio = sigma_next / sigma
    return (denoised if denoised_next is None else denoised_next) + ratio * (z - denoised)


def inference_sigmas(num_steps, noise=None):
    """`num_steps` levels from sigma_max down to sigma_min at equal quantiles of the noise distribution (appendix H)."""
    noise = noise or EDM()
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {num_steps}")
    if num_steps == 1:
        return [noise.sigma_max]
    return [noise.quantile(1 - i / (num_steps - 1)) for i in range(num_steps)]


def karras_sigmas(num_steps, noise=None, rho=7):
    """`num_steps` levels from sigma_max to sigma_min, equally spaced in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    noise = noise or EDM()
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {num_steps}")
    high, low = noise.sigma_max ** (1 / rho), noise.sigma_min ** (1 / rho)
    inner = [(high + i / (num_steps - 1) * (low - high)) ** rho for i in range(1, num_steps - 1)]
    return [noise.sigma_max, *inner, noise.sigma_min][:num_steps]

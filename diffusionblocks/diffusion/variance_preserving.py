"""NoProp's noise (Li, Teh & Pascanu, arXiv:2503.24322): a variance-preserving chain from noise z_0 to the label z_T.

q(z_t | y) = N(sqrt(abar_t) u_y, (1 - abar_t) I) with u_y the embedding of the class; abar grows with t.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIMITS = (0.01, 0.99)  # of a learned abar: beyond them the signal-to-noise ratio runs away


def cosine_schedule(steps: int) -> Tensor:
    """abar_0 to abar_T (steps + 1,), float64, of the "fixed cosine" schedule, for which the paper gives no formula.

    Nichol & Dhariwal's (2021), turned around, divided by its last value and cut to [1e-4, 0.99]: without the upper cut
    nearly all weight of the loss lies on the last step.
    """
    t = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    abar = torch.cos(math.pi / 2 * (1 - t + 0.008) / 1.008).square()
    return (abar / abar[-1]).clamp(1e-4, 0.99)


def both_ends(t: Tensor) -> Tensor:
    """The times 0 and 1 (2,), like t in type and place; made there, so that no device is waited for."""
    return torch.arange(2, dtype=t.dtype, device=t.device)


class AsItIs:
    """How z and the time enter a network of NoProp: as they are. In the place of a noise with preconditioning."""

    def precondition(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise of times t (N,)."""
        return torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t), t


class LearnedSchedule(nn.Module):
    """abar(t) = sigmoid(-gamma(t)) of t in [0, 1], cut to LIMITS; gamma falls between two learned ends.

    The way between them is a two-layer network with positive weights, scaled to go from 0 to 1. The paper gives no
    initial values; the ends start at LIMITS.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        end = math.log(LIMITS[1] / (1 - LIMITS[1]))
        self.ends = nn.Parameter(torch.tensor([end, -end]))  # gamma(0), gamma(1)
        self.slope, self.offset, self.out = (nn.Parameter(torch.randn(width)) for _ in range(3))

    def _way(self, t):
        # No matrix product: autocast would round it to bfloat16.
        return (torch.sigmoid(F.softplus(self.slope) * t[:, None] + self.offset) * F.softplus(self.out)).sum(1)

    def forward(self, t: Tensor) -> Tensor:
        """abar (N,) at times t (N,)."""
        start, end = self._way(both_ends(t))
        fall = (self.ends[0] - self.ends[1]).abs()  # whatever training makes of the ends, abar grows
        gamma = self.ends[0] - fall * (self._way(t) - start) / (end - start)
        return torch.sigmoid(-gamma).clamp(*LIMITS)


def corrupt(u: Tensor, abar: float | Tensor, eps: Tensor) -> Tensor:
    """z ~ q(z | y) (N, d) of embeddings u (N, d), with standard normal eps. abar: a number, or (N,)."""
    abar = abar.to(u.dtype).reshape(-1, 1) if torch.is_tensor(abar) else u.new_full((1, 1), abar)
    return abar.sqrt() * u + (1 - abar).sqrt() * eps


def snr(abar: float | Tensor) -> float | Tensor:
    """Signal-to-noise ratio."""
    return abar / (1 - abar)


def step_coefficients(before: float, after: float) -> tuple[float, float, float]:
    """(A, B, C) of z_t = A u + B z_{t-1} + sqrt(C) eps, for the step from abar_{t-1} to abar_t.

    It is the chain's posterior given the label: with u = u_y, z_t is drawn from q(z_t | y) if z_{t-1} was from q.
    """
    alpha = before / after
    share = 1 - before
    return (
        after**0.5 * (1 - alpha) / share,
        alpha**0.5 * (1 - after) / share,
        (1 - after) * (1 - alpha) / share,
    )


def kl_to_noise(u: Tensor, abar: Tensor) -> Tensor:
    """KL(q(z_0 | y) || N(0, I)) (N,) of embeddings u (N, d) at abar_0 (a tensor of one number)."""
    d = u.shape[1]
    return (abar * u.square().sum(1) - d * (abar + torch.log1p(-abar))) / 2

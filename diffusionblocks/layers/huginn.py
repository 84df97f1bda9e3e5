"""Parts of Huginn (Geiping et al. 2025): its layer, its truncated normals, its random initial state."""

import math

import torch
from torch import nn

from diffusionblocks.layers.conditioning import AdaLN
from diffusionblocks.layers.text import Attention, Cache, RMSNorm, SwiGLU

ROTARY_BASE = 50_000
CUT = 3  # standard deviations at which normals are truncated


class Layer(nn.Module):
    """Sandwich layer: the norm after each sum is what keeps the recurrence bounded.

    With `noise_width` its two branches are shifted, scaled and gated by the noise level as in DiT, but the gates start
    at 1, as in the plain layer: with norms after the sums it could not start as the identity anyway.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, noise_width: int | None = None):
        super().__init__()
        # AdaLN's scale stands for the weights of the norms in front.
        self.norm1, self.norm3 = (RMSNorm(width, elementwise_affine=not noise_width) for _ in range(2))
        self.norm2, self.norm4 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, num_heads, ROTARY_BASE, qk_bias=True)
        self.mlp = SwiGLU(width, mlp_width)
        self.adaptive = AdaLN(noise_width, width, open_gates=True) if noise_width else None

    def forward(self, x: torch.Tensor, level: torch.Tensor | None = None, cache: Cache | None = None) -> torch.Tensor:
        """x: (N, T, D); level: (N, noise_width) for a noise-conditioned layer."""
        if self.adaptive is None:
            x = self.norm2(x + self.attention(self.norm1(x), cache))
            return self.norm4(x + self.mlp(self.norm3(x)))
        attention, mlp = self.adaptive(level)
        x = self.norm2(x + attention.after(self.attention(attention.before(self.norm1, x), cache)))
        return self.norm4(x + mlp.after(self.mlp(mlp.before(self.norm3, x))))


def run(layers, x: torch.Tensor, level: torch.Tensor | None = None, caches: list | None = None) -> torch.Tensor:
    """x (N, T, D) after the layers, one cache each."""
    for layer, cache in zip(layers, caches or [None] * len(layers), strict=True):
        x = layer(x, level, cache)
    return x


def truncated_normal_(weight: torch.Tensor, std: float) -> None:
    """Draw the weight anew."""
    nn.init.trunc_normal_(weight, std=std, a=-CUT * std, b=CUT * std)


def initial_state(eps: torch.Tensor) -> torch.Tensor:
    """Huginn's initial state: truncated normals of deviation sqrt(2/5), at the quantiles of standard normal eps."""
    inside = math.erf(CUT / math.sqrt(2))  # probability between the cuts
    return math.sqrt(2 / 5) * math.sqrt(2) * torch.erfinv(inside * torch.erf(eps / math.sqrt(2)))

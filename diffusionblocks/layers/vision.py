"""Parts that more than one architecture uses."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention with biases; dropout on the attention probabilities and after the output projection."""

    def __init__(self, width, num_heads, dropout=0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = (
            self.qkv(x).view(n, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        )  # (N, H, T, D/H)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return F.dropout(self.out(x.transpose(1, 2).reshape(n, t, d)), self.dropout, self.training)


class MLP(nn.Module):
    """Linear, GELU (exact, or `approximate="tanh"`), linear, dropout."""

    def __init__(self, width, hidden, dropout=0.0, approximate="none"):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.approximate = dropout, approximate

    def forward(self, x):
        x = self.down(F.gelu(self.up(x), approximate=self.approximate))
        return F.dropout(x, self.dropout, self.training)


def sinusoid(level, dim=256, max_period=10_000):
    """Fourier features (N, dim) of a level (N,): cosines first, then sines (DiT's timestep embedding)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=level.device, dtype=torch.float32))
    angles = level.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sincos_2d(width, side):
    """Fixed positions (side^2, width) of a square grid, rows first: half the features tell the column, half the row.

    Each half has sines first, then cosines, of frequencies 10000^(-i / (width / 4)) (as in MAE and DiT).
    """
    frequencies = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    half = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    columns, rows = half.repeat(side, 1), half.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()


def modulate(x, shift, scale):
    """x (1 + scale) + shift, the same for all tokens of a sample. x: (N, T, D); shift, scale: (N, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]

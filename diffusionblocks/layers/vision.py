"""Parts of the networks for images: attention, MLP and fixed positions, as in ViT and DiT."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention with biases; dropout on the attention probabilities and after the output projection.

    Raises ValueError for a width that is not cut into heads.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} must divide the width {width}")
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (
            self.qkv(x).view(n, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        )  # (N, H, T, D/H)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return F.dropout(self.out(x.transpose(1, 2).reshape(n, t, d)), self.dropout, self.training)


class MLP(nn.Module):
    """Linear, GELU (exact, or `approximate="tanh"`), linear, dropout."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, approximate: str = "none"):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.approximate = dropout, approximate

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(F.gelu(self.up(x), approximate=self.approximate))
        return F.dropout(x, self.dropout, self.training)


def sincos_2d(width: int, side: int) -> Tensor:
    """Fixed positions (side^2, width) of a square grid, rows first: half the features tell the column, half the row.

    Each half has sines first, then cosines, of frequencies 10000^(-i / (width / 4)) (as in MAE and DiT).
    Raises ValueError for a width without quarters.
    """
    if width % 4:
        raise ValueError(f"4 must divide the width {width}: a sine and a cosine of rows and of columns")
    frequencies = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    half = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    columns, rows = half.repeat(side, 1), half.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()

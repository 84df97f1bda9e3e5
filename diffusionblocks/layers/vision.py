"""Parts of the networks for images: attention, MLP and fixed positions, as in ViT and DiT."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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


class _GELULinear(torch.autograd.Function):
    """Linear map of gelu(x) whose gradients take the place of gelu(x), the widest tensor of a layer, once it is spent.

    Elsewhere they would stand beside all that an update keeps, which is its peak. A second backward pass is an error.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, approximate):
        activated = F.gelu(x, approximate=approximate)
        ctx.save_for_backward(x, activated, weight)
        ctx.approximate = approximate
        return F.linear(activated, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, activated, weight = ctx.saved_tensors
        rows, place = gradient.flatten(0, -2), activated.flatten(0, -2)
        of_weight = rows.t().mm(place)
        torch.mm(rows, weight.to(rows.dtype), out=place)  # which autocast rounded in the forward pass
        torch.ops.aten.gelu_backward.grad_input(activated, x, approximate=ctx.approximate, grad_input=activated)
        return activated, of_weight, rows.sum(0), None


class MLP(nn.Module):
    """Linear, GELU (exact, or `approximate="tanh"`), linear, dropout."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, approximate: str = "none"):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.approximate = dropout, approximate

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if torch.compiler.is_compiling():  # which plans memory itself
            x = self.down(F.gelu(x, approximate=self.approximate))
        else:
            x = _GELULinear.apply(x, self.down.weight, self.down.bias, self.approximate)
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

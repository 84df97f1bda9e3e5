"""Parts of the text models: Llama 2's norm, rotary positions, gated MLP, and attention with a cache (appendix E.4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps), times a learned weight unless `elementwise_affine` is False."""

    def __init__(self, width: int, eps: float = 1e-6, elementwise_affine: bool = True):
        super().__init__(width, eps, elementwise_affine)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), without biases."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)  # the gate comes first
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def rotate(x: Tensor, positions: Tensor, base: float = 10_000) -> Tensor:
    """Rotary positions: features i and i + d/2 are a plane, turned by position / base^(2i/d).

    x: (N, H, T, d); positions: (T,).
    """
    half = x.shape[-1] // 2
    exact = torch.promote_types(x.dtype, torch.float32)  # under autocast too: late positions turn by many radians
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=exact) / half)
    angles = positions.to(exact)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Cache:
    """Keys and values of one layer, of up to `length` positions; `used` are filled."""

    def __init__(self, length: int):
        self.length, self.used = length, 0
        self.keys = self.values = None

    def append(self, keys: Tensor, values: Tensor, keep: bool = True) -> tuple[Tensor, Tensor]:
        """Add (N, H, T, d) and return all so far. With keep=False the next positions overwrite what was added."""
        if self.keys is None:
            n, heads, _, dim = keys.shape
            self.keys, self.values = (keys.new_empty(n, heads, self.length, dim) for _ in range(2))
        end = self.used + keys.shape[2]
        self.keys[:, :, self.used : end] = keys
        self.values[:, :, self.used : end] = values
        self.used = end if keep else self.used
        return self.keys[:, :, :end], self.values[:, :, :end]


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions; no biases but, with `qk_bias`, of queries and keys.

    Raises ValueError for a width that is not cut into heads of even size.
    """

    def __init__(self, width: int, num_heads: int, base: float = 10_000, qk_bias: bool = False):
        super().__init__()
        if num_heads < 1 or width % (2 * num_heads):
            raise ValueError(f"num_heads {num_heads} must divide the width {width} into heads of even size")
        self.num_heads, self.base = num_heads, base
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.qk_bias = nn.Parameter(torch.zeros(2, 1, num_heads, 1, width // num_heads)) if qk_bias else None
        self.out = nn.Linear(width, width, bias=False)

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, (N, H, T, D/H) each, of tokens x (N, T, D) from position `start` on."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        if self.qk_bias is not None:
            q, k = q + self.qk_bias[0], k + self.qk_bias[1]
        positions = torch.arange(start, start + t, device=x.device)
        # As it is, v would keep the q and k that were turned in memory, until the backward pass.
        return rotate(q, positions, self.base), rotate(k, positions, self.base), v.contiguous()

    def merge(self, x: Tensor) -> Tensor:
        """The output (N, T, D) of the heads' (N, H, T, D/H)."""
        return self.out(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, cache: Cache | None = None, keep: bool = True) -> Tensor:
        """x: (N, T, D). With a cache, x goes on from what it holds: T is 1 unless it is empty. keep: see `Cache`."""
        if cache is None:
            return self.merge(F.scaled_dot_product_attention(*self.project(x), is_causal=True))
        q, k, v = self.project(x, cache.used)
        k, v = cache.append(k, v, keep)
        return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=x.shape[1] > 1))

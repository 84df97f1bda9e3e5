"""How a noise level enters a network: preconditioning of what goes in and out, features of the level, and AdaLN.

What models differ in is an option here, so that each says which it takes.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diffusionblocks.layers.precision import at_least_single

FEATURES = 256  # of a level


class Denoiser:
    """Preconditioning around a network F at noisy z (N, ...), levels (N,): D = c_skip z + c_out F(c_in z, c_noise).

    Karras et al. (2022), equation 7; as the wrapper of that name in k-diffusion, but for one evaluation. `noise` has
    `precondition`; c_skip, c_out and c_in have the dimensions of z, c_noise is (N,).
    """

    def __init__(self, noise, z: Tensor, level: Tensor):
        *around, self.c_noise = noise.precondition(level)
        self.c_skip, self.c_out, self.c_in = (c.view(-1, *[1] * (z.dim() - 1)) for c in around)
        self.z = z

    def enters(self, gain: float = 1) -> Tensor:
        """What of z enters the network: gain c_in z."""
        return gain * self.c_in * self.z

    def denoised(self, output: Tensor, gain: float = 1) -> Tensor:
        """D (N, ...) of the network's output: c_skip z + c_out gain F."""
        return self.c_skip * self.z + self.c_out * gain * output


def sinusoid(level: Tensor, dim: int = FEATURES, max_period: float = 10_000) -> Tensor:
    """Fourier features (N, dim) of a level (N,): cosines first, then sines (DiT's timestep embedding)."""
    level, half = at_least_single(level), dim // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=level.device, dtype=level.dtype))
    angles = level[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class LevelEmbedding(nn.Sequential):
    """Features (N, width) of a level (N,): its sinusoids through linear, SiLU, linear, and with `activated` SiLU."""

    def __init__(self, width: int, activated: bool = False):
        last = [nn.SiLU()] if activated else []
        super().__init__(nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width), *last)

    def forward(self, level: Tensor) -> Tensor:
        return super().forward(sinusoid(level).to(self[0].weight.dtype))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, the same for all tokens of a sample. x: (N, T, D); shift, scale: (N, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class _Modulated(torch.autograd.Function):
    """`modulate` of norm(x) that keeps x, which the norm keeps too, and norms it again for the gradient of scale."""

    @staticmethod
    def forward(ctx, normalised, shift, scale, x, norm):
        factor = 1 + scale[:, None]
        ctx.save_for_backward(x, factor)
        ctx.norm, ctx.dtype = norm, normalised.dtype
        return normalised * factor + shift[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, factor = ctx.saved_tensors
        product = gradient * ctx.norm(x.to(ctx.dtype))  # under autocast a norm rounds nothing, and here there is none
        return gradient * factor, gradient.sum(1), product.sum(1), None, None


Silu = Literal["before", "after", "none"]  # where SiLU is applied: before the linear map (DiT), after it, or elsewhere


class _Adaptive(nn.Linear):
    def __init__(self, cond_width: int, width: int, changes: int, silu: Silu):
        super().__init__(cond_width, changes * width)
        self.changes, self.silu = changes, silu

    def _changes(self, cond):
        found = super().forward(F.silu(cond) if self.silu == "before" else cond)
        return (F.silu(found) if self.silu == "after" else found).chunk(self.changes, dim=1)


def start_at_zero(*modules: nn.Linear) -> None:
    """Have linear maps give 0 whatever they are given, as where a network says nothing yet: weights and biases."""
    for module in modules:
        for value in module.parameters():
            nn.init.zeros_(value)


class Branch(NamedTuple):
    """What the condition does to one branch of a layer; (N, D) each."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        """norm(x), (N, T, D), as it enters the branch. The weights of the norm must stay until the backward pass."""
        if torch.compiler.is_compiling():  # which itself decides what to keep
            return modulate(norm(x), self.shift, self.scale)
        return _Modulated.apply(norm(x), self.shift, self.scale, x, norm)

    def after(self, x: Tensor) -> Tensor:
        """The branch's output (N, T, D) as it is added to the residual stream."""
        return self.gate[:, None] * x

    def second_half(self) -> "Branch":
        """Of samples that are there twice, the second time."""
        return Branch(*(change.chunk(2)[1] for change in self))


class AdaLN(_Adaptive):
    """A condition (N, cond_width) -> the Branches of a layer's attention and of its MLP (Peebles & Xie 2023).

    open_gates: gates are 1 + what the linear map gives, so that zeros there leave the plain layer, not the identity.
    """

    def __init__(self, cond_width: int, width: int, silu: Silu = "before", open_gates: bool = False):
        super().__init__(cond_width, width, 6, silu)
        self.open_gates = open_gates

    def forward(self, cond: Tensor) -> tuple[Branch, Branch]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self._changes(cond)
        if self.open_gates:
            gate1, gate2 = 1 + gate1, 1 + gate2
        return Branch(shift1, scale1, gate1), Branch(shift2, scale2, gate2)


class AdaptiveHead(_Adaptive):
    """Tokens (N, T, D), or vectors (N, D), shifted and scaled by a condition (N, cond_width) before they are read."""

    def __init__(self, cond_width: int, width: int, silu: Silu = "before"):
        super().__init__(cond_width, width, 2, silu)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift, scale = self._changes(cond)
        return modulate(x, shift, scale) if x.dim() == 3 else modulate(x[:, None], shift, scale)[:, 0]

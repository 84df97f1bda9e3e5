"""Diffusion transformer, DiT (Peebles & Xie 2023), as an EDM denoiser of images or latents (paper section 5.2, E.2).

32.5 M parameters at S/2 on 3 x 32 x 32 pixels, 457.8 M at L/2 on 4 x 32 x 32 latents. Its noise-conditioned form is the
only one: trained end to end, it is DiffusionBlocks with a single block.
"""

import torch
from torch import Tensor, nn

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import AdaLN, AdaptiveHead, Denoiser, LevelEmbedding, start_at_zero
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.layers.vision import MLP, Attention, sincos_2d
from diffusionblocks.models import base


class Layer(nn.Module):
    """Pre-norm transformer layer, shifted, scaled and gated by the condition; at first the identity (adaLN-zero)."""

    def __init__(self, width: int, num_heads: int, mlp_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, num_heads)
        self.mlp = MLP(width, mlp_width, approximate="tanh")
        self.adaptive = AdaLN(width, width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x: (N, T, D); cond: (N, D), noise level and class."""
        attention, mlp = self.adaptive(cond)
        x = x + attention.after(self.attention(attention.before(self.norm, x)))
        return x + mlp.after(self.mlp(mlp.before(self.norm, x)))


class Model(base.Model):
    """A DiT with `noise` (an EDM) and its preconditioning: F sees c_in z, and D = c_skip z + c_out F.

    shape: image_size, channels and num_classes of the data. label_dropout: share of the training samples that see the
    null class in place of their own, so that one network gives both sides of classifier-free guidance.
    """

    def __init__(
        self,
        shape: dict,
        noise: EDM | None = None,
        target_norm: float = 1.0,
        *,
        num_layers: int = 12,
        width: int = 384,
        num_heads: int = 6,
        mlp_width: int = 1536,
        patch_size: int = 2,
        label_dropout: float = 0.1,
    ):
        super().__init__()
        if shape["image_size"] % patch_size:
            raise ValueError(f"patch_size {patch_size} must divide the image size {shape['image_size']}")
        if noise is None or target_norm != 1:
            raise ValueError("a DiT denoises images as they are: it needs noise, and target_norm must be 1")
        self.noise, self.label_dropout = noise, label_dropout
        self.z_shape = (shape["channels"], shape["image_size"], shape["image_size"])
        self.null_class = shape["num_classes"]
        self.patches = nn.Conv2d(shape["channels"], width, patch_size, stride=patch_size)
        grid = sincos_2d(width, shape["image_size"] // patch_size)
        self.register_buffer("positions", grid, persistent=False)
        self.level = LevelEmbedding(width)
        self.labels = nn.Embedding(shape["num_classes"] + 1, width)
        self.layers = nn.ModuleList(Layer(width, num_heads, mlp_width) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.head_adaptive = AdaptiveHead(width, width)
        self.head = nn.Linear(width, patch_size**2 * shape["channels"])
        self._initialise()

    def _initialise(self):
        """DiT's: every layer starts as the identity and the output as 0, so D = c_skip z."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.weight.flatten(1))
        nn.init.zeros_(self.patches.bias)
        nn.init.normal_(self.labels.weight, std=0.02)
        for linear in (self.level[0], self.level[2]):
            nn.init.normal_(linear.weight, std=0.02)
        start_at_zero(self.head, self.head_adaptive, *(layer.adaptive for layer in self.layers))

    def condition(self, batch: dict) -> Tensor:
        """Class embeddings (N, D); in training some samples see the null class."""
        label = batch["label"]
        if self.training and self.label_dropout:
            label = torch.where(
                torch.rand(label.shape, device=label.device) < self.label_dropout, self.null_class, label
            )
        return self.labels(label)

    def unconditional(self, batch: dict) -> Tensor:
        """The null class's embedding for each sample (N, D): the other side of guidance."""
        return self.labels(torch.full_like(batch["label"], self.null_class))

    def target(self, batch: dict) -> Tensor:
        """Clean images in [-1, 1], or scaled latents: z0 (N, C, H, W)."""
        return batch["signed"]

    def predict(self, z: Tensor, sigma: Tensor, cond: Tensor, layers: nn.ModuleList) -> Tensor:
        """Denoised images D (N, C, H, W) from z at levels sigma (N,), by `layers` alone."""
        denoiser = Denoiser(self.noise, z, sigma)
        cond = cond + self.level(denoiser.c_noise)
        x = self.patches(denoiser.enters()).flatten(2).transpose(1, 2) + self.positions
        for layer in layers:
            x = layer(x, cond)
        x = self.head(self.head_adaptive(self.norm(x), cond))
        return denoiser.denoised(at_least_single(self._unpatchify(x)))

    def _unpatchify(self, x):
        """(N, T, p p C) -> (N, C, H, W)."""
        channels, size, _ = self.z_shape
        side = int(x.shape[1] ** 0.5)
        patch = size // side
        x = x.view(-1, side, side, patch, patch, channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, size, size)

    def loss(self, denoised: Tensor, batch: dict, z: Tensor | None) -> Tensor:
        """Mean squared error of each sample (N,)."""
        return (denoised - self.target(batch)).square().flatten(1).mean(1)

    def to_z(self, denoised: Tensor) -> Tensor:
        """A prediction of an image is its own clean target."""
        return denoised

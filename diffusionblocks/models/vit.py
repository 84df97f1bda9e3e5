"""Vision transformer for classification, plain and as a denoiser of the label embedding (paper section 5.1, E.1).

Both follow the official code: 10,302,180 parameters plain and 10,529,095 noise-conditioned at the paper's sizes.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import AdaLN, AdaptiveHead, Denoiser, LevelEmbedding, start_at_zero
from diffusionblocks.layers.precision import at_least_single
from diffusionblocks.layers.vision import MLP, Attention
from diffusionblocks.layers.vocabulary import fixed_rows
from diffusionblocks.models import base


class Layer(nn.Module):
    """Pre-norm transformer layer; with `noise_width` its two branches are shifted, scaled and gated by the noise level.

    The official code applies SiLU after the adaptive linear map, where DiT has it before, and keeps the norms' weights.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        dropout: float,
        noise_width: int | None = None,
        open_gates: bool = False,
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.attention = Attention(width, num_heads, dropout)
        self.mlp = MLP(width, mlp_width, dropout)
        self.adaptive = AdaLN(noise_width, width, silu="after", open_gates=open_gates) if noise_width else None

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """x: (N, T, D); level: (N, noise_width) for a noise-conditioned layer."""
        if self.adaptive is None:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        attention, mlp = self.adaptive(level)
        x = x + attention.after(self.attention(attention.before(self.norm1, x)))
        return x + mlp.after(self.mlp(mlp.before(self.norm2, x)))


class Model(base.Model):
    """A ViT; without `noise` the plain network, with `noise` (an EDM) a denoiser of the label embedding.

    shape: image_size, channels and num_classes of the data. target_norm: length of the clean label embedding.
    keep_cls: keep [CLS] beside the noisy label and read from it (the paper's text); by default the noisy label takes
    its place (the official code). mlp_width 3072 at width 128 is the official code's, a library default left unset.
    initialisation: `vit`, or `pytorch`: PyTorch's own weights, and positions as loud as tokens, for Forward-Forward.
    gates, of a denoiser: `closed` at first, as the official code's, when its layers are the identity and its head says
    nothing; or `open`, when both are those of the plain network until they heed the level, and learn as fast.
    labels, of a denoiser: the label embeddings are `learned` with the block, or `frozen`, random rows that are the same
    in every block and run. Raises ValueError for a plain network whose gates are not `closed` or whose labels are
    frozen.
    """

    def __init__(
        self,
        shape: dict,
        noise: EDM | None = None,
        target_norm: float = 1.0,
        *,
        num_layers: int = 12,
        width: int = 128,
        num_heads: int = 4,
        mlp_width: int = 3072,
        patch_size: int = 4,
        dropout: float = 0.1,
        keep_cls: bool = False,
        initialisation: Literal["vit", "pytorch"] = "vit",
        gates: Literal["closed", "open"] = "closed",
        labels: Literal["learned", "frozen"] = "learned",
    ):
        super().__init__()
        if shape["image_size"] % patch_size:
            raise ValueError(f"patch_size {patch_size} must divide the image size {shape['image_size']}")
        if not noise and gates != "closed":
            raise ValueError("gates are a denoiser's: the plain network has none. Leave it out")
        if not noise and labels != "learned":
            raise ValueError("labels is of a denoiser: the plain network embeds none. Leave it out")
        self.noise, self.target_norm, self.dropout = noise, target_norm, dropout
        self.z_shape = (width,)
        num_patches = (shape["image_size"] // patch_size) ** 2
        noise_width = width // 6 if noise else None  # hidden // 6 as in the official code

        self.patches = nn.Conv2d(shape["channels"], width, patch_size, stride=patch_size)
        has_cls = keep_cls or not noise
        self.cls = nn.Parameter(torch.zeros(1, 1, width)) if has_cls else None
        self.positions = nn.Parameter(torch.zeros(1, num_patches + has_cls + bool(noise), width))
        self.layers = nn.ModuleList(
            Layer(width, num_heads, mlp_width, dropout, noise_width, gates == "open") for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.head = nn.Linear(width, shape["num_classes"])
        if noise:
            self.labels = nn.Embedding(shape["num_classes"], width)
            self.level = LevelEmbedding(noise_width, activated=True)
            self.head_adaptive = AdaptiveHead(noise_width, width, silu="after")
        if initialisation == "vit":
            self._initialise()
        else:
            nn.init.normal_(self.positions)
        if noise:
            nn.init.normal_(self.labels.weight, std=0.02)
            start_at_zero(self.head_adaptive, *(layer.adaptive for layer in self.layers))
            if gates == "closed":
                start_at_zero(self.head)
        if labels == "frozen":
            self.labels.weight = nn.Parameter(fixed_rows(shape["num_classes"], width), requires_grad=False)

    def _initialise(self):
        """Truncated normals of 0.02 as in the ViT."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)
        if self.cls is not None:
            nn.init.trunc_normal_(self.cls, std=0.02)

    # As a denoiser

    def condition(self, batch: dict) -> Tensor:
        """Patch tokens (N, T, D): all that is known at inference."""
        return self.patches(batch["image"]).flatten(2).transpose(1, 2)

    def _label_table(self):
        """(num_classes, D), rows of length target_norm; without the normalisation the embeddings collapse."""
        return self.target_norm * F.normalize(self.labels.weight, dim=1)

    def target(self, batch: dict) -> Tensor:
        """Clean label embeddings z0 (N, D). The table learns through the denoising loss."""
        return self._label_table()[batch["label"]]

    def predict(self, z: Tensor, sigma: Tensor, cond: Tensor, layers: nn.ModuleList) -> Tensor:
        """Class logits (N, num_classes) from the noisy label z (N, D) at levels sigma (N,), by `layers` alone."""
        denoiser = Denoiser(self.noise, z, sigma)
        level, label = self.level(denoiser.c_noise), denoiser.enters()[:, None]
        if self.cls is None:
            x = torch.cat([label, cond], dim=1)
        else:
            x = torch.cat([self.cls.expand(len(z), -1, -1), cond, label], dim=1)
        x = F.dropout(x + self.positions, self.dropout, self.training)
        for layer in layers:
            x = layer(x, level)
        return self.head(self.head_adaptive(denoiser.denoised(self.norm(x)[:, 0]), level))

    def loss(self, logits: Tensor, batch: dict, z: Tensor | None) -> Tensor:
        """Cross-entropy of each sample (N,)."""
        return F.cross_entropy(at_least_single(logits), batch["label"], reduction="none")

    def to_z(self, logits: Tensor) -> Tensor:
        """The denoised label embedding D = softmax(logits) E (N, D)."""
        return at_least_single(logits).softmax(dim=1) @ self._label_table()

    # As the plain network

    def end_to_end_prediction(self, batch: dict) -> Tensor:
        """Class logits (N, num_classes) of the plain network."""
        x = self.embed(batch, self.cls[:, 0].expand(len(batch["image"]), -1))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])

    def end_to_end_loss(self, batch: dict) -> Tensor:
        """Cross-entropy of each sample (N,)."""
        return self.loss(self.end_to_end_prediction(batch), batch, None)

    # As layers that each learn alone

    def token_widths(self) -> tuple[int, int]:
        """(raw values of a patch C * P * P, D)."""
        return self.patches.weight[0].numel(), self.head.in_features

    def patch_token(self, values: Tensor) -> Tensor:
        """The token (N, D) of a patch that is given by its raw values (N, C * P * P)."""
        return F.linear(values, self.patches.weight.flatten(1), self.patches.bias)

    def embed(self, batch: dict, first: Tensor | None = None) -> Tensor:
        """Patch tokens with their positions (N, T, D); behind the token `first` (N, D), if given, in [CLS]'s place."""
        x = self.condition(batch)
        if first is not None:
            x = torch.cat([first[:, None], x], dim=1)
        return F.dropout(x + self.positions[:, -x.shape[1] :], self.dropout, self.training)

    def classify(self, x: Tensor) -> Tensor:
        """Class logits (N, num_classes) from the mean of tokens (N, T, D)."""
        return self.head(self.norm(x.mean(1)))

"""Masked diffusion transformer (paper section 5.3, E.3): MD4's objective (Shi et al. 2024) on the network of SEDD.

It sees a text of which some tokens are masked, in both directions, and predicts them; that makes it a denoiser already,
and trained end to end it is DiffusionBlocks with a single block. At the paper's size and 27 characters it has 92.4 M
parameters.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.masking import MASK, Masking
from diffusionblocks.layers.conditioning import AdaLN, AdaptiveHead, LevelEmbedding, start_at_zero
from diffusionblocks.layers.text import Attention
from diffusionblocks.layers.vision import MLP
from diffusionblocks.layers.vocabulary import Logits
from diffusionblocks.models import base

LEVEL_WIDTH = 128


class Layer(nn.Module):
    """Pre-norm transformer layer, shifted, scaled and gated by the level; at first the identity (adaLN-zero)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        dropout: float,
        rotary_base: float = 10_000,
        qk_bias: bool = False,
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, num_heads, rotary_base, qk_bias)
        self.mlp = MLP(width, mlp_width, dropout, approximate="tanh")
        self.dropout = nn.Dropout(dropout)
        self.adaptive = AdaLN(LEVEL_WIDTH, width, silu="none")

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x: (N, T, D); level: (N, LEVEL_WIDTH)."""
        attention, mlp = self.adaptive(level)
        q, k, v = self.attention.project(attention.before(self.norm1, x))
        heads = self.attention.merge(F.scaled_dot_product_attention(q, k, v))  # every token sees every other
        x = x + attention.after(self.dropout(heads))
        return x + mlp.after(self.mlp(mlp.before(self.norm2, x)))


class Model(base.Model):
    """A network with `noise` (a Masking) that predicts masked tokens.

    shape: vocab_size and seq_len of the data. dropout: after both branches of a layer. Positions are rotary, so
    relative: while all tokens are masked, all positions look alike.
    qk_bias, rotary_base, neither of them the paper's: a masked token asks the same wherever it is, and finds its
    neighbours only once its query has learned a direction whose rotation tells them apart. Biases of queries and keys,
    at first normal of the deviation `qk_bias` (0: there are none), are such directions from the start, and with a low
    base more features turn within a few tokens. Raises ValueError for a negative deviation, and a base below 1.
    """

    noise_kind = "masking"

    def __init__(
        self,
        shape: dict,
        noise: Masking | None = None,
        target_norm: float = 1.0,
        *,
        num_layers: int = 12,
        width: int = 768,
        num_heads: int = 12,
        mlp_width: int = 3072,
        dropout: float = 0.1,
        qk_bias: float = 0.0,
        rotary_base: float = 10_000,
    ):
        super().__init__()
        if noise is None or target_norm != 1:
            raise ValueError("a masked diffusion model predicts tokens: it needs noise, and target_norm must be 1")
        if qk_bias < 0 or rotary_base < 1:
            raise ValueError(f"qk_bias {qk_bias} must be at least 0, and rotary_base {rotary_base} at least 1")
        self.noise = noise
        self.z_shape = (shape["seq_len"],)
        self.tokens = nn.Embedding(shape["vocab_size"] + 1, width)  # the last row is a masked token's
        self.level = LevelEmbedding(LEVEL_WIDTH, activated=True)
        self.layers = nn.ModuleList(
            Layer(width, num_heads, mlp_width, dropout, rotary_base, qk_bias > 0) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        self.head_adaptive = AdaptiveHead(LEVEL_WIDTH, width, silu="none")
        self.head = nn.Linear(width, shape["vocab_size"], bias=False)
        self._initialise(qk_bias)

    def _initialise(self, qk_bias):
        """SEDD's: PyTorch's own, the same range for the embeddings, and zeros where the network starts as nothing."""
        bound = self.tokens.embedding_dim**-0.5
        nn.init.uniform_(self.tokens.weight, -bound, bound)
        start_at_zero(self.head, self.head_adaptive, *(layer.adaptive for layer in self.layers))
        if qk_bias:
            for layer in self.layers:
                nn.init.normal_(layer.attention.qk_bias, std=qk_bias)

    def condition(self, batch: dict) -> None:
        """Nothing is known but what z shows."""
        return None

    def target(self, batch: dict) -> Tensor:
        """The tokens themselves (N, n)."""
        return batch["tokens"]

    def predict(self, z: Tensor, t: Tensor, cond: None, layers: nn.ModuleList) -> Logits:
        """Logits (N, n) of the true tokens from z (N, n), where some are MASK, at levels t (N,), by `layers` alone."""
        level = self.level(1000 * t)  # 1000 t as in MD4: the features are made for steps
        x = self.tokens(z.where(z != MASK, self.tokens.num_embeddings - 1))
        for layer in layers:
            x = layer(x, level)
        return Logits(self.head_adaptive(self.norm(x), level), self.head.weight)

    def loss(self, logits: Logits, batch: dict, z: Tensor) -> Tensor:
        """Nats of the masked tokens of each sequence, divided by all its tokens, (N,).

        Times `noise.weight(t)` its mean over t is the NELBO per token, but for the reconstruction term.
        """
        # The logits of visible tokens are computed, too: their number varies, and a head of few characters is cheap.
        return (logits.cross_entropy(batch["tokens"]) * (z == MASK)).mean(1)

    def to_z(self, logits: Logits) -> Tensor:
        """The likeliest tokens (N, n)."""
        return logits.argmax()

    def scores(self, logits: Logits, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """`Logits.scores` over all tokens."""
        return logits.scores(batch["tokens"])

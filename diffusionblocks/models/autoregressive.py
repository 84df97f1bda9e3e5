"""Autoregressive transformer, plain and as a denoiser of the next token's embedding (paper section 5.4, appendix E.4).

Layers are Llama 2's. The denoiser sees every sequence twice: clean tokens are the context, and each noisy one sees
those before it and itself (Block Diffusion, Arriola et al. 2025, with blocks of a single token). Two options, neither
of them the paper's, make a block cheaper: the head and the table as one matrix, and the sequence seen once.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import AdaLN, AdaptiveHead, Denoiser, LevelEmbedding, start_at_zero
from diffusionblocks.layers.text import Attention, Cache, RMSNorm, SwiGLU
from diffusionblocks.layers.vocabulary import LOGIT_SCALE, Logits, fixed_rows
from diffusionblocks.models import base

QUIET = 0.1  # how loud c_in z is beside the constant that marks a noisy token


class BothHalves(Attention):
    """Attention that, given clean halves and then noisy ones (2N, T, D), lets clean i see clean j <= i and noisy i see
    clean j < i and itself, never the clean token that it is to become."""

    def forward(self, x: Tensor, cache: Cache | None = None, keep: bool = True, noisy_only: bool = False) -> Tensor:
        """With a cache, x goes on from what it holds, and `keep` says whether it stays there."""
        if cache is not None:
            return super().forward(x, cache, keep)
        queries, keys, values = self.project(x)
        (q, noisy_q), (k, noisy_k), (v, noisy_v) = queries.chunk(2), keys.chunk(2), values.chunk(2)
        heads = before_and_itself(noisy_q, k, v, noisy_k, noisy_v)
        if not noisy_only:
            heads = torch.cat([F.scaled_dot_product_attention(q, k, v, is_causal=True), heads])
        return self.merge(heads)


def before_and_itself(q: Tensor, k: Tensor, v: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
    """Attention of query i to the keys j < i and to a key and value of its own; all (N, H, T, d).

    It is plain causal attention over the keys [own, 0, 1, ..., T - 2], so that any fused kernel computes it. The first
    key cannot be each query's own, but its score can: an extra feature of q has it, where that key alone has a 1. In
    the same place its value has a 1, which brings out the weight for the value that belongs there.
    """
    extra = 8  # features; kernels want multiples of 8
    score = F.pad((q * own_k).sum(-1, keepdim=True), (0, extra - 1))
    first = F.pad(q.new_ones(*q.shape[:2], 1, 1), (q.shape[-1], extra - 1))
    keys, values = (torch.cat([first, F.pad(context[:, :, :-1], (0, extra))], dim=2) for context in (k, v))
    scale = q.shape[-1] ** -0.5
    seen = F.scaled_dot_product_attention(torch.cat([q, score], dim=-1), keys, values, is_causal=True, scale=scale)
    context, weight = seen.split([q.shape[-1], extra], dim=-1)
    return context + weight[..., :1] * own_v


class Layer(nn.Module):
    """Llama 2's pre-norm layer; with `noise_width` shifted, scaled and gated by the noise level as in DiT.

    halves: whether a noise-conditioned layer without a cache is given clean halves and noisy ones.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        dropout: float,
        noise_width: int | None = None,
        halves: bool = True,
        open_gates: bool = False,
    ):
        super().__init__()
        # AdaLN's scale stands for the norms' weights.
        self.norm1, self.norm2 = (RMSNorm(width, elementwise_affine=not noise_width) for _ in range(2))
        self.attention = (BothHalves if noise_width and halves else Attention)(width, num_heads)
        self.mlp = SwiGLU(width, mlp_width)
        self.dropout = nn.Dropout(dropout)
        self.adaptive = AdaLN(noise_width, width, open_gates=open_gates) if noise_width else None

    def forward(
        self,
        x: Tensor,
        level: Tensor | None = None,
        cache: Cache | None = None,
        keep: bool = True,
        noisy_only: bool = False,
    ) -> Tensor:
        """x: (N, T, D), or both halves (2N, T, D); level: (N or 2N, noise_width) for a noise-conditioned layer.

        noisy_only: give only the noisy half; the clean one gives keys and values, all that the last layer needs of it.
        """
        if self.adaptive is None:
            x = x + self.dropout(self.attention(self.norm1(x), cache))
            return x + self.dropout(self.mlp(self.norm2(x)))
        attention, mlp = self.adaptive(level)
        entered = attention.before(self.norm1, x)
        heads = self.attention(entered, noisy_only=True) if noisy_only else self.attention(entered, cache, keep)
        if noisy_only:
            x, attention, mlp = x.chunk(2)[1], attention.second_half(), mlp.second_half()
        x = x + attention.after(self.dropout(heads))
        return x + mlp.after(self.dropout(self.mlp(mlp.before(self.norm2, x))))


class Model(base.Model):
    """A causal language model; without `noise` the plain network, with `noise` (an EDM) a denoiser of embeddings.

    shape: vocab_size and seq_len of the data. target_norm: length of the clean embeddings. The first token has no
    context; it is given, not learned. dropout: on the embeddings and after both branches of a layer.
    head: `own` is a matrix beside the embeddings'; `tied` reads by the embeddings' rows at length 1, the scores being
    16 cosines; `frozen` is tied to rows that are random and never trained, the same in every block and run, of which
    no gradients, moments and averages are held. sequence, of a denoiser: `doubled` has clean tokens beside the noisy
    ones; in `single` a position adds the clean token before its own to its noisy one, as in recurrent depth, which
    halves what layers compute and keep. gates, of a denoiser: `closed` at first, when its layers are the identity and a
    head of its own says nothing, or `open`, when both are those of a plain network until they heed the level.
    initialisation: normals of 0.02, which are `small`, or `unit`: tokens of unit variance, and linear maps that keep
    it. By default the plain network's are small and a denoiser's unit. In a narrow network unit ones learn much faster
    at first.
    Raises ValueError for a plain network whose sequence is not `doubled` or whose gates are not `closed`.
    """

    def __init__(
        self,
        shape: dict,
        noise: EDM | None = None,
        target_norm: float = 1.0,
        *,
        num_layers: int = 12,
        width: int = 768,
        num_heads: int = 12,
        mlp_width: int = 2048,
        dropout: float = 0.0,
        head: Literal["own", "tied", "frozen"] = "own",
        sequence: Literal["doubled", "single"] = "doubled",
        gates: Literal["closed", "open"] = "closed",
        initialisation: Literal["small", "unit"] | None = None,
    ):
        super().__init__()
        if not noise and sequence != "doubled":
            raise ValueError("sequence is of a denoiser: the plain network has no noisy tokens. Leave it out")
        if not noise and gates != "closed":
            raise ValueError("gates are a denoiser's: the plain network has none. Leave it out")
        self.noise, self.target_norm = noise, target_norm
        self.frozen, self.doubled = head == "frozen", sequence == "doubled"
        self.z_shape = (shape["seq_len"], width)
        noise_width = width // 6 if noise else None  # as in the official code's ViT: 128 for 768
        self.tokens = nn.Embedding(shape["vocab_size"], width)
        if self.frozen:
            self.tokens.weight = nn.Parameter(fixed_rows(shape["vocab_size"], width), requires_grad=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            Layer(width, num_heads, mlp_width, dropout, noise_width, self.doubled, gates == "open")
            for _ in range(num_layers)
        )
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, shape["vocab_size"], bias=False) if head == "own" else None
        if noise:
            self.level = LevelEmbedding(noise_width)
            self.noisy = nn.Parameter(torch.empty(width))
            self.head_adaptive = AdaptiveHead(noise_width, width)
        self._initialise(initialisation or ("unit" if noise else "small"), gates == "closed")

    def _initialise(self, start, closed):
        """Normals; of a denoiser, zeros in AdaLN and, with closed gates, in a head of its own."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5 if start == "unit" else 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if not self.frozen:  # a denoiser norms them as they enter
            nn.init.normal_(self.tokens.weight, std=1 if start == "unit" and not self.noise else 0.02)
        if self.noise:
            nn.init.normal_(self.noisy)
            start_at_zero(self.head_adaptive, *(layer.adaptive for layer in self.layers))
            if self.head is not None and closed:
                start_at_zero(self.head)

    # As a denoiser

    def _context(self, tokens):
        """Clean tokens as they enter the layers (N, T, D).

        A denoiser's have unit variance, as c_in z has: raw rows of 0.02 would be lost in what the first layer adds.
        """
        x = self.tokens(tokens)
        return self.dropout(F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 if self.noise else x)

    def _clean_level(self, count):
        """The features of the clean half, (count, noise_width): a constant, so that one cache serves all levels."""
        sigma = self.norm.weight.new_full((1,), self.noise.sigma_min)
        return self.level(Denoiser(self.noise, sigma, sigma).c_noise).expand(count, -1)

    def condition(self, batch: dict) -> Tensor:
        """Clean tokens as each block's layers receive them, (N, n, D): all that is known at inference.

        Of a single sequence each stands where the next token is predicted, and the first position has zeros.
        """
        if self.doubled:
            return self._context(batch["tokens"])
        return F.pad(self._context(batch["tokens"][:, :-1]), (0, 0, 1, 0))

    def target(self, batch: dict) -> Tensor:
        """Clean embeddings z0 (N, n, D) of length target_norm; without the normalisation they collapse."""
        return self.target_norm * F.normalize(self.tokens(batch["tokens"]), dim=-1)

    def predict(
        self, z: Tensor, sigma: Tensor, cond: Tensor, layers: nn.ModuleList, caches: list | None = None
    ) -> Logits:
        """Logits (N, n) of the tokens behind noisy z (N, n, D) at levels sigma (N,), by `layers` alone.

        caches: one for each layer, of a single sequence, with which z and cond go on from what they hold.
        """
        denoiser = Denoiser(self.noise, z, sigma)
        level = self.level(denoiser.c_noise)
        if self.doubled:
            both = torch.cat([self._clean_level(len(z)), level])
            x = torch.cat([cond, self._enter(denoiser)])
            for layer in layers:
                x = layer(x, both, noisy_only=layer is layers[-1])
        else:
            x = cond + self._enter(denoiser)
            for layer, cache in zip(layers, caches or [None] * len(layers), strict=True):
                x = layer(x, level, cache)
        return self._read(denoiser, x, level)

    def _enter(self, denoiser):
        """Noisy z as it enters the layers (N, T, D).

        c_in z alone would be nothing but noise at high levels, and with noise as its query a position finds no
        context: small networks then stay at unigrams for hundreds of updates (docs/faithfulness.md). So c_in z is added
        faintly to a learned vector, much as the ViT's noisy label has a learned position.
        """
        return self.dropout(self.noisy + denoiser.enters(QUIET))

    def _read(self, denoiser, x, level):
        """Logits from noisy z and what the layers made of it, x; both (N, T, D)."""
        return self._logits(self.head_adaptive(denoiser.denoised(self.norm(x)), level))

    def _logits(self, hidden):
        """Logits of what comes out of the last norm (N, T, D). A tied head reads directions alone: z, which D is at low
        noise, and what the layers make where z says nothing differ ten times in length."""
        if self.head is not None:
            return Logits(hidden, self.head.weight)
        return Logits(LOGIT_SCALE * F.normalize(hidden, dim=-1), self._unit_table())

    def _unit_table(self):
        """(V, D), rows of length 1; without the normalisation the embeddings collapse."""
        return self.tokens.weight if self.frozen else F.normalize(self.tokens.weight, dim=1)

    def to_z(self, logits: Logits, hard: bool = False) -> Tensor:
        """The mean embedding softmax(logits) E, or with `hard` the likeliest token's."""
        return logits.expected(self.target_norm * self._unit_table(), hard)

    # As the plain network

    def end_to_end_prediction(self, batch: dict) -> Logits:
        """Logits (N, n) of the plain network; the first token, which nothing predicts, has zeros."""
        x = self._context(batch["tokens"][:, :-1])
        for layer in self.layers:
            x = layer(x)
        return self._logits(F.pad(self.norm(x), (0, 0, 1, 0)))

    def end_to_end_loss(self, batch: dict) -> Tensor:
        """Nats per token of each sequence (N,), without the first token."""
        return self.loss(self.end_to_end_prediction(batch), batch)

    # Both

    def loss(self, logits: Logits, batch: dict, z: Tensor | None = None) -> Tensor:
        """Nats per token of each sequence (N,), without the first token."""
        return self._foretold(logits).cross_entropy(batch["tokens"][:, 1:]).mean(1)

    def scores(self, logits: Logits, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """`Logits.scores` over all tokens but the first."""
        return self._foretold(logits).scores(batch["tokens"][:, 1:])

    def agreement(self, logits: Logits, other: Logits) -> Tensor:
        """`Logits.agreement` over all tokens but the first."""
        return self._foretold(logits).agreement(self._foretold(other))

    def _foretold(self, logits):
        return logits._replace(hidden=logits.hidden[:, 1:])

    def begin(
        self, tokens: Tensor, layers: nn.ModuleList, length: int, eps: Tensor | None = None
    ) -> "Session | SingleSession":
        """A session that goes on from tokens (N, P), P at least 1, by `layers`, up to `length` positions.

        eps: (N, length, D) standard normal, read of a single sequence alone: the noise on the tokens that are known.
        """
        if self.doubled:
            return Session(self, tokens, layers, length)
        return SingleSession(self, tokens, layers, eps)


class Session:
    """Generation token by token. The cache of each layer holds clean tokens alone."""

    def __init__(self, model, tokens, layers, length):
        self.model, self.layers = model, layers
        self.caches = [Cache(length) for _ in layers]
        self._extend(tokens)

    def append(self, tokens: Tensor) -> None:
        """Make tokens (N,) the next clean position."""
        self._extend(tokens[:, None])

    def _extend(self, tokens):
        level = self.model._clean_level(len(tokens)) if self.model.noise else None
        self.last = self._run(self.model._context(tokens), level)[:, -1]

    def _run(self, x, level, keep=True):
        for layer, cache in zip(self.layers, self.caches, strict=True):
            x = layer(x, level, cache, keep)
        return x

    def predict(self, z: Tensor | None = None, sigma: float | None = None, step: int = 0) -> Logits:
        """Logits (N,) of the next position: of a denoiser from noisy z (N, D) at level sigma."""
        model = self.model
        if model.noise is None:
            return model._logits(model.norm(self.last))
        denoiser = Denoiser(model.noise, z[:, None], z.new_full((len(z),), sigma))
        level = model.level(denoiser.c_noise)
        logits = model._read(denoiser, self._run(model._enter(denoiser), level, keep=False), level)
        return logits._replace(hidden=logits.hidden[:, 0])


class SingleSession:
    """Generation token by token, of a single sequence: its keys know their position's noisy token too, so every step of
    a chain (a level) has caches of its own, of the states that its positions had at that step."""

    def __init__(self, model, tokens, layers, eps):
        self.model, self.tokens, self.layers, self.eps = model, tokens, layers, eps
        self.steps = {}  # caches of each level

    def append(self, tokens: Tensor) -> None:
        """Make tokens (N,) the next clean position."""
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)

    def predict(self, z: Tensor, sigma: float, step: int) -> Logits:
        """Logits (N,) of the next position from noisy z (N, D) at level sigma, the step-th of its chain.

        A step is asked once for each position; when it is first asked, all positions before it pass, the known tokens
        under this level's noise.
        """
        model, end = self.model, self.tokens.shape[1]
        if step not in self.steps:
            self.steps[step] = [Cache(self.eps.shape[1]) for _ in self.layers]
        start = self.steps[step][0].used
        sigma = z.new_full((len(z),), sigma)
        known = model.noise.corrupt(model.target({"tokens": self.tokens[:, start:]}), sigma, self.eps[:, start:end])
        z = torch.cat([known, z[:, None]], dim=1)
        cond = model.condition({"tokens": F.pad(self.tokens, (0, 1))})[:, start:]
        logits = model.predict(z, sigma, cond, self.layers, self.steps[step])
        return logits._replace(hidden=logits.hidden[:, -1])

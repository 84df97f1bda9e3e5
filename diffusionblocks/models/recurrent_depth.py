"""Recurrent-depth transformer, Huginn (Geiping et al. 2025), plain and as a denoiser (paper section 5.5, appendix E.5).

Plain, a core of layers refines a random state many times over; as a denoiser, one pass of the same core takes the state
from one noise level to the next. The sizes are those of Pythia-70M, the layers and their initialisation Huginn's.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import AdaptiveHead, Denoiser, LevelEmbedding, start_at_zero
from diffusionblocks.layers.huginn import Layer, initial_state, run, truncated_normal_
from diffusionblocks.layers.text import Cache, RMSNorm
from diffusionblocks.layers.vocabulary import LOGIT_SCALE, Logits
from diffusionblocks.models import base

RATE_SPREAD = 0.5  # standard deviation of the log of the mean depth


class Model(base.Model):
    """A causal language model; without `noise` the plain network, with `noise` (an EDM) a denoiser of embeddings.

    Position i has read token i and predicts token i + 1, whose noisy embedding is the denoiser's state there. So the
    first token is given, not learned, and the sequence need not be doubled: what earlier states are about, the prelude
    shows anyway.
    shape: vocab_size and seq_len of the data. target_norm: length of the clean embeddings. num_layers: of the core.
    mean_recurrence: of the random number of iterations in training, of which the last bptt_steps carry gradients.
    recurrences: iterations otherwise. All three are of the plain network.
    """

    def __init__(
        self,
        shape: dict,
        noise: EDM | None = None,
        target_norm: float = 1.0,
        *,
        num_layers: int = 4,
        prelude_layers: int = 2,
        coda_layers: int = 2,
        width: int = 512,
        num_heads: int = 8,
        mlp_width: int = 2048,
        mean_recurrence: int = 32,
        bptt_steps: int = 8,
        recurrences: int = 32,
    ):
        super().__init__()
        if min(mean_recurrence, bptt_steps, recurrences) < 1:
            raise ValueError("mean_recurrence, bptt_steps and recurrences must be at least 1")
        self.noise, self.target_norm = noise, target_norm
        self.z_shape = (shape["seq_len"] - 1, width)
        self.mean_recurrence, self.bptt_steps, self.recurrences = mean_recurrence, bptt_steps, recurrences
        noise_width = width // 6 if noise else None  # as in the official code's ViT

        def layers(count, noise_width=noise_width):
            return nn.ModuleList(Layer(width, num_heads, mlp_width, noise_width) for _ in range(count))

        self.tokens = nn.Embedding(shape["vocab_size"], width)
        self.prelude = layers(prelude_layers, None)  # clean context, which has no noise level
        self.adapter = nn.Linear(2 * width, width, bias=False)
        self.layers = layers(num_layers)
        self.coda = layers(coda_layers)
        self.norm = RMSNorm(width)
        if noise:
            self.level = LevelEmbedding(noise_width)
            self.head_adaptive = AdaptiveHead(noise_width, width)
        self._initialise()

    def all_layers(self) -> list[nn.Module]:
        """The layers from the first to the last, each once."""
        return [*self.prelude, *self.layers, *self.coda]

    def _initialise(self):
        """Huginn's: what adds to the residual stream is divided by sqrt(2 depth), and AdaLN starts at zero."""
        std = math.sqrt(2 / (5 * self.norm.weight.numel()))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                truncated_normal_(module.weight, std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        core = len(self.layers) * (1 if self.noise else self.mean_recurrence)
        outward = std / math.sqrt(2 * (len(self.prelude) + core + len(self.coda)))
        for layer in self.all_layers():
            _, value = layer.mlp.gate_up.weight.chunk(2)
            for weight in (layer.attention.out.weight, layer.mlp.down.weight, value):
                truncated_normal_(weight, outward)
        if self.noise:
            start_at_zero(self.head_adaptive, *(layer.adaptive for layer in (*self.layers, *self.coda)))

    def _context(self, tokens, caches=None):
        """What the prelude makes of the tokens so far, e (N, T, D)."""
        return run(self.prelude, math.sqrt(self.adapter.out_features) * self.tokens(tokens), None, caches)

    def _core(self, state, context, layers, level=None, caches=None):
        """One iteration: the state, shown its context anew."""
        x = self.adapter(torch.cat([state, context], dim=-1))
        return run(layers, x.to(state.dtype), level, caches)  # under autocast, sums stay in single precision

    def _coda(self, state, level=None, caches=None):
        return self.norm(run(self.coda, self.norm(state), level, caches))

    # As a denoiser

    def _unit_table(self):
        """(V, D), rows of length 1; without the normalisation the embeddings collapse."""
        return F.normalize(self.tokens.weight, dim=1)

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Clean embeddings (..., D) of length target_norm."""
        return self.target_norm * self._unit_table()[tokens]

    def condition(self, batch: dict) -> Tensor:
        """The prelude's e (N, n - 1, D) of all tokens but the last: all that is known at inference."""
        return self._context(batch["tokens"][:, :-1])

    def target(self, batch: dict) -> Tensor:
        """Clean embeddings z0 (N, n - 1, D) of all tokens but the first. The table learns through the loss."""
        return self.embeddings(batch["tokens"][:, 1:])

    def predict(
        self, z: Tensor, sigma: Tensor, cond: Tensor, layers: nn.ModuleList, caches: list | None = None
    ) -> Logits:
        """Logits (N, T) of the tokens behind noisy z (N, T, D) at levels sigma (N,), by `layers` and the coda.

        The embedding table reads the denoised vector, so that at low noise, where the answer is z itself, it is read
        off rightly from the first update on.
        """
        denoiser = Denoiser(self.noise, z, sigma)
        level = self.level(denoiser.c_noise)
        state = self._core(denoiser.enters(), cond, layers, level, caches and caches[: len(layers)])
        out = self._coda(state, level, caches and caches[len(layers) :])
        # At the highest level, where c_skip is 0, D is then as long as the clean embedding.
        length = self.target_norm / (self.noise.sigma_data * math.sqrt(z.shape[-1]))
        denoised = self.head_adaptive(denoiser.denoised(out, length), level)
        return Logits(LOGIT_SCALE / self.target_norm * denoised, self._unit_table())

    def to_z(self, logits: Logits, hard: bool = False) -> Tensor:
        """The mean embedding softmax(logits) E, or with `hard` the likeliest token's."""
        return logits.expected(self.target_norm * self._unit_table(), hard)

    # As the plain network

    def depth(self) -> tuple[int, int]:
        """Random (iterations without, iterations with gradients) of a training step."""
        mean = math.log(self.mean_recurrence) - RATE_SPREAD**2 / 2
        rate = torch.exp(mean + RATE_SPREAD * torch.randn(()))  # on the CPU, so that no device has to be waited for
        iterations = int(torch.poisson(rate)) + 1
        return max(iterations - self.bptt_steps, 0), min(iterations, self.bptt_steps)

    def refine(
        self, state: Tensor, context: Tensor, layers: nn.ModuleList, depth: tuple[int, int], caches: Any = None
    ) -> Tensor:
        """The state after (iterations without, iterations with gradients); caches: of each iteration's layers."""
        without, with_gradients = depth
        for i in range(without + with_gradients):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= without):
                state = self._core(state, context, layers, caches=caches and caches[i])
        return state

    def end_to_end_prediction(self, batch: dict) -> Logits:
        """Logits (N, n - 1) of the plain network. Its initial state is random; in evaluation, the same each time."""
        context = self.condition(batch)
        if self.training:
            eps, depth = torch.randn_like(context), self.depth()
        else:
            eps, depth = torch.randn(context.shape, generator=torch.Generator().manual_seed(0)), (0, self.recurrences)
        state = self.refine(initial_state(eps.to(context)), context, self.layers, depth)
        return Logits(self._coda(state), self.tokens.weight)

    def end_to_end_loss(self, batch: dict) -> Tensor:
        """Nats per token of each sequence (N,), without the first token."""
        return self.loss(self.end_to_end_prediction(batch), batch)

    # Both

    def loss(self, logits: Logits, batch: dict, z: Tensor | None = None) -> Tensor:
        """Nats per token of each sequence (N,), without the first token."""
        return logits.cross_entropy(batch["tokens"][:, 1:]).mean(1)

    def scores(self, logits: Logits, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """`Logits.scores` over all tokens but the first."""
        return logits.scores(batch["tokens"][:, 1:])

    def agreement(self, logits: Logits, other: Logits) -> Tensor:
        """`Logits.agreement` over all tokens but the first."""
        return logits.agreement(other)

    def begin(self, tokens: Tensor, layers: nn.ModuleList, length: int, eps: Tensor) -> "Session":
        """A session that goes on from tokens (N, P), P at least 1, by `layers`, up to `length` positions.

        eps: (N, length, D) standard normal; that of position i makes the state that is to become token i.
        """
        return Session(self, tokens, layers, length, eps)


class Session:
    """Generation token by token. The prelude's caches hold clean tokens, and every step (of a chain: a level; of the
    plain network: an iteration) has caches of its own, of the states that its positions had at that step."""

    def __init__(self, model, tokens, layers, length, eps):
        self.model, self.tokens, self.layers, self.length = model, tokens, layers, length
        self.eps = eps
        self.prelude = self._caches(model.prelude)
        self.context = model._context(tokens, self.prelude)
        self.steps = {}  # caches of each level's core and coda
        if model.noise is None:
            self.core = [self._caches(layers) for _ in range(model.recurrences)]
            self.coda = self._caches(model.coda)

    def _caches(self, layers):
        return [Cache(self.length) for _ in layers]

    def append(self, tokens: Tensor) -> None:
        """Make tokens (N,) the next clean position."""
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        self.context = torch.cat([self.context, self.model._context(tokens[:, None], self.prelude)], dim=1)

    def predict(self, z: Tensor | None = None, sigma: float | None = None, step: int = 0) -> Logits:
        """Logits (N,) of the next position: of a denoiser from noisy z (N, D) at level sigma, the step-th of its chain.

        A step is asked once for each position; when it is first asked, all positions before it pass, the known tokens
        under this level's noise.
        """
        logits = self._plain() if self.model.noise is None else self._denoise(z, sigma, step)
        return logits._replace(hidden=logits.hidden[:, -1])

    def _plain(self):
        model, start = self.model, self.core[0][0].used
        state = initial_state(self.eps[:, start + 1 : self.tokens.shape[1] + 1])
        state = model.refine(state, self.context[:, start:], self.layers, (0, model.recurrences), self.core)
        return Logits(model._coda(state, caches=self.coda), model.tokens.weight)

    def _denoise(self, z, sigma, step):
        model = self.model
        if step not in self.steps:
            self.steps[step] = self._caches([*self.layers, *model.coda])
        caches = self.steps[step]
        start, end = caches[0].used, self.tokens.shape[1]
        sigma = z.new_full((len(z),), sigma)
        known = model.noise.corrupt(model.embeddings(self.tokens[:, start + 1 :]), sigma, self.eps[:, start + 1 : end])
        return model.predict(torch.cat([known, z[:, None]], dim=1), sigma, self.context[:, start:], self.layers, caches)

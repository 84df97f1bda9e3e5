"""What a text model predicts: logits over a vocabulary, which are larger than all else in a small model, in chunks."""

from collections import namedtuple
from functools import partial

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffusionblocks.layers.precision import at_least_single

CHUNK = 2**24  # logits that exist at a time on a CPU: 64 MB in single precision
# And on a GPU: 16,384 rows of 4,096 subwords or 2,097 of 32,000, whose product takes longer than it takes to launch; of
# more, some more is held at the peak. On the meta device, which counts what a GPU would hold, it is the GPU's.
CHUNK_GPU = 2**26
LOGIT_SCALE = 16  # of cosines; unscaled, the right embedding itself would be read as an almost even distribution
TABLE_SEED = 0  # of the table that is not trained: blocks that never meet must draw the same one


def fixed_rows(count: int, width: int) -> torch.Tensor:
    """A random table (count, width) with rows of length 1, always the same; torch's generator is not asked."""
    rows = torch.empty(count, width).normal_(generator=torch.Generator().manual_seed(TABLE_SEED))
    return F.normalize(rows, dim=1)


class Logits(namedtuple("Logits", "hidden head")):
    """hidden (..., D) and the weight (V, D) that reads it. The logits themselves are computed where they are used.

    They carry the head of the block that made them, so that the next block can take them over without it.
    """

    def full(self) -> torch.Tensor:
        """The logits (..., V) in single precision, or in double if they are."""
        return at_least_single(F.linear(self.hidden, self.head))

    def cross_entropy(self, targets: torch.Tensor) -> torch.Tensor:
        """Nats (...) of the tokens `targets` (...); chunks are computed again in the backward pass, and not kept."""

        def nats(hidden, head, wanted):
            return F.cross_entropy(at_least_single(F.linear(hidden, head)), wanted, reduction="none")

        hidden, wanted = self.hidden.flatten(0, -2), targets.flatten()
        chunks = zip(hidden.split(self._rows), wanted.split(self._rows), strict=True)
        if not torch.is_grad_enabled() or len(hidden) <= self._rows:
            found = [nats(part, self.head, tokens) for part, tokens in chunks]
        else:
            again = partial(checkpoint, nats, use_reentrant=False, preserve_rng_state=False)  # which draws nothing
            found = [again(part, self.head, tokens) for part, tokens in chunks]
        return torch.cat(found).view(targets.shape)

    def scores(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each sequence (N,): mean nats, share of likeliest tokens that are `targets` (N, T), their probability."""
        nats, hits = self.cross_entropy(targets), self.argmax() == targets
        return nats.mean(1), hits.to(nats.dtype).mean(1), nats.neg().exp().mean(1)

    def agreement(self, other: "Logits") -> torch.Tensor:
        """The chance that a token drawn from each of two predictions is the same; of each sequence (N,) the mean."""
        pairs = zip(self._chunks(), other._chunks(), strict=True)
        found = [(one.softmax(-1) * another.softmax(-1)).sum(-1) for one, another in pairs]
        return torch.cat(found).view(self.hidden.shape[:-1]).mean(1)

    def expected(self, table: torch.Tensor, hard: bool = False) -> torch.Tensor:
        """softmax(logits) @ table (..., D'), the mean of the rows of `table` (V, D'); `hard`: the likeliest row."""
        if hard:
            return table[self.argmax()]
        found = [part.softmax(-1) @ at_least_single(table) for part in self._chunks()]
        return torch.cat(found).view(*self.hidden.shape[:-1], -1)

    def argmax(self) -> torch.Tensor:
        """The likeliest tokens (...)."""
        return torch.cat([part.argmax(-1) for part in self._chunks()]).view(self.hidden.shape[:-1])

    @property
    def _rows(self):
        return max(1, (CHUNK if self.head.device.type == "cpu" else CHUNK_GPU) // len(self.head))

    def _chunks(self):
        return (at_least_single(F.linear(part, self.head)) for part in self.hidden.flatten(0, -2).split(self._rows))


def nucleus(probabilities: torch.Tensor, draws: torch.Tensor, top_p: float) -> torch.Tensor:
    """One token (N,) of each distribution (N, V) by its uniform (N,), out of the fewest that together have top_p."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered * ((before < top_p) | (before == 0))  # the likeliest always
    cumulative = kept.cumsum(-1)
    index = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(-1)
    return tokens.gather(1, index[:, None].clamp(max=tokens.shape[1] - 1))[:, 0]

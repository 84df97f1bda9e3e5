"""A small recurrent language model over a data set's own tokens, trained in seconds on documents set aside for it.

In that time gated recurrent units learn far more than a transformer does: after 15 s on one core, perplexity 80 against
340 on held-out addresses (2,048 subwords, same width).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TOKENS = 1024  # in an update
SCORED = 8192  # tokens scored at a time


class SmallLM(nn.Module):
    """Predicts each token from those before it. One table embeds tokens and reads the hidden states."""

    def __init__(self, vocab_size: int, width: int, num_layers: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.layers = nn.GRU(width, width, num_layers, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, n + 1, width) before the first of the tokens (N, n), and after each."""
        return self.norm(self.layers(F.pad(self.embedding(tokens), (0, 0, 1, 0)))[0])

    def cross_entropy(self, tokens: torch.Tensor) -> torch.Tensor:
        """Nats (N, n) of each token given those before it."""
        logits = F.linear(self(tokens[:, :-1]), self.embedding.weight, self.bias)
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)

    @torch.inference_mode()
    def features(self, texts: list[str], tokens: torch.Tensor) -> np.ndarray:
        """(N, width): how far each token's embedding lies from the one that was expected, root mean square over a text.

        That is the likelihood's gradient in the hidden states. The last of these, which a large model is asked for,
        tells no shuffled words from real text in a model so small: MAUVE 0.99, against 0.2 by these features.
        """
        table, found = self.embedding.weight, []
        for part in self._parts(tokens):
            expected = F.linear(self(part[:, :-1]), table, self.bias).softmax(-1) @ table
            found.append((self.embedding(part) - expected).square().mean(1).sqrt())
        return torch.cat(found).cpu().numpy()

    @torch.inference_mode()
    def nll(
        self, texts: list[str], tokens: torch.Tensor, prompt_len: int, prompts: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(nats (N,), counts (N,)) of the tokens (N, n) from position prompt_len on."""
        nats = torch.cat([self.cross_entropy(part)[:, prompt_len:].sum(1) for part in self._parts(tokens)])
        return nats.double().cpu().numpy(), nats.new_full((len(nats),), tokens.shape[1] - prompt_len).cpu().numpy()

    def _parts(self, tokens):
        return tokens.split(max(1, SCORED // tokens.shape[1]))


def train(
    tokens: torch.Tensor, vocab_size: int, width: int, num_layers: int, steps: int, lr: float = 0.015
) -> dict[str, torch.Tensor]:
    """Weights of a model trained on the sequences `tokens` (M, n), on their device; the same every time."""
    generator = torch.Generator().manual_seed(0)  # one network for all seeds of all rows
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = SmallLM(vocab_size, width, num_layers).to(tokens.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    batch_size = max(1, TOKENS // tokens.shape[1])
    for _ in range(steps):
        chosen = torch.randint(len(tokens), (batch_size,), generator=generator).to(tokens.device)
        loss = network.cross_entropy(tokens[chosen].long()).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return {name: value.cpu() for name, value in network.state_dict().items()}

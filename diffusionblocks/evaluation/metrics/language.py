"""Metrics of language models: predictions of the test set's next tokens, and generated texts.

losses: (steps, N), nats per token along the chain; correct, probability: (steps, N), of each sequence the share of its
tokens that are the likeliest, and the mean probability of the true ones; agreement: (N,), the chance that samples of
two chains agree which differ in noise alone; scrambled_losses: (N,), nats at the first step, the tokens before replaced
by another sequence's; texts: token ids (N, n) of continuations.
"""

import math

import numpy as np

from diffusionblocks.base.compat import mauve_package
from diffusionblocks.evaluation.metric import metric


@metric(unit="nats", better="lower", beside=True)
def next_token_loss(losses: np.ndarray) -> float:
    """Nats per token at the first step, mean over the sequences.

    At sigma_max z says nothing, so this is what the context says. At lower levels a denoiser may copy.
    """
    return next_token_loss_per_step(losses)[0]


@metric(unit="nats", better="lower", figure="loss_chain")
def next_token_loss_per_step(losses: np.ndarray) -> list[float]:
    """Nats per token of each step's prediction."""
    return [float(step) for step in np.mean(losses, axis=1)]


@metric(unit="%", better="higher", beside=True)
def first_step_accuracy(correct: np.ndarray) -> float:
    """Share of the tokens in percent that are the likeliest at the first step.

    At sigma_max z says nothing, so this is the greedy choice from the context.
    """
    return 100 * float(np.mean(correct, axis=1)[0])


@metric(unit="%", better="higher", beside=True)
def sampled_accuracy(probability: np.ndarray) -> float:
    """Share of the tokens in percent that a sample of the last step gets right: mean probability of them."""
    return 100 * float(np.mean(probability[-1]))


@metric(unit="nats", better="lower", beside=True)
def scrambled_loss(scrambled_losses: np.ndarray) -> float:
    """Nats per token at the first step after another sequence's tokens: a control for `next_token_loss`.

    Who uses the context gets much worse by it; who does not stays at the same number, which is then no merit.
    """
    return float(np.mean(scrambled_losses))


@metric(unit="nats", beside=True)
def output_entropy(agreement: np.ndarray) -> float:
    """Entropy (Renyi's, of order 2) of what a chain puts out after a context, over the noise that it starts from.

    0: always the same token, whatever the noise, as greedy decoding. Minus the logarithm of `agreement`, which two
    chains estimate without bias; a single end says nothing of it: at low sigma any token is told from z for certain.
    """
    return -math.log(max(float(np.mean(agreement)), np.finfo(np.float64).tiny))


@metric(better="lower", beside=True)
def brier_score(probability: np.ndarray, agreement: np.ndarray) -> float:
    """Brier score (1950) of the distribution that a chain samples from: E sum_v (q_v - [v is true])^2, from 0 to 2.

    Least for the true distribution and no sharper one, where `sampled_accuracy` rises as a chain gets sharper.
    """
    return float(np.mean(agreement) - 2 * np.mean(probability[-1]) + 1)


@metric(better="higher", least={"references": 40, "scaling_factor": 0.01, "kmeans_seeds": 1})
def mauve(text_features: tuple, *, scaling_factor=2.0, kmeans_seeds=5) -> float:
    """MAUVE (Pillutla et al. 2021) of generated and real texts, from 0 to 1; mean over seeds of the clusters.

    text_features: (generated (N, D), references (M, D)) of texts with equally many tokens, or it falls for that alone.
    Clusters are a tenth of the fewer texts. Texts that have no cluster in common get Gamma(c+1)^2 / Gamma(2c+1). Few
    references say nothing: against 8, random tokens after real prompts reach 0.9
    (docs/studies/mauve_of_nonsense.md).
    """
    generated, references = text_features
    with mauve_package() as compute_mauve:
        curves = [
            compute_mauve(references, generated, mauve_scaling_factor=scaling_factor, seed=seed).divergence_curve
            for seed in range(25, 25 + kmeans_seeds)  # 25 is the library's
        ]
    return float(np.mean([_area(curve) for curve in curves]))


@metric(better="lower", infinite=True)
def generative_perplexity(text_nll: tuple) -> float:
    """Perplexity of generated texts given their prompts: exp of all nats over all scored tokens.

    text_nll: (nats (N,), counts (N,)). A loop of a few words scores well: read it beside `distinct_2` and `repetition`.
    inf if there is nothing to score.
    """
    nats, counts = text_nll
    return math.exp(np.sum(nats) / np.sum(counts)) if np.sum(counts) > 0 else math.inf


@metric(better="lower", infinite=True)
def reference_perplexity(reference_nll: tuple) -> float:
    """`generative_perplexity` of what really follows the prompts."""
    return generative_perplexity(reference_nll)


@metric(unit="%", better="higher", least={"tokens": 2})
def distinct_2(texts: np.ndarray) -> float:
    """Share in percent of a text's pairs of neighbouring tokens that differ from all its others; mean over texts."""
    return 100 * _distinct(texts, 2)


@metric(unit="%", better="lower", least={"tokens": 4})
def repetition(texts: np.ndarray) -> float:
    """Share in percent of a text's runs of four tokens that were in it before (seq-rep-4, Welleck et al. 2020).

    Mean over texts.
    """
    return 100 * (1 - _distinct(texts, 4))


def _area(curve):
    """Area under a curve (points, 2) from (1, 0) to (0, 1).

    The library sorts the points first, mixes up those that coincide, and may give equal histograms 0.75.
    """
    x, y = curve.T
    return float(-np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _distinct(texts, length):
    """Different runs of `length` tokens in a text over all of its runs; mean over texts (N, n)."""
    runs = np.lib.stride_tricks.sliding_window_view(np.asarray(texts), length, axis=1)
    return float(np.mean([len(np.unique(text, axis=0)) / len(text) for text in runs]))

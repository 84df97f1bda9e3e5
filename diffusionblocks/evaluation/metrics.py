"""Metrics by name, from arrays alone; a metric never sees a model.

What a metric is computed from stands in its positional arguments: `logits` and `labels` of the test set, and whether
each of a chain's steps was `correct`, or of generated images their `features` and the `references`, or the
`evaluations` that they cost. Of text: of the test set the `losses`, the `correct` tokens and the true ones'
`probability` along the chain, or the bound `nelbo`; of generated texts the token ids `texts`, and what a teacher makes
of them, `text_features` and `text_nll`. A function returns a number, which reaches the table, or a list with one value
per step, which reaches the figures.
"""

import math
from typing import Literal

import numpy as np

from diffusionblocks.base.compat import mauve_package
from diffusionblocks.scorers import fidelity


def accuracy(logits, labels):
    """Share of the samples in percent whose largest logit is their label's.

    logits: (N, classes), the last step's; labels: (N,).
    """
    return 100 * float(np.mean(logits.argmax(1) == labels))


def top_5_accuracy(logits, labels):
    """Share of the samples in percent whose label is among their five largest logits; shapes as for `accuracy`."""
    return 100 * float(np.mean((np.argsort(-logits, axis=1)[:, :5] == labels[:, None]).any(1)))


def accuracy_per_step(correct):
    """Accuracy in percent of each step's prediction. correct: (steps, N), 1 where it is the label."""
    return [100 * float(step) for step in np.mean(correct, axis=1)]


def fid(features, references, *, reference: Literal["test", "train"] = "test"):
    """Frechet distance to the real images; of several sample sets the least, as in the paper (appendix E.2).

    features: a list of arrays (N, D), one per set; references: {split: {mu, sigma, features}}.
    """
    return min(fidelity.fid(values, references[reference]) for values in features)


def kid(features, references, *, reference: Literal["test", "train"] = "test"):
    """Kernel distance times 1000, mean over the sample sets; arguments as for `fid`."""
    return float(np.mean([fidelity.kid(values, references[reference]) for values in features]))


def precision(features, references, *, reference: Literal["test", "train"] = "test"):
    """Share of the generated images near a real one, in percent: are they good? Arguments as for `fid`."""
    return _precision_recall(features, references[reference], 0)


def recall(features, references, *, reference: Literal["test", "train"] = "test"):
    """Share of the real images near a generated one, in percent: are they varied? Arguments as for `fid`."""
    return _precision_recall(features, references[reference], 1)


def layer_evaluations(evaluations):
    """Layers run for an image, a guided pair counted once (appendix H); counted while sampling, not computed."""
    return evaluations["layers"]


def relative_speed(evaluations):
    """How many times fewer layers are run than if all of the network's were at every step (tables 8 and A2)."""
    return evaluations["networks"] * evaluations["num_layers"] / evaluations["layers"]


def bpc(nelbo):
    """Bits per character: the mean bound (passes, N), nats per token where a token is a character, in bits."""
    return float(np.mean(nelbo)) / math.log(2)


def bpc_standard_error(nelbo):
    """Standard error of `bpc` by the levels that were drawn: spread of the passes over the root of their number."""
    passes = np.mean(nelbo, axis=1) / math.log(2)
    return float(passes.std(ddof=1) / math.sqrt(len(passes)))


def bpc_by_level(nelbo_per_level):
    """Bits per character of each interval of t, whose mean is `bpc`."""
    return [float(nats) / math.log(2) for nats in nelbo_per_level]


def next_token_loss(losses):
    """Nats per token (steps, N) at the first step, mean over the sequences.

    At sigma_max z says nothing, so this is what the context says. At lower levels a denoiser may copy.
    """
    return next_token_loss_per_step(losses)[0]


def next_token_loss_per_step(losses):
    """Nats per token of each step's prediction; shape as for `next_token_loss`."""
    return [float(step) for step in np.mean(losses, axis=1)]


def next_token_accuracy(correct):
    """Share of the tokens in percent that are the likeliest at the last step.

    correct: that share of each sequence, (steps, N). A chain ends in a sample, so this is no greedy choice.
    """
    return next_token_accuracy_per_step(correct)[-1]


def next_token_accuracy_per_step(correct):
    """The same at each step."""
    return accuracy_per_step(correct)


def first_step_accuracy(correct):
    """The same at the first step: at sigma_max z says nothing, so this is the greedy choice from the context."""
    return next_token_accuracy_per_step(correct)[0]


def sampled_accuracy(probability):
    """Share of the tokens in percent that a sample of the last step gets right: mean probability (steps, N) of them."""
    return 100 * float(np.mean(probability[-1]))


def mauve(text_features, *, scaling_factor=2.0, kmeans_seeds=5):
    """MAUVE (Pillutla et al. 2021) of generated and real texts, from 0 to 1; mean over seeds of the clusters.

    text_features: (generated (N, D), references (M, D)) of texts with equally many tokens, or it falls for that alone.
    Clusters are a tenth of the fewer texts. Texts that have no cluster in common get Gamma(c+1)^2 / Gamma(2c+1).
    """
    generated, references = text_features
    with mauve_package() as compute_mauve:
        curves = [
            compute_mauve(references, generated, mauve_scaling_factor=scaling_factor, seed=seed).divergence_curve
            for seed in range(25, 25 + kmeans_seeds)  # 25 is the library's
        ]
    return float(np.mean([_area(curve) for curve in curves]))


def generative_perplexity(text_nll):
    """Perplexity of generated texts given their prompts: exp of all nats over all scored tokens.

    text_nll: (nats (N,), counts (N,)). A loop of a few words scores well: read it beside `distinct_2` and `repetition`.
    inf if there is nothing to score.
    """
    nats, counts = text_nll
    return math.exp(np.sum(nats) / np.sum(counts)) if np.sum(counts) > 0 else math.inf


def reference_perplexity(reference_nll):
    """`generative_perplexity` of what really follows the prompts."""
    return generative_perplexity(reference_nll)


def layers_forward(update_cost):
    """Layers run forward in a training update, recurrent passes counted each; counted, not computed (section 5.5)."""
    return update_cost["forward"]


def layers_backward(update_cost):
    """Layers run backward in a training update; as `layers_forward`."""
    return update_cost["backward"]


def training_layers(update_cost, training):
    """Thousands of layers run in all training updates, backward counted twice, since it takes about twice the work."""
    return training["updates"] * (update_cost["forward"] + 2 * update_cost["backward"]) / 1000


def training_seconds(training):
    """Seconds in training of all parts together, on the hardware that the page names."""
    return training["seconds"]


def distinct_2(texts):
    """Share in percent of a text's pairs of neighbouring tokens that differ from all its others; mean over texts.

    texts: token ids (N, n) of the continuations.
    """
    return 100 * _distinct(texts, 2)


def repetition(texts):
    """Share in percent of a text's runs of four tokens that were in it before (seq-rep-4, Welleck et al. 2020).

    Mean over texts; texts as for `distinct_2`.
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


def _precision_recall(features, reference, which):
    return 100 * float(np.mean([fidelity.precision_recall(values, reference)[which] for values in features]))

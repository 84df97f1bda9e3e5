"""Logits in chunks against the whole matrix, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from diffusionblocks.layers import vocabulary
from diffusionblocks.layers.vocabulary import Logits


@pytest.fixture(params=[1, 7 * 4, vocabulary.CHUNK], ids=["a row", "four rows", "all"])
def logits(request, monkeypatch):
    """Logits (3, 5) over 7 tokens, computed in chunks of some size."""
    monkeypatch.setattr(vocabulary, "CHUNK", request.param)
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(*shape, generator=generator).requires_grad_() for shape in ((3, 5, 4), (7, 4)))
    return Logits(hidden, head)


TARGETS = torch.randint(7, (3, 5), generator=torch.Generator().manual_seed(1))


def test_cross_entropy_and_its_gradients(logits):
    ours = logits.cross_entropy(TARGETS)
    theirs = F.cross_entropy(logits.full().transpose(1, 2), TARGETS, reduction="none")
    torch.testing.assert_close(ours, theirs)
    weights = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    for found, expected in zip(
        *(torch.autograd.grad((loss * weights).sum(), [logits.hidden, logits.head]) for loss in (ours, theirs)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_no_chunk_is_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", 1000)
    logits = Logits(torch.randn(64, 4, requires_grad=True), torch.randn(1000, 4, requires_grad=True))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        logits.cross_entropy(torch.zeros(64, dtype=torch.long))
    assert max(kept) < 64 * 1000, "the whole matrix of logits was kept"


def test_chunks_on_a_gpu_are_larger_and_the_meta_device_counts_a_gpus():
    rows = {device: Logits(None, torch.empty(32_000, 1, device=device))._rows for device in ("cpu", "meta")}
    assert rows == {"cpu": 2**24 // 32_000, "meta": 2**26 // 32_000}


def test_a_chunk_asks_for_no_state_of_a_generator(monkeypatch):
    """It draws nothing, and on a GPU each of them would be read and put back."""
    monkeypatch.setattr(vocabulary, "CHUNK", 1000)
    monkeypatch.setattr(torch, "get_rng_state", None)
    monkeypatch.setattr(torch, "set_rng_state", None)
    logits = Logits(torch.randn(4, 3, requires_grad=True), torch.randn(1000, 3, requires_grad=True))
    logits.cross_entropy(torch.zeros(4, dtype=torch.long)).sum().backward()
    assert logits.hidden.grad.any() and logits.head.grad.any()


def test_fixed_rows_are_the_same_whatever_was_drawn_before():
    torch.manual_seed(1)
    first, drawn = vocabulary.fixed_rows(7, 5), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn), "torch's generator was asked"
    assert torch.equal(vocabulary.fixed_rows(7, 5), first)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(7))


def test_expectation_of_a_table_and_its_likeliest_row(logits):
    table = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(logits.expected(table), logits.full().softmax(-1) @ table)
        likeliest = logits.full().argmax(-1)
        assert torch.equal(logits.argmax(), likeliest)
        assert torch.equal(logits.expected(table, hard=True), table[likeliest])


def test_agreement_is_the_chance_that_two_samples_are_the_same(logits):
    with torch.no_grad():
        other = Logits(logits.hidden.flip(0), 2 * logits.head)
        chances = (logits.full().softmax(-1) * other.full().softmax(-1)).sum(-1)
        torch.testing.assert_close(logits.agreement(other), chances.mean(1))
        certain = Logits(1e4 * logits.hidden, logits.head)
        torch.testing.assert_close(certain.agreement(certain), torch.ones(3))
        assert certain.agreement(Logits(-certain.hidden, logits.head)).max() == 0


def test_scores_are_means_over_a_sequence(logits):
    with torch.no_grad():
        nats, hits, probability = logits.scores(TARGETS)
        chances = logits.full().softmax(-1).gather(2, TARGETS[:, :, None])[:, :, 0]
        torch.testing.assert_close(nats, -chances.log().mean(1))
        torch.testing.assert_close(probability, chances.mean(1))
        assert hits.tolist() == pytest.approx((logits.full().argmax(-1) == TARGETS).float().mean(1).tolist())

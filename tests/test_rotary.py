"""Parts of the text models against known answers and PyTorch's own."""

import torch
from torch.nn import functional as F

from diffusionblocks.layers.text import Attention, Cache, RMSNorm, SwiGLU, rotate


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def attention(**options):
    torch.manual_seed(0)
    return Attention(12, 3, **options).double()


def test_norm_has_unit_mean_square_and_a_weight():
    x = 5 * normal(2, 3, 8)
    torch.testing.assert_close(RMSNorm(8).double()(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    assert not list(RMSNorm(8, elementwise_affine=False).parameters())


def test_gated_mlp():
    torch.manual_seed(0)
    mlp, x = SwiGLU(4, 6).double(), normal(5, 4)
    gate, up = mlp.gate_up.weight.split(6)
    torch.testing.assert_close(mlp(x), ((x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ up.T)) @ mlp.down.weight.T)


def test_rotation_turns_pairs_of_features_as_complex_numbers():
    x, positions = normal(2, 3, 5, 8), torch.tensor([0, 1, 2, 7, 1000])
    turned = rotate(x, positions, 50.0)
    angles = positions[:, None] * 50.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    expected = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_scores_depend_on_the_distance_alone():
    q, k = normal(1, 2, 1, 8), normal(1, 2, 1, 8).flip(-1)

    def score(i, j):
        return (rotate(q, torch.tensor([i])) * rotate(k, torch.tensor([j]))).sum(-1)

    torch.testing.assert_close(score(3, 1), score(103, 101))
    assert not torch.allclose(score(3, 1), score(3, 2))


def test_late_positions_keep_their_precision_in_bfloat16():
    x, positions = normal(1, 1, 1, 8).bfloat16(), torch.tensor([1023])
    torch.testing.assert_close(rotate(x, positions).double(), rotate(x.double(), positions), atol=0.02, rtol=0.02)


def test_attention_against_explicit_softmax():
    module, x = attention(qk_bias=True), normal(2, 5, 12)
    torch.nn.init.normal_(module.qk_bias)
    q, k, v = (x @ module.qkv.weight.T).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    q, k = (rotate(side + bias, torch.arange(5)) for side, bias in zip((q, k), module.qk_bias, strict=True))
    scores = (q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    expected = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)
    assert module.out.bias is None and module.qkv.bias is None


def test_attention_keeps_each_of_queries_keys_and_values_once():
    attention, x = Attention(12, 3), torch.randn(2, 5, 12, requires_grad=True)
    weights, kept = {value.data_ptr() for value in attention.parameters()}, []

    def keep(value):
        if value.data_ptr() not in weights:
            kept.append(value.untyped_storage().nbytes())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        attention(x)
    assert max(kept) == x.nbytes, "all that the projection gave is kept for the sake of the values"


def test_attention_with_a_cache_is_that_without():
    module, x, cache = attention(), normal(2, 6, 12), Cache(6)
    found = [module(x[:, :3], cache), *(module(x[:, i : i + 1], cache) for i in (3, 4, 5))]
    torch.testing.assert_close(torch.cat(found, dim=1), module(x))


def test_what_a_cache_does_not_keep_is_overwritten():
    module, x, cache = attention(), normal(2, 6, 12), Cache(4)
    module(x[:, :3], cache)
    passing = module(x[:, 5:], cache, keep=False)
    torch.testing.assert_close(passing, module(torch.cat([x[:, :3], x[:, 5:]], dim=1))[:, 3:])
    assert cache.used == 3
    torch.testing.assert_close(module(x[:, 3:4], cache), module(x[:, :4])[:, 3:])


def test_gated_mlp_is_no_plain_one():
    mlp = SwiGLU(4, 6)
    assert sum(value.numel() for value in mlp.parameters()) == 3 * 4 * 6
    assert torch.equal(mlp(torch.zeros(1, 4)), F.silu(torch.zeros(1, 4)))

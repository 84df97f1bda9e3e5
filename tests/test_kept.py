"""What a layer keeps for its backward pass, and that keeping less moves no bit of what it gives and learns."""

import pytest
import torch
from helpers import shaken
from torch import nn

from diffusionblocks.evaluation.dispatch import Live
from diffusionblocks.layers import huginn
from diffusionblocks.layers.vision import MLP
from diffusionblocks.models import autoregressive, dit, masked_diffusion, vit

WIDTH = 12
SHAPE = (4, 6, WIDTH)
LAYERS = {  # those that a level or a class conditions, and the width of their condition
    "vit": (lambda: vit.Layer(WIDTH, 3, 20, 0.3, noise_width=2), 2),
    "dit": (lambda: dit.Layer(WIDTH, 3, 20), WIDTH),
    "masked diffusion": (lambda: masked_diffusion.Layer(WIDTH, 3, 20, 0.3), masked_diffusion.LEVEL_WIDTH),
    "autoregressive": (lambda: autoregressive.Layer(WIDTH, 3, 20, 0.3, noise_width=2), 2),
    "autoregressive, single": (lambda: autoregressive.Layer(WIDTH, 3, 20, 0.3, noise_width=2, halves=False), 2),
    "recurrent depth": (lambda: huginn.Layer(WIDTH, 3, 20, noise_width=2), 2),
}


class Checkpointed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *given):
        return torch.utils.checkpoint.checkpoint(self.layer, *given, use_reentrant=False)


def build(name, dtype=torch.float32, around=lambda layer: layer):
    """(a layer with weights of chance, x, its condition)."""
    torch.manual_seed(0)
    make, width = LAYERS[name]
    layer = around(shaken(make(), 0.3).to(dtype))
    return layer, *(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in (SHAPE, (SHAPE[0], width)))


def learned(layer, *given, autocast=False):
    """What a layer gives, with the dropout of one seed, and the gradients of what went in and of its weights."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = layer(*given)
    weights = torch.randn(found.shape, dtype=found.dtype)
    return [found, *torch.autograd.grad((found * weights).sum(), [*given, *layer.parameters()])]


@pytest.fixture
def plainly(monkeypatch):
    """In here layers are written as for the compiler, of PyTorch's own operations alone, and autograd keeps its all."""

    def call(function, *given, **options):
        with monkeypatch.context() as patched:
            patched.setattr(torch.compiler, "is_compiling", lambda: True)
            return function(*given, **options)

    return call


def kept(layer, *given):
    """Bytes that a layer's forward pass keeps, each storage once, and none of a weight."""
    weights, found = {value.data_ptr() for value in layer.parameters()}, {}

    def pack(value):
        if value.data_ptr() not in weights:
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        there = layer(*given)
    del there
    return sum(found.values())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("dtype", "autocast", "around"),
    [
        (torch.float32, False, lambda layer: layer),
        (torch.float64, False, lambda layer: layer),
        (torch.float32, True, lambda layer: layer),
        (torch.float32, False, Checkpointed),
        (torch.float32, True, Checkpointed),
    ],
    ids=["float32", "float64", "bf16", "checkpointed", "bf16 checkpointed"],
)
def test_outputs_and_gradients_have_the_bits_of_plain_operations(plainly, name, dtype, autocast, around):
    layer, *given = build(name, dtype, around)
    found, expected = learned(layer, *given, autocast=autocast), plainly(learned, layer, *given, autocast=autocast)
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == plain.dtype and torch.equal(mine, plain) and mine.any()


@pytest.mark.parametrize("name", LAYERS)
def test_a_conditioned_layer_keeps_one_tensor_less_a_branch(plainly, name):
    layer, *given = build(name)
    assert plainly(kept, layer, *given) - kept(layer, *given) == 2 * given[0].nbytes


def test_gradients_of_an_mlp_take_the_place_of_its_widest_tensor(plainly):
    """What is added to the kept tensors at the peak is not as wide as one of them."""

    def peak():
        with torch.device("meta"), Live(torch.device("meta")) as live:
            mlp, x = MLP(8, 64), torch.randn(100, 8, requires_grad=True)
            mlp(x).sum().backward()
        return live.peak

    wide = 100 * 64 * 4
    assert 2 * wide < peak() < 3 * wide < plainly(peak) < 4 * wide


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("shape", [(4, 6, 12), (1, 1, 12), (5, 12)])
def test_an_mlp_has_the_bits_of_plain_operations(plainly, approximate, shape):
    torch.manual_seed(0)
    mlp, x = MLP(12, 40, dropout=0.2, approximate=approximate), torch.randn(shape, requires_grad=True)
    for mine, plain in zip(learned(mlp, x), plainly(learned, mlp, x), strict=True):
        assert torch.equal(mine, plain)


def test_a_second_backward_pass_through_an_mlp_is_an_error():
    """Never a wrong gradient: what it would need has been written over."""
    found = MLP(12, 40)(torch.randn(SHAPE, requires_grad=True)).sum()
    found.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "autoregressive"])
def test_the_compiler_takes_a_layer_whole(name):
    layer, *given = build(name)
    layer.eval()  # without dropout, whose draws are the compiler's own
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found = compiled(*given)
    gradients = torch.autograd.grad(found.square().sum(), given)
    expected = layer(*given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), given))

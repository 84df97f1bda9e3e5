"""How networks start, in every form that their options give: what is to say nothing says nothing, to the bit."""

import inspect
import itertools
from typing import Literal, get_args, get_origin

import pytest
import torch
from helpers import OWN, SIZES, TINY, known
from torch import nn

from diffusionblocks.base.components import load, names
from diffusionblocks.diffusion.noise import noise_of
from diffusionblocks.layers.conditioning import AdaLN, AdaptiveHead

SHAPE = {**TINY, "vocab_size": 11, "seq_len": 6}
CONDITIONED = {"autoregressive", "dit", "masked_diffusion", "recurrent_depth", "vit"}  # by AdaLN


def forms():
    """(name of a model, options): every choice of words that a model's keywords offer."""
    for name in [*names("model"), OWN]:
        parameters = inspect.signature(load("model", name)).parameters.values()
        words = {key.name: get_args(key.annotation) for key in parameters if get_origin(key.annotation) is Literal}
        for values in itertools.product(*words.values()):
            yield pytest.param(name, dict(zip(words, values, strict=True)), id="-".join([name, *values]))


FORMS = list(forms())


def denoiser(name, options):
    torch.manual_seed(0)
    network = load("model", name)
    noise = noise_of(network.noise_kind).of_options(1.0, -1.2, 0.002, 80.0)
    return network(SHAPE, noise, **known(network, SIZES), **options).eval()


def layers_of(model):
    return [module for module in model.modules() if isinstance(getattr(module, "adaptive", None), AdaLN)]


@pytest.mark.parametrize(("name", "options"), FORMS)
@torch.no_grad()
def test_a_layer_with_closed_gates_is_the_identity_and_with_open_ones_the_plain_layer(name, options):
    layers = layers_of(denoiser(name, options))
    assert bool(layers) == (name in CONDITIONED)
    for layer in layers:
        x, level = torch.randn(4, 5, 24), torch.randn(4, layer.adaptive.in_features)
        found, is_open = layer(x, level), layer.adaptive.open_gates
        if is_open:
            layer.adaptive = None  # which makes it the end-to-end network's
        assert torch.equal(found, layer(x) if is_open else x)
        assert is_open == (options.get("gates") == "open" or name == "recurrent_depth")


@pytest.mark.parametrize(("name", "options"), FORMS)
@torch.no_grad()
def test_what_reads_the_tokens_heeds_no_level_at_first(name, options):
    heads = [module for module in denoiser(name, options).modules() if isinstance(module, AdaptiveHead)]
    assert len(heads) == (name in CONDITIONED)
    for head in heads:
        x = torch.randn(4, 5, 24)
        assert torch.equal(head(x, torch.randn(4, head.in_features)), x)


@pytest.mark.parametrize(("name", "options"), FORMS)
def test_no_linear_map_of_zeros_keeps_a_bias(name, options):
    maps = [module for module in denoiser(name, options).modules() if isinstance(module, nn.Linear)]
    assert not [linear for linear in maps if not linear.weight.any() and linear.bias is not None and linear.bias.any()]


@pytest.mark.parametrize("name", ["autoregressive", "vit"])
def test_a_head_of_its_own_is_silent_with_closed_gates_alone(name):
    assert [denoiser(name, {"gates": gates}).head.weight.any().item() for gates in ("closed", "open")] == [False, True]


@pytest.mark.parametrize("unit", [True, False])
@torch.no_grad()
def test_a_plain_language_model_may_start_as_its_denoiser(unit):
    """With `unit` tokens enter as loud, and maps of equal name have weights as large; by default they are smaller."""
    torch.manual_seed(0)
    network, shape = load("model", "autoregressive"), {"vocab_size": 300, "seq_len": 6}
    sizes = {"num_layers": 2, "width": 96, "num_heads": 2, "mlp_width": 192, "head": "tied"}
    noise = noise_of(network.noise_kind).of_options(1.0, -1.2, 0.002, 80.0)
    plain = network(shape, **sizes, initialisation="unit" if unit else None)
    other = network(shape, noise, **sizes, gates="open")
    others = {name: module.weight.std() for name, module in other.named_modules() if isinstance(module, nn.Linear)}
    ratios = [m.weight.std() / others[name] for name, m in plain.named_modules() if isinstance(m, nn.Linear)]
    tokens = torch.arange(300)[None]
    ratios.append(plain._context(tokens).std() / other._context(tokens).std())
    assert len(ratios) > 8 and all(abs(ratio - 1) < 0.05 if unit else ratio < 0.5 for ratio in ratios)

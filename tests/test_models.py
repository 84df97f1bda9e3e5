"""The ViT against known answers and PyTorch's own layer."""

import pytest
import torch
from helpers import SIZES, TINY, shaken
from torch import nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import sinusoid
from diffusionblocks.models.vit import Layer, Model

CIFAR100 = {"image_size": 32, "channels": 3, "num_classes": 100}
TINY_IMAGENET = {"image_size": 64, "channels": 3, "num_classes": 200}


def denoiser(shape=TINY, shake=0.1, **options):
    torch.manual_seed(0)
    return shaken(Model(shape, EDM(), **{**SIZES, "dropout": 0.0, **options}), shake)


def count(shape=CIFAR100, **options):
    with torch.device("meta"):
        return sum(value.numel() for value in Model(shape, **{"num_layers": 12, **options}).parameters())


# Sizes


def test_paper_scale_parameter_counts():
    assert count() == 10_302_180
    assert count(noise=EDM()) == 10_529_095


def test_parameter_counts_on_tiny_imagenet():
    """Table A1 prints 85.4 and 93.0 million."""
    sizes = {"width": 768, "num_heads": 12, "mlp_width": 3072, "patch_size": 4}
    assert count(TINY_IMAGENET, **sizes) == 85_445_576
    assert count(TINY_IMAGENET, **sizes, noise=EDM()) == 92_979_144


@pytest.mark.parametrize("noise", [None, EDM()])
def test_mlp_width_changes_the_count(noise):
    fewer = count(noise=noise) - count(noise=noise, mlp_width=512)
    assert fewer == 12 * (3072 - 512) * (128 + 1 + 128)  # a column up, its bias, a row down


def test_keep_cls_adds_a_token_and_its_position():
    assert count(noise=EDM(), keep_cls=True) == count(noise=EDM()) + 2 * 128
    assert denoiser().positions.shape[1] == 4 + 1
    assert denoiser(keep_cls=True).positions.shape[1] == 4 + 2


def test_frozen_labels_are_the_same_in_all_networks_and_are_never_updated():
    networks = []
    for seed in range(3):
        torch.manual_seed(seed)
        networks.append(Model(TINY, EDM(), target_norm=2.0, labels="frozen", **{**SIZES, "dropout": 0.0}))
    first, *others = [model.target({"label": torch.arange(10)}) for model in networks]
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first.norm(dim=1), torch.full((10,), 2.0))
    assert len({tuple(row.tolist()) for row in first}) == 10
    model = shaken(networks[0])  # with noise on the table, too: a frozen one is not what a trainer moves
    before = model.labels.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = {"image": torch.randn(10, 1, 8, 8), "label": torch.arange(10)}
    z, sigma = model.target(batch) + torch.randn(10, 24), torch.ones(10)
    model.loss(model.predict(z, sigma, model.condition(batch), model.layers), batch, z).mean().backward()
    optimizer.step()
    assert model.labels.weight.grad is None and torch.equal(model.labels.weight, before)
    learned = Model(TINY, EDM(), **SIZES)
    assert learned.labels.weight.requires_grad and count(noise=EDM(), labels="frozen") == count(noise=EDM())


def test_labels_of_a_plain_network_are_refused():
    with pytest.raises(ValueError, match=r"the plain network embeds none. Leave it out"):
        Model(TINY, labels="frozen", **SIZES)


def test_a_plain_network_has_no_gates():
    with pytest.raises(ValueError, match=r"gates are a denoiser's: .* Leave it out"):
        Model(TINY, **SIZES, gates="open")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patch_size": 3}, r"patch_size 3 .* image size 8\b"), ({"num_heads": 5}, r"num_heads 5 .* width 24\b")],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Model(TINY, **{**SIZES, **options})


# Parts


def test_plain_layer_against_pytorch():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=True
    )
    ours = Layer(12, 3, 20, dropout=0.0)
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.out": "self_attn.out_proj",
        "mlp.up": "linear1",
        "mlp.down": "linear2",
    }
    copied = {f"{our}.{kind}": f"{their}.{kind}" for our, their in names.items() for kind in ("weight", "bias")}
    copied |= {f"attention.qkv.{kind}": f"self_attn.in_proj_{kind}" for kind in ("weight", "bias")}
    weights = shaken(theirs).state_dict()
    ours.load_state_dict({our: weights[their] for our, their in copied.items()})
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_noise_conditioned_layer_with_open_gates_is_the_plain_one():
    torch.manual_seed(0)
    conditioned, plain = Layer(12, 3, 20, 0.0, noise_width=2), Layer(12, 3, 20, 0.0)
    plain.load_state_dict(conditioned.state_dict(), strict=False)
    with torch.no_grad():
        conditioned.adaptive.weight.zero_()
        conditioned.adaptive.bias.zero_()
        for gate in (2, 5):  # shift, scale, gate of the attention, then of the MLP
            conditioned.adaptive.bias[gate * 12 : (gate + 1) * 12] = 1.278465  # SiLU of it is 1
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(conditioned(x, torch.randn(2, 2)), plain(x), atol=1e-5, rtol=1e-4)


def test_noise_conditioned_layers_start_as_the_identity():
    model = denoiser(shake=0.0)
    x = torch.randn(2, 5, 24)
    for layer in model.layers:
        assert torch.equal(layer(x, torch.randn(2, 4)), x)
        for gate in (2, 5):
            torch.nn.init.ones_(layer.adaptive.bias[gate * 24 : (gate + 1) * 24].detach())
        assert not torch.equal(layer(x, torch.randn(2, 4)), x)  # only the gates held it
    assert not model.predict(torch.randn(2, 24), torch.ones(2), torch.randn(2, 4, 24), model.layers).any()


def test_sinusoid_has_the_cosines_first():
    level = torch.tensor([0.0, 0.7, -1.5])
    found = sinusoid(level, 256)
    assert found.shape == (3, 256)
    assert found[0].tolist() == [1.0] * 128 + [0.0] * 128
    for i in (0, 1, 127):
        angle = level * 10_000 ** (-i / 128)
        torch.testing.assert_close(found[:, i], angle.cos())
        torch.testing.assert_close(found[:, 128 + i], angle.sin())


def test_patches_are_linear_in_reading_order():
    model, image = denoiser({**TINY, "channels": 3}), torch.randn(2, 3, 8, 8)
    pixels = F.unfold(image, 4, stride=4).transpose(1, 2)  # (N, 4 patches, 48 values)
    expected = pixels @ model.patches.weight.flatten(1).T + model.patches.bias
    torch.testing.assert_close(model.condition({"image": image}), expected)


# As a denoiser


@pytest.mark.parametrize("target_norm", [1.0, 0.3])
def test_targets_have_the_given_norm(target_norm):
    model = denoiser(target_norm=target_norm)
    target = model.target({"label": torch.arange(10)})
    torch.testing.assert_close(target.norm(dim=1), torch.full((10,), target_norm))
    torch.testing.assert_close(target, target_norm * model.labels.weight / model.labels.weight.norm(dim=1)[:, None])
    assert target.requires_grad  # the table learns through the denoising loss


@pytest.mark.parametrize("target_norm", [1.0, 0.3])
def test_to_z_averages_the_normalised_table(target_norm):
    model, logits = denoiser(target_norm=target_norm), torch.randn(5, 10)
    table = target_norm * model.labels.weight / model.labels.weight.norm(dim=1)[:, None]
    expected = sum(logits.exp()[:, k, None] * table[k] for k in range(10)) / logits.exp().sum(1)[:, None]
    torch.testing.assert_close(model.to_z(logits), expected)
    torch.testing.assert_close(model.to_z(1000 * torch.eye(10)), table)  # a sure prediction is the target itself


def watched(model):
    """Lists that fill with what enters the first layer and what leaves the final norm."""
    entered, left = [], []
    model.layers[0].register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    model.norm.register_forward_hook(lambda _, arguments, output: left.append(output))
    return entered, left


def identity_head(model):
    """Make the logits of a model with as many classes as its width the denoised vector itself."""
    with torch.no_grad():
        for value in (*model.head.parameters(), *model.head_adaptive.parameters()):
            value.zero_()
        model.head.weight.copy_(torch.eye(len(model.head.weight)))
    return model


@pytest.mark.parametrize("keep_cls", [False, True])
def test_denoised_mixes_z_and_the_first_token(keep_cls):
    model = identity_head(denoiser({**TINY, "num_classes": 24}, keep_cls=keep_cls))
    _, left = watched(model)
    z, cond, sigma = torch.randn(4, 24), torch.randn(4, 4, 24), torch.tensor([0.002, 0.2, 1.0, 80.0])
    denoised = model.predict(z, sigma, cond, model.layers)
    total = (sigma**2 + 0.25)[:, None]
    torch.testing.assert_close(denoised, 0.25 / total * z + 0.5 * sigma[:, None] / total.sqrt() * left[0][:, 0])


def test_without_noise_the_answer_is_z():
    model = identity_head(denoiser({**TINY, "num_classes": 24}))
    z, cond = torch.randn(4, 24), torch.randn(4, 4, 24)
    for sigma in (1e-3, 1e-6):
        denoised = model.predict(z, torch.full((4,), sigma), cond, model.layers)
        assert (denoised - z).abs().max() < 10 * sigma


@pytest.mark.parametrize("keep_cls", [False, True])
def test_only_the_label_token_is_scaled(keep_cls):
    model = denoiser(keep_cls=keep_cls)
    entered, _ = watched(model)
    z, cond = torch.randn(2, 24), torch.randn(2, 4, 24)
    for value in (0.002, 1.0, 80.0):
        model.predict(z, torch.full((2,), value), cond, model.layers)
        tokens = list((entered.pop() - model.positions).unbind(1))
        if keep_cls:
            torch.testing.assert_close(tokens.pop(0), model.cls[:, 0].expand(2, -1))
        label = tokens.pop(-1 if keep_cls else 0)
        torch.testing.assert_close(label, z / (value**2 + 0.25) ** 0.5, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.stack(tokens, 1), cond, atol=1e-5, rtol=1e-5)


def test_prediction_sees_level_image_and_z():
    model = denoiser(shake=0.5)
    z, sigma, cond = torch.randn(2, 24), torch.ones(2), torch.randn(2, 4, 24)
    with torch.no_grad():
        base = model.predict(z, sigma, cond, model.layers)
        for changed in ((-z, sigma, cond), (z, sigma * 2, cond), (z, sigma, -cond)):
            assert not torch.allclose(model.predict(*changed, model.layers), base, atol=1e-2)
        assert not torch.allclose(model.predict(z, sigma, cond, model.layers[:2]), base, atol=1e-2)


def test_head_is_shifted_and_scaled_by_the_level():
    model = denoiser({**TINY, "num_classes": 24})
    arguments = torch.randn(2, 24), torch.ones(2), torch.randn(2, 4, 24)
    with torch.no_grad():
        level = model.level(arguments[1].log() / 4)
        shift, scale = F.silu(F.linear(level, *model.head_adaptive.parameters())).chunk(2, dim=1)
        logits = model.predict(*arguments, model.layers)
        weight, bias = model.head.weight.clone(), model.head.bias.clone()
        denoised = identity_head(model).predict(*arguments, model.layers)
    torch.testing.assert_close(logits, (denoised * (1 + scale) + shift) @ weight.T + bias, atol=1e-4, rtol=1e-4)


def test_loss_is_the_cross_entropy_of_each_sample():
    model, logits, labels = denoiser(), torch.randn(5, 10), torch.tensor([3, 1, 4, 1, 5])
    expected = -logits.log_softmax(1)[range(5), labels]
    torch.testing.assert_close(model.loss(logits, {"label": labels}, None), expected)


# As the plain network


def test_plain_network_reads_the_cls_token():
    model = shaken(Model(TINY, **SIZES, dropout=0.0))
    entered, left = watched(model)
    image = torch.randn(2, 1, 8, 8)
    logits = model.end_to_end_prediction({"image": image})
    torch.testing.assert_close((entered[0] - model.positions)[:, 0], model.cls[:, 0].expand(2, -1))
    torch.testing.assert_close((entered[0] - model.positions)[:, 1:], model.condition({"image": image}))
    torch.testing.assert_close(logits, model.head(left[0][:, 0]))
    losses = model.end_to_end_loss({"image": image, "label": torch.tensor([3, 7])})
    torch.testing.assert_close(losses, -logits.log_softmax(1)[range(2), [3, 7]])


def test_dropout_acts_in_training_only():
    model = shaken(Model(TINY, **SIZES, dropout=0.5))
    batch = {"image": torch.randn(2, 1, 8, 8)}
    assert not torch.equal(model.end_to_end_prediction(batch), model.end_to_end_prediction(batch))
    model.eval()
    assert torch.equal(model.end_to_end_prediction(batch), model.end_to_end_prediction(batch))

"""The DiT against known answers, plain formulas and PyTorch's attention, and an update of every row at full size."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from conftest import shipped
from helpers import shaken
from torch import nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import modulate
from diffusionblocks.layers.vision import sincos_2d
from diffusionblocks.models.dit import Layer, Model
from diffusionblocks.training.trainer import Trainer

CIFAR10 = {"image_size": 32, "channels": 3, "num_classes": 10}
LATENTS = {"image_size": 32, "channels": 4, "num_classes": 1000}
TINY = {"image_size": 8, "channels": 3, "num_classes": 10}
SIZES = {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48}
SIGMAS = torch.tensor([0.002, 0.2, 1.0, 80.0])


def dit(shape=TINY, shake=0.1, **options):
    """A small network with noise on all weights, so that no zero of the initialisation hides anything."""
    torch.manual_seed(0)
    return shaken(Model(shape, EDM(), **{**SIZES, **options}), shake)


def images(n=4, shape=TINY, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, shape["channels"], shape["image_size"], shape["image_size"], generator=generator)


# Sizes


def count(shape, **options):
    with torch.device("meta"):
        return sum(value.numel() for value in Model(shape, EDM(), **options).parameters())


def formula(shape, depth, d, patch):
    """Weights and biases added up by hand (baselines: 18 D^2 + 15 D for each layer of MLP ratio 4)."""
    values = patch**2 * shape["channels"]
    layer = 4 * (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + (6 * d * d + 6 * d)
    level = 256 * d + d + d * d + d
    head = 2 * d * d + 2 * d + d * values + values
    return (values * d + d) + level + (shape["num_classes"] + 1) * d + depth * layer + head


@pytest.mark.parametrize(
    ("shape", "depth", "width", "heads", "parameters"),
    [(CIFAR10, 12, 384, 6, 32_475_660), (LATENTS, 24, 1024, 16, 457_824_272)],
)
def test_paper_scale_parameter_counts(shape, depth, width, heads, parameters):
    found = count(shape, num_layers=depth, width=width, num_heads=heads, mlp_width=4 * width)
    assert found == parameters == formula(shape, depth, width, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "patch_size 3 must divide the image size 8"),
        ({"num_heads": 5}, "num_heads 5 must divide the width 24"),
        ({"num_heads": 0}, "num_heads 0 must divide the width 24"),
        ({"width": 26}, "4 must divide the width 26"),
        ({"noise": None}, "it needs noise"),
        ({"target_norm": 0.5}, r"target_norm must be 1$"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Model(TINY, **{"noise": EDM(), **SIZES, **options})


# Parts


def test_layer_against_pytorch():
    torch.manual_seed(0)
    layer, theirs = Layer(12, 3, 48), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(layer.attention.qkv.weight)
        theirs.in_proj_bias.copy_(layer.attention.qkv.bias)
    theirs.out_proj.load_state_dict(layer.attention.out.state_dict())
    x, cond = torch.randn(2, 5, 12), torch.randn(2, 12)
    # DiT's order: SiLU, then linear; shift, scale and gate of the attention, then of the MLP.
    by_hand = F.linear(cond * cond.sigmoid(), *layer.adaptive.parameters())
    shift1, scale1, gate1, shift2, scale2, gate2 = by_hand[:, None].split(12, dim=2)

    def normalised(x):
        return (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-6).sqrt()

    inner = normalised(x) * (1 + scale1) + shift1
    expected = x + gate1 * theirs(inner, inner, inner)[0]
    hidden = layer.mlp.up(normalised(expected) * (1 + scale2) + shift2)
    hidden = hidden / 2 * (1 + (math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)).tanh())
    expected = expected + gate2 * layer.mlp.down(hidden)
    torch.testing.assert_close(layer(x, cond), expected)


def test_positions_follow_the_formula():
    """Columns in the first half, rows in the second; in each the sines, then the cosines (as in DiT's code)."""
    width, side = 12, 5
    found = sincos_2d(width, side)
    assert found.shape == (25, 12)
    for row in range(side):
        for column in range(side):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10_000 ** (i / 3) for i in range(3)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert found[row * side + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_every_position_is_unlike_every_other():
    for width, side in ((384, 16), (1024, 16), (64, 2)):
        positions = sincos_2d(width, side)
        distances = torch.cdist(positions, positions) + 10 * torch.eye(side**2)
        assert distances.min() > 0.5


def test_unpatchify_undoes_the_order_of_the_patches():
    model = dit({**TINY, "channels": 3}, width=12, patch_size=2)
    with torch.no_grad():
        model.patches.bias.zero_()
        model.patches.weight.zero_()
        for y in range(2):
            for x in range(2):
                for channel in range(3):  # channels vary fastest in the head's output, as in DiT's code
                    model.patches.weight[(2 * y + x) * 3 + channel, channel, y, x] = 1
    z = images()
    tokens = model.patches(z).flatten(2).transpose(1, 2)
    assert torch.equal(tokens[0, 1, :3], z[0, :, 0, 2])  # the second token lies to the right of the first
    assert torch.equal(model._unpatchify(tokens), z)


# As a denoiser


@torch.no_grad()
def test_starts_as_the_identity():
    model = dit(shake=0.0)
    z, cond, x = images(), torch.randn(4, 24), torch.randn(4, 16, 24)
    for layer in model.layers:
        assert torch.equal(layer(x, cond), x)
    c_skip = 0.25 / (SIGMAS**2 + 0.25)
    assert torch.equal(model.predict(z, SIGMAS, cond, model.layers), c_skip.view(-1, 1, 1, 1) * z)
    nn.init.normal_(model.head.weight)  # only the zero head held it
    assert not torch.allclose(model.predict(z, SIGMAS, cond, model.layers), c_skip.view(-1, 1, 1, 1) * z)
    nn.init.ones_(model.layers[0].adaptive.bias)  # and only the gates held a layer
    assert not torch.allclose(model.layers[0](x, cond), x)


def test_initial_weights_have_dits_spread():
    torch.manual_seed(0)
    model = Model(CIFAR10, EDM(), num_layers=1, width=384, num_heads=6, mlp_width=1536)
    xavier = {
        model.layers[0].attention.qkv: 384 + 3 * 384,
        model.layers[0].mlp.up: 384 + 1536,
        model.patches: 12 + 384,  # on its flattened form
    }
    for module, fans in xavier.items():
        assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.03)
        assert module.weight.abs().max() <= math.sqrt(6 / fans) and not module.bias.any()
    for module in (model.labels, model.level[0], model.level[2]):
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for module in (model.head, model.head_adaptive, model.layers[0].adaptive):
        assert not module.weight.any() and not module.bias.any()


@torch.no_grad()
def test_prediction_by_hand():
    model, z, labels = dit(), images(), torch.tensor([3, 1, 4, 1])
    entered, left = [], []
    model.layers[0].register_forward_pre_hook(lambda _, arguments: entered.append(arguments))
    model.layers[-1].register_forward_hook(lambda _, arguments, output: left.append(output))
    model.eval()
    denoised = model.predict(z, SIGMAS, model.condition({"label": labels}), model.layers)

    ((x, cond),), total = entered, SIGMAS**2 + 0.25
    pixels = F.unfold(z / total.sqrt().view(-1, 1, 1, 1), 2, stride=2).transpose(1, 2)  # (N, 16 patches, 12 values)
    expected = pixels @ model.patches.weight.flatten(1).T + model.patches.bias + sincos_2d(24, 4)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(cond, model.labels.weight[labels] + model.level(SIGMAS.log() / 4))

    shift, scale = F.linear(F.silu(cond), *model.head_adaptive.parameters()).chunk(2, dim=1)
    raw = model._unpatchify(model.head(modulate(F.layer_norm(left[0], (24,), eps=1e-6), shift, scale)))
    c_skip, c_out = 0.25 / total, 0.5 * SIGMAS / total.sqrt()
    torch.testing.assert_close(denoised, c_skip.view(-1, 1, 1, 1) * z + c_out.view(-1, 1, 1, 1) * raw)


@torch.no_grad()
def test_prediction_sees_level_class_and_every_pixel():
    model, z, sigma, labels = dit().eval(), images(), torch.ones(4), torch.tensor([3, 1, 4, 1])

    def predict(z=z, sigma=sigma, labels=labels, layers=model.layers):
        return model.predict(z, sigma, model.condition({"label": labels}), layers)

    far = z.clone()
    far[:, 0, 7, 7] += 1
    changed = {
        "level": predict(sigma=2 * sigma),
        "class": predict(labels=labels + 1),
        "layers": predict(layers=model.layers[:2]),
        "a pixel at the other end": predict(z=far),
    }
    for name, denoised in changed.items():
        assert ((denoised - predict())[:, :, 0, 0].abs() > 1e-4).any(), name


def test_target_and_loss():
    model, z0, denoised = dit(), images(seed=2), images(seed=3)
    batch = {"image": None, "signed": z0, "label": torch.arange(4)}
    assert model.target(batch) is z0 and model.to_z(denoised) is denoised
    expected = [sum((a - b) ** 2 for a, b in zip(x.flatten(), y.flatten(), strict=True)) / 192
                for x, y in zip(denoised, z0, strict=True)]  # fmt: skip
    torch.testing.assert_close(model.loss(denoised, batch, z0), torch.stack(expected))


def test_label_dropout_shows_the_null_class_in_training_only():
    model, n = dit(label_dropout=0.1), 20_000
    batch = {"label": torch.arange(n) % 10}
    own, null = model.labels(batch["label"]), model.unconditional(batch)
    assert torch.equal(null, model.labels.weight[10].expand(n, -1))
    torch.manual_seed(0)
    cond = model.condition(batch)
    dropped = (cond == null).all(1)
    assert abs(dropped.float().mean() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / n)
    assert torch.equal(cond[~dropped], own[~dropped])
    for label in range(10):
        assert 100 < dropped[batch["label"] == label].sum() < 300  # every class alike
    model.label_dropout = 0
    assert torch.equal(model.condition(batch), own)
    model.label_dropout = 0.1
    assert torch.equal(model.eval().condition(batch), own)


@torch.no_grad()
def test_bf16_is_close_to_fp32():
    model = dit(CIFAR10, width=96, num_heads=4, mlp_width=192)
    cond, sigma = torch.randn(4, 96), SIGMAS
    z = images(4, CIFAR10) + sigma.view(-1, 1, 1, 1) * images(4, CIFAR10, seed=2)
    exact = model.predict(z, sigma, cond, model.layers)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.predict(z, sigma, cond, model.layers)
    assert rounded.dtype == torch.float32 and rounded.isfinite().all()
    assert not torch.equal(rounded, exact)
    c_skip, c_out, _, _ = (c.view(-1, 1, 1, 1) for c in model.noise.precondition(sigma))
    inner, error = (exact - c_skip * z) / c_out, (rounded - exact) / c_out
    assert (error.flatten(1).std(1) < 0.02 * inner.flatten(1).std(1)).all()  # bf16 has 8 bits: 0.4 % a rounding
    assert (rounded[0] - exact[0]).abs().max() < 1e-3  # z itself, at sigma_min nearly the answer, is never rounded


# Every row of the paper, at full size


class Random:
    """Two random images or latents, in the place of a data set."""

    train_size, train_device = 2, torch.device("cpu")

    def __init__(self, shape):
        self.shape = shape

    def train_batch(self, indices, augmentations=()):
        images = torch.randn(len(indices), self.shape["channels"], 32, 32).clamp(-1, 1)
        return {"image": images, "signed": images, "label": indices % self.shape["num_classes"]}


def full_size():
    """The first part of every DiT row at paper scale, each size once, the largest first."""
    found, plan = {}, shipped("paper")
    for (table, _), origin in plan.origins.items():
        if table in ("table2", "table7", "table8", "table_a2"):
            row = plan.rows[origin]
            layers = row.method.get("layers_per_block", [row.model["num_layers"] // row.method["num_blocks"]])[0]
            found.setdefault((row.data["name"], layers), row.run(0))
    sizes = sorted(found, key=lambda size: (size[0] == "imagenet", size[1]), reverse=True)
    return [pytest.param(found[size], size[1], id=f"{size[0]}-{size[1]}") for size in sizes]


def ends(sizes):
    """The largest and the smallest of each data set."""
    groups = [list(group) for _, group in itertools.groupby(sizes, lambda size: size.values[0]["data"]["name"])]
    return [group[end] for group in groups for end in (0, -1)]


def test_all_sizes_are_there():
    assert [param.id for param in full_size()] == [
        *("imagenet-24", "imagenet-12", "imagenet-8", "imagenet-6", "imagenet-4"),
        *("cifar10-12", "cifar10-6", "cifar10-4", "cifar10-3", "cifar10-2"),
    ]


def available():
    """Bytes of memory that a process can have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


@pytest.mark.slow
@pytest.mark.parametrize(("run", "layers"), ends(full_size()))
def test_one_update_at_full_size(run, layers):
    """Of the whole and of the smallest block; sizes between have as many of the same layers as lie between.

    With averages, gradients and two moments: 20 bytes for each parameter, 9.2 GB for the whole L/2.

    In float32: processors without bfloat16 take ten minutes for an update of L/2 in it, and the test above has it.
    """
    shape = {"cifar10": CIFAR10, "imagenet": LATENTS}[run["data"]["name"]]
    small = {"batch_size": 1, "accumulate": 1, "compile": False, "precision": "fp32"}
    needed = 24 * formula(shape, layers, run["model"]["width"], 2)
    if needed > (free := available()):
        pytest.skip(f"{needed / 1e9:.1f} GB of memory are needed and {free / 1e9:.1f} GB free")
    trainer = Trainer({**run, "train": {**run["train"], **small}}, "block0", Random(shape), torch.device("cpu"))
    (model,) = trainer.method.models.values()
    assert len(model.layers) == layers
    for module in (model.head, model.head_adaptive, *(layer.adaptive for layer in model.layers)):
        nn.init.normal_(module.weight, std=0.01)  # behind zeros, only the head gets a gradient at first
    before = {name: value.detach().flatten()[::97].clone() for name, value in trainer.parameters.items()}
    block, values = trainer.update(0)
    assert block == 0 and values[0] > 0 and values.isfinite().all()  # loss, objective and the norm of all gradients
    for name, value in trainer.parameters.items():
        after = value.detach().flatten()[::97]  # a sample, for speed
        moved = (after != before[name]).float().mean()
        assert after.isfinite().all() and (moved > 0 if name.endswith("labels.weight") else moved > 0.9), name

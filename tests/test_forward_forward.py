"""Forward-Forward and its contrastive kin: what each layer learns from, how labels are told apart, that they learn."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import TINY, Digits, shaken
from torch import nn

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.methods import build
from diffusionblocks.methods.contrastive_forward_forward import contrast
from diffusionblocks.models.vit import Model
from diffusionblocks.training.trainer import Trainer

SHAPE = {"image_size": 8, "channels": 3, "num_classes": 10}
SIZES = {"num_layers": 3, "width": 12, "num_heads": 2, "mlp_width": 24, "patch_size": 4, "dropout": 0.0}
BATCH = {
    "image": torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "label": torch.arange(20) % 10,
}
CONTRASTIVE = {"name": "contrastive_forward_forward"}
VARIANTS = {variant: {"name": "forward_forward", "variant": variant} for variant in ("as_released", "fixed")}
METHODS = {**VARIANTS, "contrastive": CONTRASTIVE}
FITTING = {"width": 32, "mlp_width": 64}  # enough for the digits
variants = pytest.mark.parametrize("variant", VARIANTS)
methods = pytest.mark.parametrize("name", METHODS)


def trainer_of(method, seed=0, steps=1):
    train = {"batch_size": 64, "lr": 0.01, "steps": steps, "warmup_steps": min(5, steps)}
    return Trainer({**run_of(method, FITTING), "train": train, "seed": seed}, "all", Digits(64), torch.device("cpu"))


def run_of(method, model=None):
    model = {"name": "vit", **SIZES, "initialisation": "pytorch", **(model or {})}
    return {"table": "t", "row": "r", "model": model, "method": method}


def made(method, model=None, shape=SHAPE, seed=0):
    """The method with noise on its first weights, so that layers are active and differ."""
    torch.manual_seed(seed)
    return shaken(build(run_of(method, model), shape, "all"), 0.3)


def seen(method):
    """Lists that fill with what enters the layers and what leaves them, in order."""
    entered, left = [], []

    def note(layer, inputs, output):
        entered.append(inputs[0])
        left.append(output)

    for layer in method.models["all"].layers:
        layer.register_forward_hook(note)
    return entered, left


def label_tokens(method, batch):
    """The token (classes, D) of each label; as released the convolution of a patch that is its code, at the maximum."""
    if method.variant == "fixed":
        return method.codes
    patches = (method.codes * batch["image"].max()).view(-1, SHAPE["channels"], 4, 4)
    return method.models["all"].patches(patches).flatten(1)


def labels_shown(method, batch, x):
    """The labels (N,) whose tokens come first in the input x (N, T, D) of the first layer."""
    model = method.models["all"]
    return torch.cdist(x[:, 0] - model.positions[:, 0], label_tokens(method, batch)).argmin(1)


def goodness_by_hand(method, batch, labels):
    """The goodness (N,) of each layer, written out; gradients end where a layer begins."""
    model, found = method.models["all"], []
    image = model.patches(batch["image"]).flatten(2).transpose(1, 2)
    x = torch.cat([label_tokens(method, batch)[labels][:, None], image], dim=1) + model.positions
    for layer in model.layers:
        y = layer(x)
        mean = sum(y[:, t] for t in range(1, 5)) / 4
        found.append(sum(mean[:, d] ** 2 for d in range(12)) / 12)
        x = (y / (y**2).sum((1, 2), keepdim=True) ** 0.5).detach()
    return found


def forward_forward_by_hand(method, batch, labels):
    """The loss (N,) of each layer, when `labels` (2 N,) are the right ones and then the wrong ones."""
    right, wrong = labels.chunk(2)
    pairs = zip(*(goodness_by_hand(method, batch, label) for label in (right, wrong)), strict=True)
    threshold = method.threshold
    return [(((threshold - p).exp() + 1).log() + ((n - threshold).exp() + 1).log()) / 2 for p, n in pairs]


def contrastive_by_hand(method, batch, margins):
    """The loss (N,) of each layer, and the logits (N, classes) of the read-out."""
    model, found = method.models["all"], []
    x = model.patches(batch["image"]).flatten(2).transpose(1, 2) + model.positions[:, 1:]
    for layer, margin in zip(model.layers, margins, strict=True):
        x = layer(x)
        found.append(contrast(x.mean(1), batch["label"], margin, method.temperature))
        x = x.detach()
    return found, model.head(model.norm(x.mean(1)))


def gradients(value, parameters):
    """{name: gradient} of those parameters that the value has a gradient to."""
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, retain_graph=True)
    return {name: grad for name, grad in zip(parameters, found, strict=True) if grad is not None}


def starting(method, *prefixes):
    prefixes = tuple(f"models.all.{prefix}" for prefix in prefixes)
    return {name: value for name, value in method.named_parameters() if name.startswith(prefixes)}


# What each layer learns from


@methods
def test_each_layer_learns_from_its_own_loss_alone_and_the_embedding_from_the_first(name):
    method = made(METHODS[name])
    entered, _ = seen(method)
    objective, *_ = method.loss(BATCH, 0)
    found = gradients(objective, dict(method.named_parameters()))
    expected = {}
    if name in VARIANTS:
        own = forward_forward_by_hand(method, BATCH, labels_shown(method, BATCH, entered[0]))
    else:
        own, logits = contrastive_by_hand(method, BATCH, (0.4, 0.25, 0.1))
        cross_entropy = nn.functional.cross_entropy(logits, BATCH["label"])
        expected |= gradients(cross_entropy, starting(method, "head", "norm"))
        assert len(expected) == 4 and not gradients(cross_entropy, starting(method, "layers", "patches", "positions"))
    expected |= gradients(own[0].mean(), starting(method, "patches", "positions"))
    for index, loss in enumerate(own):
        expected |= gradients(loss.mean(), starting(method, f"layers.{index}."))
    assert len(expected) == 3 + 3 * 12 + 4 * (name not in VARIANTS)  # and nothing else has a gradient
    assert all(value.any() for value in expected.values())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@variants
@pytest.mark.parametrize("threshold", [2.0, 0.3])
def test_losses_of_forward_forward_by_hand(variant, threshold):
    method = made({**VARIANTS[variant], "threshold": threshold})
    entered, _ = seen(method)
    objective, losses, levels = method.loss(BATCH, 0)
    own = torch.stack(forward_forward_by_hand(method, BATCH, labels_shown(method, BATCH, entered[0])))
    assert own.std(0).min() > 0.01  # layers can be told apart
    torch.testing.assert_close(losses, own.detach().mean(0))
    torch.testing.assert_close(objective, own.sum() / 20)
    assert losses.shape == (20,) and not losses.requires_grad and levels is None


@variants
def test_only_the_direction_goes_on_to_the_next_layer(variant):
    method = made(VARIANTS[variant])
    entered, left = seen(method)
    method.loss(BATCH, 0)
    method.predict(BATCH)
    assert len(entered) == 3 + 3 * 10  # once for the loss, once for each label
    for run in range(0, 33, 3):
        for y, x in zip(left[run : run + 2], entered[run + 1 : run + 3], strict=True):
            torch.testing.assert_close(x.flatten(1).norm(dim=1), torch.ones(len(x)))
            torch.testing.assert_close(x, y / y.flatten(1).norm(dim=1)[:, None, None])
            assert not x.requires_grad and (y.flatten(1).norm(dim=1) - 1).abs().min() > 0.1


def test_wrong_labels_are_never_the_right_one_and_uniform_over_the_others():
    method = made(VARIANTS["fixed"], model={"num_layers": 2, "mlp_width": 4})
    entered, _ = seen(method)
    batch = {"image": torch.zeros(9000, 3, 8, 8), "label": torch.arange(9000) % 10}
    torch.manual_seed(0)
    with torch.no_grad():
        method.loss(batch, 0)
    right, wrong = labels_shown(method, batch, entered[0]).chunk(2)
    assert torch.equal(right, batch["label"])
    pairs = Counter(zip(right.tolist(), wrong.tolist(), strict=True))
    assert len(pairs) == 90 and not any(a == b for a, b in pairs)
    # Each of 100 expected. The sum is chi squared with 80 degrees of freedom, of deviation 12.6.
    assert sum((count - 100) ** 2 / 100 for count in pairs.values()) < 80 + 5 * 12.6


# The codes of labels


def test_released_codes_mark_one_value_of_a_patch_and_are_embedded_as_a_patch_is():
    method = made(VARIANTS["as_released"])
    assert method.codes.shape == (10, 3 * 4 * 4) and method.codes.dtype == torch.float32
    assert set(method.codes.unique().tolist()) == {0, 1} and method.codes.sum(1).tolist() == [1] * 10
    entered, _ = seen(method)
    batch = {**BATCH, "image": BATCH["image"].clone()}
    batch["image"][7, 1, 2, 3], batch["image"][3, 0, 0, 0] = 6.5, -9.0  # one image has the maximum of the batch
    method.predict(batch)
    patches = torch.zeros(10, 3, 4, 4)
    for label, code in enumerate(method.codes.argmax(1).tolist()):
        patches[label, code // 16, code // 4 % 4, code % 4] = 6.5
    model = method.models["all"]
    tokens = model.condition({"image": patches})[:, 0]
    torch.testing.assert_close(model.patch_token(patches.flatten(1)), tokens)
    for label in range(10):
        first = entered[3 * label]
        torch.testing.assert_close(first[:, 0], (tokens[label] + model.positions[0, 0]).expand(20, -1))
        torch.testing.assert_close(first[:, 1:], model.condition(batch) + model.positions[:, 1:])
    assert torch.cdist(tokens, tokens).max() > 0.1


def test_a_hundred_released_codes_are_42_different_ones():
    expected = 48 * (1 - (1 - 1 / 48) ** 100)
    assert expected == pytest.approx(42.2, abs=0.1)
    shape, model = {**SHAPE, "num_classes": 100}, {"num_layers": 1, "width": 2, "mlp_width": 1}
    numbers, used = [], Counter()
    for seed in range(200):
        codes = made(VARIANTS["as_released"], model=model, shape=shape, seed=seed).codes.argmax(1).tolist()
        numbers.append(len(set(codes)))
        used.update(codes)
    assert np.mean(numbers) == pytest.approx(expected, abs=0.6)  # deviation 1.9, of the mean 0.13
    assert len(used) == 48 and max(numbers) <= 48


def test_labels_of_one_released_code_cannot_be_told_apart():
    method = made(VARIANTS["as_released"])
    method.codes = torch.eye(48)[[0, 5, 11, 17, 23, 29, 31, 17, 41, 47]]
    scores = method.predict(BATCH)[-1].prediction
    assert torch.equal(scores[:, 3], scores[:, 7])
    apart = [scores[:, a] - scores[:, b] for a in range(10) for b in range(a) if (a, b) != (7, 3)]
    assert torch.stack(apart).abs().amax(1).min() > 1e-5


def test_fixed_codes_are_dense_and_all_different():
    method = made(VARIANTS["fixed"], model={"width": 128}, shape={**SHAPE, "num_classes": 100})
    assert method.codes.shape == (100, 128) and (method.codes != 0).all()
    assert method.codes.mean().item() == pytest.approx(0, abs=0.05)
    assert method.codes.std().item() == pytest.approx(1, abs=0.05)  # as loud as the positions
    distances = torch.cdist(method.codes, method.codes) + 100 * torch.eye(100)
    assert distances.min() > 8  # of 16 on average


def test_the_score_is_the_last_layer_s_goodness_or_the_sum_without_the_first():
    for variant, layers in (("as_released", [2]), ("fixed", [1, 2])):
        method = made(VARIANTS[variant])
        (step,) = method.predict(BATCH)
        assert (step.sigma, step.block) == (None, None) and step.prediction.shape == (20, 10)
        for label in range(10):
            goodness = goodness_by_hand(method, BATCH, torch.full((20,), label))
            torch.testing.assert_close(step.prediction[:, label], sum(goodness[index] for index in layers))


def test_what_the_score_needs_is_checked_when_the_method_is_built():
    with pytest.raises(UserError, match="all layers but the first, and there is only one"):
        made(VARIANTS["fixed"], model={"num_layers": 1})
    assert made(VARIANTS["as_released"], model={"num_layers": 1}).predict(BATCH)[0].prediction.shape == (20, 10)


@variants
def test_codes_come_from_the_seed_and_are_saved_with_the_weights(variant):
    trainers = [trainer_of(VARIANTS[variant], seed) for seed in (0, 0, 1)]
    first, again, other = (trainer.method for trainer in trainers)
    assert torch.equal(first.codes, again.codes) and not torch.equal(first.codes, other.codes)
    assert "codes" not in dict(first.named_parameters())
    codes = first.codes.clone()
    trainers[0].update(0)
    assert torch.equal(first.codes, codes)  # nothing trains them
    trainers[2].restore({name: value.clone() for name, value in trainers[0].tensors().items()})  # a checkpoint
    fresh = made(VARIANTS[variant], model=FITTING, shape=TINY, seed=5)
    fresh.load_state_dict(trainers[0].weights())  # what a training job hands on
    batch = Digits(64).train_batch(torch.arange(64))
    scores = first.predict(batch)[0].prediction
    for method in (other, fresh):
        assert torch.equal(method.codes, codes)
        assert torch.equal(method.predict(batch)[0].prediction, scores)


# Labels told apart


@methods
def test_scores_do_not_depend_on_the_true_label_nor_on_chance(name):
    method = made(METHODS[name])
    scores = method.predict(BATCH)[-1].prediction
    assert scores.shape == (20, 10) and scores.std(0).min() > 1e-6 and scores.std(1).min() > 1e-6
    assert torch.equal(method.predict({**BATCH, "label": BATCH["label"].flip(0)})[-1].prediction, scores)
    assert torch.equal(method.predict(BATCH)[-1].prediction, scores)


def test_the_read_out_is_of_the_last_layer_s_mean_token():
    method = made(CONTRASTIVE)
    _, left = seen(method)
    (step,) = method.predict(BATCH)
    model = method.models["all"]
    torch.testing.assert_close(step.prediction, model.head(model.norm(sum(left[-1][:, t] for t in range(4)) / 4)))
    assert (step.sigma, step.block) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "share"), [("fixed", 200, 0.9), ("contrastive", 50, 1.0)])
def test_it_overfits_one_batch_and_predicts_it(name, steps, share):
    trainer, batch = trainer_of(METHODS[name], steps=steps), Digits(64).train_batch(torch.arange(64))
    losses = [trainer.update(step)[1][0].item() for step in range(steps)]
    assert losses[-1] < losses[0] - 0.1
    (step,) = trainer.method.predict(batch)
    assert (step.prediction.argmax(1) == batch["label"]).float().mean() >= share


# The contrastive loss


def contrast_by_loops(features, labels, margin, temperature):
    features = np.float64(features)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    losses = []
    for i, mine in enumerate(labels):
        similar = {}
        for j, its in enumerate(labels):
            if i != j:
                cosine = features[i] @ features[j]
                similar[j] = np.exp((min(cosine + margin, 1) if mine == its else cosine) / temperature)
        shares = [-np.log(similar[j] / sum(similar.values())) for j in similar if labels[j] == mine]
        losses.append(np.mean(shares) if shares else 0.0)
    return losses


@pytest.mark.parametrize(("margin", "temperature"), [(0.0, 1.0), (0.1, 0.15), (0.4, 0.15), (1.5, 0.5)])
def test_contrast_against_loops_over_all_pairs(margin, temperature):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(14, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 3, 0, 2, 1, 4, 0, 0, 1])  # 3 and 4 are alone
    found = contrast(features, labels, margin, temperature)
    expected = contrast_by_loops(features.numpy(), labels.tolist(), margin, temperature)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, rtol=1e-5)
    assert found.dtype == torch.float32 and (found > 0).sum() == 12


def test_margin_raises_cosines_of_a_class_up_to_1():
    def directions(*degrees):
        angles = torch.tensor([math.radians(angle) for angle in degrees])
        return 7 * torch.stack([angles.cos(), angles.sin()], dim=1)  # lengths do not count

    def share(own, others):
        return -math.log(math.exp(own / 0.5) / (math.exp(own / 0.5) + sum(math.exp(other / 0.5) for other in others)))

    labels = torch.tensor([0, 0, 1])
    for margin, own in ((0.0, 0.5), (0.3, 0.8), (0.5, 1.0), (0.9, 1.0)):  # two at 60 degrees, the other at 90 and 150
        losses = contrast(directions(0, 60, -90), labels, margin, 0.5)
        assert losses.tolist() == pytest.approx([share(own, [0]), share(own, [-math.sqrt(0.75)]), 0], abs=1e-6)
    # A pair that the margin lifts to the top pulls no more.
    for margin, pulls in ((0.3, True), (0.9, False)):
        features = directions(0, 60).requires_grad_()
        contrast(torch.cat([features, directions(-90)]), labels, margin, 0.5)[0].backward()
        assert features.grad[1].norm().item() > 1e-3 if pulls else not features.grad[1].any()


def test_samples_alone_in_their_class_lose_nothing():
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = contrast(features, torch.arange(4), 0.4, 0.15)
    losses.sum().backward()
    assert losses.tolist() == [0] * 4 and features.grad.tolist() == [[0] * 3] * 4


def test_margins_go_linearly_from_the_first_layer_to_the_last():
    method = made(CONTRASTIVE, {"num_layers": 4})
    assert method.margins == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert made({**CONTRASTIVE, "first_margin": 0.5, "last_margin": 0.2}).margins == pytest.approx([0.5, 0.35, 0.2])


@pytest.mark.parametrize("temperature", [0.15, 0.4])
def test_losses_of_contrastive_forward_forward_by_hand(temperature):
    method = made({**CONTRASTIVE, "temperature": temperature})
    objective, losses, levels = method.loss(BATCH, 0)
    own, logits = contrastive_by_hand(method, BATCH, (0.4, 0.25, 0.1))
    own, cross_entropy = torch.stack(own), -logits.log_softmax(1)[range(20), BATCH["label"]].mean()
    torch.testing.assert_close(losses, own.detach().mean(0))
    torch.testing.assert_close(objective, own.mean(1).sum() + cross_entropy)
    assert not losses.requires_grad and levels is None
    backwards = torch.stack(contrastive_by_hand(method, BATCH, (0.1, 0.25, 0.4))[0]).mean(0)
    assert (backwards - losses).abs().max() > 1e-3  # or the order of the margins would not be seen


# Precision


@methods
def test_bfloat16_gives_nearly_the_losses_of_float32(name):
    method, found = made(METHODS[name]), []
    for enabled in (False, True):
        torch.manual_seed(0)  # the same wrong labels
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective, losses, _ = method.loss(BATCH, 0)
        objective.backward()
        assert all(value.grad is None or value.grad.isfinite().all() for value in method.parameters())
        assert losses.dtype == torch.float32
        found.append((objective.detach(), losses))
    torch.testing.assert_close(found[1], found[0], atol=0.02, rtol=0.01)


# The network's initialisation


def linear_maps(noise):
    """{name: module} with PyTorch's own weights of all maps of a ViT, drawn in the order in which it has them."""
    width, mlp_width, noise_width = 12, 24, 2
    maps = {"patches": nn.Conv2d(3, width, 4)}
    for i in range(3):
        maps[f"layers.{i}.attention.qkv"] = nn.Linear(width, 3 * width)
        maps[f"layers.{i}.attention.out"] = nn.Linear(width, width)
        maps[f"layers.{i}.mlp.up"] = nn.Linear(width, mlp_width)
        maps[f"layers.{i}.mlp.down"] = nn.Linear(mlp_width, width)
        if noise:
            maps[f"layers.{i}.adaptive"] = nn.Linear(noise_width, 6 * width)
    maps["head"] = nn.Linear(width, 10)
    if noise:
        maps["labels"] = nn.Embedding(10, width)
        maps["level.0"], maps["level.2"] = nn.Linear(256, noise_width), nn.Linear(noise_width, noise_width)
        maps["head_adaptive"] = nn.Linear(noise_width, 2 * width)
    return maps


@pytest.mark.parametrize("noise", [None, EDM()], ids=["plain", "denoiser"])
@pytest.mark.parametrize("initialisation", ["vit", "pytorch"])
def test_initialisation_bit_by_bit(initialisation, noise):
    torch.manual_seed(0)
    model = Model(SHAPE, noise, **SIZES, initialisation=initialisation)
    torch.manual_seed(0)
    expected = linear_maps(noise)
    positions, cls = torch.zeros(1, 5, 12), torch.zeros(1, 1, 12)
    if initialisation == "vit":
        for name, module in expected.items():
            if name != "labels":
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(positions, std=0.02)
        if noise is None:
            nn.init.trunc_normal_(cls, std=0.02)
    else:
        nn.init.normal_(positions)
    if noise:
        nn.init.normal_(expected["labels"].weight, std=0.02)
        for name, module in expected.items():
            if name.startswith("head") or name.endswith("adaptive"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
    whole = {f"{name}.{kind}": value for name, m in expected.items() for kind, value in m.state_dict().items()}
    whole |= {"positions": positions} if noise else {"positions": positions, "cls": cls}
    found = {name: value for name, value in model.state_dict().items() if "norm" not in name}
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value), name


def test_pytorch_s_initialisation_is_as_wide_as_the_inputs_ask_and_has_loud_positions():
    torch.manual_seed(0)
    sizes = {**SIZES, "num_layers": 1, "width": 64, "mlp_width": 256}
    model = Model({**SHAPE, "image_size": 32}, **sizes, initialisation="pytorch")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            assert 0.98 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert model.positions.std().item() == pytest.approx(1, abs=0.05)
    assert model.positions.mean().item() == pytest.approx(0, abs=0.05)
    usual = Model({**SHAPE, "image_size": 32}, **sizes)
    assert usual.positions.std().item() == pytest.approx(0.02, rel=0.05)
    assert usual.layers[0].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)

"""NoProp's network: its sizes, its three kinds of class embeddings, what reaches its logits, and its plain chain."""

import numpy as np
import pytest
import torch
from helpers import TINY, shaken
from torch import nn
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.diffusion.variance_preserving import AsItIs
from diffusionblocks.layers.conditioning import sinusoid
from diffusionblocks.models.noprop_cnn import Model

CIFAR100 = {"image_size": 32, "channels": 3, "num_classes": 100}
AS_IT_IS = AsItIs()
KINDS = ("one_hot", "learned", "prototype")
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 4, 1, 5, 9])
BATCH = {"image": IMAGES, "label": LABELS}


def network(noise=AS_IT_IS, target_norm=None, shape=TINY, num_layers=2, dropout=0.0, **options):
    """A network with noise on all weights and on what batch normalisation remembers, as if it were trained."""
    torch.manual_seed(0)
    model = shaken(Model(shape, noise, target_norm, num_layers=num_layers, dropout=dropout, **options))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model


def count(**options):
    """Parameters at CIFAR-100's size."""
    with torch.device("meta"):
        return sum(value.numel() for value in Model(CIFAR100, AS_IT_IS, **options).parameters())


# Sizes


def linear(inputs, outputs):
    return inputs * outputs + outputs


def normalised(inputs, outputs):
    """A linear map and the scale and shift of a batch normalisation."""
    return linear(inputs, outputs) + 2 * outputs


CONVOLUTIONS = 9 * (3 * 32 + 32 * 64 + 64 * 128)  # 0.093 million weights
FLATTENED = 128 * 8 * 8 * 256  # 2.10 million
IMAGE_PATH = CONVOLUTIONS + (32 + 64 + 128) + FLATTENED + 256


@pytest.mark.parametrize(
    ("embedding", "width", "label_path"),
    [
        ("one_hot", 100, normalised(100, 256) + 2 * normalised(256, 256)),
        ("learned", 20, normalised(20, 256) + 2 * normalised(256, 256)),
        ("prototype", 3072, IMAGE_PATH + 2 * 256),
    ],
)
def test_discrete_parameter_counts(embedding, width, label_path):
    fuse = normalised(2 * 256, 256) + normalised(256, 128) + linear(128, 100)
    layer = IMAGE_PATH + 2 * 256 + label_path + fuse
    table = 0 if embedding == "one_hot" else 100 * width
    expected = 10 * layer + table + linear(width, 100)
    assert count(embedding=embedding, timed=False) == expected
    assert expected == {"one_hot": 25_290_460, "learned": 25_079_660, "prototype": 46_216_780}[embedding]


@pytest.mark.parametrize(
    ("embedding", "width", "label_path"),
    [("one_hot", 100, linear(100, 256)), ("learned", 20, linear(20, 256)), ("prototype", 3072, IMAGE_PATH)],
)
def test_continuous_parameter_counts(embedding, width, label_path):
    fuse = linear(3 * 256, 256) + linear(256, 128) + linear(128, 100)
    layer = IMAGE_PATH + label_path + linear(64, 256) + fuse
    table = 0 if embedding == "one_hot" else 100 * width
    found = count(embedding=embedding, num_layers=1, batch_norm=False)
    assert found == layer + table + linear(width, 100)


def modules(sequence):
    return " ".join(type(module).__name__ for module in sequence)


@pytest.mark.parametrize(("batch_norm", "norm", "last"), [(True, " BatchNorm1d", "BatchNorm1d"), (False, "", "ReLU")])
def test_the_paths_are_those_of_the_figure(batch_norm, norm, last):
    assert (CONVOLUTIONS, FLATTENED) == (93_024, 2_097_152)
    with torch.device("meta"):
        model = Model(CIFAR100, AS_IT_IS, embedding="one_hot", batch_norm=batch_norm, num_layers=1)
    (layer,) = model.layers
    assert [list(value.shape) for value in layer.image.parameters() if value.ndim > 1] == [
        [32, 3, 3, 3],
        [64, 32, 3, 3],
        [128, 64, 3, 3],
        [256, 8192],
    ]
    assert modules(layer.image) == (
        f"Conv2d ReLU MaxPool2d Dropout Conv2d ReLU Dropout Conv2d ReLU MaxPool2d Dropout Flatten Linear {last}"
    )
    assert [module.p for module in layer.image.modules() if isinstance(module, nn.Dropout)] == [0.2] * 3
    assert modules(layer.label) == f"Linear{norm} ReLU" and modules(layer.time) == "Linear ReLU"
    assert modules(layer.fuse) == f"Linear{norm} ReLU Linear{norm} ReLU Linear"
    if batch_norm:
        assert modules(layer.refine) == "Linear BatchNorm1d ReLU Linear BatchNorm1d"


@pytest.mark.parametrize("size", [6, 10, 33])
def test_a_size_that_cannot_be_halved_twice_is_refused(size):
    with pytest.raises(ValueError, match=rf"halved twice.* {size} "):
        Model({**TINY, "image_size": size})


@pytest.mark.parametrize("embedding", KINDS)
def test_without_batch_norm_there_is_none_and_no_refinement(embedding):
    def kinds(**options):
        model = network(embedding=embedding, **options)
        return {type(module) for module in model.modules()}, [layer.refine for layer in model.layers]

    found, refined = kinds(batch_norm=False)
    assert nn.BatchNorm1d not in found and nn.ReLU in found and refined == [None, None]
    found, refined = kinds(batch_norm=True)
    assert nn.BatchNorm1d in found and all((branch is None) == (embedding == "prototype") for branch in refined)


# Embeddings


def test_one_hot_embeddings_are_fixed():
    model = network(embedding="one_hot")
    assert torch.equal(model.label_table(), torch.eye(10)) and not model.label_table().requires_grad
    assert "labels" not in dict(model.named_parameters()) and "labels" in model.state_dict()
    assert torch.equal(model.target(BATCH), F.one_hot(LABELS, 10).float()) and model.z_shape == (10,)


@pytest.mark.parametrize(("classes", "width"), [(10, 20), (10, 10), (100, 20)])
def test_learned_embeddings_start_orthonormal_where_they_can(classes, width):
    torch.manual_seed(0)
    model = Model({**TINY, "num_classes": classes}, AS_IT_IS, embedding="learned", embedding_dim=width, num_layers=1)
    table = model.label_table()
    assert table.shape == (classes, width) and table.requires_grad and model.z_shape == (width,)
    products = table @ table.T if classes <= width else table.T @ table
    torch.testing.assert_close(products, torch.eye(min(classes, width)), atol=1e-5, rtol=0)


class Images:
    """Training images of classes of the given sizes, in any order."""

    def __init__(self, sizes):
        generator = torch.Generator().manual_seed(7)
        self.train_labels = torch.tensor([label for label, size in sizes.items() for _ in range(size)])
        self.train_labels = self.train_labels[torch.randperm(len(self.train_labels), generator=generator)]
        # A heavy tail, so that a mean would choose other images.
        images = torch.randn(len(self.train_labels), 1, 8, 8, generator=generator)
        self.images = images * (1 + torch.rand(len(images), 1, 1, 1, generator=generator) ** 6 * 8)
        self.asked = []

    def train_batch(self, indices, augmentations=()):
        self.asked.append(augmentations)
        return {"image": self.images[indices], "label": self.train_labels[indices]}


def most_central(images):
    """Index of the image (n, ...) whose median distance to the n - 1 others is least, by brute force."""
    flat, found = images.flatten(1).double().numpy(), set()
    for method in ("lower", "linear", "higher"):  # an even number of others has two in the middle
        medians = []
        for i, image in enumerate(flat):
            distances = [np.sqrt(np.square(image - other).sum()) for j, other in enumerate(flat) if j != i]
            medians.append(np.percentile(distances or [0], 50, method=method))
        assert len(flat) < 2 or np.diff(np.sort(medians)[:2]) > 1e-3  # nothing that rounding could decide
        found.add(int(np.argmin(medians)))
    (index,) = found
    return index


@pytest.mark.parametrize(
    "sizes",
    [pytest.param({0: 5, 2: 7, 3: 31, 9: 1}, id="odd"), pytest.param({1: 6, 4: 8, 5: 10, 7: 30, 8: 20}, id="even")],
)
def test_prototypes_start_as_the_most_central_training_images(sizes):
    data, model = Images(sizes), network(embedding="prototype")
    expected = model.labels.detach().clone()  # a class without images keeps its own
    model.start_from(data)
    for label in sizes:
        images = data.images[data.train_labels == label]
        expected[label] = images[most_central(images)].flatten()
    assert model.labels.eq(expected).all(dim=1).tolist() == [True] * 10
    assert not any(data.asked) and model.labels.requires_grad and model.z_shape == (64,)


@pytest.mark.parametrize("embedding", ["one_hot", "learned"])
def test_only_prototypes_are_taken_from_the_images(embedding):
    model = network(embedding=embedding)
    before = model.labels.clone()
    model.start_from(Images({0: 5, 1: 5}))
    assert torch.equal(model.labels, before)


@pytest.mark.parametrize("embedding", KINDS)
def test_target_norm_is_the_length_of_every_embedding(embedding):
    for target_norm in (1.0, 0.3):
        model = network(target_norm=target_norm, embedding=embedding)
        expected = target_norm * model.labels / model.labels.norm(dim=1)[:, None]
        torch.testing.assert_close(model.label_table(), expected)
        torch.testing.assert_close(model.target(BATCH), expected[LABELS])
    model = network(embedding=embedding)
    assert model.label_table() is model.labels  # without it they are as long as they are


@pytest.mark.parametrize("target_norm", [None, 0.7])
def test_to_z_averages_the_embeddings(target_norm):
    model, logits = network(target_norm=target_norm, embedding="learned"), torch.randn(6, 10)
    table = model.label_table()
    expected = sum(logits.exp()[:, k, None] * table[k] for k in range(10)) / logits.exp().sum(1)[:, None]
    torch.testing.assert_close(model.to_z(logits), expected)
    torch.testing.assert_close(model.to_z(1000 * torch.eye(10)), table)  # a sure prediction is the target itself


# What reaches the logits


def answer(model, z, level, image=IMAGES, layers=None):
    return model.predict(z, level, model.condition({"image": image}), model.layers if layers is None else layers)


# NoProp-DT, NoProp-CT and -FM, DiffusionBlocks
@pytest.mark.parametrize(("batch_norm", "timed"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("embedding", KINDS)
def test_logits_see_image_and_z(embedding, batch_norm, timed):
    model = network(embedding=embedding, batch_norm=batch_norm, timed=timed, num_layers=1).eval()
    z, t = torch.randn(6, *model.z_shape), torch.full((6,), 0.5)
    with torch.no_grad():
        base = answer(model, z, t)
        assert base.shape == (6, 10)
        assert ((answer(model, -z, t) - base).abs().amax(1) > 1e-2).all()
        assert ((answer(model, z, t, -IMAGES) - base).abs().amax(1) > 1e-2).all()


@pytest.mark.parametrize("noise", [AS_IT_IS, EDM()])
@pytest.mark.parametrize("timed", [True, False])
def test_logits_see_the_level_only_if_they_are_told(timed, noise):
    model = network(noise, embedding="learned", timed=timed).eval()
    assert model.timed == timed
    z = torch.randn(6, 20)
    with torch.no_grad():
        base, later = (answer(model, z, torch.full((6,), level)) for level in (0.2, 0.9))
        if timed:
            assert ((later - base).abs().amax(1) > 1e-2).all()
        else:
            assert torch.equal(later, base) and torch.equal(answer(model, z, None), base)
    assert Model(TINY, None, embedding="learned", timed=timed).timed is False  # the plain network has no level


def test_a_layer_joins_its_three_paths():
    """By hand, in evaluation: image, label with its refinement, and time, side by side in this order."""
    model = network(embedding="learned").eval()
    (layer, _), z, t = model.layers, torch.randn(6, 20), torch.rand(6)
    image, label = layer.image(IMAGES), layer.label(z)
    time = F.relu(F.linear(sinusoid(t, 64), layer.time[0].weight, layer.time[0].bias))
    expected = layer.fuse(torch.cat([image, label + layer.refine(label), time], dim=1))
    torch.testing.assert_close(answer(model, z, t, layers=model.layers[:1]), expected)
    assert (label >= 0).all() and (image < 0).any() and (layer.refine(label) < 0).any()  # where ReLUs are, and are not
    plain = network(embedding="learned", batch_norm=False).eval().layers[0]
    assert (plain.image(IMAGES) >= 0).all() and (plain.label(z) >= 0).all()


def test_a_prototype_s_z_is_an_image_with_a_path_of_its_own():
    model = network(embedding="prototype", num_layers=1).eval()
    z = torch.randn(6, 64)
    layer = model.layers[0]
    torch.testing.assert_close(layer.label(z), layer.label[1](z.reshape(6, 1, 8, 8)))
    layer.label[1].load_state_dict(layer.image.state_dict())
    torch.testing.assert_close(layer.label(IMAGES.flatten(1)), layer.image(IMAGES))


def test_under_edm_noise_z_and_its_level_are_scaled():
    model, level = (
        network(EDM(), 1.0, embedding="learned", num_layers=1).eval(),
        torch.tensor([0.002, 0.1, 0.5, 1, 9, 80]),
    )
    layer, z = model.layers[0], torch.randn(6, 20)
    expected = layer(layer.image(IMAGES), z / (level**2 + 0.25).sqrt()[:, None], level.log() / 4)
    torch.testing.assert_close(answer(model, z, level), expected)


def test_under_noprop_s_noise_z_and_the_time_enter_as_they_are():
    model, t = network(embedding="learned", num_layers=1).eval(), torch.rand(6)
    layer, z = model.layers[0], torch.randn(6, 20)
    torch.testing.assert_close(answer(model, z, t), layer(layer.image(IMAGES), z, t))


@pytest.mark.parametrize("noise", [AS_IT_IS, EDM()])
def test_of_several_layers_each_takes_what_the_one_before_denoised(noise):
    model, level = network(noise, 1.0, embedding="learned", num_layers=3).eval(), torch.linspace(0.1, 2, 6)
    z, cond = torch.randn(6, 20), model.condition(BATCH)
    logits = model.predict(z, level, cond, model.layers[:1])
    for i in (1, 2):
        logits = model.predict(model.to_z(logits), level, cond, model.layers[i : i + 1])
    torch.testing.assert_close(answer(model, z, level), logits)


def test_a_condition_looks_at_the_image_once_for_each_layer():
    model, run = network(embedding="learned", num_layers=3), []
    for i, layer in enumerate(model.layers):
        layer.image.register_forward_hook(lambda *_, i=i: run.append(i))
    cond, z, t = model.condition(BATCH), torch.randn(6, 20), torch.rand(6)
    assert run == []  # not before a layer asks
    model.predict(z, t, cond, model.layers[1:2])
    model.predict(z, t, cond, model.layers[1:3])
    model.predict(z, t, cond, model.layers)
    assert run == [1, 2, 0]


@pytest.mark.parametrize("embedding", KINDS)
def test_in_evaluation_a_sample_s_answer_is_its_own(embedding):
    model = network(embedding=embedding, dropout=0.2)
    z, t = torch.randn(6, *model.z_shape), torch.rand(6)
    with torch.no_grad():
        together = answer(model, z, t)
        assert not torch.allclose(
            answer(model, z[:3], t[:3], IMAGES[:3]), together[:3], atol=1e-3
        )  # in training it is not
        model.eval()
        together = answer(model, z, t)
        for i in range(6):
            one = slice(i, i + 1)
            torch.testing.assert_close(answer(model, z[one], t[one], IMAGES[one]), together[one], atol=1e-4, rtol=1e-4)


def test_dropout_acts_on_the_paths_of_images():
    model = network(embedding="prototype", dropout=0.5, batch_norm=False, num_layers=1)
    layer = model.layers[0]
    for path, value in ((layer.image, IMAGES), (layer.label, IMAGES.flatten(1))):
        assert not torch.equal(path(value), path(value))
    model.eval()
    assert torch.equal(layer.image(IMAGES), layer.image(IMAGES))


def test_loss_is_the_cross_entropy_of_each_sample():
    model, logits = network(), torch.randn(6, 10)
    torch.testing.assert_close(model.loss(logits, BATCH, None), -logits.log_softmax(1)[range(6), LABELS])


def test_classify_is_a_linear_read_out():
    model, z = network(embedding="learned"), torch.randn(6, 20)
    torch.testing.assert_close(model.classify(z), z @ model.head.weight.T + model.head.bias)


# As the plain network


class Says(nn.Module):
    """In the place of a layer, with as many classes as z has coordinates: says known logits plus z, and keeps z."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.image = logits, nn.Flatten()

    def forward(self, seen, z, time=None):
        self.seen, self.z = seen, z
        return self.logits + z


def test_gates_mix_z_with_what_each_layer_denoised():
    model, weights = network(noise=None, num_layers=3, embedding="one_hot"), [0.2, -0.4, 1.1]
    assert "gates" in dict(model.named_parameters()) and network().gates is None
    said = torch.randn(3, 6, 10, requires_grad=True)
    model.layers = nn.ModuleList(Says(logits) for logits in said)
    with torch.no_grad():
        model.gates.copy_(torch.tensor(weights))
        model.head.weight.copy_(torch.eye(10))
        model.head.bias.zero_()
    torch.manual_seed(1)
    found = model.end_to_end_prediction(BATCH)
    torch.manual_seed(1)
    z = torch.randn(6, 10)
    for layer, weight, logits in zip(model.layers, weights, said, strict=True):
        torch.testing.assert_close(layer.z, z)
        assert torch.equal(layer.seen, IMAGES.flatten(1))
        s = (np.exp(2 * weight) - 1) / (np.exp(2 * weight) + 1)
        odds = (logits + z).exp()
        z = (1 - s) * z + s * odds / odds.sum(1, keepdim=True)
    torch.testing.assert_close(found, z)
    gradients = (torch.autograd.grad(end.square().sum(), said)[0] for end in (found, z))
    torch.testing.assert_close(*gradients)  # through the whole chain, from its end to its first layer


def test_the_plain_network_starts_from_fresh_noise():
    model = network(noise=None, embedding="one_hot", num_layers=1)
    model.layers = nn.ModuleList([Says(torch.zeros(5000, 10))])
    batch = {"image": torch.zeros(5000, 1, 8, 8)}
    model.end_to_end_prediction(batch)
    first = model.layers[0].z
    model.end_to_end_prediction(batch)
    assert abs(first.mean()) < 0.02 and abs(first.std() - 1) < 0.02
    assert abs((first * model.layers[0].z).mean()) < 0.02  # drawn anew


@pytest.mark.parametrize("embedding", KINDS)
def test_gradient_reaches_all_layers_gates_and_embeddings(embedding):
    model = network(noise=None, num_layers=3, embedding=embedding)
    losses = model.end_to_end_loss(BATCH)
    assert losses.shape == (6,)
    losses.mean().backward()
    missing = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert missing == set()
    assert model.gates.grad.all()
    for layer in model.layers:
        assert layer.image[0].weight.grad.abs().sum() > 1e-6 and layer.fuse[0].weight.grad.abs().sum() > 1e-6


def test_end_to_end_loss_is_the_cross_entropy_of_its_prediction():
    model = network(noise=None, embedding="learned").eval()
    torch.manual_seed(2)
    logits = model.end_to_end_prediction(BATCH)
    torch.manual_seed(2)
    torch.testing.assert_close(model.end_to_end_loss(BATCH), -logits.log_softmax(1)[range(6), LABELS])

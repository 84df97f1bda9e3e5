"""What is said of a model or method that does not keep its contract: one message with file, class and member."""

import itertools

import pytest
import torch
from helpers import Data
from own.mixer import Model
from torch import nn

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.chains import Step
from diffusionblocks.methods import base
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method as DiffusionBlocks
from diffusionblocks.methods.end_to_end import Method as EndToEnd
from diffusionblocks.methods.noprop import Method as NoProp
from diffusionblocks.models import base as models
from diffusionblocks.models import noprop_cnn

SHAPE = Data.shape


def batch():
    return Data().train_batch(torch.arange(2))


def no_keywords(member, value):
    """The user's model with a member that gives something else: value(self, what it should give)."""

    def changed(self, *arguments):
        return value(self, getattr(super(broken, self), member)(*arguments))

    broken = type("Broken", (Model,), {member: changed, "__module__": Model.__module__})
    return broken


class IgnoresLayers(Model):
    def read(self, x, layers):
        return super().read(x, self.layers)


class SkipsALayer(Model):
    def read(self, x, layers):
        return super().read(x, layers[1:] if len(layers) > 1 else layers)


class WrongShape(Model):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.z_shape = (5, 2)


class NoZShape(Model):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        del self.z_shape


class Hides(Model):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.embed = nn.Linear(2, 2)


class NoTarget(Model):
    target = models.Model.target


DENOISERS = {
    "a mean loss": (no_keywords("loss", lambda _, losses: losses.mean()), ["`loss`", "float32 ()", "(N,)"]),
    "an integer loss": (no_keywords("loss", lambda _, losses: losses.long()), ["`loss`", "int64 (2,)"]),
    "a loss for one": (no_keywords("loss", lambda _, losses: losses[:1]), ["`loss`", "1 losses for 2"]),
    "another shape": (no_keywords("predict", lambda _, logits: logits[:, :, None, None]), ["`loss`", "fails on"]),
    "too few classes": (no_keywords("predict", lambda _, logits: logits[:, :1]), ["`loss`", "fails on"]),
    "a double target": (no_keywords("target", lambda _, z0: z0.double()), ["`target`", "float64 (2, 16)", "float32"]),
    "an integer target": (no_keywords("target", lambda _, z0: z0.long()), ["`target`", "int64 (2, 16)"]),
    "no target": (NoTarget, ["`target`", "does not define it"]),
    "a wrong z_shape": (WrongShape, ["`target`", "(2, 16)", "(2, 5, 2)"]),
    "no z_shape": (NoZShape, ["`z_shape`", "is not set"]),
    "classes for z": (no_keywords("to_z", lambda self, z: z.argmax(1)), ["`to_z`", "int64 (2,)", "(2, 16)"]),
    "a part in a member's place": (Hides, ["`embed`", "member of the contract"]),
}


def refusal(method):
    with pytest.raises(UserError) as refused:
        method.check(batch())
    return str(refused.value)


@pytest.mark.parametrize("sharing", ["independent", "joint"])
@pytest.mark.parametrize("case", DENOISERS)
def test_a_broken_denoiser_is_refused_by_file_class_and_member(case, sharing):
    model, words = DENOISERS[case]
    message = refusal(DiffusionBlocks(Network(model, SHAPE, num_layers=3), sharing=sharing))
    assert all(word in message for word in [".py: class", model.__name__, *words, "docs/extending.md"]), message
    assert "\n" not in message


def test_a_model_that_ignores_its_layers_is_refused():
    joint = refusal(DiffusionBlocks(Network(IgnoresLayers, SHAPE, num_layers=3), sharing="joint"))
    assert "class IgnoresLayers: `layers` are run beyond" in joint and "layer 1 has a gradient of block 0" in joint
    skips = refusal(DiffusionBlocks(Network(SkipsALayer, SHAPE, num_layers=6)))
    assert "class SkipsALayer: `layers` are not all run: layer 0 has no gradient of block 0" in skips


def given(model, member, change):
    """A model with a member that is handed something else than what it is given: change(self, *arguments)."""

    def changed(self, *arguments):
        return getattr(super(broken, self), member)(*change(self, *arguments))

    broken = type("Deaf", (model,), {member: changed, "__module__": Model.__module__})
    return broken


def scaled(self, z, level, cond, layers):
    """One level for all, so that not even the scale of z tells it."""
    return z, torch.full_like(level, 2), cond, layers


DEAF = {
    "z": (
        given(Model, "predict", lambda _, z, *rest: (torch.zeros_like(z), *rest)),
        "`predict` gives the same for another",
    ),
    "the level": (given(Model, "predict", scaled), "`predict` gives the same at every level"),
    "its condition": (
        given(Model, "predict", lambda _, z, level, cond, layers: (z, level, torch.ones_like(cond), layers)),
        "`predict` gives the same under another condition",
    ),
    "the label": (
        given(Model, "target", lambda _, batch: ({"label": torch.zeros_like(batch["label"])},)),
        "`target` gives the same for samples that differ",
    ),
    "what is true": (
        given(Model, "loss", lambda _, logits, batch, z: (logits, {"label": torch.zeros_like(batch["label"])}, z)),
        "`loss` gives the same whatever is true",
    ),
}


@pytest.mark.parametrize("sharing", ["independent", "joint"])
@pytest.mark.parametrize("case", DEAF)
def test_a_denoiser_that_ignores_what_it_is_given_is_refused(case, sharing):
    model, words = DEAF[case]
    message = refusal(DiffusionBlocks(Network(model, SHAPE, num_layers=3), sharing=sharing))
    assert "mixer.py: class Deaf: " in message and words in message, message


def test_layers_are_heeded_outside_of_training_too():
    class Forgets(Model):
        def read(self, x, layers):
            return super().read(x, layers if self.training else self.layers)

    message = refusal(DiffusionBlocks(Network(Forgets, SHAPE, num_layers=3), sharing="joint"))
    assert "class Forgets: `predict` gives the same with other `layers`" in message


def test_a_denoiser_may_mean_to_ignore_its_level():
    model = given(Model, "predict", scaled)
    model.timed = False
    DiffusionBlocks(Network(model, SHAPE, num_layers=3)).check(batch())


def test_what_is_zero_at_first_is_not_ignored():
    """As gates of AdaLN-zero: the answer depends on nothing before the first update."""

    class Gated(Model):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.noisy.weight)

    DiffusionBlocks(Network(Gated, SHAPE, num_layers=3)).check(batch())


@pytest.mark.parametrize(
    ("case", "process"),
    [
        *itertools.product(["z", "its condition"], ["continuous", "discrete", "flow_matching"]),
        *itertools.product(["the level"], ["continuous", "flow_matching"]),
        ("its layers", "discrete"),
    ],
)
def test_a_layer_of_noprop_that_ignores_what_it_is_given_is_refused(case, process):
    changes = {
        "z": lambda self, z, *rest: (torch.zeros_like(z), *rest),
        "the level": lambda self, z, level, *rest: (z, level * 0, *rest),
        "its condition": lambda self, z, level, cond, layers: (z, level, self.condition(SAMPLE), layers),
        "its layers": lambda self, z, level, cond, layers: (z, level, cond, self.layers[:1]),
    }
    model = given(noprop_cnn.Model, "predict", changes[case])
    network = Network(model, SHAPE, num_layers=3 if process == "discrete" else 1)
    words = {"z": "another z", "the level": "every level", "its condition": "another condition", "its layers": "layers"}
    message = refusal(NoProp(network, process=process))
    assert "class Deaf: `" in message and words[case] in message, message


SAMPLE = {name: value[:1].expand(2, *value.shape[1:]) for name, value in batch().items()}


def test_a_plain_network_that_ignores_its_images_is_refused():
    model = given(Model, "condition", lambda _, batch: ({"image": torch.ones_like(batch["image"])},))
    images = {name: value for name, value in batch().items() if name != "tokens"}
    with pytest.raises(UserError, match="class Deaf: `end_to_end_loss` gives the same for other images"):
        EndToEnd(Network(model, SHAPE)).check(images)


def test_a_method_that_gives_its_layers_no_gradient_is_refused():
    class Method(EndToEnd):
        def loss(self, batch, block):
            objective, *rest = super().loss(batch, block)
            return 0 * objective, *rest

    assert "class Method: `loss` gives the layers of block 0 a gradient that is zero" in refusal(
        Method(Network(Model, SHAPE))
    )


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("loss", lambda found: (found[0], found[1].mean(), None), ["`loss`", "float32 ()"]),
        ("loss", lambda found: (found[1], found[1], None), ["`loss`", "objective", "float32 (2,)"]),
        ("loss", lambda found: (found[0].detach(), found[1], None), ["`loss`", "objective", "gradient"]),
        ("loss", lambda found: (*found[:2], found[1][:1]), ["`loss`", "levels", "float32 (1,)"]),
        ("loss", lambda found: found[:2], ["`loss`", "(objective, losses, levels or None)"]),
        ("predict", lambda found: found[0].prediction, ["`predict`", "Step"]),
        ("predict", lambda found: [], ["`predict`", "Step"]),
    ],
)
def test_a_broken_method_is_refused_by_file_class_and_member(member, value, words):
    class Method(EndToEnd):
        pass

    setattr(Method, member, lambda self, *arguments: value(getattr(EndToEnd, member)(self, *arguments)))
    message = refusal(Method(Network(Model, SHAPE)))
    assert all(word in message for word in ["test_contract_refusals.py: class Method", *words]), message


def test_a_broken_plain_network_is_refused_by_file_class_and_member():
    broken = no_keywords("end_to_end_loss", lambda _, losses: losses.mean())
    message = refusal(EndToEnd(Network(broken, SHAPE)))
    assert "class Broken: `end_to_end_loss` gives float32 ()" in message and "mixer.py" in message


def fails_with(error):
    """The user's model, whose loss raises an error."""

    def end_to_end_loss(self, batch):
        raise error

    model = type("Failing", (Model,), {"end_to_end_loss": end_to_end_loss, "__module__": Model.__module__})
    return EndToEnd(Network(model, SHAPE))


@pytest.mark.parametrize("error", [AssertionError("odd"), ZeroDivisionError("by none"), OSError("gone"), KeyError("k")])
def test_whatever_a_network_raises_is_told_by_file_class_and_member(error):
    message = refusal(fails_with(error))
    words = ["mixer.py: class Failing: `end_to_end_loss` fails", type(error).__name__, str(error), "docs/extending.md"]
    assert all(word in message for word in words), message


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), UserError("as told")])
def test_want_of_memory_is_no_broken_contract(error):
    with pytest.raises(type(error)) as raised:
        fails_with(error).check(batch())
    assert raised.value is error


def test_what_a_class_does_not_offer_is_named():
    class Method(base.Method):
        def __init__(self, network):
            super().__init__()
            self.models = nn.ModuleDict({"all": network.build()})

    method = Method(Network(Model, SHAPE))
    assert "class Method: `loss` is asked for, and this class does not define it" in refusal(method)
    with pytest.raises(UserError, match=r"mixer.py: class Model: `unconditional`"):
        method.models["all"].unconditional({})
    with pytest.raises(UserError, match=r"mixer.py: class Model: `scores`"):
        method.scores(Step(None, None, None), {})


def test_a_network_that_cannot_be_built_is_refused():
    class NoShape(Model):
        def __init__(self, noise=None):
            super().__init__(SHAPE, noise)

    with pytest.raises(UserError, match=r"class NoShape: `__init__` does not take \(shape, num_layers=\.\.\.\)"):
        Network(NoShape, SHAPE, num_layers=2).build()
    for layers, what in (
        ([], "must be an nn.ModuleList"),
        (nn.ModuleList([nn.Linear(2, 2)]), "has 1, and num_layers is"),
    ):

        class OtherLayers(Model):
            def __init__(self, shape, layers=layers, **keywords):
                super().__init__(shape, **keywords)
                del self.layers
                self.layers = layers

        with pytest.raises(UserError, match=f"class OtherLayers: `layers` {what}"):
            Network(OtherLayers, SHAPE, num_layers=2).build()
    with pytest.raises(UserError, match=r"class Linear must derive from diffusionblocks.models.base.Model"):
        Network(nn.Linear, SHAPE)
    with pytest.raises(ValueError, match="`noise_kind` is 'gamma', not one of edm, masking"):
        DiffusionBlocks(Network(type("Loud", (Model,), {"noise_kind": "gamma", "__module__": __name__}), SHAPE))
    with pytest.raises(ValueError, match="num_layers must be a whole number"):
        DiffusionBlocks(Network(Model, SHAPE))

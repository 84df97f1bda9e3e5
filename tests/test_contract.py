"""The contract that every model and method keeps, a user's own too, and what is said of one that does not.

A file added to models/ or methods/ is picked up by itself.
"""

import pytest
import torch
from helpers import OWN, Data, first_parts, runs, shaken
from own.mixer import Model
from torch import nn

from diffusionblocks.base.components import names
from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.chains import Step
from diffusionblocks.methods import base, build
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method as DiffusionBlocks
from diffusionblocks.methods.end_to_end import Method as EndToEnd
from diffusionblocks.models import base as models
from diffusionblocks.training.trainer import Trainer

CPU = torch.device("cpu")
SHAPE = Data.shape


def batch(count=2, views=1):
    return Data().train_batch(torch.arange(count).repeat(views))


# Those that keep it


def test_every_model_has_a_method_and_every_method_a_model():
    pairs = {tuple(param.values[0][kind]["name"] for kind in ("model", "method")) for param in runs()}
    assert {model for model, _ in pairs} == {*names("model"), OWN}
    assert {method for _, method in pairs} == set(names("method"))
    assert ("dit", "end_to_end") not in pairs  # a DiT is a denoiser only
    assert {(OWN, "diffusionblocks"), (OWN, "end_to_end")} < pairs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("run", "part"), list(runs()))
def test_an_update_moves_its_own_block_alone(run, part, precision):
    train = {"batch_size": 8, "lr": 0.01, "weight_decay": 0.0, "steps": 4, "precision": precision}
    trainer = Trainer({**run, "seed": 0, "train": train}, part, Data(), CPU)
    shaken(trainer.method)
    method, before = trainer.method, {name: value.clone() for name, value in trainer.method.state_dict().items()}
    block, values = trainer.update(0)
    assert block in method.blocks and values[0] > 0 and values.isfinite().all()
    moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}

    ((key, model),) = method.models.items()
    own = {id(layer) for layer in method.acting(block)[1]}
    assert len(own) == (1 if key == "all" and len(method.blocks) > 1 else len(model.layers))  # the others wait
    prefixes = [f"models.{key}.layers.{i}." for i in range(len(model.layers))]
    for prefix, layer in zip(prefixes, model.layers, strict=True):
        assert any(name.startswith(prefix) for name in moved) == (id(layer) in own)
    assert any(not name.startswith(tuple(prefixes)) for name in moved)  # the small modules around the layers

    _, losses, _ = method.loss(batch(8), block)
    assert losses.shape == (8,) and not losses.requires_grad


@pytest.mark.parametrize(("run", "part"), list(first_parts()))
def test_the_check_passes_and_leaves_nothing_behind(run, part):
    for which in (part, None):
        torch.manual_seed(0)
        method = build(run, SHAPE, which)
        before, random = {name: value.clone() for name, value in method.state_dict().items()}, torch.get_rng_state()
        method.check(batch(views=method.views))
        assert torch.equal(torch.get_rng_state(), random) and method.training
        assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
        assert all(value.grad is None for value in method.parameters())


@pytest.mark.parametrize(
    ("run", "part"), [param for param in first_parts() if "forward_forward" not in param.values[0]["method"]["name"]]
)
def test_gradients_in_double_precision_are_difference_quotients(run, part):
    """But for Forward-Forward, whose gradients stop at each layer on purpose. Small steps: ReLUs have kinks."""
    sizes = {"recurrent_depth": {"mean_recurrence": 2, "bptt_steps": 100}}.get(run["model"]["name"], {})
    torch.manual_seed(0)
    method = shaken(build({**run, "model": {**run["model"], **sizes}}, SHAPE, part)).double()
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in batch(3).items()}

    def objective():
        torch.manual_seed(3)
        return method.loss(inputs, method.blocks[0])[0]

    parameters = list(method.parameters())
    found = objective()
    assert found.dtype == torch.float64
    gradients = torch.autograd.grad(found, parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in parameters]
    ends = []
    for move in (1e-7, -2e-7, 1e-7):  # there, back, and home
        with torch.no_grad():
            for value, direction in zip(parameters, directions, strict=True):
                value += move * direction
        ends.append(objective().item())
    along = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert along == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-5)


@pytest.mark.parametrize(("run", "part"), list(first_parts()))
def test_the_check_passes_in_double_precision(run, part):
    method = build(run, SHAPE, None).double()
    inputs = batch(views=method.views)
    method.check({name: value.double() if value.is_floating_point() else value for name, value in inputs.items()})


# Those that do not


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


def refusal(method, views=1):
    with pytest.raises(UserError) as refused:
        method.check(batch(views=views))
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
    assert all(word in message for word in ["test_contract.py: class Method", *words]), message


def test_a_broken_plain_network_is_refused_by_file_class_and_member():
    broken = no_keywords("end_to_end_loss", lambda _, losses: losses.mean())
    message = refusal(EndToEnd(Network(broken, SHAPE)))
    assert "class Broken: `end_to_end_loss` gives float32 ()" in message and "mixer.py" in message


def test_a_long_chain_is_met_in_a_few_steps():
    model, method = {"name": "noprop_cnn", "num_layers": 1}, {"name": "noprop", "process": "continuous"}
    found, ran = build({"model": model, "method": method}, SHAPE, None), []
    found.models["all"].layers[0].register_forward_hook(lambda *_: ran.append(None))
    found.check(batch())
    assert len(ran) == 1 + 2  # the loss, and two steps


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
    with pytest.raises(UserError, match="class Loud: `noise_kind` is 'gamma', not one of edm, masking"):
        DiffusionBlocks(Network(type("Loud", (Model,), {"noise_kind": "gamma", "__module__": __name__}), SHAPE))
    with pytest.raises(ValueError, match="needs num_layers"):
        DiffusionBlocks(Network(Model, SHAPE))


def test_a_network_is_described_before_it_is_built():
    network = Network(Model, SHAPE, num_layers=2, width=8)
    assert (network.noise_kind, network.num_layers, network.shape) == ("edm", 2, SHAPE)
    built = network.build(num_layers=5)
    assert len(built.layers) == 5 and built.z_shape == (8,) and len(network.build().layers) == 2
    assert built.all_layers() == list(built.layers) and built.start_from(Data()) is None

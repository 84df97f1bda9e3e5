"""The contract that every model and method keeps, a user's own too.

A file added to models/ or methods/ is picked up by itself.
"""

import pytest
import torch
from helpers import OWN, Data, first_parts, runs, shaken
from own.mixer import Model
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from diffusionblocks.base.components import names
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.methods import build
from diffusionblocks.methods.base import Network
from diffusionblocks.training.trainer import Trainer

CPU = torch.device("cpu")
SHAPE = Data.shape


# Of networks that hold weights which are not trained, or see their texts otherwise.
OPTIONS = [
    pytest.param(
        {
            "table": "t",
            "row": "r",
            "model": {
                "name": "autoregressive",
                "num_layers": 3,
                "width": 24,
                "num_heads": 2,
                "mlp_width": 48,
                **options,
            },
            "method": {"name": "diffusionblocks", "num_blocks": 3, "sharing": sharing},
        },
        part,
        id="-".join([*options.values(), sharing]),
    )
    for options in ({"head": "tied"}, {"head": "frozen"}, {"head": "frozen", "sequence": "single"})
    for sharing, part in (("independent", "block1"), ("joint", "all"))
]


def batch(count=2, views=1):
    return Data().train_batch(torch.arange(count).repeat(views))


def test_every_model_has_a_method_and_every_method_a_model():
    pairs = {tuple(param.values[0][kind]["name"] for kind in ("model", "method")) for param in runs()}
    assert {model for model, _ in pairs} == {*names("model"), OWN}
    assert {method for _, method in pairs} == set(names("method"))
    assert ("dit", "end_to_end") not in pairs  # a DiT is a denoiser only
    assert {(OWN, "diffusionblocks"), (OWN, "end_to_end")} < pairs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("run", "part"), [*runs(), *OPTIONS])
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
    assert all(value.requires_grad for name, value in method.named_parameters() if name in moved)

    _, losses, _ = method.loss(batch(8), block)
    assert losses.shape == (8,) and not losses.requires_grad


@pytest.mark.parametrize(("run", "part"), [*first_parts(), *OPTIONS])
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
    ("run", "part"),
    [*OPTIONS, *(param for param in first_parts() if "forward_forward" not in param.values[0]["method"]["name"])],
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

    parameters = [value for value in method.parameters() if value.requires_grad]
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


@pytest.mark.parametrize(("run", "part"), [*first_parts(), *OPTIONS])
def test_the_check_passes_in_double_precision(run, part):
    method = build(run, SHAPE, None).double()
    inputs = batch(views=method.views)
    method.check({name: value.double() if value.is_floating_point() else value for name, value in inputs.items()})


class FromHost(TorchFunctionMode):
    """The calls that bring numbers of the host to the device "meta": on a GPU, each would wait for it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        moved = any(torch.is_tensor(value) and value.device.type == "cpu" for value in tree_leaves(arguments))
        made = function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        there = any(torch.is_tensor(value) and value.device.type == "meta" for value in tree_leaves(result))
        if there and (moved or made):
            self.found.append(function.__name__)
        return result


NOPROP = [
    pytest.param(
        {"model": {"name": "noprop_cnn", "num_layers": 1}, "method": {"name": "noprop", "process": process}}, "all"
    )
    for process in ("continuous", "flow_matching")
]
# Contrastive Forward-Forward turns autocast off, of which "meta" has none.
ON_META = [run for run in first_parts() if run.values[0]["method"]["name"] != "contrastive_forward_forward"]


@pytest.mark.parametrize(("run", "part"), [*ON_META, *NOPROP, *OPTIONS])
def test_a_loss_takes_nothing_from_the_host_and_gives_it_nothing(run, part):
    method = build(run, SHAPE, part).to("meta")
    inputs = {name: value.to("meta") for name, value in batch(4).items()}
    with FromHost() as host:
        method.loss(inputs, method.blocks[0])[0].backward()  # numbers of "meta" cannot be read
        assert host.found == []
        torch.as_tensor(0.5, device="meta").new_tensor([1.0])  # both would be found
        torch.ones(2).to("meta")
    assert host.found == ["as_tensor", "new_tensor", "to"]


def test_a_network_is_described_before_it_is_built():
    network = Network(Model, SHAPE, num_layers=2, width=8)
    assert (network.noise, network.num_layers, network.shape) == (EDM, 2, SHAPE)
    built = network.build(num_layers=5)
    assert len(built.layers) == 5 and built.z_shape == (8,) and len(network.build().layers) == 2
    assert built.all_layers() == list(built.layers) and built.start_from(Data()) is None


def test_a_long_chain_is_met_in_a_few_steps():
    model, method = {"name": "noprop_cnn", "num_layers": 1}, {"name": "noprop", "process": "continuous"}
    found, ran = build({"model": model, "method": method}, SHAPE, None), []
    found.models["all"].layers[0].register_forward_hook(lambda *_: ran.append(None))
    found.check(batch())
    assert len(ran) == 1 + 4 + 2  # the loss; whether z, level and condition are heeded; two steps

"""NoProp: each loss against its formula, its chain led by a network that knows the answer, and that it learns."""

import copy

import pytest
import torch
from helpers import Digits
from torch import nn
from torch.nn import functional as F

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.variance_preserving import cosine_schedule, step_coefficients
from diffusionblocks.methods import build
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.noprop import Method
from diffusionblocks.models import base
from diffusionblocks.training.trainer import Trainer

SHAPE = {"image_size": 8, "channels": 1, "num_classes": 10}
BATCH = {
    "image": torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    "label": torch.arange(12) % 10,
}
PROCESSES = ("discrete", "continuous", "flow_matching")


class Oracle(base.Model):
    """A network that costs nothing and knows the true class, or the true velocity; it keeps what it is asked.

    table: embeddings, a Parameter if they learn; for a velocity orthonormal. offset: added to what it denoises.
    """

    def __init__(self, shape, noise, timed=True, *, table, num_layers=1, velocity=False):
        super().__init__()
        self.timed, self.table, self.velocity, self.offset = timed, table, velocity, 0
        self.layers = nn.ModuleList(nn.Identity() for _ in range(num_layers))
        self.z_shape = table.shape[1:]
        self.calls, self.ends = [], []

    def condition(self, batch):
        return batch["label"]

    def label_table(self):
        return self.table

    def target(self, batch):
        return self.table[batch["label"]]

    def predict(self, z, level, cond, layers):
        self.calls.append((z.detach(), level, list(layers)))
        if self.velocity:
            return (self.table[cond] - z) / (1 - level[:, None]) @ self.table.T + self.offset
        return 1000.0 * F.one_hot(cond, len(self.table)).to(z)

    def to_z(self, logits):
        return logits.softmax(1) @ self.table + self.offset

    def classify(self, z):
        self.ends.append(z.detach())
        return -torch.cdist(z, self.table).square() / 2  # the nearest embedding


def led(process, classes=6, width=6, samples=1000, dtype=torch.float32, learned=True, num_layers=1, **keywords):
    """(method, oracle, batch, true embeddings). The schedule of `continuous` starts and ends within its limits."""
    torch.manual_seed(0)
    table = torch.randn(classes, width, dtype=dtype)
    if process == "flow_matching":
        table = nn.init.orthogonal_(table)
    options = {"table": nn.Parameter(table) if learned else table, "velocity": process == "flow_matching"}
    method = Method(Network(Oracle, SHAPE, **options, num_layers=num_layers), process=process, **keywords)
    if process == "continuous":
        with torch.no_grad():
            method.schedule.ends.copy_(torch.tensor([3.0, -3.5]))
    batch = {"label": torch.arange(samples) % classes}
    return method, method.models["all"], batch, table[batch["label"]]


def run_of(process="discrete", num_layers=1, **model):
    """NoProp on its own network: batch normalisation for NoProp-DT alone, as in its figure."""
    sizes = {"num_layers": num_layers, "batch_norm": process == "discrete", "dropout": 0.0}
    return {
        "model": {"name": "noprop_cnn", **sizes, **model},
        "method": {"name": "noprop", "process": process},
    }


def real(process="discrete", **options):
    torch.manual_seed(0)
    return build(run_of(process, **options), SHAPE, None)


def assert_standard_normal(eps, *others):
    """A sample (N, d) with mean 0 and variance 1 that knows nothing of other ones (N, d) or (N,)."""
    tolerance = 5 / eps.numel() ** 0.5
    assert abs(eps.mean()) < tolerance and abs(eps.square().mean() - 1) < 1.5 * tolerance
    for other in others:
        other = other.reshape(len(eps), -1).expand_as(eps).flatten()
        assert abs(torch.corrcoef(torch.stack([eps.flatten(), other]))[0, 1]) < tolerance


def divergence(u, abar):
    """Mean KL(q(z_0 | y) || N(0, I)), by PyTorch."""
    q = torch.distributions.Normal(abar**0.5 * u, (1 - abar) ** 0.5)
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean().item()


# The losses


@pytest.mark.parametrize("block", [0, 1, 3])
def test_discrete_loss_is_its_formula(block):
    method, oracle, batch, u = led("discrete", num_layers=4, eta=0.3)
    oracle.offset = torch.randn(u.shape)
    objective, errors, level = method.loss(batch, block)
    ((z, _, layers),), (end,), abar = oracle.calls, oracle.ends, cosine_schedule(4).tolist()
    assert layers == [oracle.layers[block]] and level is None and not errors.requires_grad
    first = (z - abar[block] ** 0.5 * u) / (1 - abar[block]) ** 0.5  # the layer of step t sees z_{t-1}
    last = (end - 0.99**0.5 * u) / 0.01**0.5
    assert_standard_normal(first)
    assert_standard_normal(last, first)
    torch.testing.assert_close(errors, oracle.offset.square().sum(1), atol=1e-5, rtol=1e-5)
    weight = 4 / 2 * 0.3 * (abar[block + 1] / (1 - abar[block + 1]) - abar[block] / (1 - abar[block]))
    cross_entropy = F.cross_entropy(oracle.classify(end), batch["label"]).item()
    expected = cross_entropy + divergence(u, 1e-4) + weight * errors.mean().item()
    assert objective.item() == pytest.approx(expected, rel=1e-5)


def test_discrete_weights_sum_to_what_the_ratio_gains():
    """Of two denoisers with known errors, in the same noise, only the weighted errors tell the objectives apart."""
    method, oracle, batch, u = led("discrete", num_layers=10, dtype=torch.float64, samples=8)
    weights = []
    for block in range(10):
        objectives = []
        for offset in (torch.zeros_like(u), torch.randn_like(u)):
            oracle.offset = offset
            torch.manual_seed(block)
            objectives.append(method.loss(batch, block)[0].item())
        weights.append((objectives[1] - objectives[0]) / offset.square().sum(1).mean().item())
    assert all(weight > 0 for weight in weights)
    assert sum(weights) == pytest.approx(10 / 2 * 0.1 * (0.99 / 0.01 - 1e-4 / (1 - 1e-4)))
    ratios = [abar / (1 - abar) for abar in cosine_schedule(10).tolist()]
    assert weights == pytest.approx([0.5 * (ratios[t + 1] - ratios[t]) for t in range(10)])


def test_continuous_loss_is_its_formula():
    method, oracle, batch, u = led("continuous", eta=0.7, samples=3000)
    oracle.offset = torch.randn(u.shape)
    objective, errors, level = method.loss(batch, 0)
    ((z, t, layers),), (end,) = oracle.calls, oracle.ends
    assert layers == list(oracle.layers) and level is None and not errors.requires_grad
    assert abs(t.mean() - 1 / 2) < 0.03 and abs(t.var() - 1 / 12) < 0.01 and t.min() >= 0 and t.max() < 1
    exact, h = copy.deepcopy(method.schedule).double(), 1e-6
    with torch.no_grad():
        abar, (first, last) = method.schedule(t), method.schedule(torch.tensor([0.0, 1.0]))
        low, high = exact(t.double() - h), exact(t.double() + h)
    noise = (z - abar[:, None].sqrt() * u) / (1 - abar[:, None]).sqrt()
    assert_standard_normal(noise, t)
    assert_standard_normal((end - last.sqrt() * u) / (1 - last).sqrt(), noise)
    torch.testing.assert_close(errors, oracle.offset.square().sum(1), atol=1e-5, rtol=1e-5)
    rate = (high / (1 - high) - low / (1 - low)) / (2 * h)  # of the signal-to-noise ratio, at each sample's own time
    cross_entropy = F.cross_entropy(oracle.classify(end), batch["label"]).item()
    weighted = 0.7 / 2 * (rate * errors).mean().item()
    assert abs(0.7 / 2 * (rate.mean() * errors.mean()).item() / weighted - 1) > 1e-3  # the two can be told apart
    assert objective.item() == pytest.approx(cross_entropy + divergence(u, first.item()) + weighted, rel=1e-4)


def test_continuous_weights_average_what_the_ratio_gains():
    method, oracle, batch, _ = led("continuous", eta=1.0, samples=50_000, classes=2, width=2)
    objectives = []
    for offset in (0.0, 0.5**0.5):
        oracle.offset = offset
        torch.manual_seed(1)
        objectives.append(method.loss(batch, 0)[0].item())
    gain = torch.tensor(3.5).exp() - torch.tensor(-3.0).exp()  # SNR = exp(-gamma)
    assert objectives[1] - objectives[0] == pytest.approx(gain.item() / 2, rel=0.03)  # a mean over drawn times


@pytest.mark.parametrize("learned", [True, False])
def test_flow_matching_loss_is_its_formula(learned):
    method, oracle, batch, u = led("flow_matching", learned=learned, samples=3000)
    oracle.offset = torch.randn(u.shape)
    objective, errors, level = method.loss(batch, 0)
    ((z, t, _),), wrong = oracle.calls, oracle.offset @ oracle.table.detach()
    assert abs(t.mean() - 1 / 2) < 0.03 and abs(t.var() - 1 / 12) < 0.01 and level is None and not errors.requires_grad
    early = t < 0.9
    assert_standard_normal(((z - t[:, None] * u) / (1 - t[:, None]))[early], t[early])
    torch.testing.assert_close(errors[early], wrong.square().sum(1)[early], atol=1e-3, rtol=1e-4)
    expected, ends = errors.mean().item(), list(oracle.ends)
    assert len(ends) == learned  # without embeddings that learn nothing needs the anchor
    for end in ends:
        torch.testing.assert_close(end, u + (1 - t[:, None]) * wrong, atol=1e-4, rtol=1e-4)
        expected += F.cross_entropy(oracle.classify(end), batch["label"]).item()
    assert objective.item() == pytest.approx(expected, rel=1e-5)


def test_the_true_velocity_has_no_loss():
    method, _, batch, _ = led("flow_matching", learned=False)
    assert method.loss(batch, 0)[0].item() < 1e-4


# What a loss reaches


def reached(method, block=0):
    """Names of the parameters that the objective of a block has a gradient for."""
    method.loss(BATCH, block)[0].backward()
    found = {name.removeprefix("models.all.") for name, value in method.named_parameters() if value.grad is not None}
    method.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("embedding", ["one_hot", "learned", "prototype"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_discrete_loss_reaches_its_own_layer_the_embeddings_and_the_head(block, embedding):
    method = real(num_layers=3, embedding=embedding)
    own = {f"layers.{block}.{name}" for name, _ in method.models["all"].layers[block].named_parameters()}
    labels = set() if embedding == "one_hot" else {"labels"}
    assert reached(method, block) == own | labels | {"head.weight", "head.bias"}


def test_discrete_loss_runs_its_own_layer_alone():
    method, run = real(num_layers=3), []
    for i, layer in enumerate(method.models["all"].layers):
        layer.register_forward_hook(lambda *_, i=i: run.append(i))
        layer.image.register_forward_hook(lambda *_, i=i: run.append(i))
    for block in (2, 0, 1):
        method.loss(BATCH, block)
    assert run == [2, 2, 0, 0, 1, 1]


def test_continuous_loss_reaches_all_of_network_and_schedule():
    method = real("continuous", embedding="learned")
    with torch.no_grad():
        method.schedule.ends.copy_(torch.tensor([3.0, -3.0]))
    method.loss(BATCH, 0)[0].backward()
    assert all(value.grad is not None for value in method.parameters())
    for name in ("ends", "slope", "offset", "out"):
        gradient = getattr(method.schedule, name).grad
        assert gradient.isfinite().all() and gradient.all(), name


@pytest.mark.parametrize("process", PROCESSES)
def test_the_gradient_is_of_the_objective_in_all_its_parts(process):
    """Against difference quotients: nothing is held fixed that embeddings, schedule, z and weights depend on."""
    method, oracle, batch, _ = led(process, samples=64)
    oracle.predict = lambda z, *_: z
    oracle.to_z = lambda prediction: prediction.tanh() @ (oracle.table.T @ oracle.table) / 9

    def objective():
        torch.manual_seed(1)
        return method.loss(batch, 0)[0]

    objective().backward()
    for value in [oracle.table, *([method.schedule.ends] if process == "continuous" else [])]:
        direction, h, found = torch.randn_like(value), 0.01, []
        for move in (h, -2 * h):
            with torch.no_grad():
                value += move * direction
            found.append(objective().item())
        with torch.no_grad():
            value += h * direction
        quotient = (found[0] - found[1]) / (2 * h)
        assert (value.grad * direction).sum().item() == pytest.approx(quotient, rel=5e-3)


def test_flow_matching_reaches_the_head_through_embeddings_that_learn():
    for embedding in ("learned", "prototype"):
        method = real("flow_matching", embedding=embedding)
        assert reached(method) == {name for name, _ in method.models["all"].named_parameters()}
    method = real("flow_matching", embedding="one_hot")
    layer = {f"layers.0.{name}" for name, _ in method.models["all"].layers[0].named_parameters()}
    assert reached(method) == layer


# The chain


def test_discrete_chain_follows_q_to_the_embedding_of_the_true_class():
    method, oracle, batch, u = led("discrete", classes=8, width=16, samples=2000, num_layers=10)
    eps = torch.randn(u.shape)
    (step,) = method.predict(batch, eps)
    assert (step.sigma, step.block) == (None, None) and step.prediction.shape == (2000, 8)
    assert torch.equal(step.prediction.argmax(1), batch["label"])
    assert [layers for _, _, layers in oracle.calls] == [[layer] for layer in oracle.layers]
    assert torch.equal(oracle.calls[0][0], eps)
    chain = [z for z, _, _ in oracle.calls] + oracle.ends
    for z, abar in zip(chain, cosine_schedule(10).tolist(), strict=True):
        distance = (z - abar**0.5 * u).square().mean().item()
        assert distance == pytest.approx(1 - abar, rel=0.05)  # at the end 0.01 a coordinate


def test_continuous_chain_is_the_process_it_was_trained_on():
    method, oracle, batch, u = led("continuous", samples=2000, width=16)
    with torch.no_grad():
        first = method.schedule(torch.zeros(1)).item()
        (step,) = method.predict(batch, first**0.5 * u + (1 - first) ** 0.5 * torch.randn(u.shape), num_steps=8)
        abar = method.schedule(torch.arange(9) / 8).tolist()
    assert torch.equal(step.prediction.argmax(1), batch["label"])
    for i, (z, t, _) in enumerate([*oracle.calls, (oracle.ends[0], torch.ones(2000), None)]):
        assert t.tolist() == [i / 8] * 2000
        distance = (z - abar[i] ** 0.5 * u).square().mean().item()
        assert distance == pytest.approx(1 - abar[i], rel=0.05)
        projected = ((z * u).sum() / u.square().sum()).item()
        assert projected == pytest.approx(abar[i] ** 0.5, abs=0.03)


@pytest.mark.parametrize("process", ["discrete", "continuous"])
def test_each_step_moves_towards_what_its_layer_denoised(process):
    """With a denoiser that errs, and the noise of each step drawn by hand."""
    method, oracle, batch, u = led(process, samples=5, num_layers=3 if process == "discrete" else 1)
    oracle.offset = torch.randn(u.shape)
    eps = torch.randn(u.shape)
    with torch.no_grad():
        torch.manual_seed(1)
        method.predict(batch, eps, num_steps=3)
        times = torch.arange(4) / 3
        abar = (cosine_schedule(3) if process == "discrete" else method.schedule(times)).tolist()
    torch.manual_seed(1)
    z = eps
    for before, after, seen in zip(abar[:-1], abar[1:], [z for z, _, _ in oracle.calls], strict=True):
        torch.testing.assert_close(seen, z)
        a, b, c = step_coefficients(before, after)
        z = a * (u + oracle.offset) + b * z + c**0.5 * torch.randn(z.shape)
    torch.testing.assert_close(oracle.ends[0], z)


@pytest.mark.parametrize("num_steps", [1, 3, 40])
def test_flow_matching_lands_on_the_embedding_of_the_true_class(num_steps):
    method, oracle, batch, u = led("flow_matching")
    eps = torch.randn(u.shape)
    (step,) = method.predict(batch, eps, num_steps=num_steps)
    assert (step.sigma, step.block) == (None, None)
    assert torch.equal(step.prediction.argmax(1), batch["label"])
    for i, (z, t, _) in enumerate(oracle.calls):
        assert t.tolist() == pytest.approx([i / num_steps] * 1000)
        torch.testing.assert_close(z, i / num_steps * u + (1 - i / num_steps) * eps, atol=1e-4, rtol=1e-4)
    distances = torch.cdist(u, oracle.table).square()  # of a z that is u itself
    torch.testing.assert_close(step.prediction, -distances, atol=1e-3, rtol=1e-3)


def test_flow_matching_answers_with_the_nearest_embedding():
    """Not with the one that points the same way: the embeddings have lengths of their own."""
    method, oracle, _, _ = led("flow_matching", samples=4, learned=False)
    oracle.table = torch.eye(6) * torch.tensor([1.0, 5.0, 1.0, 1.0, 1.0, 1.0])
    oracle.predict = lambda z, t, cond, layers: torch.zeros(len(z), 6)  # z stays where it starts
    z = torch.tensor([[1.0, 1.2, 0, 0, 0, 0], [0, 4.0, 0, 0, 0, 0]])
    (step,) = method.predict({"label": torch.zeros(2, dtype=torch.long)}, z, num_steps=2)
    assert step.prediction.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("process", ["continuous", "flow_matching"])
def test_a_long_chain_has_a_thousand_rising_times(process):
    method, oracle, batch, u = led(process, samples=2)
    with torch.no_grad():
        method.predict(batch, torch.randn(u.shape))
    assert [t[0].item() for _, t, _ in oracle.calls] == pytest.approx([i / 1000 for i in range(1000)])
    assert all(layers == list(oracle.layers) for _, _, layers in oracle.calls)


def test_discrete_chain_has_a_step_for_each_layer():
    method = real(num_layers=3).eval()
    run = []
    for i, layer in enumerate(method.models["all"].layers):
        layer.register_forward_hook(lambda *_, i=i: run.append(i))
    with torch.inference_mode():  # as evaluation does
        for num_steps in (None, 3):
            (step,) = method.predict(BATCH, torch.randn(12, *method.z_shape), num_steps=num_steps)
            assert step.prediction.shape == (12, 10) and run == [0, 1, 2]
            run.clear()
        for num_steps in (2, 4):
            with pytest.raises(ValueError, match=rf"num_steps is {num_steps}\b.* 3 layers"):
                method.predict(BATCH, torch.randn(12, *method.z_shape), num_steps=num_steps)


@pytest.mark.parametrize("process", ["continuous", "flow_matching"])
def test_a_long_chain_looks_at_the_image_once(process):
    method, run = real(process, embedding="learned").eval(), []
    (layer,) = method.models["all"].layers
    for name in ("image", "fuse"):
        getattr(layer, name).register_forward_hook(lambda *_, name=name: run.append(name))
    with torch.inference_mode():
        method.predict(BATCH, torch.randn(12, 20), num_steps=5)
        assert run == ["image"] + ["fuse"] * 5
        method.predict(BATCH, torch.randn(12, 20), num_steps=2)
        assert run[6:] == ["image", "fuse", "fuse"]  # another batch may bring other images


@pytest.mark.parametrize("process", PROCESSES)
def test_the_same_seed_gives_the_same_answer(process):
    method = real(process, num_layers=3 if process == "discrete" else 1).eval()
    eps, answers = torch.randn(12, *method.z_shape), []
    with torch.inference_mode():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            answers.append(method.predict(BATCH, eps, num_steps=3)[0].prediction)
        other = method.predict(BATCH, torch.randn(12, *method.z_shape), num_steps=3)[0].prediction
    assert torch.equal(answers[0], answers[1]) and not torch.allclose(answers[0], other)
    assert torch.equal(answers[0], answers[2]) == (
        process == "flow_matching"
    )  # the only chain without noise of its own


# What it builds


def test_only_the_discrete_process_keeps_the_time_from_its_layers():
    for process in PROCESSES:
        method = real(process)
        assert (
            method.models["all"].timed == (process != "discrete") == (method.models["all"].layers[0].time is not None)
        )
        assert hasattr(method, "schedule") == (process == "continuous")
    assert real(num_layers=3).blocks == [0, 1, 2]


@pytest.mark.parametrize("process", ["continuous", "flow_matching"])
def test_one_layer_serves_all_times(process):
    with pytest.raises(UserError, match=r"num_layers is 2, not 1"):
        build({**run_of(process, num_layers=2), "table": "table6", "row": "x"}, SHAPE, None)


# Learning


BLOCKWISE = {"name": "diffusionblocks", "num_blocks": 2, "overlap": 0.1, "loss_weight": "none"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "steps", "sampling"),
    [
        pytest.param(run_of("discrete", num_layers=2, embedding="learned"), 40, {}, id="discrete"),
        pytest.param(run_of("continuous", embedding="learned"), 175, {"num_steps": 20}, id="continuous"),
        # Longer embeddings stand out of the noise earlier.
        pytest.param(
            run_of("flow_matching", embedding="learned", target_norm=3.0), 100, {"num_steps": 20}, id="flow_matching"
        ),
        pytest.param(
            {**run_of(num_layers=2, embedding="learned"), "method": {"name": "end_to_end"}}, 75, {}, id="end_to_end"
        ),
        pytest.param({**run_of(num_layers=2), "method": BLOCKWISE}, 40, {"num_steps": 4}, id="diffusionblocks"),
    ],
)
def test_it_overfits_32_digits(run, steps, sampling):
    data, method = Digits(32, classes=5), build(run, SHAPE, None)
    train = {"batch_size": 32, "lr": 0.003, "min_lr": 0.003, "steps": steps, "warmup_steps": 5}
    for part in ("block0", "block1") if run["method"] is BLOCKWISE else ("all",):
        trainer = Trainer({**run, "train": train, "seed": 0}, part, data, torch.device("cpu"))
        for step in range(trainer.total):
            trainer.update(step)
        method.load_state_dict(trainer.weights(), strict=False)
    batch = {name: torch.cat([value] * 4) for name, value in data.train_batch(torch.arange(32)).items()}
    torch.manual_seed(0)
    eps = torch.randn(128, *method.z_shape) if method.z_shape else None
    with torch.inference_mode():
        answer = method.eval().predict(batch, eps, **sampling)[-1].prediction.argmax(1)
    assert torch.equal(answer, batch["label"])


@pytest.mark.parametrize("process", ["discrete", "continuous", "flow_matching"])
def test_an_update_after_a_kill_has_the_same_bits(process):
    """Batch norm's running statistics and the learned schedule are part of a checkpoint, as weights are."""
    run = run_of(process, num_layers=2 if process == "discrete" else 1)
    train = {"batch_size": 16, "lr": 0.003, "steps": 3, "ema": 0.9}
    first, second = (
        Trainer({**run, "train": train, "seed": 0}, "all", Digits(32, classes=5), torch.device("cpu")) for _ in range(2)
    )
    for step in range(3):
        first.update(step)
    second.restore({name: value.clone() for name, value in first.tensors().items()})
    first.update(3)
    second.update(3)
    mine, others = first.tensors(), second.tensors()
    assert mine.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in mine.items())

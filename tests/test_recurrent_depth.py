"""The recurrent-depth model against formulas, a truncated recurrence by hand and itself without caches."""

import math

import pytest
import torch
from helpers import shaken
from torch.nn import functional as F

from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.conditioning import modulate
from diffusionblocks.layers.huginn import initial_state
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method
from diffusionblocks.methods.end_to_end import Method as EndToEnd
from diffusionblocks.models.recurrent_depth import LOGIT_SCALE, Model

SHAPE = {"vocab_size": 23, "seq_len": 9}
SIZES = {"num_layers": 2, "prelude_layers": 1, "coda_layers": 1, "width": 16, "num_heads": 2, "mlp_width": 24}
SIZES |= {"mean_recurrence": 3, "bptt_steps": 2, "recurrences": 3}
BOTH = pytest.mark.parametrize("noise", [None, EDM()])


def network(noise=None, shake=0.1, shape=SHAPE, **options):
    """A model with noise on all weights, so that no zero of the initialisation hides anything."""
    torch.manual_seed(0)
    return shaken(Model(shape, noise, **{**SIZES, **options}), shake).eval()


def batch(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"tokens": torch.randint(SHAPE["vocab_size"], (count, SHAPE["seq_len"]), generator=generator)}


def noisy(model, tokens, sigma, seed=1):
    """z (N, n - 1, D) of the tokens at one level, and the level (N,)."""
    z0, sigma = model.target(tokens), torch.full((len(tokens["tokens"]),), sigma)
    return model.noise.corrupt(z0, sigma, torch.randn(z0.shape, generator=torch.Generator().manual_seed(seed))), sigma


# Sizes and initial weights


def count(**options):
    with torch.device("meta"):
        model = Model({"vocab_size": 32_000, "seq_len": 256}, **{"num_layers": 4, **options})
    return sum(value.numel() for value in model.parameters())


def test_paper_scale_parameter_counts():
    attention, mlp, norms = 4 * 512**2 + 2 * 512, 3 * 512 * 2048, 4 * 512
    shared = 32_000 * 512 + 2 * 512**2 + 512  # the table, which also reads, the adapter, the last norm
    assert count() == shared + 8 * (attention + mlp + norms) == 50_487_808
    adaptive, level, head = 86 * 6 * 512, 257 * 85 + 86 * 85, 86 * 2 * 512
    conditioned = attention + mlp + norms // 2 + adaptive
    assert count(noise=EDM()) == shared + 2 * (attention + mlp + norms) + 6 * conditioned + level + head == 52_184_035


def test_initial_weights_have_huginns_spread():
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "width": 128, "num_heads": 2, "mlp_width": 256, "mean_recurrence": 32}
    shape, std, cut = {"vocab_size": 2000, "seq_len": 8}, math.sqrt(2 / (5 * 128)), 0.98658  # deviation left by the cut
    for noise, depth in ((None, 36), (EDM(), 5)):
        model = Model(shape, noise, **sizes)
        layer = model.layers[0]
        gate, value = layer.mlp.gate_up.weight.chunk(2)
        for weight in (model.tokens.weight, model.adapter.weight, layer.attention.qkv.weight, gate):
            assert weight.std().item() == pytest.approx(cut * std, rel=0.02) and weight.abs().max() <= 3 * std
        for weight in (layer.attention.out.weight, layer.mlp.down.weight, value):
            assert weight.std().item() == pytest.approx(cut * std / math.sqrt(2 * depth), rel=0.02)
        assert all((norm.weight == 1).all() for norm in (layer.norm2, layer.norm4, model.norm))
        assert not layer.attention.qk_bias.any()
        if noise:
            assert not any(module.weight.any() for module in (layer.adaptive, model.head_adaptive))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_heads": 3}, "num_heads 3 .* width 16"), ({"num_heads": 16}, "even"), ({"bptt_steps": 0}, "at least 1")],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_initial_state_is_a_truncated_normal():
    eps = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    state = initial_state(eps) / math.sqrt(2 / 5)
    normal = torch.distributions.Normal(0.0, 1.0)
    below, above = normal.cdf(torch.tensor([-3.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close((normal.cdf(state) - below) / (above - below), normal.cdf(eps))  # equal quantiles
    assert (state.diff() >= 0).all() and state.abs().max() <= 3
    state = initial_state(torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    assert state.isfinite().all() and state.std().item() == pytest.approx(0.98658 * math.sqrt(2 / 5), rel=0.01)


# The plain network


@torch.no_grad()
def test_plain_network_by_hand():
    model, tokens = network(), batch()["tokens"]
    x = model.prelude[0](math.sqrt(16) * model.tokens.weight[tokens[:, :-1]])
    context, state = x, initial_state(torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    for _ in range(3):
        state = torch.cat([state, context], dim=-1) @ model.adapter.weight.T  # the state first
        for layer in model.layers:
            state = layer(state)
    logits = model.norm(model.coda[0](model.norm(state))) @ model.tokens.weight.T
    torch.testing.assert_close(model.end_to_end_prediction({"tokens": tokens}).full(), logits)
    losses = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(model.end_to_end_loss({"tokens": tokens}), losses.mean(1))


@torch.no_grad()
def test_layer_by_hand():
    layer, x = network().layers[0], torch.randn(2, 5, 16)

    def norm(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    inner = norm(x, layer.norm1.weight)
    q, k, v = (part.unflatten(-1, (2, 8)) for part in (inner @ layer.attention.qkv.weight.T).chunk(3, dim=-1))
    q, k = (part + bias.view(2, 8) for part, bias in zip((q, k), layer.attention.qk_bias, strict=True))
    angles = torch.arange(5)[:, None, None] / 50_000 ** (torch.arange(4) / 4)
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.complex(*part.chunk(2, dim=-1)) * turn for part in (q, k))
    scores = torch.einsum("nqhd,nkhd->nhqk", q, k.conj()).real / math.sqrt(8)
    weights = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf).softmax(-1)
    heads = torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2)
    middle = norm(x + heads @ layer.attention.out.weight.T, layer.norm2.weight)
    gate, value = (norm(middle, layer.norm3.weight) @ layer.mlp.gate_up.weight.T).chunk(2, dim=-1)
    expected = norm(middle + (F.silu(gate) * value) @ layer.mlp.down.weight.T, layer.norm4.weight)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_state_stays_bounded():
    model = network(shake=1.0)
    context, state = model.condition(batch()), torch.zeros(3, 8, 16)
    largest = model.layers[-1].norm4.weight.abs().max()
    for _ in range(5):
        state = model.refine(state, context, model.layers, (0, 40))
        assert state.isfinite().all() and state.square().mean(-1).sqrt().max() <= largest


def test_depth_is_log_normal_poisson():
    model = network(mean_recurrence=32, bptt_steps=8)
    torch.manual_seed(0)
    draws = [model.depth() for _ in range(4000)]
    torch.manual_seed(0)
    assert draws[:5] == [model.depth() for _ in range(5)]
    assert all(1 <= trained <= 8 and (trained == 8 or not without) for without, trained in draws)
    total = torch.tensor(draws).sum(1).double() - 1
    assert total.mean().item() == pytest.approx(32, abs=1.2)
    assert total.var().item() == pytest.approx(32 + 32**2 * (math.exp(0.25) - 1), rel=0.15)  # of the Poisson, the rate
    assert total.quantile(0.99) > 85 and total.min() < 8  # a Poisson of mean 32 alone: 46 and 15


def seed_with(model, wanted):
    """A seed with which a training step of the model has this depth."""
    for seed in range(1000):
        torch.manual_seed(seed)
        torch.randn(3, 8, 16)  # the initial state is drawn first
        if model.depth() == wanted:
            return seed
    raise AssertionError(f"no seed gives {wanted}")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_is_that_of_the_last_iterations(precision):
    """In bf16 too, where weights that were converted without gradients must not serve the iterations with them."""
    model, tokens = network().train(), batch()
    seed = seed_with(model, (3, 2))
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model.end_to_end_loss(tokens).mean()
    found = torch.autograd.grad(loss, list(model.parameters()))

    torch.manual_seed(seed)
    state, context = initial_state(torch.randn(3, 8, 16)), model.condition(tokens)
    for i in range(5):
        state = state.detach() if i <= 3 else state
        context_now = context.detach() if i < 3 else context
        state = model.adapter(torch.cat([state, context_now], dim=-1))
        for layer in model.layers:
            state = layer(state)
    logits = model.norm(model.coda[0](model.norm(state))) @ model.tokens.weight.T
    loss = F.cross_entropy(logits.flatten(0, 1), tokens["tokens"][:, 1:].flatten())
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), ours, theirs in zip(model.named_parameters(), found, expected, strict=True):
        assert theirs.norm() > 1e-4, name
        tolerance = 1e-4 if precision == "fp32" else 0.1
        assert (ours - theirs).norm() < tolerance * theirs.norm(), name


def ran(model, loss):
    """How many layers ran forward and backward while a loss was computed and differentiated."""
    forward, backward, hooks = [], [], []
    for layer in model.all_layers():
        hooks.append(layer.register_forward_hook(lambda *_: forward.append(1)))
        hooks.append(layer.register_full_backward_hook(lambda *_: backward.append(1)))
    loss().backward()
    for hook in hooks:
        hook.remove()
    return len(forward), len(backward)


@pytest.mark.parametrize("depth", [(3, 2), (0, 2), (0, 1)])
def test_layers_run_in_an_update(depth):
    sizes = {"num_layers": 3, "prelude_layers": 2, "coda_layers": 1}
    plain = network(**sizes).train()
    torch.manual_seed(seed_with(plain, depth))
    assert ran(plain, lambda: plain.end_to_end_loss(batch()).mean()) == (3 + 3 * sum(depth), 3 + 3 * depth[1])
    method = Method(Network(Model, SHAPE, **{**SIZES, **sizes}), num_blocks=1)
    assert ran(method.models["block0"], lambda: method.loss(batch(), 0)[0]) == (6, 6)


def test_training_starts_anew_each_time_and_evaluation_does_not():
    model, tokens = network(), batch()
    assert torch.equal(model.end_to_end_loss(tokens), model.end_to_end_loss(tokens))
    model.train()
    torch.manual_seed(0)
    first, second = model.end_to_end_loss(tokens), model.end_to_end_loss(tokens)
    torch.manual_seed(0)
    assert torch.equal(model.end_to_end_loss(tokens), first) and not torch.equal(first, second)


# The denoiser


@pytest.mark.parametrize("target_norm", [1.0, 0.3])
def test_targets_have_the_given_norm(target_norm):
    model, tokens = network(EDM(), target_norm=target_norm), batch()
    target = model.target(tokens)
    rows = model.tokens.weight[tokens["tokens"][:, 1:]]
    torch.testing.assert_close(target, target_norm * rows / rows.norm(dim=-1, keepdim=True))
    assert target.shape == (3, *model.z_shape) and target.requires_grad  # the table learns through the loss


@pytest.mark.parametrize("target_norm", [1.0, 0.3])
@torch.no_grad()
def test_denoiser_by_hand(target_norm):
    model, tokens = network(EDM(), target_norm=target_norm), batch(4)
    z, sigma = torch.randn(4, 8, 16), torch.tensor([0.002, 0.2, 1.0, 80.0])
    context = model.prelude[0](4 * model.tokens.weight[tokens["tokens"][:, :-1]])
    torch.testing.assert_close(model.condition(tokens), context)
    total, level = (sigma**2 + 0.25)[:, None, None], model.level(sigma.log() / 4)
    x = model.adapter(torch.cat([z / total.sqrt(), context], dim=-1))
    for layer in model.layers:
        x = layer(x, level)
    out = target_norm * 2 / 4 * model.norm(model.coda[0](model.norm(x), level))
    denoised = 0.25 / total * z + 0.5 * sigma[:, None, None] / total.sqrt() * out
    shift, scale = F.linear(F.silu(level), *model.head_adaptive.parameters()).chunk(2, dim=1)
    cosines = modulate(denoised, shift, scale) @ F.normalize(model.tokens.weight).T / target_norm
    logits = model.predict(z, sigma, context, model.layers)
    torch.testing.assert_close(logits.full(), LOGIT_SCALE * cosines)

    wanted = tokens["tokens"][:, 1:]
    nats = -(LOGIT_SCALE * cosines).log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
    torch.testing.assert_close(model.loss(logits, tokens, None), nats.mean(1))
    losses, correct, probability = model.scores(logits, tokens)
    torch.testing.assert_close(losses, nats.mean(1))
    torch.testing.assert_close(correct, (cosines.argmax(-1) == wanted).float().mean(1))
    torch.testing.assert_close(probability, (-nats).exp().mean(1))
    table = target_norm * F.normalize(model.tokens.weight)
    torch.testing.assert_close(model.to_z(logits), (LOGIT_SCALE * cosines).softmax(-1) @ table)
    torch.testing.assert_close(model.to_z(logits, hard=True), table[cosines.argmax(-1)])


@torch.no_grad()
def test_layer_is_shifted_scaled_and_gated_by_the_level():
    layer = network(EDM()).layers[0]
    x, level = torch.randn(2, 5, 16), torch.randn(2, 2)
    by_hand = F.linear(F.silu(level), *layer.adaptive.parameters())
    shift1, scale1, gate1, shift2, scale2, gate2 = by_hand[:, None].split(16, dim=2)
    inner = F.rms_norm(x, (16,), eps=1e-6) * (1 + scale1) + shift1
    middle = layer.norm2(x + (1 + gate1) * layer.attention(inner))
    inner = F.rms_norm(middle, (16,), eps=1e-6) * (1 + scale2) + shift2
    torch.testing.assert_close(layer(x, level), layer.norm4(middle + (1 + gate2) * layer.mlp(inner)))


@torch.no_grad()
def test_layer_starts_as_the_plain_one():
    conditioned, plain = network(EDM(), shake=0.0).layers[0], network().layers[0]
    for norm in (plain.norm1, plain.norm3):
        torch.nn.init.ones_(norm.weight)
    plain.load_state_dict({**plain.state_dict(), **conditioned.state_dict()}, strict=False)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(conditioned(x, torch.randn(2, 2)), plain(x))


@torch.no_grad()
def test_at_low_noise_the_answer_is_read_off_from_the_start():
    model = network(EDM(), shake=0.0, width=64)
    tokens = batch()
    z, sigma = noisy(model, tokens, 0.01)
    assert model.loss(model.predict(z, sigma, model.condition(tokens), model.layers), tokens).max() < 0.01
    z, sigma = noisy(model, tokens, 80.0)  # and where z says nothing, it is not far off an even guess
    assert model.loss(model.predict(z, sigma, model.condition(tokens), model.layers), tokens).max() < 2 * math.log(23)


@torch.no_grad()
def test_denoiser_sees_level_context_and_z():
    model, tokens = network(EDM(), shake=0.3), batch()
    z, sigma = noisy(model, tokens, 1.0)
    cond = model.condition(tokens)
    base = model.predict(z, sigma, cond, model.layers).hidden
    for changed in ((-z, sigma, cond), (z, 2 * sigma, cond), (z, sigma, cond.flip(0))):
        assert not torch.allclose(model.predict(*changed, model.layers).hidden, base, atol=1e-2)
    assert not torch.allclose(model.predict(z, sigma, cond, model.layers[:1]).hidden, base, atol=1e-2)


# Nothing sees what it must predict


@BOTH
@pytest.mark.parametrize("i", [0, 3, 7])
@torch.no_grad()
def test_a_token_changes_only_what_comes_after_it(noise, i):
    model, tokens = network(noise, shake=0.3).double(), batch()
    other = {"tokens": tokens["tokens"].clone()}
    other["tokens"][:, i] = (other["tokens"][:, i] + 1) % 23
    if noise:
        z, sigma = noisy(model, tokens, 1.0)
        before, after = (model.predict(z, sigma, model.condition(it), model.layers).hidden for it in (tokens, other))
    else:
        before, after = (model.end_to_end_prediction(it).hidden for it in (tokens, other))
    difference = (before - after).abs().amax((0, 2))  # index j predicts token j + 1
    assert difference[:i].sum() == 0 and (difference[i:] > 1e-6).all()


@pytest.mark.parametrize("i", [0, 3, 7])
@torch.no_grad()
def test_a_noisy_token_changes_nothing_before_it(i):
    model, tokens = network(EDM(), shake=0.3).double(), batch()
    z, sigma = noisy(model, tokens, 1.0)
    other = z.clone()
    other[:, i] += 1
    before, after = (model.predict(it, sigma, model.condition(tokens), model.layers).hidden for it in (z, other))
    difference = (before - after).abs().amax((0, 2))
    assert difference[:i].sum() == 0 and (difference[i:] > 1e-6).all()


# Generation


@torch.no_grad()
def test_plain_generation_with_caches_is_generation_without():
    model, tokens = network(shake=0.3).double(), batch()
    eps = torch.randn(3, 9, 16, dtype=torch.float64)
    context = model.condition(tokens)
    state = model.refine(initial_state(eps[:, 1:]), context, model.layers, (0, 3))
    expected = model._coda(state)
    for prompt in (1, 3):
        session = model.begin(tokens["tokens"][:, :prompt], model.layers, 9, eps)
        for i in range(prompt, 9):
            torch.testing.assert_close(session.predict().hidden, expected[:, i - 1], rtol=1e-10, atol=1e-10)
            session.append(tokens["tokens"][:, i])


@torch.no_grad()
def test_denoising_with_caches_is_denoising_without():
    """Generated positions keep the z that they had at each step; those of the prompt are the known tokens, noised."""
    model, tokens = network(EDM(), shake=0.3).double(), batch()
    eps, sigmas = torch.randn(3, 9, 16, dtype=torch.float64), EDM().levels(4)
    for prompt in (1, 3):
        session = model.begin(tokens["tokens"][:, :prompt], model.layers, 9, eps)
        chains = torch.randn(4, 3, 9, 16, dtype=torch.float64)  # any z at all
        found = torch.zeros_like(chains)
        for i in range(prompt, 9):
            for step, sigma in enumerate(sigmas):
                found[step, :, i] = session.predict(chains[step, :, i], sigma, step).hidden
            session.append(tokens["tokens"][:, i])
        for step, sigma in enumerate(sigmas):
            z = chains[step, :, 1:].clone()
            z[:, : prompt - 1] = model.target(tokens)[:, : prompt - 1] + sigma * eps[:, 1:prompt]
            level = torch.full((3,), sigma, dtype=torch.float64)
            expected = model.predict(z, level, model.condition(tokens), model.layers).hidden
            torch.testing.assert_close(found[step, :, prompt:], expected[:, prompt - 1 :], rtol=1e-10, atol=1e-10)


def fit(loss, parameters, steps, lr):
    optimizer = torch.optim.Adam(parameters, lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, 2 - 2 * step / steps)
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def sixteen():
    """Sequences that their first token tells apart; if it came again at once, nothing would tell the two apart."""
    tokens = 16 + batch(16)["tokens"] % 7
    tokens[:, 0] = torch.arange(16)
    return {"tokens": tokens}


def test_plain_network_learns_sequences_by_heart_and_writes_them():
    torch.manual_seed(0)
    method, data = EndToEnd(Network(Model, SHAPE, **SIZES | {"width": 32})), sixteen()
    fit(lambda: method.loss(data, 0)[0], list(method.parameters()), 100, 0.01)
    method.eval()
    with torch.no_grad():
        assert method.loss(data, 0)[1].max() < 0.05
        written = method.extend(data["tokens"][:, :1], torch.randn(16, 9, 32), torch.full((16, 9), 0.5))
    assert torch.equal(written, data["tokens"])


@pytest.mark.slow
def test_denoiser_learns_sequences_by_heart_and_writes_them():
    torch.manual_seed(0)
    network = Network(Model, SHAPE, **SIZES | {"width": 32})
    method, data = Method(network, num_blocks=1, p_mean=1.5, loss_weight="none"), sixteen()
    fit(lambda: method.loss(data, 0)[0], list(method.parameters()), 150, 0.01)
    method.eval()
    eps = torch.randn(16, 9, 32)
    with torch.no_grad():
        first, *_, last = method.predict(data, eps[:, 1:], num_steps=4)
        for step in (first, last):
            losses, correct, _ = method.scores(step, data)
            assert losses.max() < 0.05 and correct.min() == 1
        written = method.extend(data["tokens"][:, :1], eps, None, num_steps=4)
    assert first.sigma == 80 and torch.equal(written, data["tokens"])

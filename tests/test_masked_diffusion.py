"""The masked diffusion model by hand, its bound against known answers, what it may see, and that it learns by heart."""

import math

import pytest
import torch
from helpers import shaken as shaken_in_training
from torch.nn import functional as F

from diffusionblocks.diffusion.masking import MASK, Masking
from diffusionblocks.layers.conditioning import modulate, sinusoid
from diffusionblocks.layers.vocabulary import Logits
from diffusionblocks.methods import build
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method
from diffusionblocks.models.masked_diffusion import Layer, Model
from diffusionblocks.training.trainer import Trainer

CPU = torch.device("cpu")
TEXT8 = {"vocab_size": 27, "seq_len": 256}
TINY = {"vocab_size": 27, "seq_len": 10}
SIZES = {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48, "dropout": 0.0}
EPS = 1e-4  # of the schedule


def generator(seed):
    return torch.Generator().manual_seed(seed)


def shaken(module, scale=0.1):
    return shaken_in_training(module, scale).eval()


def mdm(shape=TINY, shake=0.1, **options):
    torch.manual_seed(0)
    return shaken(Model(shape, Masking(), **{**SIZES, **options}), shake)


def method(num_blocks=3, model=Model, shake=0.1, shape=TINY, **options):
    """DiffusionBlocks of such models, one layer a block where there are three."""
    torch.manual_seed(0)
    network = Network(model, shape, **SIZES)
    return shaken(Method(network, num_blocks=num_blocks, loss_weight="per_sample", **options), shake)


def tokens(n=4, shape=TINY, seed=1):
    return torch.randint(shape["vocab_size"], (n, shape["seq_len"]), generator=generator(seed))


def masked(z0, share=0.5, seed=2):
    return z0.where(torch.rand(z0.shape, generator=generator(seed)) < share, MASK)


def spread(n, seed=3):
    """Levels (n,) at equal distances in [0, 1), and uniforms (n, seq_len)."""
    return (torch.arange(n) + 0.5) / n, torch.rand(n, TINY["seq_len"], generator=generator(seed))


# Sizes


def count(**options):
    with torch.device("meta"):
        return sum(value.numel() for value in Model(TEXT8, Masking(), **options).parameters())


def formula(depth, d=768, vocabulary=27, c=128):
    """Weights and biases added up by hand."""
    layer = 2 * d + 4 * d * d + (4 * d * d + 4 * d) + (4 * d * d + d) + (c * 6 * d + 6 * d)
    level = 256 * c + c + c * c + c
    return (vocabulary + 1) * d + level + depth * layer + d + (c * 2 * d + 2 * d) + d * vocabulary


@pytest.mark.parametrize(("depth", "parameters"), [(12, 92_422_912), (4, 31_001_344)])  # all of it, a block of three
def test_paper_scale_parameter_counts(depth, parameters):
    assert count(num_layers=depth) == parameters == formula(depth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads 5 must divide the width 24"),
        ({"num_heads": 8}, "heads of even size"),
        ({"num_heads": 0}, "num_heads 0 must divide the width 24"),
        ({"noise": None}, "it needs noise"),
        ({"target_norm": 0.5}, r"target_norm must be 1$"),
        ({"qk_bias": -1.0}, r"qk_bias -1.0 must be at least 0"),
        ({"rotary_base": 0.5}, r"rotary_base 0.5 at least 1$"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Model(TINY, **{"noise": Masking(), **SIZES, **options})


# Parts


@pytest.mark.parametrize(("base", "biased"), [(10_000, False), (100, True)])
def test_layer_by_hand(base, biased):
    """SEDD's order, with rotary positions as complex numbers and the softmax written out."""
    torch.manual_seed(0)
    layer, heads, t = shaken(Layer(24, 2, 48, 0.1, base, biased)), 2, 7
    x, level = torch.randn(3, t, 24), torch.randn(3, 128)
    shift1, scale1, gate1, shift2, scale2, gate2 = F.linear(level, *layer.adaptive.parameters())[:, None].split(
        24, dim=2
    )

    def normalised(x, norm):
        return (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt() * norm.weight

    def turned(x):  # (N, T, H, 12): features i and i + 6 are one complex number
        angles = torch.arange(t)[:, None] / base ** (torch.arange(6) / 6)
        value = torch.complex(x[..., :6], x[..., 6:]) * torch.polar(torch.ones(t, 6), angles)[:, None]
        return torch.cat([value.real, value.imag], dim=-1)

    inner = normalised(x, layer.norm1) * (1 + scale1) + shift1
    q, k, v = (part.view(3, t, heads, 12) for part in (inner @ layer.attention.qkv.weight.T).split(24, dim=2))
    if biased:
        q, k = (side + bias for side, bias in zip((q, k), layer.attention.qk_bias[:, 0, :, 0], strict=True))
    weights = torch.einsum("nqhd,nkhd->nhqk", turned(q), turned(k)).div(math.sqrt(12)).softmax(-1)
    attended = torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2) @ layer.attention.out.weight.T
    expected = x + gate1 * attended
    hidden = layer.mlp.up(normalised(expected, layer.norm2) * (1 + scale2) + shift2)
    hidden = hidden / 2 * (1 + (math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)).tanh())
    expected = expected + gate2 * layer.mlp.down(hidden)
    torch.testing.assert_close(layer(x, level), expected)


def test_dropout_on_both_branches():
    """With all of it gone a layer is the identity: nothing bypasses the dropout."""
    layer = shaken(Layer(24, 2, 48, 1.0)).train()
    x, level = torch.randn(3, 7, 24), torch.randn(3, 128)
    assert torch.equal(layer(x, level), x)
    assert not torch.allclose(layer.eval()(x, level), x)


@torch.no_grad()
def test_starts_as_the_identity_and_a_uniform_prediction():
    model, z = mdm(shake=0.0), masked(tokens())
    x, level = torch.randn(4, 10, 24), torch.randn(4, 128)
    assert all(torch.equal(layer(x, level), x) for layer in model.layers)
    assert not model.predict(z, torch.rand(4), None, model.layers).full().any()
    torch.nn.init.normal_(model.head.weight)  # only the zero head held it
    assert model.predict(z, torch.rand(4), None, model.layers).full().any()


def test_initial_weights_have_sedds_spread():
    model = Model(TEXT8, Masking(), num_layers=1, width=64, num_heads=4, mlp_width=256)
    for weight in (model.tokens.weight, model.layers[0].attention.qkv.weight, model.layers[0].mlp.up.weight):
        assert weight.abs().max() <= 64**-0.5 and weight.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)
    for linear in (model.head_adaptive, model.layers[0].adaptive):
        assert not linear.weight.any() and not linear.bias.any()


def test_biases_of_queries_and_keys_have_the_deviation_asked_for_and_nothing_else_moves():
    wide = {"num_layers": 2, "width": 256, "num_heads": 4, "mlp_width": 8}
    plain, biased = (mdm(shake=0.0, **wide, qk_bias=deviation) for deviation in (0.0, 2.5))
    for layer in biased.layers:
        assert layer.attention.qk_bias.std().item() == pytest.approx(2.5, rel=0.1)
        assert abs(layer.attention.qk_bias.mean().item()) < 0.4
    usual, found = plain.state_dict(), biased.state_dict()
    assert found.keys() - usual.keys() == {f"layers.{i}.attention.qk_bias" for i in range(2)}
    assert all(torch.equal(found[name], value) for name, value in usual.items())


@torch.no_grad()
def test_where_all_is_masked_the_biases_alone_tell_positions_apart():
    """So that neighbours can be asked for before a query has learned anything: the keys of the biases are rotated."""
    z = torch.full((1, 10), MASK)
    for deviation in (0.0, 2.5):
        model = mdm(shake=0.0, qk_bias=deviation, rotary_base=100)
        attention = model.layers[0].attention
        q, k, _ = attention.project(model.layers[0].norm1(model.tokens(z.where(z != MASK, 27))))
        weights = (q @ k.mT / 12**0.5).softmax(-1)
        assert (weights.max() > 0.5).item() == (deviation > 0)


@torch.no_grad()
def test_prediction_by_hand():
    model, z, t = mdm(), masked(tokens()), torch.tensor([0.0, 0.013, 0.5, 1.0])
    entered, left = [], []
    model.layers[0].register_forward_pre_hook(lambda _, arguments: entered.append(arguments))
    model.layers[-1].register_forward_hook(lambda _, arguments, output: left.append(output))
    found = model.predict(z, t, model.condition({"tokens": tokens()}), model.layers).full()

    ((x, level),) = entered
    assert torch.equal(x[z == MASK], model.tokens.weight[27].expand((z == MASK).sum(), -1))
    assert torch.equal(x[z != MASK], model.tokens.weight[z[z != MASK]])
    first, second = model.level[0], model.level[2]
    torch.testing.assert_close(level, F.silu(second(F.silu(first(sinusoid(1000 * t))))))
    shift, scale = F.linear(level, *model.head_adaptive.parameters()).chunk(2, dim=1)
    normalised = F.layer_norm(left[0], (24,), model.norm.weight)
    torch.testing.assert_close(found, modulate(normalised, shift, scale) @ model.head.weight.T)
    assert found.shape == (4, 10, 27)  # never MASK


def test_loss_by_hand():
    """Masked tokens alone, divided by all; visible ones give no loss and no gradient."""
    z0 = tokens()
    z = masked(z0)
    hidden = torch.randn(4, 10, 24, generator=generator(5)).requires_grad_()
    head = torch.randn(27, 24, generator=generator(6))
    losses = mdm().loss(Logits(hidden, head), {"tokens": z0}, z)
    chances = (hidden @ head.T).softmax(-1)
    for i in range(4):
        where = [j for j in range(10) if z[i, j] == MASK]
        assert 0 < len(where) < 10
        expected = -sum(chances[i, j, z0[i, j]].log() for j in where) / 10
        torch.testing.assert_close(losses[i], expected)
    losses.sum().backward()
    assert torch.equal(hidden.grad.any(2), z == MASK)


@torch.no_grad()
def test_scores_and_likeliest_tokens():
    model, z0 = mdm(), tokens()
    logits = model.predict(masked(z0), torch.full((4,), 0.5), None, model.layers)
    chances = logits.full().softmax(-1)
    true = chances.gather(2, z0[..., None])[..., 0]
    losses, correct, probability = model.scores(logits, {"tokens": z0})
    torch.testing.assert_close(losses, -true.log().mean(1))
    torch.testing.assert_close(probability, true.mean(1))
    assert torch.equal(model.to_z(logits), chances.argmax(2))
    torch.testing.assert_close(correct, (chances.argmax(2) == z0).float().mean(1))


# What it may see


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_a_masked_tokens_true_value_reaches_nothing_but_the_loss(num_blocks):
    """Two texts that differ where they are masked give the same predictions, in training and in the bound."""
    found, blocks = method(num_blocks), range(num_blocks)
    u, eps = spread(40)
    hidden = eps >= found.noise.keep(u)[:, None]
    z0 = tokens(40)
    other = z0.where(~hidden, (z0 + 1) % 27)
    seen = []
    for model in found.models.values():
        predict = model.predict
        model.predict = lambda *arguments, predict=predict: seen.append(predict(*arguments)) or seen[-1]
    bounds = [found.bound({"tokens": text}, u, eps) for text in (z0, other)]
    assert len(seen) == 2 * num_blocks
    for block in blocks:
        assert torch.equal(seen[block].hidden, seen[num_blocks + block].hidden)
    changed = (bounds[0] - bounds[1]).abs() > 1e-6
    assert torch.equal(changed, hidden.any(1))


@torch.no_grad()
def test_every_visible_token_matters_to_every_other_position():
    model, z, t = mdm(), tokens(1), torch.tensor([0.3])
    z[0, ::3] = MASK

    def logits(z):
        return model.predict(z, t, None, model.layers).full()[0]

    before = logits(z)
    for j in range(10):
        changed = z.clone()
        changed[0, j] = 5 if z[0, j] != 5 else 6  # also in place of a MASK: then something more is known
        assert ((logits(changed) - before).abs().amax(1) > 1e-5).all()
    swapped = z.clone()
    swapped[0, [1, 8]] = z[0, [8, 1]]
    assert z[0, 1] != z[0, 8] and ((logits(swapped) - before).abs().amax(1) > 1e-5).all()  # positions count


@torch.no_grad()
def test_all_masked_positions_are_alike_until_a_token_is_visible():
    """Rotary positions are relative alone: what suits windows of one long text, and not texts with a fixed place."""
    model, z, t = mdm(), torch.full((1, 10), MASK), torch.ones(1)
    logits = model.predict(z, t, None, model.layers).full()[0]
    torch.testing.assert_close(logits, logits[:1].expand(10, -1))
    z[0, 3] = 5
    logits = model.predict(z, t, None, model.layers).full()[0]
    assert (torch.cdist(logits, logits) + torch.eye(10)).min() > 1e-3


@torch.no_grad()
def test_prediction_sees_the_level_and_no_other_text():
    model, z, t = mdm(), masked(tokens()), torch.tensor([0.1, 0.4, 0.7, 1.0])
    together = model.predict(z, t, None, model.layers).full()
    for i in range(4):
        alone = model.predict(z[i : i + 1], t[i : i + 1], None, model.layers).full()
        torch.testing.assert_close(together[i : i + 1], alone)
        elsewhere = model.predict(z[i : i + 1], t[i : i + 1] - 0.05, None, model.layers).full()
        assert (alone - elsewhere).abs().max() > 1e-4


# The bound


def test_weight_integrates_to_one():
    """weight(t) times the masked share 1 - alpha(t) is -alpha'(t): its integral is alpha(0) - alpha(1)."""
    noise, t = Masking(), (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    torch.testing.assert_close(noise.weight(t) * (1 - noise.keep(t)), torch.full_like(t, 1 - 2 * EPS))
    assert noise.keep(0.0) - noise.keep(1.0) == pytest.approx(1 - 2 * EPS)


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_bits_per_character_of_a_uniform_predictor(num_blocks):
    """At first every prediction is uniform: each masked token costs ln 27, and the integral is log2 27 bits.

    MD4's squeezed schedule covers all of alpha but the last eps, which its prior leaves uncounted: (1 - eps) log2 27.
    """
    found, n = method(num_blocks, shake=0.0), 4000
    u, eps = spread(n)
    bound = found.bound({"tokens": tokens(n)}, u, eps)
    share = (eps >= found.noise.keep(u)[:, None]).float().mean(1)
    torch.testing.assert_close(bound, (found.noise.weight(u) * share + EPS) * math.log(27))
    # The share is 1 - alpha(t) on average, with a variance that is weighed by 1/t^2.
    expected = (found.noise.weight(u) * (1 - found.noise.keep(u)) + EPS) * math.log(27)
    assert expected.mean().item() / math.log(2) == pytest.approx((1 - EPS) * math.log2(27), rel=1e-5)
    assert bound.mean().item() == pytest.approx(expected.mean().item(), rel=0.06)


class IgnoresLayers(Model):
    """Uses all of its layers, whatever it is asked for: all blocks of a `joint` method are then the same network."""

    def predict(self, z, t, cond, layers):
        return super().predict(z, t, cond, self.layers)


@torch.no_grad()
@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_bounds_of_blocks_add_up_to_the_bound_of_the_one_network(overlap):
    whole = method(1, IgnoresLayers, sharing="joint")
    blocks = method(3, IgnoresLayers, sharing="joint", overlap=overlap)
    (u, eps), batch = spread(300), {"tokens": tokens(300)}
    expected, found = whole.bound(batch, u, eps), blocks.bound(batch, u, eps)
    torch.testing.assert_close(found, expected)
    recon = EPS * math.log(27)
    parts = []
    for block in range(3):
        inside = (u > blocks.boundaries[block + 1]) & (u <= blocks.boundaries[block])
        assert inside.sum() == 100 and all(blocks.owner(t) == block for t in u[inside].tolist())
        part = blocks.bound({"tokens": batch["tokens"][inside]}, u[inside], eps[inside]) - recon
        parts.append(part.mean().item() / 3)  # times the width of its interval
    assert sum(parts) + recon == pytest.approx(expected.mean().item(), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sharing", ["independent", "joint"])
def test_each_level_is_scored_by_the_layers_of_its_owner(sharing):
    """On the exact intervals, though blocks have trained beyond them; block 0 has the most masked texts."""
    found = method(3, sharing=sharing, overlap=0.3)
    u, eps = torch.tensor([0.999, 0.67, 0.66, 0.34, 0.33, 0.001]), torch.full((6, 10), 0.9995)
    before = found.bound({"tokens": tokens(6)}, u, eps)
    for block in range(3):
        changed = method(3, sharing=sharing, overlap=0.3)
        shaken(changed.acting(block)[1], 0.5)
        off = (changed.bound({"tokens": tokens(6)}, u, eps) - before).abs() > 1e-5
        assert off.tolist() == [i // 2 == block for i in range(6)]


class Posterior(Model):
    """The perfect predictor of a few texts that are equally likely: the share of those that fit what is visible."""

    texts = torch.randint(27, (5, 10), generator=generator(7))

    def predict(self, z, t, cond, layers):
        fits = ((z[:, None] == self.texts) | (z[:, None] == MASK)).all(2).float()  # (N, texts)
        chances = torch.einsum("nk,ktv->ntv", fits / fits.sum(1, keepdim=True), F.one_hot(self.texts, 27).float())
        return Logits(chances.clamp(min=1e-30).log(), torch.eye(27))


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_bound_of_a_perfect_predictor_is_the_entropy(num_blocks):
    """In any order the chain rule gives -ln p(text) = ln 5 for a text of ten tokens."""
    (u, eps), which = spread(20_000), torch.arange(20_000) * 3 % 5
    bound = method(num_blocks, Posterior).bound({"tokens": Posterior.texts[which]}, u, eps)
    recon = EPS * math.log(27)
    assert 10 * (bound - recon).mean().item() == pytest.approx(math.log(5), rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_sampler_with_a_perfect_predictor_reproduces_the_data(num_blocks):
    draws = torch.rand(500, 400, 10, generator=generator(8))
    *_, (_, last) = method(num_blocks, Posterior).sample([{}], [draws], CPU, num_steps=400)
    which = (last.prediction[:, None] == Posterior.texts).all(2)
    assert which.any(1).float().mean() > 0.98  # in one step two texts may each give a token
    assert (which.sum(0) - 100).abs().max() < 4 * math.sqrt(500 * 0.2 * 0.8)


# Training


@pytest.mark.parametrize(("block", "interval"), [(0, (0.9 * 2 / 3 + 0.1 / 3, 1)), (2, (0, 1 / 3 * 1.1))])
def test_training_levels_are_at_equal_distances_in_the_blocks_interval(block, interval):
    found, (low, high) = method(3, overlap=0.1), interval
    assert found.intervals[block] == pytest.approx((low, high))
    starts = []
    for _ in range(5):
        objective, losses, t = found.loss({"tokens": tokens(16)}, block)
        assert t.min() >= low - 1e-6 and t.max() <= high + 1e-6
        torch.testing.assert_close(t.sort().values.diff(), torch.full((15,), (high - low) / 16))
        torch.testing.assert_close(objective.detach(), (found.noise.weight(t) * losses).mean())
        starts.append(t.min().item())
    assert len(set(starts)) == 5


class SixteenTexts:
    """Windows of eight letters on a ring of sixteen, four times over for larger batches.

    A ring, because at first all positions look alike: a letter that belongs in one place alone would be misplaced.
    """

    shape, train_size, train_device = {"vocab_size": 27, "seq_len": 8}, 64, CPU
    texts = torch.randperm(27, generator=generator(9))[(torch.arange(16)[:, None] + torch.arange(8)) % 16]

    def train_batch(self, indices, augmentations=()):
        return {"tokens": self.texts[indices % 16]}


@pytest.mark.slow
def test_blocks_that_never_met_know_texts_by_heart_and_write_them():
    data = SixteenTexts()
    sizes = {"num_layers": 2, "width": 64, "num_heads": 8, "mlp_width": 128, "dropout": 0.0}
    train = {"batch_size": 64, "lr": 0.01, "steps": 350, "warmup_steps": 20, "weight_decay": 0.0, "clip": 10.0}
    run = {
        "model": {"name": "masked_diffusion", **sizes},
        "method": {"name": "diffusionblocks", "num_blocks": 2, "loss_weight": "per_sample"},
        "train": {**train, "betas": [0.9, 0.95], "ema": 0.99},
        "seed": 0,
    }
    trained = build(run, data.shape, None).eval()
    for block in range(2):
        trainer = Trainer(run, f"block{block}", data, CPU)
        for step in range(trainer.total):
            trainer.update(step)
        trained.load_state_dict(trainer.weights(), strict=False)

    n = 1600
    batch, u = {"tokens": data.texts[torch.arange(n) % 16]}, (torch.arange(n) * 7 % n + 0.5) / n
    visible = torch.rand(n, 8, generator=generator(11)).argsort(1)[:, :3]
    few = torch.ones(n, 8).scatter_(1, visible, 0.0)  # uniforms that leave three letters
    draws = torch.rand(160, 128, 8, generator=generator(12))
    with torch.no_grad():
        nats = 8 * trained.bound(batch, u, torch.rand(n, 8, generator=generator(10))).mean().item()
        given_three = trained.bound(batch, torch.full((n,), 0.6), few).mean().item()
        *_, (_, last) = trained.sample([{}], [draws], CPU, num_steps=128)
    assert 0.95 * math.log(16) < nats < 1.2 * math.log(16)  # the entropy: no predictor needs less than ln 16
    assert given_three < 0.03  # of ln 27 before training
    found = (last.prediction[:, None] == data.texts).all(2)
    assert found.any(1).float().mean() > 0.8 and found.any(0).all()  # two letters of one step may disagree

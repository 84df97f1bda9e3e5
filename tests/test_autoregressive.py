"""The autoregressive model: nothing leaks, caches change nothing, and it learns what it is shown."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffusionblocks.data.chance import Chance
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.layers.text import rotate
from diffusionblocks.methods.base import Network
from diffusionblocks.methods.diffusionblocks import Method
from diffusionblocks.models.autoregressive import Layer, Model, before_and_itself
from diffusionblocks.training.trainer import Trainer

TINY = {"vocab_size": 11, "seq_len": 8}
SIZES = {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 40}
PAPER = {"vocab_size": 32_000, "seq_len": 256}
CHEAPER = (
    {"head": "tied"},
    {"head": "frozen"},
    {"sequence": "single"},
    {"head": "tied", "sequence": "single"},
    {"head": "frozen", "sequence": "single"},
)


def shaken(model, scale=0.1):
    """In double precision, with noise on all weights, so that no zero of the initialisation hides anything."""
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    with torch.no_grad():
        for value in model.parameters():
            value += scale * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return model.eval()


def network(noise=None, **options):
    torch.manual_seed(0)
    return shaken(Model(TINY, noise, **{**SIZES, **options}))


def texts(count=2, shape=TINY, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(shape["vocab_size"], (count, shape["seq_len"]), generator=generator)


def noisy(count=2, seed=0):
    return torch.randn(count, 8, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(noise=None, trained=False, **options):
    with torch.device("meta"):
        parameters = list(Model(PAPER, noise, **options).parameters())
    return sum(value.numel() for value in parameters if value.requires_grad or not trained)


def words(options):
    return "-".join(options.values()) or "default"


# Sizes


def test_paper_scale_parameter_counts():
    layer = 4 * 768**2 + 3 * 768 * 2048
    tables = 2 * 32_000 * 768
    level = 256 * 128 + 128 + 128**2 + 128
    assert count() == tables + 12 * (layer + 2 * 768) + 768 == 134_105_856
    adaptive = (128 + 1) * 6 * 768
    outside = tables + 2 * 768 + level + (128 + 1) * 2 * 768
    assert count(EDM()) == outside + 12 * (layer + adaptive)
    block = outside + 3 * (layer + adaptive)
    assert count(EDM(), num_layers=3) == count(EDM(), num_layers=3, sequence="single") == block
    table = 32_000 * 768
    for head, held, trained in (("own", block, block), ("tied", block - table, block - table)):
        assert count(EDM(), num_layers=3, head=head) == held
        assert count(EDM(), num_layers=3, head=head, trained=True) == trained
    assert count(EDM(), num_layers=3, head="frozen") == block - table
    assert count(EDM(), num_layers=3, head="frozen", trained=True) == block - 2 * table
    assert count(head="tied") == count() - table


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"num_heads 5 .* width 24\b"):
        Model(TINY, **{**SIZES, "num_heads": 5})


def test_a_plain_network_has_no_noisy_tokens_to_see_once():
    with pytest.raises(ValueError, match="sequence is of a denoiser"):
        Model(TINY, sequence="single", **SIZES)


def test_a_plain_network_has_no_gates():
    with pytest.raises(ValueError, match=r"gates are a denoiser's: .* Leave it out"):
        Model(TINY, gates="open", **SIZES)


# Parts


def test_plain_layer_is_llamas():
    torch.manual_seed(0)
    layer, x = shaken(Layer(12, 3, 20, 0.0)), noisy()[..., :12]

    def norm(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    qkv = norm(x, layer.norm1.weight) @ layer.attention.qkv.weight.T
    q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    q, k = (rotate(part, torch.arange(8), 10_000) for part in (q, k))
    scores = (q @ k.mT / 2).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
    middle = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ layer.attention.out.weight.T
    gate, up = (norm(middle, layer.norm2.weight) @ layer.mlp.gate_up.weight.T).chunk(2, dim=-1)
    torch.testing.assert_close(layer(x), middle + (F.silu(gate) * up) @ layer.mlp.down.weight.T)


def test_attention_to_the_past_and_itself_is_the_mask_of_both_halves():
    q, k, v, own_k, own_v = (torch.randn(2, 3, 5, 4, dtype=torch.float64).requires_grad_() for _ in range(5))
    found = before_and_itself(q, k, v, own_k, own_v)
    mask = torch.cat([torch.ones(5, 5).tril(-1), torch.eye(5)], dim=1).bool()
    keys, values = torch.cat([k, own_k], dim=2), torch.cat([v, own_v], dim=2)
    expected = (q @ keys.mT / 2).masked_fill(~mask, -torch.inf).softmax(-1) @ values
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    inputs = (q, k, v, own_k, own_v)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), inputs) for out in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_the_last_layer_leaves_out_only_what_nobody_reads():
    model = network(EDM())
    x, level = torch.cat([noisy(), noisy(seed=1)]), noisy(4)[:, 0, :4]
    torch.testing.assert_close(model.layers[0](x, level, noisy_only=True), model.layers[0](x, level)[2:])


@pytest.mark.parametrize("head", ["tied", "frozen"])
@pytest.mark.parametrize("noise", [EDM(), None], ids=["denoiser", "plain"])
def test_a_head_that_is_the_table_reads_cosines(head, noise):
    model, batch = network(noise, head=head), {"tokens": texts()}
    if noise:
        logits = model.predict(noisy(), torch.ones(2), model.condition(batch), model.layers)
    else:
        logits = model.end_to_end_prediction(batch)._replace(hidden=model.end_to_end_prediction(batch).hidden[:, 1:])
    unit = model.tokens.weight if head == "frozen" else F.normalize(model.tokens.weight, dim=1)
    torch.testing.assert_close(logits.head, unit)
    torch.testing.assert_close(logits.hidden.norm(dim=-1), torch.full_like(logits.hidden[..., 0], 16))


def test_a_frozen_table_is_the_same_in_all_networks_and_has_no_gradient():
    networks = []
    for seed, noise in ((0, EDM()), (1, EDM()), (2, None)):
        torch.manual_seed(seed)
        networks.append(Model(TINY, noise, head="frozen", **SIZES))
    tables = [model.tokens.weight for model in networks]
    assert torch.equal(tables[0], tables[1]) and torch.equal(tables[0], tables[2])
    torch.testing.assert_close(tables[0].norm(dim=1), torch.ones(11))
    denoiser, batch = networks[0], {"tokens": texts()}
    z = noisy().float()
    denoiser.loss(
        denoiser.predict(z, torch.ones(2), denoiser.condition(batch), denoiser.layers), batch, z
    ).sum().backward()
    networks[2].end_to_end_loss(batch).sum().backward()
    for model in (denoiser, networks[2]):
        without = [name for name, value in model.named_parameters() if value.grad is None]
        assert without == ["tokens.weight"], "all else is trained"


def test_a_trainer_holds_no_moments_and_no_average_of_a_frozen_table():
    """And goes on after a kill as if there had been none."""
    model = {"name": "autoregressive", "head": "frozen", **SIZES}
    run = {
        "table": "t",
        "row": "r",
        "seed": 0,
        "model": model,
        "method": {"name": "diffusionblocks", "num_blocks": 3},
        "train": {"batch_size": 4, "lr": 0.01, "steps": 4, "ema": 0.9, "weight_decay": 0.1},
    }

    def trainer(part="block1"):
        return Trainer(run, part, Chance(TINY, 8, "cpu"), torch.device("cpu"))

    torch.manual_seed(0)
    whole = trainer()
    halves = trainer()
    halves.batches.data = whole.batches.data
    name, table = "models.block1.tokens.weight", whole.method.models["block1"].tokens.weight.clone()
    for step in range(4):
        whole.update(step)
    assert torch.equal(whole.weights()[name], table), "not even weight decay moves it"
    assert torch.equal(trainer("block0").weights()["models.block0.tokens.weight"], table)
    assert name not in whole.ema and whole.parameters[name] not in whole.optimizer.state
    trained = sum(value.nbytes for value in whole.parameters.values()) - table.nbytes
    memory = whole.memory()
    assert memory["parameter_bytes"] == trained + table.nbytes and memory["average_bytes"] == trained
    assert memory["gradient_bytes"] == trained and memory["optimizer_bytes"] == pytest.approx(2 * trained, rel=0.01)

    halves.update(0)
    halves.update(1)
    kept = {key: value.clone() for key, value in halves.tensors().items()}
    resumed = trainer()
    resumed.batches.data = whole.batches.data
    resumed.restore(kept)
    resumed.update(2)
    resumed.update(3)
    for key, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[key]), key


def test_both_start_at_the_loss_of_a_uniform_guess():
    torch.manual_seed(0)
    batch = {"tokens": texts()}
    denoiser, plain = Model(TINY, EDM(), **SIZES), Model(TINY, **SIZES)
    z = noisy().float()
    losses = denoiser.loss(denoiser.predict(z, torch.ones(2), denoiser.condition(batch), denoiser.layers), batch, z)
    torch.testing.assert_close(losses, torch.full((2,), math.log(11)))
    torch.testing.assert_close(plain.end_to_end_loss(batch), torch.full((2,), math.log(11)), atol=0.1, rtol=0)


def test_a_noise_conditioned_layer_with_open_gates_is_the_plain_one():
    torch.manual_seed(0)
    layer, plain = Layer(24, 2, 40, 0.0, noise_width=4).double(), Layer(24, 2, 40, 0.0).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    with torch.no_grad():
        layer.adaptive.weight.zero_()
        layer.adaptive.bias.zero_()
        layer.adaptive.bias.view(6, 24)[2::3] = 1  # shift, scale, gate of the attention, then of the MLP
    clean, level = noisy(), noisy(4)[:, 0, :4]
    torch.testing.assert_close(layer(torch.cat([clean, noisy(seed=1)]), level)[:2], plain(clean))


def test_noise_conditioned_layers_start_as_the_identity():
    layer, x = Model(TINY, EDM(), **SIZES).layers[0], noisy(4).float()
    assert torch.equal(layer(x, torch.randn(4, 4)), x)


def test_the_context_of_a_denoiser_has_unit_variance():
    model = network(EDM())
    context = model.condition({"tokens": texts()})
    torch.testing.assert_close(context.square().mean(-1), torch.ones(2, 8, dtype=torch.float64))
    torch.testing.assert_close(F.normalize(context, dim=-1), model.target({"tokens": texts()}))


def test_target_has_the_asked_length_and_to_z_is_its_mean():
    model = network(EDM(), target_norm=0.3)
    batch = {"tokens": texts()}
    torch.testing.assert_close(model.target(batch).norm(dim=-1), torch.full((2, 8), 0.3, dtype=torch.float64))
    prediction = model.predict(noisy(), torch.ones(2), model.condition(batch), model.layers)
    table = model.target({"tokens": torch.arange(11)})
    torch.testing.assert_close(
        model.to_z(prediction).double(), prediction.full().softmax(-1).double() @ table, atol=1e-5, rtol=1e-5
    )
    assert torch.equal(model.to_z(prediction, hard=True), table[prediction.full().argmax(-1)])


def test_preconditioning_acts_on_the_vector():
    """With layers that do nothing, the head reads c_skip z + c_out norm(what z entered as)."""
    model = network(EDM())
    z, sigma = noisy(), torch.tensor([0.1, 20.0], dtype=torch.float64)
    c_skip, c_out, c_in, _ = (c[:, None, None] for c in EDM().precondition(sigma))
    with torch.no_grad():
        for module in (model.head_adaptive, *(layer.adaptive for layer in model.layers)):
            module.weight.zero_()
            module.bias.zero_()
    hidden = model.predict(z, sigma, model.condition({"tokens": texts()}), model.layers).hidden
    torch.testing.assert_close(hidden, c_skip * z + c_out * model.norm(model.noisy + 0.1 * c_in * z))


# Leaks


def logits(model, tokens, z):
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    found = model.predict(z, sigma, model.condition({"tokens": tokens}), model.layers)
    return found.hidden @ found.head.T


@pytest.mark.parametrize("options", [{}, *CHEAPER], ids=words)
@pytest.mark.parametrize("position", [0, 3, 7])
def test_a_clean_token_changes_what_comes_after_it_alone(position, options):
    model, tokens, z = network(EDM(), **options), texts(), noisy()
    other = tokens.clone()
    other[:, position] = (other[:, position] + 1) % 11
    changed = (logits(model, tokens, z) != logits(model, other, z)).any(-1)
    assert not changed[:, : position + 1].any() and changed[:, position + 1 :].all()


@pytest.mark.parametrize("sequence", ["doubled", "single"])
def test_no_gradient_reaches_a_clean_token_from_its_own_position_or_before(sequence):
    model, z = network(EDM(), sequence=sequence), noisy()
    cond = model.condition({"tokens": texts()}).detach().requires_grad_()
    sigma = torch.ones(2, dtype=torch.float64)
    ahead = 1 if sequence == "single" else 0  # where token i - 1 is position i's context
    for position in range(8):
        hidden = model.predict(z, sigma, cond, model.layers).hidden[:, position]
        (gradient,) = torch.autograd.grad(hidden.square().sum(), cond)
        reached = gradient.abs().sum((0, 2)) > 0
        assert reached.tolist() == [i < position + ahead for i in range(8)]


def test_a_single_sequence_has_the_token_before_at_each_position():
    model, tokens = network(EDM(), sequence="single"), texts()
    found, doubled = (one.condition({"tokens": tokens}) for one in (model, network(EDM())))
    assert torch.equal(found[:, 1:], doubled[:, :-1]) and not found[:, 0].any()


@pytest.mark.parametrize("position", [0, 3, 7])
def test_a_noisy_token_of_a_single_sequence_changes_nothing_before_it(position):
    model, tokens, z = network(EDM(), sequence="single"), texts(), noisy()
    other = z.clone()
    other[:, position] += 1
    changed = (logits(model, tokens, z) != logits(model, tokens, other)).any(-1)
    assert not changed[:, :position].any() and changed[:, position:].all()


@pytest.mark.parametrize("position", [0, 3, 7])
def test_a_noisy_token_changes_its_own_position_alone(position):
    model, tokens, z = network(EDM()), texts(), noisy()
    other = z.clone()
    other[:, position] += 1
    changed = (logits(model, tokens, z) != logits(model, tokens, other)).any(-1)
    assert changed.all(0).tolist() == changed.any(0).tolist() == [i == position for i in range(8)]


def test_the_plain_network_predicts_a_token_from_those_before_it():
    model, tokens = network(), texts()
    other = tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % 11
    predictions = [model.end_to_end_prediction({"tokens": t}).hidden for t in (tokens, other)]
    changed = (predictions[0] != predictions[1]).any(-1)
    assert not changed[:, :5].any() and changed[:, 5:].all()
    assert not predictions[0][:, 0].any()


# Generation


@pytest.mark.parametrize("options", [{}, *CHEAPER[:2]], ids=words)
@pytest.mark.parametrize("chosen", [slice(0, 3), slice(0, 1), slice(1, 3)])
def test_a_denoiser_with_caches_is_the_one_without(chosen, options):
    model, tokens, z = network(EDM(), **options), texts(), noisy()
    layers = model.layers[chosen]
    session = model.begin(tokens[:, :2], layers, 8)
    for position in range(2, 8):
        for step, sigma in enumerate((80.0, 0.5)):
            levels = torch.full((2,), sigma, dtype=torch.float64)
            expected = model.predict(z, levels, model.condition({"tokens": tokens}), layers)
            found = session.predict(z[:, position], sigma, step)
            torch.testing.assert_close(found.hidden, expected.hidden[:, position], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.head, expected.head)
        session.append(tokens[:, position])


@pytest.mark.parametrize("options", CHEAPER[2:], ids=words)
@pytest.mark.parametrize("prompt", [1, 4])
def test_a_single_sequence_with_caches_is_the_one_without(prompt, options):
    """In which the known tokens are under the noise of the level, and each later one is as the chain had it."""
    model, tokens, eps, z = network(EDM(), **options), texts(), noisy(seed=1), noisy()
    levels = (80.0, 0.5)
    seen = [model.noise.corrupt(model.target({"tokens": tokens}), torch.full((2,), level), eps) for level in levels]
    session = model.begin(tokens[:, :prompt], model.layers, 8, eps)
    for position in range(prompt, 8):
        for step, level in enumerate(levels):
            seen[step][:, position] = z[:, position] * level
            sigma, cond = torch.full((2,), level, dtype=torch.float64), model.condition({"tokens": tokens})
            expected = model.predict(seen[step], sigma, cond, model.layers).hidden[:, position]
            found = session.predict(z[:, position] * level, level, step).hidden
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        session.append(tokens[:, position])


@pytest.mark.parametrize("head", ["own", "tied", "frozen"])
def test_the_plain_network_with_caches_is_the_one_without(head):
    model, tokens = network(head=head), texts()
    session = model.begin(tokens[:, :1], model.layers, 8)
    expected = model.end_to_end_prediction({"tokens": tokens}).hidden
    for position in range(1, 8):
        torch.testing.assert_close(session.predict().hidden, expected[:, position], atol=1e-5, rtol=1e-5)
        session.append(tokens[:, position])


# Scores


def test_scores_are_means_over_all_but_the_first_token():
    model, tokens = network(), texts()
    batch = {"tokens": tokens}
    prediction = model.end_to_end_prediction(batch)
    losses, correct, probability = model.scores(prediction, batch)
    chances = prediction.full().softmax(-1)[:, 1:]
    true = chances.gather(-1, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(losses, -true.log().mean(1))
    torch.testing.assert_close(losses, model.end_to_end_loss(batch))
    torch.testing.assert_close(probability, true.mean(1))
    torch.testing.assert_close(correct, (chances.argmax(-1) == tokens[:, 1:]).double().mean(1))


# Learning

STORIES = {"vocab_size": 50, "seq_len": 8}


@pytest.fixture(scope="module", params=[{}, CHEAPER[-1]], ids=words)
def overfitted(request):
    """Two blocks that learned 16 sequences, which their first tokens tell apart, and the sequences."""
    torch.manual_seed(0)
    network = Network(Model, STORIES, num_layers=4, width=32, num_heads=2, mlp_width=64, **request.param)
    method = Method(network, num_blocks=2, loss_weight="none", p_mean=0.0)
    tokens = texts(16, STORIES)
    tokens[:, 0] = torch.arange(16)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=300)
    for _ in range(300):
        optimizer.zero_grad()
        for block in method.blocks:
            method.loss({"tokens": tokens}, block)[0].backward()
        optimizer.step()
        schedule.step()
    return method.eval(), tokens


@torch.no_grad()
def loss_at_sigma_max(method, tokens, context):
    model, layers = method.acting(0)
    z = 80 * torch.randn(len(tokens), *method.z_shape, generator=torch.Generator().manual_seed(0))
    prediction = model.predict(z, torch.full((len(z),), 80.0), model.condition({"tokens": context}), layers)
    return model.loss(prediction, {"tokens": tokens}, z).mean().item()


@pytest.mark.slow
def test_overfits_sequences_where_z_says_nothing(overfitted):
    method, tokens = overfitted
    assert loss_at_sigma_max(method, tokens, tokens) < 0.05


def test_a_scrambled_context_raises_the_loss(overfitted):
    method, tokens = overfitted
    assert loss_at_sigma_max(method, tokens, tokens.roll(1, dims=0)) > math.log(50)


@torch.no_grad()
def test_generation_reproduces_what_was_learned(overfitted):
    method, tokens = overfitted
    eps = torch.randn(len(tokens), *method.z_shape, generator=torch.Generator().manual_seed(0))
    for hand_off in ("soft", "hard"):
        written = method.extend(tokens[:, :1], eps, None, hand_off=hand_off)
        assert (written == tokens).all(1).sum() >= 14  # of 16; a chain ends in a sample

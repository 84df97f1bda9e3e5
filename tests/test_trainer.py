"""The order of the data, and what one update does to gradients, weights and averages."""

import itertools
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.augment import augment
from diffusionblocks.training.settings import Settings
from diffusionblocks.training.trainer import Batches, Trainer, at_worst

CPU = torch.device("cpu")
MODEL = {"name": "vit", "num_layers": 3, "width": 12, "num_heads": 2, "mlp_width": 24, "patch_size": 4, "dropout": 0.0}
JOINT = {"name": "diffusionblocks", "sharing": "joint"}


class Data:
    """20 random images, in the place of a prepared data set."""

    shape, train_size, train_device = {"image_size": 8, "channels": 1, "num_classes": 10}, 20, CPU

    def __init__(self):
        self.images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.train_labels, self.seen = torch.arange(20) % 10, []

    def train_batch(self, indices, augmentations=()):
        self.seen.append(indices.tolist())
        return {"image": self.images[indices], "label": indices % 10}


def trainer_of(method, part="all", seed=0, dropout=0.0, **train):
    train = {"batch_size": 8, "lr": 0.01, "steps": 10, **train}
    run = {"model": {**MODEL, "dropout": dropout}, "method": method, "train": train, "seed": seed}
    trainer = Trainer(run, part, Data(), CPU)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off the zeros of the initialisation, where most gradients vanish
        for name, value in trainer.parameters.items():
            value += 0.2 * torch.randn(value.shape, generator=generator)
            if trainer.ema is not None:
                trainer.ema[name] = value.detach().clone()
    return trainer


def gradients(trainer):
    return {name: value.grad.clone() for name, value in trainer.parameters.items() if value.grad is not None}


def copy(tensors):
    return {name: value.detach().clone() for name, value in tensors.items()}


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


# Settings


def test_steps_count_per_block():
    settings = {"steps": 10, "warmup_steps": 2}
    joint = trainer_of(JOINT, **settings)
    assert (joint.total, joint.warmup) == (30, 6)
    for method, part in (({"name": "diffusionblocks"}, "block1"), ({"name": "end_to_end"}, "all")):
        trainer = trainer_of(method, part, **settings)
        assert (trainer.total, trainer.warmup) == (10, 2)
    epochs = trainer_of({**JOINT, "num_blocks": 1}, steps=None, epochs=3, warmup_epochs=1)
    assert (epochs.total, epochs.warmup) == (6, 2)  # 20 images are 2 batches of 8


def test_the_optimizer_follows_the_settings():
    trainer = trainer_of(JOINT, warmup_steps=2, betas=[0.8, 0.9], weight_decay=0.3, min_lr=0.001)
    (group,) = trainer.optimizer.param_groups
    assert (tuple(group["betas"]), group["weight_decay"]) == ((0.8, 0.9), 0.3)
    for step in (0, 5, 6, 29):
        trainer.update(step)
        assert group["lr"] == trainer.settings.rate(step, 30, 6)
    assert group["lr"] == pytest.approx(0.001, rel=0.05)


def test_adafactor_steps_as_pytorchs_own_and_keeps_a_number_for_each_row_and_column():
    trainer = trainer_of({"name": "end_to_end"}, optimizer="adafactor", lr=0.02, min_lr=0.02, weight_decay=0.3)
    theirs = {name: value.detach().clone().requires_grad_() for name, value in trainer.parameters.items()}
    own = torch.optim.Adafactor(theirs.values(), lr=0.02, weight_decay=0.3)
    for step in range(3):
        trainer.update(step)
        for name, value in theirs.items():
            value.grad = trainer.parameters[name].grad.clone()
        own.step()
    assert_same_bits(copy(trainer.parameters), copy(theirs))
    kept = 0
    for value in theirs.values():
        kept += 1 + (value.numel() if value.dim() < 2 else value[..., 0].numel() + value[..., 0, :].numel())
    assert trainer.memory()["optimizer_bytes"] == 4 * kept


# Data


def test_every_epoch_is_a_new_permutation_without_the_partial_batch():
    data = Data()
    data.train_size = 23  # train_batch is not asked for images here
    data.train_batch = lambda indices, augmentations: indices.tolist()
    settings = Settings(batch_size=5, lr=1, steps=1)
    batches, again, other = (Batches(data, settings, seed, "all") for seed in (0, 0, 1))
    assert batches.per_epoch == 4
    numbers = [next(batches.micro_batches(number)) for number in range(12)]
    epochs = [list(itertools.chain(*numbers[i : i + 4])) for i in (0, 4, 8)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 20 and set(epoch) <= set(range(23))
    assert set().union(*epochs) == set(range(23))  # it is not always the same three that are left out
    assert epochs[0] != epochs[1] != epochs[2]
    for number in (7, 2, 11, 0):  # in any order, as after a restart
        assert list(again.micro_batches(number)) == [numbers[number]]
    assert list(other.micro_batches(0)) != [numbers[0]]


def test_micro_batches_share_out_the_batch():
    whole, split = trainer_of(JOINT), trainer_of(JOINT, accumulate=4)
    whole.update(3)
    split.update(3)
    assert [len(indices) for indices in split.batches.data.seen] == [2, 2, 2, 2]
    assert list(itertools.chain(*split.batches.data.seen)) == whole.batches.data.seen[0]


class Augmented(Data):
    """20 images of random bytes, of which each batch is augmented."""

    def __init__(self):
        super().__init__()
        self.images = torch.randint(256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()

    def train_batch(self, indices, augmentations=()):
        return {"index": indices, "image": augment(self.images[indices], augmentations)}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_views_repeat_each_sample_with_augmentations_of_its_own(accumulate):
    def batch(views, augmentations):
        settings = Settings(batch_size=8, lr=1, steps=1, augment=augmentations, accumulate=accumulate)
        torch.manual_seed(0)
        micro_batches = list(Batches(data, settings, 0, "all", views=views).micro_batches(3))
        assert [len(micro["index"]) for micro in micro_batches] == [8 // accumulate * views] * accumulate
        return micro_batches

    data, augmentations = Augmented(), ["crop", "flip"]
    for once, plain, several in zip(batch(1, augmentations), batch(3, []), batch(3, augmentations), strict=True):
        for found in (plain, several):  # the samples of one view, three times each
            assert found["index"].sort().values.tolist() == once["index"].sort().values.repeat_interleave(3).tolist()
        assert torch.equal(plain["image"], data.images[plain["index"]])
        for index in once["index"]:
            views = several["image"][several["index"] == index]
            assert len(views.flatten(1).unique(dim=0)) == 3  # of 162 ways to crop and flip each has drawn its own


def test_one_view_leaves_batches_as_they_were():
    data = Augmented()
    settings = Settings(batch_size=8, lr=1, steps=1, augment=["crop", "flip"], accumulate=2)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed_of(0, "all", "epoch", 1)))
    for options in ({}, {"views": 1}):
        torch.manual_seed(0)
        found = list(Batches(data, settings, 0, "all", **options).micro_batches(3))
        torch.manual_seed(0)
        for micro, indices in zip(found, (order[8:12], order[12:16]), strict=True):
            assert_same_bits(micro, data.train_batch(indices, ["crop", "flip"]))


def test_a_method_says_how_many_views_it_wants():
    for name, views in (("end_to_end", 1), ("forward_forward", 1), ("contrastive_forward_forward", 2)):
        trainer = trainer_of({"name": name})
        trainer.update(0)
        (indices,) = trainer.batches.data.seen
        assert len(indices) == 8 * views and {indices.count(index) for index in indices} == {views}


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="batch_size 21 exceeds the 20 training samples"):
        trainer_of(JOINT, batch_size=21)


# Update


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    whole = trainer_of({"name": "end_to_end"}, clip=1e9)
    split = trainer_of({"name": "end_to_end"}, clip=1e9, accumulate=4)
    values, split_values = whole.update(0)[1], split.update(0)[1]
    torch.testing.assert_close(gradients(split), gradients(whole))
    torch.testing.assert_close(split_values, values)


class Tokens:
    """20 random sequences."""

    shape, train_size, train_device = {"vocab_size": 27, "seq_len": 8}, 20, CPU
    tokens = torch.randint(27, (20, 8), generator=torch.Generator().manual_seed(0))

    def train_batch(self, indices, augmentations=()):
        return {"tokens": self.tokens[indices]}


def updated(model, data, method, **train):
    """(values, gradients, levels that were trained at) of an update of 16 samples, which draw alike however cut."""
    train = {"batch_size": 16, "lr": 0.01, "steps": 10, "clip": 1e9, **train}
    model = {"num_layers": 4, "width": 16, "num_heads": 2, "mlp_width": 24, "dropout": 0.0, **model}
    run = {"model": model, "method": {"name": "diffusionblocks", "num_blocks": 2, **method}, "train": train, "seed": 0}
    trainer, seen = Trainer(run, "block1", data, CPU), []
    with torch.no_grad():
        for value in trainer.parameters.values():
            value += 0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    loss = trainer.method.loss

    def watched(*arguments, **keywords):
        found = loss(*arguments, **keywords)
        seen.append(found[2])
        return found

    trainer.method.loss = watched
    return trainer.update(3)[1], gradients(trainer), torch.cat(seen)


@pytest.mark.parametrize(
    ("model", "loss_weight"),
    [(name, weight) for name in ("vit", "masked_diffusion") for weight in ("decoupled", "per_sample", "none")],
)
@pytest.mark.parametrize("accumulate", [2, 4])
def test_an_update_is_the_same_in_however_many_micro_batches(model, loss_weight, accumulate):
    """`decoupled` weighs by the whole update, and masking rates are at equal distances over all of it."""
    data, section = (Data(), {"patch_size": 4}) if model == "vit" else (Tokens(), {})
    asked = {"name": model, **section}, data, {"loss_weight": loss_weight}
    whole, split = updated(*asked), updated(*asked, accumulate=accumulate)
    assert torch.equal(whole[2], split[2])  # the same levels
    if model == "masked_diffusion":
        torch.testing.assert_close(split[2].sort().values.diff(), torch.full((15,), (0.5 * 1.05) / 16))
    torch.testing.assert_close(split[0][:3], whole[0][:3], rtol=1e-6, atol=0)  # loss, objective, gradient norm
    for name, value in whole[1].items():
        assert (split[1][name] - value).norm() <= 1e-6 * whole[0][2], name


def test_a_method_that_does_not_hand_on_the_levels_of_the_update_is_refused():
    trainer = trainer_of(JOINT, accumulate=2)
    loss = trainer.method.loss
    trainer.method.loss = lambda batch, block: loss(batch, block)
    with pytest.raises(UserError, match=r"class Method: `loss` must take `levels` and `mine`.*train\.accumulate"):
        trainer.check()


def test_gradients_are_clipped_by_their_common_norm():
    free, clipped = trainer_of({"name": "end_to_end"}, clip=1e9), trainer_of({"name": "end_to_end"}, clip=0.01)
    norm, reported = free.update(0)[1][2], clipped.update(0)[1][2]
    found = gradients(free)
    torch.testing.assert_close(norm, torch.cat([value.flatten() for value in found.values()]).norm())
    torch.testing.assert_close(reported, norm)  # as it was before clipping
    assert norm > 0.1
    torch.testing.assert_close(gradients(clipped), {name: value * 0.01 / norm for name, value in found.items()})


def test_update_reports_loss_objective_and_the_worst_level():
    trainer = trainer_of({**JOINT, "loss_weight": "per_sample"})
    recorded, original = [], trainer.method.loss
    trainer.method.loss = lambda batch, block: recorded.append((block, *original(batch, block))) or recorded[-1][1:]
    block, values = trainer.update(0)
    ((drawn, objective, losses, sigma),) = recorded
    assert drawn == block
    expected = [losses.mean(), objective.detach(), values[2], sigma[losses.argmax()]]
    torch.testing.assert_close(values, torch.stack(expected))


def test_blocks_are_drawn_at_random():
    trainer = trainer_of(JOINT)
    drawn = [trainer.update(step)[0] for step in range(60)]
    assert all(10 <= drawn.count(block) <= 30 for block in range(3))
    assert any(a == b for a, b in itertools.pairwise(drawn))  # not in turn


def test_ema_follows_what_moved():
    trainer = trainer_of(JOINT, ema=0.9, steps=30)
    expected, moved = copy(trainer.ema), []
    for step in range(60, 66):
        block, _ = trainer.update(step)
        decay = 0.5 ** (1 / (0.05 * (step // 3)))  # of three blocks, each has had a third of the updates
        for name, value in trainer.parameters.items():
            inner = name.startswith("models.all.layers.")
            if not inner or name.startswith(f"models.all.layers.{block}."):
                expected[name] = decay * expected[name] + (1 - decay) * value.detach()
        moved.append(block)
        torch.testing.assert_close(trainer.ema, expected)
    assert len(set(moved)) > 1 and len(set(moved)) < len(moved)
    last = {f"last.{name}": value.detach() for name, value in trainer.parameters.items()}
    assert_same_bits(trainer.weights(), {**trainer.ema, **last})
    assert not torch.equal(trainer.ema["models.all.head.bias"], trainer.parameters["models.all.head.bias"])


def test_ema_half_life_is_at_most_5_percent_of_the_updates():
    trainer = trainer_of({"name": "end_to_end"}, ema=0.9)
    decays = [trainer.decay(updates) for updates in range(1000)]
    assert decays[0] < 1e-100 and decays == sorted(decays)  # the first average is what the first update gave
    assert decays[40] ** (0.05 * 40) == pytest.approx(0.5) and decays[100] ** (0.05 * 100) == pytest.approx(0.5)
    # A half-life of ln 2 / ln(1 / 0.9) = 6.58 updates is 5 % of 131.6.
    assert decays[131] < 0.9 and decays[132:] == [0.9] * (1000 - 132)


def test_short_training_forgets_the_weights_it_started_from():
    trainer = trainer_of({"name": "end_to_end"}, ema=0.9999, steps=30)
    start, share = copy(trainer.ema), 1.0
    for step in range(30):
        trainer.update(step)
        share *= trainer.decay(step)
    assert share < 1e-100 < 0.9999**30
    moved = copy(trainer.parameters)
    for name, value in trainer.ema.items():
        assert (value - start[name]).norm() > 0.5 * (moved[name] - start[name]).norm(), name


def test_averages_of_the_last_update_alone_are_the_last_weights():
    trainer = trainer_of(JOINT, ema=1e-12)
    for step in range(3):
        trainer.update(step)
    weights = trainer.weights()
    assert_same_bits({f"last.{name}": value for name, value in trainer.ema.items()},
                     {name: value for name, value in weights.items() if name.startswith("last.")})  # fmt: skip


def test_without_ema_the_last_weights_are_handed_on():
    trainer = trainer_of({"name": "end_to_end"})
    trainer.update(0)
    assert trainer.ema is None and not [name for name in trainer.tensors() if name.startswith("ema.")]
    assert_same_bits(trainer.weights(), copy(trainer.parameters))


def test_a_waiting_block_keeps_its_weights_average_and_moments():
    trainer = trainer_of(JOINT, ema=0.9, weight_decay=0.1)
    before = copy(trainer.tensors())
    active, _ = trainer.update(0)
    after, names = trainer.tensors(), list(trainer.parameters)
    for index, name in enumerate(names):
        if name.startswith("models.all.layers."):
            mine = name.startswith(f"models.all.layers.{active}.")
            for kind in ("model", "ema"):
                assert torch.equal(before[f"{kind}.{name}"], after[f"{kind}.{name}"]) != mine
            assert (f"optimizer.{index}.exp_avg" in after) == mine  # no decay, no moment for who has no gradient


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("method", [JOINT, {"name": "end_to_end"}])
def test_an_update_repeats_bit_by_bit(method, optimizer):
    trainer = trainer_of(method, dropout=0.3, ema=0.9, optimizer=optimizer)
    for step in range(3):
        trainer.update(step)
    state = copy(trainer.tensors())
    first = trainer.update(3), copy(trainer.tensors())

    other = trainer_of(method, dropout=0.3, ema=0.9, optimizer=optimizer)  # a new process after a kill
    other.restore(copy(state))
    torch.rand(7)  # whatever was drawn in between
    second = other.update(3), copy(other.tensors())
    assert first[0][0] == second[0][0] and torch.equal(first[0][1], second[0][1])
    assert_same_bits(first[1], second[1])

    other.restore(copy(state))
    assert_same_bits(other.tensors(), state)
    other.update(4)
    assert any(not torch.equal(value, first[1][name]) for name, value in other.tensors().items())


@pytest.mark.parametrize("model", [MODEL, {"name": "noprop_cnn", "num_layers": 3}])
def test_meeting_the_contract_leaves_training_as_it_was(model):
    """Also the statistics of batch norms, in the second network; and whatever is drawn in between."""
    run = {"model": model, "method": JOINT, "train": {"batch_size": 8, "lr": 0.01, "steps": 10}, "seed": 0}
    met, other = (Trainer(run, "all", Data(), CPU) for _ in range(2))
    before, drawn = copy(met.tensors()), torch.random.get_rng_state()
    met.check()
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert_same_bits(met.tensors(), before)
    assert met.memory()["gradient_bytes"] == 0 and met.method.training
    for step in range(3):
        assert torch.equal(met.update(step)[1], other.update(step)[1])
    assert_same_bits(met.tensors(), other.tensors())


def test_meeting_the_contract_compiles_nothing():
    """Two samples would be one more shape, and each costs a minute."""
    from torch._dynamo.utils import counters

    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    trainer = trainer_of(JOINT, compile=True)
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    counters.clear()
    trainer.check()
    assert trainer.method.models["all"].layers[0]._compiled_call_impl is not None and not counters["stats"]


def test_the_contract_is_met_with_two_samples_augmented_as_in_training():
    trainer, met = trainer_of({"name": "contrastive_forward_forward"}, augment=["flip"]), []
    trainer.batches.data.train_batch = lambda indices, augmentations: met.append((indices.tolist(), augmentations))
    trainer.method.check = met.append
    trainer.check()
    assert met == [([0, 1, 0, 1], ["flip"]), None]  # each sample twice, as this method asks


def test_seeds_and_parts_start_from_different_weights():
    method = {"name": "diffusionblocks"}
    tables = []
    for block, seed in ((0, 0), (0, 0), (0, 1), (1, 0)):
        model = trainer_of(method, f"block{block}", seed=seed).method.models[f"block{block}"]
        tables.append(model.labels.weight)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2]) and not torch.equal(tables[0], tables[3])
    assert len({seed_of(*names) for names in ((0, "all", 1), (0, "all", 2), (1, "all", 1), (0, "block0", 1))}) == 4


def test_memory_counts_weights_gradients_and_state():
    trainer = trainer_of({"name": "end_to_end"})
    assert trainer.memory()["gradient_bytes"] == trainer.memory()["optimizer_bytes"] == 0
    trainer.update(0)
    found, size = trainer.memory(), 4 * sum(value.numel() for value in trainer.parameters.values())
    assert found["parameter_bytes"] == found["gradient_bytes"] == size
    assert found["optimizer_bytes"] == 2 * size + 4 * len(trainer.parameters)
    assert found["peak_bytes"] > 2**20


@pytest.mark.parametrize("method", [{"name": "end_to_end"}, JOINT])
def test_a_layer_that_is_run_again_for_its_gradient_gives_the_same_bits(method):
    """Dropout included: what is run again draws what it drew."""
    kept, again = (trainer_of(method, dropout=0.5, checkpoint_activations=chosen) for chosen in (False, True))
    runs = []
    for layer in again.method.models["all"].layers:
        layer.attention.register_forward_hook(lambda *_: runs.append(None))
    for step in range(3):
        kept.update(step)
        again.update(step)
    assert_same_bits(kept.weights(), again.weights())
    assert len(runs) == 2 * 3 * (3 if method["name"] == "end_to_end" else 1), "forward, and once more"


def test_the_worst_sample_is_found_without_a_word_to_the_host():
    values = torch.tensor([0.1, 0.2, 0.3])
    assert at_worst(values, torch.tensor([1.0, 5.0, 2.0])) == values[1]
    assert at_worst(values, torch.tensor([1.0, 5.0, math.nan])) == values[2]
    with FakeTensorMode() as mode:  # raises where a tensor's value is asked for
        fake = mode.from_tensor(values)
        assert at_worst(fake, fake).shape == ()

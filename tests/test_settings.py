"""The `train` section: its rules, each with the message that a user reads, and the learning rate that it describes."""

import dataclasses
import math
import subprocess
import sys

import pytest

from diffusionblocks.base.files import UserError
from diffusionblocks.training.settings import Settings

GOOD = {"batch_size": 8, "lr": 1, "steps": 10}


def test_learning_rate_known_answers():
    settings = Settings(batch_size=8, lr=1.0, min_lr=0.1, steps=108)
    rates = [settings.rate(step, 108, 8) for step in range(108)]
    assert rates[:8] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0])
    assert rates[8] == 1.0
    assert rates[8 + 25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates[8 + 50] == pytest.approx(0.55)
    assert rates[8 + 75] == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2)
    assert 0.1 < rates[-1] < 0.101 and settings.rate(108, 108, 8) == pytest.approx(0.1)
    assert rates[8:] == sorted(rates[8:], reverse=True)


def test_learning_rate_without_warm_up_or_decay():
    assert Settings(batch_size=8, lr=1.0, steps=4).rate(2, 4, 0) == pytest.approx(0.5)
    constant = Settings(batch_size=8, lr=0.3, min_lr=0.3, steps=50)
    assert [constant.rate(step, 50, 0) for step in range(50)] == pytest.approx([0.3] * 50)
    assert constant.rate(0, 1, 1) == pytest.approx(0.3)  # warm-up to the end


def test_updates_count_steps_or_epochs():
    assert Settings(batch_size=8, lr=1, steps=7, warmup_steps=2).updates(5) == (7, 2)
    assert Settings(batch_size=8, lr=1, epochs=7, warmup_epochs=2).updates(5) == (35, 10)
    assert Settings(batch_size=8, lr=1, epochs=7, warmup_epochs=2, warmup_steps=1).updates(5) == (35, 11)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": None}, "train: exactly one of steps and epochs is needed"),
        ({"epochs": 1}, "train: exactly one of steps and epochs is needed"),
        ({"accumulate": 3}, "train.accumulate: 3 does not divide batch_size 8"),
        ({"min_lr": 2}, "train.min_lr: 2 is above lr 1"),
        ({"warmup_steps": 11}, "train.warmup_steps: 11 exceeds steps 10"),
        (
            {"augment": ["flop"]},
            "train.augment: 'flop' is not one of crop, resized_crop, flip, randaugment; did you mean 'flip'?",
        ),
        ({"augment": "crop"}, "train.augment: 'crop' should be a list, such as [crop, flip], or [] for none"),
        ({"precision": "fp16"}, "train.precision: 'fp16' is not one of fp32, bf16"),
        ({"optimizer": "adafctor"}, "train.optimizer: 'adafctor' is not one of adamw, adafactor"),
        ({"compile": 1}, "train.compile: 1 should be true or false"),
        ({"checkpoint_activations": 1}, "train.checkpoint_activations: 1 should be true or false"),
        ({"lr": "1e-3"}, "train.lr: '1e-3' should be a number (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)"),
        ({"lr": None}, "train.lr: None should be a number"),
        ({"lr": True}, "train.lr: True should be a number"),
        ({"lr": 0}, "train.lr: 0 must be above 0 and finite"),
        ({"lr": math.inf}, "train.lr: inf must be above 0 and finite"),
        ({"lr": math.nan}, "train.lr: nan must be above 0 and finite"),
        ({"clip": 0.0}, "train.clip: 0.0 must be above 0"),
        ({"min_lr": -0.1}, "train.min_lr: -0.1 must be at least 0"),
        ({"weight_decay": -1}, "train.weight_decay: -1 must be at least 0"),
        ({"ema": 1.0}, "train.ema: 1.0 must be between 0 and 1"),
        ({"ema": 0}, "train.ema: 0 must be between 0 and 1"),
        ({"betas": [0.9]}, "train.betas: [0.9] should be a list of two numbers, such as [0.9, 0.999]"),
        ({"betas": 0.9}, "train.betas: 0.9 should be a list of two numbers, such as [0.9, 0.999]"),
        ({"betas": [0.9, 1]}, "train.betas: [0.9, 1] must be at least 0 and below 1, both of them"),
        ({"betas": ["0.9", 0.9]}, "train.betas: ['0.9', 0.9] should be a number"),
        ({"steps": 600.0}, "train.steps: 600.0 should be a whole number (write 600)"),
        ({"steps": True}, "train.steps: True should be a whole number"),
        ({"steps": "600"}, "train.steps: '600' should be a whole number"),
        ({"steps": 0}, "train.steps: 0 must be at least 1"),
        ({"steps": None, "epochs": 0}, "train.epochs: 0 must be at least 1"),
        ({"batch_size": 0}, "train.batch_size: 0 must be at least 1"),
        ({"accumulate": 0}, "train.accumulate: 0 must be at least 1"),
        ({"log_every": 0}, "train.log_every: 0 must be at least 1"),
        ({"warmup_steps": -1}, "train.warmup_steps: -1 must be at least 0"),
        ({"warmup_epochs": -1}, "train.warmup_epochs: -1 must be at least 0"),
        ({"log_every": None}, "train.log_every: None should be a whole number"),
        ({"learning_rate": 1}, "train: unknown key 'learning_rate'"),
        ({"stpes": 1}, "train: unknown key 'stpes'; did you mean 'steps'? (keys here: batch_size, lr, steps, "),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError) as refused:
        Settings.of({**GOOD, **settings})
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("key", ["batch_size", "lr"])
def test_what_has_no_default_is_asked_for(key):
    with pytest.raises(UserError, match=f"^train needs {key}$"):
        Settings.of({other: value for other, value in GOOD.items() if other != key})


def test_every_key_has_a_rule():
    """Nothing is of every kind: a set of nothing useful is refused, whatever the key."""
    for field in dataclasses.fields(Settings):
        with pytest.raises(UserError, match=rf"^train\.{field.name}: "):
            Settings.of({**GOOD, field.name: object()})


def test_settings_are_kept_as_they_are_given():
    section = {**GOOD, "clip": math.inf, "ema": None, "betas": [0, 0.5], "augment": ["flip", "crop"], "min_lr": 1}
    settings = Settings.of(section)
    assert {key: getattr(settings, key) for key in section} == section
    assert dataclasses.asdict(settings).keys() == {field.name for field in dataclasses.fields(Settings)}


def test_settings_need_no_torch():
    program = "import sys, diffusionblocks.training.settings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

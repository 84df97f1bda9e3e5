"""The `train` section of a run: every rule of what it may hold, once, for planning and for the trainer. No torch."""

import math
from dataclasses import dataclass, field, fields

from diffusionblocks.base.augmentations import AUGMENTATIONS
from diffusionblocks.base.files import UserError, suggest

# What a word may be.
CHOICES = {"precision": ("fp32", "bf16"), "optimizer": ("adamw", "adafactor")}
# The least that each count may be. A bool is no number here, and 600.0 no number of steps.
COUNTS = {
    **{"batch_size": 1, "steps": 1, "epochs": 1, "warmup_steps": 0, "warmup_epochs": 0},
    **{"accumulate": 1, "log_every": 1},
}
# (what each number must be, in words; whether it is)
NUMBERS = {
    "lr": ("above 0 and finite", lambda value: 0 < value < math.inf),
    "min_lr": ("at least 0", lambda value: value >= 0),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "clip": ("above 0", lambda value: value > 0),
    "ema": ("between 0 and 1", lambda value: 0 < value < 1),
}


@dataclass(frozen=True)
class Settings:
    """The `train` section of a run. Exactly one of steps and epochs; both count updates per block.

    Raises UserError, naming the key, for a value of another kind or out of range, and for values at odds.
    """

    batch_size: int
    lr: float
    steps: int | None = None
    epochs: int | None = None
    min_lr: float = 0.0  # floor of the cosine; min_lr = lr keeps the rate constant
    warmup_steps: int = 0
    warmup_epochs: int = 0
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of adamw
    clip: float = 1.0
    accumulate: int = 1  # micro-batches per update
    ema: float | None = None  # decay, per update, of averaged weights, which are what is evaluated; the last are kept
    optimizer: str = "adamw"  # adafactor: no first moment, one second for each row and column, lr times a weight's size
    precision: str = "fp32"
    compile: bool = False
    checkpoint_activations: bool = False  # keep what enters a layer and run it again in the backward pass
    augment: list[str] = field(default_factory=list)
    log_every: int = 50

    @classmethod
    def of(cls, section: dict) -> "Settings":
        """The settings of a `train` section. Raises UserError for an unknown or a missing key too."""
        known = [item.name for item in fields(cls)]
        for key in section:
            if key not in known:
                raise UserError(f"train: unknown key {key!r}{suggest(key, known)} (keys here: {', '.join(known)})")
        for key in ("batch_size", "lr"):
            if key not in section:
                raise UserError(f"train needs {key}")
        return cls(**section)

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            if not (value is None and item.default is None):  # some may be absent
                _check(item.name, value)
        if (self.steps is None) == (self.epochs is None):
            raise UserError("train: exactly one of steps and epochs is needed")
        if self.batch_size % self.accumulate:
            raise UserError(f"train.accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.min_lr > self.lr:
            raise UserError(f"train.min_lr: {self.min_lr} is above lr {self.lr}")
        if self.steps is not None and self.warmup_steps > self.steps:
            raise UserError(f"train.warmup_steps: {self.warmup_steps} exceeds steps {self.steps}")
        if self.steps is not None and self.warmup_epochs:
            raise UserError("train.warmup_epochs: where steps are given, say warmup_steps")
        if self.epochs is not None and self.warmup_epochs > self.epochs:
            raise UserError(f"train.warmup_epochs: {self.warmup_epochs} exceeds epochs {self.epochs}")

    def updates(self, steps_per_epoch: int) -> tuple[int, int]:
        """(updates, warm-up updates) per block."""
        steps = self.steps if self.steps is not None else self.epochs * steps_per_epoch
        return steps, self.warmup_steps + self.warmup_epochs * steps_per_epoch

    def check_shared(self, processes: int) -> None:
        """Raise UserError where so many processes cannot share out an update: they take whole micro-batches."""
        if processes < 1 or self.accumulate % processes:
            fitting = [str(number) for number in range(1, self.accumulate + 1) if self.accumulate % number == 0]
            raise UserError(
                f"train.accumulate: {self.accumulate}: so many micro-batches an update cannot be shared out evenly "
                f"among {processes} GPUs. Ask for {' or '.join(fitting)} (`gpu` of train in the profile), or set "
                "accumulate to a multiple of the GPUs, which is another run"
            )

    def rate(self, step: int, total: int, warmup: int) -> float:
        """Learning rate of update `step` (from 0): linear warm-up, then a cosine down to min_lr."""
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(total - warmup, 1)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def _check(key, value):
    """Raise UserError unless the value is of the key's kind and in its range."""
    where = f"train.{key}: {value!r}"
    if key in COUNTS:
        if type(value) is not int:
            whole = f" (write {int(value)})" if isinstance(value, float) and value.is_integer() else ""
            raise UserError(f"{where} should be a whole number{whole}")
        if value < COUNTS[key]:
            raise UserError(f"{where} must be at least {COUNTS[key]}")
    elif key in NUMBERS:
        _check_number(where, value, *NUMBERS[key])
    elif key == "betas":
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise UserError(f"{where} should be a list of two numbers, such as [0.9, 0.999]")
        for beta in value:
            _check_number(where, beta, "at least 0 and below 1, both of them", lambda beta: 0 <= beta < 1)
    elif key in CHOICES:
        if value not in CHOICES[key]:
            raise UserError(f"{where} is not one of {', '.join(CHOICES[key])}")
    elif key in ("compile", "checkpoint_activations"):
        if not isinstance(value, bool):
            raise UserError(f"{where} should be true or false")
    elif key == "augment":
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} should be a list, such as [crop, flip], or [] for none")
        for name in value:
            if name not in AUGMENTATIONS:
                raise UserError(
                    f"train.augment: {name!r} is not one of {', '.join(AUGMENTATIONS)}{suggest(name, AUGMENTATIONS)}"
                )


def _check_number(where, value, words, holds):
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)" if isinstance(value, str) else ""
        raise UserError(f"{where} should be a number{hint}")
    if not holds(value):
        raise UserError(f"{where} must be {words}")

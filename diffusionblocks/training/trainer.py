"""What a training job holds and how one update moves it: settings, batches, network, optimizer, averaged weights.

All randomness of an update comes from the seed, the part and the update's number, so a run that was killed and started
again ends as one that was not: with the same bits on a CPU, and on a GPU where its kernels are deterministic.
"""

import inspect
import math
import random
import resource
from dataclasses import dataclass, field

import torch

from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.augment import AUGMENTATIONS
from diffusionblocks.methods import build


@dataclass(frozen=True)
class Settings:
    """The `train` section of a run. Exactly one of steps and epochs; both count updates per block."""

    batch_size: int
    lr: float
    steps: int = None
    epochs: int = None
    min_lr: float = 0.0  # floor of the cosine; min_lr = lr keeps the rate constant
    warmup_steps: int = 0
    warmup_epochs: int = 0
    weight_decay: float = 0.01
    betas: list = field(default_factory=lambda: [0.9, 0.999])
    clip: float = 1.0
    accumulate: int = 1  # micro-batches per update; `decoupled` weights are averaged within each
    ema: float = None  # decay, per update, of the averaged weights that are saved in place of the last ones
    precision: str = "fp32"
    compile: bool = False
    augment: list = field(default_factory=list)
    log_every: int = 50

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise UserError("train: exactly one of steps and epochs is needed")
        if self.batch_size % self.accumulate:
            raise UserError(f"train.accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UserError(f"train.augment: {name!r} is not one of {', '.join(AUGMENTATIONS)}")
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"train.precision: {self.precision!r} is not one of fp32, bf16")

    def updates(self, steps_per_epoch):
        """(updates, warm-up updates) per block."""
        steps = self.steps if self.steps is not None else self.epochs * steps_per_epoch
        return steps, self.warmup_steps + self.warmup_epochs * steps_per_epoch

    def rate(self, step, total, warmup):
        """Learning rate of update `step` (from 0): linear warm-up, then a cosine down to min_lr."""
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(total - warmup, 1)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


class Batches:
    """Training batches by number: epochs shuffle anew, the last partial batch is dropped as in the official code.

    views: how often each sample is in its batch, each time augmented anew.
    """

    def __init__(self, data, settings, device, *seed, views=1):
        self.data, self.settings, self.device, self.seed, self.views = data, settings, device, seed, views
        self.per_epoch = data.train_size // settings.batch_size
        if not self.per_epoch:
            raise UserError(f"train.batch_size {settings.batch_size} exceeds the {data.train_size} training samples")
        self._epoch, self._order = None, None

    def micro_batches(self, number):
        """The micro-batches (`accumulate` of them) of batch `number`, augmented on the device."""
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of(*self.seed, "epoch", epoch))
            # Where the data are, or each batch would wait for its indices.
            device = getattr(self.data, "train_device", self.device)
            self._order = torch.randperm(self.data.train_size, generator=generator).to(device)
            self._epoch = epoch
        size = self.settings.batch_size
        for indices in self._order[position * size : (position + 1) * size].chunk(self.settings.accumulate):
            yield self.data.train_batch(indices.repeat(self.views), self.settings.augment)


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without its guards against being compiled: they import the compiler, a second in every job."""

    add_param_group, zero_grad, state_dict, load_state_dict = map(
        inspect.unwrap,
        (
            torch.optim.Optimizer.add_param_group,
            torch.optim.Optimizer.zero_grad,
            torch.optim.Optimizer.state_dict,
            torch.optim.Optimizer.load_state_dict,
        ),
    )
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Trainer:
    """One part's network, optimizer and averaged weights, and the update that moves them."""

    def __init__(self, run, part, data, device):
        self.run, self.part, self.device = run, part, device
        self.settings = Settings(**run["train"])
        self.seed = (run["seed"], part)
        torch.manual_seed(seed_of(*self.seed, "initial weights"))
        self.method = build(run, data.shape, part).to(device)
        for model in self.method.models.values():
            if hasattr(model, "start_from"):  # a network whose first weights are taken from the data
                model.start_from(data)
        self.batches = Batches(data, self.settings, device, *self.seed, views=getattr(self.method, "views", 1))
        steps, warmup = self.settings.updates(self.batches.per_epoch)
        self.blocks = self.method.blocks
        # Counted per block in the settings; a process that trains all blocks in turn needs num_blocks times as many.
        self.total, self.warmup = steps * len(self.blocks), warmup * len(self.blocks)
        self.parameters = dict(self.method.named_parameters())
        self.optimizer = AdamW(
            self.parameters.values(),
            lr=self.settings.lr,
            betas=tuple(self.settings.betas),
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        self.ema = None
        if self.settings.ema:
            self.ema = {name: value.detach().clone() for name, value in self.parameters.items()}
        if self.settings.compile:
            torch.use_deterministic_algorithms(True, warn_only=True)  # tells the compiler, too
            for model in self.method.models.values():
                every = model.all_layers() if hasattr(model, "all_layers") else model.layers
                for layer in every:  # layers share one compiled graph; whole networks would compile per block
                    layer.compile(dynamic=False)

    def update(self, step):
        """One update. Returns its block and, on the device, loss, objective, gradient norm, sigma of the worst."""
        seed = seed_of(*self.seed, step)
        torch.manual_seed(seed)
        block = random.Random(seed).choice(self.blocks)
        rate = self.settings.rate(step, self.total, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        gathered = []
        for batch in self.batches.micro_batches(step):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                objective, losses, sigma = self.method.loss(batch, block)
            (objective / self.settings.accumulate).backward()
            level = losses.new_zeros(()) if sigma is None else at_worst(sigma, losses)
            gathered.append(torch.stack([losses.mean(), objective.detach(), level.to(losses.dtype)]))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
        self.optimizer.step()
        if self.ema is not None:
            # Only what this update moved: a block that waits for its turn must not have its horizon stretched.
            moved = [name for name, value in self.parameters.items() if value.grad is not None]
            averages, values = [self.ema[name] for name in moved], [self.parameters[name].detach() for name in moved]
            torch._foreach_lerp_(averages, values, 1 - self.decay(step // len(self.blocks)))
        gathered = torch.stack(gathered)
        loss, objective, _ = gathered.mean(0).unbind()
        level = at_worst(gathered[:, 2], gathered[:, 0])
        return block, torch.stack([loss, objective, norm.to(loss.dtype), level])

    def decay(self, updates):
        """Decay of the averages after so many updates of a block. As in EDM, their half-life is at most 5% of these:

        a short run would else average the weights it started from.
        """
        return min(self.settings.ema, 0.5 ** (1 / max(0.05 * updates, 1e-3)))

    def tensors(self):
        """All that a checkpoint needs, by name."""
        found = {f"model.{name}": tensor for name, tensor in self.method.state_dict().items()}
        found |= {f"ema.{name}": tensor for name, tensor in (self.ema or {}).items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
        return found

    def restore(self, tensors):
        def under(prefix):
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.method.load_state_dict(under("model."))
        if self.ema is not None:
            self.ema = under("ema.")
        state = {}
        for name, value in under("optimizer.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # the checkpoint's copy is no part of training

    def weights(self):
        """What the part hands on: its state, with the averaged weights where there are any."""
        return {**self.method.state_dict(), **(self.ema or {})}

    def memory(self):
        """Bytes held by this process for parameters, gradients and optimizer state, and its peak."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "parameter_bytes": _bytes(self.parameters.values()),
            "gradient_bytes": _bytes(value.grad for value in self.parameters.values() if value.grad is not None),
            "optimizer_bytes": _bytes(state),
            "average_bytes": _bytes((self.ema or {}).values()),
            "peak_bytes": peak,
        }


def at_worst(values, losses):
    """The entry of `values` (N,) where `losses` (N,) is largest or not a number, without a word to the host."""
    return values.gather(0, losses.nan_to_num(nan=math.inf).argmax(0, keepdim=True))[0]


def _bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

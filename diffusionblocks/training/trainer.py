"""What a training job holds and how one update moves it: batches, network, optimizer, averaged weights.

All randomness of an update comes from the seed, the part and the update's number, so a run that was killed and started
again ends as one that was not: with the same bits on a CPU, and on a GPU where its kernels are deterministic.
"""

import contextlib
import functools
import inspect
import math
import random
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from diffusionblocks.base.compat import Adafactor, AdamW
from diffusionblocks.base.device import ready_compiler, seed_of, set_seed
from diffusionblocks.base.files import UserError
from diffusionblocks.methods import LAST, build
from diffusionblocks.models.base import broken
from diffusionblocks.training.settings import Settings
from diffusionblocks.training.start import copy_into


class Batches:
    """Training batches by number: epochs shuffle anew, the last partial batch is dropped as in the official code.

    views: how often each sample is in its batch, each time augmented anew.
    """

    def __init__(self, data, settings: Settings, *seed, views: int = 1):
        self.data, self.settings, self.seed, self.views = data, settings, seed, views
        self.per_epoch = data.train_size // settings.batch_size
        if not self.per_epoch:
            raise UserError(f"train.batch_size {settings.batch_size} exceeds the {data.train_size} training samples")
        self._epoch, self._order = None, None

    def micro_batches(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The micro-batches (`accumulate` of them) of batch `number`, augmented on the device."""
        return map(self.micro_batch, self.indices(number))

    def indices(self, number: int) -> Sequence[torch.Tensor]:
        """Which samples the micro-batches of batch `number` have."""
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of(*self.seed, "epoch", epoch))
            order = torch.randperm(self.data.train_size, generator=generator)
            # Where the data are, or each batch would wait for its indices.
            self._epoch, self._order = epoch, order.to(self.data.train_device)
        size = self.settings.batch_size
        return self._order[position * size : (position + 1) * size].chunk(self.settings.accumulate)

    def micro_batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """The micro-batch of these samples; it draws how they are augmented."""
        return self.data.train_batch(indices.repeat(self.views), self.settings.augment)


class Trainer:
    """One part's network, optimizer and averaged weights, and the update that moves them.

    team: a `team.Team` where several processes share out an update's micro-batches, each with a trainer of its own.
    start: a trained model whose weights this part starts from; copied: how many parameters those are, and of how many.
    """

    team = None
    copied = None

    def __init__(self, run: dict, part: str, data, device: torch.device, start: str | Path | None = None):
        self.run, self.part, self.device = run, part, device
        self.settings = Settings.of(run["train"])
        self.seed = (run["seed"], part)
        set_seed(seed_of(*self.seed, "initial weights"), device)
        self.method = build(run, data.shape, part).to(device)
        for model in self.method.models.values():
            model.start_from(data)
        if start is not None:
            self.copied = copy_into(self.method, start)
        self.batches = Batches(data, self.settings, *self.seed, views=self.method.views)
        steps, warmup = self.settings.updates(self.batches.per_epoch)
        self.blocks = self.method.blocks
        # Counted per block in the settings; a process that trains all blocks in turn needs num_blocks times as many.
        self.total, self.warmup = steps * len(self.blocks), warmup * len(self.blocks)
        self.parameters = dict(self.method.named_parameters())
        options = {"lr": self.settings.lr, "weight_decay": self.settings.weight_decay}
        if self.settings.optimizer == "adafactor":
            self.optimizer = Adafactor(self.parameters.values(), **options)
        else:
            fused = device.type != "meta"  # on which an update is counted, and which has no such kernel
            betas = tuple(self.settings.betas)
            self.optimizer = AdamW(self.parameters.values(), betas=betas, fused=fused, **options)
        if self.settings.checkpoint_activations:
            for model in self.method.models.values():
                for layer in model.all_layers():  # generators are put back, so that dropout repeats
                    layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        self.ema = None
        if self.settings.ema:
            trained = {name: value for name, value in self.parameters.items() if value.requires_grad}
            self.ema = {name: value.detach().clone() for name, value in trained.items()}
        if self.settings.compile:
            ready_compiler(device, "train.compile")
            for model in self.method.models.values():
                for layer in model.all_layers():  # they share one compiled graph; a network would compile per block
                    layer.compile(dynamic=False)

    def check(self) -> None:
        """Meet the method, before its first update, with two samples. Raises UserError where it breaks its contract.

        Training goes on as if nothing had been: no random number, weight or statistic of a network has moved.
        """
        batches = self.batches
        uncompiled = contextlib.nullcontext()  # two samples would compile every layer once more
        if self.settings.compile:
            uncompiled = torch.compiler.set_stance("force_eager")
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), uncompiled:
            indices = torch.arange(min(2, batches.data.train_size), device=batches.data.train_device)
            self.method.check(batches.data.train_batch(indices.repeat(batches.views), self.settings.augment))
            self._check_micro_batches()

    def _check_micro_batches(self):
        """A method that derives from one whose micro-batches share their levels has to pass them on."""
        _, levels = self._micro_batches(0, self.blocks[0])[0]
        try:
            inspect.signature(self.method.loss).bind({}, self.blocks[0], **levels)
        except TypeError:
            raise broken(
                self.method,
                "loss",
                "must take `levels` and `mine`, and hand them on: with train.accumulate the levels are those of "
                "the whole update",
            ) from None

    def update(self, step: int) -> tuple[int, torch.Tensor]:
        """One update. Returns its block and, on the device, loss, objective, gradient norm, sigma of the worst."""
        seed = seed_of(*self.seed, step)
        block = random.Random(seed).choice(self.blocks)
        rate = self.settings.rate(step, self.total, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        gathered = self._gradients(step, seed, block)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
        self.optimizer.step()
        if self.ema is not None:
            # Only what this update moved: a block that waits for its turn must not have its horizon stretched.
            moved = [name for name, value in self.parameters.items() if value.grad is not None]
            averages, values = [self.ema[name] for name in moved], [self.parameters[name].detach() for name in moved]
            torch._foreach_lerp_(averages, values, 1 - self.decay(step // len(self.blocks)))
        loss, objective, _ = gathered.mean(0).unbind()
        level = at_worst(gathered[:, 2], gathered[:, 0])
        return block, torch.stack([loss, objective, norm.to(loss.dtype), level])

    def _gradients(self, step, seed, block):
        """Make a batch's gradients. Returns each micro-batch's loss, objective, sigma of the worst: (accumulate, 3)."""
        set_seed(seed, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        gathered, micro_batches = [], self._micro_batches(step, block)

        def loss(micro_batch):
            indices, levels = micro_batch
            batch = self.batches.micro_batch(indices)
            with self._autocast():
                return self.method.loss(batch, block, **levels)

        shared = map(loss, micro_batches) if self.team is None else self.team.share(micro_batches, loss, block)
        for objective, losses, sigma in shared:
            (objective / self.settings.accumulate).backward()
            level = losses.new_zeros(()) if sigma is None else at_worst(sigma, losses)
            gathered.append(torch.stack([losses.mean(), objective.detach(), level.to(losses.dtype)]))
        gathered = torch.stack(gathered)
        if self.team is None:
            return gathered
        combined = self.team.combine(self.parameters.values(), gathered, len(micro_batches))
        return self._gradients(step, seed, block) if combined is None else combined

    def _micro_batches(self, step, block):
        """[(indices, what the method's `loss` is told of the whole update's levels)] of each micro-batch.

        A batch that is whole draws its own. Every process of a team draws all, from the same state.
        """
        parts = self.batches.indices(step)
        size, levels = len(parts[0]) * self.method.views, None
        if len(parts) > 1:
            levels = self.method.training_levels(size * len(parts), block, self.device)
        if levels is None:
            return [(indices, {}) for indices in parts]
        slices = (slice(start, start + size) for start in range(0, len(levels), size))
        return [(indices, {"levels": levels, "mine": mine}) for indices, mine in zip(parts, slices, strict=True)]

    def _autocast(self):
        """The precision of an update. The meta device knows no autocast, even one that is turned off."""
        if self.settings.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def decay(self, updates: int) -> float:
        """Decay of the averages after so many updates of a block. As in EDM, their half-life is at most 5% of these:

        a short run would else average the weights it started from.
        """
        return min(self.settings.ema, 0.5 ** (1 / max(0.05 * updates, 1e-3)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a checkpoint needs, by name."""
        found = {f"model.{name}": tensor for name, tensor in self.method.state_dict().items()}
        found |= {f"ema.{name}": tensor for name, tensor in (self.ema or {}).items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
        return found

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave. Raises RuntimeError, ValueError or KeyError where the network is another."""

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

    def weights(self) -> dict[str, torch.Tensor]:
        """What the part hands on: its state; where weights are averaged, with those, and the last ones beside them."""
        last = {LAST + name: self.parameters[name].detach() for name in self.ema or {}}
        return {**self.method.state_dict(), **(self.ema or {}), **last}

    def memory(self) -> dict[str, int]:
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


def at_worst(values: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """The entry of `values` (N,) where `losses` (N,) is largest or not a number, without a word to the host."""
    return values.gather(0, losses.nan_to_num(nan=math.inf).argmax(0, keepdim=True))[0]


def _bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

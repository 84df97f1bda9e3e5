"""The contract of a training method, a module with a class `Method(base.Method)`, and how both contracts are met."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.chains import Step
from diffusionblocks.diffusion.noise import Noise, noise_of
from diffusionblocks.diffusion.partition import layers_of
from diffusionblocks.models import base as models
from diffusionblocks.models.base import broken, not_offered, where

DRAWS = 20  # of noise, before a gradient counts as zero: of a few tokens, none may be masked


class Network:
    """A network that a method has yet to build: its class, the data's sizes, and the keywords of its section."""

    def __init__(self, model: type[models.Model], shape: dict, **keywords: Any):
        if not issubclass(model, models.Model):
            raise UserError(f"{where(model)} must derive from diffusionblocks.models.base.Model. See docs/extending.md")
        self.model, self.shape, self.keywords = model, shape, keywords

    @property
    def noise(self) -> type[Noise]:
        """The noise that it denoises. Raises ValueError where its `noise_kind` names none."""
        return noise_of(self.model.noise_kind)

    @property
    def num_layers(self) -> int:
        """Raises ValueError where the section leaves it to the network."""
        return layers_of(self.keywords)

    def build(self, **changed: Any) -> models.Model:
        """The network, with some keywords changed: noise, target_norm, num_layers or others."""
        keywords = {**self.keywords, **changed}
        try:
            inspect.signature(self.model).bind(self.shape, **keywords)
        except TypeError as error:
            raise broken(
                self.model, "__init__", f"does not take (shape, {', '.join(map('{}=...'.format, keywords))}): {error}"
            ) from None
        model = self.model(self.shape, **keywords)
        if not isinstance(dict(model.named_children()).get("layers"), nn.ModuleList):
            raise broken(model, "layers", "must be an nn.ModuleList: blocks are cut from it")
        if len(model.layers) != keywords.get("num_layers", len(model.layers)):
            raise broken(model, "layers", f"has {len(model.layers)}, and num_layers is {keywords['num_layers']}")
        return model


class Method(nn.Module):
    """Constructed as Method(network, part, **keywords): the keywords are the keys of the `method` section.

    network: a Network; part: what one training job holds ("all", "block0", ...), or None for everything.
    N samples; eps: standard normal (N, *z_shape), or None without `z_shape`.
    """

    needs: ClassVar[tuple[str, ...]] = ()  # optional members that it asks of a model; planning reads the literal
    views: int = 1  # how often a batch has each sample, each time augmented anew
    blocks: Sequence[int] = (0,)  # that this part trains; one is drawn for every update and handed on by its index
    boundaries: list[float] | None = None  # levels between blocks; with them also `noise`, `intervals` and `layers`
    z_shape: tuple[int, ...] | None = None  # of the noise that a chain starts from; None for none
    models: nn.ModuleDict  # networks, named so that the tensors of all parts together are the whole

    def loss(self, batch: dict, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(objective, a scalar with a gradient; losses (N,) to log, without; their levels (N,), or None)."""
        raise not_offered(self, "loss")

    def predict(self, batch: dict, eps: Tensor | None = None) -> list[Step]:
        """A Step for each network evaluation; the last one's prediction is the answer.

        Keyword-only arguments are what a metric's `sampling` may say; likewise in the next two.
        """
        raise not_offered(self, "predict")

    def acting(self, block: int) -> tuple[models.Model, nn.ModuleList]:
        """The network that holds a block, and those of its `layers` that the block trains: all, if not said."""
        (model,) = self.models.values()
        return model, model.layers

    # Optional

    def training_levels(self, count: int, block: int, device: torch.device) -> Tensor | None:
        """Levels (count,) of all samples of an update, where its micro-batches must know of each other's.

        `loss` is then also given `levels`, these, and `mine`, the slice of them that is the batch's. None for a method
        whose micro-batches have nothing in common.
        """
        return None

    def first_layer(self, name: str) -> int:
        """Which layer of the whole the first one of a network in `models` is; of blocks, for a row's `start`."""
        if [*self.models] != ["all"]:
            raise not_offered(self, "first_layer")
        return 0

    def sample(self, batches: list[dict], eps: list[Tensor], device: torch.device) -> Iterator[tuple[int, Step]]:
        """Whole samples: (index of the batch, Step) of every network evaluation. eps: (N, *noise.chain_shape) each."""
        raise not_offered(self, "sample")

    def extend(self, tokens: Tensor, eps: Tensor, draws: Tensor) -> Tensor:
        """Texts (N, length) that go on from tokens (N, P). eps: (N, length, D); draws: uniforms (N, length)."""
        raise not_offered(self, "extend")

    def bound(self, batch: dict, u: Tensor, eps: Tensor) -> Tensor:
        """The likelihood's bound in nats per token (N,), at levels u (N,), under uniforms eps (N, seq_len)."""
        raise not_offered(self, "bound")

    def owner(self, level: float) -> int:
        """Index of the block that acts at a level; only with `bound`."""
        raise not_offered(self, "owner")

    def scores(self, step: Step, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """What a text model's Step scores on the true tokens: its network's `scores`."""
        return self.acting(step.block or 0)[0].scores(step.prediction, batch)

    def agreement(self, step: Step, other: Step) -> Tensor:
        """The chance that samples of two Steps of the same block and batch agree: its network's `agreement`."""
        return self.acting(step.block or 0)[0].agreement(step.prediction, other.prediction)

    # What training meets first

    def check(self, batch: dict) -> None:
        """Meet the contract with one batch of two or more samples: every block of this part, and a chain.

        Blocks are met with noise on all weights: where many are zero at first, they do not show what they are for.
        Raises UserError naming file, class and member. Nothing stays: weights, buffers, gradients and the state of the
        random number generators are as before.
        """
        kept = {name: value.clone() for name, value in self.named_buffers()}
        training, devices = self.training, {value.device for value in self.parameters() if value.is_cuda}
        with torch.random.fork_rng(list(devices)):
            try:
                for model in self.models.values():
                    _check_members(model)
                with shaken(self):
                    for block in self.blocks:
                        self.check_block(batch, block)
                        self.zero_grad(set_to_none=True)
                self.eval()
                with torch.no_grad():
                    self.check_chain(batch)
            finally:
                self.train(training)
                self.zero_grad(set_to_none=True)
                with torch.no_grad():
                    for name, value in self.named_buffers():
                        value.copy_(kept[name])

    def check_block(self, batch: dict, block: int) -> None:
        """Meet `loss` for one block, and that it trains its own layers and no others."""
        model, layers = self.acting(block)
        count, found = size(batch), meet(self, "loss", batch, block)
        if not isinstance(found, tuple) or len(found) != 3:
            raise broken(self, "loss", "must give (objective, losses, levels or None)")
        objective, losses, levels = found
        if not torch.is_tensor(objective) or objective.shape != () or not objective.requires_grad:
            raise broken(self, "loss", f"has an objective that is {_seen(objective)}, not a scalar with a gradient")
        check_losses(self, "loss", losses, count)
        if levels is not None and levels.shape != losses.shape:
            raise broken(self, "loss", f"gives levels {_seen(levels)} for {count} samples")
        objective.backward()
        mine = {id(layer) for layer in layers}
        for index, layer in enumerate(model.layers):
            trained = [value for value in layer.parameters() if value.requires_grad]
            reached = any(value.grad is not None for value in trained)
            if reached and id(layer) not in mine:
                what = f"are run beyond those that `predict` is given: layer {index} has a gradient of block {block}"
                raise broken(model, "layers", f"{what}, which does not hold it")
            if trained and not reached and id(layer) in mine:
                what = f"are not all run: layer {index} has no gradient of block {block}"
                raise broken(model, "layers", f"{what}, which holds it")
        gradients = [value.grad for layer in layers for value in layer.parameters() if value.grad is not None]
        for _ in range(DRAWS):
            if not gradients or any(gradient.any() for gradient in gradients):
                return
            self.loss(batch, block)[0].backward()
        raise broken(self, "loss", f"gives the layers of block {block} a gradient that is zero: they cannot learn")

    def check_chain(self, batch: dict, **sampling: Any) -> None:
        """Meet `predict`, with options of it."""
        eps = None
        if self.z_shape is not None:
            weight = next(self.parameters())
            eps = torch.randn(size(batch), *self.z_shape, dtype=weight.dtype, device=weight.device)
        steps = meet(self, "predict", batch, eps, **sampling)
        if not isinstance(steps, list) or not steps or not all(isinstance(step, Step) for step in steps):
            raise broken(self, "predict", "must give a list of at least one diffusion.chains.Step")


@contextlib.contextmanager
def shaken(module: nn.Module) -> Iterator[None]:
    """In here all weights have noise on them, drawn from torch's generator; afterwards they have the same bits.

    Of a matrix as much as keeps the size of what it multiplies, whatever its width.
    """
    parameters = list(module.parameters())
    kept = [value.detach().clone() for value in parameters]
    try:
        with torch.no_grad():
            for value in parameters:
                value.add_(torch.randn_like(value), alpha=value[0].numel() ** -0.5 if value.dim() > 1 else 0.1)
        yield
    finally:
        with torch.no_grad():
            for value, before in zip(parameters, kept, strict=True):
                value.copy_(before)


def size(batch: dict) -> int:
    """N, the number of samples of a batch."""
    return len(next(iter(batch.values())))


def meet(thing: nn.Module, member: str, *arguments: Any, **keywords: Any) -> Any:
    """What a member gives. Raises UserError where it fails, unless it is for want of memory."""
    with calling(thing, member):
        return getattr(thing, member)(*arguments, **keywords)


@contextlib.contextmanager
def calling(thing: nn.Module, member: str) -> Iterator[None]:
    """Makes a UserError of whatever is raised in here, as `meet` does."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise broken(thing, member, f"fails on a small batch: {type(error).__name__}: {error}") from error


def check_losses(thing: nn.Module, member: str, losses: Any, count: int) -> None:
    """Raise UserError unless `losses` is floating-point, one for each of `count` samples."""
    if not torch.is_tensor(losses) or losses.dim() != 1 or not losses.is_floating_point():
        raise broken(thing, member, f"gives {_seen(losses)}, not one floating-point loss for each sample (N,)")
    if len(losses) != count:
        raise broken(thing, member, f"gives {len(losses)} losses for {count} samples")


def check_target(model: models.Model, member: str, z0: Any, like: Tensor) -> None:
    """Raise UserError unless `z0`, given by a member, has the shape of `like` (N, *z_shape) and a type no wider."""
    fits = torch.is_tensor(z0) and z0.shape == like.shape and z0.is_floating_point() == like.is_floating_point()
    if not fits or torch.promote_types(z0.dtype, like.dtype) != like.dtype:
        raise broken(model, member, f"gives {_seen(z0)}, and z_shape and the weights ask for {_seen(like)}")


def check_heeded(model: models.Model, member: str, ask: Callable, given: dict, others: dict) -> None:
    """Raise UserError where a member's answer stays the same, to the bit, when one of what it is given is another.

    ask(**given): tensors of the answer; not finite, they say nothing. others: {name in `given`: (another value, what is
    wrong, in words)}. Weights should be shaken and the network in evaluation, where nothing is drawn.
    """
    with torch.no_grad(), calling(model, member):
        first = _asked(ask, given)
        for name, (value, words) in others.items():
            if not _same(value, given[name]) and _same(_asked(ask, {**given, name: value}), first):
                raise broken(model, member, words)


def _asked(ask, given):
    torch.manual_seed(0)  # a network may draw a first state; `check` puts the generators back
    return ask(**given)


def _same(one, other):
    """Whether two values hold the same tensors, as far as they can be looked into."""
    one, other = tree_leaves(one), tree_leaves(other)
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        torch.equal(a, b) and a.isfinite().all() if torch.is_tensor(a) and torch.is_tensor(b) else a is b
        for a, b in pairs
    )


def rolled(batch: dict) -> dict:
    """The batch with its samples in another order: each is in its neighbour's place."""
    return {name: value.roll(1, 0) for name, value in batch.items()}


def differ(batch: dict) -> bool:
    """Whether each sample differs from its neighbour in all that the batch holds; the labels of two may agree."""
    pairs = zip(batch.values(), rolled(batch).values(), strict=True)
    return all(
        (one != other).flatten(1).any(1).all() if one.dim() > 1 else (one != other).all() for one, other in pairs
    )


def _check_members(model):
    """No submodule may have the name of a member: it would hide behind the contract's."""
    for name, _ in [*model.named_children(), *model.named_parameters(recurse=False)]:
        if inspect.isfunction(getattr(models.Model, name, None)):
            raise broken(model, name, "is a member of the contract, and cannot name a part of the network")


def _seen(value):
    """A value as messages show it."""
    if not torch.is_tensor(value):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"

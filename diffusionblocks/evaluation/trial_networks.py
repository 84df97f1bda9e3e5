"""How `trial` tries a model with every method that can train it, and a method with every model.

What a broken member is told stands in the contracts (`methods.base.Method.check`); here are the pairs, and what comes
after training.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import torch

from diffusionblocks.base.components import Component, load, names
from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.noise import noise_of
from diffusionblocks.evaluation.trial import at_fault
from diffusionblocks.evaluation.trial_samples import CPU, Images, Texts
from diffusionblocks.methods.base import Method
from diffusionblocks.models.base import Model, broken, where
from diffusionblocks.training.trainer import Trainer

# Sizes of a network, of which a constructor is given those that it has.
SIZES = {"num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4}
TRAIN = {"batch_size": 2, "lr": 0.001, "steps": 1}
STEPS = 4  # of a generated sample
PROMPT = 2  # tokens


def try_model(component: Component, model: type, data_dir: str | Path) -> Iterator[str]:
    """It is tried with every method of this package whose `needs` it offers. Raises UserError where there is none."""
    _check_class(component, model, Model)
    positional = _positional(model)
    if positional[:1] != ["shape"]:
        raise broken(
            model, "__init__", f"takes ({', '.join(positional)}); its first argument must be `shape`, the data's sizes"
        )
    lacking = {name: _lacks(model, load("method", name)) for name in names("method")}
    partners = [name for name, absent in lacking.items() if not absent]
    if not partners:
        said = "; ".join(f"{name} needs {', '.join(absent)}" for name, absent in lacking.items())
        raise UserError(f"{where(model)}: no method can train it ({said}). See docs/extending.md")
    yield from _try_all(component, [(component.name, name) for name in partners])


def try_method(component: Component, method: type, data_dir: str | Path) -> Iterator[str]:
    """It is tried with every model of this package that offers what it needs. Raises UserError where there is none."""
    _check_class(component, method, Method)
    positional = _positional(method)
    if len(positional) < 2:
        raise broken(method, "__init__", f"takes ({', '.join(positional)}); it must take (network, part, *, ...)")
    unknown = [member for member in method.needs if not hasattr(Model, member)]
    if unknown:
        raise UserError(f"{where(method)}: needs {', '.join(unknown)}, of which the contract of a model knows nothing")
    partners = [name for name in names("model") if not _lacks(load("model", name), method)]
    if not partners:
        raise UserError(f"{where(method)}: no model of this package offers all it needs: {', '.join(method.needs)}")
    yield from _try_all(component, [(name, component.name) for name in partners])


def _check_class(component, found, base):
    if not isinstance(found, type) or not issubclass(found, base):
        raise UserError(
            f"{component.file}: class {component.attribute} must derive from {base.__module__}.{base.__name__}. "
            "See docs/extending.md"
        )


def _positional(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _lacks(model, method):
    """The members that a method needs of a model, and that the model leaves as the contract has them."""
    return [name for name in method.needs if _inherited(model, name)]


def _inherited(kind, member, contract=Model):
    return getattr(kind, member, None) is getattr(contract, member, None)


def _try_all(component, pairs):
    """Lines of every pair (model, method). Raises UserError where every pair refuses these sizes."""
    refused = []
    for model, method in pairs:
        for keywords in _variants(load("method", method)):
            said = ", ".join([f"{model} with {method}", *(f"{key} {value}" for key, value in keywords.items())])
            try:
                yield f"{said}: {'; '.join(_try(component, model, {'name': method, **keywords}))}"
            except _Refused as refusal:
                refused.append(f"{said}: refused ({refusal})")
                yield refused[-1]
    if len(refused) == sum(len(_variants(load("method", method))) for _, method in pairs):
        raise UserError(f"{component.file}: {'; '.join(refused)}")


def _variants(method):
    """Keywords to try. Only where blocks share one network does it show whether `layers` is heeded."""
    shared = "sharing" in inspect.signature(method).parameters
    return [{"sharing": sharing} for sharing in ("independent", "joint")] if shared else [{}]


class _Refused(Exception):
    """A pair says, by a ValueError of a constructor, that it does not fit."""


def _try(component, model, method):
    """What one pair did, in a few words: first the contract, then an update, a chain, and a sample if it makes any."""
    trainer, data = _trainer(component, model, method)
    member = f"{model} with {method['name']}"
    with at_fault(component, f"{member} breaks off"):
        trainer.check()
        block, values = trainer.update(0)
        if not values.isfinite().all():
            loss, objective, norm, _ = values.tolist()
            raise UserError(
                f"{component.file}: {member}: block {block}, loss {loss:.4g}, objective {objective:.4g}, gradient norm "
                f"{norm:.4g} are not all finite at the first update"
            )
        trainer.method.eval()
        with torch.no_grad():
            after = list(_after_training(trainer.method, data.train_batch(torch.arange(2))))
        return [f"an update, loss {values[0]:.4g}", *after]


def _after_training(method, batch):
    """What evaluation and sampling will ask for, in a few words each."""
    network = method.acting(method.blocks[0])[0]
    if noise_of(network.noise_kind).of_tokens:  # has no prediction of the next token
        asked = {"bound": _bound, "sample": _sample}
    else:
        answer = _chain(method, batch)
        yield answer
        asked = {"sample": _sample} if answer.endswith("images") else {}
        if "tokens" in batch and not _inherited(type(network), "begin"):
            asked = {"extend": _text}
    for member, tried in asked.items():  # members that a method may lack: planning refuses a metric that asks for one
        yield f"no `{member}`" if _inherited(type(method), member, Method) else tried(method, batch)


def _trainer(component, model, method):
    """(a Trainer of the pair, its data). Images or texts: whichever have the sizes that the constructor asks for."""
    keywords = inspect.signature(load("model", model)).parameters
    section = {"name": model, **{key: size for key, size in SIZES.items() if key in keywords or key == "num_layers"}}
    run = {"table": "try", "row": component.name, "seed": 0, "model": section, "method": method, "train": TRAIN}
    absent = []
    for data in (Images(), Texts()):
        try:
            with at_fault(component, f"{model} with {method['name']} cannot be built"):
                return Trainer(run, None, data, CPU), data
        except UserError as error:
            cause = error.__cause__
            if isinstance(cause, KeyError):
                absent.append(cause.args[0])
            elif isinstance(cause, ValueError):  # as `build` passes on a constructor's refusal
                raise _Refused(str(cause)) from None
            else:
                raise
    asked = " and ".join(f"shape[{key!r}]" for key in dict.fromkeys(absent))
    there = f"of images there are {', '.join(Images.shape)}, of texts {', '.join(Texts.shape)}"
    raise UserError(f"{component.file}: {model} asks for {asked}, and {there}")


def _chain(method, batch):
    """The answer of a chain, in words. Raises UserError where metrics can make nothing of it."""
    count = len(next(iter(batch.values())))
    eps = torch.randn(count, *method.z_shape) if method.z_shape is not None else None
    steps = method.predict(batch, eps)
    if "tokens" in batch:
        for step in steps:
            scores = method.scores(step, batch)
            if len(scores) != 3 or any(score.shape != (count,) or not score.isfinite().all() for score in scores):
                raise broken(method.acting(step.block or 0)[0], "scores", f"must give three finite numbers ({count},)")
        agreement = method.agreement(steps[-1], steps[-1])
        if agreement.shape != (count,) or not ((agreement > 0) & (agreement < 1.001)).all():
            raise broken(method.acting(steps[-1].block or 0)[0], "agreement", f"must give chances ({count},)")
        return f"a chain of {len(steps)} to tokens"
    answer, model = steps[-1].prediction, method.acting(steps[-1].block or 0)[0]
    member = "predict" if method.z_shape is not None else "end_to_end_prediction"
    shape = tuple(getattr(answer, "shape", ()))
    kinds = {(count, Images.shape["num_classes"]): "class logits", tuple(batch["signed"].shape): "images"}
    if shape not in kinds or not answer.isfinite().all():
        raise broken(
            model,
            member,
            f"gives {shape}, not finite {' or '.join(f'{what} {form}' for form, what in kinds.items())}",
        )
    return f"a chain of {len(steps)} to {kinds[shape]}"


def _bound(method, batch):
    """A likelihood of each text."""
    tokens = batch["tokens"]
    found = method.bound(batch, torch.rand(len(tokens)), torch.rand(tokens.shape))
    if found.shape != tokens.shape[:1] or not found.isfinite().all():
        raise broken(method, "bound", f"gives {tuple(found.shape)}, not a finite number for each text")
    return "a likelihood"


def _sample(method, batch):
    """A sample of each of the batch's classes, or whole texts."""
    shape = method.noise.chain_shape(STEPS, method.z_shape)
    count = len(next(iter(batch.values())))
    tokens = "tokens" in batch
    draws = torch.rand(count, *shape, dtype=torch.float64) if tokens else torch.randn(count, *shape)
    known = {} if "tokens" in batch else {"label": batch["label"]}
    *_, (_, last) = method.sample([known], [draws], CPU, num_steps=STEPS)
    wanted = batch["tokens"] if "tokens" in batch else batch["signed"]
    if last.prediction.shape != wanted.shape:
        raise broken(method, "sample", f"ends with {tuple(last.prediction.shape)}, and not with {tuple(wanted.shape)}")
    return "a sample"


def _text(method, batch):
    """A text of each prompt."""
    tokens = batch["tokens"]
    eps, draws = torch.randn(*tokens.shape, method.acting(method.blocks[0])[0].z_shape[-1]), torch.rand(tokens.shape)
    found = method.extend(tokens[:, :PROMPT], eps, draws)
    if found.shape != tokens.shape or not torch.equal(found[:, :PROMPT], tokens[:, :PROMPT]):
        raise broken(method, "extend", f"gives {tuple(found.shape)}, and not the prompts with what follows them")
    return "a text"

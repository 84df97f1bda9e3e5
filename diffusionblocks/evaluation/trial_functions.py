"""How `trial` tries components that are functions: lines of what was tried, or a UserError that says what is wrong."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from diffusionblocks.base.components import Component
from diffusionblocks.base.files import UserError
from diffusionblocks.data.source import call_source
from diffusionblocks.diffusion.edm import EDM
from diffusionblocks.diffusion.masking import Masking
from diffusionblocks.diffusion.partition import boundaries, owner
from diffusionblocks.evaluation.inputs import INPUTS
from diffusionblocks.evaluation.metric import load_metric
from diffusionblocks.evaluation.trial import at_fault
from diffusionblocks.evaluation.trial_samples import Images, Texts

N, STEPS, LEVELS = 40, 3, 24  # samples, and steps of a chain, of which metrics are computed; levels of a solver's chain
REDRAWN = 10  # draws of an input, which by chance may give the same share of few samples
COMPARED = 1000  # documents that are looked at


# A metric


def try_metric(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """Its value of random inputs: the declared arguments in their shapes."""
    wanted = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    kinds = set.intersection(*(set(INPUTS[name].kinds) for name in wanted if name in INPUTS), {"images", "text"})
    metric = load_metric(component.name, min(kinds or {"images"}))
    steps, given = LEVELS if "nelbo_per_level" in wanted else STEPS, _inputs(0)
    with at_fault(component, f"metric {component.name} cannot be computed from random {', '.join(wanted)}"):
        value = metric(given, {}, steps)
        for name in wanted:
            others = (metric({**given, name: _inputs(seed)[name]}, {}, steps) for seed in range(1, REDRAWN))
            if all(other == value for other in others):
                raise UserError(f"{component.file}: metric {component.name} gives the same whatever its {name} are")
    shown = f"{value:.4g}" if not isinstance(value, list) else f"a curve of {len(value)}"
    yield f"from random {', '.join(wanted)}: {shown}"
    about = metric.about
    better = f"{about.better} is better" if about.better else "a description"
    yield f"for {' and '.join(sorted(kinds))}; unit {about.unit or 'none'}; {better}"


def _inputs(seed):
    """A random value of every input of metrics (see evaluation/inputs.py)."""
    random = np.random.default_rng(seed)

    def features():
        return random.standard_normal((N, 8)).astype(np.float32)

    def nll():
        return random.uniform(5, 9, N), np.full(N, 4.0)

    real = features()
    split = {"mu": real.mean(0, dtype=np.float64), "sigma": np.cov(real.T), "features": real}

    def counted():
        names = (
            *("parameters", "gradients", "optimizer", "moments", "average", "activations"),
            *("peak", "flop", "network", "epochs"),
        )
        layers = {"parameters": 0.5, "moments": 1.0, "activations": 0.4, "held": 4, "run": int(random.integers(2, 5))}
        passes = {"forward": random.uniform(2, 4), "backward": random.uniform(2, 4)}
        about = {"micro_batch": 8, "checkpointing": False, "frozen": 0, "layers": layers, "passes": passes}
        return {**{name: random.uniform(1, 3) for name in names}, **about}

    def timed():
        blocks = [{"seconds": random.uniform(1, 3), "updates": 9} for _ in range(3)]
        return {"samples": int(random.integers(8, 64)), "blocks": blocks}

    losses = random.uniform(1, 3, (STEPS, N)).astype(np.float32)
    return {
        "logits": random.standard_normal((N, 10)).astype(np.float32),
        "labels": random.integers(10, size=N),
        "correct": random.integers(2, size=(STEPS, N)).astype(np.float32),
        "losses": losses,
        "probability": np.exp(-losses),
        "agreement": random.uniform(0.1, 0.9, N),
        "scrambled_losses": random.uniform(1, 3, N),
        "nelbo": random.uniform(1, 3, (STEPS, N)).astype(np.float32),
        "nelbo_per_level": random.uniform(1, 3, LEVELS).tolist(),
        "features": [features(), features()],
        "references": {"train": split, "test": split},
        "evaluations": {"layers": random.uniform(6, 12), "networks": 4.0, "num_layers": 3},
        "texts": random.integers(3, size=(N, 12)),  # so few tokens that some follow each other again
        "text_features": (features(), features()),
        "text_nll": nll(),
        "reference_nll": nll(),
        "update_cost": {"forward": random.uniform(2, 4), "backward": random.uniform(2, 4)},
        "counted": counted(),
        "compared": counted(),
        "timed": timed(),
        "timed_compared": timed(),
        "timed_chain": timed(),
        "timed_chain_compared": timed(),
        "chain": {"layers": random.uniform(6, 12)},
        "training": {"updates": int(random.integers(10, 1000)), "seconds": random.uniform(1, 10)},
    }


# A data source


def try_data(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """What it returns: keys, types, shapes; of texts the tokens of the first one."""
    with at_fault(component, f"data source {component.name} called with data_dir {str(data_dir)!r}"):
        kind, found = call_source({"name": component.name}, data_dir)
        split = inspect.signature(function, eval_str=True).parameters.get("split")
        splits = get_args(split.annotation) if split else ()
        sections = ({"name": component.name, "split": value} for value in splits)
        tests = [_tested(*call_source(section, data_dir)) for section in sections]
    if len(tests) > 1 and tests[0] and tests.count(tests[0]) == len(tests):
        raise UserError(f"{component.file}: data source {component.name} gives the same test set for each `split`")
    yield f"{kind}: {found['title']}"
    if kind == "ImageSet":
        for split in ("train", "test"):
            images, labels = found[f"{split}_images"], found[f"{split}_labels"]
            yield f"{split}: {images.dtype} {images.shape}, labels {labels.min()} to {labels.max()}"
    elif kind == "LatentSet":
        yield f"{len(found['train'].files)} + {len(found['test'].files)} files in {len(found['train'].classes)} classes"
    else:
        yield from _try_text(component, found)


def _tested(kind, found):
    """The test set, as far as a look at its start tells it from another."""
    if kind == "ImageSet":
        return found["test_images"].tobytes()
    if kind == "LatentSet":
        return found["test"].files
    return [text for split, text in itertools.islice(found["documents"], COMPARED) if split == "test"]


def _try_text(component, found):
    where = f"{component.file}: data source {component.name}"
    with at_fault(component, f"the documents of data source {component.name}"):
        document = next(iter(found["documents"]), None)
    if not isinstance(document, tuple) or len(document) != 2 or not all(isinstance(part, str) for part in document):
        raise UserError(f"{where}: `documents` should give pairs (split, text), and gives {document!r:.80}")
    split, text = document
    if split not in ("train", "test", "teacher"):
        raise UserError(f"{where}: `documents` gives a text of split {split!r}, and there are train, test and teacher")
    tokenizer = found["tokenizer"]
    with at_fault(component, f"the tokenizer of data source {component.name}"):
        tokens = np.asarray(tokenizer.encode([text]))
    size = tokenizer.vocab_size
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not len(tokens):
        raise UserError(f"{where}: `tokenizer.encode` should give integers (n,), not {tokens.dtype} {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= size:
        raise UserError(f"{where}: tokens lie between {tokens.min()} and {tokens.max()}, and vocab_size is {size}")
    yield f"first text: {len(text):,} characters, {len(tokens):,} tokens of {size:,}; sequences of {found['seq_len']}"


# What scores samples


def try_extractor(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """Its weights, obtained with few steps of training if it has any, and the features of two images."""
    chosen = _few_steps(component, function)
    images = Images()
    with at_fault(component, f"extractor {component.name}: obtain(images, data_dir)"):
        weights, about = chosen.obtain(images, data_dir)
    _check_weights(component, weights, about)
    with at_fault(component, f"extractor {component.name}: build(weights)"), torch.inference_mode():
        features = chosen.build(weights)(images.pixels())
    _check_array(component, "the network that `build` gives", features, (len(images.pixels()), None))
    if (features == features[0]).all():
        raise UserError(f"{component.file}: extractor {component.name} gives the same features of two random images")
    yield f"{chosen.title}: {features.shape[1]:,} features"


def try_teacher(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """Its weights, obtained with few steps of training if it has any; its features and likelihoods, if it has them."""
    chosen, text = _few_steps(component, function), Texts()
    with at_fault(component, f"teacher {component.name}: obtain(text, data_dir)"):
        weights, about = chosen.obtain(text, data_dir)
    _check_weights(component, weights, about)
    with at_fault(component, f"teacher {component.name}: build(weights, about)"):
        scorer = chosen.build(weights, about)
    tokens, prompt = text.test_tokens, 2
    texts, prompts = text.decode(tokens), text.decode(tokens[:, :prompt])
    calls = {"features": (texts, tokens), "nll": (texts, tokens, prompt, prompts)}
    told = f"{component.file}: teacher {component.name}:"
    if not chosen.gives or not set(chosen.gives) <= calls.keys():
        raise UserError(f"{told} gives {chosen.gives} names nothing of {', '.join(calls)}")
    for member in chosen.gives:
        if not hasattr(scorer, member):
            raise UserError(f"{told} `build` gives what has no {member}: define it, or leave it out of `gives`")
        with at_fault(component, f"teacher {component.name}: `{member}`"):
            found = getattr(scorer, member)(*calls[member])
        for values in [found] if member == "features" else found:
            shape = (len(tokens), None) if member == "features" else (len(tokens),)
            _check_array(component, f"`{member}`", values, shape)
        judged = np.asarray(found if member == "features" else found[0])
        if (judged == judged[0]).all():
            raise UserError(f"{told} `{member}` gives the same of all of {len(tokens)} random texts")
        yield f"{chosen.title}: `{member}` of {len(tokens)} texts"


def _few_steps(component, function):
    keywords = {"steps": 1} if "steps" in inspect.signature(function).parameters else {}
    with at_fault(component, f"{component.kind} {component.name}"):
        chosen = function(**keywords)
    wanted = component.kind.capitalize()
    if wanted not in [kind.__name__ for kind in type(chosen).__mro__]:
        raise UserError(
            f"{component.file}: {component.kind} {component.name} returns {type(chosen).__name__}; it should return "
            f"{wanted}(title, obtain, build). See docs/extending.md"
        )
    if not isinstance(chosen.title, str) or not chosen.title:
        raise UserError(f"{component.file}: {component.kind} {component.name}: its title should be a text for the page")
    return chosen


def _check_weights(component, weights, about):
    tensors = isinstance(weights, dict) and all(isinstance(value, torch.Tensor) for value in weights.values())
    if not tensors or not isinstance(about, dict):
        raise UserError(
            f"{component.file}: {component.kind} {component.name}: `obtain` should give ({{name: tensor}}, {{what "
            f"to know of it}}), not ({type(weights).__name__}{'' if tensors else ' of others'}, {type(about).__name__})"
        )


def _check_array(component, what, values, shape):
    """values: an array or a tensor; shape: with None for any size."""
    found = tuple(getattr(values, "shape", ()))
    fits = len(found) == len(shape) and all(want in (None, size) for size, want in zip(found, shape, strict=True))
    if not fits or not np.isfinite(np.asarray(values, dtype=np.float64)).all():
        wanted = str(shape).replace("None", "D")
        raise UserError(
            f"{component.file}: {component.kind} {component.name}: {what} should give finite numbers {wanted}, and "
            f"gives {type(values).__name__} {found}"
        )


# Where noise is cut, and how chains go down it


def try_partition(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """Boundaries of one to four blocks, under each noise; one that it refuses is said."""
    refused, noises = [], (EDM(), Masking())
    for noise in noises:
        try:
            with at_fault(component, f"partition {component.name}, under {type(noise).__name__} noise"):
                cut = [_cut(component, noise, num_blocks) for num_blocks in range(1, 5)]
        except UserError as error:
            refused.append(error)
            if len(refused) == len(noises) or not isinstance(error.__cause__, ValueError):
                raise refused[0] from None
            yield f"{type(noise).__name__}: refused ({error.__cause__})"
        else:
            yield f"{type(noise).__name__}: three blocks at {', '.join(f'{level:.4g}' for level in cut[2])}"


def _cut(component, noise, num_blocks):
    return boundaries(num_blocks, component.name, noise)


def try_grid(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """Levels of chains of two to LEVELS steps, and how many of the last each of three blocks has."""
    noise = EDM()
    with at_fault(component, f"grid {component.name}"):
        few, *_, many = [noise.levels(num_steps, component.name) for num_steps in range(2, LEVELS + 1)][2:]
    cut = boundaries(3, "equi_probability", noise)
    owners = [owner(cut, sigma) for sigma in many]
    yield f"four levels at {', '.join(f'{level:.4g}' for level in few)}"
    shares = ", ".join(str(owners.count(block)) for block in range(3))
    yield f"of {LEVELS}, three blocks of equal probability have {shares}"


def try_solver(component: Component, function: Callable, data_dir: str | Path) -> Iterator[str]:
    """A chain under a denoiser that is known: normal targets of deviation s, whose D is z s^2 / (s^2 + sigma^2)."""
    noise, deviation = EDM(), 0.5
    ratio = (noise.lowest / noise.highest) ** (1 / (LEVELS - 1))
    levels = [noise.highest * ratio**step for step in range(LEVELS - 1)] + [noise.lowest]
    cut = boundaries(3, "equi_probability", noise)
    owners = [owner(cut, sigma) for sigma in levels]
    start = noise.highest * torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    where, asked, answer = f"{component.file}: solver {component.name}", [], None
    with at_fault(component, f"solver {component.name}"):
        chain = function(start, levels, owners, lambda prediction, block: prediction)
        if not inspect.isgenerator(chain):
            raise UserError(f"{where} should be a generator: it yields (z, sigma, block) and is sent the prediction")
        answer_sent = None
        while True:
            try:
                request = chain.send(answer_sent)
            except StopIteration as end:
                answer = answer_sent if end.value is None else end.value
                break
            z, sigma, block = _check_request(where, request, noise, start, cut)
            if len(asked) == 100 * LEVELS:
                raise UserError(f"{where}: has not ended after {len(asked)} evaluations of {LEVELS} levels")
            asked.append(block)
            answer_sent = z * deviation**2 / (deviation**2 + sigma**2)
    if answer is None or sorted(set(asked)) != [0, 1, 2]:
        raise UserError(f"{where}: of the blocks 0, 1, 2 only {sorted(set(asked))} were asked: walk down all levels")
    exact = start * deviation / (deviation**2 + noise.highest**2) ** 0.5
    error = ((answer - exact).square().mean() / exact.square().mean()).sqrt().item()
    if not error < 0.5:  # Euler's is 0.1, and of a step in the wrong direction it is above 1
        raise UserError(f"{where}: ends {error:.2g} of its length from the answer that is known. Look at its steps")
    yield f"{len(asked)} evaluations of {LEVELS} levels end {100 * error:.1f}% from the answer that is known"


def _check_request(where, request, noise, start, cut):
    if not isinstance(request, tuple) or len(request) != 3:
        raise UserError(f"{where} should yield (z, sigma, block), and yields {type(request).__name__}")
    z, sigma, block = request
    if not isinstance(z, torch.Tensor) or z.shape != start.shape or not z.isfinite().all():
        raise UserError(f"{where}: z should be finite and stay of shape {tuple(start.shape)}")
    if not noise.lowest <= sigma <= noise.highest or owner(cut, sigma) != block:
        raise UserError(f"{where}: asks block {block} at sigma {sigma}, which belongs to another, or to none")
    return z, sigma, block

"""What an update holds and computes, counted on the meta device, whose tensors have a size and no content (appendix G).

The trainer is the one that trains: its network, its accumulation, its optimizer, its averages. So nothing is trained,
no data are read, and the paper's sizes are counted on any machine.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from diffusionblocks.base.compat import fused_attention
from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.base.provenance import record
from diffusionblocks.data.chance import Chance
from diffusionblocks.diffusion.chains import layers_run
from diffusionblocks.evaluation.dispatch import Flop, Live
from diffusionblocks.evaluation.inputs import ON_A_GPU, TIMED
from diffusionblocks.evaluation.metric import keywords, load_metric
from diffusionblocks.methods import build
from diffusionblocks.methods.base import Method
from diffusionblocks.training.trainer import Trainer

DRAWS = 10  # updates over which FLOP are averaged where they differ: of a random depth
SAME = 3  # so many alike, and there is nothing random in it
META = torch.device("meta")


def count(
    run_path: str | Path,
    evaluation: dict,
    path: str | Path,
    compared: Sequence[Path] = (),
    timing: Sequence[Path] = (),
    code: str | None = None,
) -> None:
    """Write the metrics of a row that is counted, in the form of a trained one's.

    evaluation: what evaluation.json holds; `counted: false` where no metric needs it. compared: metrics.json of the row
    that it is compared with; of none, it is compared with itself. timing: timing.json of a row that is timed; what
    could not be timed has no number. code: hash of the source files behind this step. Raises UserError for a network
    that does not fit its method, for a metric that returns no number, and where `compared` is no counted row's, or
    `timing` of other rows.
    """
    run, started = read_json(run_path), time.monotonic()
    kind = "text" if "vocab_size" in evaluation["shape"] else "images"
    metrics = {column: load_metric(section["name"], kind) for column, section in evaluation["metrics"].items()}
    others = [_counted_in(file) for file in compared]
    own, parts, shape, train = None, evaluation["parts"], evaluation["shape"], run["train"]
    if evaluation.get("counted", True):  # or no metric needs it, here or of a row that is compared with this one
        own = counted({**run, "train": {**train, "precision": "fp32"}}, parts, shape)  # whatever is timed
    found = {"counted": own, "compared": (others or [own])[0]}
    times, numbers, without = None, {}, dict.fromkeys(evaluation.get("on_a_gpu", ()), ON_A_GPU)
    for file in timing:
        times, of_rows = _timed_in(file, run["row"])
    for column, metric in metrics.items():
        section, about = evaluation["metrics"][column], {"samples": train["batch_size"] // train.get("accumulate", 1)}
        if set(TIMED).intersection(metric.inputs):
            found |= _times(of_rows, column)
            asked = [found[name] for name in TIMED if name in metric.inputs]
            if why := next((one["untimed"] for one in asked if "untimed" in one), None):
                without[column] = why
                continue
            about = {"samples": asked[0]["samples"], "timed": conditions(asked[0])}
        chained = {"chain": chain(run, shape, section["sampling"])} if "chain" in metric.inputs else {}
        value = metric({**found, **chained}, keywords(section), None)
        numbers[column] = metric.number(section, value, about)
    result = {
        "run": run,
        "code": code,
        "data": {"title": _title(run, metrics, without), "shape": shape},
        "metrics": numbers,
        "curves": {},
        "samples": None,
        "parameters": own["network"] if own else _network(run, parts, shape),
        "parts": {},
        "counted": own,
        "sampling": [],
        "timing": times,
        "evaluation": {"seconds": time.monotonic() - started, **record(torch.device("cpu"))},
    }
    write_json(path, result)


def chain(run: dict, shape: dict, sampling: dict) -> dict[str, int]:
    """{layers: that a run's whole method runs for one sample}, counted by hooks. sampling: keywords of `predict`."""
    with META:
        method = build(run, shape, None).eval()
    batch = Chance(shape, 1, META).train_batch(torch.arange(1, device=META))
    eps = torch.empty(1, *method.z_shape, device=META) if method.z_shape else None
    with torch.no_grad(), layers_run(method) as ran:
        method.predict(batch, eps, **sampling)
    return {"layers": len(ran)}


def _network(run, parts, shape):
    """Parameters of all parts."""
    with META:
        return sum(value.numel() for part in parts for value in build(run, shape, part).parameters())


def _title(run, metrics, without):
    """What stands for the data on the page, and which columns have no number. without: {column: why}."""
    timed = {bool(set(TIMED) & set(metric.inputs)) for metric in metrics.values()}
    done = " and ".join(word for word, there in (("counted", False), ("timed on chance", True)) if there in timed)
    absent = "".join(
        f"; {', '.join(c for c in without if without[c] == why)}: {why}" for why in dict.fromkeys(without.values())
    )
    return f"none: {done or 'counted'} at the sizes of {run['data']['name']}{absent}"


def conditions(timed: dict) -> dict[str, Any]:
    """What a reader must know of seconds: {where: device, precision, torch; how: in words}. timed: of a row."""
    share = max(abs(edge / block["seconds"] - 1) for block in timed["blocks"] for edge in block["quartiles"])
    updates = min(block["updates"] for block in timed["blocks"])
    where = f"{timed['hardware']}, {timed['precision']}, torch {timed['torch']}"
    how = f"{timed['samples']} samples at a time, median of {updates} times in {timed['turns']} turns"
    return {"where": where, "how": f"{how}, half of them within {share:.1%} of it"}


def _times(of_rows, column):
    """{input: what was timed} of a column; what was not has {untimed: why} in its place."""
    found = [row.get("update") for row in of_rows] + [row["chains"].get(column) for row in of_rows]
    absent = {"untimed": "not timed of the row that it is compared with"}
    return {name: one or absent for name, one in zip(TIMED, found, strict=True)}


def _timed_in(file, row):
    """(its job's seconds and record, what was timed of a row and of the one that it is compared with)."""
    found = read_json(file)
    if row not in found.get("timed", {}):
        raise UserError(f"{file}: holds no times of row {row} (--timing)")
    return found["timing"], (found["timed"][row], found["timed"][found["compared"]])


def _counted_in(file):
    found = read_json(file)
    if "counted" not in found:
        raise UserError(f"{file}: is not of a row that is counted (--compared)")
    return found["counted"]


def counted(run: dict, parts: list[str], shape: dict) -> dict[str, Any]:
    """What one update of a run holds, of its largest part, and computes, of all its blocks together.

    parameters, gradients, optimizer, average: bytes of a process; frozen: of parameters that are not trained, which
    have none of the other three and stand outside the layers; moments: optimizer without its counters. activations:
    bytes kept for the backward pass when the forward one of a micro-batch ends, weights not among them; peak: the most
    bytes at a time, the data set not among them. layers: {parameters, moments, activations: bytes, held: layers of the
    process, run: those that an update runs}. flop: for a sample, two for each multiply and add of matrix products and
    attention (without causal halving), forward and backward of one update of every block. passes: {forward, backward:
    runs of a layer in an update}. network: parameters of all parts. micro_batch: samples; epochs: of the settings, or
    None.
    """
    train, found = run["train"], list(counted_parts(run, parts, shape).values())
    largest = max(found, key=lambda part: part["peak"])
    return {
        **largest,
        "flop": sum(part["flop"] for part in found),
        "network": sum(part["network"] for part in found),
        "micro_batch": train["batch_size"] // train.get("accumulate", 1),
        "checkpointing": train.get("checkpoint_activations", False),
        "epochs": train.get("epochs"),
    }


def counted_parts(run: dict, parts: list[str], shape: dict) -> dict[str, dict[str, Any]]:
    """{part: what `counted` says of the largest, of itself}, and of each its `blocks` (their number) and the bytes of
    its `weights` and of its `checkpoint` on disk.
    """
    train, found, alike = run["train"], {}, {}
    # After the second micro-batch all that there is of gradients is there: further ones hold no more.
    micro_batch, repeated = train["batch_size"] // train.get("accumulate", 1), min(train.get("accumulate", 1), 2)
    brief = {**run, "train": {**train, "batch_size": micro_batch * repeated, "accumulate": repeated}}
    for part in parts:
        with META:
            data = Chance(shape, micro_batch * repeated, META)
        with META, Live(META) as live:
            trainer = Trainer(brief, part, data, META)
        shapes = str([value.shape for value in trainer.parameters.values()])
        if shapes not in alike:  # parts whose weights have the same shapes are counted once
            alike[shapes] = _of_part(trainer, live)
        found[part] = alike[shapes]
    return found


def _of_part(trainer, live):
    """As `counted`, of one part. live: which has seen the trainer being made."""
    with live, fused_attention():
        kept = [activations(trainer.method, next(trainer.batches.micro_batches(0)), block) for block in trainer.blocks]
        _every_block(trainer)  # after which the optimizer has its state
        live.peak = live.now
        _every_block(trainer)
    memory, most = trainer.memory(), max(kept, key=lambda one: one["activations"])
    layers = [layer for model in trainer.method.models.values() for layer in model.all_layers()]
    of_layers = [value for layer in layers for value in layer.parameters()]
    return {
        "parameters": memory["parameter_bytes"],
        "frozen": sum(value.nbytes for value in trainer.parameters.values() if not value.requires_grad),
        "gradients": memory["gradient_bytes"],
        "optimizer": memory["optimizer_bytes"],
        "moments": _moments(trainer, trainer.parameters.values()),
        "average": memory["average_bytes"],
        "activations": most["activations"],
        "peak": live.peak,
        "layers": {
            "parameters": sum(value.nbytes for value in of_layers),
            "moments": _moments(trainer, of_layers),
            "activations": most["of_layers"],
            "held": len(layers),
            "run": most["run"],
        },
        "network": sum(value.numel() for value in trainer.parameters.values()),
        "blocks": len(trainer.blocks),
        "weights": sum(value.nbytes for value in trainer.weights().values()),
        "checkpoint": sum(value.nbytes for value in trainer.tensors().values()),
        **work(trainer.method, trainer.batches.data.shape, trainer.run["seed"]),
    }


def _moments(trainer, parameters):
    """Bytes of the optimizer's state of some parameters, without the counters of its steps."""
    states = [trainer.optimizer.state.get(value, {}) for value in parameters]
    return sum(tensor.nbytes for state in states for name, tensor in state.items() if name != "step")


def _every_block(trainer):
    """Updates until each block of the part has had one."""
    left, step = set(trainer.blocks), 0
    while left:
        left.discard(trainer.update(step)[0])
        step += 1


def activations(method: Method, batch: dict, block: int) -> dict[str, int]:
    """What the loss of a batch keeps for its backward pass: {activations, of_layers: bytes; run: layers that ran}.

    Each storage once, however many saved tensors look at it, and none of a weight.
    """
    weights = {value.untyped_storage()._cdata for value in method.parameters()}
    kept, depth, ran = {}, [], set()

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept.setdefault(storage._cdata, (storage.nbytes(), bool(depth)))
        return tensor.detach()  # of an output that is saved, the tensor itself would hold what holds it

    def enter(layer, _):
        depth.append(layer)
        ran.add(layer)

    def leave(*_):
        depth.pop()

    hooks = []
    for layer in (layer for model in method.models.values() for layer in model.all_layers()):
        hooks += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            # Held until all is added up: a storage that is freed may give its address to another.
            objective = method.loss(batch, block)[0]
    finally:
        for hook in hooks:
            hook.remove()
    del objective
    return {
        "activations": sum(size for size, _ in kept.values()),
        "of_layers": sum(size for size, inside in kept.values() if inside),
        "run": len(ran),
    }


def work(method: Method, shape: dict, seed: int) -> dict[str, Any]:
    """{flop: for a sample, of an update of every block; passes: {forward, backward: runs of a layer}}, see `counted`.

    Of one sample, since all that is counted grows with their number; of two where they are normalised together.
    """
    size = 1 + any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in method.modules())
    indices = torch.arange(size, device=META).repeat(method.views)
    batch, flops, passes = Chance(shape, size, META).train_batch(indices), [], []
    torch.manual_seed(seed_of(seed, "counted"))
    while len(flops) < DRAWS and not (len(flops) == SAME and len(set(flops)) == 1):
        with Flop() as counter, layers_run(method) as ran:
            for block in method.blocks:
                method.loss(batch, block)[0].backward()
        flops.append(counter.total / size)
        layers = sum(len(method.acting(block)[1]) for block in method.blocks)
        passes.append([len(ran) / layers, sum(ran) / layers])
    method.zero_grad(set_to_none=True)
    forward, backward = map(fmean, zip(*passes, strict=True))
    return {"flop": fmean(flops), "passes": {"forward": forward, "backward": backward}}

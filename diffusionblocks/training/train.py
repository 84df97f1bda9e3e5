"""One training job from its settings to its weights and its log: progress, checkpoints, and going on after a kill."""

import contextlib
import functools
import math
import signal
import time
from pathlib import Path

import torch

from diffusionblocks import data as datasets
from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import Interrupted, UserError, patiently, read_json, say, write_text
from diffusionblocks.base.lock import lock
from diffusionblocks.base.provenance import record
from diffusionblocks.base.words import clock
from diffusionblocks.training import chain
from diffusionblocks.training.checkpoint import State
from diffusionblocks.training.settings import Settings
from diffusionblocks.training.start import check_start
from diffusionblocks.training.team import Team, lead
from diffusionblocks.training.trainer import Trainer

PROGRESS_SECONDS = 10
# SLURM and Snakemake send SIGTERM before they kill; with SIGUSR1 some clusters warn of a time limit; SIGHUP is a lost
# terminal.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def train(
    run_path: Path | str,
    part: str,
    weights_path: Path,
    data_path: Path | str,
    state_folder: Path | str,
    checkpoint_seconds: float = 300,
    code: str | None = None,
    any_code: bool = False,
    processes: int = 1,
    start: Path | str | None = None,
) -> None:
    """Train one part of a run; write its weights, and its log beside them (`.jsonl`).

    Goes on from the checkpoint in `state_folder` if there is one. code: hash of the source files behind this step;
    any_code: whether a checkpoint of other code will do. processes: that share out every update, each on a GPU of its
    own where there are GPUs; this one is the first. start: the model of the run that this one starts from, if it does.
    Raises UserError for a checkpoint of another run or of other first weights, a second trainer, a method or a network
    that breaks its contract, a loss that is not finite, a disk that stays full, updates or GPUs that cannot be shared
    out; Interrupted on SIGTERM, after saving.
    """
    run, device = read_json(run_path), pick_device()
    Settings.of(run["train"]).check_shared(processes)
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise UserError(
            f"--processes {processes}: this job sees {torch.cuda.device_count()} of as many GPUs. Have them all on one "
            "node (`nodes: 1` of train in the profile), or ask for fewer"
        )
    digest = check_start(run, start)
    data = datasets.load(data_path, device)
    identity = {"run": run, "part": part, "data": data.about, "code": code} | ({"start": digest} if digest else {})
    state = State(state_folder, identity, any_code)
    with _stop_request() as stop, lock(state.folder):
        trainer = Trainer(run, part, data, device, start)
        first, spent = _begin(trainer, state)
        with _together(trainer, processes, state, data_path, first, start):
            spent = _loop(trainer, state, stop, checkpoint_seconds, first, spent)
        weights = trainer.weights()
        about = {**state.identity, "step": trainer.total, "digest": tensors.digest(weights)}
        patiently(lambda: tensors.write(weights_path, weights, about), stop)
        end = {"event": "end", "step": trainer.total, "data_bytes": data.bytes, **spent}
        patiently(lambda: state.append(end), stop)
        log = state.log.read_text(encoding="utf-8")
        patiently(lambda: write_text(weights_path.with_suffix(".jsonl"), log), stop)


def _begin(trainer, state):
    """Go on from the checkpoint, or meet the network. Returns updates made, and what earlier attempts have spent."""
    checkpoint, progress = state.load(trainer.device)
    if not progress:
        if trainer.copied:
            origin, (count, total) = trainer.run["start"], trainer.copied
            say(f"{_name(trainer)}: {count} of {total} parameters start as {origin['table']}/{origin['row']} ended")
        trainer.check()
        return 0, {"seconds": 0.0}
    try:
        trainer.restore(checkpoint)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{state.checkpoint}: does not fit the network, whose code has changed since "
            f"({' '.join(str(error).split())}). Delete {state.folder} to train anew."
        ) from None
    say(f"{_name(trainer)}: going on after step {progress['step']} of {trainer.total}")
    return progress["step"], progress["spent"]


def _name(trainer):
    return "{table}/{row} seed {seed}".format(**trainer.run) + f" {trainer.part}"


def _loop(trainer, state, stop, checkpoint_seconds, first, spent):
    """Make the updates that are left. Returns seconds spent in training, earlier attempts included, and memory held."""
    name, size = _name(trainer), 1 if trainer.team is None else trainer.team.size
    start = {"event": "start", "step": first, "total": trainer.total, **record(trainer.device)}
    start |= {"processes": size} if size > 1 else {}
    start |= dict(zip(("copied", "parameters"), trainer.copied, strict=True)) if trainer.copied else {}
    patiently(lambda: state.trim_log(first), stop)
    patiently(lambda: state.append(start), stop)
    window = _Window(name, trainer, state, first, stop)
    seconds_before, started = spent["seconds"], time.monotonic()
    saved = started
    for step in range(first + 1, trainer.total + 1):
        window.add(*trainer.update(step - 1))
        last = step == trainer.total
        stopping = bool(stop)  # read once: a signal that comes later is answered after the next update
        if trainer.team:
            trainer.team.told(stopping)
        due = time.monotonic() - saved > checkpoint_seconds or stopping or last
        if step % trainer.settings.log_every == 0 or due:
            window.flush(step)  # before every checkpoint, so that no weights are saved that a NaN has reached
        if due:
            saved = time.monotonic()
            spent = {"seconds": seconds_before + saved - started, **trainer.memory()}
            progress = {"step": step, "total": trainer.total, "spent": spent}
            patiently(functools.partial(state.save, trainer.tensors(), **progress), stop)
        if stopping and not last:
            stopped = f"{name}: stopped on request after step {step} of {trainer.total}, saved in {state.folder}"
            raise Interrupted(chain.go_on(stopped, moved=step - first))
    return spent


@contextlib.contextmanager
def _together(trainer, processes, state, data_path, first, start):
    """In here the trainer is the first of a team, whose others go on from the same checkpoint."""
    if processes == 1 or first == trainer.total:
        yield
        return
    team = Team(0, processes, trainer.device, dict(trainer.method.named_buffers()))
    arguments = trainer.run, trainer.part, data_path, state.checkpoint if first else None, first, start
    with lead(team, _help, arguments, STOP_SIGNALS) as trainer.team:
        say(f"{_name(trainer)}: {processes} processes share out the {trainer.settings.accumulate} micro-batches")
        yield


def _help(rank, size, store, run, part, data_path, checkpoint, first, start):
    """What every other process of a team does: the same updates, until the first one says that they end."""
    device = pick_device()
    trainer = Trainer(run, part, datasets.load(data_path, device), device, start)
    if checkpoint is not None:
        trainer.restore(tensors.read(checkpoint, "Start the same command again.", device)[0])
    with Team(rank, size, device, dict(trainer.method.named_buffers())).met(store) as trainer.team:
        for step in range(first, trainer.total):
            trainer.update(step)
            if trainer.team.told(False):
                return


class _Window:
    """What the updates since the last log record gave, kept on the device until it is due: one host sync for all."""

    def __init__(self, name, trainer, state, first, stop):
        self.name, self.trainer, self.state, self.first, self.stop = name, trainer, state, first, stop
        self.blocks, self.values = [], []
        self.begun = self.opened = self.printed = time.monotonic()

    def add(self, block, values):
        self.blocks.append(block)
        self.values.append(values)

    def flush(self, step):
        """Log the window that ends with `step`, a record per block. Raises UserError at the first loss not finite."""
        if not self.values:
            return
        values, now = torch.stack(self.values).tolist(), time.monotonic()
        for i, (loss, objective, norm, _) in enumerate(values):
            if not all(map(math.isfinite, (loss, objective, norm))):
                raise UserError(self._not_finite(step - len(values) + 1 + i, self.blocks[i], *values[i]))
        settings, total = self.trainer.settings, self.trainer.total
        rate = settings.rate(step - 1, total, self.trainer.warmup)
        speed = len(values) * settings.batch_size / max(now - self.opened, 1e-9)
        for block in sorted(set(self.blocks)):
            mine = [value for value, owner in zip(values, self.blocks, strict=True) if owner == block]
            loss, objective, norm, _ = (sum(column) / len(mine) for column in zip(*mine, strict=True))
            means = {"loss": loss, "objective": objective, "gradient_norm": norm}
            peak = self.trainer.memory()["peak_bytes"]
            entry = {"step": step, "block": block, **means, "lr": rate, "samples_per_second": speed, "peak_bytes": peak}
            patiently(functools.partial(self.state.append, entry), self.stop)
        if now - self.printed > PROGRESS_SECONDS or step == total:
            left = round((total - step) * (now - self.begun) / (step - self.first))
            mean = sum(value[0] for value in values) / len(values)
            say(
                f"{self.name}: step {step}/{total} loss {mean:.4f} lr {rate:.1e} {speed:.0f} samples/s "
                f"eta {clock(left)}"
            )
            self.printed = now
        self.blocks, self.values, self.opened = [], [], now

    def _not_finite(self, step, block, loss, objective, norm, sigma):
        state = self.state
        kept = (
            f"The last good checkpoint is {state.checkpoint}" if state.checkpoint.exists() else "There is no checkpoint"
        )
        return (
            f"{self.name}: step {step}, block {block}{f', sigma {sigma:.4g}' if sigma else ''}: loss {loss:.4g}, "
            f"objective {objective:.4g}, gradient norm {norm:.4g} are not all finite. {kept}. Lower train.lr (now "
            f"{self.trainer.settings.lr:g}) or raise train.warmup_steps, delete {state.folder} and start again."
        )


@contextlib.contextmanager
def _stop_request():
    """A list that a request to stop makes non-empty."""
    requests = []  # a list, since a signal may arrive inside the handler of another
    # `nohup` has it ignored from the start: a lost terminal is then no reason to stop.
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    asked = set(STOP_SIGNALS) - ignored
    previous = {number: signal.signal(number, lambda number, _: requests.append(number)) for number in asked}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

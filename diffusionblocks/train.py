"""One training job from its settings to its weights and its log: progress, checkpoints, and going on after a kill."""

import contextlib
import math
import signal
import threading
import time

import torch

from diffusionblocks import tensors
from diffusionblocks.data.images import Images
from diffusionblocks.files import Interrupted, UserError, read_json, write_text
from diffusionblocks.provenance import record
from diffusionblocks.state import State
from diffusionblocks.trainer import Trainer, pick_device

PROGRESS_SECONDS = 10


def train(run_path, part, weights_path, data_path, state_folder, checkpoint_seconds=300):
    """Train one part of a run; write its weights, and its log beside them (`.jsonl`).

    Goes on from the checkpoint in `state_folder` if there is one. Raises UserError for a checkpoint of another run, a
    second trainer, a loss that is not finite; Interrupted on SIGTERM, after saving.
    """
    run, device = read_json(run_path), pick_device()
    state = State(state_folder, {"run": run, "part": part})
    with state.lock(), _stop_request() as stop:
        trainer = Trainer(run, part, Images(data_path, device), device)
        seconds = _loop(trainer, state, stop, checkpoint_seconds)
        tensors.write(weights_path, trainer.weights(), {"run": run, "part": part, "step": trainer.total})
        state.append({"event": "end", "step": trainer.total, "seconds": seconds, **trainer.memory()})
        write_text(weights_path.with_suffix(".jsonl"), state.log.read_text(encoding="utf-8"))
        for file in (state.checkpoint, state.log):
            file.unlink(missing_ok=True)


def _loop(trainer, state, stop, checkpoint_seconds):
    """Make the updates that are left. Returns the seconds spent in training, earlier attempts included."""
    name = "{table}/{row} seed {seed}".format(**trainer.run) + f" {trainer.part}"
    checkpoint, progress = state.load(trainer.device)
    first, seconds_before = 0, 0.0
    if progress:
        try:
            trainer.restore(checkpoint)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"{state.checkpoint}: does not fit the network, whose code has changed since "
                f"({' '.join(str(error).split())}). Delete {state.folder} to train anew."
            ) from None
        first, seconds_before = progress["step"], progress["seconds"]
        print(f"{name}: going on after step {first} of {trainer.total}", flush=True)
    del checkpoint  # the network and the optimizer hold them now
    state.trim_log(first)
    state.append({"event": "start", "step": first, "total": trainer.total, **record(trainer.device)})
    window = _Window(name, trainer, state, first)
    started = saved = time.monotonic()
    for step in range(first + 1, trainer.total + 1):
        window.add(*trainer.update(step - 1))
        last = step == trainer.total
        stopping = stop.is_set()  # read once: a signal that comes later is answered after the next update
        due = time.monotonic() - saved > checkpoint_seconds or stopping or last
        if step % trainer.settings.log_every == 0 or due:
            window.flush(step)  # before every checkpoint, so that no weights are saved that a NaN has reached
        if due:
            state.save(trainer.tensors(), step=step, seconds=seconds_before + time.monotonic() - started)
            saved = time.monotonic()
        if stopping and not last:
            raise Interrupted(
                f"{name}: stopped by SIGTERM after step {step}; start it again to go on from {state.folder}"
            )
    return seconds_before + time.monotonic() - started


class _Window:
    """What the updates since the last log record gave, kept on the device until it is due: one host sync for all."""

    def __init__(self, name, trainer, state, first):
        self.name, self.trainer, self.state, self.first = name, trainer, state, first
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
            self.state.append(
                {"step": step, "block": block, **means, "lr": rate, "images_per_second": speed, "peak_bytes": peak}
            )
        if now - self.printed > PROGRESS_SECONDS or step == total:
            left = round((total - step) * (now - self.begun) / (step - self.first))
            mean = sum(value[0] for value in values) / len(values)
            print(
                f"{self.name}: step {step}/{total} loss {mean:.4f} lr {rate:.1e} {speed:.0f} images/s "
                f"eta {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}",
                flush=True,
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
    """A flag that SIGTERM sets; SLURM and Snakemake send it before they kill."""
    flag = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: flag.set())
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, previous)

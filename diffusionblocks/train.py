"""One training job from its settings to its weights and its log: progress, checkpoints, and going on after a kill."""

import contextlib
import json
import math
import os
import signal
import threading
import time

import torch
from safetensors.torch import save_file

from diffusionblocks.data.images import Images
from diffusionblocks.files import Interrupted, UserError, atomic, read_json, write_text
from diffusionblocks.provenance import record
from diffusionblocks.state import State
from diffusionblocks.trainer import Trainer

PROGRESS_SECONDS = 10


def pick_device():
    """The GPU if there is one, and settings that make runs repeat bit by bit where the kernels allow it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("high")  # TF32, as the official code
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # more threads on busy cores are far slower
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(run_path, part, weights_path, data_path, state_folder, checkpoint_seconds=300):
    """Train one part of a run; write its weights, and its log beside them (`.jsonl`).

    Goes on from the checkpoint in `state_folder` if there is one. Raises UserError for a checkpoint of another run, a
    second trainer, a loss that is not finite; Interrupted on SIGTERM, after saving.
    """
    run, device = read_json(run_path), pick_device()
    state = State(state_folder, {"run": run, "part": part})
    with state.lock(), _stop_request() as stop:
        trainer = Trainer(run, part, Images(data_path, device), device)
        progress = _loop(trainer, state, stop, checkpoint_seconds)
        with atomic(weights_path) as temporary:
            about = {"run": run, "part": part, "step": trainer.total}
            save_file(trainer.weights(), temporary, metadata={"about": json.dumps(about)})
        end = {"event": "end", "step": trainer.total, "seconds": progress["seconds"], **trainer.memory()}
        state.append(end)
        write_text(weights_path.with_suffix(".jsonl"), state.log.read_text(encoding="utf-8"))
        for file in (state.checkpoint, state.log):
            file.unlink(missing_ok=True)


def _loop(trainer, state, stop, checkpoint_seconds):
    """Run the updates that are left. Returns {"seconds": time spent in training, earlier attempts included}."""
    name = "{table}/{row} seed {seed}".format(**trainer.run) + f" {trainer.part}"
    tensors, progress = state.load(trainer.device)
    first, seconds_before = 0, 0.0
    if progress:
        trainer.restore(tensors)
        first, seconds_before = progress["step"], progress["seconds"]
        print(f"{name}: going on after step {first} of {trainer.total}", flush=True)
    state.trim_log(first)
    state.append({"event": "start", "step": first, "total": trainer.total, **record(trainer.device)})
    started = printed = saved = time.monotonic()
    window, window_started = [], started

    def elapsed():
        return seconds_before + time.monotonic() - started

    def flush(step):
        """Fetch the window's losses from the device, check them, log them."""
        nonlocal window, window_started, printed
        if not window:
            return
        values = torch.stack([value for _, value in window]).tolist()  # the one host sync of the window
        blocks, now = [block for block, _ in window], time.monotonic()
        for i, (loss, objective, norm, sigma) in enumerate(values):
            if not all(map(math.isfinite, (loss, objective, norm))):
                raise UserError(_not_finite(name, step - len(values) + i + 1, blocks[i], values[i], sigma, trainer, state))
        speed = len(window) * trainer.settings.batch_size / max(now - window_started, 1e-9)
        records = []
        for block in sorted(set(blocks)):
            mine = [value for value, owner in zip(values, blocks, strict=True) if owner == block]
            loss, objective, norm, _ = (sum(column) / len(mine) for column in zip(*mine, strict=True))
            rate = trainer.settings.rate(step - 1, trainer.total, trainer.warmup)
            records.append(
                {"step": step, "block": block, "loss": loss, "objective": objective, "gradient_norm": norm, "lr": rate,
                 "images_per_second": speed, "peak_bytes": trainer.memory()["peak_bytes"]}
            )
        state.append(*records)
        window, window_started = [], now
        if now - printed > PROGRESS_SECONDS or step == trainer.total:
            left = (trainer.total - step) * (now - started) / max(step - first, 1)
            print(
                f"{name}: step {step}/{trainer.total} loss {sum(value[0] for value in values) / len(values):.4f} "
                f"lr {rate:.1e} {speed:.0f} images/s eta {int(left) // 60}:{int(left) % 60:02d}",
                flush=True,
            )
            printed = now

    for step in range(first + 1, trainer.total + 1):
        window.append(trainer.update(step - 1))
        last = step == trainer.total
        due = time.monotonic() - saved > checkpoint_seconds or stop.is_set() or last
        if step % trainer.settings.log_every == 0 or due:
            flush(step)  # before every checkpoint, so that no weights are saved that a NaN has reached
        if due:
            state.save(trainer.tensors(), step=step, seconds=elapsed())
            saved = time.monotonic()
        if stop.is_set() and not last:
            raise Interrupted(f"{name}: stopped by SIGTERM after step {step}; start it again to go on from {state.folder}")
    return {"seconds": elapsed()}


def _not_finite(name, step, block, values, sigma, trainer, state):
    loss, objective, norm, _ = values
    kept = f"The last good checkpoint is {state.checkpoint}." if state.checkpoint.exists() else "No checkpoint was kept."
    level = f", sigma {sigma:.4g}" if sigma else ""
    return (
        f"{name}: step {step}, block {block}{level}: loss {loss:.4g}, objective {objective:.4g}, gradient norm {norm:.4g} "
        f"are not all finite. {kept} Lower train.lr (now {trainer.settings.lr:g}) or raise train.warmup_steps, "
        f"delete {state.folder} and start again."
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

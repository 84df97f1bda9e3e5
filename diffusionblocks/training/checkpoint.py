"""A training job's own folder: its checkpoint, its log so far, and a lock against a second trainer.

Snakemake deletes the outputs of a job that is killed, so all this lies outside them.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError, read_json_lines, write_text

HEARTBEAT = 20  # seconds between two signs of life
STALE = 180  # a lock without one for so long belongs to a trainer that is gone


class State:
    """The folder of one part's training. `identity` is the run and the part that a checkpoint must belong to."""

    def __init__(self, folder, identity):
        self.folder, self.identity = Path(folder), identity
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.log = self.folder / "log.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self):
        """Hold the folder. Raises UserError while another trainer is at work in it.

        A lock of this host is judged by its process. One of another host (a requeued job's earlier node) is waited for:
        its owner writes a new beat into it every few seconds. Its content is compared and not its time, since clocks
        differ between hosts and file servers answer from a cache.
        """
        path = self.folder / "lock.json"
        mine = {**_process(os.getpid()), "slurm_job_id": os.environ.get("SLURM_JOB_ID"), "token": uuid.uuid4().hex}
        while True:
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                break
            except FileExistsError:
                judged = _text(path)
                if not _abandoned(path, judged):
                    raise UserError(
                        f"{self.folder}: another trainer works here ({judged.strip()}). Wait for it or stop it. "
                        f"If it is certainly gone, delete {path}."
                    ) from None
                _remove(path, judged)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump({**mine, "beat": 0}, file)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        done = threading.Event()

        def beat():
            number = 0
            while not done.wait(HEARTBEAT):
                number += 1
                with contextlib.suppress(OSError, UserError):  # a full disk is for the checkpoint to report
                    if mine["token"] not in _text(path):
                        print(f"{path}: taken over by another trainer; this one saves and stops", flush=True)
                        os.kill(os.getpid(), signal.SIGTERM)
                        return
                    write_text(path, json.dumps({**mine, "beat": number}))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            if mine["token"] in _text(path):
                path.unlink(missing_ok=True)

    def save(self, values, **progress):
        """Write tensors and progress (plain values) as the checkpoint, in one piece or not at all."""
        if self.log.exists():
            with open(self.log, "rb") as log:
                os.fsync(log.fileno())  # a checkpoint must never be newer than the log that leads up to it
        tensors.write(self.checkpoint, values, {"identity": self.identity, **progress})

    def load(self, device):
        """(tensors, progress) of the checkpoint, or (None, None). Raises UserError for a damaged or foreign one."""
        if not self.checkpoint.exists():
            return None, None
        values, about = tensors.read(self.checkpoint, f"Delete {self.folder} to start anew.", device)
        differences = _differences(about.pop("identity", {}), self.identity)
        if differences:
            raise UserError(
                f"{self.checkpoint}: belongs to another configuration ({'; '.join(differences)}). Delete {self.folder} "
                "to train anew, or restore the settings to go on with it."
            )
        return values, about

    def trim_log(self, step):
        """Drop log records after `step`: they will be made again."""
        records = read_json_lines(self.log) if self.log.exists() else []
        kept = [record for record in records if record["step"] <= step and record.get("event") != "end"]
        write_text(self.log, "".join(json.dumps(record) + "\n" for record in kept))

    def append(self, *records):
        with open(self.log, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def _process(number):
    """What tells a process from every other: host, number, and when it started (a number is used again one day)."""
    try:
        started = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        started = None
    return {"host": socket.gethostname(), "pid": number, "started": started}


def _text(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _abandoned(path, judged):
    """Whether the trainer whose lock reads `judged` is gone."""
    try:
        owner = json.loads(judged)
    except ValueError:  # gone meanwhile, just being written, or cut short by a full disk
        owner = {"host": None}
    if owner["host"] == socket.gethostname():  # a process that hangs, or is suspended, still owns its lock
        return owner["pid"] == os.getpid() or _process(owner["pid"])["started"] != owner["started"]
    begun = time.monotonic()
    while time.monotonic() - begun < STALE:
        if _text(path) != judged:
            return not path.exists()
        time.sleep(HEARTBEAT / 10)
    return True


def _remove(path, judged):
    """Remove the lock that was judged abandoned, and not the new one of a trainer that judged faster."""
    private = path.with_name(f"lock.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(private)
        if _text(private) != judged:
            with contextlib.suppress(FileExistsError):
                os.link(private, path)
        private.unlink()


def _differences(theirs, ours, prefix=""):
    """Readable differences of two nested dictionaries: `model.num_layers: 12 there, 6 here`."""
    found = []
    for key in sorted(theirs.keys() | ours.keys()):
        there, here = theirs.get(key), ours.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            found += _differences(there, here, f"{prefix}{key}.")
        elif there != here:
            found.append(f"{prefix}{key}: {there!r} there, {here!r} here")
    return found

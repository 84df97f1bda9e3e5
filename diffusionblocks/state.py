"""A training job's own folder: its checkpoint, its log so far, and a lock against a second trainer.

Snakemake deletes the outputs of a job that is killed, so all this lies outside them.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path

from diffusionblocks import tensors
from diffusionblocks.files import UserError, read_json_lines, write_text

HEARTBEAT = 10  # seconds between two signs of life
STALE = 60  # a lock without one for so long belongs to a trainer that is gone


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

        A lock of this host is judged by its process, one of another host (a requeued job) by its heartbeat, which is
        waited for.
        """
        path = self.folder / "lock.json"
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "slurm_job_id": os.environ.get("SLURM_JOB_ID")}
        while True:
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                break
            except FileExistsError:
                judged = _inode(path)
                if not _abandoned(path):
                    raise UserError(
                        f"{self.folder}: another trainer works here ({path.read_text()}). Wait for it or stop it. "
                        f"If it is certainly gone, delete {path}."
                    ) from None
                _remove(path, judged)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(mine, file)
            for litter in self.folder.glob(".*.tmp"):  # of a trainer that was killed while it saved
                litter.unlink(missing_ok=True)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        done = threading.Event()

        def beat():
            while not done.wait(HEARTBEAT):
                with contextlib.suppress(OSError):
                    os.utime(path)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            path.unlink(missing_ok=True)

    def save(self, values, **progress):
        """Write tensors and progress (plain values) as the checkpoint, in one piece or not at all."""
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


def _inode(path):
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _remove(path, judged):
    """Remove the lock that was judged abandoned, and not the new one of a trainer that judged faster."""
    private = path.with_name(f"lock.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(private)
        if _inode(private) != judged:
            os.link(private, path)
        private.unlink()


def _abandoned(path):
    """Whether the trainer that wrote a lock is gone."""
    try:
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except ValueError:  # just being written, or cut short by a full disk
        owner = {"host": None}
    if owner["host"] == socket.gethostname():
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return time.time() - path.stat().st_mtime > STALE  # the number may belong to another process by now
    try:
        seen = path.stat().st_mtime
        while time.time() - seen < STALE:
            time.sleep(HEARTBEAT / 5)
            if path.stat().st_mtime != seen:
                return False
    except FileNotFoundError:
        pass
    return True


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

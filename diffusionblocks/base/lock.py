"""A lock on a folder, against a second worker in it: on this host, or on the node of an earlier attempt.

A trainer holds its folder of checkpoints, a Snakemake the folder in which it was started.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from pathlib import Path

from diffusionblocks.base.files import UserError, write_text

HEARTBEAT = 20  # seconds between two signs of life
STALE = 180  # a lock without one for so long belongs to a worker that is gone


@contextlib.contextmanager
def lock(folder: Path, worker: str = "trainer"):
    """Hold a folder. Raises UserError while another `worker` is at work in it.

    A lock of this host is judged by its process. One of another host (a requeued job's earlier node), or of a container
    that numbers its own processes, is waited for: its owner writes a new beat into it every few seconds. Its content is
    compared and not its time, since clocks differ between hosts and file servers answer from a cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock.json"
    mine = {**_process(os.getpid()), "slurm_job_id": os.environ.get("SLURM_JOB_ID"), "token": uuid.uuid4().hex}
    _take(path, mine, worker)
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, mine, done, worker), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if mine["token"] in _text(path):
            path.unlink(missing_ok=True)


def holder(folder: Path) -> dict | None:
    """Who holds a folder (host, pid, slurm_job_id), if somebody does and shows signs of life.

    An abandoned lock is removed: of another host it takes minutes to judge, and whoever asks next need not.
    """
    path = folder / "lock.json"
    if not (judged := _text(path)):
        return None
    if not _abandoned(path, judged):
        return json.loads(judged)
    _remove(path, judged)
    return None


def owner(folder: Path) -> dict | None:
    """Who seems to hold a folder; as `holder`, but nothing is waited for or removed.

    Of another host the time of its last sign of life is believed, which clocks that differ may belie.
    """
    path = folder / "lock.json"
    try:
        found, age = json.loads(_text(path)), time.time() - path.stat().st_mtime
    except (OSError, ValueError):  # nobody, or gone meanwhile
        return None
    return found if (not _gone(found) if _visible(found) else age < STALE) else None


def _take(path, mine, worker):
    """Make the lock, in place of one that was abandoned. Raises UserError where its owner is at work."""
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            break
        except FileExistsError:
            judged = _text(path)
            if not _abandoned(path, judged):
                raise UserError(
                    f"{path.parent}: another {worker} works here ({judged.strip()}). Wait for it or stop it. "
                    f"If it is certainly gone, delete {path}."
                ) from None
            _remove(path, judged)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({**mine, "beat": 0}, file)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _beat(path, mine, done, worker):
    """Show signs of life until `done`; where another has taken the lock, ask this process to stop."""
    number = 0
    while not done.wait(HEARTBEAT):
        number += 1
        with contextlib.suppress(OSError, UserError):  # a full disk is for the checkpoint to report
            if mine["token"] not in _text(path):
                print(f"{path}: taken over by another {worker}; this one saves and stops", flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            write_text(path, json.dumps({**mine, "beat": number}))


def _process(number):
    """What tells a process from every other: host, number, and when it started (a number is used again one day); on
    Linux also in which namespace it has this number, since containers may call themselves by one name of a host.
    """
    try:
        started = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        started = None
    return {"host": socket.gethostname(), **_namespace(), "pid": number, "started": started}


def _namespace():
    try:
        return {"namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {}


def _visible(owner):
    """Whether a process that holds a lock could be seen from here; locks of an earlier version name no namespace."""
    here = {"host": socket.gethostname(), **_namespace()}
    return all(owner.get(key, here.get(key)) == here.get(key) for key in ("host", "namespace"))


def _gone(owner):
    """Whether a visible process has ended; one that hangs, or is suspended, still owns its lock."""
    return owner["pid"] == os.getpid() or _process(owner["pid"])["started"] != owner["started"]


def _text(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _abandoned(path, judged):
    """Whether the worker whose lock reads `judged` is gone."""
    try:
        owner = json.loads(judged)
    except ValueError:  # gone meanwhile, just being written, or cut short by a full disk
        owner = {"host": None}
    if _visible(owner):
        return _gone(owner)
    if owner["host"]:
        print(
            f"{path}: of host {owner['host']}, process {owner['pid']}; waiting for its next sign of life, at most "
            f"{STALE} s.",
            file=sys.stderr,
            flush=True,
        )
    begun = time.monotonic()
    while time.monotonic() - begun < STALE:
        if _text(path) != judged:
            return not path.exists()
        time.sleep(HEARTBEAT / 10)
    return True


def _remove(path, judged):
    """Remove the lock that was judged abandoned, and not the new one of a worker that judged faster."""
    private = path.with_name(f"lock.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(private)
        if _text(private) != judged:
            try:
                os.link(private, path)
            except FileExistsError:
                pass
            except OSError:  # CIFS and gcsfuse have no hard links
                private.rename(path)
        private.unlink()

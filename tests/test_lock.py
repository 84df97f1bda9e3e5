"""The lock on a training job's folder: who holds it, who is judged gone, and that two never hold it at once."""

import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from diffusionblocks.base import lock as locks
from diffusionblocks.base.files import UserError
from diffusionblocks.training.checkpoint import State


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def write_lock(folder, host, pid, **values):
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock.json"
    started = locks._process(pid)["started"]
    lock.write_text(json.dumps({"host": host, "pid": pid, "started": started, "token": "other", "beat": 0, **values}))
    return lock


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    lock = write_lock(tmp_path, socket.gethostname(), dead_pid(), started="1")
    with locks.lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_lock_of_a_living_process_holds_even_if_it_hangs(tmp_path):
    lock = write_lock(tmp_path, socket.gethostname(), os.getppid())
    os.utime(lock, (0, 0))  # no sign of life for long: suspended, say
    with pytest.raises(UserError, match="another trainer"), locks.lock(tmp_path):
        pass
    write_lock(tmp_path, socket.gethostname(), os.getppid(), started="1")  # its number went to another process
    with locks.lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    write_lock(tmp_path, socket.gethostname(), os.getpid())  # ours before a restart of the container
    with locks.lock(tmp_path):
        assert json.loads(lock.read_text())["token"] != "other"


def test_lock_of_another_host_is_judged_by_its_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    monkeypatch.setattr(locks, "STALE", 0.2)
    lock = write_lock(tmp_path, "another-node", 1)
    os.utime(lock, (0, 0))  # clocks differ between hosts: the time of a file says nothing
    began = time.monotonic()
    with locks.lock(tmp_path):
        assert json.loads(lock.read_text())["host"] == socket.gethostname()
    assert time.monotonic() - began >= 0.1, "a requeued job waits for signs of life before it takes over"

    monkeypatch.setattr(locks, "STALE", 60)  # the first beat decides, however late a busy machine lets it come
    done = threading.Event()

    def beat():
        number = 0
        while not done.wait(0.005):
            number += 1
            other = tmp_path / "written-elsewhere"
            other.write_text(json.dumps({"host": "another-node", "pid": 1, "started": None, "beat": number}))
            other.replace(lock)

    thread = threading.Thread(target=beat)
    write_lock(tmp_path, "another-node", 1)
    thread.start()
    try:
        with pytest.raises(UserError, match="another-node"), locks.lock(tmp_path):
            pass
    finally:
        done.set()
        thread.join()
    assert "another-node" in lock.read_text()


def test_before_another_hosts_lock_is_waited_for_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    monkeypatch.setattr(locks, "STALE", 0.05)
    write_lock(tmp_path, "another-node", 17)
    assert locks.holder(tmp_path) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/lock.json" in line and "another-node, process 17" in line and "at most 0.05 s" in line
    write_lock(tmp_path, socket.gethostname(), dead_pid(), started="1")
    assert locks.holder(tmp_path) is None and capsys.readouterr().err == "", "of this host it takes no time"


def test_a_lock_of_another_container_with_this_hosts_name_is_judged_by_its_beats(tmp_path, monkeypatch):
    """Its process has a number of the container's own: another one's, or nobody's, here."""
    monkeypatch.setattr(locks, "HEARTBEAT", 0.05)
    monkeypatch.setattr(locks, "STALE", 60)
    lock = write_lock(tmp_path, socket.gethostname(), dead_pid(), started="1", namespace="pid:[1]")
    assert locks.owner(tmp_path)["namespace"] == "pid:[1]"
    timer = threading.Timer(0.1, lambda: write_lock(tmp_path, socket.gethostname(), 1, namespace="pid:[1]", beat=1))
    timer.start()
    try:
        assert locks.holder(tmp_path), "a beat comes"
    finally:
        timer.join()
    monkeypatch.setattr(locks, "STALE", 0.1)
    with locks.lock(tmp_path):  # and none any more
        assert json.loads(lock.read_text())["namespace"] == os.readlink("/proc/self/ns/pid")
    assert not lock.exists()


def refuse(*_):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_slow_judge_leaves_the_new_lock_alone(tmp_path, monkeypatch):
    """Two trainers judge the same abandoned lock; the faster one has taken over before the slower one acts."""
    judged = write_lock(tmp_path, "gone", 1).read_text()
    new = write_lock(tmp_path, "faster", 2)
    locks._remove(new, judged)
    assert json.loads(new.read_text())["host"] == "faster"
    with monkeypatch.context() as patch:  # CIFS and gcsfuse have no hard links
        patch.setattr(os, "link", refuse)
        locks._remove(new, judged)
    assert json.loads(new.read_text())["host"] == "faster"
    locks._remove(new, new.read_text())
    assert not list(tmp_path.iterdir())


def test_a_trainer_shows_signs_of_life_and_stops_when_its_lock_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    lock = tmp_path / "lock.json"

    def until(condition):
        for _ in range(1000):
            if condition():
                return True
            time.sleep(0.01)
        return False

    stopped = []
    monkeypatch.setattr(locks.os, "kill", lambda pid, number: stopped.append((pid, number)))
    with locks.lock(tmp_path):
        assert until(lambda: json.loads(lock.read_text())["beat"] > 1)
        write_lock(tmp_path, "another-node", 1)
        assert until(lambda: stopped == [(os.getpid(), signal.SIGTERM)])
    assert "another-node" in lock.read_text(), "a lock that is not ours any more stays"


@pytest.mark.parametrize("content", ["", '{"host": "elsew'])
def test_half_a_lock_is_no_lock(tmp_path, monkeypatch, content):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    monkeypatch.setattr(locks, "STALE", 0.05)
    (tmp_path / "lock.json").write_text(content)
    with locks.lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    """The tensor library writes under a name of its own; nobody else works in a training's folder."""
    state = State(tmp_path / "state", {"run": 1})
    state.folder.mkdir()
    (tmp_path / "state/.tmpVQC0IV").write_bytes(b"half")
    assert state.load("cpu") == (None, None)
    assert not list((tmp_path / "state").iterdir())

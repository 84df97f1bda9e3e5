"""The warm process: a job that it runs is, to all around it, the process that its command would have been."""

import json
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusionblocks.base import hand_over, warm
from diffusionblocks.plan.code import MODULES
from diffusionblocks.plan.source import PACKAGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm process on Linux only")

# In place of the package, beside the true base/warm.py: a verb that does what is asked of it, and says what it sees.
VERBS = """
import atexit, json, os, resource, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(1)

def main():
    verb, *rest = sys.argv[1:]
    if verb == "see":
        sys.stdout.write(json.dumps({
            "parent": os.getppid(), "folder": os.getcwd(), "own": os.environ.get("OWN"), "path": sys.path[0],
            "mask": oct(os.umask(0)), "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "hangup": signal.getsignal(signal.SIGHUP).name, "input": sys.stdin.read(),
            "open": len(os.listdir("/proc/self/fd")),
            "modules": sorted(name for name in sys.modules if name.startswith("diffusionblocks")),
        }))
        print("also here", file=sys.stderr)
    elif verb == "end":
        sys.exit(int(rest[0]))
    elif verb == "say":
        sys.exit("told")
    elif verb == "leave":
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        POOL.submit(print, "of a pool").result()  # whose thread waits for more, as those of torch.compile
        print("left")
    elif verb == "fail":
        raise RuntimeError("told")
    elif verb == "kill":
        os.kill(os.getpid(), int(rest[0]))
    elif verb == "wait":
        signal.signal(signal.SIGTERM, lambda *_: (print("asked to stop", flush=True), sys.exit(7)))
        print(os.getpid(), flush=True)
        while True:
            time.sleep(0.01)
"""


@pytest.fixture
def package(tmp_path):
    """A folder with a package of the same name, whose verbs are VERBS."""
    base = tmp_path / "diffusionblocks/base"
    base.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "base/__init__.py", "base/hand_over.py", "base/warm.py"):
        (tmp_path / "diffusionblocks" / name).write_text((PACKAGE / name).read_text())
    (tmp_path / "diffusionblocks/verbs.py").write_text(VERBS)
    return tmp_path


@pytest.fixture
def started(package, monkeypatch):
    """The same, with its warm process at work."""
    monkeypatch.chdir(package)
    monkeypatch.setenv("PYTHONPATH", str(package))
    with warm.warm(package / "warm.log"):
        wait_for(Path(os.environ[hand_over.VARIABLE]).exists)
        yield package
    wait_for((package / "warm.log").read_text)
    assert re.fullmatch(r"\d+ jobs were run here, [01] declined\n", (package / "warm.log").read_text())


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


COMMAND = [sys.executable, "-m", "diffusionblocks"]


def job(*arguments, **keywords):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **keywords)


def seen(*arguments, **keywords):
    done = job("see", *arguments, input="some input", **keywords)
    assert done.returncode == 0 and done.stderr == "also here\n", done.stderr
    return json.loads(done.stdout)


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def started_job(**options):
    """A command that waits, once it passes signals on; and the process of its job."""
    command = subprocess.Popen([*COMMAND, "wait"], stdout=subprocess.PIPE, text=True, **options)
    pid = int(command.stdout.readline())

    def passes_on():
        caught = Path(f"/proc/{command.pid}/status").read_text().split("SigCgt:")[1].split()[0]
        return int(caught, 16) >> (signal.SIGUSR1 - 1) & 1

    wait_for(passes_on)
    return command, pid


def test_a_job_sees_what_its_command_has(started, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def limited():
        os.umask(0o27)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it

    found = seen(cwd=elsewhere, preexec_fn=limited)
    alone = seen(cwd=elsewhere, preexec_fn=limited, env={**os.environ, hand_over.VARIABLE: ""})
    assert found.pop("parent") != os.getpid() == alone.pop("parent")  # else no warm process has run it
    assert found == alone
    assert (found["mask"], found["files"], found["hangup"], found["input"]) == ("0o27", 200, "SIG_IGN", "some input")


def test_a_job_ends_its_command_as_it_ended_itself(started):
    assert [job("end", code).returncode for code in ("0", "2", "130")] == [0, 2, 130]
    assert [job("kill", str(number)).returncode for number in (9, 15)] == [-9, -15]
    assert job("leave", timeout=30).stdout == "of a pool\nleft\na thread\nat exit\n"
    assert job("say").returncode == 1 and job("say").stderr == "told\n"
    failed = job("fail")
    assert failed.returncode == 1 and failed.stderr.endswith("RuntimeError: told\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_command_is_one_to_the_job(started, number):
    command, pid = started_job()
    assert pid != command.pid and alive(pid)
    command.send_signal(number)
    assert command.wait(30) == (7 if number == signal.SIGTERM else -9)
    wait_for(lambda: not alive(pid))
    assert command.stdout.read() == ("asked to stop\n" if number == signal.SIGTERM else "")


def test_a_job_dies_with_the_warm_process_and_says_so(started):
    command, pid = started_job(stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status").read_text()
    os.kill(int(status.split("PPid:")[1].split()[0]), signal.SIGKILL)
    (started / "warm.log").write_text("0 jobs were run here, 0 declined\n")  # what it can no longer say
    assert command.wait(30) == 1 and "was killed" in command.stderr.read()
    wait_for(lambda: not alive(pid))
    assert job("end", "3").returncode == 3  # later ones go on by themselves


def test_a_signal_to_a_job_that_has_just_ended_ends_no_other(started):
    """The warm process hears of both at once; the job's end is the first."""
    (first, pid), (second, _) = started_job(), started_job()
    parent = int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(parent, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    first.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    os.kill(parent, signal.SIGCONT)
    assert first.wait(30) == -9
    second.terminate()
    assert second.wait(30) == 7 and alive(parent)


def test_a_signal_that_nobody_has_read_hides_no_exit_code():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        there.send(bytes([signal.SIGTERM]))
        here.send(b"0")
        here.close()
        assert hand_over._heard(there) == b"0" and hand_over._heard(there) == b""


def test_an_environment_that_is_too_long_is_declined(started):
    """Cut, it ends as a whole one would."""
    long = {f"LONG{i}": "}" * (hand_over.MOST * 2 // 3) for i in range(2)}
    assert seen(env={**os.environ, **long})["parent"] == os.getpid() != seen()["parent"]


def test_a_fork_that_fails_leaves_the_job_to_its_command(monkeypatch):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = warm.Parent.__new__(warm.Parent)
    parent.watched, parent.environment, parent.declined = selectors.DefaultSelector(), None, 0
    parent.watched.register(here, selectors.EVENT_READ)

    def refused():
        raise BlockingIOError("a limit of processes")

    monkeypatch.setattr(os, "fork", refused)
    monkeypatch.setattr(warm.gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "argv", ["diffusionblocks", "plan"])
    socket.send_fds(there, [json.dumps(hand_over.request()).encode()], [0, 1, 2])
    assert parent._asked(here) is None and parent.declined == 1 and there.recv(9) == b""
    there.close()


@pytest.mark.parametrize("of", [os, socket])
def test_where_something_is_missing_there_is_none(tmp_path, monkeypatch, of):
    """conda's Python 3.11 lacks the first, Windows' first Linux the second."""
    if of is os:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(socket, "SOCK_SEQPACKET", 99)
    with warm.warm(tmp_path / "warm.log"):
        assert hand_over.VARIABLE not in os.environ
    assert not (tmp_path / "warm.log").exists()


def test_a_job_outlives_whoever_started_the_warm_process(package, monkeypatch):
    monkeypatch.chdir(package)
    monkeypatch.setenv("PYTHONPATH", str(package))
    with warm.warm(package / "warm.log"):
        wait_for(Path(os.environ[hand_over.VARIABLE]).exists)
        command, pid = started_job()
        parent = int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    assert hand_over.VARIABLE not in os.environ
    time.sleep(0.1)
    assert alive(pid) and alive(parent) and not (package / "warm.log").read_text()
    command.terminate()
    assert command.wait(30) == 7
    wait_for(lambda: not alive(parent))


def test_a_job_of_another_environment_goes_on_by_itself(started):
    assert seen()["parent"] != os.getpid()
    other = seen(env={**os.environ, "OMP_NUM_THREADS": "7"})
    assert other["parent"] == os.getpid()


def test_an_edit_counts_at_once(started):
    assert job("end", "0").returncode == 0
    verbs = started / "diffusionblocks/verbs.py"
    verbs.write_text("def main():\n    print('edited')\n")
    assert job("end", "0").stdout == "edited\n"


def test_every_verb_whose_module_imports_what_takes_long_has_its_libraries():
    heavy = re.compile(r"^(?:import|from) (?:torch|pandas|numpy|scipy|matplotlib)\b", re.MULTILINE)
    named = {**MODULES, "claims": "page.summary", "compare": "page.compare"}  # which no step reads the sources of
    modules = {verb: PACKAGE / f"{name.replace('.', '/')}.py" for verb, name in named.items()}
    long = {verb for verb, file in modules.items() if heavy.search(file.read_text())}
    assert long >= {"train", "page", "verdicts", "exports"} and long - warm.LIBRARIES.keys() == set()


def test_libraries_are_imported_once_for_a_verb(started):
    (started / "diffusionblocks/verbs.py").write_text(
        "import sys\n\n\ndef main():\n    before = 'torch' in sys.modules\n    import torch\n"
        "    print(before, torch.cuda.is_initialized(), torch.get_num_threads())\n"
    )
    plan, alone = job("plan").stdout, job("train", env={**os.environ, hand_over.VARIABLE: ""}).stdout
    assert plan == alone and plan.startswith("False False ")
    assert job("train").stdout == job("train").stdout == plan.replace("False", "True", 1)

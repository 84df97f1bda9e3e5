"""A process that has imported what takes long, and forks a child for each job that runs where Snakemake itself runs.

Importing torch takes a second, or two with torchvision, which in the demo's 800 small jobs is more than they compute.
A job's command stays the same: `python -m diffusionblocks` hands itself over where the workflow has such a process, and
otherwise goes on by itself. The child has the command's folder, files, environment, limits, mask and ignored signals,
gets every signal that the command gets, dies where the command or the warm process is killed, and ends the command as
it has ended. A library is imported the first time that a verb needs it, in the first job's environment; a job with
another one goes on by itself. Nothing of this package is imported but this file and hand_over.py, so that an edit
counts at once.

Linux only: what other systems' libraries do at import does not always survive a fork. Nor is there one where Python or
the kernel lacks what it takes (conda's Python 3.11 knows no pidfd_open). Standard library only.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from diffusionblocks.base.hand_over import FORWARDED, MOST, VARIABLE, program

OF_THE_SHELL = {"_", "SHLVL", "PWD", "OLDPWD"}  # variables in which two jobs may differ
PR_SET_PDEATHSIG = 1

NETWORK = ("torch", "numpy", "safetensors.torch", "yaml", "jsonschema")
COUNTED = (*NETWORK, "torch._dynamo", "torch._meta_registrations")  # both are imported for the meta device
SCORES = (*NETWORK, "torch._dynamo", "torchvision", "torch_fidelity", "scipy.linalg", "sklearn.metrics", "faiss")
PAGE = ("numpy", "pandas", "scipy.stats", "matplotlib.figure", "seaborn", "jinja2")
# What is imported for a verb; those that are not named import next to nothing.
LIBRARIES = {
    **dict.fromkeys(("train", "assemble", "sample", "timing", "prepare", "encode"), NETWORK),
    **dict.fromkeys(("count", "estimate"), COUNTED),
    **dict.fromkeys(("evaluate", "reference", "extractor", "teacher"), SCORES),
    **dict.fromkeys(("figures", "page", "table", "verdicts", "exports", "compare"), PAGE),
}


@contextlib.contextmanager
def warm(log: str | Path) -> Iterator[None]:
    """In here commands of this process's children find a warm process, which outlives it only while it has children.

    log: file of what it has to say.
    """
    if not _possible():
        yield
        return
    # In a folder that nobody else may read, of a short name: the address of a socket has at most 107 bytes.
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="diffusionblocks-", dir=place) as folder, open(log, "w") as file:
        address = f"{folder}/socket"
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusionblocks.base.warm", address],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        os.environ[VARIABLE] = address
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            process.stdin.close()


def _possible():
    try:
        os.close(os.pidfd_open(os.getpid()))
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).close()
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


class Parent:
    """The warm process: takes commands at an address as long as its standard input is held open, and forks."""

    def __init__(self, address: str):
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # they are for the jobs; whoever holds the input ends this process
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(address)
        self.listening.listen(256)
        self.watched = selectors.DefaultSelector()
        self.watched.register(0, selectors.EVENT_READ, self._closed)
        self.watched.register(self.listening, selectors.EVENT_READ, self._connected)
        self.commands, self.environment, self.imported = {}, None, set()
        self.forked, self.declined = 0, 0

    def serve(self) -> dict | None:
        """Fork until the input is closed and no child is left. Returns None then; in a child, at once, its request."""
        while self.watched.get_map():
            for key, _ in self.watched.select():
                # By its number: of what an event before this one has closed, the map raises ValueError.
                if self.watched.get_map().get(key.fd) == key and (request := key.data(key.fileobj)):
                    return request
        return None

    def _closed(self, _):
        self.watched.unregister(0)
        self.watched.unregister(self.listening)
        self.listening.close()

    def _connected(self, _):
        command, _ = self.listening.accept()
        self.watched.register(command, selectors.EVENT_READ, self._asked)

    def _asked(self, command):
        self.watched.unregister(command)
        text, files, flags, _ = socket.recv_fds(command, MOST, 3)
        request = json.loads(text) if len(files) == 3 and not flags & socket.MSG_TRUNC else None
        if request is None or not self._fits(request):
            return self._decline(command, files)
        for name in LIBRARIES.get(next(iter(request["arguments"][1:]), None), ()):
            self._import(name)
        gc.freeze()  # or the first collection in a child would copy all that is shared with it
        try:
            child = os.fork()
        except OSError:  # over a limit of processes or memory, which must not end all jobs that run here
            return self._decline(command, files)
        if not child:
            self._become(command, request, files)
            return request
        self.forked += 1
        handle = os.pidfd_open(child)
        self.commands[command] = child
        self.watched.register(command, selectors.EVENT_READ, self._told)
        self.watched.register(handle, selectors.EVENT_READ, lambda handle: self._ended(handle, child, command))
        with contextlib.suppress(OSError):
            command.send(b"accepted")
        return self._let_go(None, files)

    def _fits(self, request):
        """Whether what was imported here would be what the command imports."""
        environment = {key: value for key, value in request["environment"].items() if key not in OF_THE_SHELL}
        if self.environment is None:
            self.environment = environment
            os.environ.clear()
            os.environ.update(request["environment"])
        return request["program"] == program() and environment == self.environment

    def _import(self, name):
        if name not in self.imported:
            self.imported.add(name)
            with contextlib.suppress(Exception):  # where it matters, the job says so
                importlib.import_module(name)

    def _decline(self, command, files):
        self.declined += 1
        self._let_go(command, files)

    def _let_go(self, command, files):
        for file in files:
            os.close(file)
        if command:
            command.close()

    def _told(self, command):
        try:
            said = command.recv(MOST)
        except OSError:
            said = b""
        for number in said or [signal.SIGKILL]:  # the command was killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.commands[command], number)
        if not said:
            self.watched.unregister(command)

    def _ended(self, handle, child, command):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.watched.unregister(handle)
        os.close(handle)
        del self.commands[command]
        if command in self.watched.get_map():
            self.watched.unregister(command)
            with contextlib.suppress(OSError):
                command.send(str(code).encode())
        command.close()

    def _become(self, command, request, files):
        """Make of a forked child the process that the command would be."""
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        for other in [key.fileobj for key in self.watched.get_map().values() if key.fileobj != 0]:
            os.close(other) if isinstance(other, int) else other.close()
        self.watched.close()
        for held in self.commands:
            held.close()
        command.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
        for number in FORWARDED:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
        for name, limit in request["limits"].items():
            resource.setrlimit(getattr(resource, name), limit)
        os.umask(request["mask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        del os.environ[VARIABLE]  # here it runs
        os.chdir(request["folder"])
        sys.argv[:] = request["arguments"]
        if not sys.flags.safe_path:
            sys.path[0] = request["folder"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "diffusionblocks"]:
            del sys.modules[name]
        importlib.invalidate_caches()


def run_and_end() -> None:
    """Run the package as the command would, then end without taking down all that was imported: that takes longer than
    most jobs. An exception that nobody has caught ends the process in Python's own way.
    """
    code = None
    try:
        runpy.run_module("diffusionblocks", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            raise
        code = error.code
    threading._shutdown()  # which has pools of threads end, torch.compile's for one, and then waits for all
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    parent = Parent(sys.argv[1])
    if parent.serve():
        run_and_end()
    else:
        print(f"{parent.forked} jobs were run here, {parent.declined} declined")

"""How a command has the workflow's warm process run it (warm.py). Imported at the start of every job: so little is.

Standard library only.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys

VARIABLE = "DIFFUSIONBLOCKS_WARM"  # the address, in the environment of a workflow's jobs
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
MOST = 1 << 17  # bytes of a message; a command whose environment is longer runs by itself


def hand_over() -> None:
    """Have the warm process run this command, and exit as it has ended; return where there is none, or it declines."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as there:
        try:
            there.connect(address)
            socket.send_fds(there, [json.dumps(request()).encode()], [0, 1, 2])
            accepted = there.recv(MOST)
        except OSError:
            return
        if not accepted:
            return
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: _tell(there, number))
        said = _heard(there)
    if not said:
        print("error: the process that ran this job for the workflow was killed, and the job with it", file=sys.stderr)
        sys.exit(1)
    code = int(said)
    if code < 0:  # a signal has ended it, and ends this process too
        if -code in FORWARDED:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _heard(there):
    """What the warm process says at last; nothing where it is gone."""
    for _ in range(2):  # a signal that it had not read when it closed is an error, which stands before what it said
        with contextlib.suppress(OSError):
            return there.recv(MOST)
    return b""


def _tell(there, number):
    with contextlib.suppress(OSError):
        there.send(bytes([number]))


def request() -> dict:
    """What the warm process has to know of this command."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "program": program(),
        "arguments": sys.argv,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "mask": mask,
        "ignored": [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN],
    }


def program() -> list:
    """Which Python this is, and how it was started."""
    return [sys.executable, sys.flags.dev_mode, sys.flags.optimize, sys.flags.safe_path]

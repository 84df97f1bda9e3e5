"""Files that are whole or absent, and errors that a user can act on. Standard library only."""

import contextlib
import difflib
import errno
import glob
import json
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PATIENCE = 1800  # seconds that `patiently` waits for space on a full disk
# What a file system says no with: (what is wrong, what to do). Other numbers have the system's own words.
ACCESS = "Ask its owner for the right (chmod, chown), or name another place."
TROUBLES = {
    **dict.fromkeys(
        NO_SPACE,
        ("the disk is full or a quota is reached", "Free some space and start the same command again."),
    ),
    errno.ENOENT: ("no such file or folder", "Bring it there, or name another place."),
    errno.EACCES: ("permission denied", ACCESS),
    errno.EPERM: ("not permitted", ACCESS),
    errno.EROFS: ("its file system is read-only", "Name another place, or have it mounted for writing."),
    errno.EISDIR: ("is a folder, and a file belongs here", "Move it away, or name another place."),
    errno.ENOTDIR: ("runs through a file where a folder belongs", "Move that file away, or name another place."),
    errno.EEXIST: ("is a file, and a folder belongs here", "Move it away, or name another place."),
    errno.ELOOP: ("too many levels of links: they lead in a circle", "Make the links anew."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
    errno.ESTALE: ("stale handle: the file server has moved or removed it", "Start the same command again."),
    errno.EIO: ("the device cannot read or write it", "Start the same command again, or have the disk looked at."),
    errno.EMFILE: ("too many open files", "Allow more (ulimit -n) and start the same command again."),
}
# What file systems without an operation (CIFS, gcsfuse) answer to it.
UNSUPPORTED = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}


class UserError(Exception):
    """Something the user can mend. The message names the file, key or step and says what to do."""

    exit_code = 2


class Interrupted(UserError):
    """Work stopped on request and can go on later; the exit code is that of a process ended by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class DiskFull(UserError):
    """A full disk, or a quota that is reached: it may pass."""


def in_words(error: OSError, where: str | Path | None = None) -> str:
    """One line for a user: the path, what is wrong, what to do. where: in place of the path that the error names."""
    what, cure = TROUBLES.get(error.errno, ("cannot be used", "Mend it and start the same command again."))
    return f"{where or error.filename or 'a file'}: {what} ({error.strerror}). {cure}"


def unreadable(path: str | Path, error: Exception, damaged: str) -> UserError:
    """The error of a file that is there and cannot be read: what the file system says, or else the words `damaged`."""
    hindered = isinstance(error, OSError) and error.errno in TROUBLES.keys() - {errno.ENOENT}
    return UserError(in_words(error, path) if hindered else damaged)


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder. Raises OSError where that cannot be seen; pathlib of 3.14 says no there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def listed(folder: str | Path) -> list[str]:
    """Names in a folder, sorted; none where it is absent. Raises OSError where they cannot be seen, as `exists`."""
    return sorted(os.listdir(folder)) if exists(folder) else []


def to_disk(file: IO) -> None:
    """Have all bytes of an open file on the disk, where its file system can tell."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def suggest(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'vit'?`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def user_path(where: str, text: str) -> str:
    """A path that a user gives at `where`, a key or an option, with ~ and $VARIABLES put in.

    Raises UserError for what cannot be put in: left as it is, it would be the name of a new folder.
    """
    for name in (plain or braced for plain, braced in re.findall(r"\$(?:(\w+)|\{([^}]*)\})", text)):
        if not os.environ.get(name):
            raise UserError(f"{where}: {text}: the variable {name} is not set, or empty. Set it, or write it out.")
    path = os.path.expanduser(os.path.expandvars(text))
    if path.startswith("~"):
        raise UserError(f"{where}: {text}: there is no such user. Write the path out.")
    if not path.strip():
        raise UserError(f"{where}: {text!r} is empty. Name a folder or a file; `.` is the current folder.")
    return path


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` and rename it to `path` at the end.

    Whatever goes wrong in between, `path` is as it was before and the temporary file is gone.
    Raises UserError when the disk is full, and OSError with `path` for what else hinders writing it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for litter in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a writer that was killed
        with contextlib.suppress(OSError):  # it may be another user's
            litter.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the user's own; some writers make files that only their owner may read
        yield temporary
        if temporary.stat().st_mode != mode:
            with contextlib.suppress(OSError):  # CIFS and gcsfuse have one mode for all files and refuse
                temporary.chmod(mode)
        with open(temporary, "rb") as written:
            to_disk(written)  # a rename must never outlive the bytes it names
        os.replace(temporary, path)
    except Exception as error:
        if getattr(error, "errno", None) in NO_SPACE or "No space left" in str(error) or "File too large" in str(error):
            raise disk_full(path, error) from error
        if getattr(error, "filename", None) == str(temporary):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with contextlib.suppress(OSError):  # a folder that refuses has refused to make it, too
            temporary.unlink()


def disk_full(path: str | Path, error: Exception) -> UserError:
    """The refusal of a write that found no space; a limit on the size of files (ulimit) does not pass by itself."""
    kind = UserError if "File too large" in str(error) else DiskFull
    what, cure = TROUBLES[errno.ENOSPC]
    return kind(f"{path}: {what} ({error}). Nothing was overwritten. {cure}")


def patiently(write: Callable[[], Any], stop: Sequence = ()) -> Any:
    """What `write()` returns. On a full disk it is tried again for half an hour, or until `stop` holds something.

    A job that ends there would lose what it has computed, and the next attempts at it end in the same way.
    """
    begun, told = monotonic(), False
    while True:
        try:
            return write()
        except DiskFull as error:
            if stop or monotonic() - begun >= PATIENCE:
                raise
            if not told:
                say(f"waiting for space: {error}")
                told = True
        sleep(5)  # short, since a request to stop does not end it


def say(text: str) -> None:
    """Print a line at once. A log on a full disk cannot take it, which must not end the work that it tells of."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in one piece or not at all. Raises UserError as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write plain data as `write_text` does, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises UserError when the file is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run the step that makes it, or ask snakemake for it.") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Delete it and run the step that makes it again.") from None


def read_json_lines(path: str | Path) -> list:
    """All records of a JSON-lines file. A last line cut short by a kill is left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def read_about(path: str | Path) -> dict | None:
    """What a tensor file says of itself (base/tensors.py), read without a library; None where it is damaged."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 1 << 27)))
        return json.loads(header["__metadata__"]["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

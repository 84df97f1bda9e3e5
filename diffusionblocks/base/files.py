"""Files that are whole or absent, and errors that a user can act on. Standard library only."""

import contextlib
import difflib
import errno
import glob
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PATIENCE = 1800  # seconds that `patiently` waits for space on a full disk


class UserError(Exception):
    """Something the user can mend. The message names the file, key or step and says what to do."""

    exit_code = 2


class Interrupted(UserError):
    """Work stopped on request and can go on later; the exit code is that of a process ended by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class DiskFull(UserError):
    """A full disk, or a quota that is reached: it may pass."""


def suggest(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'vit'?`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` and rename it to `path` at the end.

    Whatever goes wrong in between, `path` is as it was before and the temporary file is gone.
    Raises UserError when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for litter in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a writer that was killed
        litter.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the user's own; some writers make files that only their owner may read
        yield temporary
        temporary.chmod(mode)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # a rename must never outlive the bytes it names
        os.replace(temporary, path)
    except Exception as error:
        if getattr(error, "errno", None) in NO_SPACE or "No space left" in str(error) or "File too large" in str(error):
            raise disk_full(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(path: str | Path, error: Exception) -> UserError:
    """The refusal of a write that found no space; a limit on the size of files (ulimit) does not pass by itself."""
    kind = UserError if "File too large" in str(error) else DiskFull
    return kind(
        f"{path}: the disk is full or a quota is reached ({error}). Nothing was overwritten. "
        "Free some space and start the same command again."
    )


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

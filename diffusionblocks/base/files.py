"""Files that are whole or absent, and errors that a user can act on. Standard library only."""

import contextlib
import difflib
import errno
import glob
import json
import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """Something the user can mend. The message names the file, key or step and says what to do."""

    exit_code = 2


class Interrupted(UserError):
    """Work stopped on request and can go on later; the exit code is that of a process ended by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


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
            raise UserError(
                f"{path}: the disk is full or a quota is reached ({error}). Nothing was overwritten. "
                "Free some space and start the same command again."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


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

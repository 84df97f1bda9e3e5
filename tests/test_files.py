"""Files are whole or absent, whatever happens while they are written."""

import errno
import os
import re
from pathlib import Path

import pytest

from diffusionblocks.base.files import TROUBLES, UserError, atomic, in_words, read_json_lines, user_path


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(13, "Permission denied")])
def test_atomic_leaves_the_old_file_whatever_happens(tmp_path, error):
    path = tmp_path / "new/file.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(type(error)) as raised, atomic(path) as temporary:
        assert temporary.parent == path.parent, "a rename is whole only within a file system"
        temporary.write_text("half of the n")
        raise error
    assert raised.value is error
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("I/O error: File too large")])
def test_atomic_names_the_file_when_the_disk_is_full(tmp_path, error):
    with (
        pytest.raises(UserError, match=r"the disk is full.*Nothing was overwritten") as raised,
        atomic(tmp_path / "file"),
    ):
        raise error
    assert str(tmp_path / "file") in str(raised.value) and list(tmp_path.iterdir()) == []


def test_json_lines_cut_short_by_a_kill(tmp_path):
    path = Path(tmp_path / "log.jsonl")
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]


def test_files_have_the_users_own_mode(tmp_path):
    (tmp_path / "plain").touch()
    with atomic(tmp_path / "ours") as temporary:
        temporary.write_text("x")
        temporary.chmod(0o600)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("member", ["chmod", "fsync"])
def test_a_file_system_that_lacks_an_operation_will_do(tmp_path, monkeypatch, member):
    """CIFS and gcsfuse refuse modes, some network file systems fsync."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, member, refuse)
    with atomic(tmp_path / "ours") as temporary:
        temporary.write_text("x")
        os.system(f"chmod 600 {temporary}")
    assert (tmp_path / "ours").read_text() == "x" and len(list(tmp_path.iterdir())) == 1


def test_bytes_that_the_disk_has_lost_are_no_file(tmp_path, monkeypatch):
    def lose(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(OSError), atomic(tmp_path / "ours") as temporary:
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [*TROUBLES, errno.EBUSY])
def test_every_refusal_of_a_file_system_has_a_path_a_cause_and_a_cure(number):
    words = in_words(OSError(number, os.strerror(number), "/some/file"))
    assert words.startswith("/some/file: ") and os.strerror(number) in words and words.endswith(".")
    assert "\n" not in words and words.count(". ") == 1
    assert in_words(OSError(number, os.strerror(number)), "making a/b").startswith("making a/b: ")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$SCRATCH/data", "/scratch/me/data"),
        ("${SCRATCH}/data", "/scratch/me/data"),
        ("~/data", "/home/me/data"),
        ("$TILDE/data", "/home/me/data"),
        ("results/downloads", "results/downloads"),
        ("100$", "100$"),
    ],
)
def test_a_users_path(monkeypatch, text, path):
    for name, value in {"SCRATCH": "/scratch/me", "HOME": "/home/me", "TILDE": "~"}.items():
        monkeypatch.setenv(name, value)
    assert user_path("here", text) == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$ABSENT/data", "variable ABSENT is not set"),
        ("/a/${ABSENT}", "variable ABSENT is not set"),
        ("$EMPTY/data", "variable EMPTY is not set, or empty"),
        ("${}/data", "variable  is not set"),
        ("~nobody-of-this-name/data", "no such user"),
    ],
)
def test_a_users_path_that_would_be_a_folder_of_that_name(monkeypatch, text, said):
    monkeypatch.delenv("ABSENT", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(UserError, match=f"^here: {re.escape(text)}.*{said}"):
        user_path("here", text)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_not_the_current_folder(text):
    with pytest.raises(UserError, match=r"here: .* is empty"):
        user_path("here", text)

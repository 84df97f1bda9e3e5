"""A training job's own folder: its checkpoint, and its log so far.

Snakemake deletes the outputs of a job that is killed, so all this lies outside them. The last checkpoint stays until
the parts are joined: a job whose training is done may still be killed, or its outputs found wanting, and then the next
attempt only writes them again.
"""

import contextlib
import json
import os
from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.files import NO_SPACE, UserError, disk_full, read_json_lines, say, to_disk, write_text


class State:
    """The folder of one part's training.

    identity: what a checkpoint must agree with: run, part, data, code. any_code: go on with a checkpoint that other
    code has made; the identity's code is then both, `old+new`.
    """

    def __init__(self, folder: Path | str, identity: dict | None = None, any_code: bool = False):
        self.folder, self.identity, self.any_code = Path(folder), identity, any_code
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.log = self.folder / "log.jsonl"

    def save(self, values: dict, **progress) -> None:
        """Write tensors and progress (plain values) as the checkpoint, in one piece or not at all."""
        if self.log.exists():
            with open(self.log, "rb") as log:
                to_disk(log)  # a checkpoint must never be newer than the log that leads up to it
        tensors.write(self.checkpoint, values, {"identity": self.identity, **progress})

    def load(self, device) -> tuple[dict | None, dict | None]:
        """(tensors, progress) of the checkpoint, or (None, None). Raises UserError for a damaged or foreign one."""
        for litter in self.folder.glob(".tmp*"):  # the tensor library's own, of a trainer that was killed while saving
            litter.unlink(missing_ok=True)
        if not self.checkpoint.exists():
            return None, None
        values, about = tensors.read(self.checkpoint, f"Delete {self.folder} to start anew.", device)
        theirs = about.pop("identity", {})
        if self.any_code and theirs.get("code") != self.identity["code"]:
            self.identity["code"] = f"{theirs.get('code')}+{self.identity['code']}"
            theirs["code"] = self.identity["code"]
        differences = _differences(theirs, self.identity)
        if differences and about["step"] == about.get("total"):  # whose parts were not wanted any more
            say(
                f"{self.checkpoint}: a finished training of another configuration ({'; '.join(differences)}) is deleted"
            )
            self.clear()
            return None, None
        if differences:
            raise UserError(
                f"{self.checkpoint}: belongs to another configuration ({'; '.join(differences)}). Delete {self.folder} "
                "to train anew, or restore the settings to go on with it; where only the code is another, it goes on "
                "with --config track_code=false."
            )
        return values, about

    def clear(self) -> None:
        """Delete checkpoint and log, and the folder where nothing else is in it."""
        for file in (self.checkpoint, self.log):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def trim_log(self, step: int) -> None:
        """Drop log records after `step`: they will be made again."""
        records = read_json_lines(self.log) if self.log.exists() else []
        kept = [record for record in records if record["step"] <= step and record.get("event") != "end"]
        write_text(self.log, "".join(json.dumps(record) + "\n" for record in kept))

    def append(self, *records: dict) -> None:
        """Add records to the log. Raises DiskFull, and leaves the log as it was, where there is no space."""
        size = self.log.stat().st_size if self.log.exists() else 0
        try:
            with open(self.log, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            with contextlib.suppress(OSError):
                os.truncate(self.log, size)
            raise disk_full(self.log, error) from error


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

"""A training job's own folder: its checkpoint, and its log so far.

Snakemake deletes the outputs of a job that is killed, so all this lies outside them.
"""

import json
from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError, read_json_lines, to_disk, write_text


class State:
    """The folder of one part's training. `identity` is the run and the part that a checkpoint must belong to."""

    def __init__(self, folder: Path | str, identity: dict):
        self.folder, self.identity = Path(folder), identity
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.log = self.folder / "log.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)

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
        differences = _differences(about.pop("identity", {}), self.identity)
        if differences:
            raise UserError(
                f"{self.checkpoint}: belongs to another configuration ({'; '.join(differences)}). Delete {self.folder} "
                "to train anew, or restore the settings to go on with it."
            )
        return values, about

    def trim_log(self, step: int) -> None:
        """Drop log records after `step`: they will be made again."""
        records = read_json_lines(self.log) if self.log.exists() else []
        kept = [record for record in records if record["step"] <= step and record.get("event") != "end"]
        write_text(self.log, "".join(json.dumps(record) + "\n" for record in kept))

    def append(self, *records: dict) -> None:
        """Add records to the log."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


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

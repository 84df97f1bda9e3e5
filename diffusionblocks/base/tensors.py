"""Tensor files (safetensors, never a pickle) with a header that says what they are."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from diffusionblocks.base.files import atomic, unreadable

Tensors = dict[str, Any]  # by name: torch's, or numpy's arrays where the framework is "np"


def read(
    path: str | Path, cure: str, device: object = "cpu", framework: Literal["pt", "np"] = "pt"
) -> tuple[Tensors, dict]:
    """(tensors, about) of a file that `write` made. Raises UserError, ending with `cure`, for any other file.

    device: a torch.device or its name; of "np" always the CPU.
    """
    with _opened(path, cure, framework, str(device)) as file:
        about = json.loads(file.metadata()["about"])
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a dict)


def about(path: str | Path, cure: str) -> dict:
    """What a file says of itself, without reading its tensors. Raises UserError as `read` does."""
    with _opened(path, cure, "np", "cpu") as file:
        return json.loads(file.metadata()["about"])


@contextlib.contextmanager
def _opened(path, cure, framework, device):
    try:
        open(path, "rb").close()  # of every file that it cannot open, the library says that there is none
        with safe_open(path, framework, device=device) as file:
            yield file
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        damaged = f"{path}: absent, damaged or not a file of this workflow ({error}). {cure}"
        raise unreadable(path, error, damaged) from None


def digest(tensors: Tensors, framework: Literal["pt", "np"] = "pt") -> str:
    """A hash of names, types, shapes and bytes, the same for torch's and numpy's tensors, on any device."""
    if framework == "pt":
        from safetensors.torch import save
    else:
        from safetensors.numpy import save
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(save({name: value}))  # one by one: a second copy of all would take as much memory again
    return found.hexdigest()


def write(path: str | Path, tensors: Tensors, about: dict, framework: Literal["pt", "np"] = "pt") -> None:
    """Write tensors and `about` (plain data) in one piece or not at all."""
    if framework == "pt":
        from safetensors.torch import save_file
    else:
        from safetensors.numpy import save_file
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about, sort_keys=True)})

"""Tensor files (safetensors, never a pickle) with a header that says what they are."""

import contextlib
import json

from safetensors import SafetensorError, safe_open

from diffusionblocks.base.files import UserError, atomic


def read(path, cure, device="cpu", framework="pt"):
    """(tensors, about) of a file that `write` made. Raises UserError, ending with `cure`, for any other file."""
    with _opened(path, cure, framework, str(device)) as file:
        about = json.loads(file.metadata()["about"])
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a dict)


def about(path, cure):
    """What a file says of itself, without reading its tensors. Raises UserError as `read` does."""
    with _opened(path, cure, "np", "cpu") as file:
        return json.loads(file.metadata()["about"])


@contextlib.contextmanager
def _opened(path, cure, framework, device):
    try:
        with safe_open(path, framework, device=device) as file:
            yield file
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: absent, damaged or not a file of this workflow ({error}). {cure}") from None


def write(path, tensors, about, framework="pt"):
    """Write tensors and `about` (plain data) in one piece or not at all."""
    if framework == "pt":
        from safetensors.torch import save_file
    else:
        from safetensors.numpy import save_file
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about, sort_keys=True)})

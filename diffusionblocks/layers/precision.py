"""In which precision sums and exponentials are computed."""

import contextlib

import torch


def at_least_single(x: torch.Tensor) -> torch.Tensor:
    """x in single precision, or in double if it is: for what autocast would round, such as a softmax over logits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """In here nothing is rounded. The meta device knows no autocast, even one that is turned off."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)

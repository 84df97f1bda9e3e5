"""In which precision sums and exponentials are computed."""

import torch


def at_least_single(x: torch.Tensor) -> torch.Tensor:
    """x in single precision, or in double if it is: for what autocast would round, such as a softmax over logits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

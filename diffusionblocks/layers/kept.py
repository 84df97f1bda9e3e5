"""When a layer keeps less for its backward pass, by a function of its own in place of PyTorch's operations."""

import torch

LARGE = 2**19  # elements; of fewer, the calls from Python take more time than their memory is worth


def keep_less(x: torch.Tensor) -> bool:
    """Whether what a layer makes of x is so much that less should be kept. The compiler sees to it by itself."""
    return not torch.compiler.is_compiling() and x.numel() >= LARGE

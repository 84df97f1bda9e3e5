"""What an extractor's function returns, and what the networks of several share."""

from collections import namedtuple
from collections.abc import Callable

from torch import Tensor, nn

Extractor = namedtuple("Extractor", "title obtain build")
Extractor.__doc__ = """title: what reaches the page. obtain(images, data_dir): (weights {name: tensor}, {what to know of
them}), images being the data set. build(weights): a module, or a function of weights that lie on the device already,
that takes uint8 images (N, C, H, W) to features (N, D)."""


class Trained(Extractor):
    """An Extractor that `obtain` trains on the pixels of `images`.

    Planning reads it in the return annotation, and refuses it for a data set of latents.
    """


class Adapted(nn.Module):
    """A network between two functions, without gradients."""

    def __init__(self, network: nn.Module, before: Callable, after: Callable = lambda features: features):
        super().__init__()
        self.network, self.before, self.after = network.eval().requires_grad_(False), before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.network(self.before(images)))


def rgb(images: Tensor) -> Tensor:
    """Images (N, 3, H, W): grey ones get three equal channels."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

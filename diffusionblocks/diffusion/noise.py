"""What a noise offers to a method, which never asks which one it has; the two that there are (EDM's and masking).

Levels (sigma of EDM, t of masking) are plain floats or tensors. No file of a noise imports torch: planning uses them.
"""

from collections.abc import Callable, Generator
from typing import ClassVar, Protocol, Self

from diffusionblocks.diffusion.edm import EDM, Tensor
from diffusionblocks.diffusion.masking import Masking

NOISES: dict[str, type["Noise"]] = {"edm": EDM, "masking": Masking}  # by a model's `noise_kind`


def noise_of(kind: str) -> type["Noise"]:
    """The noise of a model's `noise_kind`. Raises ValueError where there is none of that name."""
    if kind not in NOISES:
        raise ValueError(f"the model's `noise_kind` is {kind!r}, not one of {', '.join(NOISES)}")
    return NOISES[kind]


class Noise(Protocol):
    """Levels from `highest`, where nothing of the target is left, down to `lowest`; N samples, each at a level."""

    lowest: float
    highest: float
    of_tokens: ClassVar[bool]  # whether z holds tokens, not floats

    @classmethod
    def of_options(cls, target_norm: float, p_mean: float, sigma_min: float, sigma_max: float) -> Self:
        """The noise under a method's options. Raises ValueError for those that it does not take."""

    # How levels are drawn and cut into blocks: floats

    def cdf(self, level: float) -> float:
        """Share of all training draws below `level`."""

    def quantile(self, q: float) -> float:
        """The inverse of `cdf`."""

    def widen(self, low: float, high: float, overlap: float) -> tuple[float, float]:
        """(low, high) moved apart by `overlap` times their distance, in this noise's own measure, at each end."""

    def figure(self) -> dict[str, float]:
        """What a figure of the density of levels needs: `p_mean` and `p_std` of log sigma; nothing if it is flat."""

    # Training: tensors

    def spread(self, u: Tensor) -> Tensor:
        """Uniforms (N,) made of independent uniforms u (N,)."""

    def sample(self, u: Tensor, low: float, high: float) -> Tensor:
        """Levels in [low, high] of uniforms u, in its shape and type."""

    def randomness(self, z0: Tensor) -> Tensor:
        """What `corrupt` needs drawn, in the shape of z0 (N, *z_shape)."""

    def corrupt(self, z0: Tensor, level: Tensor, randomness: Tensor) -> Tensor:
        """z (N, *z_shape) of z0 at levels (N,)."""

    def weight(self, level: Tensor) -> Tensor:
        """Weight of the loss at a level."""

    # Chains, from noise down the levels

    def levels(self, num_steps: int, grid: str) -> list[float]:
        """`num_steps` descending levels, the first the highest. Raises ValueError for no steps.

        grid: a function of diffusion/grids or a user's own; masking has its own levels alone.
        """

    def chain_shape(self, num_steps: int, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what a chain of one sample needs drawn."""

    def chain(self, draws: Tensor, levels: list[float], owners: list[int], to_z: Callable, solver: str) -> Generator:
        """The coroutine (see `chains`) of one batch. draws (N, *chain_shape); owners: the block of each level."""

    def seen(self, z: Tensor, draws: Tensor) -> Tensor:
        """A chain's z as networks see it: a solver may keep more digits than they take."""

"""The contract of an architecture: a module with a class `Model(base.Model)`, found by its file's name or a dotted one.

A method says in its `needs` which of the optional members it asks for. Planning reads from the source whether a class
has them, so each stands as a `def` in the class itself; one that does not offer a member inherits the refusal here.
"""

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn

from diffusionblocks.base.files import UserError


class Model(nn.Module):
    """N samples; z_shape: shape of one clean target z0. A prediction is what `loss` and `to_z` understand, say logits.

    Constructed as Model(shape, noise, target_norm, **keywords): the keywords, all with defaults, are the keys of the
    configuration's `model` section. shape: the data's dictionary of sizes (images: image_size, channels, num_classes;
    texts: vocab_size, seq_len). noise: what it denoises (see diffusion/noise.py), or None for the plain network of
    `end_to_end`; z arrives as it is, and scaling it (layers/conditioning.py) is the network's business. target_norm:
    length of the clean embeddings of a discrete target.

    batch: a dictionary; of images `image` (N, C, H, W), normalised, `signed`, in [-1, 1] or a latent, and `label` (N,);
    of texts `tokens` (N, seq_len). Floating-point members are of the type of the weights, or single under autocast.
    """

    noise_kind: ClassVar[str] = "edm"  # "masking": z holds tokens, MASK where one is hidden; levels are masking rates
    layers: nn.ModuleList  # what is cut into blocks
    z_shape: tuple[int, ...] | None = None  # only of a denoiser
    timed: bool = True  # False: `predict` gives the same at every level, and is meant to

    def all_layers(self) -> list[nn.Module]:
        """All layers, each once, where a network has others than `layers`: compiled, and counted as its compute."""
        return list(self.layers)

    def start_from(self, data: Any) -> None:
        """Take first weights from the training data; most networks do not."""

    # As a denoiser

    def condition(self, batch: dict) -> Any:
        """What is known at inference, computed once per batch."""
        raise not_offered(self, "condition")

    def target(self, batch: dict) -> Tensor:
        """The clean target z0 (N, *z_shape)."""
        raise not_offered(self, "target")

    def predict(self, z: Tensor, level: Tensor, cond: Any, layers: nn.ModuleList) -> Any:
        """A prediction of the target from noisy z (N, *z_shape) at levels (N,), by `layers` alone."""
        raise not_offered(self, "predict")

    def loss(self, prediction: Any, batch: dict, z: Tensor) -> Tensor:
        """The loss of each sample (N,), not a mean."""
        raise not_offered(self, "loss")

    def to_z(self, prediction: Any) -> Tensor:
        """The clean target (N, *z_shape) that a prediction stands for. Of texts it takes `hard` (see `hand_off`)."""
        raise not_offered(self, "to_z")

    def unconditional(self, batch: dict) -> Any:
        """The condition of an unknown class; only for guidance."""
        raise not_offered(self, "unconditional")

    # As the plain network

    def end_to_end_prediction(self, batch: dict) -> Any:
        """A prediction, all layers run."""
        raise not_offered(self, "end_to_end_prediction")

    def end_to_end_loss(self, batch: dict) -> Tensor:
        """Its loss, of each sample (N,)."""
        raise not_offered(self, "end_to_end_loss")

    # Of texts, which are predicted as `vocabulary.Logits`

    def scores(self, prediction: Any, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Nats, hits and probability of the true tokens, (N,) each."""
        raise not_offered(self, "scores")

    def agreement(self, prediction: Any, other: Any) -> Tensor:
        """The chance that samples of two predictions of a batch agree, mean over what `scores` scores (N,)."""
        raise not_offered(self, "agreement")

    def begin(self, tokens: Tensor, layers: nn.ModuleList, length: int, eps: Tensor) -> Any:
        """A session that goes on from tokens (N, P), up to `length`.

        `predict(z, level, step)` gives Logits (N,) of the next position, `append(tokens)` makes tokens (N,) that.
        eps: (N, length, D) standard normal, position by position.
        """
        raise not_offered(self, "begin")

    # Of layers that each learn alone (Forward-Forward)

    def embed(self, batch: dict, first: Tensor | None = None) -> Tensor:
        """Tokens (N, T, D) as they enter the first layer; behind the token `first` (N, D), if given."""
        raise not_offered(self, "embed")

    def token_widths(self) -> tuple[int, int]:
        """(raw values of a token, D)."""
        raise not_offered(self, "token_widths")

    def patch_token(self, values: Tensor) -> Tensor:
        """The token (N, D) of raw values."""
        raise not_offered(self, "patch_token")

    def classify(self, x: Tensor) -> Tensor:
        """Class logits (N, classes) of tokens (N, T, D); with `label_table`, of a clean embedding z (N, d)."""
        raise not_offered(self, "classify")

    # Of class embeddings (NoProp)

    def label_table(self) -> Tensor:
        """The embeddings of the classes (num_classes, d)."""
        raise not_offered(self, "label_table")


def where(thing: object) -> str:
    """File and class of a component, as messages name them."""
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{inspect.getsourcefile(kind)}: class {kind.__name__}"


def broken(thing: object, member: str, what: str) -> UserError:
    """The error of a component whose member is not what the contract says."""
    return UserError(f"{where(thing)}: `{member}` {what}. See docs/extending.md")


def not_offered(thing: object, member: str) -> UserError:
    """The error of an optional member that a component does not have."""
    return broken(thing, member, "is asked for, and this class does not define it")

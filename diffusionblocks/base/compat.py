"""Every work-around of another library, with its reason. What a function works around is imported when it is called."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from unittest import mock

import torch


def _unguarded(kind):
    """An optimizer of PyTorch's without its guards against being compiled: they import the compiler, a second in every
    job.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    members = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**members, "step": torch.no_grad()(inspect.unwrap(kind.step))})


AdamW, Adafactor = map(_unguarded, (torch.optim.AdamW, torch.optim.Adafactor))


def fused_attention() -> contextlib.AbstractContextManager:
    """In here attention is a GPU's kernel for single precision, which keeps no matrix of tokens by tokens.

    The meta device would take the plain one, of products and a softmax.
    """
    return mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _efficient)


def _efficient(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """In here the package `name` cannot be imported; afterwards it is as it was."""
    there = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        if there:
            sys.modules[name] = there


def torch_fidelity() -> ModuleType:
    """The package, imported also where torchvision was built for another torch (a CPU build lacks two of its ops).

    torch-fidelity imports torchvision at once (pytorch/vision#9077).
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch_fidelity.library = library  # the ops live as long as this reference
    import torch_fidelity as package

    return package


def fidelity_inception(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """torch-fidelity's Inception-v3 with these weights, giving its 2,048 pool features.

    Its constructor would unpickle a file; it is given the tensors that were read without one.
    """
    torch_fidelity()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with mock.patch.object(torch, "load", lambda *_, **__: weights):
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "read already")


def autoencoder_kl() -> type:
    """diffusers' class AutoencoderKL, imported without torchvision. Raises ImportError where diffusers fails.

    diffusers imports torchvision, for other models, if that is installed, even where it was built for another torch and
    fails.
    """
    with hidden("torchvision"):
        from diffusers import AutoencoderKL
    return AutoencoderKL


@contextlib.contextmanager
def mauve_package() -> Iterator[Callable]:
    """Gives mauve-text's function compute_mauve, quiet in here, and imported without transformers.

    The library imports transformers where it finds it, which takes a second, for texts; ours are features. Its authors
    take ten texts a cluster, of which faiss warns on standard error.
    """
    import faiss

    with hidden("transformers"):
        from mauve import compute_mauve
    with mock.patch.object(faiss, "Kmeans", partial(faiss.Kmeans, min_points_per_centroid=1)):
        yield compute_mauve

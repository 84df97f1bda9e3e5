"""Distances between sets of images by their features, all computed by torch-fidelity."""

import numpy as np
import torch

from diffusionblocks.base.compat import torch_fidelity
from diffusionblocks.base.files import UserError

KID_SUBSET = 1000  # torch-fidelity's default, or all there are if there are fewer
NEIGHBOURS = 3  # of precision and recall; torch-fidelity's default
MAX_FEATURES = 10_000  # KID and precision/recall compare single images: enough of them, and their distances fit memory


class Statistics:
    """Mean and covariance (N - 1) of features in double precision, gathered batch by batch, and a sample of them.

    total: how many features there will be, of which at most MAX_FEATURES are kept, spread evenly over all.
    """

    def __init__(self, total: int):
        self.count, self.sum, self.products, self.kept = 0, 0, 0, []
        self._every = _every(total)

    def add(self, features: torch.Tensor) -> None:
        """features: (N, D) on any device."""
        wide = features.double()
        self.sum = self.sum + wide.sum(0)
        self.products = self.products + wide.T @ wide
        chosen = features[-self.count % self._every :: self._every]
        self.kept.append(chosen.to("cpu", torch.float32, copy=True))  # a view would hold all of ImageNet's 10 GB
        self.count += len(features)

    def varies(self) -> bool:
        """Whether any of the features that are kept differs from the first."""
        kept = torch.cat(self.kept)
        return bool((kept != kept[0]).any())

    def tensors(self) -> dict[str, torch.Tensor]:
        """mu (D,), sigma (D, D), and the features that were kept."""
        mu = self.sum / self.count
        sigma = (self.products - self.count * torch.outer(mu, mu)) / (self.count - 1)
        return {"mu": mu.cpu(), "sigma": sigma.cpu(), "features": torch.cat(self.kept)}


def _every(total):
    """Of how many features one is kept, so that there are at most MAX_FEATURES."""
    return max(1, -(-total // MAX_FEATURES))


def fid(features: np.ndarray, reference: dict) -> float:
    """Frechet distance of the Gaussians of features (N, D) and of a reference {mu, sigma} (Heusel et al. 2017)."""
    torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    ours = fid_features_to_statistics(torch.as_tensor(features).double())
    theirs = {key: np.asarray(reference[key]) for key in ("mu", "sigma")}
    return fid_statistics_to_metric(ours, theirs, False)["frechet_inception_distance"]


def kid(features: np.ndarray, reference: dict) -> float:
    """Kernel distance (Binkowski et al. 2018), times 1000 as is usual: mean over 100 random subsets."""
    torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    ours, theirs = torch.as_tensor(features), torch.as_tensor(reference["features"])
    size = min(KID_SUBSET, len(ours), len(theirs))
    return (
        1000
        * kid_features_to_metric(ours, theirs, kid_subset_size=size, verbose=False)["kernel_inception_distance_mean"]
    )


def precision_recall(features: np.ndarray, reference: dict) -> tuple[float, float]:
    """Share of the samples near real images, and of the real images near samples (Kynkaanniemi et al. 2019).

    Raises UserError for fewer images than have NEIGHBOURS.
    """
    torch_fidelity()
    from torch_fidelity.metric_prc import prc_features_to_metric

    if min(len(features), len(reference["features"])) <= NEIGHBOURS:
        raise UserError(
            f"precision and recall look at {NEIGHBOURS} neighbours of each image, and there are {len(features)} "
            f"generated and {len(reference['features'])} real ones"
        )
    ours = torch.as_tensor(features)[:MAX_FEATURES]  # generated classes take turns: no stride, it would drop some
    theirs = torch.as_tensor(reference["features"])
    found = prc_features_to_metric(ours, theirs, prc_neighborhood=NEIGHBOURS, verbose=False)
    return found["precision"], found["recall"]

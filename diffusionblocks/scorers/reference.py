"""The real images' side of FID: statistics of the data set's features, made once."""

from pathlib import Path

from diffusionblocks.base import tensors
from diffusionblocks.base.device import pick_device
from diffusionblocks.base.files import UserError
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.scorers.extractor import extract, load_extractor
from diffusionblocks.scorers.fidelity import Statistics


def reference(weights_path: str | Path, data_path: str | Path, data_dir: str | Path, path: str | Path) -> None:
    """Write mean, covariance and some features of the training and of the test images.

    Raises UserError for a split of a single image, and where all of a split have the same features.
    """
    device = pick_device()
    images = Pictures(data_path, device, data_dir)
    network, about = load_extractor(weights_path, device)
    written, counts = {}, {}
    for split, size in (("train", images.train_size), ("test", images.test_size)):
        statistics = Statistics(size)
        for batch in images.pixels(split):
            statistics.add(extract(network, batch, device))
        if statistics.count < 2:
            raise UserError(f"{data_path}: {images.title} has {statistics.count} {split} image, and FID needs two")
        if not statistics.varies():
            raise UserError(
                f"{weights_path}: {about['title']} gives the same features of all {statistics.count} {split} images, "
                "which tell nothing. Mend the extractor."
            )
        written |= {f"{split}_{name}": value for name, value in statistics.tensors().items()}
        counts[split] = statistics.count
    tensors.write(path, written, {"data": images.title, "extractor": about, "counts": counts})

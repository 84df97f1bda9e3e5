"""ImageNet (ILSVRC 2012), from a folder of the user's."""

from pathlib import Path

from diffusionblocks.data.images.folder import listing, same_classes
from diffusionblocks.data.images.source import LatentSet
from diffusionblocks.data.sizes import sizes

SIZES = (1_281_167, 50_000, 1_000)  # training and validation images, classes


@sizes(train_size=1_281_167, num_classes=1_000, bring="ImageNet's images, 144 GB, in imagenet/")
def imagenet(data_dir: str | Path, *, shards: int = 32, image_size: int = 256) -> LatentSet:
    """ImageNet as latents, from imagenet/{train,val}/<class>/*.JPEG in `data_dir`.

    shards: jobs that share the encoding of the training images.
    """
    root = Path(data_dir) / "imagenet"
    train, test = listing(root / "train"), listing(root / "val")
    same_classes(train, test)
    title, sizes = f"ImageNet {image_size}x{image_size}", (len(train.files), len(test.files), len(train.classes))
    if sizes != SIZES:
        title = f"{title}, a part: {sizes[0]:,} + {sizes[1]:,} images in {sizes[2]:,} classes"
    return {
        "title": title,
        "folder": "imagenet",
        "train": train,
        "test": test,
        "shards": shards,
        "image_size": image_size,
    }

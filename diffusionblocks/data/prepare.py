"""A data set, read once and written in the form that training and evaluation map into memory."""

import numpy as np

from diffusionblocks import tensors
from diffusionblocks.data import sources


def prepare(section, data_dir, path):
    """Write the data set of a run's `data` section to `path` (safetensors; what it is stands in the header)."""
    keywords = {key: value for key, value in section.items() if key != "name"}
    arrays = getattr(sources, section["name"])(data_dir, **keywords)
    title = arrays.pop("title")
    train = arrays["train_images"]
    channels = train.transpose(1, 0, 2, 3).reshape(train.shape[1], -1) / np.float32(255)
    about = {
        "title": title,
        "shape": {
            "image_size": train.shape[-1],
            "channels": train.shape[1],
            "num_classes": int(arrays["train_labels"].max()) + 1,
        },
        "mean": channels.mean(1, dtype=np.float64).round(4).tolist(),
        "std": channels.std(1, dtype=np.float64).round(4).tolist(),
        "train_size": len(train),
        "test_size": len(arrays["test_images"]),
    }
    tensors.write(path, arrays, about, framework="np")

"""The generated images of a run: their features, what they cost, and the ones that are shown."""

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation.inputs import FEATURES
from diffusionblocks.sampling.sets import AGAIN, Sets, set_key
from diffusionblocks.scorers.extractor import extract, load_extractor

SHOWN = 20  # images that go into metrics.json, for the page
SHOWN_SIZE = 128  # larger ones are shown smaller


class Generated:
    """All sets of a run's images; features and references are read when a metric asks for them.

    feature_paths: the weights and the reference statistics of every extractor, in any order.
    """

    def __init__(self, run: dict, paths: Sequence[Path], feature_paths: Sequence[Path], device: torch.device):
        self.sets = Sets(run, paths)
        self._device, self._feature_paths, self._found, self._loaded = device, feature_paths, {}, {}

    def inputs(self, sampling: dict, extractor: dict | None, needed: Sequence[str]) -> tuple[dict, dict]:
        """({name: value} of what a metric that needs these is computed from, what to know of its number)."""
        first, _ = self.sets.shards(sampling)[0]
        found = {"evaluations": first["evaluations"]}
        about = {"samples": sampling["num_samples"], "sets": sampling["sets"], "idle_blocks": first["idle_blocks"]}
        if set(FEATURES).intersection(needed):
            if extractor is None:
                raise UserError("a metric compares features: name an `extractor` in evaluation.json")
            key = json.dumps(extractor, sort_keys=True)
            if key not in self._loaded:
                self._loaded[key] = self._load(extractor)
            network, title, found["references"] = self._loaded[key]
            if (asked := (set_key(sampling), key)) not in self._found:
                self._found[asked] = self._features(network, sampling)
            found["features"], about["extractor"] = self._found[asked], title
        return found, about

    def _features(self, network, sampling):
        """Features (N, D) of each set."""
        shards = (tensors.read(path, AGAIN)[0]["images"] for _, path in self.sets.shards(sampling))
        found = torch.cat([extract(network, images, self._device).cpu() for images in shards])
        return [part.numpy() for part in found.split(sampling["num_samples"])]

    def _load(self, extractor):
        """(network, title, the real images' statistics by split), of files that are told by what they say."""
        abouts = {path: tensors.about(path, AGAIN) for path in self._feature_paths}
        weights = [path for path, about in abouts.items() if about.get("section") == extractor]
        references = [path for path, about in abouts.items() if about.get("extractor", {}).get("section") == extractor]
        if len(weights) != 1 or len(references) != 1:
            raise UserError(
                f"a metric compares features by {extractor}: hand over this extractor's weights and one reference "
                "(--scorers)"
            )
        network, known = load_extractor(weights[0], self._device)
        found, about = tensors.read(references[0], AGAIN)
        if about["extractor"] != known:
            raise UserError(f"{references[0]}: is of another extractor than {weights[0]}. {AGAIN}")
        splits = {}
        for name, value in found.items():
            split, _, key = name.partition("_")
            splits.setdefault(split, {})[key] = value.numpy()
        return network, known["title"], splits

    def shown(self) -> dict | None:
        """The first set's first images, and its first image's way from noise, for the page."""
        if (shards := self.sets.first()) is None:
            return None
        about, path = shards[0]
        found, _ = tensors.read(path, AGAIN)
        images = {"images": found["images"][:SHOWN], "trajectory": found["trajectory"]}
        return {"steps": about["trajectory"], **{name: _packed(value) for name, value in images.items()}}


def _packed(images):
    """uint8 images (N, C, H, W) as text that JSON can hold."""
    step = max(1, images.shape[-1] // SHOWN_SIZE)
    images = images[:, :, ::step, ::step].contiguous().numpy()
    return {"shape": images.shape, "zlib": base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()}

"""The generated images of a run: their features, what they cost, and the ones that are shown."""

import base64
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.sampling.sets import AGAIN, Sets, set_key
from diffusionblocks.scorers.extractor import extract, load_extractor

SHOWN = 20  # images that go into metrics.json, for the page
SHOWN_SIZE = 128  # larger ones are shown smaller


class Generated:
    """All sets of a run's images; features and references are read when a metric asks for them.

    feature_paths: the extractor's weights and the reference statistics, in any order.
    """

    def __init__(self, run: dict, paths: Sequence[Path], feature_paths: Sequence[Path], device: torch.device):
        self.sets = Sets(run, paths)
        self._device, self._feature_paths, self._found = device, feature_paths, {}

    def inputs(self, sampling: dict, needed: Sequence[str]) -> tuple[dict, dict]:
        """({name: value} of what a metric that needs these is computed from, what to know of its number)."""
        first, _ = self.sets.shards(sampling)[0]
        found = {"evaluations": first["evaluations"]}
        about = {"samples": sampling["num_samples"], "sets": sampling["sets"], "idle_blocks": first["idle_blocks"]}
        if {"features", "references"}.intersection(needed):
            found["features"], found["references"] = self._features(sampling), self._references
            about["extractor"] = self._extractor[1]["title"]
        return found, about

    @cached_property
    def _feature_files(self):
        """(the extractor's weights, the reference), told by what they say of themselves."""
        abouts = {path: tensors.about(path, AGAIN) for path in self._feature_paths}
        weights = [path for path, about in abouts.items() if "section" in about]
        references = [path for path, about in abouts.items() if "extractor" in about]
        if len(weights) != 1 or len(references) != 1:
            raise UserError(
                "a metric compares features: hand over one extractor's weights and one reference (--scorers)"
            )
        return weights[0], references[0]

    @cached_property
    def _extractor(self):
        return load_extractor(self._feature_files[0], self._device)

    def _features(self, sampling):
        """Features (N, D) of each set."""
        name = set_key(sampling)
        if name not in self._found:
            shards = (tensors.read(path, AGAIN)[0]["images"] for _, path in self.sets.shards(sampling))
            found = torch.cat([extract(self._extractor[0], images, self._device).cpu() for images in shards])
            self._found[name] = [part.numpy() for part in found.split(sampling["num_samples"])]
        return self._found[name]

    @cached_property
    def _references(self):
        found, about = tensors.read(self._feature_files[1], AGAIN)
        if about["extractor"] != self._extractor[1]:
            weights, reference = self._feature_files
            raise UserError(f"{reference}: is of another extractor than {weights}. {AGAIN}")
        splits = {}
        for name, value in found.items():
            split, _, key = name.partition("_")
            splits.setdefault(split, {})[key] = value.numpy()
        return splits

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

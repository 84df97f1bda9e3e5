"""Feature extractors by name: what FID sees of an image. A file for each; its function returns an Extractor.

FIDs of two extractors cannot be compared, so the title reaches every number. Weights are obtained once, by a rule.
"""

from diffusionblocks.scorers.extractors.base import Extractor, Trained

__all__ = ["Extractor", "Trained"]

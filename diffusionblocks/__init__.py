"""Reproduction of DiffusionBlocks (arXiv 2506.14202): block-wise training of residual networks as denoisers."""

__version__ = "0.1.0"

"""Architectures, one file each, all with the contract of docs/extending.md."""

"""The autoencoder of latents, fetched before the jobs that encode, which may run where there is no internet."""

from pathlib import Path

from diffusionblocks.base.files import write_json
from diffusionblocks.data.images.latents import autoencoder_class, autoencoder_files


def autoencoder(data_dir: str | Path, path: str | Path) -> None:
    """Fetch the autoencoder into `data_dir` and write which it is. Raises UserError without diffusers or the files."""
    autoencoder_class()  # a package that is missing is missed here, and not by every job
    write_json(path, autoencoder_files(data_dir)[1])

"""What this workflow asks of SLURM beyond submitting jobs. Standard library only."""

from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.base.files import UserError
from diffusionblocks.plan.configuration import read_yaml


def keep_scale(config: dict, arguments: Sequence[str]) -> None:
    """Raise UserError where the scale that a profile is for was lost, or is at odds with a file of the user's.

    A profile says its scale twice, by a file and by --config, since Snakemake takes a `--configfile` or a `--config` of
    the command line in place of the profile's. With both on the command line the scale has to be said there.
    """
    profile, files, said = _given(arguments, "--profile"), _given(arguments, "--configfile", "--configfiles"), None
    for folder in profile[:1]:
        for path in Path(folder).glob("*.yaml"):
            if path.name != "profile.v9+.yaml":
                said = read_yaml(path)[0].get("scale", said)
    if said is None or any(item.startswith("scale=") for item in _given(arguments, "--config", "-C")):
        return
    wanted = [scale for path in files if Path(path).is_file() and (scale := read_yaml(path)[0].get("scale"))]
    scale = wanted[-1] if wanted else said
    if config.get("scale") != scale:
        asked = f"{files[-1]} asks for {scale}" if wanted else "the command line has its own --config"
        raise UserError(
            f"the profile {profile[0]} is for scale {said}, {asked}, and {config.get('scale')} would be planned: say "
            f"which you mean, --config scale={scale}"
        )


def _given(arguments, *options):
    """What the command line gives an option, up to the next option."""
    found, taking = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            taking = name in options
            if taking and equals:
                found.append(value)
        elif taking:
            found.append(argument)
    return found

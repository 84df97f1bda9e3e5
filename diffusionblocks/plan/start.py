"""What is refused before anything is planned or submitted: the place, the command line, a missing cluster.

Standard library only.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from diffusionblocks.base import slurm
from diffusionblocks.base.files import UserError
from diffusionblocks.plan.configuration import ROOT, read_yaml


def refuse_without_slurm(executor: str) -> None:
    """Raise UserError where jobs should go to SLURM and this machine cannot submit any: each would be tried in vain."""
    if executor == "slurm" and (reason := _unreachable()):
        raise UserError(
            f"jobs are to be submitted to SLURM, and {reason}. Start on a login node of the cluster, or without "
            "--profile slurm: snakemake all --config scale=paper"
        )


def _unreachable():
    """Why no job can be submitted from here, or None; a controller that is away for a while is waited for."""
    if not shutil.which("sbatch"):
        return "there is no sbatch on this machine"
    _, failed = slurm.ask("squeue", "-h", "-u", str(os.getuid()))
    away = re.search("unable to contact slurm controller|connection refused|connect failure", failed, re.IGNORECASE)
    return f"no cluster answers ({failed.splitlines()[-1]})" if failed and not away else None


def keep_keys(files: Sequence[str | Path]) -> None:
    """Raise UserError for a key that stands twice in a configuration file: Snakemake drops the first without a word."""
    for path in files:
        if str(path).endswith((".yaml", ".yml")):
            read_yaml(path)


def right_place(basedir: str | Path, folder: str | Path) -> None:
    """Raise UserError unless the workflow in `basedir` runs there, on the package beside it."""
    basedir, folder = Path(basedir).resolve(), Path(folder).resolve()
    if basedir != ROOT.resolve():
        raise UserError(
            f"{basedir}: its jobs would run on two versions of the package, since .venv has that of {ROOT} (the folder "
            "was moved or copied). Make .venv anew: rm -rf .venv && make .venv/installed"
        )
    if folder != basedir:
        raise UserError(
            f"{folder}: this workflow runs in its own folder alone. Start it there, without --directory: cd "
            f"{shlex.quote(str(basedir))}. Results belong elsewhere? Make `results` a link."
        )


# Options of Snakemake that take the place of all that a profile's key holds.
REPLACED = {
    "set-resources": ("--set-resources",),
    "default-resources": ("--default-resources", "--default-res"),
    "resources": ("--resources", "--res"),
    "set-threads": ("--set-threads",),
}


def keep_profile(arguments: Sequence[str]) -> None:
    """Raise UserError where settings of a profile would be lost without a word.

    An option of the command line takes the place of a profile's whole key: `--set-resources train:runtime=9` alone
    would drop the partition and the GPU of every rule. Of what two profiles say, that of our `default` one holds.
    """
    if "--mode" in arguments:  # a job that Snakemake has started, which knows no profile
        return
    chosen = _chosen(arguments)
    own = (_given(arguments, "--workflow-profile") or [ROOT / "profiles/default"])[-1]
    theirs, (default, ours) = [_profile(name) for name in chosen], _profile(own)
    for path, profile in [*theirs, (default, ours)]:
        for key in profile.keys() & REPLACED.keys():
            option, given = REPLACED[key][0], _given(arguments, *REPLACED[key])
            kept = {item.partition("=")[0] for item in given}
            lost = [item for item in _items(profile[key]) if item.partition("=")[0] not in kept]
            if lost and _stands(arguments, REPLACED[key]):
                raise UserError(
                    f"{path}: {option} takes the place of all of `{key}` there. Change the file instead, or type what "
                    f"would be lost, too: {option} {shlex.join([*given, *lost])}"
                )
    for path, profile in theirs:
        for key in profile.keys() & ours.keys():
            if profile[key] != ours[key] and not _stands(arguments, [f"--{key}"], "-c" if key == "cores" else None):
                raise UserError(
                    f"{path}: `{key}: {profile[key]}` would be lost to {default}, which wins over every profile. Say "
                    f"it on the command line (--{key} {profile[key]}), or start with --workflow-profile none"
                )


def _chosen(arguments):
    """The profiles that a user has named."""
    return _given(arguments, "--profile") or os.environ.get("SNAKEMAKE_PROFILE", "").split()


def _profile(name):
    """(file, content) of a profile by what Snakemake is told: a file, or a folder, here or in the user's own."""
    home = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser() / "snakemake"
    place = next((place for place in (Path(name), home / name) if place.exists()), None)
    files = [place] if place and place.is_file() else sorted(place.glob("[cp]*.yaml")) if place else []
    files = [file for file in files if file == place or re.fullmatch(r"(config|profile)(\.v\d+\+)?\.yaml", file.name)]
    return (files[-1], read_yaml(files[-1])[0]) if files else (Path(name), {})  # of an unknown one Snakemake tells


def _items(value):
    """What a profile's key holds, as the command line says it: `mem_mb=8`, and of a rule `train:mem_mb=8`."""
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, dict):
        return [str(item) for item in value or ()]
    found = []
    for name, section in value.items():
        found += [f"{name}:{item}" for item in _items(section)] if isinstance(section, dict) else [f"{name}={section}"]
    return found


def _stands(arguments, options, short=None):
    """Whether the command line has one of these options, or a short one, `-c 4` or `-c4`."""
    return any(item.partition("=")[0] in options or (short and item.startswith(short)) for item in arguments)


def keep_scale(config: dict, arguments: Sequence[str]) -> None:
    """Raise UserError where the scale that a profile is for was lost, or is at odds with a file of the user's.

    A profile says its scale twice, by a file and by --config, since Snakemake takes a `--configfile` or a `--config` of
    the command line in place of the profile's. With both on the command line the scale has to be said there.
    """
    profile, files, said = _chosen(arguments), _given(arguments, "--configfile", "--configfiles"), None
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

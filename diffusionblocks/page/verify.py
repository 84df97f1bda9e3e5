"""A run's numbers against those that ship with the repository: within the spread, outside, missing, new. No torch."""

from pathlib import Path

from diffusionblocks.base.files import UserError, exists
from diffusionblocks.page.compare import Side, compare, moved, told
from diffusionblocks.page.headline import ABOUT


class Differs(UserError):
    """Numbers that are outside or missing."""

    exit_code = 1


def verify(results: Path, folder: Path) -> None:
    """Compare a run, finished or not, with a shipped folder, and print what was found.

    Raises `Differs` where numbers are outside or missing, and UserError for a run of another scale and for files that
    are absent or damaged.
    """
    if not exists(folder / ABOUT):
        raise UserError(f"{folder}: has no {ABOUT}, so it is none of a shipped run. Name a folder that `ship` wrote.")
    here, there = Side.of(results), Side.of(folder)
    if here.scale != there.scale:
        raise UserError(
            f"{results}: is of scale {here.scale}, and {folder} ships scale {there.scale}. Name one of that scale."
        )
    found = compare(here, there)
    outside = found.of("outside")
    print("\n".join([*([moved(outside, "shipped"), ""] if len(outside) else []), *told(found, results, folder)]))
    if len(outside) or found.count("missing"):
        raise Differs(f"{results}: outside the spread: {len(outside)}, missing: {found.count('missing')}")

"""Controls: nets of one block's size, trained end to end, that claims against a deep net are held against. No torch.

A table may name a row `deep`, trained end to end, and a row `shallow`, trained end to end too, with the layers of one
block: it fits where a block does, and needs no method. To claim that blocks are as good as end to end is to claim that
they make use of all layers, so a claim against `deep` is held against `shallow` as well:

- blocks behind `shallow`: did not hold, even within the margin: a block's layers, trained as usual, do better;
- the margin kept, and ahead of `shallow`: held. Nothing less is evidence, and this is, even where end to end itself
  makes nothing of its depth;
- the margin kept, but not ahead of `shallow`: cannot tell. Either depth is not shown to be worth anything at this
  scale, so that any net of one block's size may keep the margin, or the margin is wider than what depth is worth;
- the margin missed: did not hold. No control excuses it: where depth is worth nothing, end to end is the easier to
  reach;
- no answer against `deep`: it stays so, and `because` says where depth is not shown to be worth anything.
"""

from collections.abc import Sequence

import pandas as pd

from diffusionblocks.page.gap import Gap, direction, gap_of, measured_in, text_of


def shallow_of(claim: dict, controls: Sequence[dict]) -> str | None:
    """The control that has a say in a claim, since that compares a row with the deep one of the control; None: none."""
    if claim.get("margin") is None:
        return None
    of_it = (one["shallow"] for one in controls if claim["against"] == one["deep"] and claim["row"] != one["shallow"])
    return next(of_it, None)


def worth_of_depth(control: dict, claims: list[dict], frame: pd.DataFrame) -> list[dict]:
    """What `deep` has over `shallow`, in the metric of a control and in those of claims that it has a say in.

    claims: as `of_table` returns them.
    A dict each: metric, unit, better (the direction) and worth, one of "something", "not shown" (within the error),
    "less than nothing" (the deep row is behind), "unknown" (one seed) and "not measured"; if measured, the difference
    (deep minus shallow, in the metric's unit), its error, seeds, and whether they are paired.
    """
    found = []
    for metric in dict.fromkeys([control["metric"], *(c["metric"] for c in claims if shallow_of(c, [control]))]):
        cells = measured_in(metric, frame)
        if not {control["deep"], control["shallow"]} <= set(cells.index):
            found.append({"metric": metric, "unit": None, "better": None, "worth": "not measured"})
            continue
        deep, shallow = (cells.loc[control[key]] for key in ("deep", "shallow"))
        gap, known = gap_of(deep, shallow), {1: "something", 0: "not shown", -1: "less than nothing"}
        about = {"metric": metric, "unit": text_of(deep["unit"]), "better": text_of(deep["better"])}
        measured = {"difference": direction(deep) * gap.mean, "error": gap.half}
        measured |= {"seeds": gap.seeds, "paired": gap.paired}
        found.append({**about, "worth": "unknown" if gap.half is None else known[gap.side()], **measured})
    return found


def controlled(word: str, control: Gap, worth: Gap, shallow: str) -> tuple[str, str | None]:
    """(verdict, what the control says in words or None) of a claim against the deep row; see the head of this file."""
    if control.side() < 0:
        return "did not hold", f"worse than the control ({shallow})"
    if word == "did not hold" or (word == "held" and control.side() > 0):
        return word, None
    if worth.side() < 0:
        return "cannot tell", "depth is worth less than nothing at this scale"
    if worth.half is not None and worth.side() == 0:
        return "cannot tell", "depth is not shown to be worth anything here, within the error"
    equal = f"no better than the control ({shallow}), within the error"
    return "cannot tell", equal if word == "held" else None

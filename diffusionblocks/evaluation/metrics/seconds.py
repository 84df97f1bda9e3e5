"""What an update takes of time, measured in turn with the row that it is compared with (Table A4).

timed, timed_compared: what evaluation/timing.py measures of an update of the row, and of the row that it is compared
with. Seconds are medians over updates, and of one machine; between machines only factors can be compared.
"""

from statistics import fmean
from typing import Literal

from diffusionblocks.evaluation.metric import metric


@metric(unit="s", better="lower")
def seconds_per_iteration(timed: dict, *, blocks: Literal["one", "all"] = "one") -> float:
    """Of an update of one block, the mean over blocks, or of an update of each block, one after the other: their sum.

    End to end there is one block, and they are the same.
    """
    return _seconds(timed, blocks)


@metric(unit="ms", better="lower", beside=True)
def milliseconds_per_sample(timed: dict) -> float:
    """To show a sample to every block once, forward and backward, in updates of whole batches."""
    return 1000 * _seconds(timed, "all") / timed["samples"]


@metric(unit="×", better="lower")
def time_factor(timed: dict, timed_compared: dict, *, blocks: Literal["one", "all"] = "all") -> float:
    """How many times what `timed_compared` takes for a sample one block takes, or all of them one after the other."""
    other = _seconds(timed_compared, "all") / timed_compared["samples"]
    return _seconds(timed, blocks) / timed["samples"] / other


def _seconds(timed, blocks):
    seconds = [block["seconds"] for block in timed["blocks"]]
    return sum(seconds) if blocks == "all" else fmean(seconds)

"""What an update, or an answer, takes of time, measured in turn with the row that it is compared with (Table A4).

timed, timed_compared: what evaluation/timing.py measures of an update of the row, and of the row that it is compared
with; timed_chain, timed_chain_compared: of the method's chain. Seconds are medians, and of one machine; between
machines only factors can be compared.
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


@metric(unit="ms", better="lower", beside=True)
def milliseconds_per_answer(timed_chain: dict) -> float:
    """Of the chain from noise to the answer, for a sample of a batch, without gradients."""
    return 1000 * _seconds(timed_chain, "all") / timed_chain["samples"]


@metric(unit="×", better="lower", beside=True)
def answer_time_factor(timed_chain: dict, timed_chain_compared: dict) -> float:
    """How many times what the chain of the row takes that it is compared with."""
    return milliseconds_per_answer(timed_chain) / milliseconds_per_answer(timed_chain_compared)


def _seconds(timed, blocks):
    seconds = [block["seconds"] for block in timed["blocks"]]
    return sum(seconds) if blocks == "all" else fmean(seconds)

"""In which settings two runs differ, or a run and its plan: `train.steps` is 200 here and 2000 there. No torch."""

import json
from collections.abc import Iterator

from diffusionblocks.evaluation.metric import FACTS

WHICH = ("scale", "table", "row", "seed")  # of run.json, what names a run and is no setting of it
NOT_SET = "not set"
UNSAID = ("extractor", "beside")  # of a metric's section, what its number does not say or what is no setting of it


def differences(here: dict, there: dict) -> dict[str, tuple[str, str]]:
    """{a setting's place, with dots: (what it is here, what it is there)}, as JSON; `not set` where it is absent."""
    sides = dict(_flat(here)), dict(_flat(there))
    pairs = {key: tuple(side.get(key, NOT_SET) for side in sides) for key in dict.fromkeys([*sides[0], *sides[1]])}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def of_numbers(metrics: dict) -> dict[str, dict]:
    """{column: settings that its number was computed with}, as far as metrics.json says them: of an extractor it holds
    the title, and of a curve nothing.
    """
    return {
        column: {key: value for key, value in number.items() if key not in FACTS or key == "sampling"}
        for column, number in metrics["metrics"].items()
    }


def not_as_planned(metrics: dict, run: dict, evaluation: dict) -> str | None:
    """In words, the first setting that was another when it was measured than is planned now; None if all are the same.

    metrics: what metrics.json holds; run, evaluation: what planning wrote for it.
    """
    measured, planned = of_numbers(metrics), {}
    for column, section in evaluation["metrics"].items():
        # Of a row that is counted, some columns could not be timed and have no number.
        if column in {*measured, *metrics["curves"]} or "parts" not in evaluation:
            planned[column] = {key: value for key, value in section.items() if key not in UNSAID}
    measured |= {column: planned.get(column, {}) for column in metrics["curves"]}
    found = differences({**metrics["run"], "metrics": measured}, {**run, "metrics": planned})
    return next((f"{key} is {was}, planned is {now}" for key, (was, now) in found.items()), None)


def _flat(value, place="") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flat(below, f"{place}.{key}" if place else key)
    else:
        yield place, json.dumps(value)

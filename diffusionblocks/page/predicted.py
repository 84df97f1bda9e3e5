"""What `estimate` has predicted of a table's trainings, beside what they took. No torch."""

from statistics import fmean
from typing import Any

from diffusionblocks.base import rates
from diffusionblocks.page.results import Results


def predicted(results: Results, estimate: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """{row: {tflop, measured, predicted, reached, hardware}} of the rows whose present settings were estimated.

    estimate: what `estimate` keeps, by run. tflop: of all updates of a seed; measured: seconds of its trainings, of all
    parts, mean over seeds; predicted: at rates.SHARE of the rate of what it ran on, all GPUs or threads together, and
    reached: the share that it was; both None where that rate is not known, or their number has changed on the way. Rows
    that are counted were not trained and have none.
    """
    found = {}
    for row, seeds in results.runs.items():
        entry = estimate.get(results.plan["rows"][row]["run"])
        run = {key: value for key, value in seeds[0]["run"].items() if key != "seed"}
        seconds = fmean(sum(part.get("seconds", 0) for part in seed["parts"].values()) for seed in seeds)
        if entry is None or entry["run"] != run or not seconds:
            continue
        attempts = [attempt for seed in seeds for part in seed["parts"].values() for attempt in part["attempts"]]
        hardware = sorted({attempt["hardware"] for attempt in attempts})
        devices = {rates.device_of(name) for name in hardware}
        numbers = {attempt.get("processes", 1) * rates.number_in(attempt["hardware"]) for attempt in attempts}
        expected = None
        if len(devices) == len(numbers) == 1 and None not in devices:
            precision = run["train"].get("precision", "fp32")
            expected = rates.seconds(entry["flop"], *devices, precision, rates.SHARE) / max(numbers)
        found[row] = {
            "tflop": entry["flop"] / 1e12,
            "measured": seconds,
            "predicted": expected,
            "reached": expected and 100 * rates.SHARE * expected / seconds,
            "hardware": "; ".join(hardware),
        }
    return found

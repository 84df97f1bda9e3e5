"""What a metric says of itself, and what evaluation hands it. Torch-free and light: planning reads the same source."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from diffusionblocks.base.components import load, locate
from diffusionblocks.base.files import UserError, suggest
from diffusionblocks.evaluation.inputs import source_of

CHOICES = {
    "better": ("higher", "lower", None),
    "figure": ("accuracy_chain", "loss_chain", "likelihood", None),
    "over_sets": ("mean", "least"),
}
COUNTED = ("samples", "references", "tokens")  # what `least` may name beside the metric's own keywords
# Of a number in metrics.json, what is no setting of its metric; and what else a column has beside its settings.
FACTS = (
    *("value", "samples", "sets", "idle_blocks", "extractor", "references", "blind", "timed"),
    *("unit", "better", "beside", "over_sets", "sampling"),
)
RESERVED = (*FACTS, "name", "teacher")
# Of a metric's section; the rest are the function's keywords.
NOT_KEYWORDS = ("name", "sampling", "teacher", "extractor", "beside")


def keywords(section: dict) -> dict:
    """What of a column's section goes to the metric's function."""
    return {name: value for name, value in section.items() if name not in NOT_KEYWORDS}


@dataclass(frozen=True)
class About:
    """What the table and the page need to know of a metric; see `metric`."""

    unit: str
    better: str | None
    beside: bool
    figure: str | None
    infinite: bool
    over_sets: str
    least: dict


def check_declaration(file: Path | str, name: str, about: dict | None, settings: Iterable[str]) -> None:
    """Refuse what `metric` cannot be told; planning hands over what it read in the source.

    about: keywords of the decorator, None for a function without it. settings: names of the function's keyword
    arguments. Raises UserError naming the file.
    """
    if about is None:
        raise UserError(f"{file}: {name} is no metric: put `@metric(unit=..., better=...)` above it")
    known = [field.name for field in fields(About)]
    for key, value in about.items():
        if key not in known:
            raise UserError(f"{file}: metric {name}: @metric takes no {key!r}{suggest(key, known)}")
        if value not in CHOICES.get(key, (value,)):
            raise UserError(f"{file}: metric {name}: {key} {value!r} is not one of {', '.join(map(str, CHOICES[key]))}")
    for key in about.get("least") or {}:
        if key not in (*COUNTED, *settings):
            raise UserError(f"{file}: metric {name}: least: {key} is none of {', '.join((*COUNTED, *settings))}")
    if taken := sorted(set(settings) & set(RESERVED)):
        raise UserError(
            f"{file}: metric {name}: rename its keyword {', '.join(taken)}, which says something else of every number"
        )


def metric(
    *,
    unit: str = "",
    better: Literal["higher", "lower"] | None = None,
    beside: bool = False,
    figure: Literal["accuracy_chain", "loss_chain", "likelihood"] | None = None,
    infinite: bool = False,
    over_sets: Literal["mean", "least"] = "mean",
    least: dict[str, float] | None = None,
) -> Callable:
    """Decorator of a function that is a metric. Write the values out: planning reads them in the source.

    better: the direction of an improvement; None for a description, such as seconds. beside: a number of ours that
    stands below the table and not in it (a column's section in the configuration may say otherwise). figure: which
    figure draws it, for a curve, which is a list with one value per step. infinite: whether inf is a value, the worst
    there is; any other that is not finite ends the evaluation. over_sets: what the number is of several generated sets,
    for the note beside it; the function gets all of them and does the reckoning. least: {what: how much of it there
    must be}, for planning to refuse what cannot be computed hours later: generated samples of a set, references (real
    texts, one for each prompt), tokens of a text, or the metric's own keywords.

    The function's positional arguments are names of evaluation/inputs.py, and what it is computed from; its keyword
    arguments are the settings of a column; metrics.json keeps them, so none is named as what it says of every number
    (RESERVED). Raises UserError for such a name, and for values that are none of these.
    """
    about = About(unit, better, beside, figure, infinite, over_sets, least or {})

    def declare(function):
        parameters = inspect.signature(function).parameters.values()
        settings = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        check_declaration(inspect.getfile(function), function.__name__, asdict(about), settings)
        function.about = about
        return function

    return declare


@dataclass(frozen=True)
class Metric:
    """A metric as the configuration names it: its function, what it is computed from, and its source for messages."""

    name: str
    function: Callable
    about: About
    inputs: list[str]
    source: str
    file: Path

    def __call__(self, found: dict, keywords: dict, steps: int | None) -> float | list[float]:
        """The value from {input: value}; steps: how many a curve has. Raises UserError, naming the file, if wrong.

        A number is finite (see `infinite`), a curve is a list of such numbers with one per step.
        """
        value = self.function(*(found[name] for name in self.inputs), **keywords)
        if self.about.figure is None:
            wrong = self._wrong(value)
        elif not isinstance(value, list) or len(value) != steps:
            shape = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r}"
            wrong = f"{shape}, and a curve is a list with a number for each of the {steps} steps"
        else:
            wrong = next(filter(None, map(self._wrong, value)), None)
        if wrong:
            raise UserError(f"{self.file}: metric {self.name} returned {wrong}")
        return value

    def number(self, section: dict, value: float, about: dict) -> dict:
        """What metrics.json holds of a column with this section. about: what the value was computed from."""
        return {
            **section,
            "unit": self.about.unit,
            "better": self.about.better,
            "beside": section.get("beside", self.about.beside),
            "over_sets": self.about.over_sets,
            "value": value,
            **about,
        }

    def _wrong(self, value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r:.80} ({type(value).__name__}), and should return a plain number"
        if not math.isfinite(value) and not (self.about.infinite and value == math.inf):
            return f"{value}: look at what it is computed from ({', '.join(self.inputs)})"
        return None


def load_metric(name: str, kind: str) -> Metric:
    """The metric of a name, for data of a kind. Raises UserError for one that is not declared, or for other data."""
    function, file = load("metric", name), locate("metric", name).file
    if not isinstance(about := getattr(function, "about", None), About):
        check_declaration(file, name, None, ())
    parameters = inspect.signature(function).parameters.values()
    inputs = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    try:
        return Metric(name, function, about, inputs, source_of(inputs, kind), file)
    except ValueError as error:
        raise UserError(f"{file}: metric {name}: {error}") from None

"""What a search may choose, and the pipeline that a choice stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..ir.p_error import DEFAULT_P_ERROR
from ..passes.distill.distill import Distill
from ..passes.framework.presets import PRESETS, TO_TABLES
from ..passes.quantize.quantize import Quantize
from ..passes.round.insert_rounding.insert_rounding import InsertRounding
from ..passes.tables.set_p_error import SetPError

Parameters = dict[str, Any]
"""By name: small whole numbers, and words."""

P_ERRORS = (DEFAULT_P_ERROR, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 4e-2)
"""Tolerated errors of one lookup that the search chooses from."""
ASSUMED_P_ERROR = 1e-3
"""The error that students are trained for and tables are averaged over, whatever is tolerated in the end: so
that one student serves all errors."""
MAX_OUTPUT_NORM = 15.0
"""Largest norm of weights in front of outputs: up to it more bits of weights cost nothing."""
TRAINING_STEPS = (0, 1000, 4000)
"""Batches that ``distill`` trains on: not at all, to see what a choice is worth, and in earnest."""
CALIBRATIONS = ("mse", "percentile", "min-max")
"""Ways to fit quantizers that the search chooses from (``quantize{calibration=...}``)."""
MAX_NEURON_SIXTEENTHS = 15
"""Most neurons that are removed, of sixteen."""
MAX_WEIGHT_FIFTHS = 3
"""Most weights that are removed, of five."""
WIDTHS_OF = {"weights": (2, 6), "inputs": (2, 8), "activations": (2, 8), "rounding": (2, 6)}
"""Fewest and most bits that the search chooses from, by what has them."""
MAX_OWN_LAYERS = 8
"""Layers that get widths of their own: the first so many."""


class Trial(Protocol):
    """What the search uses of a trial of Optuna."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any:
        """One of them."""


@dataclass(frozen=True)
class Layers:
    """Names that options of single layers may use, where so many layers have been removed.

    Attributes:
        linear: Layers with weights.
        tables: Those with a table behind them.
    """

    linear: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """What may be chosen for one model.

    Attributes:
        layers: By number of layers removed: what is left.
        quantized: The model came quantized: its widths and layers stay.
        trains: Whether ``distill`` can run.
        p_errors: Tolerated errors of a lookup.
        assumed: The one that passes are told; ``set-p-error`` says where another is tolerated.
    """

    layers: tuple[Layers, ...]
    quantized: bool = False
    trains: bool = True
    p_errors: tuple[float, ...] = P_ERRORS
    assumed: float = ASSUMED_P_ERROR

    def suggest(self, trial: Trial) -> Parameters:
        """Choose with Optuna."""
        found: Parameters = {}
        for name, high in self._counts().items():
            found[name] = trial.suggest_int(name, 0, high)
        for name, (low, high) in self._widths().items():
            found[name] = trial.suggest_int(name, low, high)
        if not self.quantized:
            found["calibration"] = trial.suggest_categorical("calibration", CALIBRATIONS)
        found["mixed"] = trial.suggest_int("mixed", 0, 1)
        if found["mixed"]:
            for name in self._of_layers(found):
                found[name] = trial.suggest_int(name, -1, 1)
        return found

    def complete(self, given: Mapping[str, Any]) -> Parameters:
        """A whole choice: ``given``, within bounds, and the plain recipe for all that it leaves open."""
        bounds = {**{n: (0, h) for n, h in self._counts().items()}, **self._widths(), "mixed": (0, 1)}
        found: Parameters = {}
        for name, (low, high) in bounds.items():
            found[name] = min(max(int(given.get(name, self._plain(name))), low), high)
        if not self.quantized:
            found["calibration"] = given.get("calibration", CALIBRATIONS[0])
        for name in self._of_layers(found) if found["mixed"] else ():
            found[name] = min(max(int(given.get(name, 0)), -1), 1)
        return found

    def pipeline(self, chosen: Mapping[str, Any]) -> str:
        """The pipeline text of a choice."""
        passes = ["normalize"]
        if self.quantized:
            passes.append("import-qat")
        else:
            if chosen["layers"]:
                passes.append(f"remove-layers{{count={chosen['layers']}}}")
            share = chosen["neurons"] / 16
            passes.append(f"remove-neurons{{ratio={share:g} balance=uniform}}" if share else "remove-neurons")
            if chosen["sparsity"]:
                passes.append(f"prune{{sparsity={chosen['sparsity'] / 5:g} method=obs}}")
            passes.append(self._quantize(chosen))
        if steps := TRAINING_STEPS[chosen.get("distill", 0)]:
            passes.append(self._distill(chosen, steps))
        passes += [TO_TABLES, self._round(chosen), "remove-constant-tables", "analyze-bit-widths"]
        if (p_error := self.p_error(chosen)) != self.assumed:
            passes.append(SetPError(p_error=p_error).to_text())
        return ",".join(passes)

    def p_error(self, chosen: Mapping[str, Any]) -> float:
        """The tolerated error of a lookup of a choice."""
        index: int = chosen["error"]
        return self.p_errors[index]

    def readable(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """A choice in the units that users know."""
        found = {**chosen, "p_error": self.p_error(chosen)}
        del found["error"]
        for name, parts in (("neurons", 16), ("sparsity", 5)):
            if name in found:
                found[name] = found[name] / parts
        if "distill" in found:
            found["distill"] = TRAINING_STEPS[found["distill"]]
        return found

    def _plain(self, name: str) -> int:
        if name == "error":
            return self.p_errors.index(self.assumed) if self.assumed in self.p_errors else 0
        return int(_PLAIN.get(name, 0))

    def _counts(self) -> dict[str, int]:
        found = {"error": len(self.p_errors) - 1}
        if not self.quantized:
            found |= {
                "layers": len(self.layers) - 1,
                "neurons": MAX_NEURON_SIXTEENTHS,
                "sparsity": MAX_WEIGHT_FIFTHS,
            }
        if self.trains:
            found["distill"] = len(TRAINING_STEPS) - 1
        return found

    def _widths(self) -> dict[str, tuple[int, int]]:
        return {n: b for n, b in WIDTHS_OF.items() if n == "rounding" or not self.quantized}

    def _of_layers(self, chosen: Mapping[str, Any]) -> Iterator[str]:
        """Choices for single layers: how many bits more or less than the general one."""
        names = self.layers[chosen.get("layers", 0)]
        if not self.quantized:
            yield from (f"weights@{n}" for n in names.linear[:MAX_OWN_LAYERS])
        yield from (f"rounding@{n}" for n in names.tables[:MAX_OWN_LAYERS])

    def _quantize(self, chosen: Mapping[str, Any]) -> str:
        widths = {n: chosen[n] for n in ("weights", "activations", "inputs")}
        own = {n: {"weights": w} for n, w in _own(chosen, "weights", 1, 8)}
        return Quantize(
            calibration=chosen["calibration"], max_weight_norm=MAX_OUTPUT_NORM, layers=own, **widths
        ).to_text()

    def _distill(self, chosen: Mapping[str, Any], steps: int) -> str:
        own = {n: {"rounding": w} for n, w in _own(chosen, "rounding", 2, 8)}
        return Distill(rounding=chosen["rounding"], steps=steps, layers=own).to_text()

    def _round(self, chosen: Mapping[str, Any]) -> str:
        own = dict(_own(chosen, "rounding", 2, 8))
        return InsertRounding(bits=chosen["rounding"], layers=own).to_text()


_PLAIN: Parameters = {"weights": 6, "inputs": 8, "activations": 8, "rounding": 4}
"""Good to any network, and made in seconds. Weights up to ``MAX_OUTPUT_NORM``, inputs and activations cost
nothing."""
_STUDENT: Parameters = {"weights": 4, "activations": 6}
"""Bits of a network that is trained."""
TRAINED_CHOICE = 2
"""Place in ``TRAINING_STEPS`` of training in earnest."""


def _own(chosen: Mapping[str, Any], kind: str, low: int, high: int) -> Iterator[tuple[str, int]]:
    for name, change in chosen.items():
        if name.startswith(f"{kind}@") and change:
            yield name.partition("@")[2], min(max(chosen[kind] + change, low), high)


def presets(space: Space) -> list[tuple[Parameters, str]]:
    """The pipelines that have names, each with the choice that is nearest to it.

    They search widths themselves, which takes its time.
    """
    return [(space.complete(near), PRESETS[name].text) for name, near in _PRESETS.items()]


_PRESETS: dict[str, Parameters] = {
    "balanced": {"neurons": 0},
    "fast": {"neurons": 8},
    "accurate": {"rounding": 6},
}
"""The choice that is nearest to each preset."""


def untrained(space: Space, chosen: Mapping[str, Any]) -> Parameters:
    """The same size without training: it costs about the same, and is made in seconds."""
    wide = {n: _PLAIN[n] for n in _STUDENT}
    return space.complete({**chosen, **wide, "distill": 0})


def student(space: Space, steps: int, **size: int) -> Parameters:
    """A trained network: of fewer bits, for steps of training are as large as those of its weights.

    Args:
        space: What may be chosen.
        steps: Which of ``TRAINING_STEPS``, by number.
        size: What else is chosen.
    """
    return space.complete({**(_STUDENT if steps else {}), **size, "distill": steps})


def cheaper(space: Space, given: Mapping[str, Any]) -> Iterator[Parameters]:
    """One step from a choice to one that costs less, the most promising first."""
    yield from _steps(
        space,
        given,
        ("layers", 1),
        ("error", 1),
        ("neurons", 2),
        ("error", -1),
        ("error", 2),
        ("neurons", 1),
        ("rounding", -1),
        ("neurons", 4),
        ("sparsity", 1),
        ("weights", -1),
    )
    yield from _of_one_layer(space, given, -1)


def exacter(space: Space, given: Mapping[str, Any]) -> Iterator[Parameters]:
    """One step from a choice to one that loses less accuracy, the most promising first."""
    yield from _steps(
        space,
        given,
        ("distill", 1),
        ("weights", 1),
        ("inputs", 1),
        ("activations", 1),
        ("error", -1),
        ("neurons", -1),
        ("rounding", 1),
        ("sparsity", -1),
        ("layers", -1),
    )
    for calibration in CALIBRATIONS if not space.quantized else ():
        if calibration != given.get("calibration"):
            yield space.complete({**given, "calibration": calibration})
    yield from _of_one_layer(space, given, 1)


def alike(space: Space, given: Mapping[str, Any]) -> Iterator[Parameters]:
    """Choices that cost what one costs, and train other numbers: they show what is owed to chance."""
    steps = (("activations", 1), ("inputs", -1), ("weights", 1), ("inputs", -2), ("weights", -1))
    yield from _steps(space, given, *steps)


def _steps(space: Space, given: Mapping[str, Any], *steps: tuple[str, int]) -> Iterator[Parameters]:
    for name, change in steps:
        if name in given:
            found = space.complete({**given, name: given[name] + change})
            if found != given:
                yield found


def _of_one_layer(space: Space, given: Mapping[str, Any], change: int) -> Iterator[Parameters]:
    mixed = space.complete({**given, "mixed": 1})
    for name in [n for n in mixed if "@" in n]:
        yield space.complete({**mixed, name: mixed[name] + change})

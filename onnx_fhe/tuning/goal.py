"""What is wanted: limits on accuracy and cost, and which of two points is the better one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from ..ir.errors import UserError

DEFAULT_ACCURACY_DROP = 0.01
"""Accuracy that may be lost where nothing else is asked for."""


@dataclass(frozen=True)
class Goal:
    """The constraints of a search; None where there is none.

    Attributes:
        max_accuracy_drop: How much worse than the float model on the same samples the metric may be, in the
            metric's own unit (0.01 is one point of accuracy).
        min_accuracy: The metric must be at least this (at most, where lower is better).
        max_latency: Seconds for one sample.
        min_throughput: Samples a second.
        max_key_size: Bytes of evaluation keys.
    """

    max_accuracy_drop: float | None = None
    min_accuracy: float | None = None
    max_latency: float | None = None
    min_throughput: float | None = None
    max_key_size: float | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                continue
            free = one.name == "min_accuracy"
            low = 0.0 if one.name != "max_accuracy_drop" else -1e-12
            if not math.isfinite(value) or (not free and value <= low):
                raise UserError(
                    f"{option_of(one.name)} does not make sense",
                    found=f"{value:g}",
                    allowed="a number" if free else "0 or more" if low < 0 else "more than 0",
                )

    @property
    def names_accuracy(self) -> bool:
        """Whether accuracy is limited: then the fastest point that holds the limit is the best one."""
        return self.max_accuracy_drop is not None or self.min_accuracy is not None

    @property
    def is_empty(self) -> bool:
        """Whether there is no constraint at all."""
        return all(getattr(self, one.name) is None for one in fields(self))

    def violations(
        self,
        score: float,
        seconds: float,
        samples_per_second: float,
        key_bytes: float,
        float_score: float,
        higher_is_better: bool,
    ) -> dict[str, float]:
        """By constraint that is set: how far it is missed, as a share of what it allows; 0 or less is held.

        Args:
            score: The metric.
            seconds: Latency of one sample.
            samples_per_second: Throughput.
            key_bytes: Size of the evaluation keys.
            float_score: The metric of the float model on the same samples.
            higher_is_better: Whether a higher score is the better one.
        """
        sign = 1.0 if higher_is_better else -1.0
        scale = max(abs(float_score), 1e-9)
        found = {}
        # What is counted in samples carries float dust: 0.95 - 0.01 is a hair above 0.94.
        if self.max_accuracy_drop is not None:
            drop = sign * (float_score - score)
            found["max_accuracy_drop"] = (drop - self.max_accuracy_drop - 1e-9) / scale
        if self.min_accuracy is not None:
            found["min_accuracy"] = (sign * (self.min_accuracy - score) - 1e-9) / scale
        if self.max_latency is not None:
            found["max_latency"] = seconds / self.max_latency - 1
        if self.min_throughput is not None:
            found["min_throughput"] = 1 - samples_per_second / self.min_throughput
        if self.max_key_size is not None:
            found["max_key_size"] = key_bytes / self.max_key_size - 1
        return found


def option_of(name: str) -> str:
    """The command-line option of a constraint."""
    return "--" + name.replace("_", "-")


def check_possible(goal: Goal, float_score: float, bounded: bool) -> None:
    """Refuse an accuracy that no point can have.

    Args:
        goal: The constraints.
        float_score: The metric of the float model.
        bounded: Whether the metric lies between 0 and 1.

    Raises:
        UserError: The accuracy asked for is impossible.
    """
    if not bounded:
        return
    for name, value in (("min_accuracy", goal.min_accuracy), ("max_accuracy_drop", goal.max_accuracy_drop)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(
                f"{option_of(name)} does not make sense",
                found=f"{value:g}",
                allowed="a share from 0 to 1 (0.95 is 95 %)",
                do=f"the float model has {float_score:.4g} on these samples",
            )


def better(goal: Goal, higher_is_better: bool) -> Callable[[float, float], tuple[float, float]]:
    """A sort key of (score, seconds), the best first.

    Where accuracy is limited that is the fastest, else the most accurate.
    """
    sign = -1.0 if higher_is_better else 1.0
    if goal.names_accuracy:
        return lambda score, seconds: (seconds, sign * score)
    return lambda score, seconds: (sign * score, seconds)

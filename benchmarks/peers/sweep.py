"""The peer's sweep on one model: all is compiled, then simulated from the cheapest on until one will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np
from measuring import Files

from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import DataError

from .cache import Cache
from .choosing import CLOSE, best, by_cost, finalists, hopeless
from .process import WorkerError, WorkerProcess
from .settings import AS_IT_COMES, Setting, grid

FIRST = 60
"""Validation samples that are simulated before the others."""

DRAWS = 5
"""Simulations whose mean counts: a setting must not be the best by luck."""

COMPILE_SECONDS = 600.0
"""A setting that takes longer to compile counts as refused."""

SAMPLES = 2
"""Ciphertexts of a setting, after a first one; of an expensive one that first one alone."""

EXPENSIVE_SHARE = 0.1
"""Share of the patience that one sample takes, from which on a circuit is expensive."""


@dataclass(frozen=True)
class Limits:
    """How far a sweep goes.

    Attributes:
        drop: Accuracy on the validation samples that may be lost against the float model.
        patience: A circuit that would take more seconds is not run on ciphertexts.
    """

    drop: float = 0.01
    patience: float = 300.0


class Sweep:
    """The peer on one model.

    Args:
        files: The model and its data.
        start: Starts the peer; None where everything is to be known already.
        entries: What is known already, by setting; it is added to.
        cache: Written after each step.
        wanted: Accuracy on the validation samples that is good enough.
        limits: How far to go.
        say: Told what is being done.
    """

    def __init__(
        self,
        files: Files,
        start: Callable[[], WorkerProcess] | None,
        entries: dict[str, Any],
        cache: Cache,
        wanted: float,
        limits: Limits,
        say: Callable[[str], None],
    ) -> None:
        self._files, self._start, self._entries, self._cache = files, start, entries, cache
        self._wanted, self._limits, self._say = wanted, limits, say
        self._peer: WorkerProcess | None = None
        self._compiled: Setting | None = None
        self._labels = {p: labels_of(files, p) for p in files.scored}

    def figures(self, of: list[Setting] | None = None) -> dict[Setting, dict[str, Any]]:
        """What is known about settings."""
        return {s: self._entries[str(s)] for s in of or [*grid(), AS_IT_COMES] if str(s) in self._entries}

    def compile_all(self) -> None:
        """Compile every setting, and score its quantized model in the clear."""
        settings = [*grid(), AS_IT_COMES]
        for i, setting in enumerate(settings, start=1):
            if str(setting) in self._entries:
                continue
            entry: dict[str, Any] = {"setting": setting.arguments()}
            try:
                entry |= self._make(setting)
                entry["clear"] = self._score("validation", "clear")
            except WorkerError as error:
                entry["refused"] = str(error)[:300]
                self._compiled = None
            self._keep(setting, entry)
            cost = f"{entry['complexity'] / 1e9:.1f} G" if "complexity" in entry else "refused"
            self._say(f"{i}/{len(settings)} {setting}: {cost}, {entry.get('clear', 0):.1%} in the clear")

    def fastest(self, among: list[Setting]) -> Setting | None:
        """The fastest that is accurate enough, simulated and run on ciphertexts; None if all failed."""
        known = self.figures(among)
        made = by_cost(known)
        if not made:
            return None
        # Noise hardly ever helps: what is far off in the clear is dropped. Where all are, the best stay.
        floor = min(self._wanted, max(known[s]["clear"] for s in made))
        good = None
        for setting in made:
            entry = known[setting]
            if good is not None and entry["complexity"] > CLOSE * good:
                break
            if "simulated" not in entry and "dropped" not in entry:
                self._simulate(setting, entry, floor)
            if entry.get("simulated", 0.0) >= self._wanted and good is None:
                good = entry["complexity"]
        last = finalists(known, self._wanted)
        # Keys and samples of expensive circuits take long: where there is a choice, complexity has to do.
        if all(self._expected(known[s]) <= EXPENSIVE_SHARE * self._limits.patience for s in last):
            for setting in last:
                self._run(setting, known[setting])
        return best(known, last) if last else None

    def finish(self, setting: Setting) -> None:
        """Run a chosen setting on ciphertexts, and score it on all samples."""
        entry = self._entries[str(setting)]
        self._run(setting, entry)
        for part, key in (("validation", "simulated"), ("test", "test")):
            if key not in entry and part in self._files.scored:
                self._make(setting)
                draws = [self._score(part, "simulate") for _ in range(DRAWS)]
                entry |= {key: mean(draws), f"{key}_draws": draws}
                self._keep(setting, entry)

    def close(self) -> None:
        """End the peer's process."""
        if self._peer is not None:
            self._peer.close()
        self._peer = self._compiled = None

    def _simulate(self, setting: Setting, entry: dict[str, Any], floor: float) -> None:
        """Simulate some validation samples, then all, then again: single simulations differ by points."""
        try:
            reason = self._hopeless(setting, entry, floor)
            if reason:
                entry["dropped"] = reason
            else:
                more = [self._score("validation", "simulate") for _ in range(DRAWS - 1)]
                draws = [*entry["simulated_draws"], *more]
                entry |= {"simulated": mean(draws), "simulated_draws": draws}
        except WorkerError as error:
            entry["dropped"] = str(error)[:300]
            self._compiled = None
        self._keep(setting, entry)
        result = f"{entry['simulated']:.1%} simulated" if "simulated" in entry else f"no: {entry['dropped']}"
        self._say(f"{setting}: {entry['complexity'] / 1e9:.1f} G, {result}")

    def _hopeless(self, setting: Setting, entry: dict[str, Any], floor: float) -> str:
        """Why it need not be simulated as often as others; leaves a first simulation where it must be."""
        count = len(self._labels["validation"])
        if hopeless(entry["clear"], floor, count):
            return f"{entry['clear']:.1%} in the clear"
        self._make(setting)
        few = self._score("validation", "simulate", 0, FIRST)
        if hopeless(few, floor, min(FIRST, count)):
            return f"{few:.1%} of the first {FIRST} simulated"
        once = self._score("validation", "simulate")
        if hopeless(once, floor, count):
            return f"{once:.1%} simulated once"
        entry["simulated_draws"] = [once]
        return ""

    def _expected(self, entry: dict[str, Any]) -> float:
        """Seconds that a circuit will take, by what others took; 0 where none has been run."""
        ran = [e for e in self._entries.values() if e.get("encrypted")]
        rates = [e["encrypted"]["processor_seconds"] / e["complexity"] for e in ran]
        return median(rates) * float(entry["complexity"]) if rates else 0.0

    def _run(self, setting: Setting, entry: dict[str, Any]) -> None:
        """Some samples on ciphertexts, if that is bearable; of an expensive circuit one."""
        if "encrypted" in entry:
            return
        entry["encrypted"] = None
        expected = self._expected(entry)
        if expected > self._limits.patience:
            entry["expected_seconds"] = expected
        else:
            data = str(self._files.scored["validation"])
            try:
                self._make(setting)
                keys = self._ask("keygen")
                found = [self._ask("evaluate", data=data, index=0)]
                if found[0]["processor_seconds"] <= self._limits.patience * EXPENSIVE_SHARE:
                    found = [self._ask("evaluate", data=data, index=i + 1) for i in range(SAMPLES)]
                medians = {k: median(f[k] for f in found) for k in ("seconds", "processor_seconds")}
                entry["encrypted"] = {**keys, **medians, "samples": len(found)}
            except WorkerError as error:
                entry["not_encrypted"] = str(error)[:300]
                self._compiled = None
        self._keep(setting, entry)
        if entry["encrypted"]:
            self._say(f"{setting}: {entry['encrypted']['seconds']:.1f} s on ciphertexts")

    def _make(self, setting: Setting) -> dict[str, Any]:
        if self._compiled == setting:
            return {}
        if self._start is None:
            raise DataError(
                "the sweep of this model is not finished",
                found=f"{self._files.name}, {setting}: not known",
                do="run the same command without --from-cache",
            )
        self._compiled = None
        if self._peer is None or not self._peer.alive:
            self.close()
            self._peer = self._start()
            self._peer.ask("load", model=str(self._files.model), calibration=str(self._files.calibration))
        made: dict[str, Any] = self._peer.ask("compile", timeout=COMPILE_SECONDS, **setting.arguments())
        self._compiled = setting
        return made

    def _ask(self, do: str, **arguments: Any) -> Any:
        assert self._peer is not None
        return self._peer.ask(do, **arguments)

    def _score(self, part: str, mode: str, start: int = 0, stop: int | None = None) -> float:
        """Share of the samples whose class is right."""
        labels = self._labels[part][start:stop]
        asked = {"stop": start + len(labels), "start": start, "mode": mode}
        found = self._ask("classes", data=str(self._files.scored[part]), **asked)["classes"]
        return float((np.array(found) == labels).mean())

    def _keep(self, setting: Setting, entry: dict[str, Any]) -> None:
        self._entries[str(setting)] = entry
        self._cache.write()


def labels_of(files: Files, part: str) -> np.ndarray:
    """The labels of a part.

    Raises:
        DataError: There is no such part, or it has none.
    """
    if part not in files.scored:
        raise DataError(
            f"settings are chosen on {part} samples", file=str(files.model), allowed=f"NAME.{part}.npz"
        )
    labels = read_npz(files.scored[part]).labels
    if labels is None:
        raise DataError("accuracy needs labels", file=str(files.scored[part]))
    return np.asarray(labels)

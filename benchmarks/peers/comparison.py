"""One model: the peer's sweep, then the chosen circuits and ours on ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from measuring import Files

from . import duel
from .cache import Cache, key_of
from .circuits import Ours
from .duel import Contender
from .environment import footprint
from .process import WorkerProcess
from .settings import AS_IT_COMES, grid
from .sweep import DRAWS, Limits, Sweep, labels_of

BEST = "best of its sweep"
SAME = "the same with its default p_error"
DEFAULT_ERROR = "best with its default p_error"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        peer, ours: Start a worker of either side (``WorkerProcess`` with its command).
        circuits: Of ours.
        cache: File of the sweep.
        limits: Of the sweep.
        roundings: Model (None for all) and rounding: its best setting with this rounding is compared as well.
        cores: That either side may use for one sample.
        nice: Added to the niceness of the sweep.
        samples: Ciphertexts of each circuit.
        from_cache: Refuse to sweep.
        encrypted: Compare on ciphertexts; else only sweep.
    """

    peer: Callable[..., WorkerProcess]
    ours: Callable[..., WorkerProcess]
    circuits: tuple[Ours, ...]
    cache: Path
    limits: Limits = Limits()
    roundings: tuple[tuple[str | None, int], ...] = ()
    cores: int = 1
    nice: int = 0
    samples: int = 7
    from_cache: bool = False
    encrypted: bool = True


def sides(options: Options, interpreters: Mapping[str, Path | None], say: Say) -> dict[str, Any]:
    """What either side is, what it takes to have it, and the cheapest bootstrap on this machine.

    Args:
        options: What is asked for.
        interpreters: Of either side, where it is the real one.
        say: Told what is being done.
    """
    found: dict[str, Any] = {}
    for side, start, name, module in (
        ("peer", options.peer, "concrete-ml", "concrete.ml.torch.compile"),
        ("ours", options.ours, "onnx-fhe", "onnx_fhe.backends.concrete.backend"),
    ):
        with start(cores=options.cores) as process:
            found[side] = process.ask("hello")
        python = interpreters[side]
        if python and options.encrypted:
            found[side] |= footprint(python, name, module, 3)
    if options.encrypted:
        say("measuring the cheapest bootstrap of 2 bits")
        with options.ours(cores=1, pinned=True) as process:
            found["bootstrap"] = process.ask("bootstrap")
    return found


def compare(files: Files, options: Options, about: dict[str, Any], say: Say) -> dict[str, Any]:
    """All figures of one model.

    Args:
        files: The model and its data.
        options: What is asked for.
        about: What ``sides`` found.
        say: Told what is being done.

    Raises:
        DataError: Data or labels are missing, or the sweep was to be known and is not.
    """
    say = partial(_prefixed, say, files.name)
    parts = [p for p in ("validation", "test") if p in files.scored]
    labels: dict[str, np.ndarray] = {p: labels_of(files, p) for p in dict.fromkeys(("validation", *parts))}
    with options.ours(cores=options.cores) as process:
        process.ask("load", model=str(files.model), calibration=str(files.calibration))
        floats = {p: _score(process, files, p, "float", labels[p]) for p in parts}
    wanted = floats["validation"] - options.limits.drop - 1e-9
    sweep = _sweep(files, options, about, wanted, say)
    result: dict[str, Any] = {
        "model": files.name,
        "samples": {p: len(labels[p]) for p in parts},
        "float": floats,
        "wanted": floats["validation"] - options.limits.drop,
        "sweep": sweep,
        "circuits": [],
    }
    if options.encrypted:
        result["circuits"] = _circuits(files, options, about, sweep, labels, say)
    return result


def _sweep(files: Files, options: Options, about: dict[str, Any], wanted: float, say: Say) -> dict[str, Any]:
    cache = Cache(options.cache)
    packages = about["peer"]["packages"]
    data = [files.model, files.calibration, *(files.scored[p] for p in sorted(files.scored))]
    entries = cache.model(key_of(data, packages), {"model": files.name, "packages": packages})
    # One core and no more: a sweep may run beside other work.
    start = None if options.from_cache else partial(options.peer, cores=1, nice=options.nice)
    sweep = Sweep(files, start, entries, cache, wanted, options.limits, say)
    try:
        sweep.compile_all()
        groups = {
            BEST: grid(),
            DEFAULT_ERROR: [s for s in grid() if s.p_error is None],
            **{
                f"best rounded to {r}": [s for s in grid() if s.rounding == r]
                for name, r in options.roundings
                if name in (None, files.name)
            },
        }
        fastest = {name: sweep.fastest(among) for name, among in groups.items()}
        chosen = {name: s for name, s in fastest.items() if s is not None}
        if BEST in chosen:
            same = replace(chosen[BEST], p_error=None)
            if "complexity" in sweep.figures().get(same, {}):
                chosen = {BEST: chosen[BEST], SAME: same, **chosen}
        for setting in dict.fromkeys(chosen.values()):
            sweep.finish(setting)
    finally:
        sweep.close()
    return {
        "wanted": wanted,
        "chosen": {name: str(s) for name, s in chosen.items()},
        "settings": {str(s): f for s, f in sweep.figures().items()},
        "as_it_comes": str(AS_IT_COMES),
    }


def _circuits(
    files: Files,
    options: Options,
    about: dict[str, Any],
    sweep: dict[str, Any],
    labels: dict[str, np.ndarray],
    say: Say,
) -> list[dict[str, Any]]:
    """The chosen circuits of the peer and ours, on ciphertexts by turns."""
    pinned = {"cores": options.cores, "pinned": True}
    contenders: list[Contender] = []
    skipped: list[Contender] = []
    for name, text in sweep["chosen"].items():
        known = sweep["settings"][text]
        if any(c.figures["setting"] == text for c in contenders):
            continue  # the same setting under another name
        accuracy = {"validation": known.get("simulated"), "test": known.get("test")}
        figures = {**known, "side": "peer", "setting": text, "simulated": accuracy}
        one = Contender(f"Concrete ML, {name}", known["setting"], partial(options.peer, **pinned), figures)
        (contenders if known.get("encrypted") else skipped).append(one)
    for ours in options.circuits:
        setting = ours.setting(files.model)
        if setting is not None:
            setting |= {"cores": options.cores}
            figures = {"side": "ours", "setting": ours.value}
            start = partial(options.ours, **pinned)
            contenders.append(Contender(f"onnx-fhe, {ours.name}", setting, start, figures))
    duel.run(
        files, contenders, options.samples, options.limits.patience, partial(_scores, files, labels), say
    )
    cheapest = about["bootstrap"]["milliseconds"] / 1e3 / options.cores
    found = []
    for one in [*contenders, *skipped]:
        figures = one.figures
        limit = figures["bootstraps"] * cheapest if figures.get("bootstraps") else None
        if limit and "seconds" in figures:
            figures["over_limit"] = figures["seconds"] / limit
        if limit and figures.get("predicted_seconds"):
            figures["predicted_over_limit"] = figures["predicted_seconds"] / limit
        found.append({"name": one.name, **figures})
    return found


def _scores(files: Files, labels: dict[str, np.ndarray], one: Contender, process: WorkerProcess) -> None:
    """Simulated accuracy of a circuit of ours; the peer's stands in its sweep."""
    if one.figures["side"] == "ours":
        for mode, key, draws in (("clear", "clear_accuracy", 1), ("simulate", "simulated", DRAWS)):
            one.figures[key] = {
                p: mean(_score(process, files, p, mode, labels[p]) for _ in range(draws)) for p in labels
            }


def _score(process: WorkerProcess, files: Files, part: str, mode: str, labels: np.ndarray) -> float:
    found = process.ask("classes", data=str(files.scored[part]), mode=mode)["classes"]
    return float((np.array(found) == labels).mean())


def _prefixed(say: Say, name: str, text: str) -> None:
    say(f"{name}: {text}")

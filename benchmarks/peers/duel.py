"""Both sides on ciphertexts, by turns: what disturbs the machine disturbs both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from measuring import Files

from .process import WorkerError, WorkerProcess
from .sweep import labels_of


@dataclass
class Contender:
    """One circuit.

    Attributes:
        name: In the table.
        setting: Arguments of ``compile``.
        start: Starts its process.
        figures: What is known of it and found out; JSON.
    """

    name: str
    setting: dict[str, Any]
    start: Callable[[], WorkerProcess]
    figures: dict[str, Any] = field(default_factory=dict)


def run(
    files: Files,
    contenders: list[Contender],
    samples: int,
    patience: float,
    score: Callable[[Contender, WorkerProcess], None],
    say: Callable[[str], None],
) -> None:
    """Add to each contender's figures what it takes to compile, to make keys, and to compute a sample.

    Each has a process of its own, and they take turns: first a sample that counts apart (keys are made ready
    for use then), then one after the other. A circuit that would take more than ``patience`` seconds for all
    its samples gets fewer of them, at least one.

    Args:
        files: The model and its data.
        contenders: What is compared.
        samples: Ciphertexts of each.
        patience: Seconds.
        score: Called with each circuit when it is compiled.
        say: Told what is being done.
    """
    part = "test" if "test" in files.scored else "validation"
    labels = labels_of(files, part)
    data = str(files.scored[part])
    with ExitStack() as stack:
        live: list[tuple[Contender, WorkerProcess]] = []
        for one in contenders:
            try:
                process = stack.enter_context(one.start())
                process.ask("load", model=str(files.model), calibration=str(files.calibration))
                made = process.ask("compile", **one.setting)
                one.figures |= {k: v for k, v in made.items() if v is not None or k not in one.figures}
                score(one, process)
                one.figures |= process.ask("keygen")
                first = process.ask("evaluate", data=data, index=0)
            except WorkerError as error:
                one.figures["not_encrypted"] = str(error)
                say(f"{one.name}: {error}")
                continue
            one.figures |= {"first_seconds": first["seconds"], "runs": []}
            live.append((one, process))
            say(f"{one.name}: first sample {first['seconds']:.2f} s")
        for turn in range(samples):
            for one, process in live:
                spent = one.figures["first_seconds"] * (turn + 1)
                if turn and spent > patience:
                    continue
                index = turn % len(labels)
                one.figures["runs"].append(process.ask("evaluate", data=data, index=index) | {"index": index})
        for one, process in live:
            one.figures |= summary(one.figures["runs"], labels) | process.ask("memory")
            say(f"{one.name}: {one.figures['seconds']:.2f} s a sample")


def summary(runs: list[Mapping[str, Any]], labels: Any) -> dict[str, Any]:
    """Medians over the samples, the fastest and slowest, and how many classes were right."""
    keys = ("encrypt_seconds", "seconds", "processor_seconds", "decrypt_seconds")
    return {
        **{k: median(r[k] for r in runs) for k in keys},
        "fastest_seconds": min(r["seconds"] for r in runs),
        "slowest_seconds": max(r["seconds"] for r in runs),
        "samples": len(runs),
        "right": sum(int(r["class"]) == int(labels[r["index"]]) for r in runs),
    }

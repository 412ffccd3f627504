"""One random network from float to ciphertexts: what became of it, in one of five words."""

from __future__ import annotations

import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from ..backends.checking import check_against
from ..compiling import compile_model
from ..fidelity.figures import FidelityWarning
from ..ir.errors import UserError
from ..ir.runtime import Session
from ..program import Program
from .agreement import agreement
from .ciphertexts import Encrypted, compare_encrypted
from .networks import Network

Category = Literal["good", "warned", "refused", "wrong", "defect"]


@dataclass(frozen=True)
class Outcome:
    """What became of one network.

    Attributes:
        seed: Seed of the network.
        pipeline, backend: What compiled it.
        steps: What it consists of.
        category: ``good``; ``warned``: the compiler warned that it loses; ``refused``: a ``UserError``;
            ``wrong``: an output is lost on held-out data without a warning; ``defect``: anything else, and
            ciphertexts that are further off than noise explains.
        what: The compiler's message, or the output that is wrong.
        worst: Least R^2 of an output on held-out data; None where there is no circuit.
        overflows: Share of the held-out samples in which a value leaves its range.
        bootstraps: How many one sample takes.
        seconds: It took, all in all.
        encrypted: What ciphertexts gave, where they were asked for.
        trace: The traceback of a defect.
    """

    seed: int
    pipeline: str
    backend: str
    steps: tuple[str, ...]
    category: Category
    what: str = ""
    worst: float | None = None
    overflows: float = 0.0
    bootstraps: int = 0
    seconds: float = 0.0
    encrypted: Encrypted | None = field(default=None)
    trace: str = ""


def check_network(
    network: Network,
    pipeline: str = "balanced",
    backend: str = "reference",
    encrypted: int = 0,
    max_bootstraps: int | None = None,
    max_complexity: float | None = None,
) -> Outcome:
    """Compile a network and compare float, integer model, circuit and, where asked for, ciphertexts.

    Args:
        network: The network, with data to calibrate on and data to test on.
        pipeline: A preset, or passes as text.
        backend: Whose circuit is compared with the integer model.
        encrypted: Samples on ciphertexts.
        max_bootstraps: Circuits of more bootstraps are not run on ciphertexts.
        max_complexity: Nor are circuits of a larger complexity (operations of a sample, by the backend's own
            count).
    """
    began = time.perf_counter()

    def outcome(category: Category, what: str = "", **known: object) -> Outcome:
        return Outcome(
            network.seed,
            pipeline,
            backend,
            network.steps,
            category,
            what,
            seconds=round(time.perf_counter() - began, 3),
            **known,  # type: ignore[arg-type]
        )

    try:
        program = _compiled(network, pipeline, backend)
        known = _compared(network, program)
        lost = known.pop("lost")
        told = warning(program)
        size = program.statistics
        small = max_bootstraps is None or size.programmable_bootstraps <= max_bootstraps
        if encrypted and small and (max_complexity is None or size.complexity <= max_complexity):
            found = compare_encrypted(program, network.test, encrypted)
            known["encrypted"] = found
            if not found.explained:
                return outcome("defect", found.told, **known)
    except UserError as error:
        return outcome("refused", str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
        return outcome("defect", f"{type(error).__name__}: {error}", trace=traceback.format_exc())
    if told:
        return outcome("warned", told, **known)
    return outcome("wrong" if lost else "good", str(lost), **known)


def warning(program: Program) -> str:
    """The compiler's words about the circuit's fidelity; empty where it found it good."""
    fidelity = program.manifest.fidelity
    if fidelity is None or fidelity.verdict == "good":
        return ""
    return f"{fidelity.verdict}: {fidelity.headline}"


def _compiled(network: Network, pipeline: str, backend: str) -> Program:
    # By way of a file, as users do.
    with tempfile.TemporaryDirectory(prefix="onnx-fhe-testing-") as folder, warnings.catch_warnings():
        # What they say stands in the program too.
        warnings.simplefilter("ignore", FidelityWarning)
        path = Path(folder) / "network.onnx"
        onnx.save(network.model, path)
        return compile_model(path, network.calibration, pipeline, backend)


def _compared(network: Network, program: Program) -> dict[str, object]:
    """Float against the integer model, and that against the circuit."""
    expected = Session(network.model).run_batched(network.test)
    result = program.run(network.test)
    found = agreement(expected, result.outputs)
    values = program._prologue.run(network.test)[0]
    # Concrete's clear evaluation takes its time; the compiler has compared them on calibration data.
    few = {
        k: np.asarray(v)[: 300 if program.manifest.backend == "reference" else 20] for k, v in values.items()
    }
    check_against(program.integer_model, program.circuit, few)
    lost = ""
    if found.lost:
        lost = f"constant {', '.join(found.constants)}" if found.constants else f"R^2 of {found.output}"
    return {
        "lost": lost,
        "worst": round(found.worst, 4),
        "overflows": result.overflows.samples / result.samples,
        "bootstraps": program.statistics.programmable_bootstraps,
    }

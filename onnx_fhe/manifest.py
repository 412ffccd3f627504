"""What an artifact says about itself: ``manifest.json``."""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import onnx_ir as ir
from pydantic import TypeAdapter

from . import plausible, versioned_json
from .backends.statistics import CircuitStatistics
from .batches import BatchCircuit
from .fidelity.figures import Fidelity, SelfTest
from .ir.ops import RoundBits
from .ir.range_options import Margin, RangeMode
from .ir.results import DEFAULT_RESULTS, Results
from .ports import Port
from .record import RECORD_FORMAT, Record

FORMAT = 1
"""Version of the artifact; a newer one is refused."""

PACKAGES = ("onnx-fhe", "concrete-python", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")
"""Packages whose versions a manifest holds."""

Rounding = Literal["none", "exact", "approximate", "mixed"]


@dataclass(frozen=True)
class Source:
    """The model that was compiled.

    Attributes:
        file: Base name of its file, where known.
        sha256: Of the file that was loaded; of the model as ONNX where it never was a file.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds and how it came about.

    Attributes:
        backend: Name of the backend that made the circuit.
        source: The model that was compiled.
        inputs, outputs: The interface of the original model.
        pipeline: The passes that ran, as text with all their options.
        p_error: Tolerated error of one table lookup that was asked for.
        global_p_error: Tolerated error of the whole circuit that was asked for.
        security_level: Bits of security.
        results: Who may see what is decrypted: the owner of the keys alone, or anybody.
        client: What of the network the client computes, and what that reveals to whom; empty in artifacts
            from before that was a choice.
        rounding: How accumulators are rounded in front of tables.
        range_mode, range_margin, seed: As in ``passes.framework.base.Context``.
        statistics: What the circuit costs, per layer too.
        notes: What passes wanted the user to know.
        warnings: What is wrong with the circuit, the data or the labels.
        fidelity: The circuit against the network; None where there was nothing to compare on, and in
            artifacts from before it was kept.
        expected_overflow: Share of samples in which an accumulator is expected to leave its range; None where
            that is not known.
        self_test: Samples that were tried on ciphertexts; None where that was not asked for.
        record: What the report tells besides; None in artifacts from before it was kept.
        batches: Circuits for several samples a call, besides the one for one sample.
        packages: Versions of the packages that made it, Python among them.
        parts: SHA-256 of each other file of the artifact.
        format: Version of the artifact.
    """

    backend: str
    source: Source
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    pipeline: str
    p_error: float | None
    global_p_error: float | None
    security_level: int
    rounding: Rounding
    range_mode: RangeMode
    range_margin: Margin
    seed: int
    statistics: CircuitStatistics
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    expected_overflow: float | None = None
    self_test: SelfTest | None = None
    record: Record | None = None
    batches: tuple[BatchCircuit, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    results: Results = DEFAULT_RESULTS
    client: str = ""

    def to_json(self) -> bytes:
        """The content of ``manifest.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"


def from_json(content: bytes) -> Manifest:
    """Read a ``manifest.json``.

    Raises:
        ArtifactError: It is damaged, of a newer format, or holds what cannot be true.
    """
    damaged = "the manifest is damaged"
    plain = versioned_json.parse(
        content,
        FORMAT,
        damaged=damaged,
        newer="this artifact was written by a newer onnx-fhe",
        do="update onnx-fhe, or compile the model again with this version",
    )
    record = plain.get("record")
    if (
        isinstance(record, dict)
        and isinstance(record.get("version"), int)
        and record["version"] > RECORD_FORMAT
    ):
        # The circuit runs without it.
        content = json.dumps({**plain, "record": None}).encode()
    found = versioned_json.validate(content, _adapter(), damaged=damaged)
    plausible.check(found)
    return found


@cache
def _adapter() -> TypeAdapter[Manifest]:
    """What reads a manifest; to make it takes longer than to read."""
    return TypeAdapter(Manifest)


def packages() -> dict[str, str]:
    """Versions of what is installed and matters."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def ports(values: list[ir.Value]) -> tuple[Port, ...]:
    """Graph inputs or outputs as the manifest has them."""
    return tuple(Port(v.name or "", _shape(v), v.dtype.name.lower() if v.dtype else "") for v in values)


def _shape(value: ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(d if isinstance(d, int) else d.value for d in value.shape.dims)


def rounding_of(model: ir.Model) -> Rounding:
    """How the accumulators of an integer-level model are rounded."""
    modes = {r.mode for r in RoundBits.all_in(model) if r.lsbs_to_remove}
    if not modes:
        return "none"
    if len(modes) > 1:
        return "mixed"
    return "approximate" if modes == {"approximate"} else "exact"

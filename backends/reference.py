"""The reference backend: the integer model in onnxruntime. Fast, exact, no cryptography."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import onnx_ir as ir

from ..analysis.expansion.expand import expanded
from ..ir.batch_runner import Arrays
from ..ir.errors import ArtifactError, DataError
from ..ir.graph import layer_of, title_of
from ..ir.limits import TargetLimits
from ..ir.ops import Decrypt, Encrypt, TableLookup, along_axis, decrypts_by_output, encrypts_by_input
from ..ir.partition import partition
from ..ir.runtime import Session
from .base import DEFAULTS, Backend, Circuit, EncryptedSession, LowerOptions
from .layers import merge_layers
from .sides import Ciphertexts
from .statistics import CircuitStatistics, LayerStatistics

BATCH_SAMPLES = 256
"""Samples that are run at once."""


@dataclass(frozen=True)
class NodeOverflow:
    """Values of one node outside its declared range, and the samples that they belong to."""

    values: int
    samples: int


@dataclass(frozen=True)
class OverflowReport:
    """Values outside the declared ranges.

    Attributes:
        values: Their number.
        samples: Number of samples with at least one.
        by_node: The nodes that have any, by name.
        by_sample: (samples), how many each sample has.
    """

    values: int
    samples: int
    by_node: dict[str, NodeOverflow]
    by_sample: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)


@dataclass(frozen=True)
class _Watched:
    """A value with its declared range.

    Attributes:
        node: Name of the node that declares it.
        value: Name of the value.
        low: Smallest value, one for each channel or one for all.
        span: Distance to the largest.
        axis: Axis of the channels.
    """

    node: str
    value: str
    low: np.ndarray
    span: int
    axis: int = 0

    def outside(self, array: np.ndarray) -> np.ndarray:
        """Values of each sample that are out of range: (samples), int64."""
        low = along_axis(self.low, self.axis, array.ndim)
        wrong = (array < low) | (array > low + self.span)
        return np.asarray(wrong.reshape(len(array), -1).sum(axis=1, dtype=np.int64))


def count_overflows(
    server: ir.Model, values: Mapping[str, np.ndarray], batch: int = BATCH_SAMPLES
) -> OverflowReport:
    """Count the values that leave their declared range at an Encrypt, a TableLookup or a Decrypt.

    Args:
        server: The server part of a model.
        values: Integers by Encrypt output name, samples on axis 0.
        batch: Samples that are run at once.
    """
    return run_counting(server, values, batch)[0]


def run_counting(
    server: ir.Model, values: Mapping[str, np.ndarray], batch: int = BATCH_SAMPLES
) -> tuple[OverflowReport, Arrays]:
    """As ``count_overflows``, with the outputs of the same run (float32 that hold integers)."""
    watched, inputs = _watched(server)
    names = list(dict.fromkeys(w.value for w in watched))
    session = Session(server, names)
    counts: dict[str, list[np.ndarray]] = {w.node: [] for w in (*inputs, *watched)}
    outputs: dict[str, list[np.ndarray]] = {v.name or "": [] for v in server.graph.outputs}
    arrays = _as_float(server, values)
    total = len(next(iter(arrays.values())))
    for start in range(0, total, batch):
        part = {k: v[start : start + batch] for k, v in arrays.items()}
        found = part | session.run_batched(part, batch)
        for w in (*inputs, *watched):
            counts[w.node].append(w.outside(found[w.value]))
        for name, chunks in outputs.items():
            chunks.append(found[name])
    by_sample = np.zeros(total, np.int64)
    by_node = {}
    for name, chunks in counts.items():
        joined = np.concatenate(chunks) if chunks else np.zeros(0, np.int64)
        by_sample += joined
        if joined.any():
            by_node[name] = NodeOverflow(int(joined.sum()), int(np.count_nonzero(joined)))
    report = OverflowReport(int(by_sample.sum()), int(np.count_nonzero(by_sample)), by_node, by_sample)
    return report, {k: np.concatenate(v) for k, v in outputs.items() if v}


def _watched(server: ir.Model) -> tuple[list[_Watched], list[_Watched]]:
    """What is computed and watched, and the inputs that are."""
    tables = [
        _Watched(t.name, t.source.name or "", t.integer_first, t.span, t.axis)
        for t in TableLookup.all_in(server)
    ]
    outputs = [_boundary(d, d.output) for d in decrypts_by_output(server)]
    return tables + outputs, [_boundary(e, e.input) for e in encrypts_by_input(server)]


def _boundary(declares: Encrypt | Decrypt, value: ir.Value) -> _Watched:
    return _Watched(declares.name, value.name or "", np.asarray([declares.low]), declares.high - declares.low)


def _as_float(server: ir.Model, values: Mapping[str, np.ndarray]) -> Arrays:
    names = [v.name or "" for v in server.graph.inputs]
    if missing := [n for n in names if n not in values]:
        raise DataError("a value to encrypt is missing", found=", ".join(values), allowed=", ".join(missing))
    return {n: np.asarray(values[n]).astype(np.float32) for n in names}


class ReferenceCircuit(Circuit):
    """The server part in onnxruntime; ``clear`` and ``simulate`` are the same."""

    def __init__(self, model: ir.Model, options: LowerOptions) -> None:
        self.server = partition(expanded(model)).server
        self._options = options
        self._session = Session(self.server)

    def clear(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """Exactly the integer model; a table's input out of range is clamped (``count_overflows`` tells)."""
        progress = self._options.progress
        found = self._session.run_batched(
            _as_float(self.server, values), BATCH_SAMPLES, lambda done, total: progress("run", done, total)
        )
        return {k: np.rint(v).astype(np.int64) for k, v in found.items()}

    def simulate(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """The same as ``clear``: nothing is noisy here."""
        return self.clear(values)

    def statistics(self) -> CircuitStatistics:
        """Lookups and declared widths of one sample; there are no keys and no complexity."""
        return _statistics(self.server, self._options)

    def session(self, batch: int = 1) -> EncryptedSession:
        """A session that does no cryptography at all: what it calls ciphertexts are the values."""
        return ReferenceSession(self, batch)

    def save(self, folder: Path) -> None:
        """Nothing to save: the integer model is the circuit."""


class ReferenceSession(EncryptedSession):
    """The steps of an encrypted run without cryptography."""

    def __init__(self, circuit: ReferenceCircuit, batch: int = 1) -> None:
        self._circuit, self.batch = circuit, batch

    def keygen(self) -> None:
        """There are no keys."""

    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """The values themselves."""
        return dict(_as_float(self._circuit.server, values))

    def evaluate(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """Run the server part."""
        return dict(self._circuit.clear(ciphertexts))

    def decrypt(self, ciphertexts: Ciphertexts) -> Arrays:
        """The results themselves."""
        return dict(ciphertexts)

    def evaluation_keys(self) -> bytes:
        """None."""
        return b""


class ReferenceBackend(Backend):
    """onnxruntime on the integer model."""

    name = "reference"

    def limits(self) -> TargetLimits:
        """Only float32's exact integers limit this backend."""
        exact = TargetLimits().exact_integer_bits
        return TargetLimits(
            name=self.name,
            table_bits=exact,
            rounded_accumulator_bits=exact,
            output_bits=exact,
            rounded_table_bits=exact,
        )

    def lower(self, model: ir.Model, options: LowerOptions = DEFAULTS) -> ReferenceCircuit:
        """Make the server part ready to run."""
        return ReferenceCircuit(model, options)

    def load(self, folder: Path, model: ir.Model | None = None) -> ReferenceCircuit:  # noqa: ARG002
        """The circuit of ``model``; ``folder`` holds nothing for this backend."""
        if model is None:
            raise ArtifactError("the reference backend needs the integer model", found="none")
        return ReferenceCircuit(model, LowerOptions())


def _statistics(server: ir.Model, options: LowerOptions) -> CircuitStatistics:
    found = TableLookup.all_in(server)
    values = [x.output.name or "" for x in found]
    names = list(dict.fromkeys(values))
    sample = {
        v.name or "": np.zeros(
            [1, *(d if isinstance(d, int) else 1 for d in list(v.shape or [1])[1:])], np.float32
        )
        for v in server.graph.inputs
    }
    sizes = {k: v.size for k, v in Session(server, names).run(sample).items()} if names else {}
    layers = []
    for x, value in zip(found, values, strict=True):
        name, operator = x.title
        count = sizes[value] * x.bootstraps_per_element
        layers.append(LayerStatistics(name, operator, x.accumulator_bits, x.table_bits, count))
    for decrypt in decrypts_by_output(server):
        if (linear := layer_of(decrypt.input)) is not None:
            layers.append(LayerStatistics(*title_of(linear), decrypt.bits, 0, 0))
    return summarize(layers, options)


def summarize(layers: list[LayerStatistics], options: LowerOptions) -> CircuitStatistics:
    """The statistics of a circuit that is known by its layers alone."""
    merged = merge_layers(layers)
    widths = [x.accumulator_bits for x in merged]
    return CircuitStatistics(
        programmable_bootstraps=sum(x.programmable_bootstraps for x in merged),
        complexity=0.0,
        max_table_bits=max((x.table_bits for x in merged), default=0),
        max_accumulator_bits=max(widths, default=0),
        mean_accumulator_bits=fmean(widths) if widths else 0.0,
        p_error=options.p_error,
        global_p_error=options.global_p_error,
        layers=tuple(merged),
    )

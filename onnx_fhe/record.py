"""What an artifact remembers of how it was made, for the report: the network as imported, and measurements.

It is optional in a manifest, and whatever is missing is left out of the report. Nothing else depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

RECORD_FORMAT = 1
"""Version of the record; a newer one is ignored, as the artifact runs without."""
MAX_RECORDED_NODES = 1000
"""Nodes of a network that are recorded; those of a larger one up to here."""


@dataclass(frozen=True)
class NodeRecord:
    """An operator of the network as imported.

    Attributes:
        name: Name of the node.
        operator: Its type, with the domain where that is not ONNX's own.
        shape: Shape of its first output.
        inputs: Names of the nodes (or of the network's inputs) that it reads.
        parameters: Number of constant values that it reads.
        where: Where it runs: ``client, before``, ``encrypted``, ``client, after``, or empty if not known.
    """

    name: str
    operator: str
    shape: tuple[int | str | None, ...]
    inputs: tuple[str, ...]
    parameters: int
    where: str


@dataclass(frozen=True)
class InputRange:
    """What an input held."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class LayerFidelity:
    """How well the integer circuit follows one layer of the network.

    Attributes:
        name: Name of the layer.
        divergence: Share of the variance of the layer's outputs that the integers do not reproduce, after
            the best scale and offset of each channel; 0 is perfect.
    """

    name: str
    divergence: float


@dataclass(frozen=True)
class Headroom:
    """How much of the range that a table declares was used.

    Attributes:
        table: Name of the TableLookup.
        low, high: Smallest and largest accumulator of any channel; 0 and 1 are the ends of what is declared.
    """

    table: str
    low: float
    high: float


@dataclass(frozen=True)
class Stage:
    """The network at one stage, on the same samples.

    Attributes:
        name: ``float`` (as imported), ``reduced`` (after layers, neurons or weights were removed),
            ``integer`` (the circuit in the clear), ``encrypted`` (with the errors that encryption brings,
            drawn by the noise model).
        output_error: Mean squared error over the variance of the outputs of ``float`` (of ``integer`` where
            no float network is known).
        agreement: Share of samples with the class that it finds; None for no classifier.
        accuracy: Against labels; None without.
        p_error: Tolerated error that the noise was drawn for, in the stage ``encrypted``.
    """

    name: str
    output_error: float
    agreement: float | None = None
    accuracy: float | None = None
    p_error: float | None = None


@dataclass(frozen=True)
class Measurements:
    """What was measured on data, most often the calibration data.

    Attributes:
        samples: How many samples were used, of ``given``.
        given: How many there were.
        file: Base name of the data file, where known.
        inputs: What each input held.
        stages: From the network as imported to what decryption finds.
        layers: How well each layer is followed.
        tables: How much of its range each table used.
        problem: Why some of it is missing, if it is.
    """

    samples: int
    given: int
    file: str
    inputs: tuple[InputRange, ...]
    stages: tuple[Stage, ...]
    layers: tuple[LayerFidelity, ...]
    tables: tuple[Headroom, ...]
    problem: str = ""


@dataclass(frozen=True)
class Record:
    """What an artifact remembers.

    Attributes:
        nodes: The network as imported and normalized.
        left_out: Nodes past ``MAX_RECORDED_NODES``.
        operators: How many of each operator the file holds.
        parameters: Constant values of the file.
        measured: On the calibration data.
        bind: Sizes of free axes that were given.
        version: Version of this record.
    """

    nodes: tuple[NodeRecord, ...]
    left_out: int
    operators: dict[str, int]
    parameters: int
    measured: Measurements | None
    bind: dict[str, int]
    version: int = RECORD_FORMAT

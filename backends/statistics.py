"""What circuits cost, as backends say it, and how their cryptographic parameters are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..analysis.cost.parameters import Step

ParameterStrategy = Literal["auto", "mono", "multi", "multi-norm2"]


@dataclass(frozen=True)
class LayerStatistics:
    """What one layer costs.

    Attributes:
        name: Name of the linear node that feeds the table (of the table itself where there is none).
        operator: Its op type.
        accumulator_bits: Bits of the accumulator as the circuit holds it.
        table_bits: Bits that reach the table, after rounding; 0 for a layer without a table.
        programmable_bootstraps: Bootstraps of one sample, those of exact rounding included.
    """

    name: str
    operator: str
    accumulator_bits: int
    table_bits: int
    programmable_bootstraps: int


@dataclass(frozen=True)
class CircuitStatistics:
    """What a circuit costs for one sample.

    Attributes:
        programmable_bootstraps: Number of bootstraps.
        complexity: The backend's own prediction of the work (operations); 0 where it has none.
        max_table_bits: Widest table input.
        max_accumulator_bits: Widest value of the whole circuit.
        mean_accumulator_bits: Mean over the layers.
        p_error: Error of one lookup that the parameters were chosen for.
        global_p_error: Predicted error of the whole circuit; ``None`` where it is not known.
        layers: One entry for each layer, in order.
        evaluation_key_bytes: Predicted size of uncompressed bootstrapping and key-switching keys.
        secret_key_bytes: Predicted size of the secret keys.
        input_bytes: Ciphertexts of one sample, sent.
        output_bytes: Ciphertexts of one sample, received.
        parameter_sets: Number of bootstrapping parameter sets.
        steps: Bootstraps and key switches with their parameters, in order; empty where they are not known.
        linear_products: Coefficients of ciphertexts that are multiplied by a constant.
    """

    programmable_bootstraps: int
    complexity: float
    max_table_bits: int
    max_accumulator_bits: int
    mean_accumulator_bits: float
    p_error: float | None
    global_p_error: float | None
    layers: tuple[LayerStatistics, ...]
    evaluation_key_bytes: int = 0
    secret_key_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    parameter_sets: int = 0
    steps: tuple[Step, ...] = ()
    linear_products: int = 0

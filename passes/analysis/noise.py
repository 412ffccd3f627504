"""The errors that encryption brings, injected in the integer model: batched, and fast enough to search with.

A bootstrap decides which step of its table an accumulator belongs to after Gaussian noise has been added.
Concrete chooses parameters so that an accumulator in the middle of a step is misread with probability
``p_error``, so the noise has a standard deviation of ``0.5 / z`` steps, with z the two-sided normal
quantile of ``p_error``. Compared with Concrete's simulation (2,800 and more lookups each, tables of 3 to 6
bits, p_error 1e-5 and 1e-2): 0.113 to 0.116 steps measured for 0.113, and 0.17 to 0.22 for 0.194.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import onnx_ir as ir

from ...ir import dialect, runtime


def noise_steps(p_error: float) -> float:
    """Standard deviation of the noise in front of a table, in steps of the table.

    Args:
        p_error: Probability that a lookup in the middle of a step goes wrong.
    """
    return 0.5 / NormalDist().inv_cdf(1 - p_error / 2)


def noisy_outputs(
    model: ir.Model, data: Mapping[str, np.ndarray], p_error: float, seed: int = 0
) -> list[np.ndarray]:
    """The graph outputs of an integer-level model whose tables misread their inputs as encrypted ones do.

    Args:
        model: Integer level; not changed.
        data: Inputs by name, samples on axis 0.
        p_error: Probability that a lookup in the middle of a step goes wrong.
        seed: The same seed gives the same errors.
    """
    noisy, scales = with_noise(model)
    random, samples = np.random.default_rng(seed), len(next(iter(data.values())))
    sigma = noise_steps(p_error)
    drawn = {}
    for value, step in scales.items():
        shape = [samples, *(int(d) for d in list(value.shape or [])[1:])]  # type: ignore[arg-type]
        noise = random.standard_normal(shape, dtype=np.float32)
        drawn[str(value.name)] = noise * np.float32(sigma * step)
    return list(runtime.Session(noisy).run_batched({**data, **drawn}).values())


def with_noise(model: ir.Model) -> tuple[ir.Model, dict[ir.Value, int]]:
    """A copy of a model with one more input in front of every table, and the table's step for each.

    What is fed there is added before approximate roundings (of tables and of raw outputs); a table without
    rounding adds it and then rounds to whole steps. Exact roundings are left alone.
    """
    noisy = model.clone()
    scales: dict[ir.Value, int] = {}
    for node in list(noisy.graph):
        if node.domain != dialect.DOMAIN or node.op_type not in {"RoundBits", "TableLookup"}:
            continue
        source = node.inputs[0]
        assert source is not None
        rounding = node.op_type == "RoundBits"
        if rounding and node.attributes.get_string("mode", "exact") != "approximate":
            continue
        if not rounding and _is_rounded(source):
            continue
        if rounding:
            step = 2 ** (node.attributes.get_int("lsbs_to_remove", 0) or 0)
        else:
            step = node.attributes.get_int("step", 1) or 1
        name = f"{node.name}_noise"
        noise = ir.Value(name=name, shape=source.shape, type=ir.TensorType(ir.DataType.FLOAT))
        noisy.graph.inputs.append(noise)
        scales[noise] = step
        added = ir.node("Add", [source, noise], name=f"{name}_added")
        nodes = [added]
        if not rounding:
            # The table's own index is a whole number of steps again after this.
            nodes.append(
                ir.node(
                    "RoundBits",
                    [added.outputs[0]],
                    {"lsbs_to_remove": step.bit_length() - 1, "mode": "exact"},
                    domain=dialect.DOMAIN,
                    name=f"{name}_rounded",
                )
            )
        for made in nodes:
            made.outputs[0].name = f"{made.name}_out"
            made.outputs[0].shape, made.outputs[0].type = source.shape, source.type
        noisy.graph.insert_before(node, nodes)
        node.replace_input_with(0, nodes[-1].outputs[0])
    return noisy, scales


def _is_rounded(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.domain == dialect.DOMAIN and producer.op_type == "RoundBits"

"""Integer and float models as ONNX text, and what tests ask of a pass on them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.ir import dialect, runtime
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.ir.level import Level, set_level
from onnx_fhe.ir.ops import Encrypt
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes import PassManager
from onnx_fhe.passes.framework.rewriting import refusals
from onnx_fhe.passes.tables.common.moves import Moves
from onnx_fhe.passes.tables.common.pricing import Circuit, TableRewrite, price


def load(text: str, level: Level = Level.INTEGER) -> ir.Model:
    """A model from the text of a graph; shapes are inferred, nodes without a name take their output's."""
    header = f'<ir_version: 10, opset_import: ["" : {target_opset()}, "onnx_fhe" : 1]>\n'
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(header + text))
    if level is Level.FLOAT:
        del proto.opset_import[1]
    for node in proto.graph.node:
        node.name = node.name or f"n_{node.output[0]}"
    model = ir.from_proto(proto)
    set_level(model, level)
    return model


def structure(model: ir.Model) -> list[tuple[object, ...]]:
    """Nodes in order: operator, attributes, inputs (constants by content, others by number), output sizes."""
    numbers = {value: i for i, value in enumerate(model.graph.inputs)}
    found: list[tuple[object, ...]] = []
    for node in model.graph:
        inputs = [
            constant.squeeze().tolist() if (constant := constant_of(v)) is not None else numbers.get(v)  # type: ignore[arg-type]
            for v in node.inputs
        ]
        for output in node.outputs:
            numbers[output] = len(numbers)
        attributes = {k: a.value for k, a in sorted(node.attributes.items())}
        attributes = {k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()}
        sizes = [list(o.shape)[1:] if o.shape is not None else None for o in node.outputs]
        found.append((node.op_type, attributes, inputs, sizes))
    found.append(("outputs", [numbers[v] for v in model.graph.outputs]))
    return found


def become(before: str, after: str, pipeline: str, level: Level = Level.INTEGER) -> ir.Model:
    """Run a pipeline on ``before`` and compare with ``after``; a second run changes nothing."""
    model, wanted = load(before, level), load(after, level)
    result = PassManager.parse(pipeline)(model)
    assert structure(result.model) == structure(wanted)
    assert result.modified == (structure(load(before, level)) != structure(wanted))
    assert not PassManager.parse(pipeline)(result.model).modified
    return result.model


def refused(text: str, rewrite: type[TableRewrite]) -> set[str]:
    """The reasons for which a rewrite leaves nodes of an integer model alone."""
    model = load(text)
    circuit = Circuit(model, Moves(target_opset()))
    return {reason for _, _, reason in refusals(model.graph, [rewrite(circuit)])}


def samples(model: ir.Model, count: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """Random integers within what every Encrypt declares."""
    random = np.random.default_rng(seed)
    data = {}
    for node in model.graph:
        if (encrypt := Encrypt.match(node)) is not None:
            low, high = encrypt.range
            value = node.inputs[0]
            assert value is not None
            assert value.shape is not None
            shape = [count, *(d for d in list(value.shape)[1:] if isinstance(d, int))]
            data[str(value.name)] = random.integers(low, high + 1, shape).astype(np.float32)
    return data


def check_exact(model: ir.Model, pipeline: str) -> ir.Model:
    """Run a pipeline: outputs stay bit for bit, nothing costs more, ``modified`` is true only for changes.

    Args:
        model: Integer level; it is left alone.
        pipeline: Text.
    """
    data = samples(model)
    before, old, priced = runtime.Session(model).run(data), estimate(model), price(model)
    text = str(structure(model))
    result = PassManager.parse(pipeline)(model.clone())
    changed = result.model
    new = estimate(changed)
    after = runtime.Session(changed).run(data)
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])
    assert priced.allows(price(changed))
    assert new.complexity <= old.complexity * (1 + 1e-9)
    assert result.modified == (text != str(structure(changed)))
    verify(changed)
    assert not PassManager.parse(pipeline)(changed).modified
    return changed


def lookups(model: ir.Model) -> int:
    """Bootstraps as Concrete counts them in the circuit that it compiles."""
    from onnx_fhe.backends.base import LowerOptions
    from onnx_fhe.backends.registry import get_backend

    options = LowerOptions(p_error=1e-3, parameter_strategy="mono")
    return int(get_backend("concrete").lower(model, options).statistics().programmable_bootstraps)


DOMAIN = dialect.DOMAIN

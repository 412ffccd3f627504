"""Writes docs/operators.md: how each operator of ai.onnx runs encrypted, found out by compiling it.

Every operator of the newest opset stands between two layers of a small network, which goes through the passes
of the compiler. Nothing here says how an operator is lowered; ``operator_calls`` only says how to call those
that need more than one tensor. An operator of a new opset without a call and without a refusal is an error.

    python docs/make_operators.py [--check]
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser
from onnx.defs import OpSchema
from operator_calls import CALLS, Cases, normal, one

from onnx_fhe.analysis.regions.elementwise import ElementwiseProbe
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.analysis.regions.refusals import REFUSALS
from onnx_fhe.analysis.regions.regions import JOINS, POOLS, PRODUCTS
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.ir.errors import OnnxFheError, UserError
from onnx_fhe.ir.graph import LAYOUT, MAXIMA, variable_inputs
from onnx_fhe.ir.movement import Movements
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import Session
from onnx_fhe.ir.sampling import random_inputs
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.import_qat import qoperators
from onnx_fhe.passes.normalize.normalize import Normalize

PAGE = Path(__file__).parent / "operators.md"
SAMPLES = 6
PIPELINE = "quantize{weights=3 activations=2 inputs=3},lower-to-integer,fuse-tlu"
WEIGHTED = ("Conv", "Gemm", "MatMul")
FRAME = ("h", "g", "y")
"""Results of the network around the operator."""

TEXT = """# Operators

How each operator of ai.onnx {opset} runs between two layers of an encrypted network. `make docs` writes this
page: it compiles every operator in a small network. A test fails when the page is out of date.

Before the first and behind the last layer with weights the client computes everything in the clear: there any
operator that onnxruntime runs will do, and it costs nothing.

The network is a convolution to 2 x 4 x 4 = 32 elements, the operator, and a dense layer. **Lookups** counts
its table lookups, one programmable bootstrap each. 32 is what it costs without the operator too: the layer
behind wants small integers, and the lookup that makes them computes a function for free. A linear operator
reads small integers itself, so its results are looked up once more.

- *linear*: a product with constant weights. *moves elements*, *sum of elements*: free by themselves.
- *table*: any function of one encrypted element. *function of two tensors*: of two, as a table of pairs.
- *as ...*: `normalize` writes it with these operators, inside the encrypted part.
- An operator that `normalize` does not know is run on unit vectors; where it turns out affine it becomes a
  dense layer, up to 4 million matrix entries.
- Softmax inside a network is `1 / sum of exp(x_j - x_i)`, up to 16 elements: a table for every pair. Its
  error grows with the range of its inputs, as large exponentials leave few levels to small ones. Of two
  elements it is a Sigmoid of their difference. Hardmax, ArgMax and ArgMin compare all pairs, up to as many.
- Whole numbers and conditions are floats that hold them; the client converts those that a model returns.
"""
HEAD = ("", "| operator | with | how | lookups |", "| --- | --- | --- | --- |")

OTHER_TYPES = "works on integers, strings or sequences, not on the numbers of a network"


@dataclass(frozen=True)
class Row:
    """One line of the page."""

    operator: str
    case: str
    lowering: str
    cost: str


@cache
def schemas() -> tuple[OpSchema, ...]:
    """The newest version of every operator of ai.onnx that is not deprecated."""
    newest: dict[str, OpSchema] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= target_opset():
            known = newest.get(schema.name)
            if known is None or known.since_version < schema.since_version:
                newest[schema.name] = schema
    return tuple(newest[name] for name in sorted(newest) if not newest[name].deprecated)


def rows(operators: tuple[str, ...] | None = None) -> list[Row]:
    """The lines of the page, for all operators or some."""
    found = []
    for schema in schemas():
        if operators is None or schema.name in operators:
            found += _rows(schema)
    return found


def _rows(schema: OpSchema) -> list[Row]:
    name = schema.name
    cases = CALLS.get(name) or _by_schema(schema)
    refusal = REFUSALS.get(name)
    if not cases and refusal is not None:
        return [Row(name, "", f"refused: {refusal.reason}", "")]
    if not cases and name in qoperators._RULES:
        return [Row(name, "", "quantized by another tool: `import-qat` keeps its integers", "")]
    if not cases and not any("tensor(float)" in i.types for i in schema.inputs):
        what = "constant: folded when the model is loaded" if not schema.inputs else f"refused: {OTHER_TYPES}"
        return [Row(name, "", what, "")]
    if not cases:
        return [Row(name, "", "refused: no rule takes it on encrypted elements", "")]
    return [_measure(name, case, *call) for case, call in cases.items()]


def _by_schema(schema: OpSchema) -> Cases:
    """A call with one tensor, where that is enough."""
    single = OpSchema.FormalParameterOption.Single
    needed = [i for i in schema.inputs if i.option == single]
    wants_more = any(a.required for a in schema.attributes.values())
    if wants_more or len(needed) != 1 or schema.inputs[0].option != single:
        return {}
    return one(f"m = {schema.name}(h)") if "tensor(float)" in schema.inputs[0].types else {}


def _network(body: str, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    text = f"h = Conv<pads=[1,1,1,1]>(x, w0) g = Conv<pads=[1,1,1,1]>(x, w1) {body} o = Cast<to=1>(m)"
    head = f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}]>\n'
    constants = {"w0": normal(2, 1, 3, 3), "w1": normal(2, 1, 3, 3)[::-1], **weights}

    def build(result: str, **more: np.ndarray) -> onnx.ModelProto:
        proto = parser.parse_model(head + f"t (float[N,1,4,4] x) => (float {result}) {{ {text} }}")
        for key, array in (constants | more).items():
            proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), key))
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        return proto

    sample = Session(build("o")).run(random_inputs(list(build("o").graph.input), 2))["o"]
    size = sample.size // 2
    text += " f = Reshape(o, all) y = Gemm<transB=1>(f, last, zero)"
    proto = build("y", all=np.int64([-1, size]), last=normal(3, size), zero=normal(3))
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3]))
    return proto


def _measure(name: str, case: str, body: str, weights: dict[str, np.ndarray]) -> Row:
    try:
        proto = _network(body, weights)
    except OnnxFheError:
        known = REFUSALS.get(name)
        return Row(
            name, case, f"refused: {known.reason}" if known else "not run by the installed onnxruntime", ""
        )
    data = {"x": np.random.default_rng(0).normal(size=(SAMPLES, 1, 4, 4)).astype(np.float32)}
    try:
        normal_form = ir.from_proto(proto)
        Normalize()(normal_form)
        how = _lowering(name, proto, normal_form)
        result = PassManager.parse(PIPELINE).run(normal_form, Context(calibration=data))
        statistics = ReferenceBackend().lower(result.model).statistics()
    except UserError as error:
        if "quantized by another tool" in error.what:
            return Row(name, case, "quantized by another tool: `import-qat` keeps its integers", "")
        if "onnxruntime cannot load" in error.what:
            return Row(name, case, "refused: its result depends on the number of samples", "")
        if "nothing to run encrypted" in error.what:
            return Row(name, case, "constant: depends on shapes alone, folded", "")
        known = REFUSALS.get(name) if error.where.op in ("", name) else None
        reason = known.reason if known is not None else f"{error.what}; {error.do}".rstrip("; ")
        return Row(name, case, f"refused: {reason}", "")
    return Row(name, case, how, str(statistics.programmable_bootstraps))


def _lowering(name: str, proto: onnx.ModelProto, model: ir.Model) -> str:
    """How the operator runs: what normalize left of it, and what the passes' own probes say of that."""
    before = Counter(n.op_type for n in proto.graph.node if n.output[0] not in FRAME)
    after = Counter(n.op_type for n in model.graph if n.outputs[0].name not in FRAME)
    opset = model.graph.opset_imports.get("", 21)
    node = next((n for n in model.graph if n.op_type == name and n.outputs[0].name not in FRAME), None)
    if node is None:
        made = sorted(k for k in after - before if k not in LAYOUT)
        if not made:
            return "moves elements" if name in LAYOUT else "folded into weights, or gone"
        if {*WEIGHTED} & {*made} and {*made} <= {*WEIGHTED, "Slice"}:
            return f"linear, as {', '.join(made)}"
        return f"as {', '.join(made)}"
    variable = variable_inputs(node)
    if linear_of(node) is not None:
        return "linear"
    if node.op_type in LAYOUT or Movements(opset)(node) is not None:
        return "moves elements"
    if node.op_type in POOLS:
        return "sum of elements"
    if len(variable) > 1 and node.op_type in JOINS:
        return "sum of two tensors"
    if len(variable) > 1 and node.op_type in PRODUCTS:
        return "products of encrypted elements"
    if ElementwiseProbe(opset)(node, variable):
        return "table" if len(variable) == 1 else "function of two tensors"
    return "maxima of elements" if node.op_type in MAXIMA else "mixes elements"


def page() -> str:
    """The text of docs/operators.md."""
    lines = [*TEXT.format(opset=target_opset()).splitlines(), *HEAD]
    lines += [f"| {r.operator} | {r.case} | {r.lowering} | {r.cost} |" for r in rows()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is out of date."""
    text = page()
    if "--check" in arguments:
        fresh = PAGE.exists() and PAGE.read_text() == text
        print("docs/operators.md is up to date" if fresh else "docs/operators.md is out of date: make docs")
        return 0 if fresh else 1
    PAGE.write_text(text)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Writes docs/operators.md: how each operator of ai.onnx runs encrypted, found out by compiling it.

Every operator of the newest opset stands between two layers of a small network, which goes through the passes
of the compiler. Nothing here says how an operator is lowered; ``EXAMPLES`` only says how to call those that
need more than one tensor. An operator of a new opset without an example and without a refusal is an error.

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
INTS = np.int64
FRAME = ("h", "g", "y")
"""Results of the network around the operator."""


def normal(*size: int) -> np.ndarray:
    """Constants for examples."""
    return np.random.default_rng(sum(size)).normal(size=size).astype(np.float32)


def _pair(op: str, **weights: np.ndarray) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    return {
        "a constant": (f"m = {op}(h, c)", weights or {"c": np.float32(0.5)}),
        "two encrypted": (f"m = {op}(h, g)", {}),
    }


def _bits(op: str) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    four = {"four": np.float32(4)}
    one, both = "u = Mul(h, four) i = Cast<to=6>(u) ", "v = Mul(g, four) j = Cast<to=6>(v) "
    return {
        "a constant": (f"{one}m = {op}(i, c)", {"c": np.int32(3), **four}),
        "two encrypted": (f"{one}{both}m = {op}(i, j)", four),
    }


def _logic(op: str) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    return {"two encrypted": (f"p = Greater(h, c) q = Less(g, c) m = {op}(p, q)", {"c": np.float32(0.1)})}


def _one(body: str, **weights: np.ndarray) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    return {"": (body, weights)}


EXAMPLES: dict[str, dict[str, tuple[str, dict[str, np.ndarray]]]] = {
    **{op: _pair(op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Mod")},
    **{op: _pair(op) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{op: _logic(op) for op in ("And", "Or", "Xor")},
    **{op: _bits(op) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "Mod": {
        "a constant": ("m = Mod<fmod=1>(h, c)", {"c": np.float32(0.5)}),
        "two encrypted": ("m = Mod<fmod=1>(h, g)", {}),
    },
    "Pow": {
        "a constant": ("m = Pow(h, c)", {"c": np.float32(2)}),
        "two encrypted": ("a = Abs(h) m = Pow(a, g)", {}),
    },
    "PRelu": {
        "a constant": ("m = PRelu(h, c)", {"c": normal(2, 1, 1)}),
        "two encrypted": ("m = PRelu(h, g)", {}),
    },
    "Not": _one("p = Greater(h, c) m = Not(p)", c=np.float32(0.1)),
    "BitwiseNot": _one("i = Cast<to=6>(h) m = BitwiseNot(i)"),
    "BitShift": _one('i = Cast<to=12>(h) m = BitShift<direction="LEFT">(i, c)', c=np.uint32(1)),
    "Where": {
        "a constant condition": ("m = Where(c, h, g)", {"c": np.arange(32).reshape(2, 4, 4) % 3 == 0}),
        "an encrypted condition": ("p = Greater(h, c) m = Where(p, h, c)", {"c": np.float32(0.1)}),
        "all encrypted": ("p = Greater(g, c) m = Where(p, h, g)", {"c": np.float32(0.1)}),
    },
    "Cast": _one("m = Cast<to=6>(h)"),
    "CastLike": _one("m = CastLike(h, c)", c=np.int32(1)),
    "BatchNormalization": _one("m = BatchNormalization(h, s, b, b, s)", s=np.float32([0.5, 2]), b=normal(2)),
    "InstanceNormalization": _one("m = InstanceNormalization(h, s, b)", s=normal(2), b=normal(2)),
    "GroupNormalization": _one("m = GroupNormalization<num_groups=1>(h, s, b)", s=normal(2), b=normal(2)),
    "LayerNormalization": _one("m = LayerNormalization(h, s, b)", s=normal(4), b=normal(4)),
    "RMSNormalization": _one("m = RMSNormalization(h, s)", s=normal(4)),
    "MeanVarianceNormalization": _one("m = MeanVarianceNormalization<axes=[1,2,3]>(h)"),
    "LpNormalization": _one("m = LpNormalization<axis=1>(h)"),
    "Softmax": _one("m = Softmax<axis=-1>(h)"),
    "LRN": _one("m = LRN<size=3>(h)"),
    "Conv": _one("m = Conv<pads=[1,1,1,1]>(h, k)", k=normal(2, 2, 3, 3)),
    "ConvTranspose": _one("m = ConvTranspose<strides=[2,2]>(h, k)", k=normal(2, 2, 2, 2)),
    "Gemm": _one("r = Flatten(h) m = Gemm(r, k)", k=normal(32, 8)),
    "MatMul": {
        "a constant": ("m = MatMul(h, k)", {"k": normal(4, 5)}),
        "a constant on the left": ("m = MatMul(k, h)", {"k": normal(5, 4)}),
        "two encrypted": ("m = MatMul(h, g)", {}),
    },
    "Einsum": {
        "a constant": ('m = Einsum<equation="bcij,jk->bcik">(h, k)', {"k": normal(4, 3)}),
        "two encrypted": ('m = Einsum<equation="bcij,bcjk->bcik">(h, g)', {}),
    },
    "AveragePool": _one("m = AveragePool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "MaxPool": _one("m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "LpPool": _one("m = LpPool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "ReduceMax": _one("m = ReduceMax(h, a)", a=INTS([3])),
    "ReduceMin": _one("m = ReduceMin(h, a)", a=INTS([3])),
    **{
        f"Reduce{k}": _one(f"m = Reduce{k}(h, a)", a=INTS([3]))
        for k in ("Sum", "Mean", "L1", "L2", "SumSquare")
    },
    "ReduceLogSumExp": _one("m = ReduceLogSumExp(h, a)", a=INTS([3])),
    "ReduceLogSum": _one("e = Exp(h) m = ReduceLogSum(e, a)", a=INTS([3])),
    "CumSum": _one("m = CumSum(h, a)", a=INTS(3)),
    "Concat": _one("m = Concat<axis=1>(h, g)"),
    "Slice": _one("m = Slice(h, s, e, a)", s=INTS([0]), e=INTS([3]), a=INTS([2])),
    "Split": _one("m, n = Split<axis=1, num_outputs=2>(h)"),
    "Pad": _one("m = Pad(h, p)", p=INTS([0, 0, 1, 1, 0, 0, 1, 1])),
    "Gather": {
        "constant indices": ("m = Gather<axis=1>(h, i)", {"i": INTS([1, 0])}),
        "encrypted indices": (
            "b = Clip(h, z, t) i = Cast<to=7>(b) m = Gather(k, i)",
            {"z": np.float32(0), "t": np.float32(2), "k": normal(3)},
        ),
        "encrypted indices of rows": (
            "b = Clip(h, z, t) i = Cast<to=7>(b) m = Gather(k, i)",
            {"z": np.float32(0), "t": np.float32(2), "k": normal(3, 2)},
        ),
    },
    "ScatterElements": _one(
        "m = ScatterElements<axis=3>(h, i, u)",
        i=np.zeros((1, 1, 1, 1), INTS),
        u=np.ones((1, 1, 1, 1), np.float32),
    ),
    "OneHot": _one(
        "b = Clip(h, z, t) i = Cast<to=7>(b) m = OneHot(i, d, v)",
        z=np.float32(0),
        t=np.float32(2),
        d=INTS(3),
        v=np.float32([0, 1]),
    ),
    "Reshape": _one("m = Reshape(h, s)", s=INTS([0, 4, 8])),
    "Transpose": _one("m = Transpose<perm=[0,2,3,1]>(h)"),
    "Unsqueeze": _one("m = Unsqueeze(h, a)", a=INTS([2])),
    "Squeeze": _one("u = Slice(h, s, e, a) m = Squeeze(u, a)", s=INTS([0]), e=INTS([1]), a=INTS([1])),
    "Expand": _one("u = Unsqueeze(h, a) m = Expand(u, s)", a=INTS([2]), s=INTS([1, 2, 2, 4, 4])),
    "Tile": _one("m = Tile(h, r)", r=INTS([1, 1, 2, 1])),
    "CenterCropPad": _one("m = CenterCropPad<axes=[2,3]>(h, s)", s=INTS([2, 2])),
    "DepthToSpace": _one("u = Concat<axis=1>(h, g) m = DepthToSpace<blocksize=2>(u)"),
    "SpaceToDepth": _one("m = SpaceToDepth<blocksize=2>(h)"),
    "Resize": {
        "nearest": ("m = Resize(h, , s)", {"s": np.float32([1, 1, 2, 2])}),
        "linear": ('m = Resize<mode="linear">(h, , s)', {"s": np.float32([1, 1, 2, 2])}),
    },
    "QuantizeLinear": _one(
        "q = QuantizeLinear(h, s, z) m = DequantizeLinear(q, s, z)", s=np.float32(0.1), z=np.uint8(128)
    ),
    "DequantizeLinear": _one(
        "q = QuantizeLinear(h, s, z) m = DequantizeLinear(q, s, z)", s=np.float32(0.1), z=np.uint8(128)
    ),
    "Col2Im": _one(
        "r = Reshape(h, s) m = Col2Im<strides=[2,2]>(r, i, b)",
        s=INTS([0, 8, 4]),
        i=INTS([4, 4]),
        b=INTS([2, 2]),
    ),
    "ArgMax": _one("m = ArgMax<axis=1>(h)"),
    "ArgMin": _one("m = ArgMin<axis=1>(h)"),
    "ReduceProd": _one("m = ReduceProd(h, a)", a=INTS([3])),
    "Attention": _one("m = Attention(h, h, h)"),
}
"""Calls by operator and case: from ``h`` (2 x 4 x 4, encrypted) and ``g`` (the same shape) to ``m``."""

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
    cases = EXAMPLES.get(name) or _by_schema(schema)
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


def _by_schema(schema: OpSchema) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """A call with one tensor, where that is enough."""
    single = OpSchema.FormalParameterOption.Single
    needed = [i for i in schema.inputs if i.option == single]
    wants_more = any(a.required for a in schema.attributes.values())
    if wants_more or len(needed) != 1 or schema.inputs[0].option != single:
        return {}
    return _one(f"m = {schema.name}(h)") if "tensor(float)" in schema.inputs[0].types else {}


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
    proto = build("y", all=INTS([-1, size]), last=normal(3, size), zero=normal(3))
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

"""Every pass keeps names, order, types and ranks of inputs and outputs, or the verifier names it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

import onnx_fhe
from onnx_fhe.analysis.regions.server import server_nodes
from onnx_fhe.ir.errors import VerificationError
from onnx_fhe.ir.interface import Interface
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, Pass, PassManager
from onnx_fhe.passes.framework.instruments import Verify
from onnx_fhe.passes.normalize.normalize import Normalize

PLAIN = "normalize,quantize,lower-to-integer,fuse-tlu"
SHAPES: dict[int, list[int]] = {2: [5], 3: [2, 4], 4: [2, 4, 4]}


def loaded(proto: onnx.ModelProto) -> ir.Model:
    """The model as it comes out of a file."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(proto, Path(folder) / "m.onnx")
        return load(Path(folder) / "m.onnx")


class Graph:
    """A chain of layers with side branches, that any value may be returned from."""

    def __init__(self, shape: list[int]) -> None:
        self.random = np.random.default_rng(len(shape))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[tuple[str, list[int]]] = [("x", shape)]

    def constant(self, *size: int, of: Any = None) -> str:
        array = self.random.normal(size=size).astype(np.float32) if of is None else np.asarray(of)
        self.weights.append(numpy_helper.from_array(array, f"c{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op: str, source: tuple[str, list[int]]) -> None:
        """Put a layer behind a value, where one of its kind can stand there."""
        shape = source[1]
        made, inputs, attributes = shape, [source[0]], {}
        if op in ("MatMul", "Gemm"):
            op = op if len(shape) == 1 else "MatMul"
            made = [*shape[:-1], 3]
            inputs += [self.constant(shape[-1], 3)] + ([self.constant(3)] if op == "Gemm" else [])
        elif op in ("Add", "Mul"):
            inputs.append(self.constant(shape[-1]))
        elif op == "Sum":  # of two encrypted tensors
            op, other = "Add", [v for v, s in self.values if s == shape]
            inputs.append(other[0])
        elif op == "Transpose":
            order = list(range(len(shape), 0, -1))
            attributes, made = {"perm": [0, *order]}, shape[::-1]
        elif op == "Reshape":
            made = [int(np.prod(shape))]
            inputs.append(self.constant(of=np.int64([-1, *made])))
        elif op in ("Conv", "MaxPool", "AveragePool"):
            if len(shape) != 3 or min(shape[1:]) < 2:
                return
            if op == "Conv":
                inputs.append(self.constant(3, shape[0], 3, 3))
                attributes, made = {"pads": [1, 1, 1, 1]}, [3, *shape[1:]]
            else:
                attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
                made = [shape[0], shape[1] // 2, shape[2] // 2]
        self.nodes.append(helper.make_node(op, inputs, [f"v{len(self.nodes)}"], **attributes))
        self.values.append((f"v{len(self.nodes) - 1}", made))

    def model(self, outputs: list[int]) -> onnx.ModelProto:
        """The model that returns values by number; one that is returned again, or an input, by a copy."""
        returned: list[tuple[str, list[int]]] = []
        for number in outputs:
            name, shape = self.values[number % len(self.values)]
            if name == "x" or any(name == r for r, _ in returned):
                self.nodes.append(helper.make_node("Identity", [name], [f"copy{len(self.nodes)}"]))
                name = f"copy{len(self.nodes) - 1}"
            returned.append((name, shape))
        infos = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in ports]
            for ports in (self.values[:1], returned)
        ]
        graph = helper.make_graph(self.nodes, "g", *infos, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LAYERS = st.sampled_from(["MatMul", "Gemm", "Conv", "Relu", "Sigmoid", "Add", "Mul", "Sum"])

MOVES = st.sampled_from(["Neg", "Transpose", "Reshape", "MaxPool", "AveragePool"])


@st.composite
def graphs(draw: st.DrawFn) -> tuple[onnx.ModelProto, list[int]]:
    shape = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]
    graph = Graph(shape)
    for op in draw(st.lists(LAYERS | MOVES, min_size=1, max_size=5)):
        graph.add(op, graph.values[draw(st.sampled_from([-1, -1, -1, 0]))])
    last = len(graph.values) - 1
    outputs = [last, *draw(st.lists(st.integers(0, last), max_size=3))]
    return graph.model(draw(st.permutations(outputs))), shape


def compiled_as_declared(proto: onnx.ModelProto, shape: list[int], pipeline: str = PLAIN) -> None:
    data = {"x": np.random.default_rng(1).normal(size=(40, *shape)).astype(np.float32)}
    model = loaded(proto)
    if not server_nodes(Normalize()(model.clone()).model):
        return  # nothing that is encrypted
    program = onnx_fhe.compile(model, data, pipeline=pipeline, backend="reference")
    wanted, found = run(proto, data), program.run(data).outputs
    assert list(found) == list(wanted) == [o.name for o in proto.graph.output]
    for name, array in wanted.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_outputs_at_odd_places_keep_names_order_and_shapes(drawn):
    compiled_as_declared(*drawn)


@pytest.mark.parametrize(
    ("layers", "pipeline"),
    [("MatMul Relu MatMul", "balanced"), ("MatMul MatMul", "fast"), ("Relu MatMul Sum", PLAIN)],
)
def test_a_product_of_rank_three_is_an_output_by_its_name(layers, pipeline):
    graph = Graph([2, 4])
    for op in layers.split():
        graph.add(op, graph.values[-1])
    compiled_as_declared(graph.model([-1, 1]), [2, 4], pipeline)


TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3] x, float[N,3] z) => (float[N,3] y, float[N,3] w) { y = Relu(x) w = Neg(z) }"""


@dataclass(frozen=True)
class Breaks(Pass):
    """A plug-in's pass that changes one thing about the interface."""

    name: ClassVar[str] = "breaks"

    def run(self, model: ir.Model, context: Context) -> bool:
        self.change(model.graph)
        return True

    def change(self, graph: ir.Graph) -> None:
        raise NotImplementedError


class Renames(Breaks):
    def change(self, graph: ir.Graph) -> None:
        graph.outputs[0].name = "other"


class Reorders(Breaks):
    def change(self, graph: ir.Graph) -> None:
        graph.outputs[:] = list(graph.outputs)[::-1]


class Drops(Breaks):
    def change(self, graph: ir.Graph) -> None:
        graph.outputs.pop()


class Flattens(Breaks):
    def change(self, graph: ir.Graph) -> None:
        graph.outputs[0].shape = ir.Shape(["N"])


class Retypes(Breaks):
    def change(self, graph: ir.Graph) -> None:
        graph.inputs[0].dtype = graph.outputs[0].dtype = ir.DataType.DOUBLE


@pytest.mark.parametrize("broken", [Renames, Reorders, Drops, Flattens, Retypes])
def test_a_pass_that_changes_the_interface_is_named(broken):
    model = loaded(parser.parse_model(TEXT))
    with pytest.raises(VerificationError, match="looks like from outside") as caught:
        PassManager([broken()], [Verify(dict.fromkeys("xz", np.ones((4, 3), np.float32)))]).run(model)
    assert caught.value.where.pass_name == "breaks"
    assert "puts" in caught.value.found
    assert caught.value.found != caught.value.allowed


def test_a_batch_of_one_may_become_free_and_its_results_stacked():
    def of(x: str, y: str) -> Interface:
        graph = f"g (float[{x}] x) => (float[{y}] y) {{ y = Relu(x) }}"
        return Interface.of(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {graph}'))

    free = of("N,3", "N,3")
    for same in (("1,3", "1,3"), ("1,3", "3"), ("N,k", "N,k")):
        assert of(*same).difference(free) is None
    for other in (("N,3", "N"), ("N,3", "N,3,1"), ("1,3", "3,3,1"), ("1,3,1", "1,3")):
        assert of(*other).difference(free) is not None

"""Structured removal: what goes together, what stays and why, what goes for nothing, and accuracy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from float_networks import check, content, data_of, graph, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_fhe.analysis.cost.cost import estimate_float
from onnx_fhe.analysis.cost.timing import default_timings
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.ir.convert import convert
from onnx_fhe.ir.errors import DataError, PipelineError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.compress.remove_neurons.remove_neurons import RemoveNeurons
from onnx_fhe.passes.compress.remove_neurons.shrink import shrink
from onnx_fhe.passes.compress.remove_neurons.structure import Room, find_structure
from onnx_fhe.passes.compress.remove_neurons.weights import Weights
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.passes.normalize.normalize import Normalize


def shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.const_value.shape.numpy()) for k, v in model.graph.initializers.items()}


def remove_exactly(model: ir.Model) -> int:
    """Run the pass with its defaults and check all that it claims; how many channels are fewer."""
    data = data_of(model)
    before, text = run(model, data), content(model)
    channels = channels_of(model)
    result = RemoveNeurons()(model)
    assert result.modified == (content(model) != text)
    check(model)
    after = run(model, data)
    for name, array in before.items():
        np.testing.assert_allclose(
            after[name], array, rtol=1e-4, atol=1e-5 * max(1, float(np.abs(array).max()))
        )
    assert RemoveNeurons()(model).modified is False
    return channels - channels_of(model)


def channels_of(model: ir.Model) -> int:
    return sum(linear.channels for node in model.graph if (linear := linear_of(node)))


def zeroed(array: np.ndarray, *rows: int, axis: int = 0) -> np.ndarray:
    array = array.copy()
    np.moveaxis(array, axis, 0)[list(rows)] = 0
    return array


def test_text_before_and_after():
    model = graph(
        "h = Gemm <transB=1> (x, w1, b1) r = Relu(h) y = Gemm <transB=1> (r, w2, b2)",
        # Row 2 is row 0 again, row 1 is a constant, nobody listens to row 3.
        w1=np.float32([[1, 2, 3], [0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        b1=np.float32([1, 2, 1, 1, 1]),
        w2=np.float32([[1, 10, 2, 0, 3], [4, -10, 5, 0, 6]]),
        b2=np.float32([0.5, 0.25]),
    )
    context = Context()
    assert RemoveNeurons(context=context)(model).modified
    weights = {k: v.const_value.numpy().tolist() for k, v in model.graph.initializers.items()}
    assert weights == {
        "w1": [[1, 2, 3], [7, 8, 9]],
        "b1": [1, 1],
        "w2": [[3, 3], [9, 6]],
        "b2": [20.5, -19.75],
    }
    assert [f"{n.name} {n.outputs[0].shape}" for n in model.graph] == [
        "gemm0 [N,2]",
        "relu1 [N,2]",
        "gemm2 [N,2]",
    ]
    assert context.notes[0] == (
        "remove-neurons: removed 3 of 5 neurons or channels, 3 of them at no cost: gemm0 5 to 2"
    )
    assert context.notes[1] == "remove-neurons: left alone: gemm2: reaches the graph output y"


def test_one_unit_is_left_of_every_layer():
    model = graph(
        "h = Gemm <transB=1> (x, w1, b1) r = Relu(h) y = Gemm <transB=1> (r, w2, b2)",
        w1=np.zeros((4, 3), np.float32),
        b1=normal(4),
        w2=normal(2, 4),
        b2=normal(2),
    )
    assert remove_exactly(model) == 3
    assert shapes(model)["w1"] == (1, 3)


def test_a_removal_goes_on_upstream_and_downstream():
    first, second = normal(4, 3), normal(4, 4, seed=1)
    second[:, 1] = 0  # unit 1 of the first layer is heard only by ...
    second[2, 1] = 5  # ... unit 2 of the second, which nobody hears
    second[3] = 0
    second[3, 2] = 1  # unit 3 of the second hears only unit 2 of the first, which is constant
    model = graph(
        "a = Gemm <transB=1> (x, w1, b1) b = Relu(a) c = Gemm <transB=1> (b, w2, b2) d = Relu(c)"
        " y = Gemm <transB=1> (d, w3, b3)",
        w1=zeroed(first, 2),
        b1=normal(4),
        w2=second,
        b2=normal(4),
        w3=zeroed(normal(2, 4), 2, axis=1),
        b3=normal(2),
    )
    assert remove_exactly(model) == 4
    assert shapes(model) == {"w1": (2, 3), "b1": (2,), "w2": (2, 2), "b2": (2,), "w3": (2, 2), "b3": (2,)}


def test_a_constant_channel_in_front_of_padding_stays_unless_it_is_zero():
    body = (
        "a = Conv <kernel_shape=[1,1]> (x, w1, b1) b = Relu(a) c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]>"
        " (b, w2) d = Relu(c) e = Flatten(d) y = Gemm <transB=1> (e, w3, b3)"
    )

    def model(bias: float) -> ir.Model:
        return graph(
            body,
            inputs="float[N,1,3,3] x",
            w1=np.float32([1, 0]).reshape(2, 1, 1, 1),
            b1=np.float32([0.5, bias]),
            w2=normal(2, 2, 3, 3),
            w3=normal(2, 18),
            b3=normal(2),
        )

    assert remove_exactly(model(1.0)) == 0
    assert remove_exactly(model(-1.0)) == 1  # Relu makes it zero


def test_units_that_a_matmul_reads_go_into_an_add():
    model = graph(
        "a = MatMul(x, w1) b = Add(a, b1) c = Sigmoid(b) y = MatMul(c, w2)",
        inputs="float[N,4,3] x",
        outputs="float[N,4,2] y",
        w1=zeroed(normal(3, 5), 1, 4, axis=1),
        b1=normal(5),
        w2=normal(5, 2),
    )
    assert remove_exactly(model) == 2
    assert [n.op_type for n in model.graph] == ["MatMul", "Add", "Sigmoid", "MatMul", "Add"]
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("body", "weights", "units", "left"),
    [
        pytest.param(
            "a = Gemm<transB=1>(x, w1, b1) r = Relu(a) c = Gemm<transB=1>(r, w2, b2) d = Add(r, c)"
            " y = Gemm<transB=1>(d, w3)",
            {"w1": (4, 3), "b1": (4,), "w2": (4, 4), "b2": (4,), "w3": (2, 4)},
            4,
            {"w1": (2, 3), "b1": (2,), "w2": (2, 2), "b2": (2,), "w3": (2, 2)},
            id="residual",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1) c = Gemm<transB=1>(x, w2) d = Concat<axis=1>(a, c) e = Tanh(d)"
            " y = Gemm<transB=1>(e, w3)",
            {"w1": (4, 3), "w2": (2, 3), "w3": (2, 6)},
            6,
            {"w1": (2, 3), "w2": (1, 3), "w3": (2, 3)},
            id="concat",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1) b, c = Split<axis=1>(a, sizes) d = Relu(b) e = Gemm<transB=1>(d, w2)"
            " f = Gemm<transB=1>(c, w3) y = Add(e, f)",
            {"w1": (6, 3), "sizes": np.int64([4, 2]), "w2": (2, 4), "w3": (2, 2)},
            6,
            {"w1": (3, 3), "w2": (2, 2), "w3": (2, 1)},
            id="split",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1) b = Slice(a, starts, ends, axes, steps) y = Gemm<transB=1>(b, w2)",
            {
                "w1": (6, 3),
                "starts": np.int64([-1]),
                "ends": np.int64([-(2**62)]),
                "axes": np.int64([1]),
                "steps": np.int64([-2]),
                "w2": (2, 3),
            },
            6,
            # Every other unit went; the three that the Slice leaves out are dead besides.
            {"w1": (3, 3), "w2": (2, 3)},
            id="slice",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1) b = PRelu(a, slope) c = Reshape(b, cube)"
            " d = Transpose<perm=[0,2,3,1]>(c) e = Reshape(d, rows) y = Gemm<transB=1>(e, w2)",
            {
                "w1": (8, 3),
                "slope": (8,),
                "cube": np.int64([-1, 8, 1, 1]),
                "rows": np.int64([0, 8]),
                "w2": (2, 8),
            },
            8,
            {"w1": (4, 3), "slope": (4,), "cube": (4,), "rows": (2,), "w2": (2, 4)},
            id="reshape-transpose",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1) b = Relu(a) c = Gemm<transB=1>(b, w2) d = Relu(c)"
            " e = Gemm<transB=1>(d, w2) f = Tanh(e) y = Gemm<transB=1>(f, w3)",
            {"w1": (4, 3), "w2": (4, 4), "w3": (2, 4)},
            4,
            {"w1": (2, 3), "w2": (2, 2), "w3": (2, 2)},
            id="shared-weights",
        ),
    ],
)
def test_every_other_unit_goes(body, weights, units, left):
    arrays = {
        k: normal(*v, seed=i) if isinstance(v, tuple) else v for i, (k, v) in enumerate(weights.items())
    }
    model = graph(body, **arrays)
    structure = find_structure(model)
    assert len(structure.units) == units
    gone = structure.units[::2]
    marked = Weights(model, structure)
    for unit in gone:
        marked.remove(unit)
    marked.store()
    data = data_of(model)
    before = run(model, data)["y"]
    shrink(model, structure.linears, structure.keep(gone))
    check(model)
    np.testing.assert_allclose(run(model, data)["y"], before, rtol=1e-5, atol=1e-5)
    found = shapes(model)
    assert {k: found[k] for k in left} == left


def test_convolutions_in_groups_lose_whole_groups_and_depthwise_ones_follow_their_producer():
    model = graph(
        "a = Conv<kernel_shape=[1,1]>(x, w1) b = Relu(a) c = Conv<kernel_shape=[3,3], group=6>(b, w2)"
        " d = BatchNormalization(c, scale, shift, mean, var) e = Relu(d) f = Conv<kernel_shape=[1,1]>(e, w3)"
        " g = Relu(f) h = Conv<kernel_shape=[1,1], group=2>(g, w4) i = GlobalAveragePool(h) j = Flatten(i)"
        " y = Gemm<transB=1>(j, w5)",
        inputs="float[N,2,4,4] x",
        w1=normal(6, 2, 1, 1),
        w2=zeroed(normal(6, 1, 3, 3), 1, 4),
        scale=normal(6),
        shift=normal(6),
        mean=normal(6),
        var=np.abs(normal(6)) + 1,
        w3=normal(8, 6, 1, 1),
        w4=normal(4, 4, 1, 1),
        w5=zeroed(normal(2, 4), 2, 3, axis=1),
    )
    layers = {tuple(n.name for n in k): len(v) for k, v in find_structure(model).layers().items()}
    assert layers == {("conv0", "conv2"): 6, ("conv5", "conv7"): 2}
    # Two of six channels, one of two groups: eight to four, four to two.
    assert remove_exactly(model) == 2 * 2 + 4 + 2
    found = {n.name: n for n in model.graph}
    assert found["conv2"].attributes["group"].as_int() == 4
    assert found["conv7"].attributes["group"].as_int() == 1
    assert shapes(model)["w4"] == (2, 4, 1, 1)


@pytest.mark.parametrize(
    ("body", "inputs", "weights", "node", "reason"),
    [
        (
            "a = Gemm<transB=1>(x, w) y = Add(a, x)",
            "float[N,3] x",
            {"w": (3, 3)},
            "gemm0",
            "add1 (Add) joins it with what stays",
        ),
        (
            "a = Gemm<transB=1>(x, w) b = Hardmax<axis=1>(a) y = Gemm<transB=1>(b, w2)",
            "float[N,3] x",
            {"w": (20, 3), "w2": (3, 20)},
            "gemm0",
            "hardmax1 (Hardmax) mixes channels",
        ),
        (
            "a = Conv<kernel_shape=[1,1]>(x, w) b = Relu(a) y = MatMul(b, w2)",
            "float[N,2,3,3] x",
            {"w": (4, 2, 1, 1), "w2": (3, 3)},
            "conv0",
            "along another axis",
        ),
        (
            "a = Gemm<transB=1>(x, w) b = Gather<axis=1>(a, square) c = Flatten(b) y = Gemm<transB=1>(c, w2)",
            "float[N,3] x",
            {"w": (4, 3), "w2": (3, 4), "square": np.int64([[3, 1], [0, 2]])},
            "gemm0",
            "gather1 (Gather) cannot be made smaller",
        ),
    ],
)
def test_what_stays_and_why(body, inputs, weights, node, reason):
    arrays = {k: normal(*v) if isinstance(v, tuple) else v for k, v in weights.items()}
    outputs = "float[N,4,3,3] y" if "Conv" in body else "float[N,3] y"
    model = graph(body, inputs=inputs, outputs=outputs, **arrays)
    structure = find_structure(model)
    assert not structure.units
    assert reason in structure.reasons[node]
    before = content(model)
    context = Context(calibration=data_of(model))
    assert RemoveNeurons(ratio=0.9, context=context)(model).modified is False
    assert content(model) == before
    assert any(structure.reasons[node] in note for note in context.notes)


STEPS = (
    "linear",
    "relu",
    "affine",
    "residual",
    "minus",
    "concat",
    "split",
    "slice",
    "depthwise",
    "groups",
    "shared",
    "transpose",
    "reshape",
    "pool",
    "gate",
)


@st.composite
def networks(draw) -> onnx.ModelProto:
    """Chains of everything that carries a removal, with rows and columns of zeros and rows that repeat."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    spatial = [4, 4] if draw(st.booleans()) else []
    width = draw(st.integers(2, 3))
    inputs = ["N", width, *spatial]
    nodes, weights = [], []
    value = "x"

    def constant(array, dtype=np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array, dtype), f"w{len(weights)}"))
        return weights[-1].name

    def node(op, *operands, outputs=1, **attributes):
        names = [f"v{len(nodes)}_{i}" for i in range(outputs)]
        nodes.append(helper.make_node(op, operands, names, name=f"{op}_{len(nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def matrix(out, into) -> np.ndarray:
        size = (out, into, *[1 if draw(st.booleans()) else 3 for _ in spatial[:1]] * len(spatial))
        array = random.normal(size=size)
        # The same channels in every layer, so that coupled ones meet.
        kind = draw(st.sampled_from(["rows", "columns", "repeat", "plain"]))
        if kind == "rows":
            array[1::3] = 0
        elif kind == "columns":
            array[:, 1::3] = 0
        elif kind == "repeat":
            array[-1] = array[0]
        return array

    def linear(x, array, group=1, weight=None):
        bias = np.round(random.normal(size=len(array)))
        bias[-1] = bias[0]
        weight = weight or constant(array)
        if not spatial:
            return node("Gemm", x, weight, constant(bias), transB=1)
        pads = [array.shape[-1] // 2] * 4
        return node("Conv", x, weight, constant(bias), group=group, pads=pads)

    value = linear(value, matrix(4, width))
    width = 4
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        ones = [1] * len(spatial)
        if step == "linear":
            out = draw(st.sampled_from([2, 3, 4, 6]))
            value, width = linear(value, matrix(out, width)), out
        elif step == "relu":
            value = node("Relu", value)
        elif step == "affine":
            value = node("Mul", value, constant(random.uniform(0.5, 2, (width, *ones))))
            value = node("Add", node("Relu", value), constant(random.normal(size=(1, width, *ones))))
        elif step in ("residual", "minus"):
            other = linear(node("Relu", value), matrix(width, width))
            value = node("Add" if step == "residual" else "Sub", value, other)
        elif step == "concat":
            value = node("Concat", value, node("Tanh", linear(value, matrix(3, width))), axis=1)
            width += 3
        elif step == "split" and width > 2:
            sizes = constant([width - 2, 2], np.int64)
            left, right = node("Split", value, sizes, outputs=2, axis=1)
            value = node("Concat", node("Relu", right), left, axis=1)
        elif step == "slice" and width > 3:
            start, stride = draw(st.sampled_from([(0, 1), (1, 1), (0, 2), (-1, -1)]))
            end = width if stride > 0 else -(2**31)
            operands = [constant([n], np.int64) for n in (start, end, 1, stride)]
            value = node("Slice", value, *operands)
            width = len(range(width)[slice(start, width if stride > 0 else None, stride)])
        elif step == "depthwise" and spatial:
            array = random.normal(size=(width, 1, 3, 3))
            array[1::3] = 0
            value = linear(value, array, group=width)
        elif step == "groups" and spatial and width % 2 == 0:
            value = linear(value, matrix(width, width // 2), group=2)
        elif step == "shared":
            array = matrix(width, width)
            name = constant(array)
            value = linear(node("Relu", linear(value, array, weight=name)), array, weight=name)
        elif step == "transpose" and spatial:
            value = node("Relu", node("Transpose", value, perm=[0, 2, 3, 1]))
            value = node("Transpose", value, perm=[0, 3, 1, 2])
        elif step == "reshape" and width % 2 == 0:
            value = node("Reshape", value, constant([-1, 2, width // 2, *spatial], np.int64))
            value = node("Reshape", value, constant([0, width, *(spatial or [])], np.int64))
        elif step == "pool" and spatial:
            op = draw(st.sampled_from(["AveragePool", "MaxPool"]))
            value = node(op, value, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif step == "gate":
            value = node("Mul", value, node("Sigmoid", value))
    if spatial:
        value = node("Flatten", value)
    into = width * int(np.prod(spatial))
    array = random.normal(size=(2, into))
    array[:, : into // 4] = 0
    value = node("Gemm", node("Relu", value), constant(array), constant(random.normal(size=2)), transB=1)
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, ["N", 2])],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", target_opset())],
        ir_version=target_ir_version(),
    )


@settings(max_examples=60)
@given(networks())
def test_dead_neurons_of_random_networks_go_without_a_trace(proto):
    model = ir.from_proto(proto)
    Normalize()(model)
    remove_exactly(model)


@settings(max_examples=60)
@given(networks(), st.integers(0, 2**16))
def test_any_units_of_random_networks_can_go(proto, seed):
    """Whatever is marked by zeros computes the same when it is gone."""
    model = ir.from_proto(proto)
    Normalize()(model)
    structure, channels = find_structure(model), channels_of(model)
    room, weights, gone = Room(structure.units), Weights(model, structure), []
    random = np.random.default_rng(seed)
    for unit in random.permutation(np.array(structure.units, object)):
        if random.random() < 0.5 and room.allows(unit):
            room.remove(unit)
            weights.remove(unit)
            gone.append(unit)
    weights.store()
    data = data_of(model)
    before = run(model, data)
    shrink(model, structure.linears, structure.keep(gone))
    check(model)
    after = run(model, data)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_allclose(
            after[name], array, rtol=1e-4, atol=1e-5 * max(1, float(np.abs(array).max()))
        )
    assert channels_of(model) == channels - sum(len(unit.births) for unit in gone)


def test_most_of_the_zoo_has_units(small):
    proto = small.proto
    model = ir.from_proto(convert(proto))
    Normalize()(model)
    structure = find_structure(model)
    assert structure.units
    assert structure.reasons
    context = Context(calibration=small.data)
    assert RemoveNeurons(ratio=0.5, context=context)(model).modified
    check(model)
    assert [o.name for o in model.graph.outputs] == [o.name for o in proto.graph.output]


def accuracy(model: ir.Model, example) -> float:
    logits = run(model, example.test_data)["logits"]
    return float((logits.argmax(axis=1) == example.labels).mean())


def removed(example, **options) -> tuple[ir.Model, Context]:
    model = load(example.model)
    Normalize()(model)
    context = Context(calibration=example.calibration_data)
    assert RemoveNeurons(**options, context=context)(model).modified
    check(model)
    return model, context


@pytest.mark.parametrize(("ratio", "loss"), [(0.5, 0.01), (0.75, 0.035)])
def test_digits_mlp_keeps_its_accuracy(digits_mlp, ratio, loss):
    model, context = removed(digits_mlp, ratio=ratio)
    assert accuracy(model, digits_mlp) >= accuracy(load(digits_mlp.model), digits_mlp) - loss
    assert f"removed {round(64 * ratio)} of 64" in context.notes[0]
    again, _ = removed(digits_mlp, ratio=ratio)
    assert content(again) == content(model)


def test_digits_cnn_keeps_its_accuracy(digits_cnn):
    model, context = removed(digits_cnn, ratio=0.5)
    assert accuracy(model, digits_cnn) >= accuracy(load(digits_cnn.model), digits_cnn) - 0.01
    units = len(find_structure(load_normalized(digits_cnn)).units)
    assert f"removed {units // 2} of {units}" in context.notes[0]


def load_normalized(example) -> ir.Model:
    model = load(example.model)
    Normalize()(model)
    return model


@pytest.mark.parametrize("criterion", ["l1", "l2", "activation", "output-error"])
def test_every_criterion_runs_and_a_refit_helps(digits_mlp, criterion):
    wanted = run(load(digits_mlp.model), digits_mlp.test_data)["logits"]
    errors = []
    for refit in (True, False):
        model, _ = removed(digits_mlp, ratio=0.5, criterion=criterion, refit=refit, balance="uniform")
        assert {k: v for k, v in shapes(model).items() if "weight" in k} == {
            "0.weight": (16, 64),
            "2.weight": (16, 16),
            "4.weight": (10, 16),
        }
        errors.append(float(((run(model, digits_mlp.test_data)["logits"] - wanted) ** 2).mean()))
    assert errors[0] < 0.1 * errors[1]


def test_the_error_criterion_beats_the_norms(digits_mlp):
    wanted = run(load(digits_mlp.model), digits_mlp.test_data)["logits"]
    error = {}
    for criterion in ("l1", "l2", "output-error"):
        model, _ = removed(digits_mlp, ratio=0.5, criterion=criterion)
        error[criterion] = float(((run(model, digits_mlp.test_data)["logits"] - wanted) ** 2).mean())
    assert error["output-error"] < 0.7 * min(error["l1"], error["l2"])


def test_norms_without_refit_need_no_data(digits_mlp):
    model = load_normalized(digits_mlp)
    assert RemoveNeurons(ratio=0.25, criterion="l1", refit=False)(model).modified
    with pytest.raises(DataError) as raised:
        RemoveNeurons(ratio=0.25)(load_normalized(digits_mlp))
    assert raised.value.where.pass_name == "remove-neurons"


def test_single_layers(digits_mlp):
    model, _ = removed(digits_mlp, layers={"/0/Gemm": 0.25})
    assert shapes(model)["0.weight"] == (24, 64)
    assert shapes(model)["2.weight"] == (32, 24)
    model, _ = removed(digits_mlp, ratio=0.5, layers={"/0/Gemm": 0.0})
    assert shapes(model)["0.weight"] == (32, 64)
    assert shapes(model)["2.weight"] == (16, 32)


@pytest.mark.parametrize(
    ("layer", "found"), [("/4/Gemm", "graph output logits"), ("/9/Gemm", "no linear layer")]
)
def test_layers_that_have_nothing_to_remove(digits_mlp, layer, found):
    with pytest.raises(PipelineError) as raised:
        removed(digits_mlp, layers={layer: 0.5})
    assert found in raised.value.found
    assert raised.value.allowed == "/0/Gemm, /2/Gemm"


def seconds(model: ir.Model) -> float:
    return default_timings().seconds(estimate_float(model).steps)


def test_no_more_goes_than_a_latency_asks_for(digits_cnn):
    model, context = removed(digits_cnn, latency=1.5)
    one = seconds(load_normalized(digits_cnn)) / count_tables(load_normalized(digits_cnn))
    assert 1.5 - one <= seconds(model) <= 1.5
    assert not any("still takes" in note for note in context.notes)
    _, context = removed(digits_cnn, latency=0.001)
    assert "nothing more can go" in context.notes[-1]


def count_tables(model: ir.Model) -> int:
    return estimate_float(model).bootstraps


def test_until_a_latency(digits_mlp):
    full = seconds(load_normalized(digits_mlp))
    model, context = removed(digits_mlp, latency=full / 4)
    left = sum(shapes(model)[f"{i}.weight"][0] for i in (0, 2))
    assert 8 <= left <= 20
    assert f"removed {64 - left} of 64" in context.notes[0]


def test_a_ratio_of_one_leaves_a_neuron_in_each_layer(digits_mlp):
    model, _ = removed(digits_mlp, ratio=1.0)
    assert shapes(model)["2.weight"] == (1, 1)


def test_its_text(digits_mlp):
    text = "remove-neurons{ratio=0.5 criterion=l2 layers={/0/Gemm=0.25}}"
    (parsed,) = parse_passes(text)
    assert parsed == RemoveNeurons(ratio=0.5, criterion="l2", layers={"/0/Gemm": 0.25})
    assert parsed.to_text() == text
    with pytest.raises(PipelineError):
        parse_passes("remove-neurons{ratio=1.5}")


def redundant() -> ir.Model:
    """Twelve hidden neurons of which eight are nearly multiples of the other four."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 4))
    mixed = np.tile(first * rng.uniform(0.2, 1, 4), 2) + 1e-2 * rng.normal(size=(3, 8))
    weights = {
        "w": np.float32(np.concatenate([first, mixed], axis=1)),
        "b": np.zeros(12, np.float32),
        "v": np.float32(rng.normal(size=(12, 2))),
    }
    return graph("h = Gemm(x, w, b) a = Relu(h) y = MatMul(a, v)", **weights)


@pytest.mark.parametrize("tolerance", [0.02, 0.2, "auto"])
def test_what_goes_within_a_tolerance_keeps_to_it_on_new_samples(tolerance):
    model = redundant()
    before = channels_of(model)
    data, new = data_of(model, 200), data_of(model, 400, seed=1)
    wanted = next(iter(run(model, new).values()))
    removal = RemoveNeurons(ratio=0.9, tolerance=tolerance)
    assert removal.with_context(Context(calibration=data))(model).modified
    found = next(iter(run(model, new).values()))
    limit = 0.014 if tolerance == "auto" else tolerance
    assert channels_of(model) < before
    assert (((found - wanted) ** 2).mean(axis=0) / wanted.var(axis=0)).max() <= 1.5 * limit


@pytest.mark.parametrize(("tolerance", "samples"), [(0, 200), (0.02, 20)])
def test_nothing_goes_without_a_tolerance_or_samples_to_judge_by(tolerance, samples):
    model = redundant()
    before, context = channels_of(model), Context(calibration=data_of(model, samples))
    RemoveNeurons(ratio=0.9, tolerance=tolerance).with_context(context)(model)
    assert channels_of(model) == before


def test_a_quantized_model_keeps_its_neurons():
    model, text = redundant(), "quantize{weights=4 activations=4},remove-neurons{ratio=0.5}"
    context = Context(calibration=data_of(model, 100))
    quantize, removal = (p.with_context(context) for p in parse_passes(text))
    model = quantize(Normalize()(model).model).model
    assert not removal(model).modified
    assert "quantized already" in context.notes[-1]

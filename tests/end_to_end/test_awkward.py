"""Networks of unusual form, each from float to a circuit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.ir.runtime import run
from onnx_fhe.testing import pipelines, zoo

Builder, samples = zoo.Builder, zoo.samples


def more_outputs(proto: onnx.ModelProto, **outputs: list[int]) -> onnx.ModelProto:
    """The model with further outputs (one sample's shape each)."""
    for name, shape in outputs.items():
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]))
    return proto


def ends_in_an_activation() -> onnx.ModelProto:
    b = Builder(17, 1)
    x = b.dense(b.node("Relu", b.dense("input", 5, 4)), 4, 3)
    return b.model(b.node("Tanh", x), [5], [3])


def ends_in_max_pooling() -> onnx.ModelProto:
    b = Builder(17, 2)
    x = b.conv(b.node("Relu", b.conv("input", 1, 2)), 2, 2)
    return b.model(b.node("MaxPool", x, kernel_shape=[2, 2]), [1, 7, 7], [2, 2, 2])


def begins_with_an_activation() -> onnx.ModelProto:
    b = Builder(17, 3)
    x = b.dense(b.node("Sigmoid", b.node("Abs", "input")), 5, 4)
    return b.model(b.dense(b.node("Relu", x), 4, 3), [5], [3])


def one_neuron() -> onnx.ModelProto:
    b = Builder(17, 4)
    return b.model(b.dense(b.node("Relu", b.dense("input", 1, 1)), 1, 1), [1], [1])


def weights_all_zero() -> onnx.ModelProto:
    b = Builder(17, 5)
    x = b.node("Gemm", "input", b.constant(np.zeros((4, 5))), b.normal(4), transB=1)
    return b.model(b.dense(b.node("Relu", x), 4, 3), [5], [3])


def last_weights_all_zero() -> onnx.ModelProto:
    b = Builder(17, 6)
    x = b.node("Relu", b.dense("input", 5, 4))
    return b.model(b.node("Gemm", x, b.constant(np.zeros((3, 4))), b.normal(3), transB=1), [5], [3])


def a_constant_activation() -> onnx.ModelProto:
    """Neurons that are clipped to one value."""
    b = Builder(17, 7)
    x = b.node("Clip", b.dense("input", 5, 4), b.constant(0.5), b.constant(0.5))
    return b.model(b.dense(x, 4, 3), [5], [3])


def two_outputs_of_a_trunk() -> onnx.ModelProto:
    b = Builder(17, 8)
    x = b.node("Relu", b.dense("input", 5, 4))
    first, second = b.dense(x, 4, 3), b.node("Sigmoid", b.dense(x, 4, 2))
    return more_outputs(b.model(first, [5], [3]), **{second: [2]})


def the_trunk_is_an_output() -> onnx.ModelProto:
    b = Builder(17, 9)
    x = b.node("Relu", b.dense("input", 5, 4))
    return more_outputs(b.model(b.dense(x, 4, 3), [5], [3]), **{x: [4]})


def an_output_is_an_input() -> onnx.ModelProto:
    b = Builder(17, 10)
    x = b.node("Relu", b.dense("input", 5, 4))
    return more_outputs(b.model(b.dense(x, 4, 3), [5], [3]), input=[5])


def the_same_twice() -> onnx.ModelProto:
    b = Builder(17, 11)
    x = b.node("Relu", b.dense("input", 5, 4))
    return b.model(b.dense(b.node("Concat", x, b.node("Add", x, x), x, axis=1), 12, 3), [5], [3])


AWKWARD = [
    ends_in_an_activation,
    ends_in_max_pooling,
    begins_with_an_activation,
    one_neuron,
    weights_all_zero,
    last_weights_all_zero,
    a_constant_activation,
    two_outputs_of_a_trunk,
    the_trunk_is_an_output,
    an_output_is_an_input,
    the_same_twice,
]


@pytest.mark.parametrize("make", AWKWARD, ids=lambda f: f.__name__)
@pytest.mark.parametrize("range_mode", ["observed", "sound"])
def test_from_float_to_circuit(make, range_mode):
    proto = make()
    data = samples(proto, 64)
    wanted = run(proto, data)
    model = pipelines.imported(proto)
    for one in ("normalize", "quantize{weights=7 activations=7 inputs=7}", "lower-to-integer", "fuse-tlu"):
        model = pipelines.apply(model, one, data, range_mode=range_mode)
        found = run(model, data)
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            assert found[name].shape == array.shape
            error = np.sqrt(((found[name] - array) ** 2).mean())
            assert error < 0.1 * max(float(np.abs(array).max()), 1e-3), (one, name)
    circuit = ReferenceBackend().lower(model)
    _, values = pipelines.random_integers(model, 16)
    assert check_against(model, circuit, values).samples > 0


@pytest.mark.parametrize(
    "make", [one_neuron, weights_all_zero, last_weights_all_zero, two_outputs_of_a_trunk]
)
def test_concrete_takes_it_too(make):
    from onnx_fhe.backends.concrete.backend import ConcreteBackend

    proto = make()
    *_, (_, model) = pipelines.stages(proto, samples(proto, 32), "quantize{weights=2 activations=2 inputs=2}")
    circuit = ConcreteBackend().lower(model, LowerOptions(parameter_strategy="mono"))
    _, values = pipelines.random_integers(model, 4)
    assert check_against(model, circuit, values).samples > 0

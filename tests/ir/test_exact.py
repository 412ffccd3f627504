"""8-bit products are exact on every processor, wherever a quantized model is run.

CONTRIBUTING.md says how to run this file as on an x86-64 without VNNI. What cannot fail elsewhere is looked
at in what onnxruntime is handed, and run with kernels that saturate (``tests/shared/exact_operators.py``).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import exact_operators
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_fhe.ir import exact as rewrite
from onnx_fhe.ir import runtime
from onnx_fhe.ir.errors import VerificationError
from onnx_fhe.ir.load import load
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.differential import DifferentialCheck
from onnx_fhe.passes.framework.manager import PassManager

MODELS = Path(__file__).parents[1] / "models"
evaluate, product = exact_operators.evaluate, exact_operators.product
TYPES = [np.uint8, np.int8]
ELEMENTS = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8, np.int32: TensorProto.INT32}


def extreme(dtype: type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers of which every second pair of products saturates, and others."""
    limits = np.iinfo(dtype)
    random = np.random.default_rng(seed)
    ends = np.where(random.random(shape) < 0.8, limits.max, limits.min)
    return np.where(random.random(shape) < 0.7, ends, random.integers(limits.min, limits.max, shape)).astype(
        dtype
    )


def kernel_model(
    op: str, a: type, b: type, zeros: bool = True, weights_given: bool = False
) -> onnx.ModelProto:
    """One operator with operands of types ``a`` and ``b``, two features in, for ``N`` samples."""
    convolution = "Conv" in op
    w = extreme(b, (5, 6, 3, 3) if convolution else (16, 5), 1)
    stored = {
        "as": np.float32(0.05), "az": np.array(3, a),
        "bs": np.float32(0.01), "bz": np.array(-2 if b is np.int8 else 7, b),
        "ys": np.float32(40.0), "yz": np.array(5, a),
    }  # fmt: skip
    places = {
        "MatMulInteger": ["a", "b", "az", "bz"] if zeros else ["a", "b"],
        "ConvInteger": ["a", "b", "az", "bz"] if zeros else ["a", "b"],
    }
    names = places.get(op, ["a", "as", "az", "b", "bs", "bz", "ys", "yz"])
    if op == "QGemm":
        names.insert(6, "c")
        stored["c"] = np.arange(5, dtype=np.int32)
    used = {k: v for k, v in stored.items() if k in names}
    attributes: dict[str, object] = {"pads": [1, 1, 1, 1]} if convolution else {}
    domain = "com.microsoft" if op == "QGemm" else ""
    shape = ["N", 6, 4, 4] if convolution else ["N", 16]
    inputs = [helper.make_tensor_value_info("a", ELEMENTS[a], shape)]
    if weights_given:
        inputs.append(helper.make_tensor_value_info("b", ELEMENTS[b], list(w.shape)))
    else:
        used["b"] = w
    out = np.int32 if op.endswith("Integer") else a
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], name="kernel", domain=domain, **attributes)],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", ELEMENTS[out], None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in used.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def data_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Extreme inputs."""
    given = {}
    for value in model.graph.input:
        kind = next(k for k, v in ELEMENTS.items() if v == value.type.tensor_type.elem_type)
        shape = tuple(d.dim_value or 7 for d in value.type.tensor_type.shape.dim)
        given[value.name] = extreme(kind, shape, len(given))
    return given


def by_hand(model: onnx.ModelProto, data: dict[str, np.ndarray]) -> np.ndarray:
    """The kernel's output in integers of 64 bits."""
    node = model.graph.node[0]
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer} | data
    a, b = values["a"], values["b"]
    az, bz = values.get("az", np.zeros((), a.dtype)), values.get("bz", np.zeros((), b.dtype))
    if "Conv" in node.op_type:
        padded = np.pad(a.astype(np.int64) - int(az), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        total = np.einsum("nchwij,ocij->nohw", windows, b.astype(np.int64) - int(bz))
    else:
        total = product(a, b, az, bz)
    if node.op_type.endswith("Integer"):
        return total
    total = total + values.get("c", np.zeros((), np.int64))
    factor = values["as"] * values["bs"] / values["ys"]
    limits = np.iinfo(a.dtype)
    return np.clip(np.rint(total.astype(np.float32) * factor) + values["yz"], limits.min, limits.max)


OPERATORS = ["MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm"]


@pytest.mark.parametrize("weights_given", [False, True], ids=["constant", "given"])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(TYPES, TYPES)))
@pytest.mark.parametrize(
    ("op", "zeros"), [(o, True) for o in OPERATORS] + [("MatMulInteger", False), ("ConvInteger", False)]
)
def test_every_kernel_multiplies_exactly(
    op: str, a: type, b: type, weights_given: bool, zeros: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kernel_model(op, a, b, zeros, weights_given)
    data = data_of(model)
    handed = recorded(monkeypatch)
    found = runtime.Session(model).run(data)["y"]
    assert found.dtype == (np.int32 if op.endswith("Integer") else a)
    np.testing.assert_array_equal(found, by_hand(model, data))
    node = next(n for n in handed[-1].graph.node if n.op_type == op)
    names = [node.input[p] for p, _ in rewrite._KERNELS[node.domain, op].operands]
    assert set(types_of(handed[-1], names)) == {"tensor(uint8)"}


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[onnx.ModelProto]:
    """The models that onnxruntime is handed from here on."""
    handed: list[onnx.ModelProto] = []
    make = onnxruntime.InferenceSession

    def session(content: bytes, *rest: object, **more: object) -> onnxruntime.InferenceSession:
        handed.append(onnx.load_model_from_string(content))
        return make(content, *rest, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return handed


def types_of(model: onnx.ModelProto, names: list[str]) -> list[str]:
    """Types of values, as onnxruntime has them."""
    copies = [helper.make_node("Identity", [n], [f"copy{i}"]) for i, n in enumerate(names)]
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    asked.graph.node.extend(copies)
    del asked.graph.output[:]
    asked.graph.output.extend(helper.make_empty_tensor_value_info(c.output[0]) for c in copies)
    session = onnxruntime.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    return [o.type for o in session.get_outputs()]


def test_models_without_int8_kernels_stay_as_they_are() -> None:
    model = kernel_model("MatMulInteger", np.uint8, np.uint8)
    assert rewrite.exact(model, lambda *_: {}) is model


def test_the_given_model_is_not_edited() -> None:
    model = kernel_model("QLinearConv", np.uint8, np.int8)
    before = model.SerializeToString(deterministic=True)
    runtime.Session(model)
    assert model.SerializeToString(deterministic=True) == before


# As on a processor whose kernels saturate


class Saturating:
    """A session of onnxruntime on an x86-64 without VNNI."""

    def __init__(self, content: bytes, *_: object, **__: object) -> None:
        self._model = onnx.load_model_from_string(content)
        self._session = onnxruntime.capi.onnxruntime_inference_collection.InferenceSession(
            content, providers=["CPUExecutionProvider"]
        )
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def run(self, names: list[str], data: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = evaluate(self._model, data, saturating=True)
        return [found[n] for n in names]


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Saturating)


@pytest.fixture
def unmended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "exact", lambda proto, _: proto)


@pytest.mark.parametrize("a", TYPES)
@pytest.mark.parametrize("op", ["MatMulInteger", "QLinearMatMul", "QGemm"])
def test_the_simulated_processor_saturates(op: str, a: type, old_processor: None, unmended: None) -> None:
    model = kernel_model(op, a, np.int8)
    data = data_of(model)
    assert np.any(runtime.Session(model).run(data)["y"] != by_hand(model, data))


@pytest.mark.parametrize("a", TYPES)
@pytest.mark.parametrize("op", ["MatMulInteger", "QLinearMatMul", "QGemm"])
def test_a_session_does_not_saturate_there(op: str, a: type, old_processor: None) -> None:
    model = kernel_model(op, a, np.int8)
    data = data_of(model)
    np.testing.assert_array_equal(runtime.Session(model).run(data)["y"], by_hand(model, data))


def network() -> ir.Model:
    """A network in onnxruntime's QOperator format, whose first layer saturates on such a processor."""
    random = np.random.default_rng(5)
    w = np.where(random.random((12, 8)) < 0.7, 127, -128).astype(np.int8)
    stored = {
        "xs": np.float32(1 / 255), "xz": np.uint8(0), "w": w,
        "ws": np.float32(0.01), "wz": np.int8(0), "hs": np.float32(0.06), "hz": np.uint8(0),
        "v": random.integers(-127, 128, (8, 3)).astype(np.int8), "ys": np.float32(0.2), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="quantize"),
        helper.make_node(
            "QLinearMatMul", ["xq", "xs", "xz", "w", "ws", "wz", "hs", "hz"], ["h"], name="first"
        ),
        helper.make_node(
            "QLinearMatMul", ["h", "hs", "hz", "v", "ws", "wz", "ys", "yz"], ["yq"], name="second"
        ),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"], name="dequantize"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


X = {"x": np.random.default_rng(6).uniform(0.5, 1, (40, 12)).astype(np.float32)}


def test_normalize_is_not_blamed_for_what_the_processor_does(old_processor: None) -> None:
    check = DifferentialCheck(X)
    PassManager.parse("normalize").run(network(), Context(calibration=X), [check])
    assert [d.pass_name for d in check.differences] == ["normalize"]


def test_it_would_be_without_exact_products(old_processor: None, unmended: None) -> None:
    with pytest.raises(VerificationError, match="normalize changed the output"):
        PassManager.parse("normalize").run(network(), Context(calibration=X), [DifferentialCheck(X)])


@pytest.mark.parametrize("stem", sorted(p.stem for p in (MODELS / "qat").glob("onnxruntime_*.onnx")))
def test_sources_are_run_exactly(stem: str) -> None:
    """What circuits are compared with; run this as on another processor (CONTRIBUTING.md)."""
    model = load(MODELS / "qat" / f"{stem}.onnx")
    shape = [int(d) for d in list(model.graph.inputs[0].shape or [])[1:]]  # type: ignore[arg-type]
    data = {"x": np.random.default_rng(2).normal(0, 1, (16, *shape)).astype(np.float32)}
    found = runtime.Session(model).run_batched(data)
    for name, wanted in evaluate(runtime.to_proto(model), data).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)

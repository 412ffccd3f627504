"""``import-qat``: what other tools have quantized keeps its integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exact_operators import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import ModelError, PipelineError, UnsupportedError
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import Session, run, to_proto
from onnx_fhe.ir.save import save
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.instruments import Verify
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.import_qat import agreement

FOLDER = Path(__file__).parents[2] / "models" / "qat"
FILES = sorted(p.stem for p in FOLDER.glob("*.onnx") if "dynamic" not in p.stem)
TO_QDQ = "normalize,import-qat,quantize"
TO_TABLES = f"{TO_QDQ},lower-to-integer,fuse-tlu"
# Averages of integers lie on ties all the time, and scales of a sum need not have a common multiple:
# onnxruntime itself disagrees with itself there when it fuses operators.
TIES = {"cnn_4bit_trunc_qcdq", "onnxruntime_cnn", "torch_fake"}


# Brevitas truncates; its QCDQ export rounds.
ROUNDS_IN_FILE = {"brevitas_cnn_4bit_trunc_qcdq"}


def sample(model: ir.Model, count: int = 64) -> dict[str, np.ndarray]:
    """Random inputs of a model."""
    value = model.graph.inputs[0]
    shape = [int(d) for d in list(value.shape or [])[1:]]  # type: ignore[arg-type]
    data = np.random.default_rng(1).normal(0, 1, (count, *shape)).astype(np.float32)
    return {str(value.name): data}


def through(text: str, model: ir.Model, data: dict[str, np.ndarray]) -> tuple[ir.Model, list[str]]:
    """The model behind a pipeline, verified after each pass, and the notes."""
    result = PassManager.parse(text).run(
        model, Context(calibration=data, ranges=RangeOptions(margin=1.0)), [Verify()]
    )
    return result.model, result.context.notes


def first(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The only output."""
    return next(iter(arrays.values()))


def own(stem: str, model: ir.Model) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs, and what is right for them: what Brevitas made of them, or exact integer arithmetic.

    Not what onnxruntime makes of the file: its 8-bit kernels saturate on some processors.
    """
    if stem.startswith("brevitas_") and stem not in ROUNDS_IN_FILE:
        stored = np.load(FOLDER / "brevitas.npz")
        name = stem.removeprefix("brevitas_").rsplit("_", 1)[0]
        return {str(model.graph.inputs[0].name): stored[f"{name}.x"]}, stored[f"{name}.y"]
    data = sample(model)
    return data, first(evaluate(to_proto(model), data))


@pytest.mark.parametrize("stem", FILES)
def test_integers_and_outputs_are_those_of_the_tool(stem: str) -> None:
    model = load(FOLDER / f"{stem}.onnx")
    data, expected = own(stem, model)
    qdq, notes = through(TO_QDQ, model, data)
    assert level_of(qdq) is Level.QDQ
    assert not any(n.domain for n in qdq.graph)
    found = agreement.compare(qdq, model, data)
    if "qoperator" not in stem:  # whose quantized tensors are no floats that could be compared by name
        assert found is not None
        assert found.values > 0
        assert found.different == 0
        assert any("are the source's" in n for n in notes)
    integers, _ = through(TO_TABLES, model, data)
    output = first(run(integers, data))
    apart = np.abs(output - expected).max(axis=1) > 1e-4 * np.abs(expected).max()
    if any(t in stem for t in TIES):
        assert apart.mean() <= 0.6
        assert np.abs(output - expected).mean() < 0.02 * np.abs(expected).max()
    else:
        assert not apart.any()


@pytest.mark.parametrize("stem", FILES)
def test_files_compile_as_they_are(stem: str) -> None:
    path = FOLDER / f"{stem}.onnx"
    data = sample(load(path), 32)
    # import-qat comes by itself in a pipeline without it, as it does in the presets.
    text = "quantize,lower-to-integer,fuse-tlu"
    program = onnx_fhe.compile(path, data, pipeline=text, backend="reference", check_samples=8)
    assert program.manifest.pipeline.startswith("normalize,import-qat,quantize")
    result = program.run(data, mode="clear")
    assert first(result.outputs).shape[0] == 32


def test_inspect_shows_the_network_as_it_will_be_imported() -> None:
    found = inspect_model(FOLDER / "brevitas_mlp_2bit_qonnx.onnx")
    assert found.supported
    assert found.programmable_bootstraps == 20
    assert [x.layer for x in found.lookups] == ["/1/Gemm", "/4/MatMul"]
    dynamic = inspect_model(FOLDER / "onnxruntime_mlp_dynamic.onnx")
    assert not dynamic.supported
    assert "dynamic quantization" in dynamic.findings[0].found


def test_presets_keep_trained_integers_up_to_rounding() -> None:
    path = FOLDER / "brevitas_mlp_2bit_qonnx.onnx"
    model = load(path)
    data, expected = own(path.stem, model)
    out, notes = through("balanced", model, data)
    assert any("trained quantized" in n for n in notes)
    assert np.mean((first(run(out, data)) - expected) ** 2) <= 0.03 * expected.var()


def test_a_circuit_of_concrete_computes_the_same() -> None:
    path = FOLDER / "brevitas_mlp_2bit_qonnx.onnx"
    data, expected = own(path.stem, load(path))
    program = onnx_fhe.compile(path, data, pipeline=TO_TABLES, backend="concrete", check_samples=2)
    result = program.run({k: v[:4] for k, v in data.items()}, mode="clear")
    assert np.allclose(first(result.outputs), expected[:4], atol=1e-4)


# Operators of QONNX


def qonnx(
    tmp_path: Path, op: str, inputs: list[object], domain: str = "onnx.brevitas", **attributes: object
) -> Path:
    """Write ``MatMul(op(x), W)`` with x of 9 values and W the identity."""
    names = [f"p{i}" for i in range(len(inputs))]
    weight = helper.make_node(
        "Quant", ["w", "one", "zero", "eight"], ["wq"], domain=domain, signed=1, narrow=0
    )
    nodes = [
        helper.make_node(op, ["x", *names], ["q"], name="quantizer", domain=domain, **attributes),
        weight,
        helper.make_node("MatMul", ["q", "wq"], ["y"], name="layer"),
    ]
    stored = {"w": np.eye(9), "one": 1.0, "zero": 0.0, "eight": 8.0} | dict(zip(names, inputs, strict=True))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 9])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in stored.items()],
    )
    path = tmp_path / "model.onnx"
    # No import of the domain: Brevitas wrote files like that.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


# Computed with the qonnx package, version 1.0.
X = [-2.5, -1.5, -0.7, -0.5, 0.0, 0.5, 1.3, 1.5, 2.5]
ROUNDED = {
    "ROUND": [-2, -2, -1, 0, 0, 0, 1, 2, 2],
    "CEIL": [-2, -1, 0, 0, 0, 1, 2, 2, 3],
    "FLOOR": [-3, -2, -1, -1, 0, 0, 1, 1, 2],
    "UP": [-3, -2, -1, -1, 0, 1, 2, 2, 3],
    "DOWN": [-2, -1, 0, 0, 0, 0, 1, 1, 2],
    "ROUND_TO_ZERO": [-2, -1, 0, 0, 0, 0, 1, 1, 2],
    "HALF_UP": [-3, -2, -1, -1, 0, 1, 1, 2, 3],
    "HALF_DOWN": [-2, -1, -1, 0, 0, 0, 1, 1, 2],
    "half_even": [-2, -2, -1, 0, 0, 0, 1, 2, 2],
}


@pytest.mark.parametrize("mode", ROUNDED)
@pytest.mark.parametrize("domain", ["onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general"])
def test_rounding_modes(mode: str, domain: str, tmp_path: Path) -> None:
    path = qonnx(tmp_path, "Quant", [1.0, 0.0, 4.0], domain, signed=1, narrow=0, rounding_mode=mode)
    model, data = load(path), {"x": np.array([X], np.float32)}
    assert first(run(model, data)).tolist() == [ROUNDED[mode]]
    qdq, _ = through(TO_QDQ, model, data)
    assert first(run(qdq, data)).tolist() == [ROUNDED[mode]]


@settings(max_examples=20, deadline=None)
@given(
    mode=st.sampled_from([m for m in ROUNDED if m.isupper()]),
    bits=st.integers(1, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    scale=st.floats(0.0625, 2, width=32),
    zero=st.integers(-3, 9),
    seed=st.integers(0, 99),
)
def test_quantizers_of_any_kind_keep_their_integers(
    mode: str,
    bits: int,
    signed: bool,
    narrow: bool,
    scale: float,
    zero: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if (not signed and (zero < 0 or (bits == 1 and narrow))) or (signed and bits == 1):
        zero, narrow = 0, False
    path = qonnx(
        tmp_path_factory.mktemp("q"), "Quant", [scale, float(zero), float(bits)],
        signed=int(signed), narrow=int(narrow), rounding_mode=mode,
    )  # fmt: skip
    model = load(path)
    random = np.random.default_rng(seed)
    ties = random.integers(-40, 40, (20, 9)) * 0.5 * scale
    data = {
        "x": np.where(random.random((20, 9)) < 0.5, ties, random.normal(0, 4, (20, 9))).astype(np.float32)
    }
    integers, _ = through(TO_TABLES, model, data)
    assert np.array_equal(
        np.rint(first(run(integers, data)) / scale), np.rint(first(run(model, data)) / scale)
    )


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [
        ("BipolarQuant", [0.5], {}, [-0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        (
            "Trunc",
            [0.5, 0.0, 4.0, 3.0],
            {"rounding_mode": "FLOOR"},
            [-1.5, -1, -0.5, -0.5, 0, 0, 0.5, 0.5, 1],
        ),
        (
            "Trunc",
            [0.5, 0.0, 4.0, 2.0, 3.0],
            {"rounding_mode": "FLOOR", "signed": 1, "narrow": 0},
            [-4, -2, -2, -2, 0, 0, 0, 0, 2],
        ),
    ],
)
def test_other_quantizers(
    op: str, inputs: list[float], attributes: dict[str, object], expected: list[float], tmp_path: Path
) -> None:
    path = qonnx(tmp_path, op, list(inputs), "qonnx.custom_op.general", **attributes)
    model, data = load(path), {"x": np.array([X], np.float32)}
    assert first(run(model, data)).tolist() == [expected]
    qdq, _ = through(TO_QDQ, model, data)
    assert first(run(qdq, data)).tolist() == [expected]


def test_saved_models_stay_qonnx(tmp_path: Path) -> None:
    model = load(qonnx(tmp_path, "Quant", [1.0, 0.0, 4.0], signed=1, narrow=0))
    save(model, tmp_path / "again.onnx")
    again = load(tmp_path / "again.onnx")
    assert [n.op_type for n in again.graph] == [n.op_type for n in model.graph]
    data = {"x": np.array([X], np.float32)}
    assert np.array_equal(first(run(again, data)), first(run(model, data)))


# Weights


def qdq_model(nodes: list[onnx.NodeProto], shape: list[int], **stored: np.ndarray) -> ir.Model:
    """A model of onnx nodes from x to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None])],
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", target_opset())], ir_version=10)
    )


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node named as its output."""
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


S = np.float32(0.25)
CODES = np.random.default_rng(0).integers(0, 256, (6, 4)).astype(np.uint8)


def layer(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Constants of a dense layer with asymmetric weights per channel."""
    weights = {
        "s": np.linspace(0.1, 0.4, 6, dtype=np.float32),
        "z": np.array([0, 255, 128, 3, 77, 128], np.uint8),
    }
    return {"w": CODES, "a": S, "o": np.uint8(9) * np.ones((), np.uint8)} | weights | changes


IN = [node("QuantizeLinear", "x a o", "xq"), node("DequantizeLinear", "xq a o", "xd")]
WEIGHT = node("DequantizeLinear", "w s z", "wd", axis=0)


def test_weights_lose_their_zero_points_and_move_past_transposes() -> None:
    nodes = [*IN, WEIGHT, node("Transpose", "wd", "wt", perm=[1, 0]), node("MatMul", "xd wt", "y")]
    model = qdq_model(nodes, [4], **layer())
    data = sample(model)
    out, _ = through(TO_QDQ, model, data)
    gemm = next(n for n in out.graph if n.op_type == "Gemm")
    stored = gemm.inputs[1].producer()  # type: ignore[union-attr]
    assert stored is not None
    codes = constant_of(stored.inputs[0])
    assert np.array_equal(codes, CODES.astype(int) - layer()["z"].astype(int)[:, None])  # type: ignore[arg-type]
    assert np.allclose(first(run(out, data)), first(run(model, data)), atol=1e-4)
    integers, _ = through(TO_TABLES, model, data)
    assert np.allclose(first(run(integers, data)), first(run(model, data)), atol=1e-3)


def test_integers_may_be_moved_before_they_are_dequantized() -> None:
    nodes = [
        node("QuantizeLinear", "x a o", "xq"),
        node("Reshape", "xq target", "xr"),
        node("DequantizeLinear", "xr a o", "xd"),
        WEIGHT,
        node("Gemm", "xd wd", "y", transB=1),
    ]
    model = qdq_model(nodes, [2, 2], target=np.array([-1, 4]), **layer())
    data = sample(model)
    out, _ = through(TO_TABLES, model, data)
    assert np.allclose(first(run(out, data)), first(run(model, data)), atol=1e-3)


def test_weights_may_stand_on_the_left() -> None:
    nodes = [*IN, WEIGHT, node("MatMul", "wd xd", "y")]
    model = qdq_model(nodes, [4, 2], **layer())
    model.graph.outputs[0].shape = ir.Shape(["N", 6, 2])
    data = sample(model)
    out, _ = through(TO_TABLES, model, data)
    assert sum(n.op_type == "MatMul" for n in out.graph) == 1
    assert next(n for n in out.graph if n.op_type == "Encrypt")
    assert np.allclose(first(run(out, data)), first(run(model, data)), atol=1e-3)


def test_what_the_client_chooses_of_its_input_is_encrypted_afterwards() -> None:
    pool = node("MaxPool", "xd", "m", kernel_shape=[2, 2], strides=[2, 2])
    nodes = [*IN, pool, node("Flatten", "m", "f"), WEIGHT, node("Gemm", "f wd", "y", transB=1)]
    model = qdq_model(nodes, [1, 4, 4], **layer())
    data = sample(model)
    out, _ = through(TO_TABLES, model, data)
    encrypt = next(n for n in out.graph if n.op_type == "Encrypt")
    assert list(encrypt.outputs[0].shape or [])[1:] == [4]
    assert np.allclose(first(run(out, data)), first(run(model, data)), atol=1e-3)


def test_running_again_changes_nothing() -> None:
    model = load(FOLDER / "brevitas_mlp_3bit_channel_qonnx.onnx")
    once, _ = through("normalize,import-qat", model, sample(model))
    again = PassManager.parse("normalize,import-qat,quantize").run(once)
    assert not again.modified


def test_float_models_stay_float() -> None:
    model = qdq_model([node("MatMul", "x w", "y")], [4], w=np.ones((4, 3), np.float32))
    result = PassManager.parse("import-qat").run(model)
    assert not result.modified
    assert level_of(result.model) is Level.FLOAT


# Refusals


def refused(model: ir.Model | Path, text: str = TO_QDQ) -> UnsupportedError:
    """The error of importing a model."""
    given_model = load(model) if isinstance(model, Path) else model
    with pytest.raises(UnsupportedError) as caught:
        through(text, given_model, sample(given_model))
    return caught.value


def test_wide_quantizers_are_refused(tmp_path: Path) -> None:
    error = refused(qonnx(tmp_path, "Quant", [1.0, 0.0, 12.0], signed=1, narrow=0))
    assert error.where.node == "quantizer"
    assert "12 bits" in error.found
    assert "1 to 8 bits" in error.allowed


def test_fractional_zero_points_are_refused(tmp_path: Path) -> None:
    assert "zero point" in refused(qonnx(tmp_path, "Quant", [1.0, 0.5, 4.0], signed=1, narrow=0)).what


def test_unknown_rounding_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="rounding mode"):
        load(qonnx(tmp_path, "Quant", [1.0, 0.0, 4.0], signed=1, narrow=0, rounding_mode="STOCHASTIC"))


def test_wide_qdq_is_refused() -> None:
    model = qdq_model(
        [*IN, WEIGHT, node("Gemm", "xd wd", "y", transB=1)], [4], **layer(o=np.zeros((), np.uint16))
    )
    assert "uint16" in refused(model).found


def test_dynamic_quantization_is_refused_or_fixed_on_calibration_data() -> None:
    model = load(FOLDER / "onnxruntime_mlp_dynamic.onnx")
    error = refused(model)
    assert "'x'" in error.found
    assert "calibrate-missing=true" in error.do
    data = sample(model)
    out, _ = through(TO_TABLES.replace("import-qat", "import-qat{calibrate-missing=true}"), model, data)
    expected = first(run(model, data))
    assert np.abs(first(run(out, data)) - expected).max() < 0.05 * np.abs(expected).max()


def test_a_missing_quantizer_is_named_or_calibrated() -> None:
    nodes = [
        *IN, WEIGHT, node("Gemm", "xd wd", "h", transB=1), node("Relu", "h", "activated"),
        node("DequantizeLinear", "v t", "vd"), node("MatMul", "activated vd", "y"),
    ]  # fmt: skip
    second = np.random.default_rng(3).integers(-99, 99, (6, 3)).astype(np.int8)
    model = qdq_model(nodes, [4], v=second, t=np.float32(0.01), **layer())
    error = refused(model)
    assert "'activated'" in error.found
    assert error.where.node == "y"
    assert "import-qat{calibrate-missing=true}" in error.do
    data = sample(model)
    out, notes = through(TO_TABLES.replace("import-qat", "import-qat{calibrate-missing=true}"), model, data)
    assert any("calibrated 'activated'" in n for n in notes)
    expected = first(run(model, data))
    assert np.abs(first(run(out, data)) - expected).max() < 0.02 * np.abs(expected).max()


def test_float_layers_are_named_or_rounded() -> None:
    nodes = [
        *IN,
        WEIGHT,
        node("Gemm", "xd wd", "h", transB=1),
        node("Relu", "h", "r"),
        node("MatMul", "r v", "y"),
    ]
    model = qdq_model(
        nodes, [4], v=np.random.default_rng(3).normal(0, 1, (6, 3)).astype(np.float32), **layer()
    )
    error = refused(model)
    assert error.where.node == "y"
    assert "calibrate-missing=true" in error.do
    data = sample(model)
    out, notes = through(TO_TABLES.replace("import-qat", "import-qat{calibrate-missing=true}"), model, data)
    assert any("rounded the weights of y" in n and "calibrated 'r'" in n for n in notes)
    expected = first(run(model, data))
    assert np.abs(first(run(out, data)) - expected).max() < 0.03 * np.abs(expected).max()


def test_scales_for_each_input_are_refused() -> None:
    error = refused(qdq_model([*IN, WEIGHT, node("MatMul", "xd wd", "y")], [6], **layer()))
    assert error.where.node == "y"
    assert "several scales for one output" in error.what


def test_weights_computed_from_quantized_ones_are_refused() -> None:
    nodes = [*IN, WEIGHT, node("Mul", "wd a", "wm"), node("Gemm", "xd wm", "y", transB=1)]
    error = refused(qdq_model(nodes, [4], **layer()))
    assert "Mul (wm)" in error.found


def test_quantize_asks_for_the_import() -> None:
    model = load(FOLDER / "brevitas_mlp_2bit_qonnx.onnx")
    with pytest.raises(PipelineError, match="another tool") as caught:
        through("normalize,quantize", model, sample(model))
    assert "import-qat" in caught.value.do


def test_sources_run_in_onnxruntime() -> None:
    model = load(FOLDER / "brevitas_mlp_1bit_qonnx.onnx")
    data, expected = own("brevitas_mlp_1bit_qonnx", model)
    assert np.allclose(first(Session(model).run_batched(data)), expected, atol=1e-5)

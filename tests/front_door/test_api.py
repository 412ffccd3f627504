"""The Python API: compile, run in every mode, save and load."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.backends.reference import ReferenceBackend, ReferenceCircuit
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import (
    DataError,
    LoweringMismatchError,
    ModelError,
    PipelineError,
    UnsupportedError,
    UserError,
)
from onnx_fhe.ir.ops import Decrypt, Encrypt
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.save import save
from onnx_fhe.passes.framework.instruments import Time
from onnx_fhe.prologue import Prologue
from onnx_fhe.scoring import accuracy, agreement, predictions

TO_INTEGER = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu"
PIPELINE = f"{TO_INTEGER},insert-rounding{{bits=4}}"


def compiled(model, data, pipeline=PIPELINE, **options):
    # Three bits lose a lot of networks with random weights; what is tested is something else.
    options.setdefault("accept_loss", True)
    return onnx_fhe.compile(model, data, pipeline, options.pop("backend", "reference"), **options)


@pytest.fixture(scope="module")
def mlp(zoo, tmp_path_factory):
    """A small network's file, its inputs, and what they are compiled to for the reference backend."""
    proto = zoo.mlp()
    path = tmp_path_factory.mktemp("mlp") / "mlp.onnx"
    onnx.save(proto, path)
    data = zoo.samples(proto)
    return path, data, compiled(path, data)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """2-3-2: three bootstraps. Through Concrete."""
    random = np.random.default_rng(5)
    weights = {
        "w1": random.normal(size=(3, 2)),
        "b1": random.normal(size=3) * 0.1,
        "w2": random.normal(size=(2, 3)),
        "b2": random.normal(size=2) * 0.1,
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], name="first", transB=1),
        helper.make_node("Relu", ["a"], ["r"], name="act"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="second", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    data = {"x": random.uniform(0, 1, (200, 2)).astype(np.float32)}
    return path, data, compiled(path, data, backend="concrete")


def test_importing_the_package_imports_nothing_else():
    slow = {"numpy", "onnx", "onnx_ir", "typer", "concrete"}
    code = f"import sys, onnx_fhe; print(sorted({slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in onnx_fhe.__all__:
        assert getattr(onnx_fhe, name) is not None
    assert set(onnx_fhe.__all__) <= set(dir(onnx_fhe))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = onnx_fhe.nonsense


def test_clear_is_the_integer_model_and_close_to_the_float_model(mlp):
    path, data, program = mlp
    result = program.run(data)
    assert list(result.outputs) == [o.name for o in onnx.load(path).graph.output]
    parts = partition(program.integer_model)
    values, _ = Prologue(parts).run(data)
    integers = ReferenceBackend().lower(program.integer_model).clear(values)
    wanted = run(parts.epilogue, {k: v.astype(np.float32) for k, v in integers.items()})
    for name, array in result.outputs.items():
        np.testing.assert_array_equal(array, wanted[name])
        exact = run(onnx.load(path), data)[name]
        assert array.dtype == exact.dtype
        assert np.corrcoef(array.ravel(), exact.ravel())[0, 1] > 0.8
    assert result.expected is result.outputs
    assert result.samples == 64
    assert set(result.seconds) == {"prologue", "clear", "epilogue"}


def test_data_may_be_given_in_any_form(mlp, tmp_path):
    _, data, program = mlp
    array = data["input"]
    file = tmp_path / "data.npz"
    np.savez(file, input=array, labels=np.zeros(len(array), int))
    wanted = program.run(data).outputs
    for given in (array, str(file), file, onnx_fhe.load_data(file), {"input": array.tolist()}):
        for name, found in program.run(given).outputs.items():
            np.testing.assert_array_equal(found, wanted[name])


def test_a_limit_runs_the_first_samples_only(mlp):
    _, data, program = mlp
    result = program.run(data, limit=3)
    assert result.samples == 3
    for name, whole in program.run(data).outputs.items():
        np.testing.assert_array_equal(result.outputs[name], whole[:3])
    with pytest.raises(UserError, match="limit"):
        program.run(data, limit=0)
    with pytest.raises(UserError, match="mode"):
        program.run(data, "fast")


def test_values_outside_the_calibrated_range_are_clipped_and_counted(mlp):
    _, data, program = mlp
    quantizer = next(n for n in program.integer_model.graph if n.op_type == "QuantizeLinear")
    scale = float(quantizer.inputs[1].const_value.numpy())
    low, high = Encrypt.all_in(program.integer_model)[0].range
    array = np.zeros((4, *data["input"].shape[1:]), np.float32)
    assert program.run(array).clipped == 0
    array[1, 0], array[1, 1] = scale * (high + 0.4), scale * (low - 0.4)
    assert program.run(array).clipped == 0, "half a step is rounding, not clipping"
    array[2, 0], array[2, 1], array[3, 2] = scale * (high + 0.6), -1e6, 1e6
    result = program.run(array)
    assert (result.clipped, result.clip.samples) == (3, 2)
    assert result.clip.by_value == {"input": 3}
    assert any("3 input values in 2 samples" in w for w in result.warnings)
    # Clipped, never wrapped: the same as the end of the range.
    array[2, 0], array[2, 1], array[3, 2] = scale * high, scale * low, scale * high
    for name, found in program.run(array).outputs.items():
        np.testing.assert_array_equal(found, result.outputs[name])


def test_overflows_are_counted_with_a_warning(mlp):
    _, data, program = mlp
    assert program.run(data).overflows.values == 0
    model = program.integer_model.clone()
    for decrypt in Decrypt.all_in(model):
        decrypt.declare(0, 1)
    narrow = onnx_fhe.Program(model, program.manifest, lambda: ReferenceBackend().lower(model))
    result = narrow.run(data)
    assert result.overflows.values > 0
    assert any("overflow" in w for w in result.warnings)


def test_the_same_network_in_all_modes(tiny):
    _, data, program = tiny
    assert program.statistics.programmable_bootstraps == 3
    assert program.statistics.p_error == pytest.approx(1e-5, rel=0.5)
    simulated = program.simulate(data, limit=40)
    assert agreement(simulated.outputs, simulated.expected) >= 0.8
    steps = []
    result = program.encrypted(
        data, limit=1, progress=lambda what, done, total: steps.append((what, done, total))
    )
    assert ("run encrypted", 1, 1) in steps
    assert ("make keys", 1, 1) in steps
    assert result.mode == "encrypted"
    assert {"prologue", "prepare", "keygen", "encrypt", "evaluate", "decrypt", "epilogue"} == set(
        result.seconds
    )
    assert result.seconds["keygen"] > 0
    scale = np.abs(result.expected["y"]).max() + 1
    assert np.abs(result.outputs["y"] - result.expected["y"]).max() < scale
    again = program.encrypted(data, limit=1)
    assert again.seconds["keygen"] < 0.01, "keys are made once"


def test_a_saved_program_is_the_same_program(tiny, tmp_path):
    _, data, program = tiny
    file = tmp_path / "tiny.fhe"
    program.save(file)
    loaded = onnx_fhe.Program.load(file)
    assert loaded.manifest == program.manifest
    assert loaded.statistics == program.statistics
    np.testing.assert_array_equal(loaded.run(data).outputs["y"], program.run(data).outputs["y"])
    values, _ = Prologue(program.parts).run(data)
    for name, array in program.circuit.clear(values).items():
        np.testing.assert_array_equal(loaded.circuit.clear(values)[name], array)
    assert agreement(*(p.simulate(data, limit=20).outputs for p in (loaded, program))) >= 0.7
    loaded.save(tmp_path / "again.fhe")
    assert (tmp_path / "again.fhe").read_bytes() == file.read_bytes()


def test_clear_runs_need_no_concrete(tiny, tmp_path):
    _, _, program = tiny
    file = tmp_path / "tiny.fhe"
    program.save(file)
    code = f"""
import sys, numpy as np, onnx_fhe
program = onnx_fhe.Program.load({str(file)!r})
program.run(np.zeros((2, 2), np.float32))
print(program.statistics.programmable_bootstraps, sorted({{"concrete", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 []"


def test_the_manifest_says_how_the_circuit_came_about(tiny, tmp_path):
    path, data, _ = tiny
    program = compiled(path, data, range_mode="sound", seed=7, p_error=1e-4)
    manifest = program.manifest
    assert manifest.source.file == "tiny.onnx"
    assert len(manifest.source.sha256) == 64
    assert (manifest.range_mode, manifest.seed, manifest.p_error) == ("sound", 7, 1e-4)
    assert manifest.rounding in ("approximate", "none")
    assert [(p.name, p.shape, p.dtype) for p in manifest.inputs] == [("x", ("N", 2), "float")]
    assert manifest.packages["onnx-fhe"]
    # The text in the manifest makes the same program again.
    again = compiled(path, data, manifest.pipeline, range_mode="sound", seed=7, p_error=1e-4)
    assert again.manifest == manifest
    assert compiled(path, data, TO_INTEGER).manifest.rounding == "none"


def test_the_tolerated_error_is_chosen_or_given(mlp):
    path, data, program = mlp
    assert (program.manifest.p_error, program.manifest.global_p_error) == (1e-5, None)
    both = compiled(path, data, global_p_error=0.01).manifest
    assert (both.p_error, both.global_p_error) == (None, 0.01)
    for wrong in ({"p_error": 0}, {"p_error": 1.5}, {"global_p_error": -1}, {"range_mode": "wide"},
                  {"range_margin": -1}, {"range_margin": float("nan")}, {"seed": -1}):  # fmt: skip
        with pytest.raises(UserError):
            compiled(path, data, **wrong)


def test_a_model_in_memory_and_an_integer_model_compile_too(mlp, tmp_path):
    path, data, program = mlp
    model = onnx_fhe.load(path)
    found = compiled(model, data)
    np.testing.assert_array_equal(
        next(iter(found.run(data).outputs.values())), next(iter(program.run(data).outputs.values()))
    )
    assert found.manifest.source.file == "mlp.onnx"
    once_more = compiled(program.integer_model, data, "insert-rounding{bits=8}")
    assert once_more.statistics.programmable_bootstraps == program.statistics.programmable_bootstraps


def test_instruments_watch(mlp):
    path, data, _ = mlp
    timed = Time()
    compiled(path, data, TO_INTEGER, instruments=[timed])
    assert [name for name, _ in timed.seconds] == ["normalize", "quantize", "lower-to-integer", "fuse-tlu"]


@pytest.mark.parametrize(
    ("pipeline", "advice"),
    [
        ("normalize", "add quantize,lower-to-integer,fuse-tlu"),
        ("quantize", "add lower-to-integer,fuse-tlu"),
        ("quantize,lower-to-integer", "add fuse-tlu"),
    ],
)
def test_a_pipeline_that_stops_early_is_refused_with_advice(mlp, pipeline, advice):
    path, data, _ = mlp
    with pytest.raises(PipelineError) as caught:
        compiled(path, data, pipeline)
    assert advice in caught.value.do


def test_an_integer_model_that_breaks_a_rule_is_the_users_affair(mlp):
    _, data, program = mlp
    model = program.integer_model.clone()
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    weight = gemm.inputs[1]
    weight.const_value = ir.tensor(weight.const_value.numpy() + np.float32(0.5), name=weight.name)
    with pytest.raises(ModelError, match="rule of the integer level"):
        compiled(model, data, "insert-rounding{bits=8}")


def test_missing_calibration_is_said(mlp):
    with pytest.raises(DataError, match="calibration"):
        compiled(mlp[0], None)


class _Wrong(ReferenceCircuit):
    def clear(self, values):
        return {k: v + 1 for k, v in super().clear(values).items()}


def test_a_circuit_that_computes_something_else_is_a_defect(mlp, monkeypatch):
    path, data, _ = mlp
    monkeypatch.setattr(ReferenceBackend, "lower", lambda self, model, options: _Wrong(model, options))
    with pytest.raises(LoweringMismatchError):
        compiled(path, data)
    assert compiled(path, data, check_samples=0).statistics.programmable_bootstraps > 0


def test_predictions_are_read_from_the_outputs_that_hold_them():
    scores = np.float32([[0, 2, 1], [3, 0, 0]])
    assert predictions({"y": scores}).tolist() == [1, 0]
    assert predictions({"y": scores[:, :, None, None]}).tolist() == [1, 0]
    assert predictions({"scores": scores, "label": np.int64([2, 2])}).tolist() == [2, 2]
    assert predictions({"y": scores[:, :1]}) is None, "a regression"
    assert predictions({"y": np.zeros((2, 3, 3), np.float32)}) is None, "an image"
    assert accuracy({"y": scores}, np.int64([1, 1])) == 0.5
    assert accuracy({"y": scores}, np.float32([0.5, 1.5])) is None
    assert accuracy({"y": scores}, None) is None
    assert agreement({"y": scores}, {"y": -scores}) == 0.0


def test_a_single_probability_is_a_class_from_one_half_on(zoo, tmp_path):
    model = ir.from_proto(zoo.sigmoid_end())
    name = model.graph.outputs[0].name
    assert predictions({name: np.float32([[0.2], [0.7]])}, model).tolist() == [0, 1]


def test_inspection_places_bootstraps_where_the_circuit_has_them(small, tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(small.proto, path)
    found = inspect_model(path)
    assert found.supported
    program = compiled(path, small.data, check_samples=4)
    assert found.programmable_bootstraps == program.statistics.programmable_bootstraps
    assert {n.where for n in found.nodes} >= {"encrypted"}
    loaded = onnx_fhe.load(path)
    assert {i.name for i in found.inputs} == {v.name for v in loaded.graph.inputs}


def test_inspection_names_everything_that_is_in_the_way(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 3] x) => (float[N, 3] y)
    <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, int64[1] k = {3}>
    {
        [one] a = Gemm (x, w)
        [first] b, i = TopK (a, k)
        [two] c = Gemm (b, w)
        [relu] d = Relu (c)
        [three] e = Gemm (d, w)
        [second] f, j = TopK (e, k)
        [four] y = Gemm (f, w)
    }
    """
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    found = inspect_model(path)
    assert not found.supported
    assert [(f.node, f.operator) for f in found.findings] == [("first", "TopK"), ("second", "TopK")]
    assert all(f.do for f in found.findings)
    assert found.programmable_bootstraps is None
    with pytest.raises(UnsupportedError) as caught:
        compiled(path, np.zeros((5, 3), np.float32))
    assert caught.value.where.node == "first"


def test_inspection_of_later_levels_agrees(mlp, tmp_path):
    path, data, program = mlp
    context = onnx_fhe.Context(calibration=data)
    for level, pipeline in (("qdq", "normalize,quantize"), ("integer", f"normalize,{TO_INTEGER}")):
        file = tmp_path / f"{level}.onnx"
        save(onnx_fhe.PassManager.parse(pipeline).run(onnx_fhe.load(path), context).model, file)
        found = inspect_model(file)
        assert (found.level, found.supported) == (level, True)
        assert found.programmable_bootstraps == program.statistics.programmable_bootstraps
        assert {n.where for n in found.nodes} >= {"encrypted", "client, before"}

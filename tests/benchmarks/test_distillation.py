"""benchmarks/distillation.py: a tiny run, what is refused, and that the control learns from the same."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.graph import LINEAR, constant_of
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.distill.distill import Distill

pytest.importorskip("torch")
INPUTS, HIDDEN, CLASSES, SAMPLES = 6, 8, 3, 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network of random weights, and what it says of random inputs as labels."""
    random = np.random.default_rng(0)
    shapes = {"w1": (HIDDEN, INPUTS), "b1": (HIDDEN,), "w2": (CLASSES, HIDDEN), "b2": (CLASSES,)}
    weights = [
        numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="last", transB=1),
    ]
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size])
        for n, size in (("x", INPUTS), ("y", CLASSES))
    ]
    graph = helper.make_graph(nodes, "tiny", ports[:1], ports[1:], weights)
    folder = tmp_path / "models"
    folder.mkdir()
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "tiny.onnx")
    model = onnx_fhe.load(folder / "tiny.onnx")
    for part, count in (("calibration", SAMPLES), ("test", 40)):
        inputs = random.normal(size=(count, INPUTS)).astype(np.float32)
        labels = {} if part == "calibration" else {"labels": run(model, {"x": inputs})["y"].argmax(axis=1)}
        np.savez(folder / f"tiny.{part}.npz", x=inputs, **labels)
    return folder


@pytest.fixture
def benchmark_module(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("distillation")


def test_a_run(benchmark_module: ModuleType, folder: Path, tmp_path: Path, capsys):
    out, picture = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = [str(folder), "--seeds", "1", "--ratios", "0.5", "--steps", "2"]
    assert benchmark_module.main([*arguments, "--json", str(out), "--plot", str(picture)]) == 0
    report = json.loads(out.read_text())
    (model,) = report["models"]
    assert (model["model"], model["samples"], model["float_accuracy"]) == ("tiny", 40, 1.0)
    rows = {r["method"]: r for r in model["rows"]}
    assert list(rows) == list(benchmark_module.METHODS)
    assert all(0 <= r["accuracy"] <= 1 and 0 < r["bootstraps"] <= HIDDEN // 2 for r in rows.values())
    assert rows["refit"]["accuracy"] > 1 / CLASSES
    lines = capsys.readouterr().out.splitlines()
    assert "| | 50.0% removed | seconds |" in lines
    assert [li.split(" |")[0] for li in lines[-5:]] == [f"| {t}" for t in benchmark_module.METHODS.values()]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_is_refused(benchmark_module: ModuleType, folder: Path, capsys):
    assert benchmark_module.main([str(folder), "--methods", "refit,magic"]) == 1
    assert "magic" in capsys.readouterr().err
    inputs = read_npz(folder / "tiny.test.npz").arrays["x"]
    np.savez(folder / "tiny.test.npz", x=inputs)
    assert benchmark_module.main([str(folder)]) == 1
    captured = capsys.readouterr()
    assert (captured.out, "labels" in captured.err) == ("", True)


def test_the_control_learns_from_what_distill_learns_from(benchmark_module: ModuleType, folder: Path):
    """The same samples held back, the same made of the others, the same answers, in the same shares."""
    from onnx_fhe.passes.distill.training import task

    scratch = importlib.import_module("from_scratch")
    teacher = onnx_fhe.load(folder / "tiny.onnx")
    given = calibration_for(teacher, read_npz(folder / "tiny.calibration.npz"))
    context = Context(calibration=given, seed=3, source=teacher)
    small = PassManager.parse("normalize,remove-neurons{ratio=0.5}").run(teacher, context).model
    options = Distill(steps=2)
    quantized = PassManager.parse("quantize{weights=4}").run(small, context).model
    wanted = task.prepare(options, quantized, given, context)
    found = scratch.lessons(options, small, teacher, given, seed=3)
    pairs = [
        *zip(found.inputs, wanted.samples.inputs, strict=True),
        *zip(found.answers, wanted.samples.answers, strict=True),
        *zip(found.held, wanted.held.inputs, strict=True),
        *zip(found.held_answers, wanted.held.answers, strict=True),
    ]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)
    assert found.given == wanted.samples.given
    assert found.given_share == pytest.approx(wanted.samples.given_share)
    assert found.loss.kind == wanted.loss.kind


def test_training_from_scratch_forgets_the_weights_and_learns(benchmark_module: ModuleType, folder: Path):
    scratch = importlib.import_module("from_scratch")
    teacher = onnx_fhe.load(folder / "tiny.onnx")
    given = calibration_for(teacher, read_npz(folder / "tiny.calibration.npz"))
    small = PassManager.parse("normalize").run(teacher, Context(calibration=given)).model

    def weights() -> list[np.ndarray]:
        found = [constant_of(n.inputs[1]) for n in small.graph if n.op_type in LINEAR]
        return [w for w in found if w is not None]

    before = weights()
    agreed = scratch.train_from_scratch(Distill(steps=150), small, teacher, given, seed=0)
    after = weights()
    assert [w.shape for w in after] == [w.shape for w in before]
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.7 for a, b in zip(before, after, strict=True))
    assert agreed > 0.7
    wanted = run(teacher, given)["y"].argmax(axis=1)
    assert (next(iter(run(small, given).values())).argmax(axis=1) == wanted).mean() > 0.7

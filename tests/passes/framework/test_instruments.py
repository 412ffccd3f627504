"""What watches a pipeline: order, dumps, times, prints, verification, comparison."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import PassBase, common

from onnx_fhe.ir.errors import DataError, ModelError, OutputError, VerificationError
from onnx_fhe.ir.level import Level, level_of, set_level
from onnx_fhe.ir.load import load
from onnx_fhe.passes import Context, Pass, PassManager, option
from onnx_fhe.passes.framework.differential import DifferentialCheck
from onnx_fhe.passes.framework.instruments import Dump, Instrument, Print, Time, Verify

TEXT = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N, 3] x) => (float[N, 3] y)
<float[3] one = {1, 1, 1}>
{ [unused] b = Mul(x, one)  [add] y = Add(x, one) }"""

DATA = {"x": np.array([[-3, 1, 2], [0.5, -0.5, 0], [9, 4, 3]], np.float32)}


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(TEXT)


@dataclass(frozen=True)
class Shift(Pass):
    """Adds to one entry of the constant."""

    name: ClassVar[str] = "shift"
    preserves = "exact"
    by: float = option(1.0, help="How far.")
    at: int = option(0, help="Which entry.")

    def run(self, model: ir.Model, context: Context) -> bool:
        value = model.graph.initializers["one"]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[self.at] += self.by
        value.const_value = ir.tensor(array, name="one")
        return self.by != 0


@dataclass(frozen=True)
class ShiftFloat(Shift):
    """The same, within float error."""

    name: ClassVar[str] = "shift-float"
    preserves = "float"


@dataclass(frozen=True)
class ShiftMore(Shift):
    """The same, and says so."""

    name: ClassVar[str] = "shift-more"
    preserves = "approximate"


class Log(Instrument):
    """Writes down when it is called."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        self.log.append(f"{self.name} start {len(passes)}")

    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:
        self.log.append(f"{self.name} before {pass_}")

    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        self.log.append(f"{self.name} after {pass_} {modified}")

    def finish(self, model: ir.Model) -> None:
        self.log.append(f"{self.name} finish")


def test_the_first_instrument_is_outermost(model: ir.Model):
    log: list[str] = []
    PassManager([Shift(by=0.0)], [Log("a", log)]).run(model, instruments=[Log("b", log)])
    assert log == [
        "a start 1",
        "b start 1",
        "a before shift{by=0.0}",
        "b before shift{by=0.0}",
        "b after shift{by=0.0} False",
        "a after shift{by=0.0} False",
        "b finish",
        "a finish",
    ]


def test_the_base_does_nothing(model: ir.Model):
    assert PassManager([Shift()], [Instrument()]).run(model).modified


def test_dump_saves_every_stage(model: ir.Model, tmp_path: Path):
    folder = tmp_path / "a" / "stages"
    dump = Dump(folder)
    PassManager([Shift(), common.RemoveUnusedNodesPass()], [dump]).run(model)
    names = ["00-input.onnx", "01-shift.onnx", "02-onnx-ir.remove-unused-nodes.onnx"]
    assert sorted(f.name for f in folder.iterdir()) == names
    assert [f.name for f in dump.files] == names
    stages = [onnx.load(f) for f in dump.files]
    assert [len(s.graph.node) for s in stages] == [2, 2, 1]
    constants = [onnx.numpy_helper.to_array(s.graph.initializer[0])[0] for s in stages]
    assert constants == [1, 2, 2]


def test_dump_says_when_the_folder_cannot_be_made(model: ir.Model, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        PassManager([Shift()], [Dump(tmp_path / "file" / "stages")]).run(model)
    assert caught.value.where.file == str(tmp_path / "file" / "stages")


def test_time_measures_each_pass(model: ir.Model):
    timing = Time()
    manager = PassManager([Shift(), common.RemoveUnusedNodesPass()], [timing])
    manager.run(model)
    manager.run(model)
    assert [name for name, _ in timing.seconds] == ["shift", "onnx-ir.remove-unused-nodes"]
    assert all(0 <= s < 10 for _, s in timing.seconds)
    lines = timing.to_text().splitlines()
    assert [line.split()[0] for line in lines] == ["shift", "onnx-ir.remove-unused-nodes", "total"]
    assert lines[-1].endswith("100.0%")
    assert Time().to_text().startswith("total")


def test_print_shows_the_model_after_each_pass(model: ir.Model, capsys: pytest.CaptureFixture[str]):
    stream = io.StringIO()
    passes = [Shift(by=2.0), Shift(by=0.0)]
    PassManager(passes, [Print(stream)]).run(model)
    text = stream.getvalue()
    assert "after shift{by=2.0}\n" in text
    assert "after shift{by=0.0} (changed nothing)\n" in text
    assert text.count("Add") == 2
    PassManager(passes, [Print(only_changes=True)]).run(model)
    out, err = capsys.readouterr()
    assert out == ""
    assert "by=2.0" in err
    assert "by=0.0" not in err


def test_verify_looks_after_each_pass(model: ir.Model, monkeypatch: pytest.MonkeyPatch):
    seen: list[ir.Model] = []

    def verify(model: ir.Model, *, whole: bool = True) -> None:
        seen.append(model)
        if len(seen) == 2:
            raise VerificationError("a rule is broken", node="/fc1/Gemm")

    fake = types.ModuleType("onnx_fhe.ir.verify")
    fake.verify = verify  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnx_fhe.ir.verify", fake)
    with pytest.raises(VerificationError) as caught:
        PassManager([Shift(), ShiftMore(), Shift()], [Verify()]).run(model)
    assert len(seen) == 2
    assert caught.value.where.pass_name == "shift-more"


def test_verify_blames_the_file_for_what_came_with_it(model: ir.Model):
    set_level(model, Level.INTEGER)
    with pytest.raises(ModelError, match="breaks a rule of the integer level"):
        PassManager([Shift()], [Verify()]).run(model)


def test_every_stage_of_the_straight_road_is_verified(small, tmp_path):
    onnx.save(small.proto, tmp_path / "model.onnx")
    seen = []

    class Watch(Verify):
        def after_pass(self, pass_, model, modified):
            super().after_pass(pass_, model, modified)
            seen.append(str(level_of(model)))

    text = "normalize,quantize,lower-to-integer,fuse-tlu,insert-rounding{bits=3},analyze-bit-widths"
    context = Context(calibration=small.data)
    PassManager.parse(text).run(load(tmp_path / "model.onnx"), context, [Watch()])
    assert seen == ["float", "qdq", "integer", "integer", "integer", "integer"]


def test_verify_takes_a_sound_model(model: ir.Model):
    assert PassManager([Shift()], [Verify()]).run(model).modified


def test_differences_are_reported(model: ir.Model):
    check = DifferentialCheck(DATA)
    passes = [common.RemoveUnusedNodesPass(), ShiftMore(by=2.0), Shift(by=0.0), ShiftMore(by=0.5, at=1)]
    PassManager(passes, [check]).run(model)
    names = ["onnx-ir.remove-unused-nodes", "shift-more", "shift", "shift-more"]
    assert [d.pass_name for d in check.differences] == names
    assert [d.max_abs for d in check.differences] == [0, 2, 0, 0.5]
    # y before: [-2 2 3], [1.5 .5 1], [10 5 4]; no largest entry changes its place.
    assert [d.same_argmax for d in check.differences] == [1, 1, 1, 1]
    assert check.differences[1].scale == 10
    assert check.differences[1].relative == 0.2
    header, *rows = check.to_text().splitlines()
    assert header.split() == ["pass", "output", "max", "abs", "relative", "same", "argmax"]
    assert rows[1].split() == ["shift-more", "y", "2", "20.00%", "100.0%"]


def test_another_predicted_class_is_counted(model: ir.Model):
    check = DifferentialCheck(DATA)
    PassManager([ShiftMore(by=3.0, at=1)], [check]).run(model)
    # y: [-2 2 3], [1.5 .5 1], [10 5 4] -> [-2 5 3], [1.5 3.5 1], [10 8 4].
    assert check.differences[0].same_argmax == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("pass_", "fails"),
    [
        (Shift(by=0.0005), False),  # 5e-5 of 10
        (Shift(by=0.002), True),
        (ShiftFloat(by=0.002), False),
        (ShiftFloat(by=0.02), True),
        (ShiftMore(by=50.0), False),
        (Shift(by=float("inf")), True),
    ],
)
def test_a_pass_that_changes_more_than_it_says_is_caught(model: ir.Model, pass_: Pass, fails: bool):
    check = DifferentialCheck(DATA)
    manager = PassManager([ShiftMore(), pass_], [check])
    if not fails:
        manager.run(model)
        return
    with pytest.raises(VerificationError, match="changed the output 'y' by more than it may") as caught:
        manager.run(model)
    assert caught.value.where.pass_name == pass_.name
    assert len(check.differences) == 2


def test_not_a_number_is_a_difference_unless_it_was_there(model: ir.Model):
    with pytest.raises(VerificationError):
        PassManager([Shift(by=float("inf")), Shift(by=float("-inf"))], [DifferentialCheck(DATA)]).run(model)
    check = DifferentialCheck({"x": np.array([[np.nan, 1, 1]], np.float32)})
    PassManager([Shift(by=0.0)], [check]).run(model)
    assert check.differences[0].max_abs == 0


def test_a_changed_interface_is_caught(model: ir.Model):
    @dataclass(frozen=True)
    class Drop(Pass):
        name: ClassVar[str] = "drop"
        preserves = "approximate"

        def run(self, model: ir.Model, context: Context) -> bool:
            model.graph.outputs.append(model.graph.node(0).outputs[0])
            return True

    with pytest.raises(VerificationError, match="drop changed the outputs") as caught:
        PassManager([Drop()], [DifferentialCheck(DATA)]).run(model)
    assert caught.value.allowed == "y (3, 3)"


def test_comparison_needs_samples(model: ir.Model):
    with pytest.raises(DataError, match="needs samples"):
        DifferentialCheck({})
    with pytest.raises(DataError, match="needs samples"):
        DifferentialCheck({"x": np.zeros((0, 3), np.float32)})
    with pytest.raises(DataError, match="an input has no samples") as caught:
        PassManager([Shift()], [DifferentialCheck({"z": DATA["x"]})]).run(model)
    assert caught.value.do == "add x"


def test_only_some_samples_are_run(model: ir.Model):
    check = DifferentialCheck(DATA, samples=2)
    PassManager([ShiftMore()], [check]).run(model)
    assert check.differences[0].scale == 3
    assert len(DATA["x"]) == 3

"""Running pipelines: context, clones, levels and errors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import InPlacePass, PassBase, PassResult, PreconditionError, common
from onnx_ir.passes import PassManager as OnnxIrPassManager

from onnx_fhe.ir.errors import DataError, ModelError, OnnxFheError, PipelineError, UserError
from onnx_fhe.ir.level import Level, level_of, set_level
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, Pass, PassManager, option
from onnx_fhe.passes.framework.manager import PassFailedError

TEXT = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N, 2] x) => (float[N, 2] y)
<float[2] one = {1, 1}, float[2] unused = {3, 3}>
{ a = Add(x, one)  b = Mul(x, one)  y = Relu(a) }"""

QUANTIZED_ELSEWHERE = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N, 2] x) => (float[N, 2] y)
<float s = {0.5}, uint8 z = {0}>
{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"""

DATA = {"x": np.array([[-3, 1], [0.5, -0.5]], np.float32)}


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(TEXT)


def text_of(model: ir.Model) -> str:
    return ir.to_onnx_text(model)


@dataclass(frozen=True)
class Shift(Pass):
    """Adds to the constant ``one``."""

    name: ClassVar[str] = "shift"
    preserves = "approximate"
    by: float = option(1.0, help="How far.")

    def run(self, model: ir.Model, context: Context) -> bool:
        value = model.graph.initializers["one"]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() + np.float32(self.by), name="one")
        context.notes.append(f"shifted by {self.by:g}")
        return self.by != 0


@dataclass(frozen=True)
class Watch(Pass):
    """Keeps the context that it gets."""

    name: ClassVar[str] = "watch"
    seen: ClassVar[list[Context]] = []

    def run(self, model: ir.Model, context: Context) -> bool:
        self.seen.append(context)
        return False


@dataclass(frozen=True)
class ToInteger(Pass):
    """Pretends to lower."""

    name: ClassVar[str] = "to-integer"
    accepts: ClassVar[tuple[Level, ...]] = (Level.QDQ,)
    produces: ClassVar[Level | None] = Level.INTEGER

    def run(self, model: ir.Model, context: Context) -> bool:
        return False


class Raises(InPlacePass):
    """A pass of someone else, which raises."""

    def __init__(self, error: Exception, cause: Exception | None = None, early: bool = False) -> None:
        self.error, self.cause, self.early = error, cause, early

    def requires(self, model: ir.Model) -> None:
        if self.early:
            raise self.error from self.cause

    def call(self, model: ir.Model) -> PassResult:
        raise self.error from self.cause


def test_the_given_model_is_never_changed(model: ir.Model):
    before = text_of(model)
    result = PassManager([Shift(by=2), common.RemoveUnusedNodesPass()]).run(model)
    assert result.modified
    assert text_of(model) == before
    assert model.graph.initializers["one"].const_value.numpy().tolist() == [1, 1]  # type: ignore[union-attr]
    assert np.array_equal(run(result.model, DATA)["y"], np.maximum(DATA["x"] + 3, 0))
    assert [n.op_type for n in result.model.graph] == ["Add", "Relu"]


def test_it_is_an_onnx_ir_pass(model: ir.Model):
    manager = PassManager([Shift(by=2)])
    assert isinstance(manager, PassBase)
    assert not manager.in_place
    assert not manager.changes_input
    result = OnnxIrPassManager([manager, common.RemoveUnusedNodesPass()])(model)
    assert np.array_equal(run(result.model, DATA)["y"], np.maximum(DATA["x"] + 3, 0))


def test_modified_is_truthful(model: ir.Model):
    assert not PassManager([]).run(model).modified
    assert not PassManager([Shift(by=0)]).run(model).modified
    assert PassManager([Shift(by=0), common.RemoveUnusedNodesPass(), Shift(by=0)]).run(model).modified
    set_level(model, Level.QDQ)
    # The level changes even though the pass found nothing to do.
    result = PassManager([ToInteger()]).run(model)
    assert result.modified
    assert level_of(result.model) is Level.INTEGER


def test_the_context_reaches_our_passes(model: ir.Model):
    Watch.seen.clear()
    context = Context(calibration=DATA, seed=7)
    result = PassManager([Shift(by=2), Watch()]).run(model, context)
    (seen,) = Watch.seen
    assert seen.calibration is DATA
    assert seen.seed == 7
    assert seen.source is not None
    assert seen.source is not model
    # The source is the model as given, not as the passes before left it.
    assert text_of(seen.source) == text_of(model)
    assert context.source is None
    assert context.notes == ["shifted by 2"]
    assert result.context.notes == ["shifted by 2"]


def test_a_source_that_is_given_stays_and_a_lower_level_is_none(model: ir.Model):
    Watch.seen.clear()
    source = model.clone()
    PassManager([Watch()]).run(model, Context(source=source))
    set_level(model, Level.QDQ)
    PassManager([Watch()]).run(model)
    assert Watch.seen[0].source is source
    assert Watch.seen[1].source is None


def test_managers_do_not_nest_but_flatten(model: ir.Model):
    inner = PassManager([Shift(by=2), Watch()])
    outer = PassManager([Shift(), inner, common.CheckerPass()])
    assert outer.to_text() == "shift,shift{by=2.0},watch,onnx-ir.checker"
    assert str(outer) == outer.to_text()


def test_parse_and_print():
    text = "onnx-ir.remove-unused-nodes,onnx-ir.common-subexpression-elimination{size-limit=20}"
    assert PassManager.parse(text).to_text() == text


def test_stop_after(model: ir.Model):
    passes = [Shift(by=1), Watch(), Shift(by=5), Watch()]
    manager = PassManager(passes, stop_after="watch")
    assert manager.to_text() == "shift,watch"
    assert manager.run(model).context.notes == ["shifted by 1"]
    assert PassManager.parse("onnx-ir.checker,onnx-ir.inline", stop_after="onnx-ir.checker").passes[1:] == ()
    with pytest.raises(PipelineError, match="no pass 'wacth' to stop after") as caught:
        PassManager(passes, stop_after="wacth")
    assert caught.value.allowed == "shift, watch"
    assert caught.value.do == "did you mean watch?"


def test_a_wrong_level_is_refused_with_the_pass_named(model: ir.Model):
    with pytest.raises(PipelineError, match="does not run on a model of the float level") as caught:
        PassManager([ToInteger()]).run(model)
    assert caught.value.where.pass_name == "to-integer"
    assert caught.value.allowed == "qdq"


@pytest.mark.parametrize("early", [False, True])
def test_our_errors_come_through_as_they_are(model: ir.Model, early: bool):
    mistake = ModelError("this node is odd", node="/fc1/Gemm", op="Gemm")
    with pytest.raises(ModelError) as caught:
        PassManager([Raises(mistake, early=early)]).run(model)
    assert caught.value is mistake
    assert caught.value.where == dataclasses.replace(mistake.where, pass_name="Raises")


def test_our_errors_come_out_of_nested_managers_of_onnx_ir(model: ir.Model):
    mistake = DataError("no such input")
    nested = OnnxIrPassManager([OnnxIrPassManager([Raises(mistake)])])
    with pytest.raises(DataError) as caught:
        PassManager([nested]).run(model)
    assert caught.value is mistake


@pytest.mark.parametrize(
    ("pass_", "found"),
    [
        (Raises(KeyError("x")), "KeyError: 'x'"),
        (Raises(ValueError("outer"), KeyError("inner")), "ValueError: outer"),
        (Raises(ValueError("broken"), early=True), "ValueError: broken"),
        (Raises(PreconditionError("needs shapes")), "PreconditionError: needs shapes"),
        (OnnxIrPassManager([OnnxIrPassManager([Raises(ValueError("deep"))])]), "ValueError: deep"),
    ],
)
def test_what_no_pass_should_raise_is_a_defect_that_names_the_pass(
    model: ir.Model, pass_: PassBase, found: str
):
    with pytest.raises(PassFailedError) as caught:
        PassManager([Watch(), pass_]).run(model)
    assert not isinstance(caught.value, UserError)
    assert caught.value.found == found
    assert caught.value.where.pass_name == type(pass_).__name__
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__).__name__ == found.split(":")[0]


def test_our_own_pass_that_fails_is_named_too(model: ir.Model):
    @dataclass(frozen=True)
    class Fails(Pass):
        name: ClassVar[str] = "fails"

        def run(self, model: ir.Model, context: Context) -> bool:
            return bool(1 / len(model.functions))

    with pytest.raises(OnnxFheError) as caught:
        PassManager([Fails()]).run(model)
    assert "the pass fails failed unexpectedly" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_pipeline_is_completed_for_the_model_that_it_gets(model):
    manager = PassManager([Shift()])
    assert manager.completed_for(model).to_text() == f"normalize,{manager.to_text()}"
    whole = PassManager.parse("normalize,remove-neurons")
    assert whole.completed_for(model).to_text() == whole.to_text()
    quantized = model.clone()
    set_level(quantized, Level.QDQ)
    assert manager.completed_for(quantized).to_text() == manager.to_text()


def test_a_model_of_another_tool_is_imported_first():
    foreign = ir.from_onnx_text(QUANTIZED_ELSEWHERE)
    assert PassManager([Shift()]).completed_for(foreign).to_text().startswith("normalize,import-qat,")
    found = PassManager.parse("normalize,remove-neurons").completed_for(foreign).to_text()
    assert found == "normalize,import-qat,remove-neurons"


def test_notes_of_a_trial_are_its_own():
    context = Context(seed=3)
    trial = context.with_notes(["tried"])
    trial.findings.unfitted.append(np.arange(2))
    assert (context.notes, trial.notes, trial.seed) == ([], ["tried"], 3)
    assert len(context.findings.unfitted) == 1

"""The canonical float form: one spelling of each network, so that the passes behind it know only one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from ...analysis.batch import lift
from ...ir import folding, shapes
from ...ir.editing import GraphEditor
from ...ir.level import Level, level_of, set_level
from ...ir.names import name_nodes
from ...ir.opsets import target_opset
from ...ir.state import ModelState
from ..framework.base import Context, Pass
from ..framework.rewriting import apply_greedily
from ..import_qat import detect, qoperators
from . import (
    affine,
    batch,
    choices,
    convolutions,
    inner,
    linear,
    noops,
    products,
    reductions,
    transposed,
    transposes,
    windows,
)
from .lifting import needs_lifting
from .rule import Rule
from .snapshot import Snapshot

_RULES: tuple[type[Rule[Any]], ...] = (
    noops.RemoveNoop,
    noops.MakeReshapeConstant,
    noops.MakeExpandConstant,
    noops.MergeReshapes,
    affine.SpellConstants,
    affine.SplitBatchNormalization,
    linear.GemmAsMatmul,
    linear.SplitBias,
    linear.NormalizeGemm,
    products.FlatMatrix,
    products.MatmulByGroups,
    products.EinsumToMatmul,
    linear.MatmulToGemm,
    convolutions.LiftOneDimension,
    convolutions.FoldDepth,
    convolutions.AverageByAxes,
    transposed.TransposedConvolution,
    windows.NormalizeWindow,
    windows.FoldPad,
    reductions.SumOfMany,
    choices.SplitToSlices,
    choices.GlobalMaxToReduce,
    choices.LargestOfOne,
    choices.LargestOfMany,
    transposes.MergeTransposes,
    transposes.SinkTransposes,
    affine.MergeConstants,
    affine.FoldConstants,
)
_MAX_SWEEPS = 100
"""Times that all rules are tried on the graph: rules that undo each other must not run for ever."""


@dataclass(frozen=True)
class Normalize(Pass):
    """Bring a float model to the canonical form of docs/design/architecture.md.

    The batch axis is ``N`` where the model works sample by sample; shapes are inferred; what is constant is
    computed; Identity, Dropout and unused parts are gone; dense layers and convolutions have one form (those
    of one and three dimensions and transposed ones too); batch normalization and constants per channel are
    folded into the weights before them; Transposes between layouts cancel. In the part that will run
    encrypted, norms and normalizations are taken apart, and what else is affine in one tensor becomes a dense
    layer. Operators on quantized tensors (QLinearConv) are float operators between QuantizeLinear and
    DequantizeLinear; what was quantized elsewhere is left to ``import-qat``.
    Running it again changes nothing.

    Raises:
        UnsupportedError: An input has a free axis besides the batch that calibration data does not bind, the
            samples of a fixed batch depend on each other, a tensor has no elements, an output is a constant,
            an operator is in training mode, or one is linear but too large to be written as a matrix.
    """

    name: ClassVar[str] = "normalize"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "float"

    def run(self, model: ir.Model, context: Context) -> bool:
        """Normalize ``model`` in place; returns whether it changed at all."""
        if level_of(model) is Level.QDQ and not detect.is_foreign(model):
            return False  # made by passes of ours, which keep to the form
        before = Snapshot.of(model)
        name_nodes(model)
        if qoperators.expand(model) or detect.is_foreign(model):
            set_level(model, Level.FLOAT)  # import-qat makes it qdq
        RemoveUnusedNodesPass()(model)
        batch.bind(model, context.calibration)
        batch.check_inputs(model)
        batch.infer(model, context.source)
        _fold(model, inferred=True)
        before_free = [shapes.dims_of(i) for i in model.graph.inputs]
        freed = batch.free(model)
        if before_free != [shapes.dims_of(i) for i in model.graph.inputs]:
            _fold(model, inferred=True)
        if folding.freeze_sizes(model):
            _fold(model)
        shapes.check_not_empty(model)
        _rewrite(model)
        state = ModelState.of(model)
        if freed == "fixed" or state.fixed_batch:
            freed = "fixed"
            replace(state, fixed_batch=True).record(model)
        wanted = freed == "single" or (freed == "free" and needs_lifting(model))
        if wanted and lift.lift(model) is None:
            _fold(model)
            _rewrite(model)
            freed = "free"
        if freed != "free":
            context.notes.append(
                "normalize: the samples of a batch depend on each other in this model, so its batch is fixed"
            )
        RemoveUnusedOpsetsPass()(model)
        model.opset_imports.setdefault("", target_opset())
        name_nodes(model)
        replace(ModelState.of(model), normalized=True).record(model)
        return Snapshot.of(model) != before


def _rewrite(model: ir.Model) -> None:
    """Apply the rules until none has anything left to do."""
    for _ in range(_MAX_SWEEPS):
        nodes = list(model.graph)
        modified = _sweep(GraphEditor(model))
        if not modified and not inner.rewrite(model):
            return
        # Where only constants and attributes changed, every value means what it meant, and has its shape.
        _fold(model, inferred=nodes == list(model.graph) and shapes.all_known(model))


def _sweep(edit: GraphEditor) -> bool:
    return apply_greedily(list(edit.graph), [rule(edit) for rule in _RULES])


def _fold(model: ir.Model, inferred: bool = False) -> None:
    """Compute what is constant; shapes are up to date afterwards (and before, where ``inferred``)."""
    if folding.fold_shapes(model) or not inferred:
        shapes.infer(model)
    if folding.fold_constants(model):
        shapes.infer(model)
    RemoveUnusedNodesPass()(model)
    name_nodes(model)

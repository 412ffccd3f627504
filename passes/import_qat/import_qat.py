"""``import-qat``: a network that another tool has quantized keeps exactly its integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from ...ir import shapes
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level, level_of
from ...ir.names import name_nodes
from ...ir.state import ModelState
from ..framework.base import Context, Pass, option
from . import activations, agreement, client, missing, partial, stored
from .detect import is_foreign


@dataclass(frozen=True)
class ImportQat(Pass):
    """Bring a network that was quantized elsewhere to the qdq level; others stay as they are.

    Reads QONNX (``Quant``, ``BipolarQuant``, ``Trunc``), QCDQ and QDQ, and onnxruntime's QOperator format,
    which ``normalize`` has spelled as QDQ. Weights keep their integers (zero point taken off) and scales, and
    move past Transpose and Reshape; activation quantizers become QuantizeLinear, Clip and DequantizeLinear.
    The integers that come out are those of the source; with calibration data that is counted. Inputs that
    have no quantizer get one that is calibrated: many tools leave it out.
    """

    name: ClassVar[str] = "import-qat"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "float"

    calibrate_missing: bool = option(
        False,
        help="Calibrate quantizers that are missing inside the network too, fix dynamic ones and round float"
        " weights, instead of refusing the model. What the client quantizes (inputs) is always calibrated.",
    )
    bits: int = option(8, help="Bits of quantizers that are calibrated.", low=1, high=8)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Import ``model`` in place; returns False where nothing in it was quantized elsewhere.

        Raises:
            UnsupportedError: A width above 8 bits, scales that depend on the data or that a layer mixes, or a
                tensor inside the network that reaches a quantized layer without a quantizer.
            DataError: There is no calibration data for what is to be calibrated.
        """
        if not is_foreign(model):
            return False
        self._fix_dynamic(model, context)
        edit = IntegerEditor(model)
        layers = stored.store_weights(model, edit)
        _fold_constants(model, layers)
        RemoveUnusedNodesPass()(model)
        count = activations.rewrite(model, edit)
        RemoveUnusedNodesPass()(model)
        shapes.infer(model)
        rounded = self._round_floats(model) if layers or count else []
        missed = self._add_missing(model, [*layers, *rounded], context)
        client.quantize_again([*layers, *rounded], edit)
        RemoveUnusedOpsetsPass()(model)
        name_nodes(model)
        if not layers and not count:
            return True
        replace(ModelState.of(model), level=Level.QDQ, trained=True).record(model)
        context.notes.append(
            f"import-qat: kept {len(layers)} layers' weights and {count} quantizers of the trained model"
            + (f"; rounded the weights of {', '.join(str(n.name) for n in rounded)}" if rounded else "")
            + (f"; calibrated {', '.join(missed)}" if missed else "")
            + _agreement(model, context, calibrated=bool(missed))
        )
        return True

    def _fix_dynamic(self, model: ir.Model, context: Context) -> None:
        nodes = missing.dynamic(model)
        if not nodes:
            return
        if not self.calibrate_missing:
            raise missing.refuse_dynamic(nodes)
        missing.make_static(model, nodes, context.require_calibration(self.name))

    def _round_floats(self, model: ir.Model) -> list[ir.Node]:
        layers = partial.float_layers(model)
        if layers and not self.calibrate_missing:
            raise partial.refuse(layers)
        partial.quantize(model, layers, self.bits)
        return layers

    def _add_missing(self, model: ir.Model, layers: list[ir.Node], context: Context) -> list[str]:
        found = missing.unquantized(layers)
        if not found:
            return []
        inside = {v: readers for v, readers in found.items() if not client.computes(v)}
        if inside and not self.calibrate_missing:
            raise missing.refuse(inside)
        missing.calibrate(model, found, context.require_calibration(self.name), self.bits)
        shapes.infer(model)
        if given := [repr(str(v.name)) for v in found if v not in inside]:
            verb = "reaches" if len(given) == 1 else "reach"
            context.notes.append(
                f"import-qat: {', '.join(given)} {verb} the first layers without a quantizer;"
                f" the client quantizes to {self.bits} bits there, calibrated on your data"
            )
        return [repr(str(v.name)) for v in found]


def _fold_constants(model: ir.Model, layers: list[ir.Node]) -> None:
    """Biases and other constants that were quantized are floats: no integers are needed of them."""
    edit, weights = GraphEditor(model), {layer.inputs[1] for layer in layers}
    for node in list(model.graph):
        given = [v for v in node.inputs if v is not None]
        if (
            node.outputs[0] in weights
            or node.outputs[0].is_graph_output()
            or not given
            or any(constant_of(v) is None for v in given)
        ):
            continue
        arrays = stored.static_arrays(model, list(node.outputs))
        for output, array in zip(node.outputs, arrays, strict=True):
            name = str(output.name)
            edit.rename(output, f"{name}_folded")
            output.replace_all_uses_with(edit.constant(name, array))
        model.graph.remove(node, safe=True)


def _agreement(model: ir.Model, context: Context, calibrated: bool) -> str:
    if context.calibration is None or context.source is None or level_of(model) is not Level.QDQ:
        return ""
    found = agreement.compare(model, context.source, context.calibration)
    if found is None:
        return ""
    text = f"; all of {found.values} quantized values on calibration data are the source's"
    if found.different:
        text = (
            f"; {found.different} of {found.values} quantized values on calibration data are not the source's"
            f" ({'they come of what was calibrated' if calibrated else 'ties of float rounding'})"
        )
    if found.ties:
        text += (
            f"; {found.ties} lie on a tie between two integers, where float rounding may choose either later"
        )
    return text

"""Completing a pipeline: passes that a model needs are put in front, and what is still missing is refused."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import PassBase

from ...analysis.regions import fusion_groups
from ...ir.errors import PipelineError
from ...ir.level import Level, level_of
from ...ir.verify import verify, verify_given
from ..import_qat.detect import is_foreign
from .pipeline import parse_passes, pass_name, print_passes

_TO_INTEGER = {
    Level.FLOAT: "quantize,lower-to-integer,fuse-tlu",
    Level.QDQ: "lower-to-integer,fuse-tlu",
}


def completed(passes: Sequence[PassBase], model: ir.Model) -> list[PassBase]:
    """The passes, with ``normalize`` and ``import-qat`` in front where the model needs them."""
    names, foreign = [pass_name(p) for p in passes], is_foreign(model)
    found = list(passes)
    if foreign and "import-qat" not in names:
        place = names.index("normalize") + 1 if "normalize" in names else 0
        found[place:place] = parse_passes("import-qat")
    if "normalize" not in names and (foreign or level_of(model) is Level.FLOAT):
        found = [*parse_passes("normalize"), *found]
    return found


def require_integer(model: ir.Model, passes: Sequence[PassBase]) -> None:
    """Refuse a pipeline that stops before there is a circuit to make, and a model that breaks a rule.

    Args:
        model: What the pipeline made.
        passes: The pipeline.

    Raises:
        PipelineError: The pipeline does not reach the integer level, or leaves operators that are no tables.
        ModelError: The file was of the integer level, and breaks a rule of it.
    """
    level, text = level_of(model), print_passes(passes)
    if level is not Level.INTEGER:
        raise PipelineError(
            "the pipeline does not reach the integer level",
            found=f"{text}, which ends at the {level} level",
            allowed="a pipeline that ends at the integer level",
            do=f"add {_TO_INTEGER[level]} at its end, or use a preset (`onnx-fhe passes` lists them)",
        )
    names = [pass_name(p) for p in passes]
    if left := fusion_groups.find(model):
        node = left[0].nodes[0]
        raise PipelineError(
            "the pipeline leaves operators in the encrypted part that are no tables yet",
            found=text,
            do="add fuse-tlu behind lower-to-integer",
            node=node.name or "",
            op=node.op_type,
        )
    # Where nobody here made it an integer model, the file came so.
    (verify if "lower-to-integer" in names else verify_given)(model)

"""What a pipeline lacks to make a circuit of a model: put in front where it is clear, else refused."""

from __future__ import annotations

import onnx_ir as ir

from .analysis.regions import fusion_groups
from .ir.errors import PipelineError
from .ir.level import Level, level_of
from .ir.verify import verify, verify_given
from .passes.framework.manager import PassManager
from .passes.framework.pipeline import parse_passes, pass_name
from .passes.import_qat.detect import is_foreign

_TO_INTEGER = {
    Level.FLOAT: "quantize,lower-to-integer,fuse-tlu",
    Level.QDQ: "lower-to-integer,fuse-tlu",
}


def complete(manager: PassManager, model: ir.Model) -> PassManager:
    """The pipeline with ``normalize`` and ``import-qat`` in front, where the model would go without."""
    names = [pass_name(p) for p in manager.passes]
    passes = list(manager.passes)
    if is_foreign(model) and "import-qat" not in names:
        place = names.index("normalize") + 1 if "normalize" in names else 0
        passes[place:place] = parse_passes("import-qat")
    if "normalize" not in names and (level_of(model) is Level.FLOAT or is_foreign(model)):
        passes = [*parse_passes("normalize"), *passes]
    return PassManager(passes, manager.instruments)


def require_integer(model: ir.Model, manager: PassManager) -> None:
    """Refuse a pipeline that stops before there is a circuit to make, and a model that breaks a rule.

    Raises:
        PipelineError: The pipeline does not reach the integer level, or leaves operators that are no tables.
        ModelError: The file was of the integer level, and breaks a rule of it.
    """
    level, text = level_of(model), manager.to_text()
    if level is not Level.INTEGER:
        raise PipelineError(
            "the pipeline does not reach the integer level",
            found=f"{text}, which ends at the {level} level",
            allowed="a pipeline that ends at the integer level",
            do=f"add {_TO_INTEGER[level]} at its end, or use a preset (`onnx-fhe passes` lists them)",
        )
    names = [pass_name(p) for p in manager.passes]
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

"""``imitate``: a student of our own form in the place of a file that cannot be lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.editing import GraphEditor
from ...ir.runtime import Session
from ..framework.base import Context, Pass
from .forms import forms_of
from .lift_features.feature_options import FeatureOptions
from .lift_features.writing import write_readouts


@dataclass(frozen=True)
class Imitate(FeatureOptions, Pass):
    """Replace a model of any structure by public features of its input and a readout fitted to its answers.

    For files whose operators have no encrypted form and that onnxruntime runs: recurrent cells, kernel
    machines, tree ensembles, control flow. The student knows nothing of the file but what it answers to
    calibration inputs and to mixtures of them; what it loses is measured as for any circuit. It stands first
    in a pipeline.
    """

    name: ClassVar[str] = "imitate"

    def run(self, model: ir.Model, context: Context) -> bool:
        """Rewrite ``model`` in place.

        Raises:
            DataError: There is no calibration data, or too little.
            UnsupportedError: An output has a form that is not imitated, or the inputs are too many.
        """
        data = self.enough(context)
        session = Session(model)
        forms = forms_of(list(model.graph.outputs), session.run_batched(data))

        def answers(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            return forms.scores(session.run_batched(inputs))

        kind: Literal["classes", "values"] = "classes" if forms.tells_classes else "values"
        search, chosen = self.searched(model, answers, kind, context)
        editor = GraphEditor(model)
        scores = write_readouts(editor, search, chosen, forms.shapes)
        for form, old in zip(forms.outputs, list(model.graph.outputs), strict=True):
            new = form.write(editor, scores[form.source])
            if new in scores:
                new = editor.add("Identity", [new], "student/Identity", like=new)
            editor.stand_in(old, new, "of_file")
        RemoveUnusedNodesPass()(model)
        for domain in set(model.opset_imports) - {n.domain for n in model.graph} - {""}:
            del model.opset_imports[domain]
        return True

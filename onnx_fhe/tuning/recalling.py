"""Passes that took long in a trial, recalled when the same point is compiled: a student is trained once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import PassBase

from ..passes.framework.base import Context, Pass
from ..passes.framework.manager import PassManager
from ..passes.framework.pipeline import pass_text
from .stages import Stage, Stages


@dataclass(frozen=True)
class Recalled(Pass):
    """Stands for a pass whose result is known, under its name and with its text.

    Attributes:
        original: The pass.
        stage: What it made.
    """

    original: Pass | None = None
    stage: Stage | None = None

    def __post_init__(self) -> None:
        assert self.original is not None
        for name in ("name", "accepts", "produces", "preserves"):
            object.__setattr__(self, name, getattr(self.original, name))

    def to_text(self) -> str:
        """The text of the pass that it stands for."""
        assert self.original is not None
        return self.original.to_text()

    def run(self, model: ir.Model, context: Context) -> bool:
        """Put what was made in place of ``model``."""
        assert self.stage is not None
        made = self.stage.model.clone()
        model.graph = made.graph
        model.metadata_props.update(made.metadata_props)
        context.notes.extend(self.stage.notes)
        return True


def recalled(pipeline: str, p_error: float, folder: Path) -> PassManager:
    """A pipeline whose passes are recalled, as far as trials left their results in ``folder``.

    Passes share their random state with no other pass, and their context is the same wherever they run, so
    what a trial left is what the pass would make again, bit for bit.
    """
    passes: list[PassBase] = list(PassManager.parse(pipeline).passes)
    texts = texts_of(passes, p_error)
    stages = Stages(folder)
    for place, pass_ in enumerate(passes):
        found = stages.written(texts[: place + 2])
        if found is not None and isinstance(pass_, Pass):
            passes[place] = Recalled(original=pass_, stage=found)
    return PassManager(passes)


def texts_of(passes: list[PassBase] | tuple[PassBase, ...], p_error: float) -> tuple[str, ...]:
    """By what stages are known: the error that passes are told, and the passes."""
    return (f"{p_error!r}", *(pass_text(p) for p in passes))

"""onnx_ir's own passes under the names ``onnx-ir.remove-unused-nodes`` and so on."""

from __future__ import annotations

import inspect
import re
from functools import cache

import onnx_ir as ir
from onnx_ir.passes import PassBase, common

from .values import OptionSpec

PREFIX = "onnx-ir."
OWNER = f"onnx-ir {ir.__version__}"

_WRITABLE = {"bool": bool, "int": int, "float": float, "str": str}


@cache
def onnx_ir_passes() -> dict[str, type[PassBase]]:
    """Every pass that onnx_ir exports, by its name in a pipeline."""
    found = (getattr(common, name) for name in common.__all__)
    classes = (c for c in found if isinstance(c, type) and issubclass(c, PassBase))
    return {PREFIX + _kebab(c.__name__): c for c in classes}


@cache
def onnx_ir_options(cls: type[PassBase]) -> tuple[OptionSpec, ...]:
    """The parameters of a pass of onnx_ir that a text can give: those annotated bool, int, float or str."""
    text = f"{inspect.getdoc(cls)}\n{inspect.getdoc(cls.__init__)}"
    specs = []
    for parameter in inspect.signature(cls).parameters.values():
        hint = _WRITABLE.get(str(getattr(parameter.annotation, "__name__", parameter.annotation)))
        if hint is not None and parameter.default is not parameter.empty:
            # One line of a Google docstring's Args or Attributes.
            described = re.search(rf"^\s+{parameter.name}: (.+?)$", text, re.MULTILINE)
            help_text = described.group(1).strip() if described else ""
            specs.append(OptionSpec(parameter.name, hint, parameter.default, help_text))
    return tuple(specs)


def onnx_ir_name(pass_: PassBase) -> str | None:
    """The name in a pipeline of a pass that onnx_ir exports, else None."""
    return next((name for name, cls in onnx_ir_passes().items() if type(pass_) is cls), None)


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name.removesuffix("Pass")).lower()

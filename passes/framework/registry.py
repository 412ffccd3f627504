"""Which passes there are: files of the topics beside this folder, onnx_ir's own, and those of plug-ins."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module, resources
from importlib.abc import Traversable
from typing import Any, Literal, NamedTuple, TypeVar

from onnx_ir.passes import PassBase

from ...ir.errors import OnnxFheError, PipelineError, PluginError
from ...ir.plugins.store import NameStore, NameTakenError, current_owner
from ...ir.suggest import nearest
from .base import Pass
from .onnx_ir_passes import OWNER, PREFIX, onnx_ir_options, onnx_ir_passes
from .options import convert, find_option, options_of
from .presets import PRESETS
from .values import OptionError, OptionSpec

P = TypeVar("P", bound=type[Pass])

OURS = "onnx-fhe"
"""Owner of the passes that come with onnx-fhe."""
_NAME = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+)*")
_CLASS = re.compile(r"^class (\w+)\((?:\w+, )?Pass\)", re.MULTILINE)
_PASSES = __package__.rpartition(".")[0]

registered: NameStore[type[Pass]] = NameStore("pass")
"""The passes of plug-ins."""


class PassEntry(NamedTuple):
    """A pass that can be named in a pipeline.

    Attributes:
        name: Its name there.
        cls: Its class.
        owner: Who brings it: ``onnx-fhe``, ``onnx-ir VERSION``, or a plug-in.
        origin: Which of the three kinds of owner that is.
        options: Its options.
    """

    name: str
    cls: type[PassBase]
    owner: str
    origin: Literal["built-in", "onnx-ir", "plug-in"]
    options: tuple[OptionSpec, ...]

    def create(self, options: Mapping[str, Any]) -> PassBase:
        """The pass with these options (by name, with dashes or underscores).

        Raises:
            OptionError: An option that it does not have, or a value that it does not take.
        """
        found = {key: find_option(key, self.options, self.name) for key in options}
        given = {found[key].name: value for key, value in options.items()}
        if len(given) < len(options):
            raise OptionError(
                f"an option of {self.name} is given twice, by its old and its new name",
                found=", ".join(options),
                allowed="each option once",
                pass_name=self.name,
            )
        if issubclass(self.cls, Pass):
            made = self.cls(**given)
            renamed = [(k, spec.key) for k, spec in found.items() if k.replace("-", "_") != spec.name]
            object.__setattr__(made, "renamed", tuple(renamed))
            return made
        specs = {s.name: s for s in self.options}
        return self.cls(**{k: convert(specs[k], v, self.options, self.name) for k, v in given.items()})


def register_pass(cls: P) -> P:
    """Class decorator: makes the pass of a plug-in available under its ``name``.

    Write it above ``@dataclass(frozen=True)``.

    Raises:
        PluginError: It is no pass, or its name is taken (naming both owners) or cannot be written.
    """
    _require_registrable(cls)
    if taken_by := _taken_by(cls.name):
        raise NameTakenError.between("pass", cls.name, taken_by, current_owner() or cls.__module__)
    options_of(cls)
    registered.add(cls.name, cls, cls.__module__)
    return cls


def _require_registrable(cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise PluginError("only a subclass of onnx_fhe.passes.Pass can be registered", found=repr(cls))
    if any(isinstance(v, dataclasses.Field) for v in vars(cls).values()):
        raise PluginError(
            f"{cls.__qualname__} has options but is not a dataclass yet",
            do="write @register_pass, below it @dataclass(frozen=True), below it the class",
        )
    if cls.run is Pass.run:
        raise PluginError(f"{cls.__qualname__} has no method run(self, model, context) -> bool")
    if not _NAME.fullmatch(cls.name):
        raise PluginError(
            f"{cls.__qualname__} has a name that a pipeline cannot hold",
            found=repr(cls.name),
            allowed="lower-case words joined by dashes, such as clip-weights",
        )


def _taken_by(name: str) -> str | None:
    """What of onnx-fhe itself has this name, which plug-ins cannot take then."""
    if name in _built_in_modules():
        return OURS
    if name in PRESETS:
        return f"{OURS} (a preset)"
    return OWNER if name.startswith(PREFIX) else None


def find_pass(name: str) -> PassEntry:
    """The pass of this name. Built-in passes are found without loading any plug-in.

    Raises:
        PipelineError: There is none; it suggests the nearest.
        PluginError: Two installed plug-ins want this name.
    """
    if name in _built_in_modules():
        cls = _load_built_in(name)
        return PassEntry(name, cls, OURS, "built-in", options_of(cls))
    if name.startswith(PREFIX) and (known := onnx_ir_passes().get(name)):
        return PassEntry(name, known, OWNER, "onnx-ir", onnx_ir_options(known))
    from ...ir.plugins.loading import broken_plugins, of_plugins

    if owned := of_plugins(registered, name):
        return PassEntry(name, owned.value, owned.owner, "plug-in", options_of(owned.value))
    raise _unknown(name, [p.name for p in broken_plugins()])


def pass_names() -> list[str]:
    """The names of all passes, those of installed plug-ins among them: built-in, onnx-ir, plug-ins."""
    from ...ir.plugins.loading import load_installed

    load_installed()
    return [*_built_in_modules(), *onnx_ir_passes(), *sorted(registered.entries)]


def _unknown(name: str, broken: Iterable[str]) -> PipelineError:
    names = [*pass_names(), *PRESETS]
    # onnx-ir's long names would drown the others; `onnx-fhe passes` lists them.
    shown = [n for n in names if name.startswith(PREFIX) == n.startswith(PREFIX)]
    advice = nearest(name, names) or "see `onnx-fhe passes`"
    if plugins := ", ".join(broken):
        advice += f" (or mend the plug-in that brings it; broken: {plugins})"
    return PipelineError(f"there is no pass {name!r}", allowed=", ".join(shown), do=advice)


@cache
def _built_in_modules() -> dict[str, tuple[str, str]]:
    """(module, class) by pass name: the files of the topics that define a pass of their own name.

    They are read, not imported, so that naming one pass does not import the others.
    """
    found = {}
    for module, file in _files_of_topics():
        stem = file.name.removesuffix(".py")
        for cls in _CLASS.findall(file.read_text(encoding="utf-8")):
            if cls.lower() == stem.replace("_", ""):
                found[stem.replace("_", "-")] = (module, cls)
    return dict(sorted(found.items()))


def _files_of_topics() -> Iterator[tuple[str, Traversable]]:
    """Where passes may be: ``topic/name.py``, or ``topic/name/name.py`` where helpers lie beside it."""
    for topic in resources.files(_PASSES).iterdir():
        if topic.name == "framework" or not topic.is_dir():
            continue
        for file in topic.iterdir():
            if file.is_file() and file.name.endswith(".py"):
                yield f"{topic.name}.{file.name[:-3]}", file
            elif (inner := file.joinpath(f"{file.name}.py")).is_file():
                yield f"{topic.name}.{file.name}.{file.name}", inner


def _load_built_in(name: str) -> type[Pass]:
    module, cls_name = _built_in_modules()[name]
    cls = getattr(import_module(f"{_PASSES}.{module}"), cls_name)
    if not (issubclass(cls, Pass) and cls.name == name):
        raise OnnxFheError(f"the built-in pass {name!r} calls itself {getattr(cls, 'name', '')!r}")
    return cls  # type: ignore[no-any-return]

"""``onnx-fhe inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from . import supervisor as watch
from .options import Bind, Json, Limits, Machine, Plugins, load_plugins

if TYPE_CHECKING:
    from ..findings import Finding
    from ..inspection import Inspection
    from ..ir.errors import OnnxFheError
    from ..ports import Port


def inspect_(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An ONNX file of any level, or a .fhe file.", show_default=False
        ),
    ],
    machine: Machine = None,
    bind: Bind = None,
    limits: Limits = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Say what is in a model, whether it is supported, and where bootstraps will be; exit status 1 if not."""
    from ..artifact import is_artifact

    if is_artifact(model):
        _artifact(model, json, machine)
        return
    with output.working(), watch.contact(model):
        from ..inspection import inspect_model
        from ..ir.bind import parse_bindings
        from ..ir.guard import FileLimits
        from .summary import profile_of

        load_plugins(plugin)
        found = inspect_model(
            model, FileLimits().raised(limits or []), parse_bindings(bind or []), profile_of(machine)
        )
    if json:
        output.print_json(found)
    else:
        _show(found)
    if not found.supported:
        raise unusable(found)


def unusable(found: Inspection) -> OnnxFheError:
    """The error that ``inspect`` ends with where a model cannot be compiled: what is in the way, in short."""
    from ..ir.errors import UnsupportedError

    what = [f"{f.what}" + (f" ({f.node!r}, {f.operator})" if f.node else "") for f in found.findings]
    more = f"; and {len(what) - 3} more" if len(what) > 3 else ""
    return UnsupportedError(
        "this model cannot be compiled as it is",
        file=found.file,
        found="; ".join(what[:3]) + more,
        do=(found.findings[0].do if len(what) == 1 else "")
        or "change what the list of findings names (with --json: findings)",
    )


def _artifact(path: Path, json: bool, machine: Path | None) -> None:
    from ..artifact import read_manifest
    from .summary import profile_of, report, show_manifest, show_promise

    manifest, profile = read_manifest(path), profile_of(machine)
    if json:
        output.print_json(
            {"level": "artifact", **report(manifest, str(path), profile), "packages": manifest.packages}
        )
        return
    output.say(f"{path}: a circuit of {manifest.source.file or 'a model in memory'}")
    show_promise(manifest, profile)
    output.facts(
        [("made from", manifest.source.file or "a model in memory"), ("with", _packages(manifest.packages))]
    )
    show_manifest(manifest, profile)


def _packages(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _show(found: Inspection) -> None:
    output.say(f"{found.file}: {found.level} level, opset {found.opset}, {found.parameters} constant values")
    output.facts(
        [
            ("inputs", ", ".join(map(_typed, found.inputs))),
            ("outputs", ", ".join(map(_typed, found.outputs))),
            ("operators", ", ".join(f"{name} {count}" for name, count in found.operators.items())),
        ]
    )
    output.say()
    rows = [(n.name, n.operator, _shape(n.shape), n.where) for n in found.nodes]
    output.table(["node", "operator", "output", "runs"], rows)
    if found.supported:
        count = (
            "an unknown number of" if found.programmable_bootstraps is None else found.programmable_bootstraps
        )
        output.say(f"\nsupported: yes, with {count} programmable bootstraps for one sample")
        if found.predicted is not None:
            from .summary import expected

            if found.level == "float":
                output.say("if 4 bits reach every table:")
            output.facts(expected(found.predicted))
        if found.lookups:
            output.say()
            lookups = [
                (x.layer, x.operator, "?" if x.elements is None else x.elements) for x in found.lookups
            ]
            output.table(["tables behind", "operator", "bootstraps"], lookups)
        return
    output.say("\nsupported: no")
    for finding in found.findings:
        _show_finding(finding)


def _show_finding(finding: Finding) -> None:
    where = f"{finding.node!r} ({finding.operator}): " if finding.node else ""
    output.say(f"\n  {where}{finding.what}")
    for label, text in (("found", finding.found), ("allowed", finding.allowed), ("do", finding.do)):
        if text:
            output.say(f"    {label + ':':<9}{text}")


def _typed(port: Port) -> str:
    return f"{port.name} {_shape(port.shape)} {port.dtype}"


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"

"""``onnx-fhe passes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import Json, Plugins, load_plugins

if TYPE_CHECKING:
    from ..passes.framework.describe import Catalogue, PassDescription


def passes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A pass or preset to describe.", show_default=False)
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """List the passes and presets, or describe one of them."""
    with output.working():
        from ..passes.framework.describe import describe_pass, describe_passes
        from ..passes.framework.presets import PRESETS
        from ..passes.framework.registry import find_pass

        load_plugins(plugin)
        if name is None:
            catalogue = describe_passes()
        elif name not in PRESETS:
            find_pass(name)  # raises for a name that there is not
            described = describe_pass(name)
    if name is not None and name in PRESETS:
        _show_preset(name, json)
    elif json:
        output.print_json(catalogue if name is None else described)
    elif name is None:
        _show_all(catalogue)
    else:
        _show_one(described)


def _show_preset(name: str, json: bool) -> None:
    from ..passes.framework.presets import DEFAULT, PRESETS

    preset = PRESETS[name]
    if json:
        output.print_json(
            {"name": name, "summary": preset.summary, "pipeline": preset.text, "default": name == DEFAULT}
        )
        return
    output.say(f"{name} (preset): {preset.summary}\n\n  {preset.text}")


def _show_all(catalogue: Catalogue) -> None:
    output.say("Passes (`onnx-fhe passes NAME` shows the options of one):\n")
    rows = [
        (p.name, _levels(p), p.owner, p.summary.replace("``", "`"))
        for p in catalogue.passes
        if p.error is None
    ]
    output.table(["pass", "level", "from", "does"], rows)
    output.say("\nPresets:\n")
    for preset in catalogue.presets:
        default = " (the default)" if preset.default else ""
        output.say(f"  {preset.name}{default}: {preset.summary}\n      {preset.pipeline}")
    for broken in (p for p in catalogue.passes if p.error is not None):
        output.warn([f"the pass {broken.name} cannot be used: {broken.error}"])
    for plugin in catalogue.broken:
        output.warn([f"broken plug-in {plugin.name} ({plugin.value}, of {plugin.owner}):\n{plugin.error}"])


def _levels(described: PassDescription) -> str:
    accepts = "any" if len(described.accepts) in (0, 3) else ", ".join(described.accepts)
    return f"{accepts} to {described.produces}" if described.produces else accepts


def _show_one(described: PassDescription) -> None:
    output.say(f"{described.name}: {described.summary}")
    output.facts(
        [
            ("from", f"{described.owner} ({described.origin})"),
            ("level", _levels(described)),
            ("values", described.preserves or "not declared"),
        ]
    )
    if described.options:
        output.say()
        rows = [(o.name, o.type, _default(o.default), o.help) for o in described.options]
        output.table(["option", "is", "default", "meaning"], rows)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)

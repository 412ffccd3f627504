"""The page: everything that is known about a compiled network, put into the template."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..backends.reference import ReferenceBackend
from ..ir.errors import OnnxFheError, printable
from ..machine import Profile
from ..manifest import Manifest
from ..passes.framework.pipeline import parse_passes, pass_text
from ..record import Measurements, Record, Stage
from ..tuning.frontier import Frontier
from . import scatter, text
from .advice import advice
from .flow import after, before
from .layers import Layer, Range, layers_of, ranges_of
from .pricing import Pricing
from .sections import shown

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_SHOWN_STEPS = 24
"""Steps of a network that are shown at once; the others can be unfolded."""

STAGES = {
    "float": "The network as it was trained",
    "reduced": "Smaller: neurons, layers or weights removed",
    "integer": "In integers, as the circuit computes",
    "encrypted": "Encrypted, errors included",
}


@dataclass(frozen=True)
class Bound:
    """A bar between two places, in per cent of the chart."""

    range: Range
    layer: Layer | None
    declared: tuple[float, float]
    observed: tuple[float, float] | None
    sound: tuple[float, float] | None


def render(
    model: ir.Model,
    manifest: Manifest,
    *,
    frontier: Frontier | None = None,
    measured: Measurements | None = None,
    profile: Profile | None = None,
) -> str:
    """The report as HTML.

    Args:
        model: The integer-level model.
        manifest: Manifest of its artifact.
        frontier: What a search found.
        measured: On other data than the manifest has recorded; what it lacks is taken from there.
        profile: Profile of the machine that times are for.
    """
    again = command(manifest)
    if measured is not None:
        manifest = _with(manifest, measured)
    pricing = Pricing(model, manifest, profile)
    layers = layers_of(model, manifest, pricing)
    ranges = ranges_of(model, manifest, layers)
    known = manifest.record.measured if manifest.record is not None else None
    stages = () if known is None else known.stages
    values: dict[str, Any] = {
        "manifest": manifest,
        "title": manifest.source.file or "a network in memory",
        "found": manifest.statistics,
        "price": pricing.prediction,
        "calls": pricing.calls,
        "encrypts": manifest.backend != ReferenceBackend.name,
        "layers": layers,
        "costly": [x for x in layers if x.bootstraps],
        "before": before(manifest.record, layers),
        "after": after(model, layers),
        "record": manifest.record,
        "measured": known,
        "problem": "" if known is None else known.problem,
        "stages": stages,
        "stage_names": STAGES,
        "final": final_stage(stages, manifest),
        "advice": advice(layers, ranges, manifest, pricing),
        "bounds": [bound(r, layers) for r in ranges],
        "safe": sum(r.is_safe for r in ranges),
        "unknown": sum(r.sound is None for r in ranges),
        "exceeded": [
            r
            for r in ranges
            if r.observed is not None and not -1e-9 <= min(r.observed) <= max(r.observed) <= 1 + 1e-9
        ],
        "frontier": frontier,
        "plots": () if frontier is None else scatter.plots(frontier),
        "share_metric": frontier is not None and scatter.is_share(frontier),
        "seconds_of": scatter.seconds_of,
        "score_of": scatter.score_of,
        "passes": passes_of(manifest),
        "command": again,
        "limit": MAX_SHOWN_STEPS,
        "style": _style(),
    }
    return _environment().get_template("page.html").render(values, sections=shown(values))


def _with(manifest: Manifest, measured: Measurements) -> Manifest:
    record = manifest.record or Record((), 0, {}, 0, None, {})
    layers = measured.layers or (record.measured.layers if record.measured is not None else ())
    return replace(manifest, record=replace(record, measured=replace(measured, layers=layers)))


def final_stage(stages: tuple[Stage, ...], manifest: Manifest) -> Stage | None:
    """What the user gets: encrypted with the error that was asked for, or else the last one in the clear."""
    encrypted = [s for s in stages if s.name == "encrypted"]
    if asked := [s for s in encrypted if s.p_error == manifest.p_error]:
        return asked[0]
    clear = [s for s in stages if s.name == "integer"]
    return next(iter([*encrypted, *clear]), None)


def bound(found: Range, layers: tuple[Layer, ...]) -> Bound:
    """The bars of a table: scaled so that what is declared, seen and possible all fits."""
    ends = [0.0, 1.0, *(found.observed or ()), *(found.sound or ())]
    # A possible range many times the declared one would leave nothing to see: it is cut.
    low, high = max(min(ends), -1.0), min(max(ends), 2.0)

    def place(pair: tuple[float, float] | None) -> tuple[float, float] | None:
        if pair is None:
            return None
        a, b = (100 * (min(high, max(low, v)) - low) / (high - low) for v in pair)
        return a, max(b - a, 0.5)

    layer = layers[found.layer] if found.layer < len(layers) else None
    declared = place((0.0, 1.0))
    assert declared is not None
    return Bound(found, layer, declared, place(found.observed), place(found.sound))


def passes_of(manifest: Manifest) -> list[str]:
    """The passes, one a line; the pipeline as it is where it names what is not installed here."""
    try:
        return [pass_text(p) for p in parse_passes(manifest.pipeline)]
    except OnnxFheError:
        return [manifest.pipeline]


def command(manifest: Manifest) -> str:
    """The command that makes the same artifact again."""
    record = manifest.record
    data = record.measured.file if record is not None and record.measured is not None else ""
    source = text.name(manifest.source.file) or "MODEL.onnx"
    parts = ["onnx-fhe", "compile", source, "--calibration", text.name(data) or "NPZ"]
    parts += ["-p", manifest.pipeline]
    if manifest.p_error is not None:
        parts += ["--p-error", f"{manifest.p_error:g}"]
    if manifest.global_p_error is not None:
        parts += ["--global-p-error", f"{manifest.global_p_error:g}"]
    parts += ["--range-mode", manifest.range_mode, "--range-margin", f"{manifest.range_margin}"]
    parts += ["--seed", str(manifest.seed), "--backend", manifest.backend]
    for axis, size in (record.bind if record is not None else {}).items():
        parts += ["--bind", f"{axis}={size}"]
    return " ".join([*map(shlex.quote, parts), "-o", "OUT.fhe"])


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # Whatever a file calls itself is text: escaping is on for everything.
    found = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "name": text.name,
        "count": text.count,
        "amount": lambda n, *words: text.amount(int(n), *words),
        "bits": lambda n: f"{n}-bit",
        "seconds": text.seconds,
        "size": text.size,
        "operations": text.operations,
        "percent": text.percent,
        "whole": text.whole_percent,
        "chance": text.chance,
        "pc": lambda share: f"{100 * min(1.0, max(0.0, share)):.2f}",
        "at": lambda value: f"{value:.2f}",
        "score": text.score,
        "shape": text.shape,
        "first_upper": lambda text: text[:1].upper() + text[1:],
        "g": lambda value: f"{value:g}",
    }
    return found


def _visible(value: Any) -> Any:
    """Text as it is shown: what is invisible, or turns text around, is spelled out."""
    if type(value) is not str:
        return value
    # Python takes the narrow space in our numbers for unprintable.
    return text.THIN.join(map(printable, value.split(text.THIN)))


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("templates").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _style() -> str:
    return _template("style.css")

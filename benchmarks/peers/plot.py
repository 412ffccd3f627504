"""The figures as a picture: what accuracy costs, on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_fhe.ir.paths import atomic_path


def draw(report: dict[str, Any], path: Path) -> None:
    """Accuracy on the validation samples against complexity: one panel a model.

    The peer's sweep as points (simulated; hollow where its default p_error holds); what was chosen of it and
    what is ours as larger marks, with the seconds that they took on ciphertexts.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    models = report["models"]
    figure, axes = pyplot.subplots(1, len(models), figsize=(max(5.5, 4.2 * len(models)), 5), squeeze=False)
    marks: dict[str, Any] = {}
    colors: dict[str, str] = {}
    for axis, model in zip(axes[0], models, strict=True):
        marks["float model"] = axis.axhline(100 * model["float"]["validation"], color="grey", linewidth=0.8)
        marks["wanted"] = axis.axhline(100 * model["wanted"], color="grey", linewidth=0.8, linestyle=":")
        swept = [f for f in model["sweep"]["settings"].values() if "simulated" in f]
        for label, default in (("Concrete ML, p_error 0.01", False), ("Concrete ML, default p_error", True)):
            points = [f for f in swept if (f["setting"]["p_error"] is None) == default]
            marks[label] = axis.scatter(
                [f["complexity"] / 1e9 for f in points],
                [100 * f["simulated"] for f in points],
                s=16,
                color="C0",
                facecolors="none" if default else "C0",
            )
        for one in model["circuits"]:
            if "seconds" not in one:
                continue
            at = one["complexity"] / 1e9, 100 * one["simulated"]["validation"]
            mark, size = ("*", 110) if one["side"] == "ours" else ("o", 60)
            color = colors.setdefault(one["name"], f"C{1 + len(colors)}")
            marks[one["name"]] = axis.scatter(*at, marker=mark, s=size, color=color)
            told = f"{one['seconds']:.2g} s"
            axis.annotate(told, at, textcoords="offset points", xytext=(6, 5), fontsize="small")
        axis.set(title=model["model"], xlabel="complexity, G", xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.12)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("accuracy on validation samples, simulated, %")
    columns = min(len(marks), 2 * len(models))
    rows = -(-len(marks) // columns)
    figure.tight_layout(rect=(0, 0.02 + 0.045 * rows, 1, 1))
    figure.legend(marks.values(), marks.keys(), loc="lower center", ncols=columns, fontsize="x-small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)

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

    models = report["models"]
    figure, axes = pyplot.subplots(1, len(models), figsize=(5 * len(models), 4.2), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        axis.axhline(100 * model["float"]["validation"], color="grey", linewidth=0.8, label="float model")
        axis.axhline(100 * model["wanted"], color="grey", linewidth=0.8, linestyle=":", label="wanted")
        swept = [f for f in model["sweep"]["settings"].values() if "simulated" in f]
        for label, default in (("Concrete ML, p_error 0.01", False), ("Concrete ML, default p_error", True)):
            points = [f for f in swept if (f["setting"]["p_error"] is None) == default]
            axis.scatter(
                [f["complexity"] / 1e9 for f in points],
                [100 * f["simulated"] for f in points],
                s=16,
                color="C0",
                facecolors="none" if default else "C0",
                label=label,
            )
        for i, one in enumerate(model["circuits"]):
            if "seconds" not in one:
                continue
            ours = one["side"] == "ours"
            at = one["complexity"] / 1e9, 100 * one["simulated"]["validation"]
            mark, size = ("*", 110) if ours else ("o", 60)
            axis.scatter(*at, marker=mark, s=size, color=f"C{1 + i}", label=one["name"])
            told = f"{one['seconds']:.2g} s"
            axis.annotate(told, at, textcoords="offset points", xytext=(6, 5), fontsize="small")
        axis.set(title=model["model"], xlabel="complexity, G", xscale="log")
        axis.grid(alpha=0.25)
        axis.legend(fontsize="x-small", loc="lower right")
    axes[0][0].set_ylabel("accuracy on validation samples, simulated, %")
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)

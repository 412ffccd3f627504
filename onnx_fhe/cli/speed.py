"""What many samples on ciphertexts took, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import auto_or_number_option, dask_option

if TYPE_CHECKING:
    from ..evaluations import Evaluations


def jobs_option(begin: str = "S") -> Any:
    """``--jobs``; ``begin`` is how the sentence begins."""
    return auto_or_number_option(
        "--jobs",
        1,
        f"{begin}amples (calls, with --batch) that are evaluated at the same time, each on one core. With 1,"
        " each has all cores: the least latency. auto measures both on the first samples, and goes on with"
        " what gives more samples a second.",
    )


def evaluating_on_dask(begin: str = "E") -> Any:
    """``--dask`` of a command that evaluates; ``begin`` is how the sentence begins."""
    return dask_option(
        f"{begin}valuate on the workers of the Dask cluster at this address, a sample (or call) on each of"
        " their threads. They get the circuit and the evaluation keys."
    )


def measured(found: Evaluations) -> dict[str, Any]:
    """What ``--json`` says of it."""
    return {
        "jobs": found.jobs,
        "batch": found.batch,
        "measured_rates": {str(k): v for k, v in found.rates.items()},
        "latency": found.latency,
        "first": found.seconds[0],
        "samples_per_second": found.throughput,
    }


def way(jobs: int) -> str:
    """How calls were evaluated, in words."""
    return "each with all cores" if jobs == 1 else f"{jobs} at a time, each on one core"


def chosen(rates: dict[str, float], jobs: int) -> list[tuple[str, str]]:
    """The way that was found best, and what was measured; nothing where nobody measured."""
    tried = [f"{float(r):.3g} a second {way(int(j))}" for j, r in rates.items()]
    return [("chosen", f"{way(jobs)}: measured {', '.join(tried)}")] if tried else []

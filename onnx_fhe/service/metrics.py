"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CLASS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
"""Limits of the classes of durations: a health check takes milliseconds, many samples take minutes."""


class Metrics:
    """Counters of one service.

    Attributes:
        requests: Answers by route and status.
        seconds: How long they took, by route.
        samples: Samples that were evaluated, by model.
        received, sent: Bytes of bodies.
        lost: Workers that ended, and calls that were lost with them.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "onnx_fhe_requests", "Answers.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "onnx_fhe_request_seconds",
            "Seconds from a request to its answer.",
            ("route",),
            buckets=CLASS_SECONDS,
            registry=self._registry,
        )
        self.samples = Counter("onnx_fhe_samples", "Evaluated samples.", ("model",), registry=self._registry)
        self.received = Counter("onnx_fhe_received_bytes", "Bytes of bodies.", registry=self._registry)
        self.sent = Counter("onnx_fhe_sent_bytes", "Bytes of answers.", registry=self._registry)
        self.lost = Counter(
            "onnx_fhe_lost", "Workers that ended, calls that were lost.", ("what",), registry=self._registry
        )

    def watch(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Have a number read whenever it is asked for.

        Args:
            name: Of the metric, after ``onnx_fhe_``.
            what: One sentence on it.
            read: Returns the number.
        """
        Gauge(f"onnx_fhe_{name}", what, registry=self._registry).set_function(read)

    def page(self) -> bytes:
        """All of them in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

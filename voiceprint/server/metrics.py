"""`Metrics`: what Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of a worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "voiceprint_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "voiceprint_request_seconds",
            "Time from the first byte of a request to the end of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.verdicts = Counter(
            "voiceprint_verdicts",
            "Answers by operation and verdict.",
            ("gallery", "operation", "verdict"),
            registry=self.registry,
        )
        self.refused_audio = Counter(
            "voiceprint_refused_audio",
            "Audio that was refused, by the code of the fault.",
            ("gallery", "reason"),
            registry=self.registry,
        )
        self.similarity = Histogram(
            "voiceprint_similarity",
            "Similarity of the best match.",
            ("gallery", "verdict"),
            buckets=tuple(step / 20 for step in range(8, 21)),
            registry=self.registry,
        )
        self.queue = Gauge(
            "voiceprint_queue", "Requests that run or wait in this worker.", registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)

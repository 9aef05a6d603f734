"""`LiveMetrics`: what Prometheus reads of live calls."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voiceprint.server.live.session import LATE_S, LiveCall


class LiveMetrics:
    """The metrics of the calls of a worker process, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Gauge(
            "voiceprint_calls",
            "Calls that last now.",
            ("gallery", "source"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._lateness = Histogram(
            "voiceprint_call_lateness_seconds",
            "Time from the arrival of a block of audio to the answer that includes it.",
            ("gallery",),
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, LATE_S, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self._late = Counter(
            "voiceprint_call_late_answers",
            f"Answers that came more than {LATE_S:g} s after their audio.",
            ("gallery",),
            registry=registry,
        )
        self._ended = Counter(
            "voiceprint_calls_ended",
            "Calls that ended, by the verdict of the final answer and the cause of the end.",
            ("gallery", "verdict", "ended_by"),
            registry=registry,
        )
        self._deliveries = Counter(
            "voiceprint_webhook_deliveries",
            "Attempts to deliver an answer, by outcome.",
            ("gallery", "outcome"),
            registry=registry,
        )

    def started(self, call: LiveCall) -> None:
        """A call has begun."""
        self._calls.labels(call.gallery, call.source).inc()

    def answered(self, call: LiveCall) -> None:
        """A call has a new answer."""
        self._lateness.labels(call.gallery).observe(call.lateness_s)
        if call.lateness_s > LATE_S:
            self._late.labels(call.gallery).inc()

    def ended(self, call: LiveCall) -> None:
        """A call has its final answer."""
        self._calls.labels(call.gallery, call.source).dec()
        self._ended.labels(call.gallery, str(call.answer.verdict), call.ended_by or "error").inc()

    def delivered(self, gallery: str, outcome: str) -> None:
        """An attempt to deliver an answer has ended."""
        self._deliveries.labels(gallery, outcome).inc()

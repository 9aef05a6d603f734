"""`Metrics`: what Prometheus reads at /metrics, of all worker processes together.

No label holds the id of a caller, a key or a call. With several workers, prometheus-client writes the values
of each into a folder (`PROMETHEUS_MULTIPROC_DIR`, which `voiceprint serve` sets), and any worker answers for
all.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voiceprint._stages import stages_to
from voiceprint.errors import VoiceprintError

if TYPE_CHECKING:
    from voiceprint.privacy.audit import Event
    from voiceprint.recognizer import OpusAgentVoiceRecognizer

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIMILARITIES: Final = (*(step / 20 for step in range(8, 21)),)
_QUALITIES: Final = (*(step / 10 for step in range(1, 11)),)


class Metrics:
    """The metrics of a worker process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._folder = os.environ.get(FOLDER_VARIABLE)
        self.requests = Counter(
            "voiceprint_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.latency = Histogram(
            "voiceprint_request_seconds",
            "Time of a request, from its headers to the end of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "voiceprint_stage_seconds",
            "Time of a stage: queue (wait for a thread), decode, speech, embed, index, search, read, score.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.operations = Counter(
            "voiceprint_operations",
            "Operations on callers by action, as in the audit log, and outcome: the verdict, the class of an "
            "error, or done.",
            ("gallery", "action", "outcome"),
            registry=registry,
        )
        self.similarity = Histogram(
            "voiceprint_similarity",
            "Similarity of the best match.",
            ("gallery", "action", "verdict"),
            buckets=_SIMILARITIES,
            registry=registry,
        )
        self.quality = Histogram(
            "voiceprint_audio_quality",
            "Quality score of the audio.",
            ("gallery", "action"),
            buckets=_QUALITIES,
            registry=registry,
        )
        self.refused_audio = Counter(
            "voiceprint_refused_audio",
            "Audio that was refused, by the code of the fault.",
            ("gallery", "reason"),
            registry=registry,
        )
        self.queue = Gauge(
            "voiceprint_queue",
            "Requests that run or wait for a thread.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refused_requests = Counter(
            "voiceprint_refused_requests",
            "Requests that were refused as the queue was full, or a key had used up its rate.",
            ("reason",),
            registry=registry,
        )
        self.index_size = Gauge(
            "voiceprint_index_voiceprints",
            "Voiceprints in the index of a gallery.",
            ("gallery",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.index_lag = Gauge(
            "voiceprint_index_lag",
            "Changes of the store that the index of the slowest worker has not taken in.",
            ("gallery",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.memory = Gauge(
            "voiceprint_memory_bytes",
            "Largest memory of a worker process so far.",
            registry=registry,
            multiprocess_mode="liveall",
        )

    def timing(self) -> AbstractContextManager[None]:
        """Within it, the stages of operations are measured."""
        return stages_to(self._observe_stage)

    def _observe_stage(self, stage: str, seconds: float) -> None:
        self.stages.labels(stage).observe(seconds)

    def observe_event(self, gallery: str, event: Event) -> None:
        """Count an operation on a gallery."""
        outcome = event.verdict or event.error or "done"
        self.operations.labels(gallery, event.action, outcome).inc()
        if event.verdict is not None and event.similarity is not None:
            self.similarity.labels(gallery, event.action, event.verdict).observe(event.similarity)
        if event.quality is not None:
            self.quality.labels(gallery, event.action).observe(event.quality)

    def observe_index(self, gallery: str, recognizer: OpusAgentVoiceRecognizer) -> None:
        """Measure the index of a gallery. Reads the store: not for the event loop."""
        try:
            lag = recognizer.index_lag()
            if lag is not None:
                self.index_size.labels(gallery).set(recognizer.index_size())
                self.index_lag.labels(gallery).set(lag)
        except VoiceprintError:  # the store cannot be used now: /readyz says so
            return

    def text(self) -> bytes:
        """The exposition format of Prometheus, for all workers."""
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.memory.set(usage if sys.platform == "darwin" else usage * 1024)
        if self._folder is None:
            return generate_latest(self.registry)
        self._forget_ended(self._folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    @staticmethod
    def _forget_ended(folder: str) -> None:
        """Drop the gauges of worker processes that were killed; their counters stay."""
        for path in Path(folder).glob("gauge_live*_*.db"):
            pid = int(path.stem.rpartition("_")[2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]

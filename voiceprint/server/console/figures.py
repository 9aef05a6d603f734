"""`Figures`: the metrics of the service as figures of the last minute."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from voiceprint.server.service import Service

WINDOW_S: Final = 60.0
"""Seconds that the figures cover. Doubled, they follow a change half as fast."""
_EVERY_S: Final = 4.0
"""Fewest seconds between two readings, as each takes a few ms: the overview asks every five."""
_ANSWERS: Final = ("identify", "match", "stream", "verify")


class _Reading(NamedTuple):
    """Counters since the start. answers: by gallery and outcome. buckets: requests by their greatest time."""

    at: float
    answers: Counter[tuple[str, str]]
    buckets: Counter[float]
    queue: float


class Figures(NamedTuple):
    """The figures of some galleries. answers_a_minute and the quantiles are None before a second reading.

    verdicts: answers since the start by outcome. p50_s, p95_s: of requests that identify or verify, in
    seconds; None without any in the window. queue: requests that run or wait for a thread.
    """

    answers_a_minute: float | None
    verdicts: dict[str, int]
    recent_verdicts: dict[str, int]
    p50_s: float | None
    p95_s: float | None
    queue: int


class Readings:
    """The readings of the last minute, taken when someone looks."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque()
        self._lock = threading.Lock()

    def figures(self, service: Service, galleries: Iterable[str]) -> Figures:
        """The figures of these galleries. Not for the event loop."""
        with self._lock:
            if not self._readings or time.monotonic() - self._readings[-1].at >= _EVERY_S:
                self._readings.append(_read(service))
            while self._readings[-1].at - self._readings[0].at > WINDOW_S:
                self._readings.popleft()
            first, last = self._readings[0], self._readings[-1]
        wanted = set(galleries)
        total, recent = _by_outcome(last.answers, wanted), None
        if last.at > first.at:
            recent = _by_outcome(last.answers - first.answers, wanted)
        buckets = last.buckets - first.buckets
        return Figures(
            None if recent is None else sum(recent.values()) * 60.0 / (last.at - first.at),
            total,
            recent or {},
            _quantile(buckets, 0.5),
            _quantile(buckets, 0.95),
            int(last.queue),
        )


def _read(service: Service) -> _Reading:
    service.observe()
    answers, at_most = Counter[tuple[str, str]](), Counter[float]()
    queue = 0.0
    for family in text_string_to_metric_families(service.metrics.text().decode()):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "voiceprint_operations_total" and labels["action"] in _ANSWERS:
                answers[labels["gallery"], labels["outcome"]] += int(sample.value)
            elif sample.name == "voiceprint_request_seconds_bucket" and labels["route"].endswith(_ANSWERS):
                at_most[float(labels["le"])] += int(sample.value)
            elif sample.name == "voiceprint_queue":
                queue += sample.value
    buckets, below = Counter[float](), 0
    for bound in sorted(at_most):
        buckets[bound] = at_most[bound] - below
        below = at_most[bound]
    return _Reading(time.monotonic(), answers, buckets, queue)


def _by_outcome(answers: Counter[tuple[str, str]], galleries: set[str]) -> dict[str, int]:
    found = Counter[str]()
    for (gallery, outcome), count in answers.items():
        if gallery in galleries:
            found[outcome] += count
    return dict(found.most_common())


def _quantile(buckets: Counter[float], share: float) -> float | None:
    """The quantile of a histogram, linear within a bucket; None of an empty one.

    buckets: count by upper bound.
    """
    total, below, lower = sum(buckets.values()), 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count and below + count >= share * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / count
        below, lower = below + count, bound
    return None

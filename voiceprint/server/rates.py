"""`RateLimits`: requests a minute of each API key, in this worker process."""

from __future__ import annotations

import threading
import time

from voiceprint.server.keys import Principal


class RateLimits:
    """A token bucket for each key, which fills in a minute. default: requests a minute; 0 for no limit."""

    def __init__(self, default: int) -> None:
        self._default = default
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when
        self._lock = threading.Lock()

    def wait_s(self, principal: Principal) -> int:
        """0 if this request is within the limit, and counts; else the seconds until one is."""
        limit = self._default if principal.rate_limit is None else principal.rate_limit
        if not limit:
            return 0
        with self._lock:
            time_now = time.monotonic()
            tokens, then = self._buckets.get(principal.key_id, (float(limit), time_now))
            tokens = min(float(limit), tokens + (time_now - then) * limit / 60)
            allowed_now = tokens >= 1
            self._buckets[principal.key_id] = (tokens - allowed_now, time_now)
        return 0 if allowed_now else max(1, round((1 - tokens) * 60 / limit + 0.5))

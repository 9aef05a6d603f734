"""The thread that brings an index on servers up to the store, tunes it, and has removed vectors vacuumed."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final
from weakref import ref

from voiceprint.errors import VoiceprintError

if TYPE_CHECKING:
    from voiceprint.identification.followed import FollowedIndex

logger = logging.getLogger(__name__)

VACUUM_S: Final = 60.0
"""Seconds from a removal to the vacuum of the removed vector, or one and a half times as many, where a vacuum
takes up to 3 s. It reads the whole graph, so longer ones are made in a twentieth of the time."""

_SPARING: Final = 20
_GATHERED_S: Final = 0.1  # changes of this time become one: a call often makes several
_RETRY_S: Final = 5.0  # after an error of a server


class Follower:
    """Works in a thread of its own while an index has something to do.

    Every process over a store has one. What two of them do at the same moment is done once, or twice without
    harm: a change is refused where the stamp is another than expected.
    """

    def __init__(self, index: FollowedIndex) -> None:
        self._wake = threading.Event()
        self._index = ref(index, lambda _: self._wake.set())
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._vacuum_at: dict[int, float] = {}  # of each part, by the monotonic clock
        self._vacuum_after_s = VACUUM_S
        self._has_failed = False

    def wake(self) -> None:
        """Have the thread look, and start it where there is none."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="voiceprint-index", daemon=True)
                self._thread.start()
        self._wake.set()

    def plans_vacuum(self, part: int) -> bool:
        """Whether the thread waits for the time to vacuum a part."""
        return self._thread is not None and part in self._vacuum_at

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:  # an error that nobody has thought of: the next wake starts another thread
            with self._lock:
                self._thread = None
            raise

    def _work(self) -> None:
        pause: float | None = 0.0
        while pause is not None:
            # Holds no reference to the index while it waits, so that an index that nobody uses can go.
            if self._wake.wait(pause):
                time.sleep(_GATHERED_S)
                self._wake.clear()
            index = self._index()
            if index is None:
                return
            pause = self._step(index)
            with self._lock:
                if pause is None and not self._wake.is_set():
                    self._thread = None
                    return
            pause = pause or 0.0
            del index

    def _step(self, index: FollowedIndex) -> float | None:
        """Do one thing. Returns seconds until there is more to do; None where there is not."""
        try:
            index.look()
            pause = 0.0 if index.push() or index.tune_if_due() else self._vacuum(index)
        except VoiceprintError as error:
            # Searches of this index say the same to their callers, or build it anew.
            if not self._has_failed:
                logger.warning("The index in PostgreSQL cannot follow the store: %s", error)
            self._has_failed = True
            return None if index.is_lost else _RETRY_S
        self._has_failed = False
        return pause

    def _vacuum(self, index: FollowedIndex) -> float | None:
        """Vacuum a part whose time has come. Returns seconds to the next one; None without any."""
        now = time.monotonic()
        waiting = index.parts_with_dead()
        # Other processes see the same removals: by chance, so that one comes first, and spares the others.
        self._vacuum_at = {
            part: self._vacuum_at.get(part, now + random.uniform(1.0, 1.5) * self._vacuum_after_s)  # noqa: S311
            for part in waiting
        }
        for part, at in [*self._vacuum_at.items()]:
            if at <= now:
                del self._vacuum_at[part]  # first: one that fails is made again as late as any other
                index.vacuum_part(part)
                self._vacuum_after_s = max(VACUUM_S, _SPARING * (time.monotonic() - now))
                return 0.0
        return min((at - now for at in self._vacuum_at.values()), default=None)

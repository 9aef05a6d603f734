"""`SavedTargets`: target FPIRs that a person has saved for galleries, in place of the configured rule."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final, NamedTuple

from sqlalchemy import Row, delete, insert, select

from voiceprint.errors import InvalidArgumentError, StorageUnavailableError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.database import ServerDatabase, targets
from voiceprint.validation import now

logger = logging.getLogger(__name__)

FRESH_S: Final = 1.0
"""Seconds after which a worker reads the saved targets again, so the longest time until a change applies in all
workers. Halved, each worker reads the database twice as often."""


class SavedTarget(NamedTuple):
    """The accepted share of strangers' calls of a gallery, 0 to 1 exclusive; the time, ISO 8601 UTC, and the
    actor of the change."""

    target_fpir: float
    changed_at: str
    changed_by: str


class SavedTargets:
    """The saved targets of all galleries, shared by all workers."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._configured: dict[str, float | None] = {}  # of galleries with a saved target
        self._saved: dict[str, SavedTarget] = {}
        self._read_at = -FRESH_S
        self._lock = threading.Lock()

    def get(self, gallery: str) -> SavedTarget | None:
        """The saved target of a gallery; None where the configured rule decides."""
        if not self._database.exists():
            return None
        with self._database.read() as connection:
            row = connection.execute(select(targets).where(targets.c.gallery == gallery)).one_or_none()
        return None if row is None else _record(row)

    def save(self, gallery: str, target_fpir: float | None, *, by: str) -> None:
        """Save a target FPIR, 0 to 1 exclusive; None goes back to the configured rule. by: the actor.

        Raises `InvalidArgumentError`, `StorageUnavailableError`.
        """
        if target_fpir is not None and not 0.0 < target_fpir < 1.0:
            raise InvalidArgumentError(
                f"The target FPIR is {target_fpir:g}: give a share of strangers between 0 and 1, such as 0.01."
            )
        with self._database.begin() as connection:
            connection.execute(delete(targets).where(targets.c.gallery == gallery))
            if target_fpir is not None:
                values = {"target_fpir": target_fpir, "changed_at": now(), "changed_by": by}
                connection.execute(insert(targets).values(gallery=gallery, **values))
        self._read_at = -FRESH_S
        logger.info("The target FPIR of the gallery %r is now %s.", gallery, target_fpir or "as configured")

    def apply(self, gallery: str, recognizer: OpusAgentVoiceRecognizer) -> None:
        """Set the recognizer's target to the saved one, or back to the configured one."""
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._read()
            saved, config = self._saved.get(gallery), recognizer.config
            if saved is not None:
                self._configured.setdefault(gallery, config.target_fpir)
                if config.target_fpir != saved.target_fpir:
                    config.target_fpir = saved.target_fpir
            elif gallery in self._configured:
                config.target_fpir = self._configured.pop(gallery)

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            if not self._database.exists():
                return
            with self._database.read() as connection:
                self._saved = {row.gallery: _record(row) for row in connection.execute(select(targets))}
        except StorageUnavailableError as error:
            # The last read targets go on; the check of the next request's key reports the database.
            logger.warning("The saved targets cannot be read: %s", error)


def _record(row: Row[tuple[str, float, str, str]]) -> SavedTarget:
    return SavedTarget(row.target_fpir, row.changed_at, row.changed_by)

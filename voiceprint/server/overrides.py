"""`Overrides`: settings of galleries that the service changes while it runs, for all workers."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Final

from sqlalchemy import delete, insert, select

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError, StorageUnavailableError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.database import ServerDatabase, gallery_settings
from voiceprint.validation import now

logger = logging.getLogger(__name__)

_FOLLOWED_EVERY_S: Final = 1.0
"""Seconds after which a worker reads the settings again: one read of the database in a second at most.
Doubled, other workers follow a change twice as late."""

_TARGET: Final = "target_fpir"


class Overrides:
    """The target FPIR of each gallery, where it was set while the service runs.

    A gallery without one has that of its configuration. Other workers follow a change within a second.
    """

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._targets: dict[str, float] = {}
        self._configured: dict[str, float | None] = {}  # of the galleries that were used

    def target(self, gallery: str) -> float | None:
        """The target that was set, 0 to 1; None where the configuration decides."""
        self._follow()
        return self._targets.get(gallery)

    def set_target(self, gallery: str, target: float | None) -> None:
        """Set the target, above 0 and below 1; None returns to the configuration.

        Raises `InvalidArgumentError`.
        """
        if target is not None and not 0.0 < target < 1.0:
            raise InvalidArgumentError(
                f"target_fpir is {target:g}: give a number between 0 and 1, such as 0.01, both excluded."
            )
        one = gallery_settings.c.gallery == gallery, gallery_settings.c.name == _TARGET
        with self._database.begin() as connection:
            self._database.take_turns(connection, gallery_settings)
            connection.execute(delete(gallery_settings).where(*one))
            if target is not None:
                connection.execute(
                    insert(gallery_settings).values(
                        gallery=gallery, name=_TARGET, value=json.dumps(target), changed_at=now()
                    )
                )
        with self._lock:
            self._read_at = float("-inf")

    def configured(self, gallery: str) -> float | None:
        """The target of the configuration of a gallery that `apply` was called for."""
        return self._configured.get(gallery)

    def apply(self, gallery: str, recognizer: OpusAgentVoiceRecognizer) -> None:
        """Give the recognizer of the gallery the settings of this moment."""
        self._follow()
        config: VoiceFingerprintConfig = recognizer.config
        configured = self._configured.setdefault(gallery, config.target_fpir)
        wanted = self._targets.get(gallery, configured)
        if config.target_fpir != wanted:
            config.target_fpir = wanted

    def _follow(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at < _FOLLOWED_EVERY_S:
                return
            self._read_at = time.monotonic()
        of_targets = gallery_settings.c.name == _TARGET
        try:
            with self._database.read() as connection:
                rows = connection.execute(select(gallery_settings).where(of_targets)).all()
        except StorageUnavailableError:  # calls in progress go on with the settings of before
            logger.warning("The settings of the galleries could not be read.")
            return
        self._targets = {row.gallery: float(json.loads(row.value)) for row in rows}

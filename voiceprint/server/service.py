"""`Service`: the galleries, keys and threads of a worker process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from threadpoolctl import threadpool_limits

from voiceprint._audited import recording
from voiceprint.errors import StorageUnavailableError
from voiceprint.galleries import Galleries
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.database import BEAT_S, ServerDatabase
from voiceprint.server.idempotency import Idempotency
from voiceprint.server.jobs import Jobs
from voiceprint.server.keys import ApiKeys
from voiceprint.server.live.calls import LiveCalls
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.metrics import Metrics
from voiceprint.server.overrides import Overrides
from voiceprint.server.rates import RateLimits
from voiceprint.server.settings import ServerSettings
from voiceprint.server.work import WorkQueue
from voiceprint.server.worker_ids import new_worker_id

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

DEFAULT_GALLERY: Final = "default"


class Service:
    """The galleries, API keys, shared state and threads of a worker process.

    galleries: recognizers by name, which `close` closes. settings, live_settings: None reads the environment.
    """

    def __init__(
        self,
        galleries: Galleries | dict[str, OpusAgentVoiceRecognizer],
        settings: ServerSettings | None = None,
        live_settings: LiveSettings | None = None,
    ) -> None:
        self.settings = ServerSettings() if settings is None else settings
        self._galleries = galleries
        self.database = ServerDatabase(self.settings.state)
        self.keys = ApiKeys(self.database)
        self.metrics = Metrics()
        self.rates = RateLimits(self.settings.rate_limit)
        self.work = WorkQueue(self.settings, self.metrics)
        self.worker = new_worker_id()
        """Id of this worker process in the shared state."""
        self.idempotency = Idempotency(self.database, self.worker)
        self.overrides = Overrides(self.database)
        self.jobs = Jobs(self.database, self.settings.jobs_folder, self.worker, galleries, self.recognizer)
        self.is_stopping = False
        self._beats = threading.Thread(target=self._beat, name="voiceprint-beat", daemon=True)
        self._closing = threading.Event()
        self.live = LiveCalls(self, live_settings)
        """The live calls of this worker process; of the event loop."""
        self._observed: dict[str, OpusAgentVoiceRecognizer] = {}

    @classmethod
    def open(
        cls,
        settings: ServerSettings | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        only: Iterable[str] | None = None,
    ) -> Service:
        """The service of the galleries in a file, or of the configured store as the gallery `default`.

        config: the file of the galleries; None for the store of the environment. only: names of the galleries
        to serve; None for all.
        """
        if config is not None:
            return cls(Galleries.open(Path(config), only=only), settings)
        return cls({DEFAULT_GALLERY: OpusAgentVoiceRecognizer()}, settings)

    def __contains__(self, gallery: object) -> bool:
        return gallery in self._galleries

    def __iter__(self) -> Iterator[str]:
        return iter(self._galleries)

    def recognizer(self, gallery: str) -> OpusAgentVoiceRecognizer:
        """The recognizer of a gallery, with its settings of this moment.

        The first use opens its store, which may wait for a server.
        """
        recognizer = self._galleries[gallery]
        if self._observed.get(gallery) is not recognizer:  # the first, or one that was opened again
            self._observed[gallery] = recognizer
            recognizer.on_event(partial(self.metrics.observe_event, gallery))
        self.overrides.apply(gallery, recognizer)
        return recognizer

    def set_target(self, gallery: str, target: float | None) -> None:
        """Set the target FPIR of a gallery for all workers, see `Overrides.set_target`.

        An event of the audit log, as it changes who is accepted.
        """
        shown_target = "of the configuration" if target is None else f"{target:g}"
        detail = f"target_fpir {shown_target}"
        with recording(self.recognizer(gallery).storage.auditor, "settings", detail=detail):
            self.overrides.set_target(gallery, target)

    def observe(self) -> None:
        """Measure the indexes, for the metrics. Not for the event loop."""
        for gallery, recognizer in list(self._observed.items()):
            self.metrics.observe_index(gallery, recognizer)

    def warm_up(self) -> None:
        """Load the encoders and the indexes of all galleries, so that no first request waits for them.

        Limits each matrix product of this process to one thread.
        """
        # Requests already take all cores. Threads of numpy beside them wait for each other in loops, which
        # doubles the processor time of an identification.
        threadpool_limits(1, user_api="blas")
        for gallery in self:
            self.recognizer(gallery).warm_up()

    def start(self) -> None:
        """Begin to carry out jobs, and to give signs of life of what is carried out."""
        self.jobs.start()
        self._beats.start()

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S):
            try:
                self.idempotency.beat()
                self.jobs.beat()
            except StorageUnavailableError as error:  # the next sign of life may succeed
                logger.warning("No sign of life could be written: %s", error)

    def close(self) -> None:
        """Wait for the operations that run, and close the stores. May be called twice.

        A job that runs is left to another worker, or to the next start.
        """
        self.is_stopping = True
        self.jobs.stop()
        self.work.close()
        self._closing.set()
        if self._beats.is_alive():
            self._beats.join()
        if isinstance(self._galleries, Galleries):
            self._galleries.close()
        else:
            for recognizer in self._galleries.values():
                recognizer.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""`Idempotency`: carries out requests with an `Idempotency-Key` once, also where the client repeats them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from voiceprint.errors import StorageUnavailableError
from voiceprint.server.database import DEAD_AFTER_S, ServerDatabase, idempotency
from voiceprint.server.problems import ProblemError
from voiceprint.server.worker_ids import has_ended

logger = logging.getLogger(__name__)

KEPT_S: Final = 24 * 3600.0
"""Seconds that an answer is kept: a client repeats within minutes. Doubled, the table doubles."""

_NOT_STORED: Final = frozenset({"metadata", "embedding", "augmented_embedding", "fingerprints"})
_DONE: Final = 1


class RequestKey(NamedTuple):
    """The `Idempotency-Key` of a request: `key` of the client, which is of this API key and gallery."""

    key_id: str
    gallery: str
    key: str


class _Claim(NamedTuple):
    """The state of a request: its stored answer, or None; whether a worker ended within it."""

    answer: str | None = None
    was_begun: bool = False


class Idempotency:
    """The answers to requests with an `Idempotency-Key`, in the database that all workers share.

    worker: id of this worker process, which marks the requests that it carries out. Those of a worker that
    has ended may be carried out again: at once by one of the same machine, and by others after
    `DEAD_AFTER_S` without its `beat`.
    """

    def __init__(self, database: ServerDatabase, worker: str) -> None:
        self._database, self._worker = database, worker
        self._running: set[RequestKey] = set()
        self._lock = threading.Lock()

    def once(
        self, key: RequestKey, digest: bytes, work: Callable[[bool], Any], adapter: TypeAdapter[Any]
    ) -> tuple[Any, bool]:
        """The answer of `work`, and whether it is that of an earlier request.

        work: is called with True where a worker has ended within the same request, and may have done it.
        digest: of the request. adapter: of the type of the answer. Metadata and embeddings of an answer are
        not stored: an earlier one comes without them. An error is not kept, so that a repetition tries again.

        Raises `ProblemError`: 422 for the key of another request; 409 while the first is in progress.
        """
        claim = self._claim(key, digest)
        if claim.answer is not None:
            return adapter.validate_json(claim.answer), True
        with self._lock:
            self._running.add(key)
        try:
            answer = work(claim.was_begun)
            content = _without_personal_data(adapter.dump_python(answer, mode="json"))
            self._finish(key, json.dumps(content))
        except BaseException:
            self._release(key)
            raise
        finally:
            with self._lock:
                self._running.discard(key)
        return answer, False

    def beat(self) -> None:
        """Show that this worker still carries out its requests."""
        with self._lock:
            running = [*self._running]
        if not running:
            return
        with self._database.begin() as connection:
            for key in running:
                connection.execute(update(idempotency).where(self._mine(key)).values(beat=time.time()))

    def _mine(self, key: RequestKey) -> ColumnElement[bool]:
        """The row of a request in progress, unless another worker has taken it over."""
        return and_(_row(key), idempotency.c.worker == self._worker, idempotency.c.status.is_(None))

    def _claim(self, key: RequestKey, digest: bytes) -> _Claim:
        """The stored answer, or the order for the calling thread to carry out this request."""
        time_now = time.time()
        values = {"created": time_now, "beat": time_now, "worker": self._worker, "digest": digest}
        try:
            with self._database.begin() as connection:
                old = idempotency.c.created < time_now - KEPT_S
                connection.execute(delete(idempotency).where(old, idempotency.c.status.is_not(None)))
                row = connection.execute(select(idempotency).where(_row(key))).one_or_none()
                if row is None:
                    connection.execute(
                        insert(idempotency).values(
                            key_id=key.key_id, gallery=key.gallery, idempotency_key=key.key, **values
                        )
                    )
                    return _Claim()
                if bytes(row.digest) != digest:
                    raise ProblemError(
                        422,
                        "IdempotencyKeyReusedError",
                        "The Idempotency-Key was used for another request: make a new one for each.",
                    )
                if row.status is not None:
                    return _Claim(answer=row.answer)
                if row.beat > time_now - DEAD_AFTER_S and not has_ended(row.worker):
                    raise _in_progress()
                unchanged = and_(idempotency.c.worker == row.worker, idempotency.c.beat == row.beat)
                dead = and_(_row(key), unchanged)
                if connection.execute(update(idempotency).where(dead).values(**values)).rowcount != 1:
                    raise _in_progress()
                return _Claim(was_begun=True)
        except IntegrityError:  # another worker inserted the same key in between
            raise _in_progress() from None

    def _finish(self, key: RequestKey, answer: str) -> None:
        try:
            with self._database.begin() as connection:
                connection.execute(update(idempotency).where(_row(key)).values(status=_DONE, answer=answer))
        except StorageUnavailableError:
            # The change is made, which an error would deny. A repetition makes it again after `DEAD_AFTER_S`.
            logger.exception("The answer of a request with an Idempotency-Key could not be stored.")

    def _release(self, key: RequestKey) -> None:
        try:
            with self._database.begin() as connection:
                connection.execute(delete(idempotency).where(self._mine(key)))
        except StorageUnavailableError:
            # In favor of the error of the request itself. The key is free again after `DEAD_AFTER_S`.
            logger.exception("An Idempotency-Key could not be released.")


def _row(key: RequestKey) -> ColumnElement[bool]:
    columns = idempotency.c
    return and_(
        columns.key_id == key.key_id, columns.gallery == key.gallery, columns.idempotency_key == key.key
    )


def _in_progress() -> ProblemError:
    return ProblemError(
        409,
        "InProgressError",
        "The first request with this Idempotency-Key is in progress: repeat this one in a moment.",
        {"Retry-After": "1"},
    )


def _without_personal_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: None if name in _NOT_STORED else _without_personal_data(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_personal_data(item) for item in value]
    return value

"""`CallRecords`: the calls of all workers in the shared database, without audio and metadata."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from voiceprint.server.database import ServerDatabase, calls
from voiceprint.server.live.webhooks import Delivery, add_deliveries
from voiceprint.server.problems import ProblemError

BEAT_S: Final = 10.0
"""Seconds between signs of life of a worker, each a write for all its calls."""
LOST_S: Final = 60.0
"""Seconds without a sign of life after which a call is lost with its worker: six beats."""
ANNOUNCED_S: Final = 600.0
"""Seconds that an announced call may be awaited: a dialplan announces when the telephone rings."""
MOST_ANNOUNCED: Final = 10_000
"""Announced calls of a gallery that may wait at once: 16 a second for `ANNOUNCED_S`. Each takes up to 64 KiB;
doubled, twice as much of the database."""

LIVE: Final = ("live", "ending")  # ending: a request has hung up, and the worker of the call has not yet


class CallRecord(NamedTuple):
    """A call as the database has it. created: seconds since 1970. details: the fields of the answer."""

    call_id: str
    gallery: str
    state: str
    worker: str | None
    created: float
    details: dict[str, Any]


class CallRecords:
    """The table of calls. For threads: each method waits for the database.

    worker: id of this process.
    """

    def __init__(self, database: ServerDatabase, worker: str) -> None:
        self._database, self._worker = database, worker

    def announce(self, gallery: str, call_id: str, details: dict[str, Any]) -> CallRecord:
        """Store a call that is yet to come.

        Raises `ProblemError`: 409 for an id that is taken, 429 beyond `MOST_ANNOUNCED`.
        """
        record = CallRecord(call_id, gallery, "announced", None, time.time(), details)
        waiting = and_(
            calls.c.gallery == gallery,
            calls.c.state == "announced",
            calls.c.created >= record.created - ANNOUNCED_S,
        )
        try:
            with self._database.begin() as connection:
                count = connection.execute(select(func.count()).where(waiting)).scalar()
                if (count or 0) >= MOST_ANNOUNCED:
                    raise ProblemError(
                        429,
                        "BusyError",
                        f"{MOST_ANNOUNCED:,} announced calls of this gallery wait for their connections.",
                        {"Retry-After": "60"},
                    )
                connection.execute(insert(calls).values(_values(record)))
        except IntegrityError:
            raise ProblemError(
                409,
                "CallExistsError",
                f"The gallery has a call {call_id!r}: announce it with another call_id.",
            ) from None
        return record

    def claim(self, gallery: str | None, call_id: str) -> CallRecord | None:
        """The announcement of a call that now begins, or None; it is this worker's from now on.

        gallery: None for the newest announcement in any gallery. Raises `ProblemError` 409 for a call that
        lasts already.
        """
        where = calls.c.call_id == call_id
        if gallery is not None:
            where = and_(where, calls.c.gallery == gallery)
        with self._database.begin() as connection:
            # The lock of the rows is PostgreSQL's; of SQLite, the transaction holds the whole database.
            query = select(calls).where(where).order_by(calls.c.created.desc()).with_for_update()
            rows = connection.execute(query).all()
            found = next((row for row in rows if row.state == "announced"), None)
            if found is None:
                oldest = time.time() - LOST_S
                if any(row.state in LIVE and (row.beat or row.created) > oldest for row in rows):
                    raise ProblemError(
                        409,
                        "CallExistsError",
                        f"The call {call_id!r} lasts already: end it, or use another id.",
                    )
                return None
            if found.created < time.time() - ANNOUNCED_S:
                return None
            key = and_(calls.c.call_id == call_id, calls.c.gallery == found.gallery)
            values = {"state": "live", "worker": self._worker, "beat": time.time()}
            connection.execute(update(calls).where(key).values(values))
        return _record(found)

    def fail(self, gallery: str, call_id: str) -> None:
        """Note that a claimed call did not begin."""
        mine = and_(calls.c.call_id == call_id, calls.c.gallery == gallery, calls.c.worker == self._worker)
        with self._database.begin() as connection:
            connection.execute(update(calls).where(mine, calls.c.state.in_(LIVE)).values(state="failed"))

    def save(self, records: Iterable[CallRecord], deliveries: Iterable[Delivery] = ()) -> None:
        """Store calls of this worker, and what goes to the webhook, in one transaction."""
        with self._database.begin() as connection:
            for record in records:
                self._upsert(connection, record)
            add_deliveries(connection, deliveries)

    def _upsert(self, connection: Connection, record: CallRecord) -> None:
        key = and_(calls.c.call_id == record.call_id, calls.c.gallery == record.gallery)
        values = _values(record) | {"worker": self._worker, "beat": time.time()}
        # A request of another worker may have hung up meanwhile, which a running answer must not undo.
        hung_up = connection.execute(select(calls.c.state).where(key)).scalar() == "ending"
        if hung_up and record.state == "live":
            values["state"] = "ending"
        if not connection.execute(update(calls).where(key).values(values)).rowcount:
            connection.execute(insert(calls).values(values))

    def get(self, galleries: Iterable[str], call_id: str) -> CallRecord | None:
        """The newest call of this id in one of the galleries, or None."""
        query = select(calls).where(calls.c.call_id == call_id, calls.c.gallery.in_(list(galleries)))
        with self._database.read() as connection:
            row = connection.execute(query.order_by(calls.c.created.desc())).first()
        return None if row is None else _record(row)

    def page(
        self, gallery: str, state: str | None, limit: int, before: tuple[float, str] | None = None
    ) -> list[CallRecord]:
        """Calls of a gallery, the newest first.

        before: `created` and id of the last call of the page before.
        """
        query = select(calls).where(calls.c.gallery == gallery)
        if state is not None:
            query = query.where(calls.c.state.in_(LIVE if state == "live" else (state,)))
        if before is not None:
            query = query.where(tuple_(calls.c.created, calls.c.call_id) < tuple_(*before))
        order = calls.c.created.desc(), calls.c.call_id.desc()
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query.order_by(*order).limit(limit))]

    def hang_up(self, gallery: str, call_id: str) -> None:
        """Ask the worker of a call to end it; an announced call is withdrawn."""
        key = and_(calls.c.call_id == call_id, calls.c.gallery == gallery)
        with self._database.begin() as connection:
            connection.execute(update(calls).where(key, calls.c.state == "live").values(state="ending"))
            connection.execute(delete(calls).where(key, calls.c.state == "announced"))

    def beat(self) -> list[tuple[str, str]]:
        """Say that this worker lives; returns gallery and id of its calls that requests have hung up."""
        mine = and_(calls.c.worker == self._worker, calls.c.state.in_(LIVE))
        with self._database.begin() as connection:
            connection.execute(update(calls).where(mine).values(beat=time.time()))
            return self._hung_up(connection)

    def hung_up(self) -> list[tuple[str, str]]:
        """Gallery and id of the calls of this worker that requests have hung up."""
        with self._database.read() as connection:
            return self._hung_up(connection)

    def _hung_up(self, connection: Connection) -> list[tuple[str, str]]:
        query = select(calls.c.gallery, calls.c.call_id)
        rows = connection.execute(query.where(calls.c.worker == self._worker, calls.c.state == "ending"))
        return [(row.gallery, row.call_id) for row in rows]

    def purge(self, keep_s: float) -> None:
        """Mark the calls of workers that are gone as failed, and remove old calls.

        keep_s: seconds that calls stay after their last sign of life.
        """
        now = time.time()
        lost = and_(calls.c.state.in_(LIVE), calls.c.beat < now - LOST_S)
        old = and_(calls.c.state.in_(("ended", "failed")), calls.c.beat < now - keep_s)
        stale = and_(calls.c.state == "announced", calls.c.created < now - ANNOUNCED_S)
        with self._database.begin() as connection:
            connection.execute(update(calls).where(lost).values(state="failed"))
            connection.execute(delete(calls).where(or_(old, stale)))


def _values(record: CallRecord) -> dict[str, Any]:
    return record._asdict() | {"details": json.dumps(record.details)}


def _record(row: Row[Any]) -> CallRecord:
    return CallRecord(row.call_id, row.gallery, row.state, row.worker, row.created, json.loads(row.details))

"""`LiveCalls`: all calls of a worker, from their connections to their records and webhooks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from voiceprint._audited import acting_as
from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.consent import CallerState
from voiceprint.errors import InvalidArgumentError, StorageUnavailableError
from voiceprint.server.live.conversation import CallOptions, Started
from voiceprint.server.live.metrics import LiveMetrics
from voiceprint.server.live.records import BEAT_S, CallRecord, CallRecords
from voiceprint.server.live.session import LiveCall, answer_of
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.live.webhooks import Delivery, WebhookSender, delivery_of
from voiceprint.server.problems import ProblemError
from voiceprint.server.protocol import LASTING

if TYPE_CHECKING:
    from voiceprint.server.live.connection import Connection
    from voiceprint.server.service import Service

logger = logging.getLogger(__name__)

MAX_CANDIDATES: Final = 100
"""Callers that `candidates_metadata` may find: the holders of an account. More are a mistake in the key, and
each call would read all of them."""
_TICK_S: Final = 1.0
_LAST_LOOK_S: Final = 0.05  # between two looks whether the last call has ended; a process ends later by this
_GONE: Final[dict[CallerState | None, str]] = {
    None: "not_enrolled",
    "opted_out": "opted_out",
    "expired": "expired",
}


class LiveCalls:
    """The calls of a worker process. Its methods belong to the event loop.

    service: whose galleries, database and number of threads the calls use. settings: None reads the
        environment.
    """

    def __init__(self, service: Service, settings: LiveSettings | None = None) -> None:
        self.service = service
        self.settings = LiveSettings() if settings is None else settings
        self.records = CallRecords(service.database, service.worker)
        self.metrics = LiveMetrics(service.metrics.registry)
        self._calls: dict[tuple[str, str], LiveCall] = {}
        self._reserved: set[tuple[str, str]] = set()
        self._connections: dict[tuple[str, str], Connection] = {}
        # Of their own, and not those of requests: audio waits in its call, and a request is refused.
        self._threads = ThreadPoolExecutor(service.work.threads, thread_name_prefix="voiceprint-calls")
        self._changed: dict[tuple[str, str], LiveCall] = {}
        self._deliveries: list[Delivery] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the calls, once it has started."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_closing = False
        """Whether no new calls begin."""
        self.audiosocket_port: int | None = None
        """The TCP port of AudioSocket, once it is listened on."""
        self.webhooks = WebhookSender(
            service.database, self.settings, service.worker, self.redacted, self.metrics.delivered
        )

    def __len__(self) -> int:
        """Calls that last now."""
        return len(self._connections) + len(self._reserved)

    def __iter__(self) -> Iterator[LiveCall]:
        """The calls that last, and those that ended and can be enrolled."""
        return iter(list(self._calls.values()))

    def start(self) -> None:
        """Begin the work beside the calls: records, webhooks, expiry."""
        self.loop = asyncio.get_running_loop()
        LASTING.add(self)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self.webhooks.run())]

    def end_within(self, seconds: float) -> None:
        """Take no new calls, and end those that last after some seconds. May be repeated."""
        if not self.is_closing and self.loop is not None:
            self.is_closing = True
            self.loop.call_later(seconds, self._stop_all)

    async def last(self, seconds: float) -> None:
        """`end_within`, and wait until all calls have ended: uvicorn waits for websockets alone."""
        self.end_within(seconds)
        while self._connections:
            await asyncio.sleep(_LAST_LOOK_S)

    def _stop_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.stop("shutdown", "The service is going away.")

    async def close(self) -> None:
        """End all calls, store their final answers, and drop their audio."""
        self.is_closing = True
        self._stop_all()
        for call in list(self._calls.values()):
            call.end("shutdown")
        await asyncio.gather(*(call.finished() for call in self))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._save()
        except StorageUnavailableError as error:  # the service ends all the same
            logger.error("The last answers of calls are not stored: %s", error)  # noqa: TRY400
        for call in self:
            call.close()
        self._calls.clear()
        self._threads.shutdown(wait=True)

    # Calls

    async def open(
        self, gallery: str | None, source: str, started: Started, actor: str, connection: Connection
    ) -> LiveCall:
        """The call of a connection that begins.

        gallery: None for that of the announcement, or of unannounced AudioSocket calls. Raises
        `ProblemError`: 503 beyond `max_calls`, 409 for the id of a call that lasts, 404 without a gallery;
        and the errors of the options and the store.
        """
        if self.is_closing or len(self) >= self.settings.max_calls:
            raise ProblemError(
                503,
                "BusyError",
                f"{len(self)} calls last, which are all that VOICE_SERVER_MAX_CALLS allows.",
            )
        call_id = started.options.call_id or str(uuid.uuid4())
        place = (gallery or "", call_id)
        last = self._calls.get(place)
        if place in self._reserved or (last is not None and not last.is_finished):
            raise _lasts_already(call_id)
        self._reserved.add(place)
        try:
            begin = contextvars.copy_context()
            call = await asyncio.wrap_future(
                self._threads.submit(begin.run, self._begin, gallery, call_id, source, started, actor)
            )
        finally:
            self._reserved.discard(place)
        key = (call.gallery, call_id)
        replaced = self._calls.pop(key, None)
        if replaced is not None:  # an ended call of the same id, as of a stream that comes a second time
            replaced.close()
        self._calls[key], self._connections[key] = call, connection
        self._drop_oldest()
        self.metrics.started(call)
        self._note(call)
        return call

    def left(self, call: LiveCall) -> None:
        """The connection of a call has ended."""
        self._connections.pop((call.gallery, call.call_id), None)

    def get(self, gallery: str, call_id: str) -> LiveCall | None:
        """The call in this worker's memory, or None."""
        return self._calls.get((gallery, call_id))

    def hang_up(self, gallery: str, call_id: str) -> bool:
        """End a call and its connection; False where it is not one of this worker."""
        connection = self._connections.get((gallery, call_id))
        if connection is not None:
            connection.stop("request", "A request has ended the call.")
        return connection is not None

    def _begin(
        self, gallery: str | None, call_id: str, source: str, started: Started, actor: str
    ) -> LiveCall:
        """Open the stream of a call, in a thread: the store is asked for candidates."""
        announced = self.records.claim(gallery, call_id)
        if announced is None:
            gallery = gallery or self.settings.audiosocket_gallery
            return self._opened(gallery, call_id, source, started.audio_format, started.options, actor)
        try:
            options = CallOptions.of(announced.details["options"], call_id=call_id)
            return self._opened(announced.gallery, call_id, source, started.audio_format, options, actor)
        except BaseException:
            self.records.fail(announced.gallery, call_id)  # else it would last for ever
            raise

    def _opened(
        self,
        gallery: str | None,
        call_id: str,
        source: str,
        audio_format: AudioFormat,
        options: CallOptions,
        actor: str,
    ) -> LiveCall:
        """The call with its stream."""
        if gallery is None or gallery not in self.service:
            raise ProblemError(
                404,
                "CallNotAnnouncedError",
                f"The call {call_id} was not announced: POST it to /v1/galleries/GALLERY/calls before, or "
                "set VOICE_SERVER_AUDIOSOCKET_GALLERY.",
            )
        self._check_free(gallery, call_id, actor)
        options = self.resolved(gallery, options)
        recognizer = self.service.recognizer(gallery)
        with acting_as(actor, call_id):
            context = contextvars.copy_context()
        stream = recognizer.stream(
            **audio_format._asdict(),
            k=options.k,
            candidates=options.candidates,
            groups=options.groups,
            not_groups=options.not_groups,
            watch=options.watch,
        )
        call = LiveCall(
            call_id,
            gallery,
            source,
            audio_format,
            options,
            stream,
            self._threads,
            self._answered,
            context,
        )
        call.actor = actor
        return call

    def _check_free(self, gallery: str, call_id: str, actor: str) -> None:
        """Raise `ProblemError` 409 for the id of a call that lasts, or of another actor's call that ended.

        Whoever enrolls from a call relies on its audio: nobody else may put other audio under its id.
        """
        last = self._calls.get((gallery, call_id))
        if last is not None and not last.is_finished:
            raise _lasts_already(call_id)
        record = self.records.get([gallery], call_id)
        if record is not None and record.details.get("actor", actor) != actor:
            raise ProblemError(
                409, "CallExistsError", f"The call {call_id!r} was another actor's: use another id."
            )

    def resolved(self, gallery: str, options: CallOptions) -> CallOptions:
        """The options with the ids of the callers that `candidates_metadata` finds, and without it.

        For threads. Raises `InvalidArgumentError` where it finds too many.
        """
        wanted = options.candidates_metadata
        if wanted is None:
            return options
        recognizer = self.service.recognizer(gallery)
        found = [one.caller_id for one in recognizer.find_callers(wanted, limit=MAX_CANDIDATES + 1)]
        if len(found) > MAX_CANDIDATES:
            raise InvalidArgumentError(
                f"candidates_metadata finds more than {MAX_CANDIDATES} callers: use a key that tells "
                "accounts apart, or groups."
            )
        if options.candidates is not None:
            found = [caller for caller in found if caller in set(options.candidates)]
        return options.model_copy(update={"candidates": found, "candidates_metadata": None})

    def redacted(self, gallery: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a call without callers who were deleted, have opted out or are expired by now.

        For threads: an answer is older than the store.
        """
        answer = fields.get("answer")
        if not answer or gallery not in self.service:
            return fields
        named = {one["caller_id"] for one in (*answer["matches"], *answer["watch_hits"])}
        recognizer = self.service.recognizer(gallery)
        states = {
            caller: recognizer.caller_state(caller) for caller in named | {answer["caller_id"]} - {None}
        }
        gone = {caller: _GONE[state] for caller, state in states.items() if state in _GONE}
        if not gone:
            return fields
        left: dict[str, Any] = {
            name: [one for one in answer[name] if one["caller_id"] not in gone]
            for name in ("matches", "watch_hits")
        }
        if answer["caller_id"] in gone:
            left |= {"caller_id": None, "similarity": None, "verdict": gone[answer["caller_id"]]}
        return fields | {"answer": answer | left}

    # Answers

    def _answered(self, call: LiveCall) -> None:
        """A call has a new answer, or has ended. Called in a thread."""
        self.metrics.answered(call)
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._answered_here, call)

    def _answered_here(self, call: LiveCall) -> None:
        connection = self._connections.get((call.gallery, call.call_id))
        if connection is not None:
            connection.answered()
        is_over = call.state != "live"
        if is_over:
            self.metrics.ended(call)
        facts = (call.state, call.answer.caller_id, call.answer.verdict, call.answer.decided)
        if call.recorded == facts:
            return
        was_decided = call.recorded is not None and call.recorded[3]
        call.recorded = facts
        if is_over or (call.answer.decided and not was_decided):
            self._notify(call, "call.ended" if is_over else "call.decided")
        self._note(call)

    def _notify(self, call: LiveCall, kind: str) -> None:
        if call.options.webhook and call.gallery in self.settings.webhook_urls:
            self._deliveries.append(delivery_of(call.gallery, kind, details_of(call)))

    def _note(self, call: LiveCall) -> None:
        """Have the record of a call written at once, with the others that change meanwhile."""
        self._changed[call.gallery, call.call_id] = call
        self._wake.set()

    async def _run(self) -> None:
        """Write records, look for hung-up calls, and drop those that nobody can enroll any more."""
        beaten = purged = 0.0
        while True:
            with suppress(asyncio.TimeoutError):  # a second has passed
                await asyncio.wait_for(self._wake.wait(), _TICK_S)
            self._wake.clear()
            self._expire()
            time_now = time.monotonic()
            try:
                await self._save()
                if self._connections:
                    is_due = time_now - beaten >= BEAT_S
                    look = self.records.beat if is_due else self.records.hung_up
                    beaten = time_now if is_due else beaten
                    for gallery, call_id in await asyncio.to_thread(look):
                        self.hang_up(gallery, call_id)
                    await self._end_revoked()
                if time_now - purged >= 6 * BEAT_S:
                    purged = time_now
                    await asyncio.to_thread(self.records.purge, self.settings.call_record_s)
            except StorageUnavailableError as error:  # all is kept for the next second
                logger.warning("Records of calls wait: %s", error)
            except Exception as error:  # noqa: BLE001 - of one call, as by a race; the others go on
                logger.error("%s in the records of calls", type(error).__name__)  # noqa: TRY400

    async def _end_revoked(self) -> None:
        """End the connections whose API key is revoked or expired by now."""
        connections = list(self._connections.values())
        key_ids = {one.key_id for one in connections if one.key_id is not None}
        active = await asyncio.to_thread(self.service.keys.active, key_ids)
        for connection in connections:
            if connection.key_id is not None and connection.key_id not in active:
                connection.stop("request", "The API key of this connection is no longer valid.")

    async def _save(self) -> None:
        """Write what has changed; what cannot be written stays."""
        changed, self._changed = self._changed, {}
        deliveries, self._deliveries = self._deliveries, []
        if not changed and not deliveries:
            return
        records = [record_of(call) for call in changed.values()]
        final = [
            call for call, record in zip(changed.values(), records, strict=True) if record.state != "live"
        ]
        try:
            await asyncio.to_thread(self.records.save, records, deliveries)
        except BaseException:
            self._changed = changed | self._changed
            self._deliveries = deliveries + self._deliveries
            raise
        for call in final:
            call.stored.set()
        if deliveries:
            self.webhooks.wake()

    def _drop_oldest(self) -> None:
        """Drop the audio of the calls that ended first, beyond `max_calls` of them."""
        ended = sorted((call for call in self if call.is_finished), key=lambda call: call.ended_monotonic)
        for call in ended[: max(0, len(ended) - self.settings.max_calls)]:
            del self._calls[call.gallery, call.call_id]
            call.close()

    def _expire(self) -> None:
        """Drop the audio of calls that ended `call_keep_s` ago."""
        oldest = time.monotonic() - self.settings.call_keep_s
        for key, call in list(self._calls.items()):
            if call.is_finished and call.ended_monotonic < oldest and key not in self._changed:
                del self._calls[key]
                call.close()


def _lasts_already(call_id: str) -> ProblemError:
    return ProblemError(409, "CallExistsError", f"The call {call_id!r} lasts already: use another id.")


def record_of(call: LiveCall) -> CallRecord:
    """The record of a call."""
    details = details_of(call) | {"actor": call.actor}
    return CallRecord(call.call_id, call.gallery, call.state, None, call.created, details)


def details_of(call: LiveCall) -> dict[str, Any]:
    """The facts of a call for its record and the webhook, without metadata of callers."""
    return {
        "call_id": call.call_id,
        "gallery": call.gallery,
        "state": call.state,
        "source": call.source,
        "from": call.options.from_number,
        "to": call.options.to_number,
        "created_at": call.created_at,
        "ended_at": call.ended_at,
        "ended_by": call.ended_by,
        "error": call.error,
        "answers": call.answers,
        "late_answers": call.late,
        "most_late_s": round(call.most_lateness_s, 3),
        "answer": answer_of(call, metadata=False),
    }


def announced_details(gallery: str, call_id: str, options: CallOptions, created_at: str) -> dict[str, Any]:
    """The facts of an announced call; its options are for the worker that takes it."""
    return {
        "call_id": call_id,
        "gallery": gallery,
        "state": "announced",
        "from": options.from_number,
        "to": options.to_number,
        "created_at": created_at,
        "options": options.model_dump(by_alias=True, exclude={"candidates_metadata"}),
    }

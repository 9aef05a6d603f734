"""Webhooks: the answers of calls go to the URL of their gallery, signed, and at least once.

A delivery is written in the transaction of the call's record, and removed when the URL has accepted it. So a
worker that dies loses none: another one sends it. The receiver may get one twice, with the same `webhook-id`.

The headers and the signature are those of Standard Webhooks, for which there are libraries in many languages.
Source: https://www.standardwebhooks.com
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import httpx
from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from voiceprint.errors import StorageUnavailableError
from voiceprint.server.database import ServerDatabase, deliveries
from voiceprint.server.live.settings import LiveSettings
from voiceprint.validation import now

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0
"""Seconds for an answer of the receiver, who should accept first and work later."""
GIVE_UP_S: Final = 3 * 86_400.0
"""Seconds after which a delivery is dropped: a weekend in which nobody repairs the receiver."""
_FIRST_RETRY_S: Final = 2.0
_LONGEST_RETRY_S: Final = 3_600.0
_CLAIM_S: Final = 60.0  # after which a delivery of a dead worker is sent by another: well over TIMEOUT_S
_AT_ONCE: Final = 20  # connections to receivers
_POLL_S: Final = 1.0


class Delivery(NamedTuple):
    """A message for a webhook. body: JSON, without metadata of callers."""

    delivery_id: str
    gallery: str
    body: dict[str, Any]


def delivery_of(gallery: str, kind: str, data: dict[str, Any]) -> Delivery:
    """A delivery. kind: such as "call.ended". data: of the event."""
    body = {"type": kind, "timestamp": now(), "data": data}
    return Delivery(f"msg_{secrets.token_hex(16)}", gallery, body)


def add_deliveries(connection: Connection, messages: Iterable[Delivery]) -> None:
    """Write deliveries in a transaction."""
    for message in messages:
        values = message._asdict() | {"body": json.dumps(message.body), "attempts": 0, "due": time.time()}
        connection.execute(insert(deliveries).values(values))


def sign(secret: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`. timestamp: seconds since 1970."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()


def retry_s(attempts: int) -> float:
    """Seconds until the next attempt after `attempts` of them: 2, 4, 8, ... up to an hour."""
    return min(_FIRST_RETRY_S * 2.0 ** min(attempts - 1, 30), _LONGEST_RETRY_S)


async def _post(client: httpx.AsyncClient, url: str, content: bytes, headers: dict[str, str]) -> str | None:
    """Post a delivery; returns why it was not accepted, or None."""
    # The status alone: a body without end would fill the memory, and hold up all galleries.
    async with client.stream("POST", url, content=content, headers=headers) as response:
        return None if response.is_success else f"status {response.status_code}"


class WebhookSender:
    """Sends the deliveries of all workers; one a worker.

    redact: takes the gallery and the `data` of a delivery, and returns it without a caller who is gone by
    then. count: called with the gallery and "delivered", "retried" or "dropped".
    """

    def __init__(
        self,
        database: ServerDatabase,
        settings: LiveSettings,
        worker: str,
        redact: Callable[[str, dict[str, Any]], dict[str, Any]],
        count: Callable[[str, str], None],
    ) -> None:
        self._database, self._settings, self._worker = database, settings, worker
        self._redact, self._count = redact, count
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for deliveries at once. Of the event loop."""
        self._wake.set()

    async def run(self) -> None:
        """Send until it is cancelled."""
        if not self._settings.webhook_urls:
            return
        # No redirects: the receiver is the one of the settings and no other.
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            while True:
                self._wake.clear()
                try:
                    claimed = await asyncio.to_thread(self._claim)
                    await asyncio.gather(*(self._send(client, *one) for one in claimed))
                except StorageUnavailableError as error:  # the next round tries again
                    logger.warning("Webhooks wait: %s", error)
                    claimed = []
                except Exception as error:  # noqa: BLE001 - of one delivery; the others go on
                    logger.error("%s in the webhooks", type(error).__name__)  # noqa: TRY400
                    claimed = []
                if not claimed:
                    # After a while also for deliveries of other workers, and for retries.
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), _POLL_S)

    def _claim(self) -> list[tuple[Delivery, int]]:
        """Deliveries that are due and are this worker's from now on, with their attempts."""
        time_now = time.time()
        is_free = or_(deliveries.c.worker.is_(None), deliveries.c.beat < time_now - _CLAIM_S)
        where = and_(
            deliveries.c.due <= time_now, is_free, deliveries.c.gallery.in_(list(self._settings.webhook_urls))
        )
        query = select(deliveries).where(where).order_by(deliveries.c.due).limit(_AT_ONCE)
        with self._database.read() as connection:
            if connection.execute(query).first() is None:
                return []  # without a write each second
        with self._database.begin() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            ids = [row.delivery_id for row in rows]
            claim = update(deliveries).where(deliveries.c.delivery_id.in_(ids))
            connection.execute(claim.values(worker=self._worker, beat=time_now))
        return [(Delivery(row.delivery_id, row.gallery, json.loads(row.body)), row.attempts) for row in rows]

    async def _send(self, client: httpx.AsyncClient, message: Delivery, attempts: int) -> None:
        body = message.body
        body["data"] = await asyncio.to_thread(self._redact, message.gallery, body["data"])
        content = json.dumps(body).encode()
        timestamp = int(time.time())
        secret = self._settings.webhook_secret(message.gallery)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message.delivery_id, timestamp, content),
        }
        url = self._settings.webhook_urls[message.gallery]
        try:
            fault = await asyncio.wait_for(_post(client, url, content, headers), TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, asyncio.TimeoutError) as error:
            fault = type(error).__name__
        await asyncio.to_thread(self._settle, message, attempts + 1, fault)

    def _settle(self, message: Delivery, attempts: int, fault: str | None) -> None:
        """Remove a delivery, or plan its next attempt. fault: of this attempt; None if it was accepted."""
        one = and_(deliveries.c.delivery_id == message.delivery_id, deliveries.c.worker == self._worker)
        waited = sum(retry_s(attempt) for attempt in range(1, attempts))
        is_over = fault is not None and waited > GIVE_UP_S
        with self._database.begin() as connection:
            if fault is None or is_over:
                connection.execute(delete(deliveries).where(one))
            else:
                next_due = time.time() + retry_s(attempts)
                values = {"attempts": attempts, "due": next_due, "worker": None, "beat": None}
                connection.execute(update(deliveries).where(one).values(values))
        if fault is not None:
            outcome = "is dropped" if is_over else f"comes again in {retry_s(attempts):g} s"
            logger.warning(
                "The webhook of %s: %s; %s %s", message.gallery, fault, message.delivery_id, outcome
            )
        self._count(message.gallery, "delivered" if fault is None else "dropped" if is_over else "retried")

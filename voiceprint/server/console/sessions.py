"""`Sessions`: the sign-ins of the console, by a random token in a cookie, valid in all workers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Final, NamedTuple

from sqlalchemy import delete, insert, or_, select, update

from voiceprint.server.database import ServerDatabase, sessions
from voiceprint.server.keys import ApiKeys, Principal, digest_of

IDLE_S: Final = 30 * 60.0
"""Seconds without a use after which a session ends: a screen that was left alone. A page that refreshes
itself is no use. Doubled, an unlocked screen stays open for twice as long."""
LONGEST_S: Final = 12 * 3600.0
"""Seconds after which every session ends: a shift. Doubled, a stolen cookie is of use for twice as long."""
_NOTED_EVERY_S: Final = 60.0
"""Seconds between two notes of a session's use. Without, every request would write to the database."""
_TOKEN_BYTES: Final = 32


class Session(NamedTuple):
    """A session. token: of the cookie. principal: the holder of the key that signed in."""

    token: str
    principal: Principal

    @property
    def csrf(self) -> str:
        """The token of the session's forms, which only its pages can read."""
        return form_token(self.token)


def form_token(cookie: str) -> str:
    """The token of the forms that belong to a cookie, 64 hex digits."""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"form", hashlib.sha256).hexdigest()


class Sessions:
    """The sessions of a service. The database holds digests of their tokens."""

    def __init__(self, database: ServerDatabase, keys: ApiKeys) -> None:
        self._database, self._keys = database, keys

    def begin(self, principal: Principal) -> Session:
        """Begin a session of the holder of a key; removes sessions that have ended."""
        token, time_now = secrets.token_urlsafe(_TOKEN_BYTES), time.time()
        ended = or_(sessions.c.created < time_now - LONGEST_S, sessions.c.used < time_now - IDLE_S)
        with self._database.begin() as connection:
            connection.execute(delete(sessions).where(ended))
            values = {"key_id": principal.key_id, "created": time_now, "used": time_now}
            connection.execute(insert(sessions).values(digest=digest_of(token), **values))
        return Session(token, principal)

    def find(self, token: str, *, is_use: bool = True) -> Session | None:
        """The session of a cookie; None where it, or the key that signed in, has ended.

        is_use: whether this postpones the end of an idle session.
        """
        if not self._database.exists():
            return None
        one, time_now = sessions.c.digest == digest_of(token), time.time()
        with self._database.read() as connection:
            row = connection.execute(select(sessions).where(one)).one_or_none()
        if row is None or time_now - row.created > LONGEST_S or time_now - row.used > IDLE_S:
            return None
        principal = self._keys.holder(row.key_id)
        if principal is None:
            return None
        if is_use and time_now - row.used > _NOTED_EVERY_S:
            with self._database.begin() as connection:
                connection.execute(update(sessions).where(one).values(used=time_now))
        return Session(token, principal)

    def end(self, token: str) -> None:
        """End a session. May be repeated."""
        with self._database.begin() as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == digest_of(token)))

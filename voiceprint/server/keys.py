"""`ApiKeys`: who may use the service."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, get_args

from sqlalchemy import Row, insert, select, update

from voiceprint.errors import InvalidArgumentError
from voiceprint.server.database import ServerDatabase, api_keys
from voiceprint.validation import check_time, now, shown

Role = Literal["identify", "enroll", "admin", "audit"]
"""The permissions of a key.

identify: identify, verify, check quality, follow live calls. enroll: add callers and voiceprints, consents
and groups. admin: both of these, and all changes and settings of callers and of the index. audit: read the
audit log and the metrics.
"""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_INCLUDED: Final[dict[str, frozenset[Role]]] = {"admin": frozenset({"identify", "enroll", "admin"})}

_KEY: Final = re.compile(r"vp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_SECRET_BYTES: Final = 32  # 256 bits: no guessing, so a plain digest is safe, and quick to compare
_NOBODY: Final = bytes(32)


class Principal(NamedTuple):
    """The holder of an API key.

    roles: with those that they include. galleries: names; None for all. sees_metadata: whether answers show
    the metadata of callers. rate_limit: requests a minute; None for the default of the settings.
    """

    key_id: str
    name: str
    roles: frozenset[str]
    galleries: frozenset[str] | None
    sees_metadata: bool
    rate_limit: int | None

    def may_use(self, gallery: str) -> bool:
        """Whether the key is for this gallery."""
        return self.galleries is None or gallery in self.galleries

    @property
    def actor(self) -> str:
        """The actor of the audit log."""
        return f"key:{self.name}"


class ApiKey(NamedTuple):
    """An API key, without its secret. Times are ISO 8601 UTC with a `Z`."""

    key_id: str
    name: str
    roles: tuple[str, ...]
    galleries: tuple[str, ...] | None
    metadata: bool
    rate_limit: int | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None

    @property
    def state(self) -> Literal["active", "expired", "revoked"]:
        """Whether the key is accepted now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "active"


class ApiKeys:
    """The API keys of a service. The database holds their digests alone; `create` returns a key once.

    All methods raise `StorageUnavailableError` where the database cannot be used.
    """

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database

    @property
    def location(self) -> str:
        """Path or URL of the database, without its password."""
        return self._database.location

    def create(
        self,
        roles: Iterable[str],
        *,
        name: str | None = None,
        galleries: Iterable[str] | None = None,
        metadata: bool = False,
        expires_at: str | None = None,
        rate_limit: int | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key; returns its text, which cannot be read again, and its record.

        name: of the holder, 1 to 512 characters, the actor in the audit log; None is its id. galleries: None
        for all. metadata: answers show the metadata of callers, as they do for the role admin. expires_at:
        ISO 8601 UTC. rate_limit: requests a minute, 0 for none. Raises `InvalidArgumentError`.
        """
        wanted = tuple(dict.fromkeys(roles))
        unknown = [role for role in wanted if role not in ROLES]
        if unknown or not wanted:
            given = f"The role is {shown(unknown[0])}" if unknown else "There is no role"
            raise InvalidArgumentError(f"{given}: give at least one of {', '.join(ROLES)}.")
        key_id = secrets.token_hex(6)
        name = key_id if name is None else name
        if not 1 <= len(name) <= 512 or not name.isprintable():
            raise InvalidArgumentError(f"The name is {shown(name)}: give 1 to 512 printable characters.")
        expires_at = None if expires_at is None else check_time(expires_at)
        if rate_limit is not None and rate_limit < 0:
            raise InvalidArgumentError(f"The rate limit is {rate_limit}: give 0 or more requests a minute.")
        text = f"vp_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        values: dict[str, Any] = {
            "key_id": key_id,
            "name": name,
            "roles": " ".join(wanted),
            "galleries": None if galleries is None else json.dumps(sorted(set(galleries))),
            "metadata": metadata or "admin" in wanted,
            "rate_limit": rate_limit,
            "created_at": now(),
            "expires_at": expires_at,
            "revoked_at": None,
        }
        with self._database.begin() as connection:
            connection.execute(insert(api_keys).values(digest=digest_of(text), **values))
            row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one()
        return text, _record(row)

    def list(self) -> list[ApiKey]:
        """All keys, the oldest first, with those that are revoked or expired."""
        if not self._database.exists():
            return []
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id))
            return [_record(row) for row in rows]

    def has_keys(self) -> bool:
        """Whether the service accepts a key now."""
        return any(key.state == "active" for key in self.list())

    def revoke(self, key_id: str) -> ApiKey:
        """End a key; it is refused from the next request of every worker on. May be repeated.

        key_id: the id, or the key itself. Raises `InvalidArgumentError` for an unknown one.
        """
        match = _KEY.fullmatch(key_id)
        key_id = match[1] if match else key_id
        with self._database.begin() as connection:
            one = api_keys.c.key_id == key_id
            connection.execute(
                update(api_keys).where(one, api_keys.c.revoked_at.is_(None)).values(revoked_at=now())
            )
            row = connection.execute(select(api_keys).where(one)).one_or_none()
        if row is None:
            raise InvalidArgumentError(
                f"There is no key {shown(key_id)}: `voiceprint keys list` shows the ids of all."
            )
        return _record(row)

    def authenticate(self, text: str) -> Principal | None:
        """The holder of a key; None for a text that is no key, or a key that is revoked or expired.

        Reads the database at each call, so that a revocation holds at once.
        """
        match = _KEY.fullmatch(text)
        row = None
        if match is not None and self._database.exists():
            with self._database.read() as connection:
                row = connection.execute(select(api_keys).where(api_keys.c.key_id == match[1])).one_or_none()
        expected = _NOBODY if row is None else bytes(row.digest)
        if not hmac.compare_digest(digest_of(text), expected) or row is None:
            return None
        return _holder(row)

    def holder(self, key_id: str) -> Principal | None:
        """The holder of the key with this id; None where it is unknown, revoked or expired.

        For sessions, which have authenticated before.
        """
        with self._database.read() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one_or_none()
        return None if row is None else _holder(row)

    def active(self, key_ids: Iterable[str]) -> set[str]:
        """Those of the ids whose keys are accepted now. For connections, which have authenticated before."""
        wanted = [*key_ids]
        if not wanted:
            return set()
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).where(api_keys.c.key_id.in_(wanted)))
            return {key.key_id for key in map(_record, rows) if key.state == "active"}


def _holder(row: Row[Any]) -> Principal | None:
    key = _record(row)
    if key.state != "active":
        return None
    roles = frozenset[str]().union(*(_INCLUDED.get(role, frozenset({role})) for role in key.roles))
    galleries = None if key.galleries is None else frozenset(key.galleries)
    return Principal(key.key_id, key.name, roles, galleries, key.metadata, key.rate_limit)


def digest_of(text: str) -> bytes:
    """The SHA-256 of a random key or token, by which the database holds it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _record(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id,
        row.name,
        tuple(row.roles.split()),
        None if row.galleries is None else tuple(json.loads(row.galleries)),
        row.metadata,
        row.rate_limit,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )

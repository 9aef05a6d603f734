"""Data keys: a random key of 32 bytes for each caller, wrapped by a master key.

A wrapped key is 1 byte (its form), 8 bytes (the id of the master key), and the nonce, ciphertext and tag of
the data key, bound to the identity of the store and the caller's id. With a key store of its own
(`VOICE_ENCRYPTION_KEYS`), the record holds a reference, see key_store.py, and the key store has the wrapped
key, bound to the reference.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from voiceprint.errors import ConfigurationError, EncryptionKeyError
from voiceprint.privacy.encryption.files import SealedFiles
from voiceprint.privacy.encryption.keys import KEY_ID_BYTES, KeyRing
from voiceprint.privacy.encryption.primitives import (
    KEY_BYTES,
    REFERENCE_BYTES,
    STORE_ID_BYTES,
    AuthenticatedCipher,
    BrokenSealError,
)
from voiceprint.storage.sealing import DataKey, FileCipher, ForgottenKeyError, Sealing, SealingError

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.privacy.encryption.key_store import KeyStore

__all__ = ["FORGOTTEN", "Encryption"]

_WRAPPED = b"\x01"
_REFERENCE = b"\x02"
FORGOTTEN = "forgotten"
_HEAD = len(_WRAPPED) + KEY_ID_BYTES


class _DataKey:
    """A data key, and the store and caller that its fields are bound to."""

    __slots__ = ("_cipher", "_owner")

    def __init__(self, raw: bytes, owner: bytes) -> None:
        self._cipher = AuthenticatedCipher(raw)
        self._owner = owner

    def seal(self, data: bytes, place: bytes) -> bytes:
        return self._cipher.seal(data, b"%b\0%b" % (place, self._owner))

    def open(self, sealed: bytes, place: bytes) -> bytes:
        try:
            return self._cipher.open(sealed, b"%b\0%b" % (place, self._owner))
        except BrokenSealError as error:
            raise SealingError(str(error)) from None


class Encryption(Sealing):
    """Encryption of stores and files under the master keys of a `KeyRing`.

    key_store: holds the data keys in place of the records; None leaves them in the records.
    """

    def __init__(self, keys: KeyRing, key_store: KeyStore | None = None) -> None:
        self.keys = keys
        self.key_store = key_store
        self._read_before = threading.local()  # .keys: of the blocks of `prefetched`

    @classmethod
    def from_config(cls, config: VoiceFingerprintConfig) -> Encryption | None:
        """The encryption that the settings name, None without a key. Raises `ConfigurationError`."""
        keys = KeyRing.from_config(config)
        if keys is None:
            if config.encryption_keys is not None:
                raise ConfigurationError(
                    "VOICE_ENCRYPTION_KEYS is set, and no master key: set VOICE_ENCRYPTION_KEY_FILE, "
                    "VOICE_ENCRYPTION_KEY or VOICE_ENCRYPTION_KEY_COMMAND, too."
                )
            return None
        return _shared(keys, config.encryption_keys)

    @property
    def keeps_keys_apart(self) -> bool:  # type: ignore[override]
        return self.key_store is not None

    def new_key(self, store: str) -> bytes:
        return self.new_keys(store, [""])[0]

    def new_keys(self, store: str, caller_ids: list[str]) -> list[bytes]:
        raw = [secrets.token_bytes(KEY_BYTES) for _ in caller_ids]
        if self.key_store is None:
            owners = (_owner(store, caller_id) for caller_id in caller_ids)
            return [self._wrap(key, owner) for key, owner in zip(raw, owners, strict=True)]
        return self._put_apart(self.key_store, store, raw)

    def _put_apart(self, key_store: KeyStore, store: str, raw: list[bytes]) -> list[bytes]:
        ids = [secrets.token_bytes(REFERENCE_BYTES) for _ in raw]
        key_store.add(store, {id_: self._wrap(key, id_) for id_, key in zip(ids, raw, strict=True)})
        return [_REFERENCE + key_store.id + id_ for id_ in ids]

    def open_key(self, store: str, caller_id: str, wrapped: bytes) -> DataKey:
        owner = _owner(store, caller_id)
        id_ = self._reference(wrapped)
        if id_ is None:
            return _DataKey(self._unwrap(wrapped, owner), owner)
        kept = self._kept(id_)
        if kept is None:
            raise ForgottenKeyError("The data key of the caller was forgotten.")
        return _DataKey(self._unwrap(kept, id_), owner)

    def is_forgotten(self, wrapped: bytes) -> bool:
        id_ = self._reference(wrapped)
        return id_ is not None and self._kept(id_) is None

    def is_current(self, wrapped: bytes) -> bool:
        """Whether `rewrap` would change nothing. Raises `SealingError`."""
        if self.is_reference(wrapped):
            return True
        return self.key_store is None and self.key_id(wrapped) == self.keys.current.id

    def rewrap(self, store: str, caller_id: str, wrapped: bytes) -> bytes | None:
        if self.is_current(wrapped):
            return None
        owner = _owner(store, caller_id)
        raw = self._unwrap(wrapped, owner)
        if self.key_store is not None:
            return self._put_apart(self.key_store, store, [raw])[0]
        return self._wrap(raw, owner)

    def rewrap_apart(self) -> int:
        """Bring the keys of the key store under the current master key; returns how many were not.

        Leaves the keys under a master key that is not configured as they are: they are of another store.
        """
        if self.key_store is None:
            return 0
        current = self.keys.current.id
        known = {bytes.fromhex(id_) for id_ in self.keys.ids()} - {current}

        def rewrapped(id_: bytes, wrapped: bytes) -> bytes | None:
            return self._wrap(self._unwrap(wrapped, id_), id_) if self.key_id(wrapped) in known else None

        return self.key_store.rewrap(rewrapped)

    def master_key_of(self, wrapped: bytes) -> str:
        """The id of the master key of a data key, or `FORGOTTEN`. Raises `SealingError`."""
        id_ = self._reference(wrapped)
        kept = wrapped if id_ is None else self._kept(id_)
        return FORGOTTEN if kept is None else self.key_id(kept).hex()

    @staticmethod
    def is_reference(wrapped: bytes) -> bool:
        """Whether the record has a reference in place of the key."""
        return wrapped.startswith(_REFERENCE)

    @contextmanager
    def prefetched(self, wrapped: Iterable[bytes]) -> Iterator[None]:
        if self.key_store is None:
            yield
            return
        wanted = self._references(wrapped)
        before = getattr(self._read_before, "keys", {})
        self._read_before.keys = {**before, **(self.key_store.find(wanted) if wanted else {})}
        try:
            yield
        finally:
            self._read_before.keys = before

    def will_forget(self, wrapped: Iterable[bytes]) -> None:
        if self.key_store is not None:
            self.key_store.leave(self._references(wrapped))

    def forget(self, wrapped: Iterable[bytes]) -> None:
        if self.key_store is not None:
            self.key_store.forget(self._references(wrapped))

    def unfinished(self, store: str) -> list[bytes]:
        if self.key_store is None:
            return []
        return [_REFERENCE + self.key_store.id + id_ for id_ in self.key_store.leaving(store)]

    def _references(self, wrapped: Iterable[bytes]) -> list[bytes]:
        ids = (self._reference(key) for key in wrapped)
        return [id_ for id_ in ids if id_ is not None]

    def _reference(self, wrapped: bytes) -> bytes | None:
        """The id of a key that is kept apart; None for a wrapped key."""
        if not self.is_reference(wrapped):
            return None
        start = len(_REFERENCE) + STORE_ID_BYTES
        if len(wrapped) != start + REFERENCE_BYTES:
            raise SealingError("This is no reference to a data key.")
        named = wrapped[len(_REFERENCE) : start]
        if self.key_store is None or self.key_store.id != named:
            other = "none is set" if self.key_store is None else f"{self.key_store!r} is another"
            raise EncryptionKeyError(
                f"The data keys are in the key store {named.hex()}, and {other}: set VOICE_ENCRYPTION_KEYS. "
                "Nothing was changed."
            )
        return wrapped[start:]

    def _kept(self, id_: bytes) -> bytes | None:
        """The wrapped key of an id, None for a forgotten one."""
        assert self.key_store is not None  # noqa: S101  checked by `_reference`
        found = getattr(self._read_before, "keys", {})
        if id_ not in found:
            found = self.key_store.find([id_])
        if id_ not in found:
            raise EncryptionKeyError(
                f"The key store {self.key_store.location} lacks the data key {id_.hex()}: it is an older "
                "copy than the records. Bring back the newest one. Nothing was changed."
            )
        return found[id_]

    def files(self) -> FileCipher:
        return SealedFiles(keys=self.keys)

    @staticmethod
    def key_id(wrapped: bytes) -> bytes:
        """The id of the master key of a wrapped key. Raises `SealingError`."""
        if len(wrapped) <= _HEAD or not wrapped.startswith(_WRAPPED):
            raise SealingError("This is no wrapped key.")
        return wrapped[len(_WRAPPED) : _HEAD]

    def _wrap(self, raw: bytes, owner: bytes) -> bytes:
        master = self.keys.current
        return _WRAPPED + master.id + master.cipher.seal(raw, b"data key\0" + owner)

    def _unwrap(self, wrapped: bytes, owner: bytes) -> bytes:
        master = self.keys.find(self.key_id(wrapped))
        try:
            return master.cipher.open(wrapped[_HEAD:], b"data key\0" + owner)
        except BrokenSealError as error:
            raise SealingError(str(error)) from None


@lru_cache(maxsize=8)
def _shared(keys: KeyRing, key_store: str | None) -> Encryption:
    # One object for all with the same settings: JSON stores share the memory of a file by it.
    if key_store is None:
        return Encryption(keys)
    from voiceprint.privacy.encryption.key_store import KeyStore

    return Encryption(keys, KeyStore(key_store))


def _owner(store: str, caller_id: str) -> bytes:
    # The identity of a store has no zero byte, so no other pair gives the same bytes.
    return b"%b\0%b" % (store.encode(), caller_id.encode())

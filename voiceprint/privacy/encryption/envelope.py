"""Data keys: a random key of 32 bytes for each caller, wrapped by a master key.

A wrapped key is 1 byte (its form), 8 bytes (the id of the master key), and the nonce, ciphertext and tag of
the data key, bound to the identity of the store and the caller's id. With a key store of its own
(`VOICE_ENCRYPTION_KEYS`), the record holds 1 byte and 16 random bytes, under which the key store has the
wrapped key.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from voiceprint.privacy.encryption.files import SealedFiles
from voiceprint.privacy.encryption.keys import KEY_ID_BYTES, KeyRing
from voiceprint.privacy.encryption.primitives import KEY_BYTES, AuthenticatedCipher, BrokenSealError
from voiceprint.storage.sealing import DataKey, FileCipher, Sealing, SealingError

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

__all__ = ["Encryption"]

_WRAPPED = b"\x01"
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
    """Encryption of stores and files under the master keys of a `KeyRing`."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    @classmethod
    def from_config(cls, config: VoiceFingerprintConfig) -> Encryption | None:
        """The encryption that the settings name, None without a key. Raises `ConfigurationError`."""
        keys = KeyRing.from_config(config)
        return None if keys is None else _shared(keys)

    def new_key(self, store: str, caller_id: str) -> bytes:
        return self._wrap(secrets.token_bytes(KEY_BYTES), _owner(store, caller_id))

    def open_key(self, store: str, caller_id: str, wrapped: bytes) -> DataKey:
        owner = _owner(store, caller_id)
        return _DataKey(self._unwrap(wrapped, owner), owner)

    def rewrap(self, store: str, caller_id: str, wrapped: bytes) -> bytes | None:
        if self.key_id(wrapped) == self.keys.current.id:
            return None
        owner = _owner(store, caller_id)
        return self._wrap(self._unwrap(wrapped, owner), owner)

    def prefetch(self, wrapped: Iterable[bytes]) -> None:
        pass

    def forget(self, wrapped: Iterable[bytes]) -> None:
        pass

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
def _shared(keys: KeyRing) -> Encryption:
    # One object for all with the same settings: JSON stores share the memory of a file by it.
    return Encryption(keys)


def _owner(store: str, caller_id: str) -> bytes:
    # The identity of a store has no zero byte, so no other pair gives the same bytes.
    return b"%b\0%b" % (store.encode(), caller_id.encode())

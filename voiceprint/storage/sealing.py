"""The contract of encryption at rest, as the stores use it; `voiceprint.privacy.encryption` implements it.

A caller of an encrypted store has a data key. It is stored in the caller's record as a wrapped key, which
only the holder of the master key can open. A field is sealed under the data key, bound to its place: the
store, the caller, the voiceprint, the embedding space and the kind of the field, so that a ciphertext that was moved
to another place does not open there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

__all__ = [
    "SEAL_BYTES",
    "DataKey",
    "FileCipher",
    "SealedFileError",
    "Sealing",
    "SealingError",
    "join_seal",
    "place",
    "split_seal",
]

_NONCE = 12  # bytes before a ciphertext
_TAG = 16  # bytes behind it
SEAL_BYTES = _NONCE + _TAG
"""Bytes by which a sealed field is longer than the field."""


class SealingError(ValueError):
    """A ciphertext or wrapped key does not open at this place: it was changed, or belongs to another."""


class DataKey(Protocol):
    """The data key of one caller of one store."""

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Nonce, ciphertext and tag of a field; place: from `place`."""

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """The field. Raises `SealingError`."""


class FileCipher(ABC):
    """Encrypts and decrypts whole files. kind: the 8 bytes that such a file begins with."""

    @abstractmethod
    def writing(self, stream: BinaryIO, kind: bytes) -> AbstractContextManager[BinaryIO]:
        """A stream whose content is written to `stream` encrypted, complete once the block has ended."""

    @abstractmethod
    def reading(self, stream: BinaryIO, kind: bytes) -> BinaryIO:
        """The content of an encrypted file from its first byte on; seekable if `stream` is.

        Raises `EncryptionKeyError` for another key or passphrase; this and reading raise `SealedFileError`
        for damage.
        """


class SealedFileError(ValueError):
    """An encrypted file is cut off, was changed, or is none."""


class Sealing(ABC):
    """Data keys for the callers of stores, under one master key. All methods may be called from many threads.

    store: the identity of a store. wrapped: a data key as it is stored, some 80 bytes. Every method may raise
    `ConfigurationError` where the master key cannot be had, and `EncryptionKeyError` for a key of another
    master key.
    """

    @abstractmethod
    def new_key(self, store: str, caller_id: str) -> bytes:
        """A new data key, wrapped."""

    @abstractmethod
    def open_key(self, store: str, caller_id: str, wrapped: bytes) -> DataKey:
        """The data key. Raises `SealingError` where it is not this caller's."""

    @abstractmethod
    def rewrap(self, store: str, caller_id: str, wrapped: bytes) -> bytes | None:
        """The data key under the current master key; None where it is that already."""

    @abstractmethod
    def prefetch(self, wrapped: Iterable[bytes]) -> None:
        """Announce keys that are opened next, so that those kept outside of the records are read together."""

    @abstractmethod
    def forget(self, wrapped: Iterable[bytes]) -> None:
        """Drop data keys of removed callers, where they are kept outside of the records."""

    @abstractmethod
    def files(self) -> FileCipher:
        """Encrypts files under the master key: snapshots, exports, backups."""


def place(kind: str, print_id: int = 0, space: str = "") -> bytes:
    """A place within a caller's record; kind: of the field."""
    return b"%b\0%d\0%b" % (kind.encode(), print_id, space.encode())


def split_seal(sealed: bytes) -> tuple[bytes, bytes]:
    """The ciphertext of a sealed field, as long as the field, and its nonce with its tag."""
    return sealed[_NONCE:-_TAG], sealed[:_NONCE] + sealed[-_TAG:]


def join_seal(ciphertext: bytes, seal: bytes) -> bytes:
    """The sealed field of the two parts that `split_seal` gives."""
    return b"".join((seal[:_NONCE], ciphertext, seal[_NONCE:]))

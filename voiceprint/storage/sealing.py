"""The contract of encryption at rest, as the stores use it; `voiceprint.privacy.encryption` implements it.

A caller of an encrypted store has a data key. It is stored in the caller's record as a wrapped key, which
only the holder of the master key can open. A field is sealed under the data key, bound to its place: the
store, the caller, the voiceprint, the embedding space and the kind of the field, so that a ciphertext that
was moved to another place does not open there.

A store keeps a mark that says whether it is encrypted: "" (plain), "encrypting KEY SEAL" while its records
are being encrypted, or "on KEY SEAL", when no record may be plain. KEY is a wrapped key in Base64 that
belongs to no caller: a writer with another master key is refused by it. SEAL is a seal of the state under
that key: without the master key, nobody can turn "on" into "encrypting". With a key, the records of a plain
store are refused outside of `plain_store_allowed`: else whoever removes the mark could add plain records.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import BinaryIO, Protocol

from voiceprint.errors import ConfigurationError, EncryptionKeyError

__all__ = [
    "ENCRYPTING",
    "ON",
    "SEAL_BYTES",
    "DataKey",
    "FileCipher",
    "ForgottenKeyError",
    "SealedFileError",
    "Sealing",
    "SealingError",
    "check_mark",
    "check_plain",
    "join_seal",
    "mark_key",
    "mark_state",
    "missing_key",
    "new_mark",
    "not_encrypted",
    "place",
    "plain_store_allowed",
    "rewrapped_mark",
    "split_seal",
]

ON = "on"
ENCRYPTING = "encrypting"
_NO_CALLER = ""  # whose key is in the mark
_NONCE = 12  # bytes before a ciphertext
_TAG = 16  # bytes behind it
SEAL_BYTES = _NONCE + _TAG
"""Bytes by which a sealed field is longer than the field."""


class SealingError(ValueError):
    """A ciphertext or wrapped key does not open at this place: it was changed, or belongs to another."""


class ForgottenKeyError(SealingError):
    """The data key of a removed caller was forgotten: nobody can read this copy of the record."""


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

    keeps_keys_apart: bool
    """Whether data keys are kept outside of the records; then no other file may hold their data."""

    @abstractmethod
    def new_key(self, store: str) -> bytes:
        """A new key for the mark of a store, wrapped."""

    @abstractmethod
    def new_keys(self, store: str, caller_ids: list[str]) -> list[bytes]:
        """New data keys for these callers, wrapped. Those that are kept apart are on the disk then."""

    @abstractmethod
    def open_key(self, store: str, caller_id: str, wrapped: bytes) -> DataKey:
        """The data key. Raises `SealingError` where it is not this caller's, `ForgottenKeyError`."""

    @abstractmethod
    def rewrap(self, store: str, caller_id: str, wrapped: bytes) -> bytes | None:
        """The data key as a new record holds it; None where it is that already."""

    @abstractmethod
    def prefetched(self, wrapped: Iterable[bytes]) -> AbstractContextManager[None]:
        """Keys that the block opens in this thread: those kept apart are read together, before it."""

    @abstractmethod
    def is_forgotten(self, wrapped: bytes) -> bool:
        """Whether `open_key` would raise `ForgottenKeyError`."""

    @abstractmethod
    def will_forget(self, wrapped: Iterable[bytes]) -> None:
        """Note, before the commit of a removal, the keys that it leaves without use."""

    @abstractmethod
    def forget(self, wrapped: Iterable[bytes]) -> None:
        """Remove the keys, after the commit, where they are kept outside of the records."""

    @abstractmethod
    def unfinished(self, store: str) -> list[bytes]:
        """The noted keys of a store that were not forgotten: a removal was interrupted, or taken back."""

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


# The mark of a store


def new_mark(sealing: Sealing, store: str, state: str) -> str:
    """The mark of a store in the state `ON` or `ENCRYPTING`."""
    key = sealing.new_key(store)
    return _joined(state, key, sealing.open_key(store, _NO_CALLER, key).seal(b"", place(f"mark {state}")))


def mark_state(mark: str) -> str:
    """The state in a mark: "", `ENCRYPTING` or `ON`."""
    return mark.partition(" ")[0]


def mark_key(mark: str) -> bytes:
    """The wrapped key in a mark. Raises `SealingError` for a damaged mark."""
    return _parts(mark)[1]


def _parts(mark: str) -> tuple[str, bytes, bytes]:
    """The state, the wrapped key and the seal of a mark. Raises `SealingError`."""
    state, *texts = mark.split(" ")
    try:
        parts = [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, ValueError):
        parts = []
    if state not in (ON, ENCRYPTING) or len(parts) != 2 or not all(parts):
        raise SealingError("The mark of the encryption is damaged.")
    return state, parts[0], parts[1]


def _joined(state: str, key: bytes, seal: bytes) -> str:
    return f"{state} {base64.b64encode(key).decode()} {base64.b64encode(seal).decode()}"


def check_mark(sealing: Sealing | None, store: str, mark: str) -> None:
    """Raise `EncryptionKeyError` where a store of this mark needs a key, or another than that of `sealing`.

    Raises `SealingError` for a damaged mark, and for one whose state was changed without the key.
    """
    if not mark:
        return
    if sealing is None:
        raise missing_key()
    state, key, seal = _parts(mark)
    opened = sealing.open_key(store, _NO_CALLER, key)
    try:
        opened.open(seal, place(f"mark {state}"))
    except SealingError:  # replaced, as its text is about ciphertexts
        raise SealingError("The mark of the encryption was changed without the key.") from None


_plain_allowed: ContextVar[bool] = ContextVar("plain_allowed", default=False)


@contextmanager
def plain_store_allowed() -> Iterator[None]:
    """Within it, a plain store is read with a key: to encrypt the store, or to show its state."""
    token = _plain_allowed.set(True)
    try:
        yield
    finally:
        _plain_allowed.reset(token)


def check_plain(sealing: Sealing | None, mark: str) -> None:
    """Raise `ConfigurationError` where a key is set and records are read from a store without a mark."""
    if sealing is not None and not mark and not _plain_allowed.get():
        raise not_encrypted()


def rewrapped_mark(sealing: Sealing, store: str, mark: str) -> str | None:
    """The mark under the current master key; None where it is that already."""
    state, key, seal = _parts(mark)  # the seal is under the data key, which stays
    new = sealing.rewrap(store, _NO_CALLER, key)
    return None if new is None else _joined(state, new, seal)


def missing_key() -> EncryptionKeyError:
    """The error of a reader or writer without a key."""
    return EncryptionKeyError(
        "The store is encrypted, and no key is set: set VOICE_ENCRYPTION_KEY_FILE, VOICE_ENCRYPTION_KEY or "
        "VOICE_ENCRYPTION_KEY_COMMAND, or give the store an `encryption`. Nothing was changed."
    )


def not_encrypted() -> ConfigurationError:
    """The error of a reader or writer with a key on a plain store."""
    return ConfigurationError(
        "A key is set, and the store is not encrypted: encrypt it with `voiceprint encryption encrypt`, or "
        "unset the key. If it was encrypted before, somebody has changed it: restore a backup. Nothing was "
        "changed."
    )

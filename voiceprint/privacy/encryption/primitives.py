"""The functions of the `cryptography` package that are used: AES-256-GCM and scrypt."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from voiceprint.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "KEY_BYTES",
    "NONCE_BYTES",
    "REFERENCE_BYTES",
    "STORE_ID_BYTES",
    "TAG_BYTES",
    "AuthenticatedCipher",
    "BrokenSealError",
    "derive_key",
]

KEY_BYTES = 32
REFERENCE_BYTES = 16  # of a data key, random: two of 2**40 are equal with a probability of 2**-49
STORE_ID_BYTES = 8  # of a key store, random
NONCE_BYTES = 12  # random: 2**32 of one key repeat with a probability of 2**-33 (NIST SP 800-38D)
TAG_BYTES = 16


class BrokenSealError(ValueError):
    """The ciphertext, its associated data or the key is another than at the encryption."""


@cache
def _aes_gcm() -> tuple[type[AESGCM], type[Exception]]:
    """The cipher, and its error for a ciphertext that does not open."""
    # Here, so that only a program that encrypts needs the extra and waits for the import.
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigurationError(
            "Encryption needs the package `cryptography`: pip install 'opusagent-voiceprint[encryption]'."
        ) from error
    return AESGCM, InvalidTag


class AuthenticatedCipher:
    """AES-256-GCM under one key of 32 bytes."""

    __slots__ = ("_cipher", "_invalid")

    def __init__(self, key: bytes) -> None:
        kind, self._invalid = _aes_gcm()
        self._cipher = kind(key)

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """Nonce, ciphertext and tag of `data`, bound to the associated data."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """The data of `seal`. Raises `BrokenSealError`."""
        return self.open_with(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)

    def seal_with(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        """Ciphertext and tag. A nonce of one key must never come twice."""
        return self._cipher.encrypt(nonce, data, associated)

    def open_with(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        """The data of `seal_with`. Raises `BrokenSealError`."""
        try:
            return self._cipher.decrypt(nonce, sealed, associated)
        except (self._invalid, ValueError):  # ValueError: shorter than a tag or nonce
            raise BrokenSealError("The ciphertext does not belong to this key and place.") from None


def derive_key(passphrase: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    """A key of 32 bytes by scrypt (RFC 7914) with N = 2**log2_n. Takes 128 * N * r bytes of memory."""
    _aes_gcm()
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=KEY_BYTES, n=1 << log2_n, r=r, p=p).derive(passphrase.encode())

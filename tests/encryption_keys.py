"""Keys for the tests of encryption."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.keys import FileKeys, VariableKeys


def text_key() -> str:
    """A new key, as a variable holds it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def encryption(*keys: str) -> Encryption:
    """An encryption under these keys, by default a new one."""
    return Encryption(KeyRing(VariableKeys(" ".join(keys or [text_key()]))))


def file_encryption(path: Path) -> Encryption:
    """An encryption under the keys of a file."""
    return Encryption(KeyRing(FileKeys(path)))

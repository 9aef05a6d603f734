"""Encryption at rest: AES-256-GCM with a data key for each caller, wrapped by a master key.

keys.py reads the master keys, envelope.py seals the fields of records, key_store.py keeps the data keys apart
from them, files.py encrypts whole files. Needs the extra `encryption`.
"""

from __future__ import annotations

from voiceprint.privacy.encryption.envelope import Encryption
from voiceprint.privacy.encryption.files import SealedFiles
from voiceprint.privacy.encryption.keys import KeyRing, new_key_file

__all__ = ["Encryption", "KeyRing", "SealedFiles", "new_key_file"]

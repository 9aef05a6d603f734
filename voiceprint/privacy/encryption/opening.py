"""Opens stores with the encryption that the settings name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from voiceprint.errors import ConfigurationError
from voiceprint.privacy.encryption.envelope import Encryption
from voiceprint.storage import Storage, configured_storage, open_storage

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

__all__ = ["configured_store", "open_store"]


def configured_store(config: VoiceFingerprintConfig) -> Storage:
    """The store that the settings choose. Raises `ConfigurationError` and the errors of the store."""
    return _apart(configured_storage(config, encryption=Encryption.from_config(config)))


def open_store(url: str, config: VoiceFingerprintConfig) -> Storage:
    """The store at the URL, with the limit and the encryption of the settings. Raises the same errors."""
    return _apart(
        open_storage(
            url,
            max_voiceprints_per_caller=config.max_voiceprints_per_caller,
            encryption=Encryption.from_config(config),
        )
    )


def _apart(storage: Storage) -> Storage:
    """The store, unless the key store is in a file of it. Raises `ConfigurationError`."""
    sealing = storage.sealing
    if isinstance(sealing, Encryption) and sealing.key_store is not None:
        path = sealing.key_store.path
        files = [os.path.realpath(file) for file in storage.files()]
        if path is not None and os.path.realpath(path) in files:
            storage.close()
            raise ConfigurationError(
                f"VOICE_ENCRYPTION_KEYS names the file of the store, {path}: give a file of its own, as a "
                "copy of the records must not hold their keys."
            )
    return storage

"""Opens stores with the encryption that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceprint.privacy.encryption.envelope import Encryption
from voiceprint.storage import Storage, configured_storage, open_storage

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

__all__ = ["configured_store", "open_store"]


def configured_store(config: VoiceFingerprintConfig) -> Storage:
    """The store that the settings choose. Raises `ConfigurationError` and the errors of the store."""
    return configured_storage(config, encryption=Encryption.from_config(config))


def open_store(url: str, config: VoiceFingerprintConfig) -> Storage:
    """The store at the URL, with the limit and the encryption of the settings. Raises the same errors."""
    return open_storage(
        url,
        max_voiceprints_per_caller=config.max_voiceprints_per_caller,
        encryption=Encryption.from_config(config),
    )

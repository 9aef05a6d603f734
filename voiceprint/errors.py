"""Every error that the library raises on purpose.

    VoiceprintError
    ├── ConfigurationError        (ValueError)    a setting, with its variable and what is allowed
    ├── InvalidArgumentError      (ValueError)    a caller id, metadata, embedding, k, threshold
    ├── InvalidAudioError         (ValueError)    a buffer or file that is not usable audio
    ├── AudioQualityError         (ValueError)    audio, but too short or too poor; carries `.quality`
    │   └── SeveralVoicesError                    more than one voice, where one was to be enrolled
    ├── CallerNotFoundError       (LookupError)   no such caller in the store
    ├── VoiceMismatchError        (ValueError)    audio that does not sound like the caller's voiceprints
    ├── RecordingNotUsedError                     a recording that was left out for better ones of its caller
    ├── DisabledError                             VOICE_FINGERPRINTING_ENABLED is false
    ├── EncoderError                              the embedding network cannot be loaded or failed
    └── StorageError                              the record store
        ├── StorageUnavailableError               it cannot be reached, read or written now
        └── StorageCorruptError                   what it holds cannot be trusted

A message says what was wrong, with the value, and what to do. It never holds an embedding,
metadata or audio: these are biometric data, and messages end in logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voiceprint.audio import AudioQuality


class VoiceprintError(Exception):
    """Root of all errors of this library."""


class ConfigurationError(VoiceprintError, ValueError):
    """A setting has a value that is not allowed."""


class InvalidArgumentError(VoiceprintError, ValueError):
    """An argument other than audio has a value that is not allowed."""


class InvalidAudioError(VoiceprintError, ValueError):
    """The buffer or file is not audio that can be used."""


class AudioQualityError(VoiceprintError, ValueError):
    """The audio is valid, but too short or too poor for what was asked.

    `quality` is the `AudioQuality` that was measured; its `feedback` says what to improve.
    """

    def __init__(self, message: str, quality: AudioQuality) -> None:
        super().__init__(message)
        self.quality = quality

    def __reduce__(self) -> tuple[type, tuple[str, AudioQuality]]:
        # Exception.__reduce__ would call the class with the message alone.
        return type(self), (str(self), self.quality)


class SeveralVoicesError(AudioQualityError):
    """The recording holds several voices, and one was to be enrolled.

    `quality.voices` says when each of them speaks.
    """


class CallerNotFoundError(VoiceprintError, LookupError):
    """The store holds no caller of this id."""


class VoiceMismatchError(VoiceprintError, ValueError):
    """The audio does not sound like the caller's voiceprints, and was to be refused then."""


class RecordingNotUsedError(VoiceprintError):
    """The recording was not enrolled, as its caller has enough better ones.

    A result of `enroll_many` with `keep="best"`; never raised.
    """


class DisabledError(VoiceprintError):
    """Voice fingerprinting is switched off by the configuration."""


class EncoderError(VoiceprintError):
    """The encoder cannot be loaded, or gave something that is not an embedding."""


class StorageError(VoiceprintError):
    """The record store failed."""


class StorageUnavailableError(StorageError):
    """The record store cannot be reached, read or written now.

    Nothing was changed, unless the message says that the outcome is not known.
    """


class StorageCorruptError(StorageError):
    """The record store holds something that cannot be trusted; it was left as it is."""

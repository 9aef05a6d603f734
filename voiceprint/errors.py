"""The errors of the library.

    VoiceprintError
    ├── ConfigurationError        (ValueError)    a setting, with its variable and what is allowed
    │   └── EncryptionKeyError                    the key of encrypted data is missing, or another
    ├── InvalidArgumentError      (ValueError)    a caller id, metadata, embedding, k, threshold
    ├── InvalidAudioError         (ValueError)    a buffer or file that is not usable audio
    ├── AudioQualityError         (ValueError)    audio that is too short or too poor; carries `.quality`
    │   └── SeveralVoicesError                    several voices in an enrollment of one
    ├── CallerNotFoundError       (LookupError)   no such caller in the store
    ├── GalleryNotFoundError      (LookupError)   no such gallery in the file of the galleries
    ├── CallerOptedOutError                       the caller has refused, see `opt_out`
    ├── ConsentRequiredError      (ValueError)    no valid consent to store the voice
    ├── VoiceMismatchError        (ValueError)    audio that does not sound like the caller's voiceprints
    ├── RecordingNotUsedError                     a recording that was left out for better ones
    ├── DisabledError                             VOICE_FINGERPRINTING_ENABLED is false
    ├── AuditError                                the line of an operation in the audit log
    ├── EncoderError                              the embedding network cannot be loaded or failed
    ├── StorageError                              the record store
    │   ├── StorageUnavailableError               the store cannot be reached, read or written now
    │   └── StorageCorruptError                   its content is not valid
    └── ServiceError                              the service of a `Client`; carries `.status`, `.request_id`
        ├── ServiceAccessError                    the API key is not valid, or not for this
        ├── ServiceBusyError                      too many requests; carries `.retry_after_s`
        └── ServiceUnavailableError               the service cannot be reached, or gave no answer

A message names the fault, the value and the remedy, and never holds an embedding, metadata or audio: these
are biometric data, and messages end in logs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voiceprint.audio import AudioQuality


class VoiceprintError(Exception):
    """Root of all errors of this library."""


class ConfigurationError(VoiceprintError, ValueError):
    """A setting has a value that is not allowed."""


class EncryptionKeyError(ConfigurationError):
    """The key or passphrase of encrypted data is missing, or is another; nothing was changed."""


class InvalidArgumentError(VoiceprintError, ValueError):
    """An argument other than audio has a value that is not allowed."""


class InvalidAudioError(VoiceprintError, ValueError):
    """The buffer or file is not audio that can be used."""


class AudioQualityError(VoiceprintError, ValueError):
    """The audio is valid, but too short or too poor.

    quality: the measured `AudioQuality`; its `feedback` names the faults.
    """

    def __init__(self, message: str, quality: AudioQuality) -> None:
        super().__init__(message)
        self.quality = quality

    def __reduce__(self) -> tuple[type, tuple[str, AudioQuality]]:
        # Exception.__reduce__ would call the class with the message alone.
        return type(self), (str(self), self.quality)


class SeveralVoicesError(AudioQualityError):
    """The recording of an enrollment holds several voices; `quality.voices` has the turns of each."""


class CallerNotFoundError(VoiceprintError, LookupError):
    """The store holds no caller with this id."""


class GalleryNotFoundError(VoiceprintError, LookupError):
    """The file of the galleries has no gallery of this name."""


class CallerOptedOutError(VoiceprintError):
    """The caller has opted out: nothing is stored or changed until `opt_in`."""


class ConsentRequiredError(VoiceprintError, ValueError):
    """The caller's consent has ended, or there is none and `VOICE_REQUIRE_CONSENT` asks for one."""


class VoiceMismatchError(VoiceprintError, ValueError):
    """The audio does not sound like the caller's voiceprints, and `on_mismatch` is "refuse"."""


class RecordingNotUsedError(VoiceprintError):
    """The recording was not enrolled, because its caller has enough better ones.

    A result of `enroll_many` with `keep="best"`; never raised.
    """


class DisabledError(VoiceprintError):
    """Voice fingerprinting is switched off by the configuration."""


class AuditError(VoiceprintError):
    """The audit log cannot be written or read, or holds nothing under an event id.

    With `VOICE_AUDIT_WAIT` an operation raises it whose line could not be written; the operation itself may
    have taken place.
    """


class EncoderError(VoiceprintError):
    """The encoder cannot be loaded, or failed to compute an embedding."""


class StorageError(VoiceprintError):
    """The record store failed."""


class StorageUnavailableError(StorageError):
    """The record store cannot be reached, read or written now.

    Nothing was changed, unless the message calls the outcome unknown.
    """


class StorageCorruptError(StorageError):
    """The content of the record store is not valid; the store was not changed."""


class ServiceError(VoiceprintError):
    """The service cannot answer the request of a `voiceprint.client.Client`.

    status: of HTTP; None without an answer. error: its name in the problem document, such as
    "NotAllowedError". request_id: in the log of the service; None where the answer has none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.request_id = status, error, request_id
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ would leave out the keyword arguments.
        return partial(type(self), **self.__dict__), self.args


class ServiceAccessError(ServiceError):
    """The service does not accept the API key, or the key lacks the role for the request."""


class ServiceBusyError(ServiceError):
    """The service has too many requests, or this key has used its own; nothing was done.

    retry_after_s: seconds after which to try again.
    """


class ServiceUnavailableError(ServiceError):
    """The service cannot be reached, or gave no answer in time.

    Nothing was changed, unless the message calls the outcome unknown.
    """

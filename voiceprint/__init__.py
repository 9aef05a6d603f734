"""Speaker identification for call centers and voice agents: enroll callers, and know who is calling.

    from voiceprint import OpusAgentVoiceRecognizer

    recognizer = OpusAgentVoiceRecognizer()
    recognizer.enroll_caller("alice", audio, {"name": "Alice"})
    recognizer.match_caller(other_audio)  # ("alice", 0.93, {"name": "Alice"}), or None

What is slow to import (torch, faiss, audio codecs) is loaded where it is first used.
"""

from __future__ import annotations

from voiceprint.audio import AudioQuality, Recording, Turn, assess, load_audio
from voiceprint.config import Config, VoiceFingerprintConfig
from voiceprint.encoder import Encoder, ExternalEncoder
from voiceprint.enrollment.bulk import RowResult
from voiceprint.enrollment.check import EnrollmentCheck
from voiceprint.enrollment.manifest import ManifestRow, read_manifest
from voiceprint.errors import (
    AudioQualityError,
    AuditError,
    CallerNotFoundError,
    CallerOptedOutError,
    ConfigurationError,
    ConsentRequiredError,
    DisabledError,
    EncoderError,
    EncryptionKeyError,
    GalleryNotFoundError,
    InvalidArgumentError,
    InvalidAudioError,
    RecordingNotUsedError,
    ServiceAccessError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    SeveralVoicesError,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    VoiceMismatchError,
    VoiceprintError,
)
from voiceprint.galleries import Galleries
from voiceprint.identification.archive import ArchiveRow
from voiceprint.models import (
    Caller,
    CallerState,
    Consent,
    DeletionReceipt,
    Finding,
    Identification,
    Match,
    OptOut,
    Provenance,
    SeparatedVoice,
    SnapshotStatus,
    SpaceCoverage,
    StreamResult,
    Verdict,
    Verification,
    Voiceprint,
    WatchHit,
)
from voiceprint.privacy.audit import Event
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import (
    JSONStorage,
    MemoryStorage,
    RedisStorage,
    SQLiteStorage,
    Storage,
    open_storage,
)
from voiceprint.streaming import CallStream
from voiceprint.utils import normalize_embedding, preprocess_audio

__all__ = [
    "ArchiveRow",
    "AudioQuality",
    "AudioQualityError",
    "AuditError",
    "CallStream",
    "Caller",
    "CallerNotFoundError",
    "CallerOptedOutError",
    "CallerState",
    "Config",
    "ConfigurationError",
    "Consent",
    "ConsentRequiredError",
    "DeletionReceipt",
    "DisabledError",
    "Encoder",
    "EncoderError",
    "EncryptionKeyError",
    "EnrollmentCheck",
    "Event",
    "ExternalEncoder",
    "Finding",
    "Galleries",
    "GalleryNotFoundError",
    "Identification",
    "InvalidArgumentError",
    "InvalidAudioError",
    "JSONStorage",
    "ManifestRow",
    "Match",
    "MemoryStorage",
    "OptOut",
    "OpusAgentVoiceRecognizer",
    "Provenance",
    "Recording",
    "RecordingNotUsedError",
    "RedisStorage",
    "RowResult",
    "SQLiteStorage",
    "SeparatedVoice",
    "ServiceAccessError",
    "ServiceBusyError",
    "ServiceError",
    "ServiceUnavailableError",
    "SeveralVoicesError",
    "SnapshotStatus",
    "SpaceCoverage",
    "Storage",
    "StorageCorruptError",
    "StorageError",
    "StorageUnavailableError",
    "StreamResult",
    "Turn",
    "Verdict",
    "Verification",
    "VoiceFingerprintConfig",
    "VoiceMismatchError",
    "Voiceprint",
    "VoiceprintError",
    "WatchHit",
    "__version__",
    "assess",
    "load_audio",
    "normalize_embedding",
    "open_storage",
    "preprocess_audio",
    "read_manifest",
]

__version__ = "0.1.0"

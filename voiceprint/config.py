"""Settings, from the `VOICE_*` environment variables or keyword arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, NoReturn

from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic import model_validator as _model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from voiceprint.consent import check_groups
from voiceprint.errors import ConfigurationError
from voiceprint.retention import Expiry, parse_period
from voiceprint.validation import is_postgresql_url, shown

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["NO_PATHS", "PATH_SETTINGS", "Config", "EncoderSpec", "VoiceFingerprintConfig", "allowed_values"]

_PREFIX = "VOICE_"

_BUILT_IN: Final = ("onnx", "onnx-int8", "resemblyzer")
_FROM_FILE: Final = ("onnx", "sherpa")
_ENCODERS: Final = "onnx, onnx-int8, resemblyzer, sherpa:PATH or onnx:PATH (the file of a speaker model)"


class EncoderSpec(NamedTuple):
    """An encoder by name: the program, and for a speaker model the path of its file, as it was given.

    program: "onnx", "onnx-int8" or "resemblyzer" without a path; "sherpa" or "onnx" with one.
    """

    program: str
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> EncoderSpec:
        """The spec in a text such as "onnx" or "sherpa:models/campplus.onnx".

        The program is in any case, without spaces around. Raises ValueError.
        """
        program, colon, path = text.strip().partition(":")
        program = program.strip().lower()
        if program not in (_FROM_FILE if colon else _BUILT_IN) or bool(path) != bool(colon) or "\0" in path:
            raise ValueError(f"{_ENCODERS} is allowed")
        return cls(program, path or None)

    def __str__(self) -> str:
        return self.program if self.path is None else f"{self.program}:{self.path}"


EncoderText = Annotated[str, AfterValidator(lambda text: str(EncoderSpec.parse(text)))]
"""The type of a setting that names an encoder."""

_ALLOWED = {
    "fingerprinting_enabled": "true or false",
    "similarity_threshold": "a number from 0 to 1",
    "target_fpir": "a number between 0 and 1, such as 0.01, both excluded",
    "target_fmr": "a number between 0 and 1, such as 0.01, both excluded",
    "calibrated_similarity": "true or false",
    "calibration_path": "the path of a file that `voiceprint calibrate` wrote",
    "enrollment_duration": "a number of seconds above 0",
    "storage_backend": "json, postgresql, redis or sqlite",
    "storage_path": "the path of a file",
    "min_audio_quality": "a number from 0 to 1",
    "on_poor_audio": "raise or none",
    "max_voiceprints_per_caller": "a whole number from 1",
    "enroll_simulated_lines": "true or false",
    "adapt": "true or false",
    "require_consent": "true or false",
    "retention": "a number of days, weeks, months or years, such as 90d, 12w, 18m or 3y",
    "watch_targets": "groups and shares above 0, below 1, such as fraud=0.001,vip=0.01",
    "prompts": "the path of a recording, or of a folder of recordings",
    "same_recording": "true or false",
    "spoof_detector": "module:callable, such as fraud.detectors:score",
    "spoof_threshold": "a number",
    "encoder": _ENCODERS,
    "encoder_sha256": "the 64 hex digits of a SHA-256 digest",
    "encoder_device": "cpu, cuda or auto",
    "encoder_threads": "a whole number from 0 to 64, 0 for one a core",
    "encoder_secondary": "as VOICE_ENCODER, of another embedding space",
    "encoder_secondary_sha256": "the 64 hex digits of a SHA-256 digest",
    "adapt_secondary": "true or false",
    "encryption_key_file": "the path of a file of `voiceprint encryption init`",
    "encryption_key": "a Base64 text of 32 bytes, or several",
    "encryption_key_command": "a command that prints such a text",
    "encryption_keys": "the path of a file, or a URL such as postgresql://user@localhost:5432/keys",
    "index": "faiss or pgvector",
    "index_url": "URLs such as postgresql://user@localhost:5432/vectors, with a space between two",
    "index_path": "the path of a file, or off",
    "index_recall": "a number above 0, up to 1",
    "index_threads": "a whole number from 1 to 64",
    "database_url": "a URL such as postgresql://user@localhost:5432/voiceprints",
    "database_pool": "a whole number from 1 to 1000",
    "storage_read_url": "a URL such as postgresql://user@replica:5432/voiceprints",
    "audit": "the path of a file, store, or off",
    "audit_fsync": "true or false",
    "audit_wait": "true or false",
    "audit_rotate_mb": "a whole number from 1",
    "redis_url": "a URL such as redis://localhost:6379/0 (also rediss:// or unix://)",
}

_DEFAULT_PATHS = {"sqlite": "voiceprints.db"}

PATH_SETTINGS: Final = (
    "audit",
    "calibration_path",
    "encryption_key_file",
    "index_path",
    "prompts",
    "storage_path",
)
"""The settings that are a path, unless one of `NO_PATHS`."""

NO_PATHS: Final = ("off", "store")
"""Values of `index_path` and `audit` that are no path."""


def allowed_values(setting: str) -> str:
    """The values that a setting may have, in words."""
    return _ALLOWED[setting]


class VoiceFingerprintConfig(BaseSettings):
    """All settings. Each is read from `VOICE_` and its name in capitals; keyword arguments take precedence.

    fingerprinting_enabled (True): when False, a match returns None without a use of the audio, and
        enrollment raises `DisabledError`. `enabled` is another name for it.
    similarity_threshold (0.75): cosine from which a match is accepted, 0 to 1. The default holds in
        Resemblyzer's space; in another one with neither this nor a target set, a target of 0.01 decides.
    target_fpir (None): accepted share of strangers' calls that are identified as a caller. When set, the
        expected false-positive identification rate (`Match.fpir`), which depends on the number of enrolled
        callers, decides instead of `similarity_threshold`.
    target_fmr (None): share of strangers' claims that `verify_caller` may accept; None takes `target_fpir`,
        and `similarity_threshold` where neither is set.
    watch_targets ({}): accepted share of strangers' calls that hit a watched group, for each group by name:
        "fraud=0.001,vip=0.01", or a dict. The other groups take `target_fpir`, and without it the rule of all
        identifications.
    calibrated_similarity (False): when True, the `similarity` of every answer, which is compared with the
        threshold, is `Match.probability` instead of the cosine.
    calibration_path (None): file from `voiceprint calibrate`; None is the calibration of the package.
    enrollment_duration (5.0): seconds of audio that enrollment needs, above 0.
    storage_backend ("json"): "json", "postgresql", "redis" or "sqlite".
    storage_path: file of the store; "voiceprints.json", or "voiceprints.db" for SQLite.
    min_audio_quality (0.6): least quality score for enrollment and matching, 0 to 1.
    on_poor_audio ("raise"): "raise" makes `match_caller` raise `AudioQualityError` for audio that is silent,
        too short or too poor; "none" makes it return None, for applications without a `try`.
    max_voiceprints_per_caller (3): in each embedding space; one print more replaces the space's oldest; at
        least 1.
    enroll_simulated_lines (True): enrollment of wide-band audio also stores the embedding for simulated
        telephone lines (`Voiceprint.augmented`), so that calls by telephone match too.
    adapt (False): when True, a confident match, verification or finished stream adds its voiceprint to the
        caller's, in a free slot; it never replaces one. Conditions: `voiceprint.enrollment.adaptation`.
    require_consent (False): when True, enrollment of a caller without a valid `Consent` raises
        `ConsentRequiredError`.
    retention (None): longest time since a caller was last seen, such as "3y": after it, the caller is
        expired, not matched any more, and removed by `voiceprint prune --expired`. Days, weeks, months of 30
        and years of 365 days: 90d, 12w, 18m, 3y. None keeps callers without a limit.
    prompts (None): recording of an announcement, or a folder of such. The announcement is cut out of callers'
        recordings, at any level and over any line (`voiceprint.audio.prompts`).
    same_recording (True): when True, answers on a copy of a recording that is enrolled, or was matched by
        this process, have the reason "same_recording". The fingerprints of the last four hours of recordings
        are in memory for it (`voiceprint.audio.recent`).
    spoof_detector (None): `module:callable` of the application, which scores how likely audio is synthetic or
        played back; the score is in the answers (`voiceprint.identification.spoofing`). Loaded when a
        recognizer is built.
    spoof_threshold (None): spoofing score from which an answer has the reason "spoof_suspected".
    encoder ("onnx"): "onnx"; "onnx-int8", with half the time and nearly equal embeddings (cosine 0.999); or
        "resemblyzer", that package itself, slower, with equal embeddings. "sherpa:PATH" and "onnx:PATH" are
        the file of another speaker model, run by sherpa-onnx or by ONNX Runtime, with an embedding space of
        its own (docs/encoders.md).
    encoder_sha256 (None): SHA-256 digest that the file of the speaker model must have, 64 hex digits.
    encoder_device ("cpu"): "cuda" runs the encoder "onnx" on a CUDA device, by torch; "auto" does so where it
        can, and otherwise says so in the log and runs on the CPU.
    encoder_threads (0): threads of the encoder; 0 for one a core.
    encoder_secondary (None): an encoder of another space, to run beside the first: calls are enrolled and
        matched with both, the first gives the answers, and the log has both verdicts (`voiceprint.dual_run`).
        A recognizer reads the settings of encoders when it is built.
    encoder_secondary_sha256 (None): as encoder_sha256, for the file of the secondary encoder.
    adapt_secondary (False): when True, a confident match, verification or finished stream also enrolls a
        caller who has no voiceprint of the secondary encoder with it.
    encryption_key_file, encryption_key, encryption_key_command (None): the master key that encrypts the
        store, its snapshots, exports and backups: a file, the key itself, or a command that prints it, such
        as a KMS's client, which runs without a shell. At most one of them; each may give several keys, the
        current one first (docs/security.md). No repr shows the key.
    encryption_keys (None): path of an SQLite file, or URL of a PostgreSQL database, that holds the callers'
        data keys in place of the records, so that older copies of a removed caller's record cannot be read;
        the index then has no snapshot. None keeps the keys in the records.
    index ("faiss"): where the index of the voiceprints is: "faiss" holds it in the memory of each process;
        "pgvector" in PostgreSQL, one for all processes, for galleries that outgrow their memory.
    index_url (None): URL of the PostgreSQL database with the extension pgvector; None is `database_url`.
        Several, with a space between two, share the voiceprints among them, by their ids. May hold a
        password, and no repr shows it.
    index_path (None): file of the index's snapshot, or "off"; None is beside the store's file, or in the
        user's cache for a store on a server.
    index_recall (0.99): share of searches in a large index, with recordings of enrolled voices, that find the
        most similar voiceprint, above 0, up to 1; 1 compares with every voiceprint.
    index_threads (1): threads of a search of the index, and of its training.
    audit (None): file of the audit log, or "store" for a table of an SQL store; None or "off" for no log
        (docs/audit.md). A recognizer reads the settings of the audit log when it is built.
    audit_fsync (False): when True, every write of the log is flushed to the disk.
    audit_wait (False): when True, an operation returns only once its line is written, and raises `AuditError`
        where it cannot be; when False, a thread writes the lines.
    audit_rotate_mb (100): size of a file of the log in MiB, from which the next line begins a new file.
    database_url ("postgresql://localhost:5432/voiceprints"): a URL of libpq, also with several hosts and
        TLS. redis_url ("redis://localhost:6379/0"). Both may hold a password, and no repr shows them.
    database_pool (10): most connections of a process to the PostgreSQL server of one store.
    storage_read_url (None): a URL of a streaming replica of that server, which answers reads of records where
        it has the last revision; the primary answers the others. May hold a password, and no repr shows it.

    Attributes may be set later. Raises `ConfigurationError` (a ValueError) with the variable, the value and
    the allowed values, also on setting. An empty variable counts as not set.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True,
        validate_assignment=True,
    )  # fmt: skip

    fingerprinting_enabled: bool = True
    similarity_threshold: float = Field(default=0.75, ge=0.0, le=1.0, allow_inf_nan=False)
    target_fpir: float | None = Field(default=None, gt=0.0, lt=1.0, allow_inf_nan=False)
    target_fmr: float | None = Field(default=None, gt=0.0, lt=1.0, allow_inf_nan=False)
    watch_targets: Annotated[dict[str, float], NoDecode] = Field(default={})
    calibrated_similarity: bool = False
    calibration_path: str | None = Field(default=None, min_length=1)
    enrollment_duration: float = Field(default=5.0, gt=0.0, allow_inf_nan=False)
    storage_backend: Literal["json", "postgresql", "redis", "sqlite"] = "json"
    storage_path: str = Field(default="voiceprints.json", min_length=1)
    min_audio_quality: float = Field(default=0.6, ge=0.0, le=1.0, allow_inf_nan=False)
    on_poor_audio: Literal["raise", "none"] = "raise"
    max_voiceprints_per_caller: int = Field(default=3, ge=1)
    enroll_simulated_lines: bool = True
    adapt: bool = False
    require_consent: bool = False
    retention: str | None = Field(default=None, min_length=1)
    prompts: str | None = Field(default=None, min_length=1)
    same_recording: bool = True
    spoof_detector: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    spoof_threshold: float | None = Field(default=None, allow_inf_nan=False)
    encoder: EncoderText = "onnx"
    encoder_sha256: str | None = Field(default=None, pattern="^[0-9A-Fa-f]{64}$")
    encoder_device: Literal["cpu", "cuda", "auto"] = "cpu"
    encoder_threads: int = Field(default=0, ge=0, le=64)
    encoder_secondary: EncoderText | None = None
    encoder_secondary_sha256: str | None = Field(default=None, pattern="^[0-9A-Fa-f]{64}$")
    adapt_secondary: bool = False
    encryption_key_file: str | None = Field(default=None, min_length=1)
    encryption_key: str | None = Field(default=None, min_length=1, repr=False)
    encryption_key_command: str | None = Field(default=None, min_length=1)
    encryption_keys: str | None = Field(default=None, min_length=1, repr=False)
    index: Literal["faiss", "pgvector"] = "faiss"
    index_url: str | None = Field(default=None, repr=False)
    index_path: str | None = Field(default=None, min_length=1)
    index_recall: float = Field(default=0.99, gt=0.0, le=1.0, allow_inf_nan=False)
    index_threads: int = Field(default=1, ge=1, le=64)
    audit: str | None = Field(default=None, min_length=1)
    audit_fsync: bool = False
    audit_wait: bool = False
    audit_rotate_mb: int = Field(default=100, ge=1)
    database_url: str = Field(default="postgresql://localhost:5432/voiceprints", repr=False)
    database_pool: int = Field(default=10, ge=1, le=1000)
    storage_read_url: str | None = Field(default=None, repr=False)
    redis_url: str = Field(default="redis://localhost:6379/0", repr=False)

    def __init__(self, **settings: Any) -> None:
        if "enabled" in settings:
            settings["fingerprinting_enabled"] = settings.pop("enabled")
        unknown = sorted(settings.keys() - _ALLOWED.keys())
        if unknown:
            raise ConfigurationError(
                f"There is no setting {unknown[0]!r}. The settings are: {', '.join(_ALLOWED)}."
            )
        try:
            super().__init__(**settings)
        except ValidationError as error:
            _raise_ours(error)
        except SettingsError as error:  # a variable that pydantic-settings could not decode
            raise ConfigurationError(str(error)) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "enabled":
            name = "fingerprinting_enabled"
        if name not in _ALLOWED:
            raise ConfigurationError(
                f"There is no setting {name!r}. The settings are: {', '.join(_ALLOWED)}."
            )
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            _raise_ours(error)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, with a check of the `update`."""
        copy = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copy, name, value)
        return copy

    def for_encoder(self, name: str) -> Self:
        """A copy with an encoder, named as in `VOICE_ENCODER`, and the digest that is set for this name."""
        pins = {self.encoder: self.encoder_sha256, self.encoder_secondary: self.encoder_secondary_sha256}
        copy = self.model_copy(update={"encoder": name, "encoder_sha256": pins.get(name)})
        if copy.encoder != "onnx":
            copy.encoder_device = "cpu"  # CUDA runs "onnx" alone
        return copy

    def for_other_encoder(self) -> Self:
        """A copy without the settings that hold for the scores of one encoder, and without a secondary."""
        copy = self.model_copy(
            update={
                "calibration_path": None,
                "calibrated_similarity": False,
                "encoder_secondary": None,
                "encoder_secondary_sha256": None,
            }
        )
        copy.similarity_threshold = type(self).model_fields["similarity_threshold"].default
        copy.model_fields_set.discard("similarity_threshold")
        return copy

    @property
    def enabled(self) -> bool:
        """Another name for `fingerprinting_enabled`."""
        return self.fingerprinting_enabled

    @field_validator("storage_backend", "on_poor_audio", "encoder_device", "index", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(*PATH_SETTINGS, "encryption_keys", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(text, str) and "\0" in text:
            raise ValueError("no file can have a null byte in its path")
        return text

    @field_validator("watch_targets", mode="before")
    @classmethod
    def _as_targets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.rpartition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): target.strip() for name, _, target in pairs}

    @field_validator("watch_targets")
    @classmethod
    def _check_targets(cls, value: dict[str, float]) -> dict[str, float]:
        check_groups(value)
        if not all(0.0 < target < 1.0 for target in value.values()):
            raise ValueError("not a share of strangers")
        return value

    def watch_target(self, group: str) -> float | None:
        """The target FPIR of a watched group: its own, else `target_fpir`."""
        return self.watch_targets.get(group, self.target_fpir)

    @field_validator("audit")
    @classmethod
    def _audit_off(cls, value: str | None) -> str | None:
        word = (value or "off").strip().lower()
        return None if word == "off" else word if word == "store" else value

    @field_validator("retention")
    @classmethod
    def _period(cls, value: str | None) -> str | None:
        if value is not None:
            Expiry(parse_period(value))  # raises for a period that is none, or too long
        return value

    @property
    def retention_period(self) -> timedelta | None:
        """`retention` as a timedelta."""
        return None if self.retention is None else parse_period(self.retention)

    @field_validator("database_url", "storage_read_url")
    @classmethod
    def _database_scheme(cls, value: str | None) -> str | None:
        if value is not None and not is_postgresql_url(value):
            raise ValueError("not a PostgreSQL URL")
        return value

    @field_validator("index_url")
    @classmethod
    def _index_schemes(cls, value: str | None) -> str | None:
        if value is not None and not (value.split() and all(map(is_postgresql_url, value.split()))):
            raise ValueError("not URLs of PostgreSQL")
        return value

    @property
    def index_urls(self) -> tuple[str, ...]:
        """The URLs of `index_url`, or else `database_url`."""
        return tuple((self.index_url or self.database_url).split())

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if not re.match(r"(rediss?|unix)://.", value):
            raise ValueError("not a Redis URL")
        return value

    @_model_validator(mode="after")
    def _default_path(self) -> VoiceFingerprintConfig:
        # Follows the backend until a path is set. __dict__, because an ordinary assignment would set one.
        if "storage_path" not in self.model_fields_set:
            self.__dict__["storage_path"] = _DEFAULT_PATHS.get(self.storage_backend, "voiceprints.json")
        return self


Config = VoiceFingerprintConfig


def _raise_ours(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "configuration"
    value = "not shown" if name == "encryption_key" else shown(first["input"])
    raise ConfigurationError(
        f"{_PREFIX}{name.upper()} is {value}, which is not allowed: {_ALLOWED.get(name, first['msg'])}."
    ) from None

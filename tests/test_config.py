"""Settings: from the environment, from keyword arguments, and set later."""

from __future__ import annotations

import copy
import math
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint import Config, ConfigurationError, VoiceFingerprintConfig, VoiceprintError, open_storage
from voiceprint.config import VoiceFingerprintConfig as FromConfig
from voiceprint.models import VoiceFingerprintConfig as FromModels

pytestmark = pytest.mark.resemblyzer

DEFAULTS: dict[str, Any] = {
    "fingerprinting_enabled": True,
    "similarity_threshold": 0.75,
    "target_fpir": None,
    "target_fmr": None,
    "watch_targets": {},
    "calibrated_similarity": False,
    "calibration_path": None,
    "enrollment_duration": 5.0,
    "storage_backend": "json",
    "storage_path": "voiceprints.json",
    "min_audio_quality": 0.6,
    "on_poor_audio": "raise",
    "max_voiceprints_per_caller": 3,
    "enroll_simulated_lines": True,
    "adapt": False,
    "require_consent": False,
    "retention": None,
    "prompts": None,
    "same_recording": True,
    "spoof_detector": None,
    "spoof_threshold": None,
    "encoder": "onnx",
    "encoder_sha256": None,
    "encoder_device": "cpu",
    "encoder_threads": 0,
    "encoder_secondary": None,
    "encoder_secondary_sha256": None,
    "adapt_secondary": False,
    "encryption_key_file": None,
    "encryption_key": None,
    "encryption_key_command": None,
    "encryption_keys": None,
    "index": "faiss",
    "index_url": None,
    "index_path": None,
    "index_recall": 0.99,
    "index_threads": 1,
    "audit": None,
    "audit_fsync": False,
    "audit_wait": False,
    "audit_rotate_mb": 100,
    "database_url": "postgresql://localhost:5432/voiceprints",
    "database_pool": 10,
    "storage_read_url": None,
    "redis_url": "redis://localhost:6379/0",
}

# setting, the text of a variable, what it means
GOOD = [
    ("fingerprinting_enabled", "false", False),
    ("fingerprinting_enabled", "0", False),
    ("watch_targets", "fraud=0.001, known cases=0.01,", {"fraud": 0.001, "known cases": 0.01}),
    ("fingerprinting_enabled", "Off", False),
    ("fingerprinting_enabled", "TRUE", True),
    ("similarity_threshold", "0", 0.0),
    ("similarity_threshold", "1", 1.0),
    ("similarity_threshold", " 0.5 ", 0.5),
    ("target_fpir", "0.01", 0.01),
    ("target_fmr", "0.001", 0.001),
    ("calibrated_similarity", "yes", True),
    ("calibration_path", "our.npz", "our.npz"),
    ("enrollment_duration", "0.001", 0.001),
    ("enrollment_duration", "3600", 3600.0),
    ("storage_backend", "sqlite", "sqlite"),
    ("storage_backend", " Redis ", "redis"),
    ("storage_path", "/var/lib/callers.json", "/var/lib/callers.json"),
    ("min_audio_quality", "0", 0.0),
    ("min_audio_quality", "1", 1.0),
    ("on_poor_audio", " None ", "none"),
    ("on_poor_audio", "RAISE", "raise"),
    ("max_voiceprints_per_caller", "1", 1),
    ("max_voiceprints_per_caller", "1000", 1000),
    ("enroll_simulated_lines", "no", False),
    ("adapt", "true", True),
    ("encoder", " Resemblyzer ", "resemblyzer"),
    ("encoder", "ONNX-int8", "onnx-int8"),
    ("encoder", " Sherpa:Models/A b.onnx", "sherpa:Models/A b.onnx"),
    ("encoder", "ONNX:/a:b.onnx", "onnx:/a:b.onnx"),
    ("encoder_sha256", "0aF" + "0" * 61, "0aF" + "0" * 61),
    ("encoder_device", " Auto", "auto"),
    ("encoder_threads", "2", 2),
    ("encoder_secondary", "resemblyzer", "resemblyzer"),
    ("adapt_secondary", "on", True),
    ("encryption_key_file", "keys.txt", "keys.txt"),
    ("encryption_key_command", "get-key --id 1", "get-key --id 1"),
    ("encryption_keys", "keys.db", "keys.db"),
    ("encryption_keys", "postgresql://host/keys", "postgresql://host/keys"),
    ("require_consent", "true", True),
    ("retention", "3y", "3y"),
    ("index", " PgVector ", "pgvector"),
    ("index_url", "postgresql://u:pw@a/d postgresql://b/d", "postgresql://u:pw@a/d postgresql://b/d"),
    ("index_path", "some.index", "some.index"),
    ("index_path", "off", "off"),
    ("index_recall", "0.95", 0.95),
    ("index_recall", "1", 1.0),
    ("index_threads", "2", 2),
    ("audit", "audit.jsonl", "audit.jsonl"),
    ("audit", " Store ", "store"),
    ("audit", "OFF", None),
    ("audit_fsync", "true", True),
    ("audit_wait", "1", True),
    ("audit_rotate_mb", "5", 5),
    ("storage_backend", "PostgreSQL", "postgresql"),
    ("database_url", "postgresql://u:pw@h/d?sslmode=require", "postgresql://u:pw@h/d?sslmode=require"),
    ("database_url", "postgres://h/d", "postgres://h/d"),
    ("database_pool", "40", 40),
    ("storage_read_url", "postgresql://u:pw@replica/d", "postgresql://u:pw@replica/d"),
    ("redis_url", "rediss://user:pw@host:1/2", "rediss://user:pw@host:1/2"),
    ("redis_url", "unix:///run/redis.sock", "unix:///run/redis.sock"),
]

# setting, a text that is not allowed, what the message says is allowed
BAD = [
    ("fingerprinting_enabled", "perhaps", "true or false"),
    ("similarity_threshold", "-0.001", "from 0 to 1"),
    ("similarity_threshold", "1.001", "from 0 to 1"),
    ("similarity_threshold", "nan", "from 0 to 1"),
    ("similarity_threshold", "0,5", "from 0 to 1"),
    ("audit_fsync", "sometimes", "true or false"),
    ("audit_wait", "2", "true or false"),
    ("audit_rotate_mb", "0", "whole number from 1"),
    ("target_fpir", "0", "between 0 and 1"),
    ("target_fpir", "1", "between 0 and 1"),
    ("target_fpir", "1 %", "between 0 and 1"),
    ("target_fmr", "0", "between 0 and 1"),
    ("target_fmr", "1", "between 0 and 1"),
    ("watch_targets", "fraud", "such as fraud=0.001"),
    ("enrollment_duration", "0", "above 0"),
    ("enrollment_duration", "-1", "above 0"),
    ("enrollment_duration", "inf", "above 0"),
    ("storage_backend", "mysql", "json, postgresql, redis or sqlite"),
    ("min_audio_quality", "-0.1", "from 0 to 1"),
    ("min_audio_quality", "60", "from 0 to 1"),
    ("max_voiceprints_per_caller", "0", "from 1"),
    ("max_voiceprints_per_caller", "2.5", "from 1"),
    ("encoder", "torch", "onnx, onnx-int8, resemblyzer, sherpa:PATH or onnx:PATH"),
    ("encoder", "sherpa:", "onnx, onnx-int8, resemblyzer, sherpa:PATH or onnx:PATH"),
    ("encoder", "onnx-int8:a.onnx", "onnx, onnx-int8, resemblyzer, sherpa:PATH or onnx:PATH"),
    ("encoder_sha256", "0" * 63, "64 hex digits"),
    ("encoder_sha256", "g" * 64, "64 hex digits"),
    ("encoder_threads", "-1", "from 0 to 64"),
    ("encoder_threads", "65", "from 0 to 64"),
    ("encoder_threads", "two", "from 0 to 64"),
    ("index", "milvus", "faiss or pgvector"),
    ("index_url", "postgresql://a/d redis://b", "URLs such as"),
    ("index_recall", "0", "above 0"),
    ("index_recall", "1.1", "up to 1"),
    ("index_recall", "nan", "up to 1"),
    ("index_threads", "0", "from 1 to 64"),
    ("index_threads", "65", "from 1 to 64"),
    ("database_url", "localhost:5432", "postgresql://user@localhost:5432/voiceprints"),
    ("database_url", "mysql://localhost/a", "postgresql://user@localhost:5432/voiceprints"),
    ("database_pool", "0", "from 1 to 1000"),
    ("storage_read_url", "sqlite:a.db", "postgresql://user@replica:5432/voiceprints"),
    ("redis_url", "localhost:6379", "redis://localhost:6379/0"),
    ("redis_url", "redis://", "redis://localhost:6379/0"),
]


def variable(setting: str) -> str:
    return f"VOICE_{setting.upper()}"


def test_all_names_are_one_class() -> None:
    assert Config is VoiceFingerprintConfig is FromConfig is FromModels


def test_without_variables_the_documented_defaults_hold() -> None:
    assert VoiceFingerprintConfig().model_dump() == DEFAULTS


@pytest.mark.parametrize(("setting", "text", "meaning"), GOOD)
def test_a_variable_sets_its_setting_and_no_other(
    monkeypatch: pytest.MonkeyPatch, setting: str, text: str, meaning: object
) -> None:
    monkeypatch.setenv(variable(setting), text)
    settings = VoiceFingerprintConfig().model_dump()
    expected = {**DEFAULTS, setting: meaning}
    if expected["storage_backend"] == "sqlite":
        expected["storage_path"] = "voiceprints.db"
    assert settings == expected
    assert type(settings[setting]) is type(meaning)


@pytest.mark.parametrize(("setting", "text", "allowed"), BAD)
@pytest.mark.parametrize("way", ["variable", "keyword", "attribute"])
def test_a_bad_value_is_refused_with_the_variable_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, way: str, setting: str, text: str, allowed: str
) -> None:
    config = VoiceFingerprintConfig()
    if way == "variable":
        monkeypatch.setenv(variable(setting), text)
    ways: dict[str, Callable[[], object]] = {
        "variable": VoiceFingerprintConfig,
        "keyword": lambda: VoiceFingerprintConfig(**{setting: text}),
        "attribute": lambda: setattr(config, setting, text),
    }
    with pytest.raises(ConfigurationError) as caught:
        ways[way]()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, VoiceprintError)
    for part in (variable(setting), repr(text), allowed):
        assert part in str(caught.value)
    assert config.model_dump() == DEFAULTS


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [], object(), "", "x"])
@pytest.mark.parametrize("setting", ["similarity_threshold", "enrollment_duration", "min_audio_quality"])
def test_what_is_not_a_finite_number_is_refused(setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=variable(setting)):
        VoiceFingerprintConfig(**{setting: value})


def test_keyword_arguments_win_over_variables_even_over_bad_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SIMILARITY_THRESHOLD", "0.2")
    monkeypatch.setenv("VOICE_MIN_AUDIO_QUALITY", "rubbish")
    config = VoiceFingerprintConfig(similarity_threshold=0.9, min_audio_quality=0.1)
    assert (config.similarity_threshold, config.min_audio_quality) == (0.9, 0.1)


@pytest.mark.parametrize("setting", DEFAULTS)
def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(variable(setting), "")
    assert VoiceFingerprintConfig().model_dump() == DEFAULTS


def test_an_empty_path_given_by_hand_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="VOICE_STORAGE_PATH is ''"):
        VoiceFingerprintConfig(storage_path="")


def test_attributes_set_later_take_effect() -> None:
    config = VoiceFingerprintConfig()
    config.similarity_threshold = 0.5
    config.storage_path = Path("a") / "b.json"  # type: ignore[assignment]
    assert (config.similarity_threshold, config.storage_path) == (0.5, os.path.join("a", "b.json"))  # noqa: PTH118


def test_the_default_path_follows_the_backend_until_one_is_given() -> None:
    config = VoiceFingerprintConfig()
    config.storage_backend = "sqlite"
    assert config.storage_path == "voiceprints.db"
    config.storage_backend = "json"
    assert config.storage_path == "voiceprints.json"
    config.storage_path = "voiceprints.json"
    config.storage_backend = "sqlite"
    assert config.storage_path == "voiceprints.json"


def test_a_path_from_the_environment_counts_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_STORAGE_PATH", "voiceprints.json")
    assert VoiceFingerprintConfig(storage_backend="sqlite").storage_path == "voiceprints.json"


def test_enabled_is_another_name_for_fingerprinting_enabled() -> None:
    config = VoiceFingerprintConfig(enabled=False)
    assert (config.enabled, config.fingerprinting_enabled) == (False, False)
    config.enabled = True  # type: ignore[misc]
    assert (config.enabled, config.fingerprinting_enabled) == (True, True)
    with pytest.raises(ConfigurationError, match="VOICE_FINGERPRINTING_ENABLED is 'perhaps'"):
        VoiceFingerprintConfig(enabled="perhaps")


def test_an_unknown_setting_is_refused_with_the_names_that_there_are() -> None:
    for make in (lambda: VoiceFingerprintConfig(treshold=1), lambda: setattr(Config(), "treshold", 1)):
        with pytest.raises(ConfigurationError, match=r"no setting 'treshold'.*similarity_threshold"):
            make()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, VoiceFingerprintConfig.model_copy, lambda c: pickle.loads(pickle.dumps(c))],
)
def test_a_copy_is_equal_independent_and_still_checked(duplicate: Any) -> None:
    config = VoiceFingerprintConfig(similarity_threshold=0.5, redis_url="redis://:hunter2@host")
    twin = duplicate(config)
    assert type(twin) is VoiceFingerprintConfig
    assert twin == config
    twin.storage_backend = "sqlite"
    assert twin.storage_path == "voiceprints.db"
    assert (config.storage_backend, config.storage_path) == ("json", "voiceprints.json")
    with pytest.raises(ConfigurationError):
        twin.similarity_threshold = 7


def test_a_copy_with_changes_checks_them() -> None:
    config = VoiceFingerprintConfig()
    changed = config.model_copy(update={"enabled": False, "storage_backend": "SQLite"})
    assert (changed.enabled, changed.storage_backend, changed.storage_path) == (
        False,
        "sqlite",
        "voiceprints.db",
    )
    for update in ({"similarity_threshold": 7}, {"treshold": 0.7}):
        with pytest.raises(ConfigurationError):
            config.model_copy(update=update)
    assert config.model_dump() == DEFAULTS


def test_the_urls_of_servers_are_shown_in_no_repr() -> None:
    config = VoiceFingerprintConfig(
        redis_url="redis://:hunter2@host",
        database_url="postgresql://u:hunter2@h/d",
        storage_read_url="postgresql://u:hunter2@replica/d",
    )
    assert config.redis_url == "redis://:hunter2@host"
    assert config.database_url == "postgresql://u:hunter2@h/d"
    for text in (repr(config), str(config), f"{config}", repr([config])):
        assert "hunter2" not in text


def test_the_traceback_of_a_bad_url_shows_neither_password_nor_internals() -> None:
    with pytest.raises(ConfigurationError) as caught:
        VoiceFingerprintConfig(redis_url="http://:hunter2@host")
    text = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in text.replace('"http://:hunter2@host"', "")  # but in the line of this test
    assert "ValidationError" not in text


texts = st.sampled_from([text for _, text, _ in GOOD + BAD]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60
)


def configured(**settings: object) -> VoiceFingerprintConfig | str:
    """The configuration, or the message of its error; any other error escapes."""
    try:
        return VoiceFingerprintConfig(**settings)
    except ConfigurationError as error:
        return str(error)


@given(st.sampled_from(sorted(DEFAULTS)), texts)
def test_any_text_in_any_variable_gives_a_configuration_or_its_error(setting: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable(setting), text)
        config = configured()
    if isinstance(config, str):
        assert variable(setting) in config
    else:
        assert 0 <= config.similarity_threshold <= 1
        assert 0 < config.enrollment_duration < math.inf
        assert 0 <= config.min_audio_quality <= 1
        assert config.max_voiceprints_per_caller >= 1
        assert config.storage_backend in ("json", "postgresql", "redis", "sqlite")
        assert config.storage_path


@given(
    st.sampled_from(sorted(DEFAULTS)),
    texts | st.integers() | st.floats() | st.none() | st.binary() | st.lists(st.integers()) | st.booleans(),
)
def test_any_value_given_by_hand_gives_a_configuration_or_its_error(setting: str, value: object) -> None:
    config = configured(**{setting: value})
    assert isinstance(config, VoiceFingerprintConfig) or variable(setting) in config


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host",
        "http://user:hunt@er/hunter2@host",
        "user:hunter2@host",
        "redis:hunter2@host",
        "redis:/host?db=1&password=hunter2",
        "http://host?password=hunter2&password=hunt=hunter2",
        b"http://:hunter2@host",
        {"password": "hunter2"},
    ],
)
@pytest.mark.parametrize("setting", ["database_url", "redis_url", "storage_read_url", "storage_backend"])
def test_no_message_shows_a_password(setting: str, url: object) -> None:
    message = configured(**{setting: url})
    assert isinstance(message, str)
    assert variable(setting) in message
    assert "hunter2" not in message


def test_a_url_of_no_store_is_told_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="names no store") as caught:
        open_storage("mysql://user:hunt/hunter2@host/db")
    assert "hunter2" not in str(caught.value)
    assert "host/db" in str(caught.value)


@pytest.mark.parametrize("setting", ["similarity_threshold", "max_voiceprints_per_caller", "storage_path"])
@pytest.mark.parametrize("value", [-(10**5_000), "-" + "9" * 100_000], ids=["int", "text"])
def test_a_value_of_thousands_of_digits_is_refused_in_few_words(setting: str, value: object) -> None:
    message = configured(**{setting: value})
    if setting == "storage_path" and isinstance(value, str):
        assert not isinstance(message, str)  # a path may be any text
    else:
        assert isinstance(message, str)
        assert variable(setting) in message
        assert len(message) < 300


@pytest.mark.parametrize(
    "wrong", ["fraud=0", "fraud=1", "fraud=1 %", "=0.01", "fraud=nan", {"vip": 2}, ["vip"]]
)
def test_a_target_of_a_watched_group_is_a_share_of_a_name(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"VOICE_WATCH_TARGETS .* such as fraud=0\.001"):
        VoiceFingerprintConfig(watch_targets=wrong)

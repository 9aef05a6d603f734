"""Embeddings, enrollment and the callers: what gets into the store, and what is kept out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resemblyzer
import soxr
from over_http import over_http
from voices import RATE, BandEncoder, Voices

from voiceprint import (
    AudioQualityError,
    DisabledError,
    Encoder,
    InvalidArgumentError,
    InvalidAudioError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
)
from voiceprint.encoder import ResemblyzerEncoder, default_encoder


@pytest.fixture(scope="session")
def network() -> resemblyzer.VoiceEncoder:
    """Resemblyzer as its own users load it."""
    return resemblyzer.VoiceEncoder("cpu", verbose=False)


@pytest.mark.resemblyzer
@pytest.mark.parametrize("caller", ["amara", "gil", "ivo"])
@over_http
def test_the_embedding_is_resemblyzers_own(
    recognizer: OpusAgentVoiceRecognizer, network: resemblyzer.VoiceEncoder, voices: Voices, caller: str
) -> None:
    audio = voices[caller][0]
    embedding = recognizer.get_embedding(audio)
    assert (embedding.shape, embedding.dtype) == ((256,), np.float32)
    assert float(np.linalg.norm(embedding)) == pytest.approx(1, abs=1e-6)
    expected = network.embed_utterance(resemblyzer.preprocess_wav(audio))
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


@pytest.mark.resemblyzer
@over_http
def test_every_format_of_one_recording_gives_nearly_one_embedding(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["bruno"][0]
    reference = recognizer.get_embedding(audio)
    integers = np.round(audio * 32_767).astype(np.int16)
    wide = soxr.resample(audio, RATE, 44_100)
    variants: dict[str, tuple[Any, int, float]] = {
        "int16": (integers, RATE, 0.999),
        "int32": (integers.astype(np.int32) << 16, RATE, 0.999),
        "uint8": ((np.round(audio * 127) + 128).astype(np.uint8), RATE, 0.9),
        "float64": (audio.astype(np.float64), RATE, 0.999),
        "44.1 kHz": (wide, 44_100, 0.99),
        "44.1 kHz stereo": (np.stack([wide, wide], axis=1), 44_100, 0.99),
        "stereo, channels first": (np.stack([audio, audio]), RATE, 0.999),
        "8 kHz": (soxr.resample(audio, RATE, 8_000), 8_000, 0.8),
        "half as loud": (audio / 2, RATE, 0.9),
    }
    for name, (buffer, rate, least) in variants.items():
        similarity = float(reference @ recognizer.get_embedding(buffer, sample_rate=rate))
        assert similarity > least, (name, similarity)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(80_000, np.float32), np.zeros(1, np.int16), np.full(479, 0.1), np.full(80_000, 0.5)],
    ids=["silence", "one sample", "less than a window", "constant"],
)
@over_http
def test_audio_without_speech_has_no_embedding(recognizer: OpusAgentVoiceRecognizer, audio: Any) -> None:
    with pytest.raises(AudioQualityError, match="no speech") as caught:
        recognizer.get_embedding(audio)
    assert caught.value.quality.net_speech_s == 0
    assert "no_speech" in caught.value.quality.feedback


@pytest.mark.resemblyzer
@over_http
def test_enrollment_gives_the_voiceprint_as_it_is_stored(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    voiceprint = recognizer.enroll_caller("amara", audio, {"name": "Amara"})
    assert (voiceprint.caller_id, voiceprint.metadata) == ("amara", {"name": "Amara"})
    assert voiceprint.encoder == "resemblyzer"
    assert isinstance(voiceprint.id, int)
    assert voiceprint.created_at == voiceprint.last_seen
    np.testing.assert_allclose(voiceprint.embedding, recognizer.get_embedding(audio), atol=1e-6)
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert caller.voiceprints == (voiceprint,)


@over_http
def test_the_fourth_enrollment_replaces_the_oldest(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    prints = [quick.enroll_caller("amara", audio) for audio in voices["amara"]]
    caller = quick.get_caller("amara")
    assert caller is not None
    assert [print_.id for print_ in caller.voiceprints] == [print_.id for print_ in prints[1:]]


@over_http
def test_the_configured_number_of_voiceprints_counts_from_the_next_enrollment_on(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for audio in voices["amara"][:3]:
        quick.enroll_caller("amara", audio)
    quick.config.max_voiceprints_per_caller = 1
    last = quick.enroll_caller("amara", voices["amara"][3])
    caller = quick.get_caller("amara")
    assert caller is not None
    assert [print_.id for print_ in caller.voiceprints] == [last.id]


@over_http
def test_metadata_is_merged_and_none_leaves_it(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    first, second, third, _ = voices["amara"]
    given = {"name": "Amara", "plan": {"tier": 1}}
    quick.enroll_caller("amara", first, given)
    given["plan"]["tier"] = 99  # type: ignore[index]
    assert quick.enroll_caller("amara", second, {"name": "A."}).metadata == {
        "name": "A.",
        "plan": {"tier": 1},
    }
    assert quick.enroll_caller("amara", third).metadata == {"name": "A.", "plan": {"tier": 1}}
    caller = quick.get_caller("amara")
    assert caller is not None
    assert caller.metadata == {"name": "A.", "plan": {"tier": 1}}


@pytest.mark.parametrize(("rate", "samples"), [(16_000, 80_000), (8_000, 40_000), (44_100, 220_500)])
@over_http
def test_enrollment_takes_exactly_the_configured_seconds_and_not_one_sample_less(
    quick: OpusAgentVoiceRecognizer, voices: Voices, rate: int, samples: int
) -> None:
    audio = voices["carlo"][0]
    if rate != RATE:
        audio = soxr.resample(audio, RATE, rate)
    with pytest.raises(AudioQualityError, match=r"needs 5 s.*VOICE_ENROLLMENT_DURATION") as caught:
        quick.enroll_caller("carlo", audio[: samples - 1], sample_rate=rate)
    assert caught.value.quality.duration_s == (samples - 1) / rate
    assert quick.get_caller("carlo") is None
    quick.enroll_caller("carlo", audio[:samples], sample_rate=rate)
    quick.config.enrollment_duration = 2
    quick.enroll_caller("carlo", audio[: 2 * rate], sample_rate=rate)


@over_http
def test_poor_audio_is_enrolled_only_when_the_configuration_allows_it(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["dario"][0]
    noisy = (audio + np.random.default_rng(1).normal(0, audio.std(), audio.size)).clip(-1, 1)
    with pytest.raises(AudioQualityError, match=r"0\.6 is needed.*Noisy.*VOICE_MIN_AUDIO_QUALITY") as caught:
        quick.enroll_caller("dario", noisy)
    assert caught.value.quality.score < 0.6
    assert "noisy" in caught.value.quality.feedback
    quick.config.min_audio_quality = 0
    quick.enroll_caller("dario", noisy)


@pytest.mark.parametrize("caller_id", ["", None, 7, "x" * 513, "\udc00"])
@over_http
def test_a_caller_id_that_cannot_be_stored_is_refused_before_the_audio_is_looked_at(
    quick: OpusAgentVoiceRecognizer, caller_id: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match="caller id"):
        quick.enroll_caller(caller_id, object())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="etadata"):
        quick.enroll_caller("a", object(), {"a": {1}})  # type: ignore[arg-type]


@pytest.mark.parametrize("audio", [object(), [0.0] * 80_000, np.zeros(0), np.full(80_000, np.nan), "a.wav"])
@over_http
def test_what_is_not_audio_is_refused_by_every_method(quick: OpusAgentVoiceRecognizer, audio: Any) -> None:
    for use in (quick.get_embedding, quick.match_caller, quick.identify):
        with pytest.raises(InvalidAudioError):
            use(audio)
    with pytest.raises(InvalidAudioError):
        quick.enroll_caller("a", audio)
    with pytest.raises(InvalidAudioError):
        quick.get_embedding(np.zeros(80_000), sample_rate=7_999)
    assert list(quick.callers()) == []


@over_http
def test_callers_are_listed_in_order_and_deleted_with_all_their_prints(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for name in ("ivo", "amara", "gil"):
        quick.enroll_caller(name, voices[name][0])
    quick.enroll_caller("gil", voices["gil"][1])
    assert [caller.caller_id for caller in quick.callers()] == ["amara", "gil", "ivo"]
    assert quick.delete_caller("gil") == 2
    assert quick.delete_caller("gil") == 0
    assert quick.get_caller("gil") is None
    assert [match.caller_id for match in quick.identify(voices["gil"][2], k=9)].count("gil") == 0
    assert quick.check() == []


def test_disabled_means_that_no_audio_is_touched(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    quick.enroll_caller("amara", voices["amara"][0])
    quick.config.enabled = False  # type: ignore[misc]
    audio: Any = object()
    assert quick.match_caller(audio) is None
    assert quick.identify(audio) == []
    for use in (
        lambda: quick.enroll_caller("b", audio),
        lambda: quick.get_embedding(audio),
        lambda: quick.verify_caller("amara", audio),
    ):
        with pytest.raises(DisabledError, match="VOICE_FINGERPRINTING_ENABLED"):
            use()
    assert [type(result) for result in quick.enroll_many([("b", audio, None)])] == [DisabledError]
    assert [caller.caller_id for caller in quick.callers()] == ["amara"]
    quick.config.enabled = True  # type: ignore[misc]
    assert quick.match_caller(voices["amara"][1]) is not None


def test_without_a_store_the_configuration_chooses_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, voices: Voices
) -> None:
    path = tmp_path / "callers.json"
    monkeypatch.setenv("VOICE_STORAGE_PATH", str(path))
    monkeypatch.setenv("VOICE_MAX_VOICEPRINTS_PER_CALLER", "2")
    recognizer = OpusAgentVoiceRecognizer(encoder=BandEncoder())
    assert isinstance(recognizer.storage, JSONStorage)
    assert recognizer.storage.max_voiceprints_per_caller == 2
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert "amara" in json.loads(path.read_text())
    monkeypatch.setenv("VOICE_STORAGE_PATH", str(tmp_path / "callers.db"))
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "sqlite")
    with OpusAgentVoiceRecognizer(encoder=BandEncoder()).storage as storage:
        assert isinstance(storage, SQLiteStorage)
        assert storage.max_voiceprints_per_caller == 2
        assert storage.db_path == tmp_path / "callers.db"


@pytest.mark.parametrize(
    "arguments",
    [
        {"storage_backend": "json:callers.json"},
        {"storage_backend": MemoryStorage},
        {"config": {"similarity_threshold": 0.5}},
        {"encoder": "resemblyzer"},
    ],
)
def test_a_part_of_the_wrong_kind_is_refused_when_the_recognizer_is_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^{next(iter(arguments))} is .*: give an? [A-Z]"):
        OpusAgentVoiceRecognizer(**arguments)


def test_a_given_store_wins_over_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "redis")
    storage = MemoryStorage()
    assert OpusAgentVoiceRecognizer(storage).storage is storage


def test_the_encoders_keep_the_protocol(voices: Voices) -> None:
    for encoder in (BandEncoder(), default_encoder()):
        assert isinstance(encoder, Encoder)
        audios = [voices["amara"][0], voices["bruno"][0]]
        batch = encoder.embed_batch(audios)
        assert (batch.shape, batch.dtype) == ((2, encoder.dimension), np.float32)
        np.testing.assert_array_equal(batch[1], encoder.embed(audios[1]))
    assert ResemblyzerEncoder().embed_batch([]).shape == (0, 256)


def test_the_log_tells_nothing_of_embedding_or_metadata(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, voices: Voices
) -> None:
    storage = JSONStorage(tmp_path / "callers.json")
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder())
    with caplog.at_level(logging.DEBUG):
        voiceprint = recognizer.enroll_caller("amara", voices["amara"][0], {"name": "Hunter"})
        (tmp_path / "callers.json").write_bytes((tmp_path / "callers.json").read_bytes())  # forces a rebuild
        recognizer.match_caller(voices["amara"][1])
        recognizer.enroll_many([("amara", voices["amara"][2], {"name": "Hunter"}), ("", 1, {"n": "Hunter"})])  # type: ignore[list-item]
        recognizer.verify_caller("amara", voices["amara"][3])
        logging.getLogger().debug("%s %r", recognizer, recognizer)
    assert "OpusAgentVoiceRecognizer(JSONStorage(" in caplog.text
    assert "Hunter" not in caplog.text
    for value in voiceprint.embedding[:8]:
        assert f"{value:.4f}"[1:] not in caplog.text

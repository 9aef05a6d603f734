"""Other embedding spaces than Resemblyzer's, from end to end: tiny models of 192 and 512 dimensions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from harness import HARNESSES
from tiny_models import TINY, write_tiny_model
from voices import SAMPLES, BandEncoder, Voices

from voiceprint import (
    AudioQualityError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    Storage,
    VoiceFingerprintConfig,
)
from voiceprint.audio.io.buffers import resample
from voiceprint.encoder import default_encoder
from voiceprint.encoder.base import MIN_SPEECH_S, min_speech_s
from voiceprint.enrollment.agreement import SAME_RECORDING
from voiceprint.evaluation.embedding import embed
from voiceprint.identification.acceptance import (
    DEFAULT_TARGET,
    AcceptanceRule,
    configured_target,
    configured_threshold,
)
from voiceprint.models import RESEMBLYZER_SPACE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", params=[*TINY])
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names a tiny model."""
    program, dimension, framework = TINY[request.param]
    path = tmp_path_factory.mktemp("models") / f"{request.param}.onnx"
    return f"{program}:{write_tiny_model(path, dimension, framework)}"


@pytest.fixture
def storage() -> Iterator[Storage]:
    with MemoryStorage() as storage:
        yield storage


@pytest.fixture
def other(spec: str, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> OpusAgentVoiceRecognizer:
    """A recognizer of the settings `VOICE_ENCODER` alone."""
    monkeypatch.delenv("VOICE_SIMILARITY_THRESHOLD", raising=False)
    return OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(encoder=spec))


def enroll_all(recognizer: OpusAgentVoiceRecognizer, voices: Voices, prints: int = 3) -> None:
    for caller_id, utterances in voices.items():
        for audio in utterances[:prints]:
            recognizer.enroll_caller(caller_id, audio)


# From end to end


@pytest.mark.parametrize("kind", [*HARNESSES])
def test_callers_are_enrolled_and_identified_on_every_store(
    kind: str, spec: str, voices: Voices, tmp_path: Path
) -> None:
    harness = HARNESSES[kind](tmp_path / "store")
    if kind != "memory":  # all voices there, and some of them wherever they are stored
        voices = dict([*voices.items()][:4])
    config = VoiceFingerprintConfig(encoder=spec, similarity_threshold=0.8)
    dimension = TINY["tiny-192" if "192" in spec else "tiny-512"][1]
    for caller_id, utterances in voices.items():
        OpusAgentVoiceRecognizer(harness.storage, config=config).enroll_caller(caller_id, utterances[0])
    reopened = OpusAgentVoiceRecognizer(harness.reopen(), config=config)
    for caller_id, utterances in voices.items():
        best = reopened.identify(utterances[1], k=1)[0]
        assert (best.caller_id, best.accepted) == (caller_id, True)
        assert reopened.verify_caller(caller_id, utterances[2]).accepted
    (print_,) = harness.storage.get("amara").voiceprints  # type: ignore[union-attr]
    assert (print_.encoder, print_.embedding.size) == (reopened.encoder.name, dimension)
    assert harness.storage.spaces() == {reopened.encoder.name: len(voices)}
    assert reopened.check() == []
    assert reopened.index_status().vectors == len(voices)
    harness.end()


def test_a_stream_names_the_caller_while_the_call_lasts(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    enroll_all(other, voices)
    for caller_id in ("amara", "ivo"):
        call = np.concatenate(voices[caller_id])
        with other.stream() as session:
            running = []
            for first in range(0, len(call), 16_000):
                session.feed(call[first : first + 16_000])
                running.append(session.result())
            final = session.finish()
        named = [answer.caller_id for answer in running if answer.caller_id is not None]
        assert named
        assert named[-1] == final.caller_id == caller_id
        single = other.identify(Recording.from_buffer(call), k=1)[0]
        assert final.similarity == pytest.approx(single.similarity, abs=1e-4)


def test_long_calls_are_streamed_in_clips(other: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    enroll_all(other, voices, prints=1)
    call = np.concatenate(voices["amara"] * 10)
    assert len(call) > 121 * 16_000
    with other.stream() as session:
        for first in range(0, len(call), 16_000):
            session.feed(call[first : first + 16_000])
        assert session.finish().caller_id == "amara"


def test_many_are_enrolled_as_one_by_one(spec: str, voices: Voices) -> None:
    config = VoiceFingerprintConfig(encoder=spec)
    one, many = (OpusAgentVoiceRecognizer(MemoryStorage(), config=config) for _ in range(2))
    enroll_all(one, voices, prints=1)
    many.enroll_many((caller_id, utterances[0], None) for caller_id, utterances in voices.items())
    for caller_id in voices:
        (mine,), (others,) = (
            recognizer.get_caller(caller_id).voiceprints  # type: ignore[union-attr]
            for recognizer in (one, many)
        )
        np.testing.assert_array_equal(mine.embedding, others.embedding)
        assert mine.augmented is None


def test_a_recording_at_another_rate_gives_nearly_the_same_embedding(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    found = other.get_embedding(resample(audio, 16_000, 48_000), sample_rate=48_000)
    assert float(found @ other.get_embedding(audio)) > 0.99


def test_a_model_of_another_rate_gets_audio_of_that_rate_everywhere(tmp_path: Path, voices: Voices) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192, changed={"sample_rate": "8000"})
    encoder = default_encoder(f"onnx:{path}")
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=encoder)
    audio = voices["amara"][0]
    alone = recognizer.get_embedding(audio)
    evaluated = embed(audio, encoder, None)
    assert evaluated is not None
    assert float(alone @ evaluated) > 0.98
    recognizer.enroll_caller("amara", audio)
    with recognizer.stream() as session:
        session.feed(audio)
        running, final = session.result(), session.finish()
    assert running.caller_id == final.caller_id == "amara"
    assert final.similarity == pytest.approx(1.0, abs=0.02)


def test_the_index_of_each_space_has_its_own_snapshot(
    spec: str, voices: Voices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = VoiceFingerprintConfig(encoder=spec, similarity_threshold=0.8)
    with OpusAgentVoiceRecognizer(config=config) as recognizer:
        recognizer.enroll_caller("amara", voices["amara"][0])
        assert recognizer.rebuild_index().vectors == 1
        path = recognizer.snapshot_path()
    assert path is not None
    assert path.exists()
    assert path.name != "voiceprints.json.index"


@pytest.mark.slow
def test_evaluate_measures_the_rule_of_the_space(
    spec: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOICE_SIMILARITY_THRESHOLD", raising=False)
    monkeypatch.setenv("VOICE_ENCODER", spec)
    options = ("--no-cache", "--splits", 2, "--duration", 2, "--json")
    code, out, _ = run("evaluate", SAMPLES, *options)
    report = json.loads(out)
    assert code == 0
    assert report["scorers"] == ["cosine", "llr"]
    assert {run["scorer"]: run["verification"]["eer"]["value"] for run in report["runs"]} == {
        "cosine": pytest.approx(0.0, abs=0.05),
        "llr": pytest.approx(0.0, abs=0.05),
    }
    cosine, llr = report["runs"]
    assert all(found["at_threshold"] is None for found in cosine["open_set"])  # 0.75 has no meaning here
    assert [found["gallery"] for found in llr["open_set"]] == [5]  # and smaller ones have no statistics
    (current,) = (each["current"] for each in report["recommendations"])
    assert (current["variable"], current["value"]) == ("VOICE_TARGET_FPIR", DEFAULT_TARGET)
    monkeypatch.setenv("VOICE_SIMILARITY_THRESHOLD", "0.7")
    report = json.loads(run("evaluate", SAMPLES, *options)[1])
    assert report["recommendations"][0]["current"]["value"] == 0.7


@pytest.mark.slow
def test_evaluate_names_the_callers_that_likelihoods_need(
    spec: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOICE_ENCODER", spec)
    for caller_id in ("amara", "bruno", "carlo"):
        (tmp_path / caller_id).symlink_to(SAMPLES / caller_id)
    options = ("--no-cache", "--splits", 2, "--duration", 2, "--json")
    code, out, _ = run("evaluate", tmp_path, *options)
    skipped = json.loads(out)["runs"][1]["skipped"]
    assert code == 1
    assert [one["why"] for one in skipped] == ["3 of the speakers can be measured, and 5 are needed"]
    code, out, _ = run("evaluate", SAMPLES, "--gallery", "3", *options)
    why = [one["why"] for one in json.loads(out)["runs"][1]["skipped"]]
    assert code == 1
    assert "llr needs 5" in why


@pytest.mark.slow
def test_a_calibration_is_of_the_space(
    spec: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, voices: Voices
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_ENCODER", spec)
    options = ("--labeled", "--duration", 1, "--no-cache", "--output", "c.json")
    code, _, err = run("calibrate", SAMPLES, *options)
    assert code == 2  # nine speakers are too few for a space without a prior
    assert "speakers" in err
    made = tmp_path / "in"
    for number in range(24):  # of each voice, several speakers at other speeds
        caller_id, utterances = [*voices.items()][number % len(voices)]
        (made / f"{caller_id}{number}").mkdir(parents=True)
        for place, audio in enumerate(utterances):
            soundfile.write(made / f"{caller_id}{number}" / f"{place}.wav", audio, 14_000 + 200 * number)
    assert run("calibrate", made, *options)[0] == 0
    assert json.loads(Path("c.json").read_text())["space"] == default_encoder(spec).name
    monkeypatch.setenv("VOICE_CALIBRATION_PATH", "c.json")
    monkeypatch.setenv("VOICE_ENCODER", "onnx")
    run("enroll", "amara", SAMPLES / "amara/1.flac")
    code, _, err = run("identify", SAMPLES / "amara/2.flac")
    assert code == 2
    assert "calibrates embeddings of" in err


# The rule without a setting


def test_without_a_setting_a_target_of_one_percent_decides(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    enroll_all(other, voices)
    found = [other.identify(utterances[3], k=1)[0] for utterances in voices.values()]
    assert [match.accepted for match in found] == [
        match.fpir is not None and match.fpir <= DEFAULT_TARGET for match in found
    ]
    verified = other.verify_caller("amara", voices["amara"][3])
    assert verified.threshold is None
    assert verified.accepted == (verified.fmr is not None and verified.fmr <= DEFAULT_TARGET)
    assert other.threshold_advice() is None


def test_a_gallery_too_small_for_a_rate_accepts_nobody_and_says_inconclusive(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for caller_id in ("amara", "bruno", "carlo", "dario"):
        other.enroll_caller(caller_id, voices[caller_id][0])
    best = other.identify(voices["amara"][1], k=1)[0]
    assert (best.caller_id, best.accepted, best.verdict, best.fpir) == ("amara", False, "inconclusive", None)
    assert other.match_caller(voices["amara"][1]) is None
    assert not other.verify_caller("amara", voices["amara"][1]).accepted
    with other.stream() as session:
        session.feed(np.concatenate(voices["amara"]))
        assert not session.result().accepted
        assert (session.finish().caller_id, session.finish().accepted) == ("amara", False)


def test_a_threshold_of_the_settings_or_the_call_counts_in_every_space(
    spec: str, voices: Voices, storage: Storage
) -> None:
    config = VoiceFingerprintConfig(encoder=spec, similarity_threshold=0.8)
    set_ = OpusAgentVoiceRecognizer(storage, config=config)
    set_.enroll_caller("amara", voices["amara"][0])
    assert set_.match_caller(voices["amara"][1]) is not None
    assert set_.verify_caller("amara", voices["amara"][1]).threshold == 0.8
    unset = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(encoder=spec))
    assert unset.identify(voices["amara"][1], threshold=0.8)[0].accepted
    assert unset.verify_caller("amara", voices["amara"][1], threshold=0.8).accepted
    with unset.stream(threshold=0.8) as session:
        session.feed(np.concatenate(voices["amara"]))
        assert session.result().accepted


def test_the_default_rule_is_said_once(
    other: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    other.enroll_caller("amara", voices["amara"][0])
    with caplog.at_level(logging.WARNING):
        other.verify_caller("amara", voices["amara"][1])
        for utterance in voices["amara"][1:]:
            other.identify(utterance)
        OpusAgentVoiceRecognizer(other.storage, config=other.config).identify(voices["amara"][1])
    said = [record.getMessage() for record in caplog.records if "FPIR of 1 %" in record.getMessage()]
    assert len(said) == 1
    assert repr(other.encoder.name) in said[0]
    assert "VOICE_TARGET_FPIR or VOICE_SIMILARITY_THRESHOLD" in said[0]


@pytest.mark.parametrize(
    "settings",
    [{"target_fpir": 0.05}, {"similarity_threshold": 0.8}, {"calibrated_similarity": True}],
)
def test_a_rule_that_was_set_is_not_said(
    settings: dict[str, Any], spec: str, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), config=VoiceFingerprintConfig(encoder=spec, **settings)
    )
    recognizer.enroll_caller("amara", voices["amara"][0])
    recognizer.identify(voices["amara"][1])
    assert not [record for record in caplog.records if "default threshold" in record.getMessage()]


@pytest.mark.parametrize(
    ("space", "settings", "target", "threshold"),
    [
        (RESEMBLYZER_SPACE, {}, None, 0.75),
        (RESEMBLYZER_SPACE, {"target_fpir": 0.05}, 0.05, 0.75),
        ("other", {}, DEFAULT_TARGET, None),
        ("other", {"target_fpir": 0.05}, 0.05, None),
        ("other", {"similarity_threshold": 0.75}, None, 0.75),
        ("other", {"calibrated_similarity": True}, None, None),
    ],
)
def test_the_rule_of_the_settings_follows_the_space(
    space: str, settings: dict[str, Any], target: float | None, threshold: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("VOICE_SIMILARITY_THRESHOLD", raising=False)
    config = VoiceFingerprintConfig(**settings)
    assert (configured_target(config, space), configured_threshold(config, space)) == (target, threshold)
    for rule in (AcceptanceRule.of_identification, AcceptanceRule.of_verification):
        assert rule(config, space, None).target == target
        assert rule(config, space, 0.5) == (0.5, None, config.calibrated_similarity, False, False)


def test_a_target_of_claims_leaves_the_default_for_identification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOICE_SIMILARITY_THRESHOLD", raising=False)
    config = VoiceFingerprintConfig(target_fmr=0.001)
    assert AcceptanceRule.of_verification(config, "other", None).target == 0.001
    assert AcceptanceRule.of_identification(config, "other", None).target == DEFAULT_TARGET


# Limits that were measured on Resemblyzer's embeddings alone


def test_only_the_same_samples_are_a_copy_of_a_recording(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    first = other.enroll_caller("amara", voices["amara"][0])
    assert other.enroll_caller("amara", voices["amara"][0].copy()).id == first.id
    noisy = voices["amara"][0] + 1e-3 * np.random.default_rng(0).standard_normal(len(voices["amara"][0]))
    again = other.enroll_caller("amara", noisy.astype(np.float32))
    alike = float(first.embedding @ again.embedding)
    assert (again.id == first.id) == (alike >= 0.99999)
    assert alike > SAME_RECORDING or again.id != first.id


def test_another_voice_is_neither_refused_nor_adapted_to(
    spec: str, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    config = VoiceFingerprintConfig(encoder=spec, similarity_threshold=0.0, adapt=True)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    recognizer.enroll_caller("amara", voices["amara"][0])
    recognizer.enroll_caller("amara", voices["bruno"][0], on_mismatch="refuse")
    assert not [record for record in caplog.records if "does not sound like" in record.getMessage()]
    recognizer.match_caller(np.concatenate(voices["amara"]))
    assert len(recognizer.get_caller("amara").voiceprints) == 2  # type: ignore[union-attr]


def test_noise_is_not_reduced_for_an_encoder_without_a_measurement(
    other: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    noisy = audio + 0.02 * np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    recording = Recording.from_buffer(noisy)
    assert recording.cleaned is not None
    assert other._built.embedder.probe(recording).cleaned is None


class Patient(BandEncoder):
    name = "test-patient"
    min_speech_s = 4.0


def test_the_least_speech_is_that_of_the_encoder(voices: Voices) -> None:
    assert (min_speech_s(Patient()), min_speech_s(BandEncoder())) == (4.0, MIN_SPEECH_S)
    config = VoiceFingerprintConfig(similarity_threshold=0.0)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=Patient(), config=config)
    recognizer.enroll_caller("amara", np.concatenate(voices["amara"]))
    short = voices["amara"][1][: 3 * 16_000]
    with pytest.raises(AudioQualityError, match="Matching needs 4 s of speech"):
        recognizer.identify(short)
    with recognizer.stream() as session:
        session.feed(short)
        assert not session.finish().accepted
    assert recognizer.identify(np.concatenate(voices["amara"][:2]))[0].accepted

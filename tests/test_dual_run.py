"""A secondary encoder beside the first, and the move of enrolled callers to another encoder."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_tiny_model
from voices import SAMPLES, BandEncoder, Voices, saved

from voiceprint import (
    CallerNotFoundError,
    ConfigurationError,
    EncoderError,
    InvalidArgumentError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    VoiceFingerprintConfig,
)
from voiceprint.enrollment.writer import VoiceprintWriter

pytestmark = pytest.mark.resemblyzer

OWN, OTHER = "resemblyzer", "test-bands"


class Failing(BandEncoder):
    """An encoder whose model cannot be used."""

    def embed(self, audio: Any) -> Any:
        raise EncoderError("The model is damaged.")


def dual(storage: Any = None, secondary: Any = None, **settings: Any) -> OpusAgentVoiceRecognizer:
    return OpusAgentVoiceRecognizer(
        MemoryStorage() if storage is None else storage,
        config=VoiceFingerprintConfig(**settings),
        secondary=secondary or BandEncoder(),
    )


def spaces(recognizer: OpusAgentVoiceRecognizer, caller_id: str) -> list[str]:
    caller = recognizer.get_caller(caller_id)
    return [] if caller is None else [one.encoder for one in caller.voiceprints]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "voiceprint.dual_run"):
        yield caplog


def verdicts(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.dual_run for record in log.records if hasattr(record, "dual_run")]


def test_both_encoders_enroll_and_the_first_answers(voices: Voices, log: pytest.LogCaptureFixture) -> None:
    recognizer = dual()
    stored = recognizer.enroll_caller("amara", voices["amara"][0], {"plan": "gold"})
    assert stored.encoder == OWN
    assert spaces(recognizer, "amara") == [OWN, OTHER]
    recognizer.enroll_many([("gil", voices["gil"][0], None), ("hakan", voices["hakan"][0], None)])
    assert recognizer.storage.spaces() == {OWN: 3, OTHER: 3}
    alone = OpusAgentVoiceRecognizer(recognizer.storage, config=VoiceFingerprintConfig())
    for number in (1, 2):
        both = recognizer.identify(voices["amara"][number])
        assert both == alone.identify(voices["amara"][number])
    assert recognizer.match_caller(voices["amara"][1]) == alone.match_caller(voices["amara"][1])
    assert recognizer.verify_caller("gil", voices["gil"][1]) == alone.verify_caller("gil", voices["gil"][1])
    with recognizer.stream() as session:
        session.feed(voices["hakan"][1])
        answer = session.finish()
    assert answer.caller_id == "hakan"
    kinds = [entry["kind"] for entry in verdicts(log)]
    assert kinds == ["identification"] * 3 + ["verification", "identification"]
    assert all(set(entry["verdicts"]) == {OWN, OTHER} for entry in verdicts(log))
    assert "the same best caller" in [entry["agreement"] for entry in verdicts(log)]


def test_the_log_has_verdicts_and_neither_ids_nor_scores(
    voices: Voices, log: pytest.LogCaptureFixture
) -> None:
    recognizer = dual()
    recognizer.enroll_caller("amara-4711", voices["amara"][0], {"plan": "gold"})
    recognizer.match_caller(voices["amara"][1])
    recognizer.verify_caller("amara-4711", voices["amara"][1])
    assert len(verdicts(log)) == 2
    for entry in verdicts(log):
        assert not any(word in json.dumps(entry) for word in ("4711", "gold", "0."))
    dual_lines = [record.getMessage() for record in log.records if hasattr(record, "dual_run")]
    assert dual_lines[0].startswith("Dual run, identification: resemblyzer accepted, test-bands ")
    assert not any("4711" in line for line in dual_lines)


def test_callers_without_a_voiceprint_of_the_secondary_encoder_are_reported_as_such(
    voices: Voices, log: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()
    OpusAgentVoiceRecognizer(storage).enroll_caller("amara", voices["amara"][0])
    recognizer = dual(storage)
    recognizer.match_caller(voices["amara"][1])
    recognizer.verify_caller("amara", voices["amara"][1])
    assert [entry["verdicts"][OTHER] for entry in verdicts(log)] == ["nobody enrolled", "not enrolled"]


def test_a_secondary_encoder_that_fails_costs_nobody_the_answer(
    voices: Voices, log: pytest.LogCaptureFixture
) -> None:
    recognizer = dual(secondary=Failing(), adapt_secondary=True)
    recognizer.enroll_caller("amara", voices["amara"][0])
    results = recognizer.enroll_many([("gil", voices["gil"][0], None)])
    assert saved(results[0]).encoder == OWN
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert recognizer.identify(voices["gil"][1])
    assert recognizer.verify_caller("amara", voices["amara"][1]).accepted
    assert recognizer.storage.spaces() == {OWN: 2}
    assert "The secondary encoder 'test-bands': The model is damaged." in log.messages


def test_an_error_of_any_kind_of_the_secondary_encoder_is_logged_without_its_message(
    voices: Voices, log: pytest.LogCaptureFixture
) -> None:
    class Odd(BandEncoder):
        def embed(self, audio: Any) -> Any:
            raise KeyError("4711")

    recognizer = dual(secondary=Odd())
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert recognizer.verify_caller("amara", voices["amara"][1]).accepted
    assert log.messages.count("The secondary encoder 'test-bands': KeyError") == 2


def test_callers_who_have_not_moved_yet_are_no_reason_to_warn(
    voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()
    OpusAgentVoiceRecognizer(storage).enroll_caller("amara", voices["amara"][0])
    dual(storage).match_caller(voices["amara"][1])
    assert not [line for line in caplog.messages if "no voiceprint" in line]


def test_recordings_that_are_not_used_are_not_enrolled_with_the_secondary_encoder(voices: Voices) -> None:
    recognizer = dual(max_voiceprints_per_caller=1)
    samples = [("amara", voices["amara"][number], None) for number in range(2)]
    results = recognizer.enroll_many([*samples, ("amara", voices["hakan"][0], None)], keep="best")
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert sorted(spaces(recognizer, "amara")) == [OWN, OTHER]


def test_a_certain_match_enrolls_the_caller_with_the_secondary_encoder_once(
    voices: Voices, log: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()
    first = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig())
    for name in voices:
        first.enroll_caller(name, voices[name][0], {"name": name})
    off = dual(storage)
    off.match_caller(voices["amara"][1])
    assert spaces(off, "amara") == [OWN]
    recognizer = dual(storage, adapt_secondary=True, target_fpir=0.5)
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert spaces(recognizer, "amara") == [OWN, OTHER]
    seen = recognizer.get_caller("amara")
    assert seen is not None
    assert seen.metadata == {"name": "amara"}
    recognizer.match_caller(voices["amara"][2])
    assert spaces(recognizer, "amara") == [OWN, OTHER]
    with recognizer.stream() as session:
        session.feed(voices["gil"][1])
        session.finish()
    assert recognizer.verify_caller("hakan", voices["hakan"][1]).accepted
    assert spaces(recognizer, "hakan") == [OWN, OTHER]
    assert spaces(recognizer, "gil") == [OWN, OTHER]
    assert any("'amara' was matched with confidence, and is enrolled with" in line for line in log.messages)


def test_a_stranger_is_not_enrolled_with_the_secondary_encoder(voices: Voices) -> None:
    recognizer = dual(adapt_secondary=True)
    only_own = OpusAgentVoiceRecognizer(recognizer.storage, config=VoiceFingerprintConfig())
    for name in voices:
        if name != "hakan":
            only_own.enroll_caller(name, voices[name][0])
    recognizer.match_caller(voices["hakan"][1])
    assert recognizer.storage.spaces() == {OWN: len(voices) - 1}


def test_two_encoders_of_one_space_are_refused(voices: Voices) -> None:
    config = VoiceFingerprintConfig(encoder_secondary="resemblyzer")
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    with pytest.raises(ConfigurationError, match="has the space of the first, 'resemblyzer'"):
        recognizer.match_caller(voices["amara"][0])
    recognizer.secondary = None
    assert recognizer.match_caller(voices["amara"][0]) is None
    with pytest.raises(InvalidArgumentError, match="secondary is"):
        recognizer.secondary = "onnx"  # type: ignore[assignment]


# with_encoder


def test_with_encoder_uses_the_same_store_with_settings_of_its_own(voices: Voices, tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(similarity_threshold=0.9, calibrated_similarity=True)
    with OpusAgentVoiceRecognizer(SQLiteStorage(tmp_path / "callers.db"), config=config) as recognizer:
        recognizer.enroll_caller("amara", voices["amara"][0], {"plan": "gold"})
        other = recognizer.with_encoder(BandEncoder())
        assert other.storage is recognizer.storage
        assert (other.config.similarity_threshold, other.config.calibrated_similarity) == (0.75, False)
        assert "similarity_threshold" not in other.config.model_fields_set
        assert (config.similarity_threshold, config.calibrated_similarity) == (0.9, True)
        assert other.identify(voices["amara"][1]) == []
        with pytest.raises(CallerNotFoundError, match="not enrolled with the encoder 'test-bands'"):
            other.verify_caller("amara", voices["amara"][1])
        other.enroll_caller("amara", voices["amara"][0])
        assert spaces(recognizer, "amara") == [OWN, OTHER]
        assert [match.caller_id for match in other.identify(voices["amara"][1])] == ["amara"]
        assert other.get_embedding(voices["amara"][1]).shape == (32,)
        same = recognizer.with_encoder("resemblyzer")
        assert same.config.similarity_threshold == 0.9
        assert same.config.encoder == "resemblyzer"
        with pytest.raises(ConfigurationError, match="VOICE_ENCODER"):
            recognizer.with_encoder("no such encoder")


def test_a_pinned_model_can_be_left_and_the_secondary_has_a_pin_of_its_own(tmp_path: Path) -> None:
    first, second = (write_tiny_model(tmp_path / f"{size}.onnx", size) for size in (192, 512))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    config = VoiceFingerprintConfig(
        encoder=f"onnx:{first}",
        encoder_sha256=digests[0],
        encoder_secondary=f"onnx:{second}",
        encoder_secondary_sha256=digests[1],
    )
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    assert recognizer.secondary is not None
    assert recognizer.with_encoder("onnx").encoder.name == OWN
    assert recognizer.with_encoder(f"onnx:{second}").config.encoder_sha256 == digests[1]
    assert recognizer.with_encoder(f"onnx:{first}").config.encoder_sha256 == digests[0]
    config.encoder_secondary_sha256 = "0" * 64
    with pytest.raises(EncoderError, match="has the SHA-256 digest"):
        OpusAgentVoiceRecognizer(MemoryStorage(), config=config)


def test_a_secondary_encoder_stays_with_its_space_alone() -> None:
    recognizer = dual()
    assert recognizer.with_encoder("resemblyzer").secondary is recognizer.secondary
    assert recognizer.with_encoder(BandEncoder()).secondary is None


# Enrolled callers only


def test_kept_recordings_leave_the_time_of_the_last_call_and_make_no_new_callers(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=VoiceFingerprintConfig())
    first = recognizer.enroll_caller("amara", voices["amara"][0], {"plan": "gold"})
    recognizer.storage.touch("amara", "2031-01-01T00:00:00.000000Z")
    other = recognizer.with_encoder(BandEncoder())
    samples = [("amara", voices["amara"][0], None), ("gil", voices["gil"][0], None)]
    kept, stranger = other.enroll_many(samples, enrolled_only=True)
    assert saved(kept).encoder == OTHER
    assert isinstance(stranger, CallerNotFoundError)
    again, _ = other.enroll_many(samples, enrolled_only=True)
    assert saved(again).id == saved(kept).id
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert (caller.metadata, caller.last_seen) == ({"plan": "gold"}, "2031-01-01T00:00:00.000000Z")
    assert caller.created_at == first.created_at
    assert recognizer.get_caller("gil") is None


def test_a_caller_who_is_deleted_meanwhile_stays_deleted(voices: Voices) -> None:
    class Deleting(MemoryStorage):
        """A store whose callers another process deletes right before the write."""

        def save_many(self, voiceprints: Any, **options: Any) -> Any:
            for one in (given := [*voiceprints]):
                self.delete(one.caller_id)
            return super().save_many(given, **options)

    storage = Deleting()
    plain = OpusAgentVoiceRecognizer(MemoryStorage(), config=VoiceFingerprintConfig())
    plain.enroll_caller("amara", voices["amara"][0])
    storage.restore_many(plain.callers())
    other = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(), encoder=BandEncoder())
    (result,) = other.enroll_many([("amara", voices["amara"][1], None)], enrolled_only=True)
    assert isinstance(result, CallerNotFoundError)
    assert storage.get("amara") is None


def test_the_only_voiceprint_of_a_caller_may_be_replaced(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), config=VoiceFingerprintConfig(max_voiceprints_per_caller=1)
    )
    first = recognizer.enroll_caller("amara", voices["amara"][0])
    writer = VoiceprintWriter(recognizer.storage, 1, "store", enrolled_only=True)
    new = first.model_copy(update={"id": None, "embedding": -np.asarray(first.embedding)})
    (stored,) = writer.store([new])
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert [one.id for one in caller.voiceprints] == [saved(stored).id] != [first.id]


# voiceprint reenroll


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of amara and gil, and recordings of both and of bruno."""
    monkeypatch.chdir(tmp_path)
    for name in ("amara", "gil", "bruno"):
        shutil.copytree(SAMPLES / name, tmp_path / "kept" / name)
    with OpusAgentVoiceRecognizer(JSONStorage("voiceprints.json")) as recognizer:
        for name in ("amara", "gil"):
            recognizer.with_encoder(BandEncoder()).enroll_caller(name, *_audio(name))
    return tmp_path / "kept"


def _audio(name: str) -> tuple[Any]:
    import voiceprint

    return (voiceprint.load_audio(SAMPLES / name / "1.flac")[0],)


def test_reenroll_enrolls_the_callers_of_the_store_with_another_encoder(run: Any, kept: Path) -> None:
    code, out, err = run("reenroll", "--encoder", "onnx", "--audio-dir", kept)
    assert code == 1  # for bruno
    assert "for 2 callers" in out
    assert "CallerNotFoundError" in out
    with JSONStorage("voiceprints.json") as store:
        found = {caller.caller_id: [one.encoder for one in caller.voiceprints] for caller in store.callers()}
    assert set(found) == {"amara", "gil"}
    assert all({OWN, OTHER} == set(encoders) for encoders in found.values())
    shutil.rmtree(kept / "bruno")
    code, out, err = run("reenroll", "--encoder", "onnx", "--audio-dir", kept)
    assert (code, out) == (0, "Enrolled 0 files for 0 callers.\n")
    assert "Skipped, as they have voiceprints already (--again): 2 callers." in err


def test_reenroll_refuses_a_missing_store_and_an_unknown_encoder(
    run: Any, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run("reenroll", "--encoder", "no-such", "--audio-dir", kept)
    assert code == 2
    assert "VOICE_ENCODER" in err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = run("reenroll", "--encoder", "onnx", "--audio-dir", kept)
    assert code != 0
    assert "voiceprints.json does not exist" in err
    assert not Path("voiceprints.json").exists()

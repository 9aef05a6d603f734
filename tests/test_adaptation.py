"""`VOICE_ADAPT`: confident matches become voiceprints, and no stranger takes an identity over that way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import BandEncoder, Voices

from voiceprint import (
    Consent,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.enrollment.agreement import ALIKE, agreement

pytestmark = pytest.mark.resemblyzer


def adapting(storage: Any = None, **settings: Any) -> OpusAgentVoiceRecognizer:
    config = VoiceFingerprintConfig(adapt=True, **settings)
    return OpusAgentVoiceRecognizer(MemoryStorage() if storage is None else storage, config=config)


def enrolled(recognizer: OpusAgentVoiceRecognizer, voices: Voices, *names: str) -> None:
    for name in names:
        recognizer.enroll_caller(name, voices[name][0])


def prints(recognizer: OpusAgentVoiceRecognizer, caller_id: str = "amara") -> list[Voiceprint]:
    caller = recognizer.get_caller(caller_id)
    return [] if caller is None else [*caller.voiceprints]


def call_in(recognizer: OpusAgentVoiceRecognizer, audio: Any, claimed: str = "amara") -> None:
    """The audio in every way that may adapt."""
    recognizer.match_caller(audio)
    recognizer.verify_caller(claimed, audio)
    with recognizer.stream() as session:
        session.feed(audio)
        session.finish()


def test_it_is_off_unless_it_is_set(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    enrolled(recognizer, voices, "amara", "gil")
    call_in(recognizer, voices["amara"][1])
    assert recognizer.storage.count() == 2


@pytest.mark.parametrize("settings", [{}, {"target_fpir": 0.05}, {"calibrated_similarity": True}], ids=str)
def test_confident_matches_fill_the_free_slots_and_replace_nothing(
    voices: Voices, settings: dict[str, Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    recognizer = adapting(JSONStorage(tmp_path / "callers.json"), **settings)
    enrolled(recognizer, voices, "amara", "gil", "hakan")
    (original,) = prints(recognizer)
    with caplog.at_level(logging.INFO, "voiceprint.enrollment.adaptation"):
        assert recognizer.match_caller(voices["amara"][1]) is not None
    assert caplog.messages == ["The caller 'amara' was matched with confidence: one voiceprint added."]
    first, second = prints(recognizer)
    assert first.embedding.tobytes() == original.embedding.tobytes()
    np.testing.assert_allclose(second.embedding, recognizer.get_embedding(voices["amara"][1]), atol=1e-6)
    assert second.provenance is not None
    assert second.provenance.duration_s == Recording.from_buffer(voices["amara"][1]).duration_s
    recognizer.match_caller(voices["amara"][1])  # a copy
    assert len(prints(recognizer)) == 2
    recognizer.match_caller(voices["amara"][2])
    full = [print_.id for print_ in prints(recognizer)]
    assert len(full) == 3
    recognizer.match_caller(voices["amara"][3])
    assert [print_.id for print_ in prints(recognizer)] == full
    assert recognizer.check() == []


def test_a_verification_and_a_finished_stream_adapt_too(voices: Voices) -> None:
    recognizer = adapting()
    enrolled(recognizer, voices, "amara", "gil")
    assert recognizer.verify_caller("amara", voices["amara"][1]).accepted
    assert len(prints(recognizer)) == 2
    with recognizer.stream(candidates=["amara"]) as session:
        session.feed(voices["amara"][2])
        session.result()
        assert len(prints(recognizer)) == 2
        assert session.finish().accepted
        assert session.finish().accepted
    assert len(prints(recognizer)) == 3


def test_no_voiceprint_is_added_without_a_required_consent(voices: Voices) -> None:
    storage = MemoryStorage()
    enrolled(adapting(storage), voices, "amara", "gil")
    strict = adapting(storage, require_consent=True)
    assert strict.match_caller(voices["amara"][1])[0] == "amara"
    assert len(prints(strict)) == 1
    strict.set_consent("amara", Consent(purpose="authentication", version="1"))
    assert strict.match_caller(voices["amara"][1])[0] == "amara"
    assert len(prints(strict)) == 2


def test_a_refusal_between_match_and_adaptation_leaves_the_answer(voices: Voices) -> None:
    class Refusing(MemoryStorage):
        def save(self, *given: Any, **options: Any) -> Voiceprint:
            self.opt_out("amara")
            return super().save(*given, **options)

    storage = Refusing()
    enrolled(adapting(storage), voices, "amara", "gil")
    assert adapting(storage).match_caller(voices["amara"][1])[0] == "amara"
    assert prints(adapting(storage)) == []


def test_a_match_that_is_too_short_adds_nothing(voices: Voices) -> None:
    recognizer = adapting(enrollment_duration=1.0)
    enrolled(recognizer, voices, "amara", "gil")
    recognizer.config.enrollment_duration = 60.0
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert len(prints(recognizer)) == 1


def test_a_match_that_is_accepted_but_not_by_enough_adds_nothing(voices: Voices) -> None:
    recognizer = adapting()
    enrolled(recognizer, voices, "amara", "gil")
    rate = recognizer.identify(voices["amara"][1], k=1)[0].fpir
    recognizer.config.target_fpir = 1.5 * rate
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert len(prints(recognizer)) == 1
    recognizer.config.target_fpir = 3.0 * rate
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert len(prints(recognizer)) == 2


def test_an_encoder_without_a_measured_limit_does_not_adapt(voices: Voices) -> None:
    config = VoiceFingerprintConfig(adapt=True, similarity_threshold=0.1)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=BandEncoder())
    enrolled(recognizer, voices, "amara", "gil")
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert recognizer.storage.count() == 2


def test_voiceprints_of_another_encoder_neither_take_a_slot_nor_count_as_enrollment(voices: Voices) -> None:
    recognizer = adapting()
    other = OpusAgentVoiceRecognizer(recognizer.storage, config=recognizer.config, encoder=BandEncoder())
    enrolled(recognizer, voices, "amara", "gil")
    for recording in voices["amara"]:
        other.enroll_caller("amara", recording)
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert recognizer.storage.spaces() == {"resemblyzer": 3, "test-bands": 3}
    other.enroll_caller("hakan", voices["hakan"][0])
    recognizer.match_caller(voices["hakan"][0])
    assert [print_.encoder for print_ in prints(recognizer, "hakan")] == ["test-bands"]


def test_a_mix_of_two_voices_is_not_added(voices: Voices) -> None:
    recognizer = adapting(similarity_threshold=0.5)
    enrolled(recognizer, voices, "amara", "gil")
    one, other = voices["amara"][1], voices["farid"][1] * 0.3
    size = min(len(one), len(other))
    call = np.stack([one[:size], other[:size]], axis=1)
    assert recognizer.match_caller(call) is not None
    assert len(prints(recognizer)) == 1
    assert recognizer.match_caller(call, channel=0) is not None
    assert len(prints(recognizer)) == 2


def test_a_stranger_who_is_accepted_calls_again_and_again_and_gets_no_print(voices: Voices) -> None:
    # A careless threshold: everybody is accepted as somebody.
    recognizer = adapting(similarity_threshold=0.0, max_voiceprints_per_caller=10)
    enrolled(recognizer, voices, "amara", "gil")
    before = recognizer.storage.count()
    for stranger in ("hakan", "farid", "ivo"):
        for audio in voices[stranger]:
            call_in(recognizer, audio)
    assert recognizer.storage.count() == before


@pytest.mark.slow
def test_a_voice_that_moves_away_step_by_step_does_not_take_its_prints_along(voices: Voices) -> None:
    # From amara's voice to hakan's, mixed louder and louder: each call is near the one before it.
    recognizer = adapting(similarity_threshold=0.0, max_voiceprints_per_caller=30)
    enrolled(recognizer, voices, "amara", "gil")
    (original,) = prints(recognizer)
    audio = voices["amara"][1], voices["hakan"][1]
    size = min(map(len, audio))
    for step in range(21):
        share = step / 20
        call_in(recognizer, (1 - share) * audio[0][:size] + share * audio[1][:size])
    found = prints(recognizer)
    assert found[0].id == original.id
    assert len(found) >= 2
    for one in found[1:]:
        assert agreement(one.embedding, [original]) >= ALIKE
    assert not any(np.allclose(one.embedding, recognizer.get_embedding(audio[1][:size])) for one in found)
    # The stranger, alone on the line, is still not confidently amara.
    count = len(found)
    for sample in voices["hakan"]:
        call_in(recognizer, sample)
    assert len(prints(recognizer)) == count


@pytest.mark.slow
def test_a_look_alike_holds_free_slots_only_until_the_caller_is_enrolled_again(voices: Voices) -> None:
    # A stranger near enough to bruno to pass every guard: carlo, with some of bruno's voice mixed in.
    recognizer = adapting(target_fpir=0.6, min_audio_quality=0.4)
    enrolled(recognizer, voices, "bruno", "gil")
    (original,) = prints(recognizer, "bruno")
    stranger = [_mix(*pair) for pair in zip(voices["carlo"], voices["bruno"], strict=True)]
    for audio in stranger * 2:
        call_in(recognizer, audio, "bruno")
    found = prints(recognizer, "bruno")
    assert len(found) == 3, "the stranger passes the guards, or this shows nothing"
    assert found[0].id == original.id
    for audio in voices["bruno"][1:]:
        recognizer.enroll_caller("bruno", audio)
        assert any(_is_of(voices["bruno"], one, recognizer) for one in prints(recognizer, "bruno"))
        call_in(recognizer, stranger[0], "bruno")
    assert all(_is_of(voices["bruno"], one, recognizer) for one in prints(recognizer, "bruno"))


def _mix(one: Any, other: Any) -> Any:
    size = min(len(one), len(other))
    return 0.6 * one[:size] + 0.4 * other[:size]


def _is_of(audios: list[Any], print_: Voiceprint, recognizer: OpusAgentVoiceRecognizer) -> bool:
    return any(np.allclose(print_.embedding, recognizer.get_embedding(audio), atol=1e-5) for audio in audios)


class Meanwhile(MemoryStorage):
    """Does something else of another process just before it saves."""

    def __init__(self) -> None:
        super().__init__()
        self.other: Any = None

    def save_many(self, voiceprints: Any, **options: Any) -> list[Voiceprint]:
        other, self.other = self.other, None
        if other is not None:
            other()
        return super().save_many(voiceprints, **options)


def test_a_caller_who_is_deleted_meanwhile_stays_deleted(voices: Voices) -> None:
    storage = Meanwhile()
    recognizer = adapting(storage)
    enrolled(recognizer, voices, "amara", "gil")
    storage.other = lambda: storage.delete("amara")
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert storage.get("amara") is None


def test_prints_that_two_processes_add_at_once_replace_none(voices: Voices) -> None:
    storage = Meanwhile()
    recognizer = adapting(storage, max_voiceprints_per_caller=2)
    enrolled(recognizer, voices, "amara", "gil")
    (original,) = prints(recognizer)
    storage.other = lambda: recognizer.match_caller(voices["amara"][2])
    recognizer.match_caller(voices["amara"][1])
    assert prints(recognizer)[0].id == original.id
    assert len(prints(recognizer)) == 3
    recognizer.enroll_caller("amara", voices["amara"][3])
    assert len(prints(recognizer)) == 2

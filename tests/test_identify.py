"""Match, identify and verify name the caller."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from over_http import Reached, over_http
from voices import BandEncoder, Voices, by_cosine

from voiceprint import (
    AudioQualityError,
    CallerNotFoundError,
    InvalidArgumentError,
    InvalidAudioError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    StorageUnavailableError,
    VoiceFingerprintConfig,
)

ENROLLED = ("amara", "bruno", "carlo", "dario")


@pytest.fixture(scope="module")
def gallery(voices: Voices) -> MemoryStorage:
    """Four callers of one print each in Resemblyzer's space; tests that write make their own."""
    storage = MemoryStorage()
    recognizer = OpusAgentVoiceRecognizer(storage)
    for name in ENROLLED:
        recognizer.enroll_caller(name, voices[name][0], {"name": name.title()})
    return storage


@pytest.fixture
def line(gallery: MemoryStorage, reached: Reached) -> OpusAgentVoiceRecognizer:
    """A recognizer over the four callers, as one is built for a call."""
    return reached(OpusAgentVoiceRecognizer(gallery))


def last_seen(recognizer: OpusAgentVoiceRecognizer, caller_id: str) -> str:
    caller = recognizer.get_caller(caller_id)
    assert caller is not None
    assert caller.last_seen is not None
    return caller.last_seen


@over_http
def test_a_match_is_a_tuple_of_caller_similarity_and_metadata(
    line: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    answer = line.match_caller(voices["bruno"][1])
    assert type(answer) is tuple
    caller_id, similarity, metadata = answer
    assert (caller_id, metadata) == ("bruno", {"name": "Bruno"})
    assert type(similarity) is float
    expected = line.get_embedding(voices["bruno"][0]) @ line.get_embedding(voices["bruno"][1])
    assert similarity == pytest.approx(float(expected), abs=1e-5)


@over_http
def test_a_caller_who_is_not_enrolled_is_nobody(line: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    assert line.match_caller(voices["elena"][0]) is None
    best = line.identify(voices["elena"][0])[0]
    assert not best.accepted
    assert best.similarity < 0.75


@over_http
def test_nobody_is_found_in_an_empty_store(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    assert recognizer.match_caller(voices["amara"][0]) is None
    assert recognizer.identify(voices["amara"][0]) == []


@over_http
def test_identify_ranks_distinct_callers_the_best_first(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for name in ENROLLED:
        for audio in voices[name][:3]:
            quick.enroll_caller(name, audio, {"name": name})
    probe = voices["carlo"][3]
    everyone = quick.identify(probe, k=100)
    assert everyone[0].caller_id == "carlo"
    assert sorted(match.caller_id for match in everyone) == sorted(ENROLLED)
    similarities = [match.similarity for match in everyone]
    assert similarities == sorted(similarities, reverse=True)
    for k in (1, 2, 3, 4):
        assert quick.identify(probe, k) == everyone[:k]
    embedding = quick.get_embedding(probe)
    for match in everyone:
        caller = quick.get_caller(match.caller_id)
        assert caller is not None
        best = max(caller.voiceprints, key=lambda print_: float(print_.embedding @ embedding))
        assert match.voiceprint_id == best.id
        assert match.similarity == pytest.approx(float(best.embedding @ embedding), abs=1e-6)
        assert match.metadata == {"name": match.caller_id}
        assert match.accepted == (match.similarity >= 0.75)


@over_http
def test_a_caller_with_a_crowd_of_prints_does_not_crowd_others_out(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    quick.config.max_voiceprints_per_caller = 20
    quick.enroll_many(("amara", audio, None) for audio in voices["amara"][:3])
    copies = [one.model_copy(update={"id": None}) for one in quick.storage.get_all()] * 5
    quick.storage.save_many(copies, max_voiceprints=20)
    assert quick.storage.count() == 18
    quick.enroll_caller("bruno", voices["bruno"][0])
    assert [match.caller_id for match in quick.identify(voices["amara"][3], 2)] == ["amara", "bruno"]


@pytest.mark.parametrize(
    "k", [0, -1, 1.0, "3", None, True, np.bool_(True), -(10**5_000)], ids=lambda value: type(value).__name__
)
@over_http
def test_k_is_a_whole_number_from_one(line: OpusAgentVoiceRecognizer, voices: Voices, k: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="k is"):
        line.identify(voices["amara"][0], k)


@pytest.mark.parametrize(
    "threshold",
    [-0.01, 1.01, math.nan, math.inf, "0.5", True, [0.5], 10**5_000],
    ids=lambda value: type(value).__name__,
)
@over_http
def test_a_threshold_out_of_bounds_is_refused(
    line: OpusAgentVoiceRecognizer, voices: Voices, threshold: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match="threshold is"):
        line.identify(voices["amara"][0], threshold=threshold)


@over_http
def test_numbers_of_numpy_are_taken_for_k_and_threshold(
    line: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    matches = line.identify(voices["amara"][1], np.int64(2), threshold=np.float32(0.25))  # type: ignore[arg-type]
    assert matches == line.identify(voices["amara"][1], 2, threshold=0.25)
    assert type(matches[0].accepted) is bool


@pytest.mark.resemblyzer
@over_http
def test_the_threshold_decides_what_is_accepted(line: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    probe = voices["amara"][1]
    matches = line.identify(probe)
    assert [match.accepted for match in matches] == [True, False, False, False]
    assert all(match.accepted for match in line.identify(probe, threshold=0))
    assert not any(match.accepted for match in line.identify(probe, threshold=1))
    exactly = matches[2].similarity
    assert [m.accepted for m in line.identify(probe, threshold=exactly)] == [True, True, True, False]
    # The configured one counts where none is given, also after a change.
    line.config.similarity_threshold = matches[0].similarity + 1e-6
    assert line.match_caller(probe) is None
    assert not line.verify_caller("amara", probe).accepted
    line.config.similarity_threshold = matches[0].similarity
    assert line.match_caller(probe) is not None


@over_http
def test_candidates_limit_the_search(line: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    probe = voices["amara"][1]
    everyone = {match.caller_id: match for match in line.identify(probe, k=9)}
    found = line.identify(probe, candidates=["dario", "nobody", "bruno", "dario"])
    assert sorted(match.caller_id for match in found) == ["bruno", "dario"]
    assert found[0].similarity > found[1].similarity
    for match in found:
        assert match.similarity == pytest.approx(everyone[match.caller_id].similarity, abs=1e-6)
    assert line.identify(probe, 1, candidates=iter(["bruno", "amara"]))[0].caller_id == "amara"
    assert line.identify(probe, candidates=[]) == []
    assert line.identify(probe, candidates=["nobody"]) == []


@pytest.mark.parametrize("candidates", ["amara", ["amara", None], [7], [""], b"amara", 5, [["amara"]]])
@over_http
def test_candidates_that_are_not_caller_ids_are_refused(
    line: OpusAgentVoiceRecognizer, voices: Voices, candidates: Any
) -> None:
    with pytest.raises(InvalidArgumentError):
        line.identify(voices["amara"][1], candidates=candidates)


@pytest.mark.resemblyzer
@over_http
def test_verification_compares_with_the_claimed_caller_alone(
    line: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    right = line.verify_caller("amara", voices["amara"][1])
    wrong = line.verify_caller("bruno", voices["amara"][1])
    assert (right.caller_id, right.accepted, right.threshold) == ("amara", True, 0.75)
    assert (wrong.caller_id, wrong.accepted, wrong.threshold) == ("bruno", False, 0.75)
    assert wrong.similarity < 0.75 <= right.similarity


def test_verifying_an_unknown_caller_is_an_error_whatever_the_audio(line: OpusAgentVoiceRecognizer) -> None:
    with pytest.raises(CallerNotFoundError, match="'nobody'") as caught:
        line.verify_caller("nobody", object())  # type: ignore[arg-type]
    assert isinstance(caught.value, LookupError)


@over_http
def test_a_probe_needs_a_second_of_speech_and_the_quality(
    line: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    speech = voices["amara"][1]
    short = np.concatenate([speech[8_000:16_000], np.zeros(80_000, np.float32)])
    noisy = (speech + np.random.default_rng(1).normal(0, speech.std(), speech.size)).clip(-1, 1)
    for probe, expected in ((short, "1 s of speech"), (noisy, "0.6 is needed")):
        for use in (
            line.match_caller,
            line.identify,
            lambda audio: line.identify(audio, candidates=["amara"]),
            lambda audio: line.verify_caller("amara", audio),
        ):
            with pytest.raises(AudioQualityError, match=expected) as caught:
                use(probe)
            assert caught.value.quality.duration_s == len(probe) / 16_000
    assert line.match_caller(speech[:48_000]) is not None  # three seconds will do


@over_http
def test_poor_audio_is_nobody_where_callers_have_no_try(
    line: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    line.config.on_poor_audio = "none"
    speech = voices["amara"][1]
    noisy = (speech + np.random.default_rng(1).normal(0, speech.std(), speech.size)).clip(-1, 1)
    for poor in (np.zeros(80_000, np.float32), speech[8_000:16_000], noisy):
        caplog.clear()
        with caplog.at_level(logging.INFO, "voiceprint.recognizer"):
            assert line.match_caller(poor) is None
        assert "No match for poor audio: " in caplog.text
        assert asyncio.run(line.amatch_caller(poor)) is None
        with pytest.raises(AudioQualityError):  # their answers have no None: an empty list would say nobody
            line.identify(poor)
    match = line.match_caller(speech)
    assert match is not None
    assert match[0] == "amara"
    with pytest.raises(InvalidAudioError):
        line.match_caller(np.zeros(0))


@over_http
def test_last_seen_moves_with_an_accepted_match_and_verification_only(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    quick.enroll_caller("amara", voices["amara"][0])
    enrolled = last_seen(quick, "amara")
    quick.identify(voices["amara"][1])
    quick.config.similarity_threshold = 1.0
    assert quick.match_caller(voices["amara"][1]) is None
    assert not quick.verify_caller("amara", voices["amara"][1]).accepted
    assert last_seen(quick, "amara") == enrolled
    quick.config.similarity_threshold = 0.5
    assert quick.match_caller(voices["amara"][1]) is not None
    matched = last_seen(quick, "amara")
    assert matched > enrolled
    assert quick.verify_caller("amara", voices["amara"][1]).accepted
    assert last_seen(quick, "amara") > matched


def test_a_store_that_cannot_be_written_still_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, voices: Voices
) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        JSONStorage(tmp_path / "callers.json"), encoder=BandEncoder(), config=by_cosine()
    )
    recognizer.enroll_caller("amara", voices["amara"][0], {"name": "Hunter"})
    enrolled = last_seen(recognizer, "amara")

    def disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("voiceprint.storage.json.file.replace_file", disk_full)
    answer = recognizer.match_caller(voices["amara"][1])
    assert answer is not None
    assert answer[0] == "amara"
    assert recognizer.verify_caller("amara", voices["amara"][1]).accepted
    assert "could not be stored" in caplog.text
    assert "Hunter" not in caplog.text
    with pytest.raises(StorageUnavailableError, match="No space left"):
        recognizer.enroll_caller("amara", voices["amara"][2])
    assert last_seen(recognizer, "amara") == enrolled


@pytest.mark.resemblyzer
def test_prints_of_another_embedding_space_are_never_compared(voices: Voices) -> None:
    storage = MemoryStorage()
    bands = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder())
    full = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(similarity_threshold=0))
    bands.enroll_caller("amara", voices["amara"][0])
    full.enroll_caller("bruno", voices["bruno"][0])
    probe = voices["amara"][1]
    assert [match.caller_id for match in bands.identify(probe)] == ["amara"]
    assert [match.caller_id for match in full.identify(probe)] == ["bruno"]
    assert [match.caller_id for match in full.identify(probe, candidates=["amara", "bruno"])] == ["bruno"]
    with pytest.raises(CallerNotFoundError):
        full.verify_caller("amara", probe)
    full.enroll_caller("amara", voices["amara"][2])  # now one print in each space
    caller = full.get_caller("amara")
    assert caller is not None
    assert [print_.encoder for print_ in caller.voiceprints] == ["test-bands", "resemblyzer"]
    assert full.identify(probe)[0].voiceprint_id == caller.voiceprints[1].id
    assert full.check() == []
    assert bands.check() == []


@over_http
def test_the_metadata_of_an_answer_is_the_readers_own(line: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    answer = line.match_caller(voices["amara"][1])
    assert answer is not None
    answer[2]["name"] = "changed"
    again = line.match_caller(voices["amara"][1])
    assert again is not None
    assert again[2] == {"name": "Amara"}

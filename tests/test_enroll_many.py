"""Enrolling a long list: one result for each sample, and none that stops the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import BandEncoder, Voices, by_cosine, saved

from voiceprint import (
    AudioQualityError,
    InvalidArgumentError,
    InvalidAudioError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    RecordingNotUsedError,
    StorageError,
    Voiceprint,
)
from voiceprint.audio.io.buffers import resample
from voiceprint.enrollment.results import STORED_TOGETHER


def test_results_come_in_order_whatever_is_wrong_in_the_middle(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    good = voices["amara"][0]
    samples: list[Any] = [
        ("amara", good, {"name": "Amara"}),
        ("bruno", good[:1_000], None),
        ("carlo", "carlo.wav", None),
        ("", good, None),
        ("dario", good, {"a": {1}}),
        ("two", good),
        ("four", good, None, "16000"),
        ("five", good, None, 16_000, None),
        None,
        7,
        ("elena", np.zeros(80_000, np.float32), None),
        ["farid", voices["farid"][0], None],
        ("amara", voices["amara"][1], {"plan": 1}),
    ]
    results = quick.enroll_many(samples)
    assert [type(result) for result in results] == [
        Voiceprint,
        AudioQualityError,
        InvalidAudioError,
        InvalidArgumentError,
        InvalidArgumentError,
        InvalidArgumentError,
        InvalidAudioError,
        InvalidArgumentError,
        InvalidArgumentError,
        InvalidArgumentError,
        AudioQualityError,
        Voiceprint,
        Voiceprint,
    ]
    callers = {caller.caller_id: caller for caller in quick.callers()}
    assert sorted(callers) == ["amara", "farid"]
    assert callers["amara"].metadata == {"name": "Amara", "plan": 1}
    assert callers["amara"].voiceprints[0].id == saved(results[0]).id
    assert callers["amara"].voiceprints[1].id == saved(results[12]).id


def test_a_sample_that_only_the_store_can_refuse_does_not_take_its_batch_along(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    results = quick.enroll_many(
        [
            ("amara", audio, {"notes": "x" * 600_000}),
            ("bruno", audio, None),
            ("amara", audio, {"more notes": "x" * 600_000}),  # together more than a caller may have
            ("carlo", audio, None),
        ]
    )
    assert isinstance(results[2], InvalidArgumentError)
    assert [saved(result).caller_id for result in (results[0], results[1], results[3])] == [
        "amara",
        "bruno",
        "carlo",
    ]
    assert [caller.caller_id for caller in quick.callers()] == ["amara", "bruno", "carlo"]
    assert quick.storage.count() == 3


def test_an_empty_list_gives_no_result(quick: OpusAgentVoiceRecognizer) -> None:
    assert quick.enroll_many([]) == []
    assert quick.storage.revision() == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [STORED_TOGETHER - 1, STORED_TOGETHER, 2 * STORED_TOGETHER + 3])
def test_a_long_list_is_stored_whole_in_few_changes(
    quick: OpusAgentVoiceRecognizer, voices: Voices, count: int
) -> None:
    audio = voices["amara"][0]
    results = quick.enroll_many((f"caller {i:03}", audio, {"i": i}) for i in range(count))
    assert [saved(result).caller_id for result in results] == [f"caller {i:03}" for i in range(count)]
    assert [caller.metadata["i"] for caller in quick.callers()] == list(range(count))
    assert len({saved(result).id for result in results}) == count
    assert quick.storage.revision() == -(-count // STORED_TOGETHER)


def test_more_prints_of_one_caller_than_are_kept_leave_the_newest(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    results = [saved(r) for r in quick.enroll_many([("amara", audio, None) for audio in voices["amara"]])]
    caller = quick.get_caller("amara")
    assert caller is not None
    assert [print_.id for print_ in caller.voiceprints] == [result.id for result in results[1:]]


def test_a_list_that_fails_midway_keeps_what_it_gave_before(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    def samples() -> Iterator[tuple[str, Any, None]]:
        yield "amara", voices["amara"][0], None
        yield "bruno", voices["bruno"][0], None
        raise OSError("the network share went away")

    with pytest.raises(OSError, match="went away"):
        quick.enroll_many(samples())
    assert [caller.caller_id for caller in quick.callers()] == ["amara", "bruno"]


def test_a_list_may_ask_the_recognizer_that_enrolls_it(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    def samples() -> Iterator[tuple[str, Any, None]]:
        for name, (audio, *_) in voices.items():
            assert quick.get_caller(name) is None
            yield name, audio, None

    assert len([saved(result) for result in quick.enroll_many(samples())]) == len(voices)


def test_a_store_that_fails_is_the_result_of_each_sample(voices: Voices) -> None:
    storage = MemoryStorage()
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder())
    storage.close()
    results = recognizer.enroll_many([("a", voices["amara"][0], None), ("", None, None)])  # type: ignore[list-item]
    assert [type(result) for result in results] == [StorageError, InvalidArgumentError]


def test_all_is_there_after_reopening(tmp_path: Path, voices: Voices) -> None:
    path = tmp_path / "callers.json"
    with JSONStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder(), config=by_cosine())
        recognizer.enroll_many((name, audios[0], {"name": name}) for name, audios in voices.items())
    with JSONStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder(), config=by_cosine())
        for name, audios in voices.items():
            answer = recognizer.match_caller(audios[1])
            assert answer is not None
            assert answer[::2] == (name, {"name": name})


def test_a_sample_may_have_a_sample_rate_of_its_own(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    audio = voices["amara"][0]
    wide, narrow = resample(audio, 16_000, 48_000), resample(audio, 16_000, 8_000)
    samples = [("a", audio, None), ("b", wide, None, 48_000), ("c", narrow, None, 8_000), ("d", audio, None)]
    results = [saved(result) for result in quick.enroll_many(samples)]
    assert [result.caller_id for result in results] == ["a", "b", "c", "d"]
    for (_, audio, _, *rate), result in zip(samples, results, strict=True):
        alone = quick.get_embedding(audio, sample_rate=rate[0] if rate else 16_000)
        np.testing.assert_allclose(result.embedding, alone, atol=1e-6)


def test_the_best_of_a_callers_recordings_are_kept_and_one_of_another_person_is_not(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    samples = [("amara", audio, {"file": n}) for n, audio in enumerate(voices["amara"][:2])]
    samples += [("amara", voices["bruno"][0], {"file": "another person's"})]
    samples += [("amara", voices["amara"][0], {"copy": True})]
    samples += [("amara", voices["amara"][2], {"file": 2})]
    samples += [("carlo", audio, None) for audio in voices["carlo"][:2]]
    results = recognizer.enroll_many(samples, keep="best")
    first, second, unused, copy, third, *carlos = results
    assert isinstance(unused, RecordingNotUsedError)
    assert "'amara'" in str(unused)
    assert saved(copy).id == saved(first).id
    assert _ids(recognizer, "amara") == [saved(result).id for result in (first, second, third)]
    assert _ids(recognizer, "carlo") == [saved(result).id for result in carlos]
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert caller.metadata == {"file": 2, "copy": True}
    # Once more, all of it is enrolled already, and the same one is left out.
    again = recognizer.enroll_many(samples, keep="best")
    assert isinstance(again[2], RecordingNotUsedError)
    assert [saved(r).id for r in again if r is not again[2]] == [
        saved(r).id for r in results if r is not unused
    ]
    assert recognizer.storage.count() == 5


def test_the_best_are_chosen_of_what_a_failing_list_gave(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    def samples() -> Iterator[tuple[str, Any, None]]:
        yield "amara", voices["amara"][0], None
        yield "bruno", voices["bruno"][0], None
        yield "bruno", voices["bruno"][1], None
        raise OSError("the network share went away")

    with pytest.raises(OSError, match="went away"):
        quick.enroll_many(samples(), keep="best")
    assert [len(caller.voiceprints) for caller in quick.callers()] == [1, 2]


def test_what_to_keep_and_to_do_on_a_mismatch_are_checked(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["amara"][0]
    with pytest.raises(InvalidArgumentError, match=r"keep is 'worst': newest or best is allowed"):
        quick.enroll_many([("amara", audio, None)], keep="worst")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"on_mismatch is 'ask': store or refuse is allowed"):
        quick.enroll_caller("amara", audio, on_mismatch="ask")  # type: ignore[arg-type]


def _ids(recognizer: OpusAgentVoiceRecognizer, caller_id: str) -> list[int | None]:
    caller = recognizer.get_caller(caller_id)
    return [] if caller is None else [print_.id for print_ in caller.voiceprints]

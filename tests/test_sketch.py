"""Sketches find a copy of a recording by 256 bytes of it."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from voices import load_voices

from voiceprint import Recording
from voiceprint.audio.fingerprints import Fingerprint
from voiceprint.audio.simulate import Condition
from voiceprint.audio.sketch import is_copy_of_any, shared_fingerprints, sketch_of

RATE = 16_000


def sketch(audio: np.ndarray) -> str:
    return sketch_of(Recording.from_buffer(np.asarray(audio, dtype=np.float32)).fingerprint)


@pytest.fixture(scope="module")
def sketches() -> dict[str, str]:
    return {
        f"{name}/{number}": sketch(audio)
        for name, utterances in load_voices().items()
        for number, audio in enumerate(utterances)
    }


@pytest.mark.parametrize(
    "changed",
    [
        lambda audio: audio / 20,
        lambda audio: audio[RATE // 2 :],
        lambda audio: audio[: len(audio) // 2],
        Condition.parse("telephone").apply,
        Condition.parse("telephone:law=alaw,band=full").apply,
        Condition.parse("noise:snr=30").apply,
    ],
    ids=["quieter", "later", "half", "over a line", "A-law", "noise"],
)
def test_every_sample_is_found_in_a_copy(changed, sketches: dict[str, str]) -> None:
    for name, utterances in load_voices().items():
        for number, audio in enumerate(utterances):
            assert is_copy_of_any(sketch(changed(audio)), [sketches[f"{name}/{number}"]]), (name, number)


def test_different_recordings_are_not_the_same(sketches: dict[str, str]) -> None:
    assert len(sketches) > 20
    for name, one in sketches.items():
        others = [other for key, other in sketches.items() if key != name]
        assert not is_copy_of_any(one, others), name
        assert shared_fingerprints(one, [*others, one]).argmax() == len(others)


def test_a_sketch_takes_256_bytes_at_most_and_is_empty_without_speech(sketches: dict[str, str]) -> None:
    assert {len(base64.b64decode(one)) for one in sketches.values()} == {256}
    assert sketch(np.zeros(5 * RATE)) == ""
    assert not is_copy_of_any("", ["", next(iter(sketches.values()))])
    assert not is_copy_of_any("", [])
    few = Fingerprint(np.array([7, 7, 5], dtype=np.uint32), np.array([True, True, False]))
    assert np.frombuffer(base64.b64decode(sketch_of(few)), dtype="<u4").tolist() == [7]

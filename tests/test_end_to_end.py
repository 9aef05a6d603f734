"""The main job: callers enrolled from audio are recognized in other audio, and strangers are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from voices import RATE, Voices, load_voices, real_speech

from voiceprint import JSONStorage, MemoryStorage, OpusAgentVoiceRecognizer

SPEECH = real_speech() / "librispeech"
needs_speech = pytest.mark.skipif(
    not SPEECH.is_dir(), reason=f"the real speech is not there: {SPEECH} (VOICE_TEST_DATA names its folder)"
)


def check_everybody(recognizer: OpusAgentVoiceRecognizer, voices: Voices, stranger: str) -> None:
    """Each utterance that was not enrolled gets the right name, and all of the stranger's none."""
    for name, audios in voices.items():
        for number, audio in enumerate(audios, start=1):
            answer = recognizer.match_caller(audio)
            if name == stranger:
                assert answer is None, (number, answer)
            elif number > 1:
                assert answer is not None, (name, number)
                assert (answer[0], answer[2]) == (name, {"name": name.title()}), number
                assert answer[1] >= 0.75
                assert recognizer.verify_caller(name, audio).accepted


@pytest.mark.slow
@pytest.mark.parametrize("stranger", ["hakan"])
def test_the_sample_callers_are_named_from_one_utterance_and_the_stranger_is_refused(
    tmp_path: Path, voices: Voices, stranger: str
) -> None:
    path = tmp_path / "callers.json"
    with JSONStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage)
        for name, audios in voices.items():
            if name != stranger:
                recognizer.enroll_caller(name, audios[0], {"name": name.title()})
        check_everybody(recognizer, voices, stranger)
    with JSONStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage)
        assert storage.count() == len(voices) - 1
        check_everybody(recognizer, voices, stranger)
        assert recognizer.check() == []
        recognizer.enroll_caller(stranger, voices[stranger][0])
        answer = recognizer.match_caller(voices[stranger][1])
        assert answer is not None
        assert answer[0] == stranger


@pytest.mark.resemblyzer
@pytest.mark.slow
@pytest.mark.speech
@needs_speech
def test_ten_real_speakers_are_all_named_from_three_utterances_each() -> None:
    voices = load_voices(SPEECH / "test-other")
    assert len(voices) == 10
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    probes: list[tuple[str, np.ndarray]] = []
    for name, audios in voices.items():
        long = [number for number, audio in enumerate(audios) if len(audio) >= 5 * RATE][:3]
        assert len(long) == 3, name
        for number in long:
            recognizer.enroll_caller(name, audios[number])
        probes += [(name, audio) for number, audio in enumerate(audios) if number not in long]
    assert len(probes) == 70
    wrong = [
        (name, answer)
        for name, audio in probes
        if (answer := recognizer.match_caller(audio)) is None or answer[0] != name
    ]
    assert wrong == []

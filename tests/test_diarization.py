"""Several voices in one recording: noticed, told apart, and named each by itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from voices import SAMPLES, Voices

from voiceprint import (
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SeparatedVoice,
    SeveralVoicesError,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.audio import Recording
from voiceprint.diarization import separate
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation.embedding import load_recordings
from voiceprint.evaluation.recordings import find_speakers

RATE = 16_000
PAUSE = np.zeros(RATE // 4, np.float32)
NAMES = ("amara", "bruno", "carlo", "elena")
Audio = NDArray[np.float32]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recognizer(voices: Voices) -> OpusAgentVoiceRecognizer:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    for name in NAMES:
        recognizer.enroll_caller(name, voices[name][0])
    return recognizer


@pytest.fixture(scope="module")
def call(voices: Voices) -> Audio:
    """Two turns of each of two voices, of what they are not enrolled with."""
    turns = [turn for place in (1, 2) for name in ("amara", "bruno") for turn in (voices[name][place], PAUSE)]
    return np.concatenate(turns)


def _accepted(voice: SeparatedVoice) -> str | None:
    return None if voice.accepted is None else voice.accepted.caller_id


def test_both_voices_of_a_call_are_named(recognizer: OpusAgentVoiceRecognizer, call: Audio) -> None:
    first, second = recognizer.identify(call, separate=True)
    assert [first.matches[0].caller_id, second.matches[0].caller_id] == ["amara", "bruno"]


def test_the_turns_of_each_voice_are_where_it_speaks(
    recognizer: OpusAgentVoiceRecognizer, call: Audio, voices: Voices
) -> None:
    first, second = recognizer.identify(call, separate=True)
    border = len(voices["amara"][1]) / RATE
    assert first.turns[0].start_s < 0.5
    assert first.turns[0].stop_s <= border + 0.6
    assert second.turns[0].start_s == pytest.approx(border + 0.25, abs=0.6)
    spoken = sorted((turn.start_s, turn.stop_s) for voice in (first, second) for turn in voice.turns)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spoken))


@pytest.mark.parametrize("name", NAMES)
def test_one_voice_is_one_whatever_its_pauses_and_its_loudness(voices: Voices, name: str) -> None:
    one, two, three = voices[name][:3]
    silence = np.zeros(3 * RATE, np.float32)
    audio = np.concatenate([one, silence, np.float32(0.3) * two, silence, three])
    (voice,) = separate(Recording.from_buffer(audio), OnnxEncoder(threads=1).embed_partials)
    assert voice.turns[0].start_s < 1.0
    assert voice.turns[-1].stop_s > len(audio) / RATE - 1.0


def test_one_voice_alone_has_one_answer_the_plain_one(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    (voice,) = recognizer.identify(voices["carlo"][1], separate=True)
    assert list(voice.matches) == recognizer.identify(voices["carlo"][1])


def test_an_ignored_caller_is_reported_and_no_candidate(
    recognizer: OpusAgentVoiceRecognizer, call: Audio, voices: Voices
) -> None:
    agent, caller = recognizer.identify(call, separate=True, ignore=["amara"], threshold=0.5)
    assert (agent.ignored, agent.matches) == ("amara", ())
    assert (caller.ignored, _accepted(caller)) == (None, "bruno")
    for matches in (
        recognizer.identify(voices["amara"][1], ignore=["amara"]),
        recognizer.identify(voices["amara"][1], ignore=["amara"], candidates=["amara", "bruno"]),
    ):
        assert "amara" not in {match.caller_id for match in matches}
    known = recognizer.match_caller(voices["amara"][1])
    ignoring = recognizer.match_caller(voices["amara"][1], ignore=["amara"])
    assert known is not None
    assert known[0] == "amara"
    assert ignoring is None or ignoring[0] != "amara"


def test_a_single_id_is_no_list_to_ignore(recognizer: OpusAgentVoiceRecognizer, call: Audio) -> None:
    with pytest.raises(InvalidArgumentError, match="ignore is one str"):
        recognizer.identify(call, ignore="amara")


def test_a_plain_match_says_that_several_voices_speak(
    recognizer: OpusAgentVoiceRecognizer, call: Audio, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording.from_buffer(call)
    with caplog.at_level(logging.WARNING):
        matches = recognizer.identify(recording)
    assert matches
    assert "several_voices" in recording.quality.feedback
    assert len(recording.quality.voices) == 2
    assert any("2 voices speak" in sentence for sentence in recording.quality.advice)
    assert "several voices" in caplog.text


def test_several_voices_are_not_enrolled(call: Audio) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    check = recognizer.check_enrollment(call)
    assert not check.ready
    assert len(check.quality.voices) == 2
    with pytest.raises(SeveralVoicesError, match="2 voices speak") as caught:
        recognizer.enroll_caller("amara", call)
    assert len(caught.value.quality.voices) == 2
    (result,) = recognizer.enroll_many([("amara", call, None)])
    assert isinstance(result, SeveralVoicesError)
    assert recognizer.get_caller("amara") is None


def test_several_voices_are_enrolled_where_wanted(call: Audio, voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    recognizer.enroll_caller("all", call, on_several_voices="store")
    longer = np.concatenate([call, voices["bruno"][0]])
    (largest,) = recognizer.enroll_many([("largest", longer, None)], on_several_voices="largest")
    assert isinstance(largest, Voiceprint)
    alone, together = recognizer.get_embedding(voices["bruno"][1]), recognizer.get_embedding(longer)
    assert float(largest.embedding @ alone) > float(together @ alone)
    with pytest.raises(InvalidArgumentError, match="on_several_voices is 'most'"):
        recognizer.enroll_caller("x", call, on_several_voices="most")  # type: ignore[arg-type]


def test_an_event_loop_gets_the_same_answers(recognizer: OpusAgentVoiceRecognizer, call: Audio) -> None:
    assert asyncio.run(recognizer.aidentify(call, separate=True)) == recognizer.identify(call, separate=True)


@pytest.mark.parametrize("chunk", [320, 48_000])
def test_a_stream_names_both_voices_at_its_end(
    recognizer: OpusAgentVoiceRecognizer, call: Audio, chunk: int
) -> None:
    with recognizer.stream(separate=True, ignore=["amara"], threshold=0.5) as stream:
        for start in range(0, len(call), chunk):
            stream.feed(call[start : start + chunk])
            assert not stream.result().decided
        answer = stream.finish()
    assert (answer.caller_id, answer.accepted) == ("bruno", True)
    assert [voice.ignored for voice in answer.voices] == ["amara", None]
    assert list(answer.voices) == recognizer.identify(call, 1, separate=True, ignore=["amara"], threshold=0.5)
    assert "several_voices" in answer.feedback


def test_voices_of_a_stream_that_begin_to_speak_after_minutes_are_named(
    recognizer: OpusAgentVoiceRecognizer, call: Audio
) -> None:
    silence = np.zeros(125 * RATE, dtype=np.float32)
    with recognizer.stream(separate=True) as stream:
        stream.feed(silence)
        stream.feed(call)
        answer = stream.finish()
    first, second = answer.voices
    assert [one.accepted and one.accepted.caller_id for one in answer.voices] == ["amara", "bruno"]
    assert first.turns[0].start_s == pytest.approx(125, abs=0.6)
    assert second.turns[-1].stop_s == pytest.approx(125 + len(call) / RATE, abs=0.6)


def test_a_stream_without_enough_speech_at_once_names_nobody(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    piece = np.concatenate((voices["amara"][1][RATE : RATE + 11_200], np.zeros(130 * RATE, dtype=np.float32)))
    lenient = OpusAgentVoiceRecognizer(recognizer.storage, config=VoiceFingerprintConfig(min_audio_quality=0))
    with lenient.stream(separate=True) as stream:
        for _ in range(3):
            stream.feed(piece)
        answer = stream.finish()
    assert answer.net_speech_s > 1.0
    assert (answer.caller_id, answer.accepted, answer.voices) == (None, False, ())
    assert "too_short" in answer.feedback


def test_a_plain_stream_says_at_its_end_that_several_voices_speak(
    recognizer: OpusAgentVoiceRecognizer, call: Audio, voices: Voices
) -> None:
    for audio, expected in ((call, True), (voices["amara"][1], False)):
        with recognizer.stream() as stream:
            stream.feed(audio)
            answer = stream.finish()
        assert ("several_voices" in answer.feedback) is expected
        assert answer.caller_id == recognizer.identify(audio)[0].caller_id


def test_the_commands_separate_ignore_and_refuse(
    run: Run, call: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("call.wav", call, RATE)
    for name in ("amara", "bruno"):
        assert run("enroll", name, SAMPLES / name / "1.flac")[0] == 0
    code, out, _ = run(
        "identify", "call.wav", "--separate", "--ignore", "amara", "--threshold", "0.5", "--json"
    )
    (answer,) = json.loads(out)
    assert code == 0
    assert [voice["ignored"] for voice in answer["voices"]] == ["amara", None]
    assert answer["voices"][1]["matches"][0]["caller_id"] == "bruno"
    _, out, _ = run("identify", "call.wav", "--separate", "--ignore", "amara", "--threshold", "0.5")
    assert "ignored" in out
    assert "accepted" in out
    assert "--ignore amarra: not enrolled" in run("identify", "call.wav", "--ignore", "amarra")[2]
    out = run("identify", "call.wav", "--separate", "--candidate", "nobody")[1]
    assert out.count("nobody to compare with") == 2
    code, out, _ = run("enroll", "x", "call.wav")
    assert code == 1
    assert "SeveralVoicesError" in out
    assert run("enroll", "x", "call.wav", "--on-several-voices", "largest")[0] == 0
    assert "--on-several-voices largest" in run("enroll", "y", "call.wav")[1]
    code, out, _ = run("quality", "call.wav")
    assert (code, "several_voices" in out, "2 voices speak" in out) == (0, True, True)


def test_evaluation_takes_the_voice_that_speaks_most(voices: Voices, tmp_path: Path) -> None:
    amara, bruno = voices["amara"], voices["bruno"]
    folder = tmp_path / "bruno" / "1"
    folder.mkdir(parents=True)
    soundfile.write(folder / "call.wav", np.concatenate([bruno[0], PAUSE, amara[1], PAUSE, bruno[1]]), RATE)
    (speaker,) = find_speakers([tmp_path])
    (audio,) = load_recordings(speaker, None, [], separate=True)
    encoder = OnnxEncoder(threads=1)
    alone = encoder.embed(audio)
    assert len(audio) < len(bruno[0]) + len(bruno[1]) + RATE
    assert float(alone @ encoder.embed(bruno[2])) > float(alone @ encoder.embed(amara[2])) + 0.1
    (whole,) = load_recordings(speaker, None, [])
    assert len(whole) > len(audio) + RATE

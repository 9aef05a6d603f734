"""Prompts: announcements that many calls hold are found in them, and left out of everything."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import signals
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from voices import BandEncoder, Voices, real_speech

from voiceprint import (
    AudioQualityError,
    ConfigurationError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
    load_audio,
)
from voiceprint.audio import Recording
from voiceprint.audio.fingerprints import SPAN, STEP, fingerprint
from voiceprint.audio.prompts import KnownPrompts, Prompt, PromptFinder, PromptFollower
from voiceprint.audio.speech.segmenter import Segment, with_prompts
from voiceprint.evaluation import Settings, evaluate
from voiceprint.evaluation.tables import remarks

RATE = 16_000
Audio = Any


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng((2027, seed))


@pytest.fixture(scope="session")
def prompt(voices: Voices) -> Audio:
    """Four seconds of a voice that calls nobody here."""
    return voices["hakan"][2][: 4 * RATE]


def call(prompt: Audio, speech: Audio, start: int) -> Audio:
    return np.concatenate((speech[:start], prompt, speech[start:]))


def over_the_line(audio: Audio) -> Audio:
    return np.float32(soxr.resample(signals.telephone(audio.astype(np.float64)), 8000, RATE))


def find_repeated(recordings: list[tuple[str, Audio]]) -> list[tuple[Prompt, ...]]:
    finder = PromptFinder()
    for caller_id, audio in recordings:
        finder.add(caller_id, audio)
    return finder.find()


LINES = {
    "as it is": lambda a: a,
    "10 dB quieter": lambda a: a * np.float32(0.316),
    "inverted": lambda a: -a,
    "over a telephone line": over_the_line,
    "in 20 dB of noise": lambda a: np.float32(signals.with_noise(a.astype(np.float64), rng(), 20)),
    "with an offset": lambda a: a * np.float32(0.5) + np.float32(0.2),
}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("start", [0, 12_345, 50_001])
def test_a_known_prompt_is_found_where_it_is(voices: Voices, prompt: Audio, line: str, start: int) -> None:
    known = KnownPrompts([voices["ivo"][0], prompt])
    for name in ("amara", "elena", "farid"):
        ((first, last),) = known.stretches(LINES[line](call(prompt, voices[name][0], start)))
        assert first == pytest.approx(start, abs=0.1 * RATE)
        assert last == pytest.approx(start + len(prompt), abs=0.1 * RATE)


def test_a_part_of_a_prompt_is_found(voices: Voices, prompt: Audio) -> None:
    known = KnownPrompts([prompt])
    speech = voices["amara"][0]
    ((first, last),) = known.stretches(np.concatenate((prompt[2 * RATE :], speech)))
    assert (first, last) == (0, pytest.approx(2 * RATE, abs=0.1 * RATE))
    ((first, last),) = known.stretches(np.concatenate((speech, prompt[: 2 * RATE])))
    assert (first, last) == (pytest.approx(len(speech), abs=0.1 * RATE), len(speech) + 2 * RATE)


def test_a_prompt_that_is_talked_over_is_found_up_to_there(voices: Voices, prompt: Audio) -> None:
    for name in ("amara", "elena", "farid"):
        both = np.concatenate((prompt, np.zeros(len(voices[name][0]), dtype=np.float32)))
        both[2 * RATE : 2 * RATE + len(voices[name][0])] += 2 * voices[name][0]
        ((first, last),) = KnownPrompts([prompt]).stretches(np.clip(both, -1, 1))
        assert first == 0
        assert 1.5 * RATE < last <= 4 * RATE


def test_other_words_of_the_same_voice_are_left_alone(voices: Voices) -> None:
    for recordings in voices.values():
        for place, recording in enumerate(recordings):
            # A synthesizer says the first words alike where they are the same: "I have".
            others = [other[2 * RATE :] for number, other in enumerate(recordings) if number != place]
            assert KnownPrompts(others).stretches(recording) == ()


@pytest.mark.parametrize("signal", ["white", "pink", "chords", "arpeggio"])
def test_other_noise_and_music_is_left_alone(signal: str) -> None:
    sounds = [np.float32(getattr(signals, signal)(rng(seed))) for seed in range(4)]
    known = KnownPrompts(sounds[:1])
    ((first, last),) = known.stretches(sounds[0])
    assert (first, last) == (0, pytest.approx(len(sounds[0]), abs=STEP))
    for other in sounds[1:]:
        assert known.stretches(other) == ()


def test_silence_matches_nothing(prompt: Audio) -> None:
    silence = np.zeros(5 * RATE, dtype=np.float32)
    assert KnownPrompts([prompt]).stretches(silence) == ()
    assert KnownPrompts([silence]).stretches(silence) == ()
    assert KnownPrompts([]).stretches(prompt) == ()
    assert find_repeated([(str(caller), silence) for caller in range(5)]) == [()] * 5


@given(st.integers(0, 3 * SPAN), st.integers(1, 7), st.integers(0, 9))
def test_audio_of_any_length_and_cut_gives_one_fingerprint(count: int, blocks: int, seed: int) -> None:
    audio = np.float32(rng(seed).standard_normal(count) * 0.1)
    whole = fingerprint(audio)
    assert len(whole.bits) == len(whole.loud) == max(0, (count - SPAN) // STEP + 1)
    known = KnownPrompts([audio])
    follower = PromptFollower(known)
    for part in np.array_split(audio, blocks):
        follower.add(part)
    assert follower.stretches() == known.stretches(audio)


@pytest.mark.speech
def test_real_speech_holds_no_prompts(voices: Voices) -> None:
    if not (folder := real_speech()).is_dir():
        pytest.skip(f"{folder} with real speech is not there")
    known = KnownPrompts([recording for recordings in voices.values() for recording in recordings])
    finder, files = PromptFinder(callers=1), sorted(folder.rglob("*.flac"))[::8]
    for number, file in enumerate(files):
        audio, _ = load_audio(file)
        assert known.stretches(audio) == (), file
        finder.add(str(number), audio)
    assert finder.find() == [()] * len(files)


# What recordings have in common


def test_what_several_callers_have_in_common_is_a_prompt(voices: Voices, prompt: Audio) -> None:
    names = [name for name in voices if name != "hakan"][:4]
    calls = [
        (name, over_the_line(call(prompt, voices[name][0], 10_000 * place)))
        for place, name in enumerate(names)
    ]
    for place, found in enumerate(find_repeated([*calls, ("gil", voices["gil"][1])])[:4]):
        (one,) = found
        assert one.start_s == pytest.approx(10_000 * place / RATE, abs=0.3)
        assert one.stop_s == pytest.approx(10_000 * place / RATE + 4, abs=0.3)
        assert one.callers == 3
    assert find_repeated([*calls, ("gil", voices["gil"][1])])[4] == ()


def test_copies_under_one_caller_or_two_are_no_prompt(voices: Voices) -> None:
    audio = voices["amara"][0]
    assert find_repeated([("amara", audio)] * 5) == [()] * 5
    assert find_repeated([("amara", audio), ("amara", audio), ("bruno", audio)]) == [()] * 3


def test_many_recordings_are_thinned_and_still_compared(
    voices: Voices, prompt: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiceprint.audio.prompts._MAX_INDEXED", 500)
    names = [name for name in voices if name != "hakan"][:4]
    found = find_repeated([(name, call(prompt, voices[name][0], 20_000)) for name in names])
    assert all(len(prompts) == 1 for prompts in found)


# In the product


def test_prompts_are_cut_from_segments() -> None:
    segments = (Segment(0, 9600, "noise"), Segment(9600, 48_000, "speech"))
    assert with_prompts(segments, ()) == segments
    assert with_prompts(segments, [(4800, 14_000)]) == (
        Segment(0, 4800, "noise"),
        Segment(4800, 14_400, "prompt"),
        Segment(14_400, 48_000, "speech"),
    )
    assert with_prompts(segments, [(0, 47_999)]) == (Segment(0, 48_000, "prompt"),)
    twice = with_prompts(with_prompts(segments, [(9600, 19_200)]), [(14_400, 28_800)])
    assert [(each.start, each.stop, each.kind) for each in twice] == [
        (0, 9600, "noise"), (9600, 14_400, "prompt"), (14_400, 28_800, "prompt"), (28_800, 48_000, "speech"),
    ]  # fmt: skip


@pytest.fixture
def prompts_folder(tmp_path: Path, prompt: Audio) -> Path:
    folder = tmp_path / "prompts"
    (folder / "en").mkdir(parents=True)
    soundfile.write(folder / "en" / "greeting.wav", np.float32(soxr.resample(prompt, RATE, 8000)), 8000)
    (folder / "notes.txt").write_text("not audio")
    return folder


def recognizer(prompts: Path | None) -> OpusAgentVoiceRecognizer:
    config = VoiceFingerprintConfig(prompts=prompts)
    return OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=BandEncoder())


def test_a_prompt_changes_no_answer(voices: Voices, prompt: Audio, prompts_folder: Path) -> None:
    with recognizer(prompts_folder) as with_them, recognizer(None) as plain:
        for name in ("amara", "elena", "farid"):
            alone, with_prompt = voices[name][0], call(prompt, voices[name][0], 0)
            right = plain.get_embedding(alone)
            assert float(right @ with_them.get_embedding(with_prompt)) > 0.999
            assert float(right @ plain.get_embedding(with_prompt)) < 0.995
            quality = with_them.check_enrollment(with_prompt).quality
            assert "prompt" in quality.feedback
            assert quality.prompts_s == pytest.approx(4, abs=0.2)
            assert any("A known prompt (4." in sentence for sentence in quality.advice)
            assert "prompt" not in plain.check_enrollment(with_prompt).quality.feedback


def test_a_stream_leaves_prompts_out(voices: Voices, prompt: Audio, prompts_folder: Path) -> None:
    with recognizer(prompts_folder) as them:
        for name in ("amara", "elena", "farid"):
            them.enroll_caller(name, voices[name][0])
        them.enroll_caller("machine", voices["hakan"][0])
        with_prompt = call(prompt, voices["elena"][1], 0)
        (best,) = them.identify(with_prompt, 1)
        stream = them.stream()
        answers = []
        for start in range(0, len(with_prompt), 3200):
            stream.feed(with_prompt[start : start + 3200])
            answers.append(stream.result())
        final = stream.finish()
        assert final.caller_id == best.caller_id == "elena"
        assert final.similarity == pytest.approx(best.similarity, abs=1e-5)
        assert "prompt" in final.feedback
        # A decision is never withdrawn, nor made on the prompt.
        assert {answer.caller_id for answer in answers if answer.decided} <= {"elena"}


def test_a_recording_may_be_told_of_prompts_later(voices: Voices, prompt: Audio) -> None:
    recording = Recording.from_buffer(call(prompt, voices["amara"][0], 0))
    before = recording.quality
    known = KnownPrompts([prompt])
    assert recording.leave_out(known) is recording
    assert recording.quality.net_speech_s < before.net_speech_s - 2
    assert recording.leave_out(known).leave_out(None).quality is recording.quality


def test_a_recording_is_the_same_for_recognizers_with_other_prompts(
    voices: Voices, prompt: Audio, prompts_folder: Path
) -> None:
    recording = Recording.from_buffer(call(prompt, voices["amara"][0], 0))
    with recognizer(None) as plain, recognizer(prompts_folder) as with_them:
        before = plain.get_embedding(recording)
        without = with_them.get_embedding(recording)
        assert float(before @ without) < 0.995
        assert (plain.get_embedding(recording) == before).all()
        assert (with_them.get_embedding(recording) == without).all()
        assert with_them.check_enrollment(recording).quality.prompts_s > 3
        assert recording.quality.prompts_s == 0


def test_a_folder_of_prompts_may_hold_any_recording(prompts_folder: Path, prompt: Audio) -> None:
    (prompts_folder / "en" / "greeting.wav").rename(prompts_folder / "en" / "greeting.wave")
    soundfile.write(prompts_folder / "no_suffix", prompt, RATE, format="FLAC")
    assert len(KnownPrompts.load(prompts_folder)) == 2
    (prompts_folder / "en" / "cut.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(ConfigurationError, match=r"VOICE_PROMPTS: .*cut\.m4a"):
        KnownPrompts.load(prompts_folder)


def test_prompts_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"VOICE_PROMPTS.* holds no recordings"):
        KnownPrompts.load(tmp_path)
    with pytest.raises(ConfigurationError, match=r"VOICE_PROMPTS: .*nothing\.wav"):
        KnownPrompts.load(tmp_path / "nothing.wav")
    soundfile.write(tmp_path / "short.wav", np.zeros(8000), RATE)
    with pytest.raises(ConfigurationError, match=r"short\.wav lasts 0\.5 s: at least 1\.3 s"):
        KnownPrompts.load(tmp_path / "short.wav")
    with (
        recognizer(tmp_path / "nothing.wav") as them,
        pytest.raises(ConfigurationError, match="VOICE_PROMPTS"),
    ):
        them.match_caller(np.zeros(RATE))


def test_nothing_of_a_prompt_is_logged(
    voices: Voices, prompt: Audio, prompts_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recognizer(prompts_folder) as them, caplog.at_level(logging.DEBUG, "voiceprint"):
        them.get_embedding(call(prompt, voices["amara"][0], 0))
    assert not any("greeting" in message for message in caplog.messages)


# On the command line


@pytest.fixture
def calls_folder(tmp_path: Path, voices: Voices, prompt: Audio) -> Path:
    """Recordings of four callers, three of which begin with a prompt; one is there twice."""
    folder = tmp_path / "in"
    for name in ("amara", "elena", "farid", "gil"):
        (folder / name).mkdir(parents=True)
        audio = voices[name][0] if name == "gil" else call(prompt, voices[name][0], 0)
        soundfile.write(folder / name / "1.wav", audio, RATE)
        soundfile.write(folder / name / "2.wav", voices[name][1], RATE)
    (folder / "gil" / "copy.wav").write_bytes((folder / "gil" / "1.wav").read_bytes())
    return folder


def test_prompts_are_listed_and_written(
    run: Any, calls_folder: Path, tmp_path: Path, prompt: Audio, voices: Voices
) -> None:
    code, out, _ = run("prompts", calls_folder, "--json", "--write", tmp_path / "found")
    rows = json.loads(out)
    assert code == 0
    assert [row["caller_id"] for row in rows] == ["amara", "elena", "farid"]
    for row in rows:
        assert row["start_s"] == pytest.approx(0, abs=0.1)
        assert row["stop_s"] == pytest.approx(4, abs=0.3)
        assert row["callers"] == 2
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["prompt-1.flac"]
    known = KnownPrompts.load(tmp_path / "found")
    ((first, last),) = known.stretches(call(prompt, voices["ivo"][0], 0))
    assert (first, last) == (0, pytest.approx(len(prompt), abs=0.3 * RATE))
    code, _, err = run("prompts", calls_folder, "--write", tmp_path / "found")
    assert code != 0
    assert "give an empty folder" in err


def test_a_folder_without_prompts_says_so(run: Any, calls_folder: Path) -> None:
    code, out, _ = run("prompts", calls_folder, "--callers", "3")
    assert code == 0
    assert out.startswith("No prompts: 9 recordings")


def test_what_cannot_be_looked_through_is_said(run: Any, calls_folder: Path, tmp_path: Path) -> None:
    code, _, err = run("prompts", calls_folder, "--callers", "4")
    assert (code, "recordings of 4 callers" in err) == (2, True)
    (calls_folder / "gil" / "cut.wav").write_bytes(b"RIFF")
    code, out, err = run("prompts", calls_folder, "--callers", "3", "--write", tmp_path / "none")
    assert (code, "9 recordings" in out, "cut.wav is not an audio file" in err) == (1, True, True)
    (tmp_path / "file").write_text("x")
    for place, why in ((tmp_path / "file", "exists"), (calls_folder, "give an empty folder")):
        code, out, err = run("prompts", calls_folder, "--write", place)
        assert (code, out, why in err) == (2, "", True)


def test_a_whole_recording_under_several_callers_is_no_prompt(
    run: Any, tmp_path: Path, voices: Voices
) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / "in" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / name / "1.wav", voices["amara"][0], RATE)
    code, out, _ = run("prompts", tmp_path / "in", "--json")
    assert (code, json.loads(out)) == (0, [])


def test_quality_leaves_prompts_out_and_a_match_of_nothing_else_says_so(
    run: Any, calls_folder: Path, prompt: Audio, prompts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "A known prompt" not in run("quality", calls_folder / "amara" / "1.wav")[1]
    monkeypatch.setenv("VOICE_PROMPTS", str(prompts_folder))
    code, out, _ = run("quality", calls_folder / "amara" / "1.wav")
    assert (code, "A known prompt (4." in out) == (0, True)
    with (
        recognizer(prompts_folder) as them,
        pytest.raises(AudioQualityError, match="most of this is known prompts"),
    ):
        them.identify(prompt)


def test_enroll_dir_leaves_prompts_out(
    run: Any, calls_folder: Path, voices: Voices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("enroll-dir", calls_folder, "--again")
    assert code == 0, (out, err)
    assert "Left out of 3 files: 1 prompt in recordings of several callers (4." in err
    plain = OpusAgentVoiceRecognizer(MemoryStorage())
    with JSONStorage("voiceprints.json") as store:
        for name in ("amara", "elena", "farid"):
            caller = store.get(name)
            assert caller is not None
            right = [plain.get_embedding(audio) for audio in voices[name][:2]]
            found = [print_.embedding for print_ in caller.voiceprints]
            assert (np.array(found) @ np.transpose(right)).max(axis=0).min() > 0.99


def test_an_evaluation_says_that_recordings_hold_prompts(
    calls_folder: Path, prompt: Audio, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "prompt.wav", prompt, RATE)
    settings = Settings(durations_s=(2.0,), resamples=0, splits=1, more_prints=None)
    found = evaluate(calls_folder, settings, encoder=BandEncoder())
    assert found.with_prompts == 3
    assert any("3 sessions share audio" in line for line in remarks(found))
    settings = replace(settings, prompts=str(tmp_path / "prompt.wav"))
    without = evaluate(calls_folder, settings, encoder=BandEncoder())
    assert without.with_prompts == 0
    assert not any("VOICE_PROMPTS" in line for line in remarks(without))

"""A session: its refusals, its end, and its use from an event loop, with a store that fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from streams import enrolled, fed
from voices import RATE, ROOT, BandEncoder

from voiceprint import (
    InvalidArgumentError,
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    StorageUnavailableError,
    VoiceFingerprintConfig,
)
from voiceprint.storage.base import Position


@pytest.fixture
def known(quick, voices):
    """The quick recognizer with two callers."""
    for caller in ("amara", "bruno"):
        quick.enroll_caller(caller, voices[caller][0])
    return quick


@pytest.mark.parametrize("seconds", [120, 240])
def test_a_call_that_ends_where_a_buffer_is_full_is_answered(known, voices, seconds):
    audio = np.resize(voices["amara"][1], seconds * RATE)
    answer = fed(known.stream(), audio, RATE).finish()
    assert (answer.caller_id, answer.audio_s) == ("amara", seconds)


def test_chunk_that_is_refused_counts_as_never_fed(known, voices):
    audio = voices["amara"][1]
    expected = fed(known.stream(), audio, 4000).finish()
    session = known.stream()
    for first in range(0, len(audio), 4000):
        session.feed(audio[first : first + 4000])
        for bad in (
            np.array([0.1, np.nan]),
            np.array([0.1, 7000.5]),
            np.zeros((2, 2, 2)),
            np.zeros((2, 9)),
            [0.1, 0.2],
            "audio.wav",
            None,
        ):
            with pytest.raises(InvalidAudioError):
                session.feed(bad)
    assert session.finish() == expected


def test_floats_in_bytes_are_refused_with_the_chunk_that_holds_them(known, voices):
    audio = voices["amara"][1].astype("<f4").tobytes()
    expected = fed(known.stream(encoding="pcm_f32le"), audio, 4001).finish()
    session = fed(known.stream(encoding="pcm_f32le"), audio[: 4 * RATE + 2], 4001)
    with pytest.raises(InvalidAudioError, match="NaN"):
        session.feed(b"\x00" * 2 + np.array([np.nan], dtype="<f4").tobytes())
    assert fed(session, audio[4 * RATE + 2 :], 4001).finish() == expected


def test_array_is_refused_in_the_middle_of_a_sample(known):
    session = known.stream()
    session.feed(b"\x01")
    with pytest.raises(InvalidAudioError, match="1 byte"):
        session.feed(np.zeros(4, dtype=np.int16))
    session.feed(b"\x01")
    session.feed(np.zeros(4, dtype=np.int16))
    assert session.finish().audio_s == 5 / RATE


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"sample_rate": 7999}, InvalidAudioError),
        ({"encoding": "mp3"}, InvalidAudioError),
        ({"channel": -1}, InvalidAudioError),
        ({"channel": "left"}, InvalidAudioError),
        ({"k": 0}, InvalidArgumentError),
        ({"threshold": 2.0}, InvalidArgumentError),
        ({"candidates": "amara"}, InvalidArgumentError),
    ],
)
def test_wrong_arguments_are_refused_when_the_stream_is_opened(known, wrong, error):
    with pytest.raises(error):
        known.stream(**wrong)


def test_channel_that_is_not_there_is_refused(known):
    with pytest.raises(InvalidAudioError, match="channel"):
        known.stream(channel=1).feed(np.zeros(320, dtype=np.int16))


def test_closed_stream_refuses_everything_but_to_be_closed(known, voices):
    with known.stream() as session:
        session.feed(voices["amara"][1])
    session.close()
    for work in (lambda: session.feed(b""), session.result, session.finish):
        with pytest.raises(InvalidArgumentError, match="closed"):
            work()
    assert "closed" in repr(session)


def test_finished_stream_gives_its_answer_and_takes_no_more(known, voices):
    session = fed(known.stream(), voices["amara"][1], 999)
    final = session.finish()
    assert session.finish() == session.result() == final
    with pytest.raises(InvalidArgumentError, match="finished"):
        session.feed(voices["amara"][1])


def test_nothing_new_gives_the_very_same_answer(known, voices):
    session = fed(known.stream(), voices["amara"][1], 999)
    assert session.result() is session.result()


@pytest.mark.parametrize(
    ("audio", "shown"),
    [(np.zeros(0, dtype=np.float32), "no_speech"), (np.zeros(5 * RATE, dtype=np.float32), "no_speech")],
    ids=["nothing", "silence"],
)
def test_audio_without_speech_names_nobody_and_says_why(known, audio, shown):
    session = known.stream()
    session.feed(audio)
    assert session.result().caller_id is None
    final = session.finish()
    assert (final.caller_id, final.accepted, final.decided) == (None, False, True)
    assert shown in final.feedback


def test_too_little_speech_names_nobody(known, voices):
    final = fed(known.stream(), voices["amara"][1][: RATE * 4 // 5], 320).finish()
    assert final.caller_id is None
    assert "too_short" in final.feedback


def test_switched_off_it_ignores_what_it_is_fed_and_names_nobody():
    off = VoiceFingerprintConfig(fingerprinting_enabled=False)
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=off, encoder=BandEncoder()).stream() as session:
        session.feed("this is no audio")
        for answer in (session.result(), session.finish()):
            assert (answer.caller_id, answer.accepted, answer.decided) == (None, False, True)


def test_event_loop_gets_the_same_answers(known, voices):
    audio = voices["amara"][1]

    async def call():
        with known.stream() as session:
            for first in range(0, len(audio), 4000):
                await session.afeed(audio[first : first + 4000])
            return await session.aresult(), await session.afinish()

    session = fed(known.stream(), audio, 4000)
    assert asyncio.run(call()) == (session.result(), session.finish())


class Failing(MemoryStorage):
    """A store that cannot be read while `down`."""

    down = False

    def position(self) -> Position:
        if self.down:
            raise StorageUnavailableError("The store is down.")
        return super().position()


def test_store_that_fails_does_not_lose_the_call(voices):
    with Failing() as storage:
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder())
        for caller in ("amara", "bruno"):
            recognizer.enroll_caller(caller, voices[caller][0])
        expected = fed(recognizer.stream(), voices["amara"][1], 999)
        session = fed(recognizer.stream(), voices["amara"][1], 999)
        storage.down = True
        for work in (session.result, session.finish):
            with pytest.raises(StorageUnavailableError):
                work()
        storage.down = False
        assert session.finish() == expected.finish()
        assert session.finish().caller_id == "amara"


@pytest.mark.resemblyzer
def test_example_of_the_bridge_runs_as_it_stands(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "opusagent_bridge.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    amara, hakan = done.stdout.split("A call of hakan:")
    decided, ended = amara.index('decided: "Welcome back, Amara!"'), amara.index("hung up")
    assert decided < ended
    assert "hung up: nobody we know" in hakan


def test_threads_that_feed_and_ask_at_once_do_not_disturb_each_other(voices):
    recognizer = enrolled(voices, ["amara", "bruno"])
    audio = voices["amara"][1]

    async def call():
        session = recognizer.stream(k=2)

        async def ask():
            while not (await session.aresult()).decided:
                await asyncio.sleep(0)

        asking = asyncio.create_task(ask())
        for first in range(0, len(audio), 320):
            await session.afeed(audio[first : first + 320])
        await asking
        return await session.afinish()

    assert asyncio.run(call()) == fed(recognizer.stream(k=2), audio, 320).finish()

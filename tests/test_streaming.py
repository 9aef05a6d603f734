"""A stream ends with the answer of `identify`, however it was cut, and is decided early."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_audio import raw
from streams import MULAW, as_mulaw, at_level, enrolled, fed, with_pauses
from voices import RATE

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, StreamResult
from voiceprint.streaming import online_embedder as online

CALLERS = ("amara", "bruno", "carlo", "dario", "elena", "farid", "gil", "hakan")


@pytest.fixture(scope="module")
def center(voices):
    """A recognizer that knows all callers but ivo."""
    return enrolled(voices, CALLERS)


# The end


@pytest.mark.parametrize("caller", ["amara", "carlo", "hakan", "ivo"])
@pytest.mark.parametrize(
    "change",
    [lambda audio: audio, lambda audio: at_level(audio, -50.0), with_pauses, lambda audio: audio[: 2 * RATE]],
    ids=["as is", "quiet", "with pauses", "two seconds"],
)
def test_stream_ends_with_the_answer_of_identify(center, voices, caller, change):
    audio = change(voices[caller][2])
    assert_ends_alike(center, audio, {"sample_rate": RATE}, 320)


@pytest.mark.parametrize("caller", ["amara", "bruno", "ivo"])
def test_stream_of_a_telephone_line_ends_with_the_answer_of_identify(center, voices, caller):
    assert_ends_alike(center, as_mulaw(voices[caller][3]), MULAW, 160)


def test_stream_at_any_rate_ends_with_the_answer_of_identify(center, voices):
    for rate in (11025, 44100, 47999):
        audio = np.interp(
            np.arange(5 * rate) / rate, np.arange(5 * RATE) / RATE, voices["elena"][1][: 5 * RATE]
        )
        assert_ends_alike(center, audio, {"sample_rate": rate}, 1000)


def test_stream_of_another_encoder_ends_with_the_answer_of_identify(quick, voices):
    for caller in CALLERS:
        quick.enroll_caller(caller, voices[caller][0])
    assert_ends_alike(quick, voices["gil"][2], {"sample_rate": RATE}, 320)
    running = fed(quick.stream(), voices["gil"][2], 320).result()
    assert running.caller_id == "gil"


def assert_ends_alike(recognizer, audio, how, chunk):
    expected = recognizer.identify(audio, k=3, **how)
    final = fed(recognizer.stream(k=3, **how), audio, chunk).finish()
    assert [match.caller_id for match in final.matches] == [match.caller_id for match in expected]
    for ours, theirs in zip(final.matches, expected, strict=True):
        # The bar is 0.005; what the code gives is the same but for rounding.
        assert ours.similarity == pytest.approx(theirs.similarity, abs=2e-5)
        assert (ours.accepted, ours.metadata) == (theirs.accepted, theirs.metadata)
    assert (final.caller_id, final.accepted) == (expected[0].caller_id, expected[0].accepted)
    assert final.decided
    assert final.final


@pytest.mark.resemblyzer
def test_end_of_a_long_call_is_near_to_that_of_identify(center, voices, monkeypatch):
    monkeypatch.setattr(online, "BUFFER_S", 20.0)
    audio = at_level(np.concatenate([with_pauses(each) for each in voices["bruno"]] * 2), -32.0)
    audio *= np.linspace(
        1.0, 0.3, len(audio), dtype=np.float32
    )  # the level of the whole is not that of the start
    expected = center.identify(audio, k=1)[0]
    final = fed(center.stream(), audio, 4000).finish()
    assert final.caller_id == expected.caller_id
    assert final.similarity == pytest.approx(expected.similarity, abs=0.005)
    assert final.audio_s == pytest.approx(len(audio) / RATE)


def test_memory_does_not_grow_with_the_length_of_the_call(quick, voices, monkeypatch):
    monkeypatch.setattr(online, "BUFFER_S", 10.0)
    quick.enroll_caller("amara", voices["amara"][0])
    minute = np.resize(voices["amara"][1], 60 * RATE)
    with quick.stream() as session:
        fed(session, minute, 1600)
        session.result()
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            for _ in range(4):
                fed(session, minute, 1600)
            grown = tracemalloc.get_traced_memory()[0] - start
        finally:
            tracemalloc.stop()
    assert grown < 2_500_000, "ten seconds are kept, which are 1.7 MB; a minute is 3.8 MB"


# Cuts


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=8))
@pytest.mark.parametrize(("encoding", "level"), [("mulaw", -20.0), ("pcm_s24le", -38.0)])
def test_any_split_gives_exactly_the_same_end(center, voices, encoding, level, sizes):
    audio = raw(at_level(voices["farid"][1][: 4 * RATE : 2], level), encoding)
    how = {"sample_rate": 8000, "encoding": encoding, "k": 8}
    whole = fed(center.stream(**how), audio, len(audio)).finish()
    assert len(whole.matches) == 8
    # 8 similarities, bit by bit: only the same embedding gives them.
    assert fed(center.stream(**how), audio, sizes).finish() == whole


def test_chunks_of_one_byte_are_enough(center, voices):
    audio = raw(voices["farid"][1][: 2 * RATE], "pcm_s32le", RATE)
    how = {"encoding": "pcm_s32le", "k": 8}
    assert fed(center.stream(**how), audio, 1).finish() == fed(center.stream(**how), audio, 10**9).finish()


def test_bytes_and_arrays_of_the_same_samples_are_the_same(center, voices):
    samples = (voices["gil"][1] * 32767).astype(np.int16)
    as_bytes = fed(center.stream(k=8), samples.tobytes(), 333).finish()
    assert fed(center.stream(k=8), samples, 333).finish() == as_bytes
    assert fed(center.stream(k=8), memoryview(samples), 333).finish() == as_bytes
    assert fed(center.stream(k=8), samples.astype(np.float64) / 32768, 333).finish() == as_bytes


def test_running_answers_do_not_depend_on_the_cuts(center, voices):
    audio, second = with_pauses(voices["dario"][1]), RATE

    def answers(chunk: int) -> list[StreamResult]:
        session = center.stream()
        return [fed(session, audio[i : i + second], chunk).result() for i in range(0, len(audio), second)]

    assert answers(second) == answers(37 * 9)


def test_channels_of_a_chunk_stand_in_its_columns(center, voices):
    caller, agent = voices["gil"][1], np.resize(voices["elena"][1], len(voices["gil"][1]))
    call = np.stack([agent, caller], axis=1)
    alone = fed(center.stream(k=8), caller, 333).finish()
    for sizes in (333, [1, 2, 500]):
        assert fed(center.stream(channel=1, k=8), call, sizes).finish() == alone


def test_mixed_channels_that_differ_are_told(center, voices, caplog):
    caller, agent = voices["gil"][1], np.resize(voices["elena"][1], len(voices["gil"][1]))
    session = fed(center.stream(), np.stack([agent, caller], axis=1), 800)
    with caplog.at_level(logging.WARNING):
        assert session.finish().feedback[0] == "channels_differ"
    assert (
        "channels_differ" not in fed(center.stream(), np.stack([caller] * 2, axis=1), 800).finish().feedback
    )


def test_of_channels_that_cancel_the_loudest_is_heard(center, voices):
    caller = voices["gil"][1]
    alone = fed(center.stream(), caller, 333).finish()
    for copy in (-caller, -0.8 * caller):
        for sizes in (333, [1, 2, 50_000]):
            result = fed(center.stream(), np.stack([caller, copy], axis=1), sizes).finish()
            assert result.feedback[0] == "channels_cancel"
            assert result.caller_id == "gil"
            assert result.similarity == pytest.approx(alone.similarity, abs=1e-3)


def test_a_call_may_change_its_channels(center, voices):
    caller = voices["gil"][1]
    half = len(caller) // 2
    session = fed(center.stream(), np.stack([caller[:half], -caller[:half]], axis=1), 800)
    fed(session, caller[half:], 800)
    assert session.finish().caller_id == "gil"


# Decisions


@pytest.mark.parametrize(
    ("change", "verdict"),
    [("opt_out", "opted_out"), ("delete_caller", "not_enrolled")],
)
def test_a_caller_who_refuses_during_the_call_is_not_named_at_its_end(voices, change, verdict):
    recognizer = enrolled(voices, CALLERS)
    recognizer.update_metadata("amara", {"plan": "secret"})
    audio = np.concatenate(voices["amara"][1:])
    with recognizer.stream() as session:
        first = 0
        while not session.result().decided:
            session.feed(audio[first : first + 320])
            first += 320
        assert session.result().caller_id == "amara"
        getattr(recognizer, change)("amara")
        session.feed(audio[first:])
        final = session.finish()
    assert (final.verdict, final.accepted, final.caller_id, final.metadata) == (verdict, False, None, {})
    assert "secret" not in repr(final.model_dump())


def test_enrolled_caller_is_decided_long_before_the_end_and_stays(center, voices):
    audio = np.concatenate(voices["amara"][1:])
    session = center.stream()
    answers = []
    for first in range(0, len(audio), 320):
        session.feed(audio[first : first + 320])
        answers.append(session.result())
    decided = [answer for answer in answers if answer.decided]
    assert decided[0].accepted
    assert decided[0].caller_id == "amara"
    assert decided[0].metadata == {"name": "Amara"}
    assert decided[0].net_speech_s < 5.0
    assert {answer.similarity for answer in decided} == {decided[0].similarity}
    assert decided[-1].audio_s > decided[0].audio_s
    assert not answers[0].decided
    assert answers[0].caller_id is None


PIECES = st.one_of(
    st.tuples(st.sampled_from([*CALLERS, "ivo"]), st.sampled_from([1.0, 2.5, 6.0])),
    st.tuples(st.sampled_from(["tone", "ring-back", "silence", "hiss"]), st.sampled_from([0.3, 1.0, 4.0])),
)


def mixture(voices, pieces):
    """Pieces of speech, tones, silence and hiss, one after the other."""
    chance = np.random.default_rng(len(pieces))
    parts = []
    for place, (kind, seconds) in enumerate(pieces):
        time = np.arange(round(seconds * RATE)) / RATE
        if kind in voices:
            audios = voices[kind]
            part = np.resize(audios[place % len(audios)], len(time))
        elif kind == "tone":
            part = 0.3 * np.sin(2 * np.pi * 1000 * time)
        elif kind == "ring-back":
            part = 0.15 * (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time))
        else:
            part = (3e-4 if kind == "hiss" else 0.0) * chance.standard_normal(len(time))
        parts.append(part.astype(np.float32))
    return np.concatenate(parts)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, min_size=1, max_size=7))
def test_decision_is_never_withdrawn(center, voices, pieces):
    audio = mixture(voices, pieces)
    session = center.stream(sample_rate=RATE)
    decided = None
    for start in range(0, len(audio), 4000):
        session.feed(audio[start : start + 4000])
        answer = session.result()
        if decided is not None:
            assert answer.decided
            assert (answer.caller_id, answer.accepted) == decided
        elif answer.decided:
            decided = answer.caller_id, answer.accepted
    final = session.finish()
    assert final.final
    if decided is not None and decided[1]:
        assert (final.caller_id, final.accepted) == decided
    elif decided is not None:
        assert not final.accepted


def test_decision_stands_when_the_line_ends_in_tones_and_another_voice(center, voices):
    session = fed(center.stream(sample_rate=RATE), voices["amara"][1], 320)
    assert session.result().decided
    rest = mixture(
        voices, [("tone", 4.0), ("hakan", 6.0), ("hakan", 6.0), ("hakan", 6.0), ("ring-back", 4.0)]
    )
    final = fed(session, rest, 320).finish()
    assert (final.caller_id, final.accepted) == ("amara", True)


def test_tones_and_pauses_do_not_delay_what_the_speech_says(center, voices):
    audio = mixture(voices, [("ring-back", 4.0), ("tone", 1.0), ("silence", 4.0)])
    final = fed(center.stream(sample_rate=RATE), np.concatenate((audio, voices["gil"][1])), 320).finish()
    assert (final.caller_id, final.accepted) == ("gil", True)
    assert "tones" in final.feedback


def test_stranger_is_decided_to_be_nobody_after_some_seconds(voices):
    recognizer = enrolled(voices, ["bruno", "carlo"])
    session = fed(recognizer.stream(), np.concatenate(voices["hakan"]), 320)
    answer = session.result()
    assert answer.decided
    assert not answer.accepted
    assert answer.net_speech_s >= 6.0


def test_decision_does_not_depend_on_how_often_one_asks(center, voices):
    audio = np.concatenate(voices["amara"][1:3])
    often = center.stream()
    for first in range(0, len(audio), 320):
        often.feed(audio[first : first + 320])
        often.result()
    assert fed(center.stream(), audio, 320).result() == often.result()


def test_last_seen_moves_once_when_the_decision_is_made(voices):
    recognizer = enrolled(voices, ["amara", "bruno"])
    before = recognizer.get_caller("amara").last_seen
    session = fed(recognizer.stream(), voices["amara"][1], 320)
    assert session.result().decided
    moved = recognizer.get_caller("amara").last_seen
    assert moved > before
    session.finish()
    assert recognizer.get_caller("amara").last_seen == moved


def test_last_seen_of_a_caller_who_is_not_accepted_stays(voices):
    recognizer = enrolled(voices, ["amara", "bruno"])
    before = [caller.last_seen for caller in recognizer.callers()]
    fed(recognizer.stream(), voices["hakan"][1], 320).finish()
    assert [caller.last_seen for caller in recognizer.callers()] == before


def test_only_the_candidates_are_looked_at_and_the_threshold_counts(center, voices):
    among = fed(center.stream(candidates=["bruno", "nobody"]), voices["amara"][1], 999).finish()
    assert among.caller_id == "bruno"
    strict = fed(center.stream(threshold=1.0), voices["amara"][1], 999).finish()
    assert (strict.caller_id, strict.accepted) == ("amara", False)


def test_nobody_is_named_where_nobody_is_enrolled(voices):
    session = fed(OpusAgentVoiceRecognizer(MemoryStorage()).stream(), np.concatenate(voices["gil"]), 999)
    assert session.result().decided
    final = session.finish()
    assert (final.caller_id, final.similarity, final.accepted) == (None, None, False)

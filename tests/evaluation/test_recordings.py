"""Finding recordings, cutting them, and choosing what is enrolled and what is probed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voices import RATE, SAMPLES, Voices

from voiceprint import InvalidArgumentError
from voiceprint.audio.speech import vad
from voiceprint.evaluation import Skip
from voiceprint.evaluation.recordings import Division, Place, cut, divide, find_calls, find_speakers


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


# Finding


def test_speakers_are_the_folders_with_recordings_at_any_depth(tmp_path: Path) -> None:
    for name in (
        "b/2.FLAC",
        "b/1.wav",
        "a/chapter/x.ogg",
        "a/y.mp3",
        "c/notes.txt",
        "d/.hidden.wav",
        "e.wav",
    ):
        touch(tmp_path / name)
    found = find_speakers([tmp_path])
    assert [speaker.name for speaker in found] == ["a", "b"]
    assert [path.relative_to(tmp_path).as_posix() for speaker in found for path in speaker.files] == [
        "a/chapter/x.ogg",
        "a/y.mp3",
        "b/1.wav",
        "b/2.FLAC",
    ]


def test_a_sub_folder_is_a_session_and_so_is_a_file_in_none(tmp_path: Path) -> None:
    for name in ("a/monday/1.wav", "a/monday/deep/2.wav", "a/tuesday/1.wav", "a/x.wav", "a/y.wav"):
        touch(tmp_path / name)
    (speaker,) = find_speakers([tmp_path])
    assert {session: [file.name for file in files] for session, files in speaker.sessions.items()} == {
        "monday": ["1.wav", "2.wav"],
        "tuesday": ["1.wav"],
        "x.wav": ["x.wav"],
        "y.wav": ["y.wav"],
    }


def test_several_folders_are_put_together_unless_a_speaker_is_in_two(tmp_path: Path) -> None:
    touch(tmp_path / "one/a/1.wav")
    touch(tmp_path / "two/b/1.wav")
    assert [s.name for s in find_speakers([tmp_path / "two", tmp_path / "one"])] == ["a", "b"]
    touch(tmp_path / "two/a/1.wav")
    with pytest.raises(InvalidArgumentError, match="The speaker 'a' is in two of the folders"):
        find_speakers([tmp_path / "one", tmp_path / "two"])


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    touch(tmp_path / "far/1.wav")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(tmp_path / "far")
    assert [path.name for s in find_speakers([tmp_path / "in"]) for path in s.files] == ["1.wav"]


def test_no_recordings_and_no_folder_are_errors_that_say_what_is_wanted(tmp_path: Path) -> None:
    touch(tmp_path / "1.wav")
    with pytest.raises(InvalidArgumentError, match=r"DIR/SPEAKER/\*\.wav"):
        find_speakers([tmp_path])
    with pytest.raises(InvalidArgumentError, match="No such file"):
        find_speakers([tmp_path / "nowhere"])
    with pytest.raises(InvalidArgumentError, match="Not a directory"):
        find_speakers([tmp_path / "1.wav"])


# Cutting


def test_net_pieces_hold_as_much_speech_as_asked_and_do_not_overlap(voices: Voices) -> None:
    pause = np.zeros(RATE, np.float32)
    audio = np.concatenate([pause, voices["amara"][0], pause, pause, voices["amara"][1]])
    mask = vad.speech_mask(audio)
    pieces = cut(audio, 2.0)
    assert len(pieces) == mask.sum() // (2 * RATE)
    assert len(pieces) >= 3
    for (start, end), (next_start, _) in zip(pieces, [*pieces[1:], (len(audio), 0)], strict=True):
        assert mask[start:end].sum() == 2 * RATE
        assert mask[start]
        assert mask[end - 1]
        assert end <= next_start
    assert max(end - start for start, end in pieces) > 2 * RATE, "one has a pause in it"


def test_by_the_clock_pieces_lie_end_to_end(voices: Voices) -> None:
    audio = voices["amara"][0][: 5 * RATE]
    assert cut(audio, 2.0, net=False) == [(0, 2 * RATE), (2 * RATE, 4 * RATE)]
    assert cut(audio, 5.0, net=False) == [(0, 5 * RATE)]
    assert cut(audio, 5.1, net=False) == []


def test_silence_gives_no_piece() -> None:
    assert cut(np.zeros(10 * RATE, np.float32), 1.0) == []
    assert cut(np.zeros(100, np.float32), 1.0) == []


# Dividing


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_no_speaker_with_several_sessions_is_enrolled_and_probed_from_one(
    pieces: list[int], prints: int, most: int, seed: int
) -> None:
    held = [count for count in pieces if count]
    division = divide(pieces, prints, most, np.random.default_rng(seed))
    # One of several sessions is left for the probes, best the shortest.
    left = 1 if len(held) == 1 else min(held, default=0)
    assert (division is not None) == (sum(held) - left >= prints)
    if division is None:
        return
    enrollment, probes = set(division.enrollment), set(division.probes)
    assert len(enrollment) == prints == len(division.enrollment)
    assert 1 <= len(probes) == len(division.probes) <= most
    assert not enrollment & probes
    assert all(place.piece < pieces[place.session] for place in enrollment | probes)
    enrolled = {place.session for place in enrollment}
    assert division.same_session == (len(held) == 1)
    assert division.same_session or not enrolled & {place.session for place in probes}
    if len(held) > prints:
        assert len(enrolled) == prints, "each print from a session of its own"


def test_one_session_is_enrolled_from_its_beginning_and_probed_after() -> None:
    division = divide([4], 2, 9, np.random.default_rng(0))
    assert division is not None
    assert division.enrollment == (Place(0, 0), Place(0, 1))
    assert division.probes == (Place(0, 2), Place(0, 3))
    assert division.same_session


def test_the_generator_decides_which_sessions_are_used() -> None:
    def chosen(seed: int) -> Division | None:
        return divide([1] * 9, 1, 3, np.random.default_rng(seed))

    assert len({chosen(seed) for seed in range(20)}) > 10
    assert chosen(7) == chosen(7)


def test_the_sample_voices_are_found() -> None:
    assert [len(speaker.files) for speaker in find_speakers([SAMPLES])] == [4] * 9


def test_what_is_left_out_of_a_folder_is_listed_but_for_what_is_hidden_or_about_it(tmp_path: Path) -> None:
    for name in ("a/1.wav", "a/notes.txt", "a/._1.wav", "README.md", ".git/x.wav", "top.wav", "data.bin"):
        touch(tmp_path / name)
    skipped: list[Skip] = []
    assert [speaker.name for speaker in find_speakers([tmp_path], skipped)] == ["a"]
    assert [Path(skip.what).name for skip in skipped] == ["notes.txt", "top.wav"]
    skipped.clear()
    assert [Path(call.name).name for call in find_calls([tmp_path], skipped)] == ["1.wav", "top.wav"]
    assert sorted(Path(skip.what).name for skip in skipped) == ["data.bin", "notes.txt"]

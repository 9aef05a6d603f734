"""The whole evaluation, from recordings to a report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import RATE, SAMPLES, BandEncoder, Voices, real_speech

from voiceprint import EncoderError, InvalidArgumentError
from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation import EmbeddingCache, Report, Settings, evaluate, parse_enrollment
from voiceprint.evaluation.page import as_json

QUICK = Settings(durations_s=(1.0,), splits=3, resamples=20)


class CountingEncoder(BandEncoder):
    """The encoder of the tests, which counts what it embeds."""

    def __init__(self) -> None:
        self.count = 0

    def embed(self, audio):  # type: ignore[no-untyped-def]
        self.count += 1
        return super().embed(audio)


def quick(folder: Path = SAMPLES, settings: Settings = QUICK, **given: object) -> Report:
    return evaluate(folder, settings, encoder=BandEncoder(), **given)  # type: ignore[arg-type]


# With the product's own encoder


@pytest.fixture(scope="module")
def sample_report() -> Report:
    """The sample voices: as they are, and over a telephone with and without such prints."""
    settings = Settings(
        enroll=((AS_IS,), parse_enrollment("as-is+telephone")),
        probe=(AS_IS, Condition("telephone")),
        durations_s=(2.0,),
        splits=5,
        resamples=50,
        unknown_share=0.3,
    )
    return evaluate(SAMPLES, settings, encoder=OnnxEncoder(1))


def test_the_sample_voices_are_told_apart(sample_report: Report) -> None:
    clean = sample_report.runs[0]
    assert clean.name == "as-is \u2192 as-is, 2 s, 1 print"
    assert (clean.material.speakers, clean.material.same_session, clean.material.dropped) == (9, 0, ())
    assert clean.verification is not None
    assert clean.verification.targets == clean.material.probes >= 27
    assert clean.verification.impostors == 8 * clean.material.probes
    assert clean.verification.eer.value < 0.05
    assert [one.gallery for one in clean.open_set] == [2, 5, 6]
    assert [one.gallery for one in clean.closed_set] == [2, 5, 6, 9]
    assert clean.closed_set[-1].rank_one.value >= 0.95


def test_a_telephone_makes_it_harder_and_enrollment_under_one_easier_again(sample_report: Report) -> None:
    errors = {
        (run.enroll, run.probe): run.verification.eer.value for run in sample_report.runs if run.verification
    }
    assert errors["as-is", "telephone"] > errors["as-is", "as-is"]
    assert errors["as-is+telephone", "telephone"] < errors["as-is", "telephone"]


def test_what_so_few_voices_cannot_show_is_named(sample_report: Report) -> None:
    (skip,) = [skip for skip in sample_report.runs[0].skipped if "FPIR 1 %" in skip.what]
    assert "100 probes of unknown speakers are needed" in skip.why
    assert not skip.asked
    assert [at.fpir for at in sample_report.runs[0].open_set[0].at_fpir] == [0.05]


@pytest.mark.speech
@pytest.mark.skipif(not (real_speech() / "librispeech").is_dir(), reason="no real speech: see shared/data")
def test_real_speakers_are_told_apart(tmp_path: Path) -> None:
    folder = real_speech() / "librispeech/test-other"
    report = evaluate(folder, Settings(durations_s=(3.0,), most_probes=2, splits=2), encoder=OnnxEncoder(1))
    found = report.runs[0].verification
    assert found is not None
    assert report.runs[0].material.speakers == 10
    assert found.eer.value < 0.1


# Sessions


def test_sessions_are_told_apart_by_folder_and_a_single_one_is_counted(tmp_path: Path) -> None:
    for name in ("amara", "bruno", "carlo"):
        for number in (1, 2, 3, 4):
            folder = tmp_path / name / ("monday" if number < 3 or name == "carlo" else "tuesday")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLES / name / f"{number}.flac", folder)
    found = quick(tmp_path).sessions
    assert (found.speakers, found.same, found.single_files) == (3, 1, 0)
    assert found.summary == (
        "Sessions: 2 of 3 speakers are probed with another session than they were enrolled from.",
        "Same session for 1 of 3 speakers: real accuracy is lower.",
    )


def test_the_files_of_a_session_are_joined(tmp_path: Path, voices: Voices) -> None:
    for name in ("amara", "bruno", "carlo"):
        for session in (0, 1):
            audio = voices[name][session]
            for number, part in enumerate(np.array_split(audio, 5)):
                write(tmp_path / name / str(session) / f"{number}.wav", part)
    settings = Settings(durations_s=(2.0,), splits=3, resamples=0)
    assert quick(tmp_path, settings).runs[0].material.speakers == 3


def test_files_in_no_session_folder_are_said_to_count_as_sessions() -> None:
    found = quick().sessions
    assert (found.speakers, found.same, found.single_files) == (9, 0, 9)
    assert "Each file counts as a session for 9 of 9 speakers." in found.summary[1]


def test_sessions_that_are_too_short_to_be_kept_apart_leave_the_speaker_out(
    tmp_path: Path, voices: Voices
) -> None:
    for name in ("amara", "bruno", "carlo"):
        for session in (0, 1):
            write(tmp_path / name / str(session) / "1.wav", voices[name][session])
    write(tmp_path / "dario/0/1.wav", voices["dario"][0][: 3 * RATE])
    write(tmp_path / "dario/1/1.wav", voices["dario"][1][: 3 * RATE])
    settings = Settings(durations_s=(1.0,), prints=(3,), splits=3, resamples=0)
    (skip,) = quick(tmp_path, settings).runs[0].material.dropped
    assert (skip.what, skip.why) == (
        "dario",
        "the sessions are too short for 3 prints and a probe of another session",
    )


def test_json_begins_with_the_sessions() -> None:
    assert list(quick().as_dict())[:2] == ["format", "sessions"]


# The same in, the same out


@pytest.mark.slow
def test_the_report_is_the_same_to_the_byte_cached_or_not_and_wherever_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        durations_s=(1.0,), probe=(Condition.parse("telephone:snr=15"),), splits=3, resamples=20
    )
    for place in ("one", "two"):
        shutil.copytree(SAMPLES, tmp_path / place / "voices")
    monkeypatch.chdir(tmp_path / "one")
    cache = EmbeddingCache(tmp_path / "cache")
    first, second = (as_json(quick(Path("voices"), settings, cache=cache)) for _ in range(2))
    monkeypatch.chdir(tmp_path / "two")
    assert first == second == as_json(quick(Path("voices"), settings))
    assert cache.hits == cache.misses > 0
    values = json.loads(first)
    assert values["format"] == 1
    assert values["settings"]["probe"] == ["telephone:snr=15"]


def test_another_seed_draws_others() -> None:
    other = Settings(durations_s=(1.0,), splits=3, resamples=20, seed=1)
    assert as_json(quick()) != as_json(quick(settings=other))


def test_one_speaker_more_leaves_the_pieces_of_the_others(tmp_path: Path) -> None:
    settings = replace(QUICK, more_prints=None)
    cache = EmbeddingCache(tmp_path / "cache")
    shutil.copytree(SAMPLES, tmp_path / "voices")
    shutil.rmtree(tmp_path / "voices/carlo")
    quick(tmp_path / "voices", settings, cache=cache)
    misses = cache.misses
    shutil.copytree(SAMPLES / "carlo", tmp_path / "voices/carlo")
    quick(tmp_path / "voices", settings, cache=cache)
    assert 0 < cache.misses - misses <= QUICK.most_probes + 1


def test_each_piece_is_embedded_once_under_each_condition(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    once = Settings(durations_s=(1.0,), splits=1, resamples=0, most_probes=2, more_prints=None)
    evaluate(SAMPLES, once, encoder=encoder)
    assert encoder.count == 9 * (1 + 2)
    conditions = Settings(
        enroll=((AS_IS,), parse_enrollment("as-is+noise:snr=20")),
        durations_s=(1.0,), splits=1, resamples=0, most_probes=2, more_prints=None,
    )  # fmt: skip
    encoder.count = 0
    evaluate(SAMPLES, conditions, encoder=encoder)
    assert encoder.count == 9 * (2 + 2)


def test_progress_is_told_from_the_first_to_the_last() -> None:
    shown: list[tuple[str, int, int]] = []
    quick(progress=lambda *step: shown.append(step))
    assert shown == [
        *[("Checking channels", n, 36) for n in range(37)],
        *[("Embedding", n, 9) for n in range(10)],
        *[("Measuring", n, 1) for n in range(2)],
    ]


# What cannot be measured


def write(path: Path, audio: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, RATE)


def test_speakers_with_too_little_speech_and_files_that_are_no_audio_are_named(
    tmp_path: Path, voices: Voices
) -> None:
    for name in ("amara", "bruno", "carlo"):
        write(tmp_path / name / "1.wav", np.concatenate(voices[name]))
    write(tmp_path / "dario/1.wav", voices["dario"][0][: RATE // 2])
    (tmp_path / "amara/2.wav").write_bytes(b"no audio")
    report = quick(tmp_path)
    run = report.runs[0]
    assert [skip.what for skip in run.material.dropped] == ["dario"]
    assert run.material.dropped[0].why == "0 of the 2 pieces of 1 s of speech that are needed"
    assert run.material.same_session == 3
    assert [skip.what for skip in report.unreadable] == [str(tmp_path / "amara/2.wav")]
    assert "Cllr" in {skip.what for skip in run.skipped}


def test_a_gallery_that_is_too_large_is_named_as_asked_for() -> None:
    report = quick(settings=Settings(durations_s=(1.0,), gallery=(4, 6, 50), splits=1, resamples=0))
    asked = {skip.what: skip.why for skip in report.runs[0].skipped if skip.asked}
    assert asked == {
        "closed-set search of 50 callers": "there are 9",
        "open-set search of 6 callers": "4 of 9 speakers are held out, which leaves 5",
        "open-set search of 50 callers": "4 of 9 speakers are held out, which leaves 5",
    }
    assert [one.gallery for one in report.runs[0].closed_set] == [4, 6]


def test_a_run_without_enough_speakers_is_named_and_the_others_go_on() -> None:
    report = quick(settings=Settings(durations_s=(1.0, 60.0), splits=1, resamples=0))
    good, empty = report.runs
    assert good.verification is not None
    assert empty.verification is None
    assert [(skip.what, skip.asked) for skip in empty.skipped] == [("everything", True)]
    assert len(empty.material.dropped) == 9


def test_without_any_run_that_has_two_speakers_it_is_an_error() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"0 of the speakers can be measured .* amara: \d of the 2 pieces"
    ):
        quick(settings=Settings(durations_s=(60.0,)))


def test_without_unknown_speakers_open_set_search_is_named_as_left_out() -> None:
    report = quick(settings=Settings(durations_s=(1.0,), unknown_share=0.0, resamples=0))
    assert report.runs[0].open_set == ()
    assert "open-set search" in {skip.what for skip in report.runs[0].skipped}
    assert report.runs[0].closed_set


def test_an_encoder_that_cannot_be_loaded_is_an_error_and_not_audio_without_speech() -> None:
    class Broken(BandEncoder):
        def warm_up(self) -> None:
            raise EncoderError("The network is not there.")

    with pytest.raises(EncoderError, match="not there"):
        evaluate(SAMPLES, QUICK, encoder=Broken())


def test_probes_in_which_the_encoder_finds_no_speech_are_counted() -> None:
    class Deaf(BandEncoder):
        def __init__(self) -> None:
            self.calls = 0

        def embed(self, audio):  # type: ignore[no-untyped-def]
            self.calls += 1
            if self.calls % 4 == 0:
                raise EncoderError("The audio holds no speech to embed.")
            return super().embed(audio)

    run = evaluate(SAMPLES, QUICK, encoder=Deaf()).runs[0]
    assert run.material.failed_probes > 5
    assert run.material.speakers + len(run.material.dropped) == 9
    assert run.verification is not None
    assert run.verification.targets == run.material.probes

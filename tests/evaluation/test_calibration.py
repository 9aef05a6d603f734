"""Calibrating by labeled recordings: from recordings to a file that is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gaussian_voices
import numpy as np
import pytest
from voices import SAMPLES, BandEncoder, real_speech

from voiceprint import InvalidArgumentError
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation import EmbeddingCache, calibrate
from voiceprint.evaluation.calibration_fit import Calls, Enrollment, deviates, fit, measure, search
from voiceprint.scoring import Calibration, CallerPrints, GalleryScorer
from voiceprint.scoring.calibration import OFFSET, SCALE

Run = Callable[..., tuple[int, str, str]]
BRIEF = ("--duration", "2", "--most-pieces", "4")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def some_callers(count: int, folder: Path) -> Path:
    for caller in sorted(path for path in SAMPLES.iterdir() if path.is_dir())[:count]:
        shutil.copytree(caller, folder / caller.name)
    return folder


# The numbers, on voices of a known model


def known_calls(speakers: int, *, line: float = 0.0, seed: int = 3) -> Calls:
    """Each speaker enrolled from a clear call, and two calls over a line that shifts all embeddings."""
    clear, _ = gaussian_voices.voices(speakers, 3, seed=seed)
    probes, owners = gaussian_voices.voices(speakers, 3, seed=seed, shift=line)
    other = np.arange(len(probes)) % 3 > 0
    numbers = np.arange(len(probes))
    enrollments = {
        one: [Enrollment(3 * one, CallerPrints(clear[3 * one, None], clear[:0]), -1)]
        for one in range(speakers)
    }
    return Calls(probes[other], owners[other], numbers[other], enrollments)


def test_strangers_as_the_gallery_expects_them_leave_the_rate() -> None:
    searched = search(known_calls(80), range(80), gaussian_voices.IDENTITY, 0)
    found = fit(searched, "toy")
    assert found.stranger_shift == pytest.approx(0.0, abs=0.25)
    assert found.stranger_spread == pytest.approx(1.0, abs=0.2)
    assert found.space == "toy"


def test_calls_over_another_line_are_named_as_often_as_wanted_after_a_calibration() -> None:
    calls = known_calls(160, line=0.6)
    halves = [search(calls, half, gaussian_voices.IDENTITY, 0) for half in (range(80), range(80, 160))]
    before = measure([(Calibration(), halves[1])])
    after = measure([(fit(halves[0], ""), halves[1])])
    wanted, got = before.at_target[1], after.at_target[1]
    assert (wanted.target, got.target) == (0.05, 0.05)
    assert abs(np.log(got.fpir / 0.05)) < abs(np.log(wanted.fpir / 0.05))
    assert 0.02 <= got.fpir <= 0.1
    assert after.cllr < before.cllr


def test_few_speakers_leave_the_package_calibration_nearly_as_it_is() -> None:
    few = fit(search(known_calls(20), range(20), gaussian_voices.IDENTITY, 0), "")
    many = fit(search(known_calls(200), range(200), gaussian_voices.IDENTITY, 0), "")
    assert abs(few.scale - SCALE) < abs(many.scale - SCALE)
    assert abs(few.offset - OFFSET) < abs(many.offset - OFFSET)


def test_a_speaker_is_never_probed_with_the_enrolled_call() -> None:
    calls = known_calls(40)
    first = [CallerPrints(calls.probes[2 * one, None], calls.probes[:0]) for one in range(40)]
    same = calls._replace(enrollments={n: [Enrollment(3 * n + 1, first[n], 2 * n)] for n in range(40)})
    for one in search(same, range(40), gaussian_voices.IDENTITY, 0):
        known = one.columns >= 0
        assert known.sum() == 20, "one of the two calls of each"
        assert (~known).sum() == 40, "both calls of each stranger"
    one_call = Calls(
        calls.probes,
        calls.speakers,
        np.repeat(np.arange(40), 2),
        {n: [Enrollment(n, first[n], 2 * n)] for n in range(40)},
    )
    for one in search(one_call, range(40), gaussian_voices.IDENTITY, 0):
        assert (one.columns >= 0).sum() == 20, "the other piece of the only call"


def test_small_galleries_in_a_space_without_a_prior_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="calibrate with more speakers"):
        search(known_calls(8), range(8), gaussian_voices.IDENTITY, 0)


def test_deviates_are_those_of_the_rate_at_the_size_of_the_gallery() -> None:
    scorer = GalleryScorer(gaussian_voices.IDENTITY, gaussian_voices.callers(20))
    assert scorer.statistics is not None
    scores = np.array([scorer.statistics.threshold(rate, 20) for rate in (0.5, 0.05, 0.01)])
    drawn = np.random.default_rng(1).standard_normal((200_000, 19)).max(axis=1)
    expected = (np.quantile(drawn, [0.5, 0.95, 0.99]) - drawn.mean()) / drawn.std()
    assert deviates(scores, scorer.statistics, 20) == pytest.approx(expected, abs=0.03)
    assert np.isfinite(deviates(np.array([-1e9, 1e9]), scorer.statistics, 20)).all()


# From recordings


@pytest.mark.slow
def test_the_sample_voices_are_calibrated_shown_and_written(
    run: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("calibrate", SAMPLES, *BRIEF, "--cache", cache)
    assert (code, err) == (0, "")
    assert out.startswith("9 speakers, 36 pieces.\n")
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("before", "after"))] == [
        "before",
        "after",
    ]
    assert "FPIR / FNIR, target 1 %" in out
    assert "VOICE_CALIBRATION_PATH=calibration.json" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    made = Calibration.load("calibration.json")
    assert made != Calibration()
    assert made.space == "resemblyzer"
    assert made.about == {"source": "labeled", "speakers": 9, "pieces": 36}
    # The evaluation takes it from the settings.
    monkeypatch.setenv("VOICE_CALIBRATION_PATH", "calibration.json")
    brief = ("--duration", "2", "--splits", "2", "--cache", cache, "--json")
    mine = run("evaluate", SAMPLES, *brief)
    monkeypatch.delenv("VOICE_CALIBRATION_PATH")
    assert mine == run("evaluate", SAMPLES, *brief, "--calibration", "calibration.json")
    assert mine != run("evaluate", SAMPLES, *brief)


def test_the_same_recordings_give_the_same_file(cache: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        found = calibrate(
            SAMPLES, encoder=OnnxEncoder(1), duration_s=2.0, most_pieces=4, cache=EmbeddingCache(cache)
        )
        found.calibration.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert found.one_recording == 0
    assert found.gallery == 3


@pytest.mark.resemblyzer
def test_json_has_both_sides_and_the_file(run: Run, cache: Path, tmp_path: Path) -> None:
    options = ("--labeled", SAMPLES, "--output", tmp_path / "c.json", "--cache", cache, "--json")
    code, out, _ = run("calibrate", *options, *BRIEF)
    shown = json.loads(out)
    assert code == 0
    assert shown["before"].keys() == shown["after"].keys() == {"cllr", "at_target"}
    assert [at["target"] for at in shown["after"]["at_target"]] == [0.01, 0.05]
    assert (shown["speakers"], shown["file"]) == (9, str(tmp_path / "c.json"))
    assert Calibration(**shown["calibration"]) == Calibration.load(tmp_path / "c.json")


def test_too_few_speakers_are_told_how_many_it_takes_and_nothing_is_written(
    run: Run, cache: Path, tmp_path: Path
) -> None:
    folder = some_callers(5, tmp_path / "in")
    code, out, err = run("calibrate", folder, "--output", tmp_path / "c.json", "--cache", cache, *BRIEF)
    assert (code, out) == (2, "")
    assert "Error: A calibration needs 8 speakers or more" in err
    assert "there are 5" in err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.resemblyzer
def test_a_recording_that_cannot_be_read_is_named_and_the_file_written(
    run: Run, cache: Path, tmp_path: Path
) -> None:
    folder = some_callers(9, tmp_path / "in")
    next(folder.iterdir()).joinpath("9.wav").write_bytes(b"no audio")
    code, out, _ = run("calibrate", folder, "--output", tmp_path / "c.json", "--cache", cache, *BRIEF)
    assert code == 1
    assert "A recording could not be read" in out
    assert (tmp_path / "c.json").exists()


def test_speakers_with_one_recording_are_said_to_be_easier(cache: Path, tmp_path: Path) -> None:
    for caller in (path for path in SAMPLES.iterdir() if path.is_dir()):
        (tmp_path / caller.name).mkdir()
        shutil.copy(caller / "1.flac", tmp_path / caller.name)
    found = calibrate(tmp_path, encoder=OnnxEncoder(1), duration_s=1.0, cache=EmbeddingCache(cache))
    assert found.one_recording == found.speakers


@pytest.mark.parametrize("given", [{"duration_s": 0.0}, {"duration_s": 61.0}, {"most_pieces": 1}])
def test_options_out_of_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        calibrate(SAMPLES, **given)  # type: ignore[arg-type]


def test_another_encoder_takes_more_speakers_as_the_package_has_no_prior_for_it() -> None:
    with pytest.raises(InvalidArgumentError, match="test-bands: calibrate with more speakers"):
        calibrate(SAMPLES, encoder=BandEncoder(), duration_s=2.0, most_pieces=2)


@pytest.mark.parametrize("content", [b"mine", b""])
def test_a_place_that_is_not_for_it_is_refused_before_the_work(
    run: Run, tmp_path: Path, content: bytes
) -> None:
    code, _, err = run("calibrate", SAMPLES, "--output", tmp_path / "nowhere/c.json")
    assert code == 2
    assert "there is no folder" in err
    if content:
        (tmp_path / "c.json").write_bytes(content)
        code, _, err = run("calibrate", SAMPLES, "--output", tmp_path / "c.json")
        assert code == 2
        assert "cannot write" in err
        assert (tmp_path / "c.json").read_bytes() == content


def test_a_store_is_no_gallery_of_labeled_recordings(run: Run, tmp_path: Path) -> None:
    code, _, err = run("calibrate", SAMPLES, "--store", f"json:{tmp_path / 's.json'}")
    assert code == 2
    assert "--store goes with --calls" in err


@pytest.mark.slow
@pytest.mark.speech
def test_mobile_phones_with_children_are_calibrated(tmp_path: Path) -> None:
    speech = real_speech() / "speechocean762"
    if not speech.is_dir():
        pytest.skip(f"the real speech is not there: {speech} (VOICE_TEST_DATA names its folder)")
    for speaker in sorted(path for path in speech.iterdir() if path.is_dir())[::5]:
        (tmp_path / speaker.name).symlink_to(speaker)
    found = calibrate(tmp_path, encoder=OnnxEncoder(1), duration_s=2.0, most_pieces=3)
    assert found.speakers >= 20
    assert found.after.cllr < 1.0
    assert found.after.at_target[1].fpir <= 0.15
    assert found.calibration.stranger_shift == pytest.approx(0.0, abs=0.6)
    assert found.calibration.stranger_spread == pytest.approx(1.0, abs=0.3)


def test_prompts_are_left_out_of_recordings_of_known_speakers() -> None:
    with pytest.raises(InvalidArgumentError, match="amara: "):
        calibrate(SAMPLES, encoder=OnnxEncoder(1), duration_s=1.0, most_pieces=2, prompts=str(SAMPLES))

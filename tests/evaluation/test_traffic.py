"""Calibrating by calls whose callers nobody knows, against the callers of a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import RATE, SAMPLES, Audio, Voices, load_voices, real_speech

from voiceprint import (
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    StorageUnavailableError,
    VoiceFingerprintConfig,
    load_audio,
)
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation import EmbeddingCache, calibrate_by_calls
from voiceprint.evaluation.traffic import LEAST_CALLERS, Best, fit_calls, measure_halves
from voiceprint.scoring import Calibration, ImpostorStatistics

Run = Callable[..., tuple[int, str, str]]

STATISTICS = ImpostorStatistics(40, 39, -50.0, 25.0, 5.0, 10.0)
CONFIG = VoiceFingerprintConfig(enroll_simulated_lines=False, enrollment_duration=2.0, min_audio_quality=0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


def faster(audio: Audio, factor: float) -> Audio:
    """Another voice: all frequencies are so many times as high."""
    places = np.arange(0, len(audio) - 1, factor)
    return np.interp(places, np.arange(len(audio)), audio).astype(np.float32)


def enrolled(voices: Voices) -> dict[str, Audio]:
    """The sample callers, and six more."""
    own = {name: some[0] for name, some in voices.items()}
    return own | {f"{name}-2": faster(own[name], 1.3) for name in list(own)[:6]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """15 callers."""
    path = tmp_path_factory.mktemp("store") / "voices.json"
    url = f"json:{path}"
    from voiceprint.storage import open_storage

    with OpusAgentVoiceRecognizer(open_storage(url), config=CONFIG, encoder=OnnxEncoder(1)) as recognizer:
        recognizer.enroll_many([(name, audio, None) for name, audio in enrolled(load_voices()).items()])
    return url


# On synthetic maxima


def best(strangers: int, known: int, *, shift: float = 0.0, spread: float = 1.0, seed: int = 0) -> Best:
    chance = np.random.default_rng(seed)
    found = np.concatenate([chance.normal(shift, spread, strangers), chance.normal(4.0, 1.0, known)])
    return Best(STATISTICS.best_mean + STATISTICS.best_std * found, STATISTICS, 40)


@pytest.mark.parametrize("known", [0, 40, 200, 360, 400])
def test_neither_all_known_nor_all_unknown_calls_fool_it(known: int) -> None:
    calibration, share = fit_calls(best(400 - known, known))
    assert share == pytest.approx(known / 400, abs=0.06)
    assert calibration.stranger_shift == pytest.approx(0.0, abs=0.25)
    assert calibration.stranger_spread == pytest.approx(1.0, abs=0.2)
    assert (calibration.scale, calibration.offset) == (Calibration().scale, Calibration().offset)


@pytest.mark.parametrize(("shift", "spread"), [(0.8, 1.2), (-1.0, 0.9)])
def test_each_half_calibrates_the_other_to_the_wanted_rate(shift: float, spread: float) -> None:
    before, after = measure_halves(best(500, 100, shift=shift, spread=spread))
    assert [at.target for at in after] == [0.01, 0.05]
    for one, other in zip(before, after, strict=True):
        assert abs(other.strangers - other.target) < abs(one.strangers - one.target)
        # Of the strangers who score as callers do, some are taken for callers.
        assert 0.2 * other.target <= other.strangers <= 1.6 * other.target
        assert other.stranger_calls == pytest.approx(500 * other.strangers, rel=0.3)
    assert 100 / 600 - 0.03 <= after[1].calls <= 100 / 600 + 0.1


def test_the_calibration_gives_strangers_the_wanted_rate() -> None:
    calibration, _ = fit_calls(best(2000, 200, shift=0.7, spread=1.2))
    scores = best(5000, 0, shift=0.7, spread=1.2, seed=9).scores
    for target in (0.01, 0.05):
        threshold = calibration.to_traffic_score(STATISTICS.threshold(target, 40), STATISTICS)
        assert np.mean(scores >= threshold) == pytest.approx(target, rel=0.5)


# From recordings


@pytest.mark.slow
def test_the_sample_voices_call_a_store_they_are_enrolled_in(
    run: Run, store: str, cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--calls", SAMPLES, "--store", store, "--cache", cache.folder)
    code, out, err = run("calibrate", *options)
    assert (code, err) == (0, "")
    assert out.startswith("36 calls, 15 callers in the store.\nEstimated: ")
    assert "VOICE_CALIBRATION_PATH=calibration.json" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    made = Calibration.load("calibration.json")
    assert made.about["known_share"] > 0.7, "all are enrolled"
    assert made.about | {"known_share": 1} == {
        "source": "calls",
        "calls": 36,
        "callers": 15,
        "known_share": 1,
    }
    assert abs(made.stranger_shift) < 0.5
    first = Path("calibration.json").read_bytes()
    code, out, _ = run("calibrate", *options, "--json")
    shown = json.loads(out)
    assert Path("calibration.json").read_bytes() == first
    assert (shown["calls"], shown["callers"], shown["file"]) == (36, 15, "calibration.json")
    assert [at["target"] for at in shown["after"]] == [0.01, 0.05]
    # A calibration that is in use changes nothing of what is measured.
    monkeypatch.setenv("VOICE_CALIBRATION_PATH", "calibration.json")
    assert run("calibrate", *options, "--json")[1] == out
    identify = ("identify", SAMPLES / "amara/2.flac", "--store", store, "--json")
    assert json.loads(run(*identify)[1])


@pytest.fixture
def recognizer(voices: Voices) -> Iterator[OpusAgentVoiceRecognizer]:
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=CONFIG, encoder=OnnxEncoder(1)) as made:
        made.enroll_many([(name, audio, None) for name, audio in enrolled(voices).items()])
        yield made


def test_voices_that_nobody_enrolled_are_strangers(
    recognizer: OpusAgentVoiceRecognizer, cache: EmbeddingCache, voices: Voices, tmp_path: Path
) -> None:
    for name, some in voices.items():
        for number, audio in enumerate(some):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            soundfile.write(tmp_path / f"{number}/{name}.wav", faster(audio, 0.75), RATE)
    (tmp_path / "silent.wav").touch()
    soundfile.write(tmp_path / "0/silence.wav", np.zeros(RATE), RATE)
    found = calibrate_by_calls(tmp_path, recognizer, cache=cache)
    assert found.calls == 36
    assert found.known_share < 0.35
    assert [Path(skip.what).name for skip in found.dropped] == ["silence.wav"]
    assert [Path(skip.what).name for skip in found.unreadable] == ["silent.wav"]
    assert np.isfinite([found.calibration.stranger_shift, found.calibration.stranger_spread]).all()


@pytest.mark.slow
def test_too_few_calls_are_refused(
    recognizer: OpusAgentVoiceRecognizer, tmp_path: Path, cache: EmbeddingCache
) -> None:
    for number in range(29):
        (tmp_path / f"{number}.flac").symlink_to(SAMPLES / "amara/1.flac")
    with pytest.raises(InvalidArgumentError, match=r"30 calls with speech or more: there are 29$"):
        calibrate_by_calls(tmp_path, recognizer, cache=cache)
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    with pytest.raises(InvalidArgumentError, match="there are 29 of 30 recordings"):
        calibrate_by_calls(tmp_path, recognizer, cache=cache)


def test_too_few_callers_in_the_store_are_refused_before_the_work(voices: Voices) -> None:
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=CONFIG, encoder=OnnxEncoder(1)) as few:
        few.enroll_many([(name, some[0], None) for name, some in voices.items()])
        with pytest.raises(
            InvalidArgumentError, match=rf"{LEAST_CALLERS} enrolled callers or more: .* has 9"
        ):
            calibrate_by_calls(SAMPLES, few)


@pytest.mark.resemblyzer
def test_a_store_that_is_not_there_and_a_folder_without_calls_are_errors_of_the_command(
    run: Run, store: str, tmp_path: Path
) -> None:
    assert issubclass(StorageUnavailableError, Exception)
    code, _, err = run("calibrate", "--calls", SAMPLES, "--store", f"json:{tmp_path / 'no.json'}")
    assert code == 2
    assert "does not exist" in err
    for folder, says in ((tmp_path, "No recording in"), (tmp_path / "no", "cannot read the folder")):
        code, _, err = run("calibrate", "--calls", folder, "--store", store, "--output", tmp_path / "c.json")
        assert code == 2
        assert says in err
    assert not (tmp_path / "c.json").exists()


def test_a_duration_out_of_range_is_refused(recognizer: OpusAgentVoiceRecognizer) -> None:
    for duration in (0.0, 61.0):
        with pytest.raises(InvalidArgumentError, match="duration_s"):
            calibrate_by_calls(SAMPLES, recognizer, duration_s=duration)


@pytest.mark.slow
@pytest.mark.speech
def test_calls_of_mobile_phones_are_told_apart(tmp_path: Path, cache: EmbeddingCache) -> None:
    speech = real_speech() / "speechocean762"
    if not speech.is_dir():
        pytest.skip(f"the real speech is not there: {speech} (VOICE_TEST_DATA names its folder)")
    speakers = sorted(path for path in speech.iterdir() if path.is_dir())[:60]
    for kind in ("known", "unknown"):
        (tmp_path / kind).mkdir()
    samples = []
    for number, speaker in enumerate(speakers):
        audio = np.concatenate([load_audio(file)[0] for file in sorted(speaker.glob("*.flac"))])
        kind = "unknown" if number % 2 else "known"
        soundfile.write(tmp_path / f"{kind}/{number}.wav", audio[-4 * RATE :], RATE)
        if kind == "known":
            samples.append((speaker.name, audio[: 6 * RATE], None))
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=CONFIG, encoder=OnnxEncoder(1)) as mobile:
        mobile.enroll_many(samples)
        found = {
            kind: calibrate_by_calls(tmp_path / kind, mobile, cache=cache)
            for kind in ("known", "unknown", ".")
        }
    shares = {kind: one.known_share for kind, one in found.items()}
    assert shares["unknown"] < 0.15
    assert shares["known"] > 0.7
    assert 0.25 < shares["."] < 0.65
    for one in found.values():
        assert abs(one.calibration.stranger_shift) < 0.6
        assert 0.7 < one.calibration.stranger_spread < 1.3


def test_prompts_are_left_out_of_calls(
    recognizer: OpusAgentVoiceRecognizer,
    tmp_path: Path,
    cache: EmbeddingCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(30):
        (tmp_path / f"{number}.flac").symlink_to(SAMPLES / "amara/1.flac")
    monkeypatch.setattr(recognizer, "config", CONFIG.model_copy(update={"prompts": str(SAMPLES / "amara")}))
    with pytest.raises(InvalidArgumentError, match="there are 0 of 30 recordings"):
        calibrate_by_calls(tmp_path, recognizer, cache=cache)

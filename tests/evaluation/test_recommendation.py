"""The recommendation that an evaluation ends in is of the settings, and of what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import RATE, SAMPLES, BandEncoder, Voices

from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation import CalibratedScorer, CosineScorer, Report, Settings, evaluate
from voiceprint.evaluation.recommendation import Recommender
from voiceprint.evaluation.report import Estimate, Outcome
from voiceprint.evaluation.tables import rate, recommendations

pytestmark = pytest.mark.slow

QUICK = Settings(durations_s=(1.0,), splits=3, resamples=20)


def measured(settings: Settings = QUICK, threshold: float | None = 0.75, folder: Path = SAMPLES) -> Report:
    return evaluate(folder, settings, encoder=BandEncoder(), scorer=CosineScorer(threshold))


@pytest.fixture(scope="module")
def with_targets() -> Report:
    """A report on the product's encoder and both its scores, where a target FPIR of 2 % is configured."""
    settings = Settings(durations_s=(2.0,), splits=5, resamples=20, target_fpir=0.02)
    scorers = [CosineScorer(), CalibratedScorer("resemblyzer", 256)]
    return evaluate(SAMPLES, settings, encoder=OnnxEncoder(1), scorer=scorers)


def test_the_configured_threshold_is_said_with_what_it_gave() -> None:
    report = measured(threshold=0.9)
    (found,) = report.recommendations
    largest = report.runs[0].open_set[-1]
    assert found.current is not None
    assert largest.at_threshold is not None
    assert (found.current.setting, found.current.gallery) == ("VOICE_SIMILARITY_THRESHOLD=0.9", 5)
    at = largest.at_threshold
    assert (found.current.fpir, found.current.fnir) == (at.fpir, at.fnir)
    assert found.text[0].startswith(
        f"At your setting (VOICE_SIMILARITY_THRESHOLD=0.9) {rate(at.fpir)} of strangers get a name and "
        f"{rate(at.fnir)} of callers are missed in a gallery of 5."
    )


def test_the_configured_target_is_said_and_compared_with_others(with_targets: Report) -> None:
    (found,) = with_targets.recommendations
    (at,) = [one for one in with_targets.runs[1].open_set[-1].at_target if one.target == 0.02]
    assert found.current is not None
    assert (found.current.setting, found.current.fnir) == ("VOICE_TARGET_FPIR=0.02", at.fnir)
    assert [one.setting for one in found.others][:2] == ["VOICE_TARGET_FPIR=0.01", "VOICE_TARGET_FPIR=0.05"]
    assert found.text[0].startswith("At your setting (VOICE_TARGET_FPIR=0.02) ")
    assert any(word in found.text[1] for word in ("Keep it", "Set VOICE_"))


def test_a_threshold_that_names_too_many_strangers_is_replaced_by_one_that_names_fewer() -> None:
    (found,) = measured(threshold=0.0).recommendations
    assert found.current is not None
    assert found.current.fpir.value == 1.0
    (other,) = found.others
    assert other.variable == "VOICE_SIMILARITY_THRESHOLD"
    assert other.fpir.value == 0.05
    assert found.text[1].startswith(f"Set {other.setting} to get 5.0 % of strangers named and ")
    # Set so, it holds what was promised.
    (kept,) = measured(threshold=other.value).recommendations
    assert kept.current is not None
    assert kept.current.fpir.value <= 0.05
    assert kept.current.fnir.value == pytest.approx(other.fnir.value, abs=0.05)
    assert kept.text[1].startswith("Keep it for galleries of this size: ")


def test_a_setting_that_the_scores_do_not_measure_is_said_to_be_none() -> None:
    (found,) = measured(replace(QUICK, target_fpir=0.02)).recommendations
    assert found.current is None
    assert found.text[0] == "Your setting (VOICE_TARGET_FPIR=0.02) is not measured by these scores."
    assert "VOICE_SIMILARITY_THRESHOLD=0.75" in [one.setting for one in found.others]


def test_strangers_too_few_for_a_rate_still_give_a_recommendation() -> None:
    few = replace(QUICK, most_probes=1, unknown_share=0.2, resamples=0)
    for settings in (few, replace(few, target_fpir=0.01)):
        for threshold in (0.0, 1.0):
            (found,) = measured(settings, threshold).recommendations
            assert found.text[1].startswith(("Keep it", "Set VOICE_", "No setting measured"))


def outcome(target: float, fpir: Estimate, fnir: float) -> Outcome:
    return Outcome("VOICE_TARGET_FPIR", target, 10, 1, fpir, Estimate(fnir))


def test_a_setting_that_holds_gives_way_only_to_one_that_surely_does() -> None:
    recommender = Recommender([], Settings(target_fpir=0.01), {})
    holds = outcome(0.01, Estimate(0.0, 0.0, 0.1), 0.2)
    perhaps, surely = (outcome(0.05, Estimate(0.005, 0.0, high), 0.1) for high in (0.02, 0.01))
    assert recommender._best(holds, [perhaps]) is holds
    assert recommender._best(holds, [perhaps, surely]) is surely
    assert recommender._best(outcome(0.01, Estimate(0.03), 0.05), [perhaps]) is perhaps
    assert recommender._best(None, [perhaps, outcome(0.1, Estimate(0.02), 0.0)]) is perhaps


def test_more_prints_are_compared_on_the_same_speakers_and_probes(with_targets: Report) -> None:
    (found,) = with_targets.recommendations
    assert found.fewer_prints is not None
    assert found.more_prints is not None
    assert (found.fewer_prints.prints, found.more_prints.prints) == (1, 3)
    assert found.fewer_prints.setting == found.more_prints.setting
    assert found.fewer_prints.gallery == found.more_prints.gallery
    assert found.text[-1].startswith("More enrollment audio, 3 prints of 2 s instead of 1: at VOICE_")
    assert "(9 speakers who have enough recordings" in found.text[-1]


def recordings(folder: Path, voices: Voices, seconds: float) -> Path:
    """A session of each voice, of so many seconds."""
    for name, parts in voices.items():
        (folder / name).mkdir(parents=True)
        audio = np.concatenate(parts)[: round(seconds * RATE)]
        soundfile.write(folder / name / "1.wav", audio, RATE)
    return folder


def test_recordings_too_short_for_more_prints_are_said_to_be(tmp_path: Path, voices: Voices) -> None:
    short = replace(QUICK, durations_s=(3.0,))
    (found,) = measured(short, folder=recordings(tmp_path, voices, 8.0)).recommendations
    assert (found.fewer_prints, found.more_prints) == (None, None)
    assert found.text[-1].startswith("The recordings are too short to measure more enrollment audio: ")
    assert "Same session for" in found.text[0]


def test_two_prints_are_compared_where_the_recordings_do_not_hold_three(
    tmp_path: Path, voices: Voices
) -> None:
    settings = replace(QUICK, durations_s=(3.0,))
    (found,) = measured(settings, folder=recordings(tmp_path, voices, 12.0)).recommendations
    assert found.more_prints is not None
    assert found.more_prints.prints == 2


def test_without_strangers_nothing_is_recommended() -> None:
    (found,) = measured(replace(QUICK, unknown_share=0.0)).recommendations
    assert found.text == ("No strangers were measured, so no setting can be recommended.",)


def test_every_condition_has_its_recommendation_under_a_heading() -> None:
    report = measured(replace(QUICK, probe=(AS_IS, Condition("telephone")), prints=(1, 2)))
    assert [heading for heading, _ in recommendations(report)] == [
        "Recommendation for as-is \u2192 as-is, 1 s, 1 print",
        "Recommendation for as-is \u2192 telephone, 1 s, 1 print",
    ]
    assert [heading for heading, _ in recommendations(measured())] == ["Recommendation"]

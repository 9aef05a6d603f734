"""Scores, their calibration, and the measures of whole galleries, against loops and known answers."""

from __future__ import annotations

import gaussian_voices
import numpy as np
import pytest
from gaussian_voices import voices
from scipy.stats import norm

from voiceprint import InvalidArgumentError
from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.evaluation import (
    CalibratedScorer,
    CosineScorer,
    Scorer,
    Settings,
    TargetScorer,
    metrics,
    parse_enrollment,
)
from voiceprint.evaluation.embedding import RunEmbeddings
from voiceprint.evaluation.identification import Searcher
from voiceprint.evaluation.scoring import AffineCalibration
from voiceprint.evaluation.verification import OF_CALIBRATION, OF_SCORES, ScoredTrials, verify
from voiceprint.scoring import GalleryScorer

DIMENSION = 8


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def material() -> RunEmbeddings:
    """30 speakers, 2 prints each under 2 conditions, 1 to 3 probes."""
    rng = np.random.default_rng(8)
    centers = rng.normal(size=(30, DIMENSION))
    made = RunEmbeddings()
    for speaker, center in enumerate(centers):
        made.names.append(f"s{speaker:02d}")
        made.prints.append(unit(center + 0.5 * rng.normal(size=(2, 2, DIMENSION))))
        for _ in range(1 + speaker % 3):
            made.probes.append(unit(center + 0.5 * rng.normal(size=DIMENSION)))
            made.owners.append(speaker)
    return made


def test_the_cosine_scorer_takes_the_nearest_print(material: RunEmbeddings) -> None:
    scorer: Scorer = CosineScorer()
    assert isinstance(scorer, Scorer)
    # Callers may have different numbers of prints.
    gallery = [material.prints[0], material.prints[1][:1], material.prints[2][:, :1]]
    scores = scorer.score(gallery, np.array(material.probes))
    for row, probe in zip(scores, material.probes, strict=True):
        for score, caller in zip(row, gallery, strict=True):
            assert score == pytest.approx(
                max(float(p @ probe) for p in caller.reshape(-1, DIMENSION)), abs=1e-6
            )


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (20.0, -13.0), (0.01, 5.0)])
def test_calibration_finds_the_scale_and_offset_of_gaussian_llrs(scale: float, offset: float) -> None:
    share = (np.arange(4000) + 0.5) / 4000
    targets, impostors = norm.ppf(share, 4.5, 3.0), norm.ppf(share, -4.5, 3.0)
    calibration = AffineCalibration((targets - offset) / scale, (impostors[::3] - offset) / scale)
    found = calibration.llr((np.array([-5.0, 0.0, 5.0]) - offset) / scale)
    assert found == pytest.approx([-5, 0, 5], abs=0.1)


def test_calibration_of_scores_that_do_not_overlap_is_finite() -> None:
    calibration = AffineCalibration(np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3]))
    low, high = calibration.llr(np.array([0.3, 0.8]))
    assert -10 < low < -0.5 < 0.5 < high < 10
    same = AffineCalibration(np.full(400, 0.5), np.full(500, 0.5))
    assert same.llr(np.array([0.5]))[0] == pytest.approx(0, abs=0.01)


# Verification


def test_verification_is_over_all_pairs(material: RunEmbeddings) -> None:
    owners = np.array(material.owners)
    matrix = CosineScorer().score(material.prints, np.array(material.probes))
    own = [matrix[n, owner] for n, owner in enumerate(owners)]
    other = [matrix[n, caller] for n, owner in enumerate(owners) for caller in range(30) if caller != owner]
    found = verify(ScoredTrials(matrix, owners), Settings(resamples=50), calibrated=False)
    assert (found.targets, found.impostors) == (len(own), len(other))
    assert found.eer.value == pytest.approx(metrics.eer(own, other))
    assert found.min_dcf.value == pytest.approx(metrics.min_dcf(own, other))
    assert found.min_cllr.value == pytest.approx(metrics.min_cllr(own, other))
    assert found.eer.low < found.eer.value < found.eer.high
    assert found.cllr_of == OF_CALIBRATION
    assert found.cllr is not None
    assert found.min_cllr.value < found.cllr.value < 1


def test_the_cllr_of_calibrated_scores_is_their_own(material: RunEmbeddings) -> None:
    owners = np.array(material.owners)
    matrix = 10 * CosineScorer().score(material.prints, np.array(material.probes)) - 6
    scored = ScoredTrials(matrix, owners)
    found = verify(scored, Settings(resamples=0), calibrated=True)
    assert found.cllr_of == OF_SCORES
    assert found.cllr is not None
    assert found.cllr.value == pytest.approx(metrics.cllr(scored.targets, scored.impostors))
    assert (found.cllr.low, found.eer.high) == (None, None)


def test_speakers_who_are_drawn_twice_weigh_as_copies_of_them(material: RunEmbeddings) -> None:
    owners = np.array([0, 0, 1, 2])
    scored = ScoredTrials(np.arange(12.0).reshape(4, 3), owners)
    targets, impostors = scored.weights(np.array([2.0, 0.0, 1.0]))
    assert dict(zip(scored.targets, targets, strict=True)) == {0: 2, 3: 2, 7: 0, 11: 1}
    # Probes of 0 with caller 2, and the probe of 2 with caller 0: twice each; all with 1 not at all.
    assert dict(zip(scored.impostors, impostors, strict=True)) == {
        1: 0,
        2: 2,
        4: 0,
        5: 2,
        6: 0,
        8: 0,
        9: 2,
        10: 0,
    }


# Identification


def test_open_set_searches_are_those_of_a_loop(material: RunEmbeddings) -> None:
    settings = Settings(splits=4, resamples=0, unknown_share=0.3, seed=5)
    searcher = Searcher(material, CosineScorer(), settings)
    assert searcher.held_out == 9
    found = searcher.open(12)
    seen: list[set[int]] = []
    true, first, best = [], [], []
    for split in range(4):
        order = [int(n) for n in np.random.default_rng([5, split]).permutation(30)]
        unknown, callers = order[:9], order[9:21]
        seen.append(set(callers))
        for probe, owner in zip(material.probes, material.owners, strict=True):
            if owner in callers or owner in unknown:
                scores = {c: float((material.prints[c].astype(float) @ probe).max()) for c in callers}
                if owner in unknown:
                    best.append(max(scores.values()))
                else:
                    own = scores.pop(owner)
                    true.append(own)
                    first.append(own > max(scores.values()))
    assert len({frozenset(callers) for callers in seen}) == 4, "each split draws others"
    assert found.true == pytest.approx(true)
    assert found.best == pytest.approx(best)
    assert found.first.tolist() == first
    result = searcher.measure(found, [0.05, 0.2], 0.8, [0.7])
    assert result.rank_one.value == pytest.approx(np.mean(first))
    for at in result.at_fpir:
        assert np.mean([score >= at.threshold for score in best]) <= at.fpir
        missed = [not hit or score < at.threshold for hit, score in zip(first, true, strict=True)]
        assert at.fnir.value == pytest.approx(np.mean(missed))
    assert result.at_threshold is not None
    assert result.at_threshold.fpir.value == pytest.approx(np.mean([score >= 0.8 for score in best]))
    assert result.fpir_by_threshold[0].value == pytest.approx(np.mean([score >= 0.7 for score in best]))
    fpirs = [fpir for fpir, _ in result.curve]
    assert fpirs == sorted(fpirs)
    assert result.curve[0] == (0, 1)
    assert result.curve[-1] == (1, pytest.approx(1 - np.mean(first)))


def test_closed_set_searches_hold_every_caller_of_the_gallery(material: RunEmbeddings) -> None:
    searcher = Searcher(material, CosineScorer(), Settings(splits=5, resamples=20))
    whole = searcher.closed(30)
    assert (whole.splits, whole.searches) == (1, len(material.probes))
    assert searcher.closed(10).splits == 5
    assert whole.rank_one.low is not None
    assert whole.rank_one.low <= whole.rank_one.value <= whole.rank_one.high


def test_a_larger_gallery_is_harder(material: RunEmbeddings) -> None:
    searcher = Searcher(material, CosineScorer(), Settings(resamples=0))
    small, large = (searcher.measure(searcher.open(n), [], 0.8, []) for n in (3, 15))
    assert small.at_threshold.fpir.value < large.at_threshold.fpir.value
    assert searcher.closed(3).rank_one.value > searcher.closed(30).rank_one.value


def test_a_scorer_sees_each_gallery_as_it_is(material: RunEmbeddings) -> None:
    """So that a score may depend on who else is enrolled."""
    sizes = []

    class Watching(CosineScorer):
        def score(self, gallery, probes):  # type: ignore[no-untyped-def]
            sizes.append(len(gallery))
            return super().score(gallery, probes)

    searcher = Searcher(material, Watching(), Settings(splits=3, resamples=0))
    searcher.open(7)
    assert sizes == [7] * 3


# Settings


def test_runs_are_all_combinations() -> None:
    settings = Settings(
        enroll=(parse_enrollment("as-is"), parse_enrollment("as-is+telephone:snr=20")),
        probe=(AS_IS, Condition("telephone")),
        durations_s=(3.0, 5.0),
        prints=(1, 2),
    )
    runs = settings.runs()
    assert len(set(runs)) == 16
    assert str(runs[-1]) == "as-is+telephone:snr=20 \u2192 telephone, 5 s, 2 prints"


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, []),
        (2, [2]),
        (8, [2, 5, 8]),
        (10, [2, 5, 10]),
        (68, [10, 20, 50, 68]),
        (1000, [10, 20, 50, 100, 200, 500, 1000]),
    ],
)
def test_galleries_grow_to_the_largest_there_is(most: int, expected: list[int]) -> None:
    assert Settings().sizes(most) == expected


def test_given_galleries_are_kept_though_they_are_too_large() -> None:
    assert Settings(gallery=(100, 50)).sizes(7) == [50, 100]


@pytest.mark.parametrize(
    "wrong",
    [
        {"durations_s": (0.0,)}, {"durations_s": ()}, {"durations_s": (5.0, 5.0)}, {"prints": (0,)},
        {"gallery": (1,)}, {"unknown_share": 1.0}, {"fpirs": (1.0,)}, {"splits": 0}, {"most_probes": 0},
        {"resamples": -1}, {"seed": -1}, {"enroll": ()},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_measured_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_condition_is_enrolled_once() -> None:
    with pytest.raises(InvalidArgumentError, match="twice"):
        parse_enrollment("as-is+as-is")


# The calibrated scorer


@pytest.fixture
def calibrated() -> CalibratedScorer:
    """A scorer of a space without a prior."""
    return CalibratedScorer("toy", gaussian_voices.DIMENSION)


def test_the_calibrated_scorer_gives_the_scores_of_the_gallery(calibrated: CalibratedScorer) -> None:
    assert isinstance(calibrated, TargetScorer)
    assert not isinstance(CosineScorer(), TargetScorer)
    probes = voices(3, 1, seed=20)[0]
    callers = gaussian_voices.callers(8, each=2, seed=21)
    scorer = GalleryScorer(gaussian_voices.IDENTITY, callers)
    gallery = [one.plain[:, None] for one in callers]
    assert calibrated.score(gallery, probes) == pytest.approx(scorer.llrs_of_many(probes, callers))
    limits = calibrated.thresholds(gallery, [0.05, 0.1])
    assert limits == pytest.approx([scorer.threshold(0.05, 8), scorer.threshold(0.1, 8)])


def test_further_conditions_of_a_print_are_augmented_ones(calibrated: CalibratedScorer) -> None:
    callers = gaussian_voices.callers(8, seed=22, augmented=True)
    gallery = [np.stack([one.plain, one.augmented], axis=1) for one in callers]
    probes = voices(3, 1, seed=22, shift=0.5)[0]
    expected = GalleryScorer(gaussian_voices.IDENTITY, callers).llrs_of_many(probes, callers)
    assert calibrated.score(gallery, probes) == pytest.approx(expected)


def test_a_gallery_that_says_nothing_of_its_scores_is_refused(calibrated: CalibratedScorer) -> None:
    gallery = [one.plain[:, None] for one in gaussian_voices.callers(3)]
    with pytest.raises(InvalidArgumentError, match="gallery of 3 callers"):
        calibrated.score(gallery, voices(3, 1)[0])


def test_thresholds_for_a_wanted_rate_are_measured_at_that_rate(calibrated: CalibratedScorer) -> None:
    made, (vectors, owners) = RunEmbeddings(), voices(300, 3, seed=23)
    made.names = [str(number) for number in range(300)]
    made.prints = list(vectors[::3, None, None])
    made.probes, made.owners = list(np.delete(vectors, np.s_[::3], axis=0)), list(owners[::3].repeat(2))
    settings = Settings(splits=3, resamples=20, targets=(0.05, 0.1))
    searcher = Searcher(made, calibrated, settings)
    found = searcher.measure(searcher.open(100), [0.05], None, [])
    assert [at.target for at in found.at_target] == [0.05, 0.1]
    for at in found.at_target:
        # The scores of these voices have shorter tails than those of people.
        assert at.target / 3 <= at.fpir.value <= 2 * at.target
        assert at.fpir.low is not None
        assert at.fpir.low < at.fpir.value
    assert found.at_target[0].fnir.value >= found.at_target[1].fnir.value

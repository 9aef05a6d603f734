"""The scores of a gallery, and what they mean by the gallery itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gaussian_voices import DIMENSION, IDENTITY, callers, voices
from hypothesis import given
from hypothesis import strategies as st

from voiceprint import InvalidArgumentError
from voiceprint.scoring import COHORT, Calibration, CallerPrints, GalleryScorer, projection_for
from voiceprint.scoring.scorer import CENTERING, MIN_CALLERS

GALLERY = callers(20, each=2, augmented=True)
PROBES = voices(20, 1, seed=2)[0]
SPACE = projection_for("resemblyzer", 256)


@pytest.fixture(scope="module")
def scorer() -> GalleryScorer:
    return GalleryScorer(IDENTITY, GALLERY)


def real_like(count: int, seed: int = 1) -> list[CallerPrints]:
    """Callers in the space that the package has a prior for."""
    chance = np.random.default_rng(seed)
    points = np.maximum(0.05 + 0.05 * chance.standard_normal((count, 1, 256)), 0.0)
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    return [CallerPrints(one.astype(np.float32), one[:0].astype(np.float32)) for one in points]


def test_shapes_are_those_of_probes_and_callers(scorer: GalleryScorer) -> None:
    assert scorer.llrs(PROBES[0], GALLERY).shape == (20,)
    assert scorer.llrs_of_many(PROBES[:3], GALLERY[:7]).shape == (3, 7)
    assert scorer.llrs(PROBES[0], []).shape == (0,)
    assert scorer.llrs_of_many(PROBES[:3], GALLERY)[1] == pytest.approx(scorer.llrs(PROBES[1], GALLERY))
    assert scorer.approximate_scores(PROBES[0], PROBES).shape == (20,)
    query = scorer.search_vector(PROBES[0])
    assert (query.shape, query.dtype) == ((DIMENSION,), np.float32)
    assert np.linalg.norm(query) == pytest.approx(1.0)


def test_embeddings_of_another_dimension_are_refused(scorer: GalleryScorer) -> None:
    with pytest.raises(InvalidArgumentError, match=r"float32\[n, 12\]"):
        scorer.llrs(np.ones(3, np.float32), GALLERY)
    with pytest.raises(InvalidArgumentError, match=r"float32\[n, 12\]"):
        GalleryScorer(IDENTITY, [CallerPrints(np.ones((1, 3), np.float32), np.empty((0, 3), np.float32))])


def test_every_voice_scores_best_with_its_own_caller(scorer: GalleryScorer) -> None:
    again = voices(20, 3)[0].reshape(20, 3, DIMENSION)[:, 2]
    cohort = [CallerPrints(one[:1], one[:0]) for one in voices(20, 3)[0].reshape(20, 3, DIMENSION)]
    llrs = GalleryScorer(IDENTITY, cohort).llrs_of_many(again, cohort)
    assert (llrs.argmax(axis=1) == np.arange(20)).mean() >= 0.9


def test_the_identity_ranks_as_the_centered_cosine() -> None:
    gallery = callers(20)
    found = GalleryScorer(IDENTITY, gallery)
    prints = np.concatenate([one.plain for one in gallery]).astype(np.float64)
    center = CENTERING * prints.mean(axis=0)

    def unit(points: np.ndarray) -> np.ndarray:
        return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

    cosines = unit(PROBES - center) @ unit(prints - center).T
    llrs = found.llrs_of_many(PROBES, gallery)
    assert (llrs.argsort(axis=1) == cosines.argsort(axis=1)).all()


@pytest.mark.parametrize("count", [0, 1, 2, MIN_CALLERS - 1])
def test_a_small_gallery_without_a_prior_says_nothing(count: int) -> None:
    found = GalleryScorer(IDENTITY, GALLERY[:count])
    assert found.statistics is None
    assert np.isnan(found.llrs(PROBES[0], GALLERY[:count])).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_small_gallery_is_judged_by_the_prior(count: int) -> None:
    gallery = real_like(count)
    found = GalleryScorer(SPACE, gallery)
    assert found.statistics is not None
    assert found.statistics.callers == (count if count >= 2 else 0)
    probe = real_like(1, seed=9)[0].plain[0]
    assert np.isfinite(found.llrs(probe, gallery)).all()
    assert 0.0 <= found.fpir(5.0, max(count, 1)) <= 1.0


def test_callers_without_augmented_prints_stand_beside_others() -> None:
    mixed = [*GALLERY[:10], *callers(20, each=2)[10:]]
    found = GalleryScorer(IDENTITY, mixed)
    assert np.isfinite(found.llrs_of_many(PROBES, mixed)).all()
    plain = callers(20, each=2)
    assert np.isfinite(GalleryScorer(IDENTITY, plain).llrs_of_many(PROBES, plain)).all()


def test_an_augmented_print_counts_where_it_is_better(scorer: GalleryScorer) -> None:
    llrs = scorer.llrs_of_many(PROBES, GALLERY)
    without = [CallerPrints(one.plain, one.augmented[:0]) for one in GALLERY]
    only = scorer.llrs_of_many(PROBES, without)
    assert (llrs >= only - 1e-9).all()
    assert (llrs > only + 1e-9).any()


def test_the_order_of_callers_and_of_their_prints_changes_nothing(scorer: GalleryScorer) -> None:
    order = np.random.default_rng(5).permutation(20)
    other = [CallerPrints(GALLERY[n].plain[::-1], GALLERY[n].augmented[::-1]) for n in order]
    again = GalleryScorer(IDENTITY, other)
    assert again.llrs_of_many(PROBES, other) == pytest.approx(scorer.llrs_of_many(PROBES, GALLERY)[:, order])
    assert again.fpir(2.0, 20) == pytest.approx(scorer.fpir(2.0, 20))


def test_a_left_out_caller_scores_as_a_stranger_to_the_others() -> None:
    gallery = callers(8)
    whole = GalleryScorer(IDENTITY, gallery)
    for place in range(8):
        rest = [one for number, one in enumerate(gallery) if number != place]
        others = GalleryScorer(IDENTITY, rest)
        coordinates = IDENTITY.project(gallery[place].plain)
        expected = others._compare(coordinates, others._centers, others._models)[0]
        assert np.delete(whole._pairs[place], place) == pytest.approx(expected)
        assert np.isnan(whole._pairs[place, place])


def test_a_large_gallery_is_judged_by_a_sample_and_all_rivals() -> None:
    gallery = callers(COHORT + 100)
    found = GalleryScorer.of_gallery(IDENTITY, gallery)
    assert found.statistics is not None
    assert (found.statistics.callers, found.statistics.others) == (COHORT, COHORT + 99)
    cohort = GalleryScorer(IDENTITY, gallery[:COHORT])
    assert cohort.statistics is not None
    assert found.statistics.best_mean > cohort.statistics.best_mean, "the best of more callers"
    assert found.llrs_of_many(PROBES, gallery[:5]) == pytest.approx(
        cohort.llrs_of_many(PROBES, gallery[:5]), abs=0.2
    )
    # Strangers reach the threshold for 5 % about as often.
    strangers = voices(600, 1, seed=77)[0]
    best = found.llrs_of_many(strangers, gallery).max(axis=1)
    assert 0.02 <= np.mean(best >= found.threshold(0.05, len(gallery))) <= 0.1


def test_a_small_gallery_of_gallery_is_the_same_as_its_scorer(scorer: GalleryScorer) -> None:
    assert GalleryScorer.of_gallery(IDENTITY, GALLERY).statistics == scorer.statistics


@given(st.floats(-50, 50), st.floats(0, 20), st.integers(1, 500), st.integers(0, 500))
def test_fpir_falls_with_the_llr_and_grows_with_the_gallery(
    llr: float, more: float, size: int, added: int
) -> None:
    rate = _SHIFTED.fpir(llr, size)
    assert 0.0 <= rate <= 1.0
    assert _SHIFTED.fpir(llr + more, size) <= rate
    assert _SHIFTED.fpir(llr, size + added) >= rate


_SHIFTED = GalleryScorer(IDENTITY, GALLERY, Calibration(stranger_shift=0.7, stranger_spread=1.4))


@given(st.floats(0.001, 0.9), st.integers(1, 500))
def test_the_threshold_inverts_fpir(target: float, size: int) -> None:
    threshold = _SHIFTED.threshold(target, size)
    assert _SHIFTED.fpir(threshold, size) == pytest.approx(target, rel=1e-3)


def test_the_false_match_rate_of_a_verification_is_the_fpir_of_one_caller(scorer: GalleryScorer) -> None:
    one = scorer.fpir(1.0, 1)
    assert scorer.fpir(1.0, 20) == pytest.approx(1.0 - (1.0 - one) ** 20)


@pytest.mark.parametrize(
    ("calibration", "compare"),
    [
        (Calibration(stranger_shift=1.0), lambda mine, base: mine > base),
        (Calibration(stranger_shift=-1.0), lambda mine, base: mine < base),
        (Calibration(stranger_spread=2.0), lambda mine, base: mine > base),
    ],
)
def test_strangers_as_traffic_shows_them_move_the_rate(
    scorer: GalleryScorer, calibration: Calibration, compare: Callable[[float, float], bool]
) -> None:
    mine = GalleryScorer(IDENTITY, GALLERY, calibration)
    llr = scorer.threshold(0.05, 20)
    assert compare(mine.fpir(llr, 20), 0.05)
    assert mine.llrs(PROBES[0], GALLERY) == pytest.approx(scorer.llrs(PROBES[0], GALLERY))
    assert compare(mine.threshold(0.05, 20), llr)

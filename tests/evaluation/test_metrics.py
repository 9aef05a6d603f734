"""The measures of accuracy, against formulas and definitions that share no code with them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from voiceprint import InvalidArgumentError
from voiceprint.evaluation import metrics

SIZE = 20_000
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)
COUNTS = st.lists(st.integers(0, 3), min_size=12, max_size=12)


def gaussian(mean: float, deviation: float = 1.0) -> metrics.Floats:
    """Scores that are spread as a normal distribution, without chance."""
    return np.asarray(norm.ppf((np.arange(SIZE) + 0.5) / SIZE, mean, deviation))


def errors(targets: list[float], impostors: list[float], threshold: float) -> tuple[float, float]:
    """FMR and FNMR, counted."""
    accepted = sum(score >= threshold for score in impostors) / len(impostors)
    missed = sum(score < threshold for score in targets) / len(targets)
    return accepted, missed


def thresholds(*scores: list[float]) -> list[float]:
    return [*sorted({score for some in scores for score in some}), math.inf]


# Gaussian scores: the answers are known


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0, 3.0])
def test_the_eer_of_gaussian_scores_is_the_normal_tail_at_half_their_distance(distance: float) -> None:
    found = metrics.eer(gaussian(distance), gaussian(0.0))
    assert found == pytest.approx(norm.cdf(-distance / 2), abs=2 / SIZE)


@pytest.mark.parametrize(("distance", "prior"), [(2.0, 0.01), (3.0, 0.01), (2.0, 0.5), (3.0, 0.9)])
def test_the_least_dcf_of_gaussian_scores_lies_at_the_threshold_of_bayes(
    distance: float, prior: float
) -> None:
    threshold = distance / 2 + math.log((1 - prior) / prior) / distance
    cost = prior * norm.cdf(threshold - distance) + (1 - prior) * norm.sf(threshold)
    found = metrics.min_dcf(gaussian(distance), gaussian(0.0), prior)
    assert found == pytest.approx(cost / min(prior, 1 - prior), abs=0.005)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0, 4.0])
def test_the_cllr_of_gaussian_llrs_is_the_integral_over_their_density(deviation: float) -> None:
    """LLRs of normal scores are normal: variance v, means v/2 and -v/2."""
    mean = deviation**2 / 2
    bits, _ = scipy.integrate.quad(
        lambda s: norm.pdf(s, mean, deviation) * np.logaddexp(0, -s) / math.log(2), -40, 40
    )
    targets, impostors = gaussian(mean, deviation), gaussian(-mean, deviation)
    assert metrics.cllr(targets, impostors) == pytest.approx(bits, abs=1e-3)
    # They are calibrated: no rising function makes them better, and any scale of them has the same least.
    assert metrics.min_cllr(targets, impostors) == pytest.approx(bits, abs=5e-3)
    assert metrics.min_cllr(targets * 9 + 4, impostors * 9 + 4) == pytest.approx(
        metrics.min_cllr(targets, impostors), abs=1e-12
    )
    assert metrics.cllr(targets * 3, impostors * 3) > bits * 1.02


# Small cases, by hand


def test_scores_that_lie_apart_have_no_error() -> None:
    own, other = [0.8, 0.9], [0.1, 0.2, 0.3]
    assert metrics.eer(own, other) == 0
    assert metrics.min_dcf(own, other) == 0
    assert metrics.min_cllr(own, other) == 0
    assert metrics.eer(other, own) == pytest.approx(1)
    assert metrics.min_dcf(other, own) == 1


def test_scores_that_are_all_alike_say_nothing() -> None:
    assert metrics.eer([0.5, 0.5], [0.5]) == 0.5
    assert metrics.min_dcf([0.5, 0.5], [0.5]) == 1
    assert metrics.min_cllr([0.5, 0.5], [0.5]) == 1
    assert metrics.cllr([0.0], [0.0, 0.0]) == 1


def test_a_small_det() -> None:
    points = metrics.det([1.0, 2.0, 3.0, 4.0], [0.0, 1.0])
    assert points.threshold.tolist() == [0, 1, 2, 3, 4, math.inf]
    assert points.fmr.tolist() == [1, 0.5, 0, 0, 0, 0]
    assert points.fnmr.tolist() == [0, 0, 0.25, 0.5, 0.75, 1]
    # Between (0.5, 0) and (0, 0.25): fmr = 0.5 - 2 fnmr
    assert metrics.eer([1.0, 2.0, 3.0, 4.0], [0.0, 1.0]) == pytest.approx(1 / 6)


def test_cllr_by_hand() -> None:
    bits = (math.log2(1 + 1 / 3) + math.log2(1 + 1 / 4)) / 2
    assert metrics.cllr([math.log(3)], [-math.log(4)]) == pytest.approx(bits)
    assert metrics.cllr([1000.0], [-1000.0]) == 0
    assert metrics.cllr([-1000.0], [-1000.0]) == pytest.approx(500 / math.log(2))


def test_min_cllr_by_hand() -> None:
    # Sorted: other, own, other, own. The middle two are pooled: posterior 1/2, one bit each.
    assert metrics.min_cllr([1.0, 3.0], [0.0, 2.0]) == pytest.approx(0.5)


def test_searches_by_hand() -> None:
    scores = [
        [0.9, 0.1, 0.2],  # found
        [0.8, 0.7, 0.1],  # another is higher
        [0.3, 0.3, 0.6],  # found, low
        [0.5, 0.4, 0.5],  # a tie
        [0.2, 0.65, 0.1],  # unknown
        [0.1, 0.1, 0.75],  # unknown
    ]
    found = metrics.searches(scores, [0, 1, 2, 0, -1, -1])
    assert found.true.tolist() == [0.9, 0.7, 0.6, 0.5]
    assert found.first.tolist() == [True, False, True, False]
    assert found.best.tolist() == [0.65, 0.75]
    assert metrics.rank_one(found.first) == 0.5
    assert [metrics.fpir(found.best, t) for t in (0.6, 0.65, 0.7, 0.75, 0.8)] == [1, 1, 0.5, 0.5, 0]
    assert [metrics.fnir(found.true, found.first, t) for t in (0.6, 0.61, 0.9, 0.91)] == [0.5, 0.75, 0.75, 1]


def test_in_a_gallery_of_one_the_caller_is_always_first() -> None:
    found = metrics.searches([[0.2], [0.3]], [0, -1])
    assert found.first.tolist() == [True]
    assert found.best.tolist() == [0.3]


# Against the definitions, at all thresholds


@given(SCORES, SCORES)
def test_the_det_counts_the_errors_at_every_threshold(own: list[float], other: list[float]) -> None:
    points = metrics.det(own, other)
    assert points.threshold.tolist() == thresholds(own, other)
    for threshold, fmr, fnmr in zip(*points, strict=True):
        assert (fmr, fnmr) == pytest.approx(errors(own, other, threshold))


@given(SCORES, SCORES)
def test_the_eer_is_where_the_det_crosses_the_diagonal(own: list[float], other: list[float]) -> None:
    points = [errors(own, other, threshold) for threshold in thresholds(own, other)]
    crossings = []
    for (fmr, fnmr), (next_fmr, next_fnmr) in pairwise(points):
        # The share of the way at which the two are equal, if it lies on this piece.
        turn = (next_fnmr - fnmr) - (next_fmr - fmr)
        share = (fmr - fnmr) / turn if turn else 0.0
        if 0 <= share <= 1:
            crossings.append(fnmr + share * (next_fnmr - fnmr))
    assert any(metrics.eer(own, other) == pytest.approx(crossing) for crossing in crossings)


@given(SCORES, SCORES, st.floats(0.001, 0.999), st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_least_dcf_is_the_least_of_all_thresholds(
    own: list[float], other: list[float], prior: float, miss: float, alarm: float
) -> None:
    costs = [
        miss * prior * fnmr + alarm * (1 - prior) * fmr
        for fmr, fnmr in (errors(own, other, threshold) for threshold in thresholds(own, other))
    ]
    expected = min(costs) / min(miss * prior, alarm * (1 - prior))
    assert metrics.min_dcf(own, other, prior, miss, alarm) == pytest.approx(expected)


@given(SCORES, SCORES)
def test_min_cllr_is_that_of_the_isotonic_regression(own: list[float], other: list[float]) -> None:
    values = sorted({*own, *other})
    weights = [own.count(v) / len(own) + other.count(v) / len(other) for v in values]
    labels = [own.count(v) / len(own) / w for v, w in zip(values, weights, strict=True)]
    posteriors = scipy.optimize.isotonic_regression(labels, weights=weights).x
    posterior = dict(zip(values, np.clip(posteriors, 1e-300, 1 - 1e-16), strict=True))
    bits = -np.mean([np.log2(posterior[s]) for s in own]) - np.mean(
        [np.log2(1 - posterior[s]) for s in other]
    )
    assert metrics.min_cllr(own, other) == pytest.approx(bits / 2, abs=1e-9)


@given(SCORES, SCORES)
def test_min_cllr_is_never_above_the_cllr(own: list[float], other: list[float]) -> None:
    assert metrics.min_cllr(own, other) <= metrics.cllr(own, other) + 1e-12


@given(SCORES, SCORES, COUNTS, COUNTS)
def test_a_weight_counts_a_trial_so_many_times(
    own: list[float], other: list[float], own_counts: list[int], other_counts: list[int]
) -> None:
    weights = own_counts[: len(own)], other_counts[: len(other)]
    assume(all(map(any, weights)))
    repeated = np.repeat(own, weights[0]), np.repeat(other, weights[1])
    once, often = metrics.Trials(own, other), metrics.Trials(*repeated)
    assert once.eer(*weights) == pytest.approx(often.eer())
    assert once.min_dcf(target_weights=weights[0], impostor_weights=weights[1]) == pytest.approx(
        often.min_dcf()
    )
    assert once.min_cllr(*weights) == pytest.approx(often.min_cllr(), abs=1e-12)
    assert metrics.cllr(own, other, *weights) == pytest.approx(metrics.cllr(*repeated))
    assert metrics.fpir(own, 1.0, weights[0]) == pytest.approx(metrics.fpir(repeated[0], 1.0))


@given(SCORES, st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.99, 1.0]), COUNTS)
@settings(max_examples=300)
def test_the_threshold_at_an_fpir_is_the_least_that_keeps_it(
    best: list[float], target: float, counts: list[int]
) -> None:
    weights = counts[: len(best)]
    assume(any(weights))
    found = metrics.threshold_at_fpir(best, target, weights)
    assert metrics.fpir(best, found, weights) <= target + 1e-12
    below = float(np.nextafter(found, -np.inf))
    drawn = [score for score, count in zip(best, weights, strict=True) if count]
    if found > min(drawn):
        assert metrics.fpir(best, below, weights) > target


@given(st.integers(1, 6), st.integers(1, 8), st.data())
def test_searches_are_those_of_a_loop(callers: int, count: int, data: st.DataObject) -> None:
    numbers = st.integers(-2, 2).map(float)
    scores = data.draw(
        st.lists(st.lists(numbers, min_size=callers, max_size=callers), min_size=count, max_size=count)
    )
    owners = data.draw(st.lists(st.integers(-1, callers - 1), min_size=count, max_size=count))
    true, first, best = [], [], []
    for row, owner in zip(scores, owners, strict=True):
        if owner < 0:
            best.append(max(row))
        else:
            true.append(row[owner])
            first.append(all(row[owner] > score for n, score in enumerate(row) if n != owner))
    found = metrics.searches(scores, owners)
    assert (found.true.tolist(), found.first.tolist(), found.best.tolist()) == (true, first, best)


# What is refused


@pytest.mark.parametrize("wrong", [[], [math.nan], [math.inf], [[0.5]], ["high"], 0.5, None])
def test_what_are_no_scores_is_refused(wrong: object) -> None:
    for measure in (metrics.eer, metrics.min_dcf, metrics.cllr, metrics.min_cllr, metrics.det):
        with pytest.raises(InvalidArgumentError, match=r"targets|target_llrs"):
            measure(wrong, [0.5])  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match=r"impostors|impostor_llrs"):
            measure([0.5], wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        metrics.fpir(wrong, 0.5)  # type: ignore[arg-type]


def test_what_does_not_fit_together_is_refused() -> None:
    refused = [
        lambda: metrics.Trials([1.0], [0.0]).eer([0.0]),
        lambda: metrics.Trials([1.0], [0.0]).eer([1.0, 1.0]),
        lambda: metrics.Trials([1.0], [0.0]).eer([-1.0]),
        lambda: metrics.min_dcf([1.0], [0.0], p_target=1.0),
        lambda: metrics.min_dcf([1.0], [0.0], cost_miss=0.0),
        lambda: metrics.rank_one([1.0]),
        lambda: metrics.rank_one([]),
        lambda: metrics.fnir([1.0], [True, False], 0.5),
        lambda: metrics.threshold_at_fpir([1.0], 1.5),
        lambda: metrics.searches([[0.5, 0.2]], [2]),
        lambda: metrics.searches([[0.5, 0.2]], [-2]),
        lambda: metrics.searches([[0.5, 0.2]], [0.0]),
        lambda: metrics.searches([[0.5, 0.2]], [0, 1]),
        lambda: metrics.searches([[0.5, math.nan]], [0]),
        lambda: metrics.searches([[]], [0]),
    ]
    for call in refused:
        with pytest.raises(InvalidArgumentError):
            call()

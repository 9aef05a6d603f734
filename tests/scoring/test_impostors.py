"""The share of strangers who reach a score, by the statistics of a gallery, against simulated maxima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint import InvalidArgumentError
from voiceprint.scoring import ImpostorStatistics, impostor_statistics
from voiceprint.scoring.impostors import _maximum_moments

PRIOR = (0.0, 1.0)

statistics = st.builds(
    ImpostorStatistics,
    callers=st.integers(0, 300),
    others=st.integers(1, 10**6),
    pair_mean=st.floats(-50, 50),
    pair_std=st.floats(0.1, 50),
    best_mean=st.floats(-50, 50),
    best_std=st.floats(0.1, 50),
    maximum_of=st.sampled_from([1, 9, 100_000]),
)


def simulated(callers: int, seed: int, mean: float = 3.0, std: float = 2.0) -> ImpostorStatistics:
    """The statistics of a gallery whose scores are independent and normal."""
    pairs = np.random.default_rng(seed).normal(mean, std, (callers, callers))
    np.fill_diagonal(pairs, np.nan)
    return impostor_statistics(pairs, np.nanmax(pairs, axis=1), callers - 1, (mean, std))


@pytest.mark.parametrize("callers", [5, 20, 100])
def test_the_wanted_share_of_simulated_strangers_reaches_the_threshold(callers: int) -> None:
    strangers = np.random.default_rng(7).normal(3.0, 2.0, (4000, callers)).max(axis=1)
    for target in (0.01, 0.05, 0.2):
        thresholds = [simulated(callers, seed).threshold(target, callers) for seed in range(40)]
        got = np.mean([np.mean(strangers >= threshold) for threshold in thresholds])
        # The tail of maxima is heavier than a normal one, and rates are averaged over galleries.
        assert 0.6 * target <= got <= 2.2 * target, target


@given(statistics, st.floats(0.001, 0.9), st.integers(1, 10**6))
def test_fpir_of_the_threshold_is_the_target(found: ImpostorStatistics, target: float, size: int) -> None:
    size = min(max(size, found.others // 100), 100 * found.others)  # the tail that the approximation reaches
    threshold = found.threshold(target, size)
    assert np.isfinite(threshold)
    assert found.fpir(threshold, size) == pytest.approx(target, rel=1e-3)


def test_the_tail_is_students() -> None:
    # A quantile of Student's t with 9 degrees of freedom for 0.1 %, from a table.
    found = ImpostorStatistics(0, 1, 0.0, 1.0, 0.0, 1.0)
    freedom, width = found._tail
    assert freedom == 9
    assert found.fpir(4.297 * width, 1) == pytest.approx(0.001, rel=0.03)
    assert found.fpir(float("inf"), 1) == 0.0
    assert found.fpir(float("-inf"), 1) == pytest.approx(1.0)


@given(statistics, st.floats(-100, 100), st.floats(0, 50), st.integers(1, 1000), st.integers(0, 1000))
def test_fpir_falls_with_the_score_and_grows_with_the_gallery(
    found: ImpostorStatistics, score: float, more: float, size: int, added: int
) -> None:
    rate = found.fpir(score, size)
    assert 0.0 <= rate <= 1.0
    assert found.fpir(score + more, size) <= rate
    assert found.fpir(score, size + added) >= rate


@given(statistics, st.floats(0.001, 0.5), st.integers(1, 1000), st.integers(0, 1000))
def test_the_threshold_grows_with_the_gallery(
    found: ImpostorStatistics, target: float, size: int, added: int
) -> None:
    assert found.threshold(target, size + added) >= found.threshold(target, size)


def test_the_size_counts_as_so_many_independent_callers() -> None:
    found = simulated(50, 1)
    one = found.fpir(8.0, 1)
    assert found.fpir(8.0, 500) == pytest.approx(1 - (1 - one) ** 500)
    assert found.fpir(8.0, 0) == 0.0


def test_without_callers_the_prior_says_all_and_with_many_hardly_anything() -> None:
    nobody = impostor_statistics(np.empty((0, 0)), np.empty(0), 0, PRIOR)
    assert (nobody.callers, nobody.others, nobody.pair_mean, nobody.pair_std) == (0, 1, 0.0, 1.0)
    assert nobody.best_mean == pytest.approx(0.0)
    assert nobody.best_std == pytest.approx(1.0)
    chance = np.random.default_rng(3)
    pairs = chance.normal(10.0, 2.0, (300, 299))
    many = impostor_statistics(pairs, pairs.max(axis=1), 299, PRIOR)
    assert many.pair_mean == pytest.approx(10.0, abs=0.3)
    assert many.deviations(many.pair_mean + 3 * many.pair_std) == pytest.approx(3.0)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan")])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    with pytest.raises(InvalidArgumentError, match="share between 0 and 1"):
        simulated(5, 1).threshold(target, 5)


def test_a_gallery_of_a_negative_size_is_refused() -> None:
    for ask in (simulated(5, 1).fpir, simulated(5, 1).threshold):
        with pytest.raises(InvalidArgumentError, match="0 callers or more"):
            ask(0.5, -1)


@pytest.mark.parametrize("target", [1e-100, 1e-20, 1e-12, 0.999999])
@pytest.mark.parametrize("size", [1, 19, 1000])
def test_a_far_target_is_met(target: float, size: int) -> None:
    known = ImpostorStatistics(20, 19, -40.0, 20.0, 3.0, 9.0)
    assert known.fpir(known.threshold(target, size), size) == pytest.approx(target, rel=1e-6)


def test_a_rate_of_nobody_has_no_sign() -> None:
    known = ImpostorStatistics(20, 19, -40.0, 20.0, 3.0, 9.0)
    for score, size in ((1e200, 5), (3.0, 0)):
        assert str(known.fpir(score, size)) == "0.0"


def test_the_maximum_of_normal_scores_has_the_moments_of_a_simulation() -> None:
    random = np.random.default_rng(5)
    for count in (1, 9, 400):
        drawn = random.standard_normal((40_000, count)).max(axis=1)
        mean, std = _maximum_moments(count)
        assert mean == pytest.approx(drawn.mean(), abs=0.02)
        assert std == pytest.approx(drawn.std(), abs=0.02)


def test_without_a_prior_strangers_of_independent_scores_reach_the_threshold_as_often_as_asked() -> None:
    random = np.random.default_rng(6)
    callers, target = 60, 0.01
    reached = []
    for _ in range(60):
        pairs = random.normal(-40.0, 20.0, (callers, callers))
        np.fill_diagonal(pairs, np.nan)
        found = impostor_statistics(pairs, np.nanmax(pairs, axis=1), callers - 1, None)
        assert found.maximum_of == callers - 1
        limit = found.threshold(target, callers)
        assert found.fpir(limit, callers) == pytest.approx(target, rel=1e-3)
        reached.append((random.normal(-40.0, 20.0, (2_000, callers)).max(axis=1) >= limit).mean())
    assert 0.006 < np.mean(reached) < 0.012

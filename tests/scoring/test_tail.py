"""The tail of strangers' scores, against distributions with a known one."""

import numpy as np
import pytest
from scipy import stats

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import ImpostorTail, Standing, fit_tail, standing

TAIL = ImpostorTail(start=1.3, share=0.1, scale=0.4, shape=-0.12, mean=-8.0, deviation=4.0)


@pytest.mark.parametrize("shape", [-0.12, 0.0, 0.05])
@pytest.mark.parametrize("size", [1, 3, 50, 1_000_000])
@pytest.mark.parametrize("target", [0.001, 0.05, 0.5])
def test_threshold_is_where_the_rate_is_the_target(shape, size, target):
    tail = ImpostorTail(shape=shape)
    assert tail.fpir(tail.threshold_for(target, size), size) == pytest.approx(target, rel=1e-6)


def test_threshold_grows_with_the_gallery_and_falls_with_the_target():
    sizes = [TAIL.threshold_for(0.01, size) for size in (1, 10, 100, 10_000, 1_000_000)]
    targets = [TAIL.threshold_for(target, 100) for target in (0.5, 0.1, 0.01, 0.0001)]
    assert sizes == sorted(set(sizes))
    assert targets == sorted(set(targets))


def test_rate_falls_with_the_score_and_grows_with_the_gallery():
    rates = [TAIL.fpir(score, 100) for score in np.linspace(-40.0, 5.0, 200)]
    assert (np.diff(rates) <= 1e-12).all()
    assert [TAIL.fpir(0.0, size) for size in (0, 1, 10, 100)] == sorted(
        {TAIL.fpir(0.0, n) for n in (0, 1, 10, 100)}
    )
    assert TAIL.fpir(0.0, 0) == 0.0


def test_rate_among_a_probes_own_strangers_is_counted_from_their_mean():
    moved = Standing(TAIL.mean + 3.0, 2.0 * TAIL.deviation)
    place = TAIL.threshold_for(0.05, 50, moved)
    assert place - moved.mean == pytest.approx(2.0 * (TAIL.threshold_for(0.05, 50) - TAIL.mean))
    assert TAIL.fpir(place, 50, moved) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "law",
    [stats.norm(-50.0, 20.0), stats.gumbel_r(0.0, 3.0), stats.beta(2.0, 4.0)],
    ids=["normal", "gumbel", "beta"],
)
@pytest.mark.parametrize("size", [50, 200])
def test_fitted_threshold_keeps_the_target_on_probes_that_it_has_not_seen(law, size):
    tail = fit_tail(law.rvs((400, size), random_state=1))
    unseen = law.rvs((4000, size), random_state=2)
    for target in (0.01, 0.05, 0.1):
        named = [row.max() >= tail.threshold_for(target, size, standing(row)) for row in unseen]
        assert target / 2 <= np.mean(named) <= 2 * target


def test_a_known_tail_is_recovered():
    scores = stats.genpareto(-0.2, scale=2.0).rvs((1000, 100), random_state=3)
    tail = fit_tail(scores, share=0.5)
    assert tail.shape == pytest.approx(-0.2, abs=0.04)


def test_comparisons_that_were_not_made_are_left_out():
    scores = stats.norm().rvs((100, 50), random_state=4)
    wide = np.full((100, 60), np.nan)
    wide[:, :50] = scores
    assert fit_tail(wide) == fit_tail(scores)


def test_standing_leaves_out_the_callers_own_score():
    strangers = np.array([-9.0, -7.0, -8.0, -8.5])
    assert standing(np.append(strangers, 12.0)) == standing(np.append(strangers, 40.0))


def test_standing_of_a_small_cohort_is_that_of_a_large_one_in_the_mean():
    scores = np.random.default_rng(5).normal(-8.0, 4.0, (4000, 20))
    found = np.array([standing(row) for row in scores]).mean(axis=0)
    assert found == pytest.approx([-8.0, 4.0], rel=0.06)


@pytest.mark.parametrize("scores", [np.zeros(2), np.array([0.0, np.nan, 1.0, 2.0]), np.zeros((3, 3))])
def test_a_standing_of_too_little_is_refused(scores):
    with pytest.raises(InvalidArgumentError):
        standing(scores)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan")])
def test_a_target_that_is_no_share_is_refused(target):
    with pytest.raises(InvalidArgumentError):
        TAIL.threshold_for(target, 10)


def test_a_tail_of_too_few_scores_is_refused():
    with pytest.raises(InvalidArgumentError, match="1000"):
        fit_tail(np.zeros((10, 10)))

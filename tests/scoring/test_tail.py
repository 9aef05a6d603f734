"""The tail of strangers' scores, against distributions with a known one."""

import numpy as np
import pytest
from scipy import stats

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import ImpostorTail, Standing, fit_tail, standing
from voiceprint.scoring.tail import MEETING, WIDTH

TAIL = ImpostorTail(
    0.01, share=0.1, scale=0.16, bend=0.4, spread=0.4, level=-2.0, deviation=4.0, meeting=11.0
)


def gompertz(chance, size, *, scale, bend):
    """Draws of the excess, by the inverse of its survival."""
    return scale / bend * np.log1p(bend * chance.exponential(size=size))


def way(level):
    """Of probes whose scores deviate in proportion to it, as all places have one law."""
    return (MEETING + 2.0) * ((MEETING - level) / (MEETING + 2.0)) ** (1.0 / (1.0 - WIDTH))


def probes(count, callers, seed, *, level=None, scale=0.11, bend=0.3):
    """Scores of strangers whose law is that of a tail: each probe has a level, and all meet at `MEETING`."""
    chance = np.random.default_rng(seed)
    # Below the tail normal, of the density that the tail begins with.
    places = 1.755 * scale * (stats.norm.ppf(0.9 * chance.random((count, callers))) - stats.norm.ppf(0.9))
    upper = chance.random(places.shape) < 0.1
    places[upper] = gompertz(chance, int(upper.sum()), scale=scale, bend=bend)
    if level is None:
        level = chance.normal(-2.0, 2.0, (count, 1))
    return level + way(level) * places


def beyond(share, *, level, scale=0.11, bend=0.3):
    """The score that so small a share of the strangers of `probes` reaches."""
    return level + way(level) * scale / bend * np.log1p(bend * np.log(0.1 / share))


@pytest.mark.parametrize("bend", [0.01, 0.4, 1.0])
@pytest.mark.parametrize("size", [1, 3, 50, 1_000_000])
@pytest.mark.parametrize("target", [0.001, 0.05, 0.5])
def test_threshold_is_where_the_rate_is_the_target(bend, size, target):
    tail = ImpostorTail(bend=bend)
    for among in (None, Standing(-9.0, 4.0), Standing(3.0, 0.01), Standing(20.0, 9.0)):
        limit = tail.threshold_for(target, size, among)
        assert tail.fpir(limit, size, among) == pytest.approx(target, rel=1e-6)


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


def test_the_level_of_a_probe_counts_less_the_higher_the_score():
    ahead = [
        TAIL.threshold_for(0.05, size, Standing(TAIL.level + 2.0, 4.0)) - TAIL.threshold_for(0.05, size)
        for size in (1, 10, 100, 10_000, 1_000_000)
    ]
    assert ahead == sorted(ahead, reverse=True)
    assert 2.5 > ahead[0] > 1.0
    assert abs(ahead[-1]) < 0.5


def test_at_the_meeting_the_rate_is_the_same_for_every_probe():
    rates = [TAIL.fpir(TAIL.meeting, 10_000, Standing(level, 4.0)) for level in (-12.0, -2.0, 0.0, 5.0)]
    assert rates == pytest.approx([TAIL.fpir(TAIL.meeting, 10_000)] * 4)


def test_the_wider_the_scores_of_a_probe_the_higher_its_threshold_but_by_less():
    narrow, wide = (TAIL.threshold_for(0.05, 100, Standing(TAIL.level, one)) for one in (2.0, 8.0))
    assert 1.0 < (wide - TAIL.level) / (narrow - TAIL.level) < 4.0


@pytest.mark.parametrize(
    ("law", "least"),
    [(stats.norm(-50.0, 20.0), 0.5), (stats.gumbel_r(-10.0, 2.0), 0.5), (stats.beta(2.0, 4.0), 0.0)],
    ids=["normal", "gumbel", "with an end, where fewer may be named"],
)
@pytest.mark.parametrize("size", [50, 200])
def test_fitted_threshold_keeps_the_target_on_probes_that_it_has_not_seen(law, least, size):
    tail = fit_tail(law.rvs((400, size), random_state=1), bend=None)
    unseen = law.rvs((4000, size), random_state=2)
    for target in (0.01, 0.05, 0.1):
        named = [row.max() >= tail.threshold_for(target, size, tail.standing(row)) for row in unseen]
        assert least * target <= np.mean(named) <= 2 * target


@pytest.mark.parametrize("size", [20, 100, 500])
def test_fitted_threshold_keeps_the_target_where_every_probe_has_another_level(size):
    tail = fit_tail(probes(400, 118, seed=6))
    unseen = probes(4000, size, seed=7)
    for target in (0.01, 0.05, 0.1):
        limits = [tail.threshold_for(target, size, tail.standing(row)) for row in unseen]
        assert target / 2 <= np.mean(unseen.max(axis=1) >= limits) <= 2 * target
        usual = np.mean(unseen.max(axis=1) >= tail.threshold_for(target, size))
        assert usual > 2 * target  # what the level is for


def test_a_tail_of_a_hundred_callers_is_not_far_off_among_a_million():
    tail = fit_tail(probes(400, 118, seed=9))
    chance, size = np.random.default_rng(8), 1_000_000
    for level in (-6.0, -2.0, 2.0):
        best = beyond(-np.log(chance.random(20_000)) / size, level=level)
        cohort = probes(1, 50_000, seed=10, level=level)[0]
        limit = tail.threshold_for(0.05, size, tail.standing(cohort))
        assert 0.05 / 4 <= np.mean(best >= limit) <= 4 * 0.05  # four decades beyond what was fitted to


def test_a_known_tail_is_recovered():
    tail = fit_tail(probes(2000, 500, seed=3), bend=None)
    among = standing(probes(1, 100_000, seed=4, level=-2.0)[0])
    for share in (0.05, 0.01, 0.001):
        assert tail.fpir(beyond(share, level=-2.0), 1, among) == pytest.approx(share, rel=0.3)


def test_comparisons_that_were_not_made_are_left_out():
    scores = stats.norm().rvs((100, 50), random_state=4)
    wide = np.full((100, 60), np.nan)
    wide[:, :50] = scores
    assert fit_tail(wide) == fit_tail(scores)


def test_standing_leaves_out_the_callers_own_score():
    strangers = np.array([-9.0, -7.0, -8.0, -8.5])
    assert standing(np.append(strangers, 12.0)) == standing(np.append(strangers, 40.0))


def test_in_a_large_cohort_several_prints_of_the_caller_do_not_raise_the_level():
    strangers = np.random.default_rng(1).normal(-8.0, 4.0, 490)
    one, several = (standing(np.append(strangers, np.full(prints, 15.0))).level for prints in (1, 10))
    mean = 9 / 500 * (15.0 - strangers.mean())  # by so much they raise the mean
    assert 0 < several - one < 2 * mean


@pytest.mark.parametrize("size", [20, 100, 500])
def test_standing_of_a_cohort_of_any_size_is_where_the_upper_tenth_begins(size):
    scores = np.random.default_rng(5).normal(-8.0, 4.0, (4000, size))
    found = np.mean([standing(row) for row in scores], axis=0)
    assert found == pytest.approx([-8.0 + 4.0 * stats.norm.ppf(0.9), 4.0], abs=0.25)


def test_a_standing_of_few_scores_is_mostly_that_of_a_usual_probe():
    scores = np.full(600, -30.0) + np.random.default_rng(2).normal(0.0, 1.0, 600)
    ways = [abs(TAIL.standing(scores[:size]).level - TAIL.level) for size in (0, 4, 5, 10, 50, 600)]
    assert ways[:2] == [0.0, 0.0]
    assert ways == sorted(ways)
    assert 0.0 < ways[2] < 0.5 * ways[-1]


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

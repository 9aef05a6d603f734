from __future__ import annotations

import math

import numpy as np
import pytest

from voiceprint import InvalidArgumentError
from voiceprint.scoring import probabilities


def test_it_is_bayes_rule() -> None:
    # By hand: prior 1/2 for a stranger, 1/8 for each of four callers; likelihoods 1, and 10, 2, 1, 0.5.
    joint = np.array([0.125 * 10, 0.125 * 2, 0.125 * 1, 0.125 * 0.5])
    expected = joint / (0.5 + joint.sum())
    assert probabilities(np.log([10, 2, 1, 0.5]), 4) == pytest.approx(expected)


def test_one_caller_is_as_likely_as_a_stranger_where_the_ratio_is_one() -> None:
    assert probabilities([0.0], 1) == pytest.approx([0.5])
    assert probabilities([math.log(3)], 1) == pytest.approx([0.75])


def test_more_callers_make_each_less_probable() -> None:
    sizes = [2, 10, 1000, 10**6, 10**9]
    found = [probabilities([8.0, 1.0], size)[0] for size in sizes]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.99
    assert found[-1] < 0.01


def test_two_callers_who_sound_alike_share_it() -> None:
    assert probabilities([30.0, 30.0], 50) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("most", [-2000.0, -700.0, 0.0, 700.0, 2000.0])
def test_any_finite_ratio_gives_a_probability(most: float) -> None:
    found = probabilities([most, most - 1.0, -most], 10**6)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-12


def test_nobody_has_none() -> None:
    assert probabilities([], 0).shape == (0,)


@pytest.mark.parametrize(
    ("ratios", "size"), [([1.0, 2.0], 1), ([math.nan], 5), ([math.inf], 5), ([[1.0]], 5), (1.0, 5)]
)
def test_what_makes_no_sense_is_refused(ratios: object, size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="finite log ratios"):
        probabilities(ratios, size)  # type: ignore[arg-type]


def test_it_is_right_as_often_as_it_says() -> None:
    """Callers and strangers drawn as the rule takes them to be, with ratios that are known exactly."""
    chance = np.random.default_rng(3)
    size, distance = 20, 3.0  # of a caller's scores over the others', which have a variance of 1
    said, true = [], []
    for _ in range(4000):
        scores = chance.standard_normal(size)
        caller = int(chance.integers(size)) if chance.random() < 0.5 else None
        if caller is not None:
            scores[caller] += distance
        found = probabilities(distance * scores - distance**2 / 2, size)
        said += found.tolist()
        true += [place == caller for place in range(size)]
    shown, happened = np.array(said), np.array(true)
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0)):
        within = (shown >= low) & (shown < high)
        assert within.sum() > 100
        assert happened[within].mean() == pytest.approx(shown[within].mean(), abs=0.05)

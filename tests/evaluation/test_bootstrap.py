"""Confidence intervals by drawing speakers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from voiceprint import InvalidArgumentError
from voiceprint.evaluation.bootstrap import Counts, Interval, rule_of_three
from voiceprint.evaluation.bootstrap import bootstrap as bootstrap_all


def bootstrap(statistic: Callable[[Counts], float | None], speakers: int, **options: Any) -> Interval | None:
    return bootstrap_all(lambda drawn: [statistic(drawn)], speakers, **options)[0]


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = bootstrap(lambda drawn: float(np.average(values, weights=drawn)), 400, resamples=2000)
    error = values.std() / 20
    assert found is not None
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_trials_of_one_speaker_are_drawn_together() -> None:
    """Forty copies of each speaker's value tell no more than one: the interval stays as wide."""
    values = np.random.default_rng(4).normal(0.0, 1.0, 50)
    owners = np.repeat(np.arange(50), 40)
    once = bootstrap(lambda drawn: float(np.average(values, weights=drawn)), 50)
    often = bootstrap(lambda drawn: float(np.average(values[owners], weights=drawn[owners])), 50)
    assert once is not None
    assert often == pytest.approx(once)
    assert once.high - once.low > 0.4


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        values = rng.normal(0.0, 1.0, 60)
        found = bootstrap(
            lambda drawn, values=values: float(np.average(values, weights=drawn)),
            60,
            resamples=200,
            confidence=0.8,
            seed=seed,
        )
        assert found is not None
        held += found.low <= 0.0 <= found.high
    assert 140 <= held <= 180  # 160 expected


def test_the_seed_alone_decides_what_is_drawn() -> None:
    def first(drawn: Counts) -> float:
        return float(drawn[0])

    assert bootstrap(first, 7, seed=1) == bootstrap(first, 7, seed=1)
    draws: list[list[float]] = []
    bootstrap(lambda drawn: draws.append(drawn.tolist()) or 0.0, 7, seed=2, resamples=3)
    bootstrap(lambda drawn: draws.append(drawn.tolist()) or 0.0, 7, seed=3, resamples=3)
    assert draws[:3] != draws[3:]
    assert all(sum(drawn) == 7 for drawn in draws)


def test_draws_that_do_not_define_the_statistic_are_left_out() -> None:
    assert bootstrap(lambda drawn: None, 3) is None
    assert bootstrap(lambda drawn: 1.0 if drawn[0] else None, 3) == (1.0, 1.0)


def test_without_an_error_the_rule_of_three_gives_the_interval() -> None:
    assert rule_of_three(Interval(0, 0), 0.0, 60) == (0, 0.05)
    assert rule_of_three(Interval(1, 1), 1.0, 60) == (0.95, 1)
    assert rule_of_three(None, 0.0, 2) == (0, 1)
    assert rule_of_three(Interval(0.1, 0.3), 0.2, 60) == (0.1, 0.3)


def test_what_cannot_be_drawn_is_refused() -> None:
    for wrong in ({"speakers": 0}, {"resamples": 0}, {"confidence": 1.0}, {"confidence": 0.0}):
        with pytest.raises(InvalidArgumentError):
            bootstrap(lambda drawn: 0.0, **({"speakers": 3} | wrong))  # type: ignore[arg-type]

"""Strangers and known callers among calls without labels, on values of a known mixture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint.evaluation.mixture import PRIOR_STRANGERS, fit_mixture, stranger_component


def calls(
    strangers: int, known: int, *, shift: float = 0.0, spread: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Deviates of strangers, and of known callers four deviations above what a gallery expects."""
    chance = np.random.default_rng(seed)
    return np.concatenate([chance.normal(shift, spread, strangers), chance.normal(4.0, 1.2, known)])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [40, 400])
def test_the_share_of_known_callers_is_found(share: float, count: int) -> None:
    known = round(share * count)
    for seed in range(5):
        found = fit_mixture(calls(count - known, known, seed=seed))
        assert found.known_share == pytest.approx(share, abs=0.12)
        assert found.strangers.mean == pytest.approx(0.0, abs=0.35)
        assert found.strangers.std == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(("shift", "spread"), [(-1.5, 0.8), (0.5, 1.2), (-0.5, 1.0)])
@pytest.mark.parametrize("known", [0, 150])
def test_strangers_of_other_lines_are_followed(shift: float, spread: float, known: int) -> None:
    found = fit_mixture(calls(400, known, shift=shift, spread=spread))
    assert found.strangers.mean == pytest.approx(shift, abs=0.25)
    assert found.strangers.std == pytest.approx(spread, abs=0.2)
    assert found.known_share == pytest.approx(known / (400 + known), abs=0.08)


def test_where_all_are_known_strangers_stay_as_the_gallery_expects_them() -> None:
    found = fit_mixture(calls(0, 500))
    assert found.known_share > 0.95
    assert found.strangers.mean == pytest.approx(0.0, abs=0.2)
    assert found.strangers.std == pytest.approx(1.0, abs=0.1)


def test_where_none_is_known_no_stranger_is_taken_for_a_caller() -> None:
    values = calls(500, 0)
    found = fit_mixture(values)
    assert found.known_share < 0.05
    assert found.stranger_probability(values).mean() > 0.95


def test_few_calls_change_little() -> None:
    found = stranger_component(np.full(5, -2.0))
    assert found.mean == pytest.approx(-2.0 * 5 / (5 + PRIOR_STRANGERS))
    assert found.std > 1.0, "prior and values disagree"
    assert stranger_component(np.empty(0)).mean == 0.0
    assert stranger_component(np.empty(0)).std == 1.0


def test_a_stranger_is_less_probable_the_higher_the_score() -> None:
    found = fit_mixture(calls(200, 200))
    probable = found.stranger_probability(np.linspace(-1.0, 6.0, 30))
    assert (np.diff(probable) < 0).all()
    assert probable[0] > 0.95
    assert probable[-1] < 0.01


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=60))
def test_any_values_give_a_finite_mixture(values: list[float]) -> None:
    found = fit_mixture(np.array(values))
    assert 0.0 < found.known_share < 1.0
    assert found.known.mean > found.strangers.mean
    assert 0.0 < found.strangers.std < 10.0
    assert np.isfinite(found.log_posterior(np.array(values)))


def test_the_order_of_calls_changes_nothing() -> None:
    values = calls(60, 30)
    assert fit_mixture(values).strangers.mean == pytest.approx(
        fit_mixture(np.random.default_rng(1).permutation(values)).strangers.mean
    )

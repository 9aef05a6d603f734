"""The coordinates in which voices are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gaussian_voices import IDENTITY, voices

from voiceprint import InvalidArgumentError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.scoring import Projection, projection_for


def test_a_fitted_space_has_a_prior_and_another_the_identity() -> None:
    fitted = projection_for(RESEMBLYZER_SPACE, 256)
    assert fitted.space == RESEMBLYZER_SPACE
    assert fitted.prior is not None
    assert fitted.dimension == 256
    assert fitted.prior.pair_std > 0
    for vector in (fitted.prior.mean, fitted.prior.augmented_mean, fitted.prior.augmentation_axis):
        assert vector.shape == (256,)
    assert ((fitted.speaker_share > 0) & (fitted.speaker_share < 1)).all()
    other = projection_for("toy", 5)
    assert (other.space, other.dimension, other.prior) == ("toy", 5, None)
    assert projection_for("toy", 5) is other


def test_normalized_coordinates_have_the_length_of_unit_variance() -> None:
    found = IDENTITY.normalize(IDENTITY.project(voices(5, 2)[0]))
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.full(10, np.sqrt(12)))
    assert np.isfinite(IDENTITY.normalize(np.zeros((1, 12)))).all()


def test_the_comparison_is_the_log_ratio_of_two_normal_densities() -> None:
    share = np.array([0.9, 0.5, 0.1])
    made = Projection("toy", np.eye(3), share)
    probe, caller = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.2, -0.7])

    def log_density(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
        return float(-0.5 * np.sum((x - mean) ** 2 / variance + np.log(variance)))

    same = log_density(probe, share * caller, 1 - share**2)
    other = log_density(probe, np.zeros(3), np.ones(3))
    constant = -0.5 * np.log(1 - share**2).sum()
    assert made.compare(probe[None], caller[None])[0, 0] + constant == pytest.approx(same - other)
    assert made.compare(caller[None], probe[None]) == pytest.approx(made.compare(probe[None], caller[None]))


@pytest.mark.parametrize("shape", [(12,), (2, 11), (1, 2, 12)])
def test_embeddings_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'toy' are float32\[n, 12\]"):
        IDENTITY.project(np.ones(shape))


def test_a_saved_projection_is_the_same(tmp_path: Path) -> None:
    fitted = projection_for(RESEMBLYZER_SPACE, 256)
    fitted.save(str(tmp_path / "one.npz"))
    with np.load(tmp_path / "one.npz") as stored:
        assert str(stored["space"]) == RESEMBLYZER_SPACE
        assert stored["transform"] == pytest.approx(fitted.transform, rel=1e-6)
        assert stored["speaker_share"] == pytest.approx(fitted.speaker_share, rel=1e-6)

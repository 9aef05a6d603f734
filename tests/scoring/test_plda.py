"""The model of voices, against a known one and against densities that are written out."""

import numpy as np
import pytest
from scipy import stats

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import Plda, fit_plda
from voiceprint.scoring.plda import shrunk

CHANCE = np.random.default_rng(7)
MODEL = Plda(np.zeros(3), np.eye(3), np.array([4.0, 1.0, 0.25]))


def joint_density(prints, probe, between, together):
    """ln p of prints and probe as one large Gaussian, one dimension at a time."""
    total = 0.0
    for dimension, width in enumerate(between):
        values = np.append(prints[:, dimension], probe[dimension])
        shared = np.full((len(values), len(values)), width)
        if not together:
            shared[-1, :-1] = shared[:-1, -1] = 0.0
        covariance = shared + np.eye(len(values))
        total += stats.multivariate_normal(np.zeros(len(values)), covariance).logpdf(values)
    return total


@pytest.mark.parametrize("count", [1, 2, 3])
def test_log_ratio_is_that_of_the_joint_densities(count):
    prints, probe = CHANCE.standard_normal((count, 3)), CHANCE.standard_normal(3)
    expected = joint_density(prints, probe, MODEL.between, True)
    expected -= joint_density(prints, probe, MODEL.between, False)
    ratio = MODEL.log_ratio(prints.mean(axis=0)[None], np.array([count]), probe)
    assert ratio[0] == pytest.approx(expected, abs=1e-9)


def test_the_ratios_of_many_probes_are_those_of_each():
    means, probes = CHANCE.standard_normal((5, 3)), CHANCE.standard_normal((4, 3))
    each = [MODEL.log_ratio(means, np.ones(5, dtype=int), probe) for probe in probes]
    assert MODEL.log_ratios(means, probes) == pytest.approx(np.stack(each))


def test_a_known_model_is_recovered():
    # Points so far out that making them unit vectors changes their shape in one direction alone.
    between, within = np.diag([9.0, 4.0, 1.0, 0.25]), np.diag([1.0, 0.8, 0.5, 0.25])
    speakers, each = 4000, 4
    points = np.repeat(CHANCE.standard_normal((speakers, 4)) @ np.sqrt(between), each, axis=0)
    points += CHANCE.standard_normal(points.shape) @ np.sqrt(within)
    embeddings = np.concatenate([np.full((len(points), 1), 1000.0), points], axis=1)
    model = fit_plda(
        embeddings, np.repeat(np.arange(speakers), each), within_shrinkage=1e-6, between_shrinkage=0.0
    )
    # Between: the covariance of the speakers' means, in which the recordings are not told apart from voices.
    # The fifth direction, that of the length, holds next to nothing.
    for expected in np.diag(between) / np.diag(within) + 1.0 / each:
        assert np.abs(model.between / expected - 1.0).min() < 0.1


def test_shrinking_keeps_the_trace_and_ends_in_a_sphere():
    covariance = np.diag([4.0, 2.0, 0.0])
    assert np.trace(shrunk(covariance, 0.3)) == pytest.approx(6.0)
    assert shrunk(covariance, 1.0) == pytest.approx(2.0 * np.eye(3))


def test_the_query_is_the_gradient_at_the_print_that_the_probe_makes_one_expect():
    probe = CHANCE.standard_normal(3)
    expected = probe * MODEL.between / (MODEL.between + 1.0)
    near = np.concatenate([expected + 1e-5 * np.eye(3), expected - 1e-5 * np.eye(3)])
    ratios = MODEL.log_ratio(near, np.ones(6, dtype=int), probe)
    gradient = ratios[:3] - ratios[3:]
    assert MODEL.query(probe) == pytest.approx(gradient / np.linalg.norm(gradient), abs=1e-4)


def test_only_the_direction_of_an_embedding_counts():
    vectors = CHANCE.standard_normal((5, 3))
    assert MODEL.coordinates(vectors * 7.0) == pytest.approx(MODEL.coordinates(vectors))


@pytest.mark.parametrize("vector", [np.zeros((1, 3)), np.full((1, 3), np.nan)])
def test_what_is_no_embedding_is_refused(vector):
    with pytest.raises(InvalidArgumentError):
        MODEL.coordinates(vector)


@pytest.mark.parametrize("speakers", [[0, 0, 0], [0, 1, 2]])
def test_a_fit_to_too_few_speakers_is_refused(speakers):
    with pytest.raises(InvalidArgumentError, match="two speakers"):
        fit_plda(np.eye(3), np.array(speakers), within_shrinkage=0.5, between_shrinkage=0.5)


@pytest.mark.parametrize("power", [0.75, 0.6])
def test_a_power_makes_a_model_of_the_raised_values(power):
    vectors = np.abs(CHANCE.standard_normal((60, 4))) + 0.01
    speakers = np.repeat(np.arange(20), 3)
    shrinkages = {"within_shrinkage": 0.2, "between_shrinkage": 0.2}
    model = fit_plda(vectors, speakers, **shrinkages, power=power)
    other = fit_plda(vectors**power, speakers, **shrinkages)
    assert model.power == power
    assert model.coordinates(vectors) == pytest.approx(other.coordinates(vectors**power))
    assert model.coordinates(vectors * 7.0) == pytest.approx(model.coordinates(vectors))
    below = vectors[:1] * [[1.0, 1.0, 1.0, -1e-9]]
    assert model.coordinates(below) == pytest.approx(model.coordinates(np.maximum(below, 0.0)))

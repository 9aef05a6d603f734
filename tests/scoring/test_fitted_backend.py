"""A backend fitted to voices of a known model, scoring others of it."""

import numpy as np
import pytest
from scoring_models import DIMENSION, fitted, pieces, voices

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import Pieces, default_backend, fit_backend, recalibrate, standing
from voiceprint.scoring.fitting import calibrate


@pytest.fixture(scope="module")
def backend():
    return fitted()


def held_out(backend, enrolled, probes):
    """Scores of voices that were not fitted: float64[probes, callers]."""
    return np.stack([backend.score(probe, [one[None] for one in enrolled]) for probe in probes])


def test_the_fit_finds_voices_that_it_has_not_seen_through_the_line(backend):
    other = pieces(30, seed=5)
    scores = held_out(backend, other.vectors["clean"][::3], other.vectors["line"][1::3])
    assert np.mean(scores.argmax(axis=1) == np.arange(30)) > 0.9


def test_scores_of_voices_that_it_has_not_seen_are_calibrated(backend):
    other = pieces(60, seed=6)
    scores = held_out(backend, other.vectors["clean"][::3], other.vectors["clean"][1::3])
    same = np.eye(60, dtype=bool)
    cost = np.logaddexp(0, -scores[same]).mean() + np.logaddexp(0, scores[~same]).mean()
    assert cost / (2 * np.log(2)) < 0.35


def test_the_same_pieces_and_seed_give_the_same_file(backend, tmp_path):
    backend.save(tmp_path / "one.npz")
    fitted().save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_several_prints_count_by_their_mean_and_their_order_does_not(backend):
    prints, _ = voices(1, 3, seed=9)
    probe = voices(1, 4, seed=9)[0][3]
    forward, backward, thrice = backend.score(probe, [prints, prints[::-1], np.repeat(prints[:1], 3, axis=0)])
    assert forward == pytest.approx(backward)
    assert thrice == pytest.approx(backend.score(probe, [prints[:1]])[0])


def test_a_simulated_print_can_only_help_its_own_caller(backend):
    other = pieces(4, seed=11)
    prints = [one[None] for one in other.vectors["clean"][::3]]
    probe = other.vectors["line"][4]
    lines = [None, probe[None], None, None]
    plain, better = backend.score(probe, prints), backend.score(probe, prints, lines)
    assert better[1] > plain[1]
    assert np.delete(better, 1) == pytest.approx(np.delete(plain, 1))
    assert backend.score(probe, prints, [None, prints[3], None, None])[1] == pytest.approx(plain[1])


def test_callers_that_were_prepared_score_the_same(backend):
    enrolled, _ = voices(6, 1, seed=12)
    prints = [one[None] for one in enrolled]
    assert backend.score(enrolled[0], backend.prepare(prints)) == pytest.approx(
        backend.score(enrolled[0], prints)
    )


def test_the_index_vectors_put_first_whom_the_score_puts_first(backend):
    other = pieces(300, seed=16)
    enrolled, probes = other.vectors["clean"][::3], other.vectors["line"][1::3]
    best = held_out(backend, enrolled, probes).argmax(axis=1)
    order = np.argsort(-backend.index_vectors(probes) @ backend.index_vectors(enrolled).T, axis=1)
    assert np.mean((order[:, :10] == best[:, None]).any(axis=1)) > 0.99


def test_an_empty_gallery_gives_no_scores(backend):
    assert backend.score(voices(1, 1)[0][0], []).shape == (0,)


@pytest.mark.parametrize(
    ("probe", "prints"),
    [
        (np.ones(DIMENSION + 1), [np.ones((1, DIMENSION))]),
        (np.ones(DIMENSION), [np.ones((1, DIMENSION + 1))]),
        (np.ones(DIMENSION), [np.ones((0, DIMENSION))]),
        (np.ones(DIMENSION), [np.ones(DIMENSION)]),
    ],
)
def test_what_does_not_fit_the_backend_is_refused(backend, probe, prints):
    with pytest.raises(InvalidArgumentError):
        backend.score(probe, prints)


def test_recalibration_keeps_the_model_and_the_order_and_heals_the_offset(backend):
    # Calls so noisy that the shipped calibration promises too much.
    noisy, numbers = voices(40, 3, seed=13, within=0.4)
    calls = type(pieces(2))({"calls": noisy}, numbers)
    again = recalibrate(backend, calls, [("calls", "calls")])
    unseen, _ = voices(60, 3, seed=14, within=0.4)
    before, after = (held_out(one, unseen[::3], unseen[1::3]) for one in (backend, again))
    assert again.plda is backend.plda
    assert (np.argsort(before, axis=1) == np.argsort(after, axis=1)).all()

    def cost(scores):
        same = np.eye(60, dtype=bool)
        return np.logaddexp(0, -scores[same]).mean() + np.logaddexp(0, scores[~same]).mean()

    assert cost(after) < cost(before)


def test_measured_rate_is_within_a_factor_of_two_of_the_target():
    backend = fitted(speakers=200)
    other, _ = voices(600, 2, seed=15)
    enrolled = backend.prepare([one[None] for one in other[:200:2]])
    scores = [backend.score(probe, enrolled) for probe in other[200:]]
    for target in (0.05, 0.1):
        named = [row.max() >= backend.threshold_for(target, 100, backend.standing(row)) for row in scores]
        assert target / 2 <= np.mean(named) <= 2 * target


@pytest.mark.parametrize("size", [3, 5, 10])
def test_in_a_small_gallery_the_strangers_stay_near_the_target(size):
    backend = fitted(speakers=200)
    vectors, _ = voices(600, 2, seed=19)
    chance, named = np.random.default_rng(1), []
    for number, probe in enumerate(np.tile(vectors[1::2], (3, 1))):
        others = np.setdiff1d(np.arange(600), number % 600)
        scores = backend.score(probe, list(vectors[chance.choice(others, size, replace=False) * 2, None]))
        named.append(scores.max() >= backend.threshold_for(0.05, size, backend.standing(scores)))
    assert 0.02 < np.mean(named) < 2 * 0.05


def test_the_standing_of_no_cohort_is_the_usual_one_and_that_of_a_large_one_is_measured(backend):
    assert backend.standing(np.empty(0)) == (backend.tail.level, backend.tail.deviation)
    scores = np.random.default_rng(1).normal(-30.0, 2.0, 5000)
    assert backend.standing(scores) == pytest.approx(standing(scores), rel=0.01)


def test_strangers_are_held_against_second_prints_as_well_and_the_scores_stay_as_they_are(backend):
    seen = pieces(40)
    again = fit_backend(
        Pieces(seen.vectors, seen.speakers, seconds={"clean": "line"}),
        encoder="toy",
        pairs=(("clean", "clean"), ("clean", "line")),
        tail_pairs=(("clean", "clean"), ("clean", "line")),
    )
    assert again.tail.level > backend.tail.level
    assert again.calibration == backend.calibration
    assert (again.plda.transform == backend.plda.transform).all()


def test_conditions_of_the_tail_alone_do_not_change_the_scores(backend):
    seen = pieces(40)
    third, _ = voices(40, 3, seed=1, within=0.3)
    pairs = (("clean", "clean"), ("clean", "line"))
    again = fit_backend(
        Pieces({**seen.vectors, "third": third}, seen.speakers),
        encoder="toy",
        pairs=pairs,
        tail_pairs=(("third", "third"),),
        conditions=("clean", "line"),
    )
    assert again.calibration == backend.calibration
    assert (again.plda.transform == backend.plda.transform).all()
    assert again.tail.level != backend.tail.level


def test_second_prints_of_no_condition_are_refused():
    seen = pieces(4)
    with pytest.raises(InvalidArgumentError, match="second prints"):
        Pieces(seen.vectors, seen.speakers, seconds={"clean": "other"})


def test_fit_of_too_few_speakers_is_refused():
    with pytest.raises(InvalidArgumentError, match="speakers"):
        fitted(speakers=8)


def test_calibration_of_scores_that_do_not_overlap_is_finite():
    found = calibrate(np.full(20, 5.0), np.full(20, -5.0))
    assert 0 < found.scale < 100


def test_the_backend_of_the_package_is_there_and_says_what_it_was_fitted_to():
    backend = default_backend()
    assert backend.encoder == "resemblyzer"
    assert "CC BY 4.0" in backend.about["licence"]
    assert backend.plda.mean.shape == (256,)
    assert backend.threshold_for(0.01, 100) > backend.threshold_for(0.01, 10)


def test_few_speakers_move_the_tail_and_leave_its_shape(backend):
    noisy, numbers = voices(6, 3, seed=17, within=0.4)
    again = recalibrate(backend, type(pieces(2))({"calls": noisy}, numbers), [("calls", "calls")])
    assert (again.tail.start, again.tail.scale) == (backend.tail.start, backend.tail.scale)
    assert (again.tail.level, again.tail.deviation) != (backend.tail.level, backend.tail.deviation)


def test_few_speakers_change_the_calibration_less_than_many(backend):
    changes = []
    for speakers in (5, 40):
        clear, numbers = voices(speakers, 3, seed=18, within=0.4)
        again = recalibrate(backend, type(pieces(2))({"calls": clear}, numbers), [("calls", "calls")])
        changes.append(abs(np.log(again.calibration.scale / backend.calibration.scale)))
    assert 0 < changes[0] < changes[1]


def test_pieces_of_one_recording_are_trials_only_where_a_speaker_has_no_other():
    vectors, _ = voices(2, 3)
    speakers, recordings = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 2, 2, 2])
    found = type(pieces(2))({"calls": vectors}, speakers, recordings).targets()
    assert [list(np.flatnonzero(row)) for row in found] == [[2], [2], [0, 1], [4, 5], [3, 5], [3, 4]]


def test_recalibration_on_too_few_speakers_is_refused(backend):
    with pytest.raises(InvalidArgumentError, match="4 speakers or more, not 3"):
        recalibrate(backend, pieces(3), [("clean", "line")])

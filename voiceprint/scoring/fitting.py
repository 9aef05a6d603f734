"""Fitting a backend to speech of known speakers, never scoring a speaker with what was fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.scoring.backend import Backend, Calibration
from voiceprint.scoring.plda import Plda, fit_plda
from voiceprint.scoring.tail import LEAST_SCORES, ImpostorTail, fit_tail, standing

WITHIN_SHRINKAGE: Final = 0.7
BETWEEN_SHRINKAGE: Final = 0.5
POWER: Final = 0.75
"""Chosen by cross-validation over speakers: benchmarks/refinements.py. Powers of 0.7 to 0.85 are alike."""

_FOLDS: Final = 5  # of the calibration
_PARTS: Final = 6  # of the tail, of which two are left out at a time
LEAST_SPEAKERS: Final = 4
"""Of a recalibration: each is a stranger to three others, and of three scores a deviation is known."""

_SCALES: Final = 0.5  # of the logarithm of the scale
_OFFSETS: Final = 2.0  # of the log ratio

_USUAL_SPEAKERS: Final = 20  # that the place of the tail before counts as

_DRAWS: Final = 3  # galleries with one piece a speaker, of each half and pair

Scores = NDArray[np.float64]
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Pieces:
    """Embeddings of pieces of speech, each under several conditions.

    vectors: of each condition float32[n, d], the same pieces in the same order.
    speakers: int[n], the number of each piece's speaker.
    recordings: int[n], the number of the recording that each comes from, if known: two pieces of one
        recording are easier to tell together than two calls, and are no trial where there is another.
    seconds: of a condition that callers are enrolled in, the name of the one that holds their second
        prints. Strangers are held against both, as the product does it.
    """

    vectors: Mapping[str, NDArray[np.float32]] = field(repr=False)
    speakers: NDArray[np.int64] = field(repr=False)
    recordings: NDArray[np.int64] | None = field(default=None, repr=False)
    seconds: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shapes = {array.shape for array in self.vectors.values()}
        if len(shapes) != 1 or {len(shape) for shape in shapes} != {2}:
            raise InvalidArgumentError("Pieces need float32[n, d] of every condition, of one n and d")
        if np.shape(self.speakers) != (next(iter(shapes))[0],):
            raise InvalidArgumentError(f"Pieces need a speaker each, not {np.shape(self.speakers)}")
        if self.recordings is not None and np.shape(self.recordings) != np.shape(self.speakers):
            raise InvalidArgumentError(f"Pieces need a recording each, not {np.shape(self.recordings)}")
        if not {*self.seconds, *self.seconds.values()} <= {*self.vectors}:
            raise InvalidArgumentError(f"Pieces need the conditions of all second prints: {self.seconds}")

    def of(self, speakers: NDArray[np.int64]) -> Pieces:
        """The pieces of these speakers."""
        kept = np.isin(self.speakers, speakers)
        recordings = None if self.recordings is None else self.recordings[kept]
        vectors = {name: array[kept] for name, array in self.vectors.items()}
        return Pieces(vectors, self.speakers[kept], recordings, self.seconds)

    def targets(self) -> NDArray[np.bool_]:
        """Which pairs of pieces, bool[n, n], are of one speaker and make a trial."""
        same = (self.speakers[:, None] == self.speakers) & ~np.eye(len(self.speakers), dtype=np.bool_)
        if self.recordings is None:
            return np.asarray(same)
        apart = same & (self.recordings[:, None] != self.recordings)
        return np.asarray(np.where(apart.any(axis=1)[:, None], apart, same))

    def plda(self, conditions: Sequence[str] | None = None) -> Plda:
        """The model of all of them, or of these conditions: each is another recording of the speaker."""
        names = list(self.vectors) if conditions is None else conditions
        stacked = np.concatenate([self.vectors[name] for name in names])
        return fit_plda(
            stacked,
            np.tile(self.speakers, len(names)),
            within_shrinkage=WITHIN_SHRINKAGE,
            between_shrinkage=BETWEEN_SHRINKAGE,
            power=POWER if (stacked >= 0).all() else 1.0,
        )


def fit_backend(
    pieces: Pieces,
    *,
    encoder: str,
    pairs: Pairs,
    tail_pairs: Pairs,
    conditions: Sequence[str] | None = None,
    seed: int = 1,
    about: Any = None,
) -> Backend:
    """A backend of the pieces; the same one for the same pieces and seed.

    pairs: conditions of enrolment and probe whose scores are calibrated, all counting alike.
    tail_pairs: those whose impostors make the tail, all counting alike. conditions: that the voices are
    modelled by; None for all. about: what the file says of the data.

    Raises:
        InvalidArgumentError: too few speakers, or too few with several pieces.
    """
    model, calibration = _fitted(pieces, pairs, conditions, seed)
    tail = fit_tail(_strangers(pieces, pairs, tail_pairs, conditions, seed))
    return Backend(encoder, model, calibration, tail, dict(about or {}))


def recalibrate(backend: Backend, pieces: Pieces, pairs: Pairs, seed: int = 1) -> Backend:
    """The backend with calibration and tail of other speakers' pieces, such as the user's own calls.

    Its model of voices stays, so that these speakers are held out of it, and few of them will do. So
    does the shape of its tail where there are too few scores for one; where the tail lies is measured.

    Raises:
        InvalidArgumentError: under `LEAST_SPEAKERS`, or none with two pieces.
    """
    count = len(np.unique(pieces.speakers))
    if count < LEAST_SPEAKERS:
        raise InvalidArgumentError(f"A calibration takes {LEAST_SPEAKERS} speakers or more, not {count}")
    trials = [_trials(backend.plda, pieces, pair) for pair in pairs]
    targets, impostors = (np.concatenate(scores) for scores in zip(*trials, strict=True))
    if not len(targets):
        raise InvalidArgumentError("A calibration takes speakers with two pieces")
    calibration = calibrate_from(backend.calibration, targets, impostors, count)
    chance = np.random.default_rng([seed, 2])
    drawn = [_galleries(_matrix(backend.plda, pieces, pair), pieces.speakers, chance) for pair in pairs]
    scores = calibration(np.concatenate(drawn))
    if np.isfinite(scores).sum() >= LEAST_SCORES:
        tail = fit_tail(scores)
    else:
        tail = _moved(backend, calibration, scores, count)
    about = dict(backend.about) | {"recalibrated_on_speakers": count}
    return Backend(backend.encoder, backend.plda, calibration, tail, about)


def calibrate(targets: Scores, impostors: Scores) -> Calibration:
    """Scale and offset of the least Cllr, both kinds counting alike: logistic regression.

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech
    and Language 20 (2006). Where the scores do not overlap, a weak prior keeps the scale finite.
    """
    if not len(targets) or not len(impostors):
        raise InvalidArgumentError("A calibration takes scores of speakers with themselves and with others")
    middle = (float(np.median(targets)) + float(np.median(impostors))) / 2.0
    spread = max(float(np.std(np.concatenate([targets, impostors]))), 1e-9)
    own, other = (targets - middle) / spread, (impostors - middle) / spread

    def cost(numbers: Scores) -> float:
        slope, shift = numbers
        return _cost(slope * own - shift, slope * other - shift) + 1e-4 * float(slope**2)

    slope, shift = _optimize().minimize(cost, np.array([2.0, 0.0]), bounds=[(1e-3, None), (None, None)]).x
    return Calibration(float(slope / spread), float(middle + shift / slope * spread))


def calibrate_from(base: Calibration, targets: Scores, impostors: Scores, speakers: int) -> Calibration:
    """`calibrate` of few speakers: the likeliest scale and offset, where other calls than those that the
    base was fitted to are expected to differ by `_SCALES` and `_OFFSETS`, and each speaker is one witness.
    """
    own, other = base(targets), base(impostors)

    def cost(numbers: Scores) -> float:
        scale, offset = math.exp(numbers[0]), float(numbers[1])
        unlikely = (numbers[0] / _SCALES) ** 2 + (offset / _OFFSETS) ** 2
        return _cost(scale * (own - offset), scale * (other - offset)) + float(unlikely) / (2.0 * speakers)

    log_scale, offset = _optimize().minimize(cost, np.zeros(2), bounds=[(-5.0, 5.0), (None, None)]).x
    return Calibration(base.scale * math.exp(log_scale), base.offset + float(offset) / base.scale)


def _optimize() -> Any:
    """scipy's, imported here as it takes long; a slim install has none."""
    try:
        from scipy import optimize
    except ImportError as error:
        raise ConfigurationError("Fitting scores needs scipy: run `pip install scipy`.") from error
    return optimize


def _cost(targets: Scores, impostors: Scores) -> float:
    """Twice the Cllr, in nats."""
    # -ln(1 / (1 + exp(-x))) = ln(exp(0) + exp(-x)), without overflow
    return float(np.logaddexp(0.0, -targets).mean() + np.logaddexp(0.0, impostors).mean())


def _fitted(
    pieces: Pieces, pairs: Pairs, conditions: Sequence[str] | None, seed: int
) -> tuple[Plda, Calibration]:
    """The model of the pieces' voices, and the calibration of the scores of others."""
    trials = [
        _trials(model, part, pair)
        for model, part in _held_out(pieces, _FOLDS, seed, conditions)
        for pair in pairs
        if len(np.unique(part.speakers)) > 1
    ]
    targets, impostors = (np.concatenate(scores) for scores in zip(*trials, strict=True))
    return pieces.plda(conditions), calibrate(targets, impostors)


def _held_out(
    pieces: Pieces, folds: int, seed: int, conditions: Sequence[str] | None
) -> Iterator[tuple[Plda, Pieces]]:
    """The model of the other speakers, and the pieces of those left out."""
    speakers = np.unique(pieces.speakers)
    if len(speakers) < 2 * folds:
        raise InvalidArgumentError(f"A fit takes {2 * folds} speakers or more, not {len(speakers)}")
    order = np.random.default_rng([seed, 1]).permutation(speakers)
    for part in np.array_split(order, folds):
        yield pieces.of(np.setdiff1d(speakers, part)).plda(conditions), pieces.of(part)


def _strangers(
    pieces: Pieces, pairs: Pairs, tail_pairs: Pairs, conditions: Sequence[str] | None, seed: int
) -> Scores:
    """Calibrated scores of strangers in galleries of all others, a probe a row, with NaN for the own.

    The voices of no score were fitted to: the speakers are parted, and a probe of one part is held against
    the callers of another by what is fitted to all the other parts, calibration included. So galleries are
    large, and the scores are as those of the backend that is fitted to all will be.
    """
    speakers = np.unique(pieces.speakers)
    parts = np.array_split(np.random.default_rng([seed, 3]).permutation(speakers), _PARTS)
    found = [np.full((len(pieces.speakers),) * 2, np.nan) for _ in tail_pairs]
    for one, other in combinations(parts, 2):
        both = np.concatenate([one, other])
        model, calibration = _fitted(pieces.of(np.setdiff1d(speakers, both)), pairs, conditions, seed)
        part, places = pieces.of(both), np.flatnonzero(np.isin(pieces.speakers, both))
        for matrix, pair in zip(found, tail_pairs, strict=True):
            matrix[np.ix_(places, places)] = calibration(_matrix(model, part, pair))
    chance = np.random.default_rng([seed, 2])
    return np.concatenate([_galleries(one, pieces.speakers, chance) for one in found])


def _matrix(model: Plda, pieces: Pieces, pair: tuple[str, str]) -> Scores:
    """The raw log ratio of every probe (a row) with every enrolled piece, the better one of its prints."""
    heard = model.coordinates(pieces.vectors[pair[1]])
    scores = model.log_ratios(model.coordinates(pieces.vectors[pair[0]]), heard)
    if pair[0] not in pieces.seconds:
        return scores
    seconds = model.coordinates(pieces.vectors[pieces.seconds[pair[0]]])
    return np.maximum(scores, model.log_ratios(seconds, heard))


def _trials(model: Plda, pieces: Pieces, pair: tuple[str, str]) -> tuple[Scores, Scores]:
    """Scores of speakers with themselves, in different pieces, and with others."""
    scores = _matrix(model, replace(pieces, seconds={}), pair)
    return scores[pieces.targets()], scores[pieces.speakers[:, None] != pieces.speakers]


def _galleries(scores: Scores, speakers: NDArray[np.int64], chance: np.random.Generator) -> Scores:
    """Strangers' scores: of each speaker one probe, with one piece of each other; NaN with the own."""
    owned = [np.flatnonzero(speakers == speaker) for speaker in np.unique(speakers)]
    found = []
    for _ in range(_DRAWS):
        enrolled, probes = (np.array([chance.choice(own) for own in owned]) for _ in range(2))
        drawn = scores[np.ix_(probes, enrolled)]
        np.fill_diagonal(drawn, np.nan)
        found.append(drawn)
    return np.concatenate(found)


def _moved(backend: Backend, calibration: Calibration, scores: Scores, speakers: int) -> ImpostorTail:
    """The backend's tail where these scores lie, and, the fewer speakers there are, where it was."""
    was, tail = backend.calibration, backend.tail
    usual = float(calibration(np.array(tail.level) / was.scale + was.offset))
    wide = tail.deviation * calibration.scale / was.scale
    measured = np.array([standing(row[np.isfinite(row)]) for row in scores])
    level, deviation = measured[:, 0].mean(), np.exp(np.log(measured[:, 1]).mean())
    weight = speakers / (speakers + _USUAL_SPEAKERS)
    return replace(
        tail,
        level=float(weight * level + (1.0 - weight) * usual),
        deviation=float(deviation**weight * wide ** (1.0 - weight)),
    )

"""A calibration from the answers in an audit log that were confirmed or contradicted.

    result = calibrate_by_audit(recognizer.audit_log(), recognizer.encoder)
    result.calibration.save("calibration.json")  # VOICE_CALIBRATION_PATH=calibration.json

The log has the score of the best match of every identification. With `recognizer.feedback`, it also has who
is a stranger: an accepted caller who was wrong, or nobody rightly. The scores of these strangers tell by how
much real traffic differs from the gallery's own callers. Scale and offset of the log-likelihood ratios stay:
the log has no scores of other callers than the best, to which they would have to be fitted.

Feedback is mostly on accepted answers, whose scores are high. Each answer therefore weighs as many answers of
its kind, accepted or not, as the log has for each with feedback (Horvitz and Thompson, "A generalization of
sampling without replacement from a finite universe", JASA 47, 1952).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder import Encoder
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation.calibration_fit import TARGETS, TargetRates
from voiceprint.evaluation.mixture import PRIOR_STRANGERS, stranger_component
from voiceprint.privacy.audit import AuditLog, Event, Line
from voiceprint.scoring import Calibration, ImpostorStatistics, projection_for

LEAST_STRANGERS: Final = 30
"""Fewest confirmed strangers: with fewer, the prior, which counts as 20, is most of the result."""

LEAST_OF_KIND: Final = 10
"""Fewest answers with feedback among those that accepted nobody, where the log has any: they stand for all
others of their kind. With half as many, one of them may weigh as much as a fifth of all strangers."""

_ACTIONS: Final = frozenset({"identify", "match", "stream"})

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibratedByAudit:
    """A calibration by feedback: `calibration.save` writes it.

    answers: identifications in the log with this encoder. strangers, callers: answers with feedback, by the
        voice that it confirms. without_answer: feedback to an event that is not such an answer.
    before, after: with the package's calibration, and with that of the other half of the answers. FNIR: of
        enrolled callers who are not identified, or as another.
    """

    calibration: Calibration = field(repr=False)
    answers: int
    strangers: int
    callers: int
    without_answer: int
    before: tuple[TargetRates, ...]
    after: tuple[TargetRates, ...]


class _Answers(NamedTuple):
    """Answers with feedback.

    deviates: of the best scores, float64[n]. strangers: whether a stranger spoke, bool[n].
    right: whether the best match is the caller who spoke, bool[n]. weights: answers of its kind that each
        stands for, float64[n]. sizes: callers searched, int64[n].
    """

    deviates: Floats
    strangers: NDArray[np.bool_]
    right: NDArray[np.bool_]
    weights: Floats
    sizes: NDArray[np.int64]

    def part(self, rows: NDArray[np.int64]) -> _Answers:
        """The answers of these rows."""
        deviates, strangers, right, weights, sizes = self
        return _Answers(deviates[rows], strangers[rows], right[rows], weights[rows], sizes[rows])


def calibrate_by_audit(log: AuditLog, encoder: Encoder) -> CalibratedByAudit:
    """Fit the scores of confirmed strangers; equal logs give equal results.

    Raises:
        InvalidArgumentError: fewer than `LEAST_STRANGERS` confirmed strangers, or too little feedback on
            answers that accepted nobody.
        OSError: the log cannot be read.
    """
    feedback = {event.about: event for event in _events(log) if event.action == "feedback"}
    totals: Counter[bool] = Counter()
    found: list[Event] = []
    for event in _events(log):
        if event.action not in _ACTIONS or event.deviate is None or event.encoder != encoder.name:
            continue
        if event.event_id in feedback:
            found.append(event)
        elif event.detail == "decided early":  # the end of the same call is the answer
            continue
        totals[event.verdict == "accepted"] += 1
    answers = _answers(found, feedback, totals)
    strangers = int(answers.strangers.sum())
    kinds = Counter(event.verdict == "accepted" for event in found)
    _check_counts(strangers, kinds, totals)
    calibration = _fit(answers, encoder.name)
    order = np.random.default_rng(0).permutation(len(found))
    halves = [answers.part(half) for half in np.array_split(order, 2)]
    others = [_fit(half, encoder.name) for half in halves][::-1]
    has_prior = projection_for(encoder.name, encoder.dimension).prior is not None
    about = {
        "source": "audit",
        "answers": sum(totals.values()),
        "strangers": strangers,
        "callers": len(found) - strangers,
    }
    return CalibratedByAudit(
        calibration=calibration.model_copy(update={"about": about}),
        answers=sum(totals.values()),
        strangers=strangers,
        callers=len(found) - strangers,
        without_answer=len(feedback) - len(found),
        before=_rates(halves, [Calibration(), Calibration()], has_prior=has_prior),
        after=_rates(halves, others, has_prior=has_prior),
    )


def _events(log: AuditLog) -> Iterator[Event]:
    for _, text in log.lines():
        line = Line.parse(text)
        if line is not None:
            yield line.event


def _answers(found: list[Event], feedback: dict[str | None, Event], totals: Counter[bool]) -> _Answers:
    kinds = Counter(event.verdict == "accepted" for event in found)
    strangers, right = [], []
    for event in found:
        said = feedback[event.event_id]
        accepted = event.verdict == "accepted"
        is_stranger = said.caller is None and bool(said.correct) != accepted
        strangers.append(is_stranger)
        right.append(not is_stranger and (said.caller or event.caller) == event.caller)
    return _Answers(
        np.array([event.deviate for event in found], dtype=np.float64),
        np.array(strangers, dtype=np.bool_),
        np.array(right, dtype=np.bool_),
        np.array(
            [totals[event.verdict == "accepted"] / kinds[event.verdict == "accepted"] for event in found],
            dtype=np.float64,
        ),
        np.array([event.gallery_size or 1 for event in found], dtype=np.int64),
    )


def _check_counts(strangers: int, kinds: Counter[bool], totals: Counter[bool]) -> None:
    if strangers < LEAST_STRANGERS:
        raise InvalidArgumentError(
            f"A calibration from the audit log needs {LEAST_STRANGERS} confirmed strangers or more, and the "
            f"log has {strangers}: with fewer, the package's calibration, which counts as {PRIOR_STRANGERS}, "
            "decides the result. A stranger is an accepted answer with feedback correct=False and no "
            "caller_id, or one that accepted nobody with correct=True."
        )
    if kinds[False] < min(LEAST_OF_KIND, totals[False]):
        raise InvalidArgumentError(
            f"{totals[False]} answers accepted nobody, and {kinds[False]} of them have feedback: "
            f"{LEAST_OF_KIND} are needed, as accepted strangers alone are those with the highest scores."
        )


def _fit(answers: _Answers, space: str) -> Calibration:
    weights = answers.weights[answers.strangers]
    if weights.size:
        # They sum to the number of equally weighted answers that are as reliable (Kish, "Survey Sampling").
        weights = weights * (weights.sum() / (weights**2).sum())
    strangers = stranger_component(answers.deviates[answers.strangers], weights)
    return Calibration(stranger_shift=strangers.mean, stranger_spread=strangers.std, space=space)


def _rates(
    halves: list[_Answers], calibrations: list[Calibration], *, has_prior: bool
) -> tuple[TargetRates, ...]:
    """FPIR of the confirmed strangers and FNIR of the confirmed callers, by their deviates."""
    rates = []
    for target in TARGETS:
        accepted = [
            half.deviates
            >= calibration.stranger_shift
            + calibration.stranger_spread * _deviates(target, half.sizes, has_prior=has_prior)
            for half, calibration in zip(halves, calibrations, strict=True)
        ]
        over = np.concatenate(accepted)
        strangers, right, weights = (
            np.concatenate([getattr(half, name) for half in halves])
            for name in ("strangers", "right", "weights")
        )
        rates.append(
            TargetRates(
                target,
                _share(over[strangers], weights[strangers]),
                _share(~(over & right)[~strangers], weights[~strangers]),
            )
        )
    return tuple(rates)


def _deviates(target: float, sizes: NDArray[np.int64], *, has_prior: bool) -> Floats:
    """The deviate of a best score whose expected FPIR is the target, in galleries of these sizes."""
    # In a space without a prior, the best score is the maximum of as many scores as there are others.
    others = {int(size): 1 if has_prior else max(int(size) - 1, 1) for size in np.unique(sizes)}
    standard = {
        size: ImpostorStatistics(1, 1, 0.0, 1.0, 0.0, 1.0, count).deviate(target)
        for size, count in others.items()
    }
    return np.array([standard[int(size)] for size in sizes])


def _share(chosen: NDArray[np.bool_], weights: Floats) -> float:
    return float(weights[chosen].sum() / weights.sum()) if weights.size else 0.0

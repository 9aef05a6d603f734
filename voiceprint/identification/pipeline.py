"""Matching: which of the enrolled callers an embedding sounds like, among all or among some."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import CallerNotFoundError, InvalidArgumentError, StorageUnavailableError
from voiceprint.identification.candidates import CANDIDATES_PER_QUERY, views_for
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.ranking import Probe, Scored, rank
from voiceprint.models import RESEMBLYZER_SPACE, Caller, Match, Verification, Voiceprint
from voiceprint.scoring import probabilities
from voiceprint.validation import check_caller_id, shown

if TYPE_CHECKING:
    from voiceprint.scoring import GalleryScorer
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)

_ROUNDING = 1e-4

MOST_STRANGERS: Final = 0.05
"""Share of strangers' calls above which a threshold that names them is warned of."""


class AcceptanceRule(NamedTuple):
    """What is accepted: a similarity from `threshold` on, or an expected rate of strangers up to `target`.

    target: expected false-positive identification rate of an identification, or false-match rate of a
        verification, 0..1. calibrated: whether similarities are probabilities, and not cosines.
    given: whether the threshold was chosen for this one question, and not configured.
    """

    threshold: float
    target: float | None = None
    calibrated: bool = False
    given: bool = False

    @property
    def is_default(self) -> bool:
        """Whether the configured cosine threshold decides."""
        return self.target is None and not self.calibrated and not self.given

    def accepts(self, similarity: float, rate: float | None, probability: float | None) -> bool:
        """Whether to accept a caller of this similarity, expected rate of strangers, and probability."""
        if self.target is not None:
            return rate is not None and rate <= self.target
        # Without a probability the similarity is a cosine, which the threshold was not meant for.
        return similarity >= self.threshold and not (self.calibrated and probability is None)


class Identifier:
    """Compares embeddings of one space with the voiceprints of a store.

    space: name of the encoder. gallery: asked for at each search, as after a fork it is another.
    calibration: file of the calibrated scores; None is the package's.
    """

    def __init__(
        self,
        storage: Storage,
        space: str,
        gallery: Callable[[], Gallery],
        calibration: str | None = None,
    ) -> None:
        self._storage = storage
        self._space = space
        self._gallery = gallery
        self._calibration = calibration

    def nearest(
        self,
        probe: Probe,
        k: int,
        rule: AcceptanceRule,
        callers: list[Caller] | None,
        ignored: Collection[str] = (),
    ) -> list[Match]:
        """The k best of these callers, of all if None; accepted are those that the rule accepts.

        ignored: caller ids who are no candidates.
        """
        gallery = self._gallery()
        gallery.synchronized(self._storage)
        scorer = self._scorer(gallery, probe)
        # One more, for the margin of the last.
        if callers is not None:
            callers = [caller for caller in callers if caller.caller_id not in ignored]
        ranked = self._ranked(gallery, scorer, probe, k + 1 + len(ignored), callers)
        ranked = [scored for scored in ranked if scored.voiceprint.caller_id not in ignored]
        likely = np.zeros(0)
        count = 0
        if scorer is not None and ranked:
            everyone = gallery.callers(self._storage)
            count = len(callers) if callers is not None else max(everyone - len(ignored), 1)
            # Callers who are not even on the shortlist are too unlikely to add anything.
            ratios = [cast(float, scored.llr) for scored in ranked]
            likely = probabilities(ratios, max(count, len(ratios)))
        if rule.is_default:
            self._tell_of_strangers(gallery, rule.threshold)
        matches = []
        for place, scored in enumerate(ranked[:k]):
            rate = probability = None
            if scorer is not None and scored.llr is not None:
                rate, probability = scorer.fpir(scored.llr, count), float(likely[place])
            similarity = _similarity(scored, probability, rule)
            matches.append(
                Match(
                    caller_id=scored.voiceprint.caller_id,
                    similarity=similarity,
                    metadata=scored.voiceprint.metadata,
                    voiceprint_id=cast(int, scored.voiceprint.id),  # every stored print has one
                    accepted=rule.accepts(similarity, rate, probability),
                    llr=scored.llr,
                    fpir=rate,
                    probability=probability,
                    margin=_margin(ranked, place),
                    too_small=rule.target is not None and rate is None,
                )
            )
        return matches

    def _ranked(
        self,
        gallery: Gallery,
        scorer: GalleryScorer | None,
        probe: Probe,
        k: int,
        callers: list[Caller] | None,
    ) -> list[Scored]:
        if callers is not None:
            return rank(probe, [one for caller in callers for one in self._prints(caller)], scorer)
        if scorer is None:
            return gallery.best(self._storage, probe.plain, k)
        views = views_for(probe, scorer, k, self._storage.max_voiceprints_per_caller)
        return rank(probe, gallery.proposed(self._storage, views, k, CANDIDATES_PER_QUERY), scorer)

    def verified(self, probe: Probe, prints: list[Voiceprint], rule: AcceptanceRule) -> Verification:
        """Whether the probe is of the caller of these voiceprints, by the threshold of the rule."""
        gallery = self._gallery()
        gallery.synchronized(self._storage)
        scorer = self._scorer(gallery, probe)
        (scored,) = rank(probe, prints, scorer)
        rate = probability = None
        if scorer is not None and scored.llr is not None:
            probability = float(probabilities([scored.llr], 1)[0])
            rate = scorer.fpir(scored.llr, 1)
        similarity = _similarity(scored, probability, rule)
        return Verification(
            caller_id=scored.voiceprint.caller_id,
            accepted=rule.accepts(similarity, rate, probability),
            similarity=similarity,
            threshold=None if rule.target is not None else rule.threshold,
            llr=scored.llr,
            fmr=rate,
            probability=probability,
        )

    def advice(self, threshold: float) -> str | None:
        """A sentence where more than `MOST_STRANGERS` would get a name at a similarity threshold."""
        gallery = self._gallery()
        gallery.synchronized(self._storage)
        rate = gallery.strangers_over(self._storage, threshold)
        if rate is None or rate <= MOST_STRANGERS:
            return None
        return (
            f"At the similarity threshold {threshold:g} about {100 * rate:.0f} % of strangers' calls get a "
            f"caller's name, by how alike the enrolled callers are to each other: set VOICE_TARGET_FPIR=0.01 "
            "for 1 %."
        )

    def _tell_of_strangers(self, gallery: Gallery, threshold: float) -> None:
        """Say so in the log, once for each gallery of the process."""
        if not gallery.told_of_strangers:
            advice = self.advice(threshold)
            if advice is not None:
                gallery.told_of_strangers = True
                logger.warning("%s: %s", self._storage, advice)

    def _scorer(self, gallery: Gallery, probe: Probe) -> GalleryScorer | None:
        """The scorer of the gallery; None where it is too small to say what a score means."""
        if not covers(self._space, probe.best):
            return None
        scorer = gallery.scorer(self._storage, self._calibration)
        return None if scorer.statistics is None else scorer

    def enrolled(self, caller_ids: Iterable[str]) -> list[Caller]:
        """Those of the callers who are."""
        found = (self._storage.get(caller_id) for caller_id in caller_ids)
        return [caller for caller in found if caller is not None]

    def prints(self, caller_id: str) -> list[Voiceprint]:
        """The caller's voiceprints in this space; `CallerNotFoundError` where there are none."""
        caller = self._storage.get(caller_id)
        prints = self._prints(caller) if caller is not None else []
        if not prints:
            others = {print_.encoder for print_ in caller.voiceprints} if caller is not None else ()
            if others:
                raise CallerNotFoundError(
                    f"The caller {caller_id!r} is not enrolled with the encoder {self._space!r}, but with "
                    f"{', '.join(map(repr, sorted(others)))}: set VOICE_ENCODER, or enroll the caller anew."
                )
            raise CallerNotFoundError(f"The caller {caller_id!r} is not enrolled: enroll the caller first.")
        return prints

    def touch(self, caller_id: str) -> None:
        """Move the `last_seen` of a caller who was matched."""
        try:
            self._storage.touch(caller_id)
        except StorageUnavailableError as error:
            # The call has its answer; a store that can be read but not written must not take it away.
            logger.warning("last_seen of a matched caller could not be stored: %s", error)

    def _prints(self, caller: Caller) -> list[Voiceprint]:
        # Embeddings of different encoders are never compared.
        return [print_ for print_ in caller.voiceprints if print_.encoder == self._space]


def covers(space: str, embedding: NDArray[np.float32]) -> bool:
    """Whether the statistics of a space hold for an embedding: Resemblyzer gives no negative values.

    For a vector from elsewhere, such as one of a test, a likelihood would mean nothing.
    """
    return space != RESEMBLYZER_SPACE or float(np.min(embedding)) >= -_ROUNDING


def _similarity(scored: Scored, probability: float | None, rule: AcceptanceRule) -> float:
    """The value reported as `similarity`: the probability if calibrated, else the cosine."""
    return probability if rule.calibrated and probability is not None else scored.similarity


def _margin(ranked: list[Scored], place: int) -> float | None:
    """How far the best is over the next, or another behind the best."""
    if len(ranked) < 2:
        return None
    return ranked[place].score - ranked[0 if place else 1].score


def check_count(k: Any) -> int:
    """How many callers are wanted."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgumentError(f"k is {shown(k)}: a whole number from 1 is allowed.")
    return int(k)


def check_threshold(threshold: Any) -> float:
    """The similarity from which a match is accepted."""
    if (
        isinstance(threshold, bool)
        or not isinstance(threshold, int | float | np.number)
        or not 0 <= threshold <= 1
    ):
        raise InvalidArgumentError(f"The threshold is {shown(threshold)}: a number from 0 to 1 is allowed.")
    return float(threshold)


def check_candidates(candidates: Any, name: str = "candidates") -> list[str]:
    """The caller ids to search among, or to ignore, each once."""
    if isinstance(candidates, str) or not isinstance(candidates, Iterable):
        raise InvalidArgumentError(f"{name} is one {type(candidates).__name__}: give a list of caller ids.")
    return [*dict.fromkeys(check_caller_id(caller_id) for caller_id in candidates)]

"""The pipeline of a match: shortlist, read, score, decide."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint._audited import current
from voiceprint.answers import verdict_of
from voiceprint.audio.sketch import is_copy_of_any
from voiceprint.embedder import Probe
from voiceprint.enrollment.agreement import same_recording
from voiceprint.errors import CallerNotFoundError, StorageUnavailableError
from voiceprint.identification.acceptance import DEFAULT_TARGET, AcceptanceRule
from voiceprint.identification.candidates import candidate_queries, least_hits
from voiceprint.identification.evidence import note_identification, note_verification
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.groups import Scope
from voiceprint.identification.query import Query
from voiceprint.identification.ranking import Scored, rank
from voiceprint.identification.screening import SAME_RECORDING
from voiceprint.models import (
    RESEMBLYZER_SPACE,
    Caller,
    CallerState,
    Identification,
    Match,
    Verdict,
    Verification,
    Voiceprint,
    WatchHit,
)
from voiceprint.retention import Expiry, state_of
from voiceprint.scoring import probabilities

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.scoring import GalleryScorer

logger = logging.getLogger(__name__)

MOST_STRANGERS: Final = 0.05
"""Share of strangers' calls above which the log warns of a threshold that accepts them."""

WATCHED: Final = 5
"""Callers of a watched group who may all be hits, as people who sound alike. With 10, a watched group takes
up to twice the time."""

_ROUNDING: Final = 1e-4  # of a component of an embedding


class Identifier:
    """Identifies and verifies probes against a gallery."""

    def __init__(self, gallery: Gallery, config: VoiceFingerprintConfig) -> None:
        self.gallery = gallery
        self._config = config

    def identify(self, probe: Probe, query: Query) -> Identification:
        """The k most likely callers of the query, the best first, and the decision."""
        self.gallery.refresh()
        scorer = self._scorer(probe)
        # One more than k, for the margin of the last.
        wanted = query.k + 1 + len(query.ignored)
        expiry = Expiry(self._config.retention_period)
        voiceprints = self._candidates(probe, scorer, query, wanted, expiry)
        ranked = [
            scored
            for scored in rank(probe, voiceprints, scorer)
            if scored.voiceprint.caller_id not in query.ignored
        ]
        rule = AcceptanceRule.of_identification(self._config, self.gallery.encoder, query.threshold)
        self._warn_of_default(rule)
        size = self._gallery_size(ranked, query)
        matches = self._decide(ranked, scorer, rule, size, query.k)
        answer = Identification(
            matches,
            verdict=None if matches else self._without_matches(query, expiry),
            reasons=self._reasons(probe, voiceprints),
            watch_hits=self._watch_hits(probe, scorer, query.watch, expiry),
        )
        if current() is not None:
            space = self.gallery.encoder
            note_identification(answer, rule, self._config, query.threshold, scorer, size, space)
        return answer

    def _watch_hits(
        self, probe: Probe, scorer: GalleryScorer | None, watch: tuple[str, ...], expiry: Expiry
    ) -> tuple[WatchHit, ...]:
        """The callers of watched groups who are accepted, each by the rule of the group; the best first."""
        hits = []
        for group in watch:
            scope = Scope((group,))
            ranked = rank(probe, self._shortlisted(probe, scorer, scope, WATCHED, expiry), scorer)
            rule = AcceptanceRule.of_watchlist(self._config, self.gallery.encoder, group)
            size = self.gallery.count_callers(scope)
            hits += [
                WatchHit(
                    group=group,
                    caller_id=match.caller_id,
                    similarity=match.similarity,
                    voiceprint_id=match.voiceprint_id,
                    llr=match.llr,
                    fpir=match.fpir,
                    target=rule.target,
                )
                for match in self._decide(ranked, scorer, rule, size, WATCHED)
                if match.accepted
            ]
        if watch:
            self.gallery.warn_of_empty_groups(watch)
        return tuple(sorted(hits, key=lambda hit: -(hit.similarity if hit.llr is None else hit.llr)))

    def log_hits(self, answer: Identification) -> None:
        """Log the watch hits of an answer of which the application sees one caller alone; without names."""
        for group, count in Counter(hit.group for hit in answer.watch_hits).items():
            logger.warning(
                "%s: a voice is that of %d caller(s) of the watched group %r.",
                self.gallery.storage, count, group,
            )  # fmt: skip

    def _reasons(self, probe: Probe, voiceprints: list[Voiceprint]) -> tuple[str, ...]:
        """`SAME_RECORDING` where the probe is a copy of the recording of one of these voiceprints."""
        if not self._config.same_recording:
            return ()
        sketches = [
            one.provenance.fingerprints
            for one in voiceprints
            if one.provenance is not None and one.provenance.fingerprints is not None
        ]
        copied = same_recording(probe.plain, voiceprints) is not None or (
            probe.sketch is not None and is_copy_of_any(probe.sketch, sketches)
        )
        return (SAME_RECORDING,) if copied else ()

    def _without_matches(self, query: Query, expiry: Expiry) -> Verdict:
        """The verdict where nobody is comparable: by the state that all candidates have in common."""
        if query.candidates is None:
            others = self.gallery.count_callers(query.scope) - len(query.ignored)
            return Verdict.EXPIRED if others > 0 else Verdict.NOT_ENROLLED
        found = self.gallery.storage.get_callers(query.candidates)
        states = {state_of(caller, expiry) for caller in found.values()}
        is_one = len(found) == len(query.candidates) and len(states) == 1
        return _STATES.get(states.pop(), Verdict.NOT_ENROLLED) if is_one else Verdict.NOT_ENROLLED

    def _candidates(
        self, probe: Probe, scorer: GalleryScorer | None, query: Query, callers: int, expiry: Expiry
    ) -> list[Voiceprint]:
        """The voiceprints to score: those of the query's candidates, or of the shortlist of the index.

        Without those of expired callers.
        """
        gallery = self.gallery
        if query.candidates is not None:
            found = gallery.storage.get_callers(query.candidates).values()
            prints = [one for caller in found for one in gallery.prints_of(caller)]
            return _comparable(prints, query.scope, expiry)
        return self._shortlisted(probe, scorer, query.scope, callers, expiry)

    def _shortlisted(
        self, probe: Probe, scorer: GalleryScorer | None, scope: Scope, callers: int, expiry: Expiry
    ) -> list[Voiceprint]:
        """The voiceprints of this many callers of a scope, or more."""
        gallery = self.gallery
        most_prints = gallery.storage.max_voiceprints_per_caller
        queries = candidate_queries(probe, scorer, callers, most_prints)
        hits, wider = callers * most_prints, 1
        if scorer is not None:
            hits = max(hits, least_hits(scope, gallery.count_voiceprints(scope)))
        while True:
            shortlist = gallery.shortlist(queries, hits, wider, scope)
            voiceprints = _comparable(gallery.read(shortlist.ids), scope, expiry)
            # A caller may have more voiceprints among the hits than the current limit.
            if shortlist.is_all or len({one.caller_id for one in voiceprints}) >= callers:
                return voiceprints
            hits, wider = 2 * hits, 2 * wider

    def _decide(
        self, ranked: list[Scored], scorer: GalleryScorer | None, rule: AcceptanceRule, size: int, k: int
    ) -> list[Match]:
        """The k best as matches. size: callers that were searched."""
        likely = np.zeros(0)
        if scorer is not None and ranked:
            likely = probabilities([cast(float, scored.llr) for scored in ranked], max(size, len(ranked)))
        matches = []
        for place, scored in enumerate(ranked[:k]):
            rate = probability = None
            if scorer is not None and scored.llr is not None:
                rate, probability = scorer.fpir(scored.llr, size), float(likely[place])
            similarity = _similarity(scored, probability, rule)
            matches.append(
                Match(
                    caller_id=scored.voiceprint.caller_id,
                    similarity=similarity,
                    metadata=scored.voiceprint.metadata,
                    voiceprint_id=cast(int, scored.voiceprint.id),  # every stored voiceprint has one
                    accepted=rule.accepts(similarity, rate, probability),
                    llr=scored.llr,
                    fpir=rate,
                    probability=probability,
                    margin=_margin(ranked, place),
                    too_small=rule.target is not None and rate is None,
                )
            )
        return matches

    def _gallery_size(self, ranked: list[Scored], query: Query) -> int:
        """The number of callers that the query searches among."""
        if query.candidates is not None:
            return len(ranked)
        # Callers to ignore may be outside of the groups: rather a size that is too large.
        ignored = len(query.ignored) if query.scope.is_everyone else 0
        return max(self.gallery.count_callers(query.scope) - ignored, 1)

    def gone(self, caller_id: str) -> Verdict | None:
        """The verdict on a caller who was accepted and must not be named any more; None for any other."""
        caller = self.gallery.storage.get(caller_id)
        return Verdict.NOT_ENROLLED if caller is None else self._without_voice(caller)

    def _without_voice(self, caller: Caller) -> Verdict | None:
        """The verdict on a caller without a voice to compare with; None for a caller with one."""
        return _STATES.get(state_of(caller, Expiry(self._config.retention_period)))

    def refusal(self, caller_id: str) -> Verification | None:
        """The verification of a caller who is stored and cannot be compared; None for any other."""
        caller = self.gallery.storage.get(caller_id)
        verdict = None if caller is None else self._without_voice(caller)
        if verdict is None:
            return None
        return Verification(
            caller_id=caller_id, accepted=False, similarity=None, threshold=None, verdict=verdict
        )

    def verify(
        self,
        probe: Probe,
        voiceprints: list[Voiceprint],
        threshold: float | None,
        watch: tuple[str, ...] = (),
    ) -> Verification:
        """Whether the probe is of the caller of these voiceprints, and the hits in watched groups."""
        self.gallery.refresh()
        scorer = self._scorer(probe)
        rule = AcceptanceRule.of_verification(self._config, self.gallery.encoder, threshold)
        if rule.is_default_target:
            self._warn_of_default(rule)
        (scored,) = rank(probe, voiceprints, scorer)
        rate = probability = None
        if scorer is not None and scored.llr is not None:
            probability = float(probabilities([scored.llr], 1)[0])
            rate = scorer.fpir(scored.llr, 1)
        similarity = _similarity(scored, probability, rule)
        accepted = rule.accepts(similarity, rate, probability)
        verification = Verification(
            verdict=verdict_of(accepted, rate, too_small=rule.target is not None and rate is None),
            caller_id=scored.voiceprint.caller_id,
            accepted=accepted,
            similarity=similarity,
            threshold=None if rule.target is not None else rule.threshold,
            llr=scored.llr,
            fmr=rate,
            probability=probability,
            watch_hits=self._watch_hits(probe, scorer, watch, Expiry(self._config.retention_period)),
            reasons=self._reasons(probe, voiceprints),
        )
        note_verification(verification, rule, self._config, threshold, self.gallery.encoder)
        return verification

    def voiceprints(self, caller_id: str) -> list[Voiceprint]:
        """The caller's voiceprints in this space; `CallerNotFoundError` where there are none."""
        space = self.gallery.encoder
        caller = self.gallery.storage.get(caller_id)
        prints = [] if caller is None else self.gallery.prints_of(caller)
        if prints:
            return prints
        if caller is not None and caller.voiceprints:
            others = sorted({one.encoder for one in caller.voiceprints})
            raise CallerNotFoundError(
                f"The caller {caller_id!r} is not enrolled with the encoder {space!r}, but with "
                f"{', '.join(map(repr, others))}: set VOICE_ENCODER, or enroll the caller anew."
            )
        raise CallerNotFoundError(f"The caller {caller_id!r} is not enrolled: enroll the caller first.")

    def touch(self, caller_id: str) -> None:
        """Move the `last_seen` of a caller who was matched."""
        try:
            self.gallery.storage.touch(caller_id)
        except StorageUnavailableError as error:
            # The call has its answer; a store that can be read but not written must not take it away.
            logger.warning("last_seen of a matched caller could not be stored: %s", error)

    def threshold_advice(self) -> str | None:
        """A sentence where the configured threshold accepts more than `MOST_STRANGERS` of strangers."""
        rule = AcceptanceRule.of_identification(self._config, self.gallery.encoder, None)
        if not rule.is_default:
            return None
        self.gallery.refresh()
        return self._advice(rule.threshold)

    def _advice(self, threshold: float) -> str | None:
        rate = self.gallery.expected_fpir(threshold)
        if rate is None or rate <= MOST_STRANGERS:
            return None
        return (
            f"At the similarity threshold {threshold:g} about {100 * rate:.0f} % of strangers' calls get a "
            f"caller's name, by how alike the enrolled callers are to each other: set VOICE_TARGET_FPIR=0.01 "
            "for 1 %."
        )

    def _warn_of_default(self, rule: AcceptanceRule) -> None:
        """Log once of a default threshold that accepts many strangers, or of the target that replaces it."""
        gallery = self.gallery
        if gallery.warned_of_rule:
            return
        if rule.is_default_target:
            gallery.warned_of_rule = True
            logger.warning(
                "%s: the default threshold holds for Resemblyzer's embeddings alone. In the space %r a match "
                "is accepted up to an expected FPIR of %g %%: set VOICE_TARGET_FPIR or "
                "VOICE_SIMILARITY_THRESHOLD for another rule.",
                gallery.storage,
                gallery.encoder,
                100 * DEFAULT_TARGET,
            )
        elif rule.is_default:
            advice = self._advice(rule.threshold)
            if advice is not None:
                gallery.warned_of_rule = True
                logger.warning("%s: %s", gallery.storage, advice)

    def _scorer(self, probe: Probe) -> GalleryScorer | None:
        """The scorer of the gallery; None where the gallery is too small for its statistics."""
        if not _is_covered(self.gallery.encoder, probe.best):
            return None
        scorer = self.gallery.scorer(self._config.calibration_path)
        return None if scorer.statistics is None else scorer


_STATES: Final[dict[CallerState, Verdict]] = {
    "opted_out": Verdict.OPTED_OUT,
    "expired": Verdict.EXPIRED,
    "pending": Verdict.NOT_ENROLLED,
}


def _comparable(voiceprints: list[Voiceprint], scope: Scope, expiry: Expiry) -> list[Voiceprint]:
    """Those of callers who are in the scope, by the records, and not expired."""
    return [
        one
        for one in voiceprints
        if (scope.is_everyone or scope.admits(one.groups))
        and not expiry.covers(one.consent, one.last_seen or one.created_at)
    ]


def _is_covered(space: str, embedding: NDArray[np.float32]) -> bool:
    """Whether the statistics of a space hold for an embedding: Resemblyzer gives no negative values.

    For other vectors, such as those of a test, a likelihood has no meaning.
    """
    return space != RESEMBLYZER_SPACE or float(np.min(embedding)) >= -_ROUNDING


def _similarity(scored: Scored, probability: float | None, rule: AcceptanceRule) -> float:
    """The value reported as `similarity`: the probability if calibrated, else the cosine."""
    return probability if rule.calibrated and probability is not None else scored.similarity


def _margin(ranked: list[Scored], place: int) -> float | None:
    """The lead of the best over the next, or the distance of another behind the best."""
    if len(ranked) < 2:
        return None
    return ranked[place].score - ranked[0 if place else 1].score

"""The answers of identification and verification."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from pydantic import Field, computed_field

from voiceprint._model import Frozen
from voiceprint.audio.quality.model import AudioQuality, Turn

_MOST_STRANGERS: Final = 0.5
"""Share of strangers who score as high, from which a voice is a stranger's: more often than not."""


class Verdict(str, Enum):
    """The decision of an identification, a verification or a stream; equal to its name as text.

    ACCEPTED: the caller is identified, or the claim is true.
    REJECTED: a stranger, or a false claim.
    INCONCLUSIVE: too little or too poor speech, a similarity between that of callers and of strangers, or a
        gallery too small to estimate error rates.
    NOT_ENROLLED: nobody to compare with has a voiceprint.
    OPTED_OUT: the caller, the only one to compare with, has refused the use of the voice.
    EXPIRED: the caller's consent or retention period has ended, see `voiceprint.privacy.retention`.
    """

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    NOT_ENROLLED = "not_enrolled"
    OPTED_OUT = "opted_out"
    EXPIRED = "expired"

    def __str__(self) -> str:
        return self.value


def verdict_of(accepted: bool, rate: float | None, *, too_small: bool) -> Verdict:
    """The decision on a comparison.

    rate: share of strangers, 0 to 1, who score as high; None where a threshold alone decides. too_small: the
    gallery is too small for the rate by which to decide.
    """
    if accepted:
        return Verdict.ACCEPTED
    if too_small:
        return Verdict.INCONCLUSIVE
    return Verdict.REJECTED if rate is None or rate >= _MOST_STRANGERS else Verdict.INCONCLUSIVE


class Match(Frozen):
    """A caller as a candidate for a probe.

    similarity: cosine with the best of the caller's voiceprints, -1 to 1; with `calibrated_similarity` set,
        the probability.
    accepted: whether similarity reaches the threshold, or, where a target FPIR decides, fpir the target.
    voiceprint_id: the most similar voiceprint.
    llr: natural log-likelihood ratio of this caller against a stranger, from all the caller's voiceprints and
        the similarity of the gallery's callers to each other; 0 favors neither. Matches are ranked by llr.
        None where the gallery is too small; matches are then ranked by similarity.
    fpir: expected false-positive identification rate, 0 to 1, with this llr as the threshold: the share of
        strangers' calls for which a caller of a gallery of this size reaches it. None without llr.
    probability: of this caller, 0 to 1, if half of the calls are of strangers and all candidates call
        equally often (`voiceprint.scoring.probabilities`). None without llr.
    margin: llr (similarity without llr) minus that of the next caller; for all but the best, minus that of
        the best, below 0. None for a single match.
    verdict: "accepted"; "rejected" where at least half of all strangers would reach this llr; "inconclusive"
        between, where more speech may decide. Without an fpir, "rejected" by a threshold, and "inconclusive"
        by a target FPIR.
    """

    caller_id: str
    similarity: float
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    voiceprint_id: int
    accepted: bool
    llr: float | None = None
    fpir: float | None = None
    probability: float | None = None
    margin: float | None = None
    too_small: bool = Field(default=False, exclude=True, repr=False)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The decision, see `Match`."""
        return verdict_of(self.accepted, self.fpir, too_small=self.too_small)


class WatchHit(Frozen):
    """A caller of a watched group who is accepted as the voice of a probe, by the rule of that group.

    A hit says nothing on the matches of the answer: the same caller may be the best of these, or none.

    group: the watched group. similarity, llr, fpir: as in `Match`, in a gallery of this group alone.
    target: accepted FPIR of the group, 0 to 1; None where a threshold decides.
    accepted: always true in an answer.
    """

    group: str
    caller_id: str
    similarity: float
    voiceprint_id: int
    accepted: bool = True
    llr: float | None = None
    fpir: float | None = None
    target: float | None = None


class Identification(list[Match]):
    """The matches of an identification, the best first, with the decision on them.

    verdict: "accepted" where a match is; else that of the best match, or without any, the state of the
        callers to compare with.
    reasons: short codes beside the verdict, such as "same_recording".
    watch_hits: callers of the watched groups who are accepted, the best first.
    spoof_score: of `VOICE_SPOOF_DETECTOR`; None without a detector.
    event_id: of the event in the audit log; None where there is neither a log nor a callback.
    """

    def __init__(
        self,
        matches: Iterable[Match] = (),
        *,
        verdict: Verdict | None = None,
        reasons: tuple[str, ...] = (),
        watch_hits: tuple[WatchHit, ...] = (),
        spoof_score: float | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(matches)
        self.verdict = self._of_matches() if verdict is None else verdict
        self.reasons = reasons
        self.watch_hits = watch_hits
        self.spoof_score = spoof_score
        self.event_id = event_id

    def _of_matches(self) -> Verdict:
        if not self:
            return Verdict.NOT_ENROLLED
        return Verdict.ACCEPTED if self.accepted is not None else self[0].verdict

    @property
    def accepted(self) -> Match | None:
        """The most likely accepted match, or None."""
        return next((match for match in self if match.accepted), None)


class SeparatedVoice(Frozen):
    """A voice of a recording, identified.

    turns: in seconds of the recording. net_speech_s: seconds of speech in them.
    quality: of this voice by itself. matches: the k most likely callers, the best first; empty where the
        voice has too little speech or is too poor, see `quality.feedback`.
    ignored: id of the caller to `ignore` whose voice this is, else None; `matches` is then empty.
    watch_hits: as in `Identification`, also of a voice to ignore.
    """

    turns: tuple[Turn, ...]
    net_speech_s: float
    quality: AudioQuality
    matches: tuple[Match, ...] = Field(default=(), repr=False)
    ignored: str | None = None
    watch_hits: tuple[WatchHit, ...] = ()

    @property
    def accepted(self) -> Match | None:
        """The most likely accepted match, or None."""
        return next((match for match in self.matches if match.accepted), None)


class StreamResult(Frozen):
    """The answer of a `CallStream`.

    caller_id: the most likely caller; None before there is enough speech, or with nobody enrolled.
    similarity: with that caller, as in `Match`, or None. metadata: of that caller.
    accepted: whether that match is accepted, with speech that is long and good enough.
    decided: whether this answer, that caller if `accepted` and else nobody, is safe to act upon.
    final: whether the call has ended, and this is the answer for all of it.
    audio_s, net_speech_s: seconds of audio and of speech so far.
    feedback: faults of the audio, as in `AudioQuality`.
    matches: the k most likely callers, the best first.
    voices: the identified voices of the call, at the end of a stream with `separate`.
    verdict: of the answer; "inconclusive" before there is enough speech. reasons, spoof_score, event_id,
        watch_hits: as in `Identification`, of this moment: those of a final answer count.
    """

    caller_id: str | None = None
    similarity: float | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    accepted: bool = False
    decided: bool = False
    final: bool = False
    audio_s: float = 0.0
    net_speech_s: float = 0.0
    feedback: tuple[str, ...] = ()
    matches: tuple[Match, ...] = Field(default=(), repr=False)
    voices: tuple[SeparatedVoice, ...] = Field(default=(), repr=False)
    verdict: Verdict = Verdict.INCONCLUSIVE
    reasons: tuple[str, ...] = ()
    spoof_score: float | None = None
    event_id: str | None = None
    watch_hits: tuple[WatchHit, ...] = ()


class Verification(Frozen):
    """The verification of a claimed caller.

    accepted: `similarity` >= `threshold`, or where a target decides, `fmr` <= target.
    similarity: cosine, or with `calibrated_similarity` set, `probability`; None without a comparison, for a
        caller who is not enrolled, has opted out or is expired.
    threshold: None where a target decides.
    llr: natural log-likelihood ratio, as in `Match`; None where the gallery is too small for one.
    fmr: expected false-match rate, 0 to 1, with this llr as the threshold: the share of strangers' claims to
        be this caller that reach it. None without llr.
    probability: of this caller, 0 to 1, with a prior of 0.5. None without llr.
    verdict: of the claim. reasons, spoof_score, event_id, watch_hits: as in `Identification`.
    """

    caller_id: str
    accepted: bool
    similarity: float | None
    threshold: float | None
    llr: float | None = None
    fmr: float | None = None
    probability: float | None = None
    verdict: Verdict = Field(
        default_factory=lambda data: Verdict.ACCEPTED if data["accepted"] else Verdict.REJECTED
    )
    reasons: tuple[str, ...] = ()
    spoof_score: float | None = None
    event_id: str | None = None
    watch_hits: tuple[WatchHit, ...] = ()

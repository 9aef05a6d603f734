"""When a running answer is safe to act upon.

A running answer is seen with every piece of speech that was embedded: after 1.6 s of it, and then each 0.8 or
1.6 s. The decision is made

- for a caller, when two answers in a row name the same one, at least 0.02 over the threshold and 0.05
  over the next caller;
- for nobody, when two answers in a row, after 6 s of speech, lie more than 0.05 under the threshold;

or, where a target FPIR decides, or similarities are probabilities,

- for a caller, when two answers in a row name the same one with half of that rate, or half of the doubt that
  the threshold leaves, and a log-likelihood ratio of 2 over the next caller;
- for nobody, when two answers in a row, after 6 s of speech, are such as half of all strangers reach;

and only while the audio is good enough for `identify`. An answer in between is left to the end of the call.

The similarity with one's own print grows with the speech that is heard, that with others' but little: on
LibriSpeech, callers have 0.84 in the median after 1 to 2 s of speech and 0.92 after 8 s; strangers, with the
most similar of ten callers, 0.64 and 0.68. So a caller may be accepted early, and only time tells a stranger
from a caller on a poor line. `benchmarks/streaming.py` measures how early, and how often the end differs.
"""

from __future__ import annotations

from typing import Final

from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.models import Match

ACCEPT_MARGIN: Final = 0.02  # cosine over the threshold
ACCEPT_GAP: Final = 0.05  # cosine over the next caller
ACCEPT_SHARE: Final = 0.5  # of the target FPIR, or of the doubt 1 - threshold
ACCEPT_RATIO: Final = 2.0  # log-likelihood ratio over the next caller
ACCEPT_TIMES: Final = 2  # answers in a row
REJECT_MARGIN: Final = 0.05  # cosine under the threshold
REJECT_SPEECH_S: Final = 6.0
REJECT_TIMES: Final = 2


class Decision:
    """Sees the running answers of one call in order."""

    def __init__(self) -> None:
        self._caller: str | None = None
        self._accepted = self._rejected = 0  # times in a row

    def update(self, matches: list[Match], rule: AcceptanceRule, net_speech_s: float) -> bool:
        """Take the next running answer; True when the decision is made.

        matches: the two best callers, of as many as there are; rule: what is accepted.
        """
        best = matches[0] if matches else None
        if best is not None and self._safe(best, matches[1:2], rule):
            self._accepted = self._accepted + 1 if best.caller_id == self._caller else 1
            self._caller = best.caller_id
        else:
            self._accepted = 0
        below = net_speech_s >= REJECT_SPEECH_S and (best is None or self._can_reject(best, rule))
        self._rejected = self._rejected + 1 if below else 0
        return self._accepted >= ACCEPT_TIMES or self._rejected >= REJECT_TIMES

    @staticmethod
    def _safe(best: Match, others: list[Match], rule: AcceptanceRule) -> bool:
        if rule.target is not None:
            sure = best.fpir is not None and best.fpir <= rule.target * ACCEPT_SHARE
            return sure and (best.margin is None or best.margin >= ACCEPT_RATIO)
        if rule.calibrated:
            sure = 1.0 - best.similarity <= (1.0 - rule.threshold) * ACCEPT_SHARE
            return sure and (best.margin is None or best.margin >= ACCEPT_RATIO)
        gap = best.similarity - others[0].similarity if others else 2.0
        return best.similarity >= rule.threshold + ACCEPT_MARGIN and gap >= ACCEPT_GAP

    @staticmethod
    def _can_reject(best: Match, rule: AcceptanceRule) -> bool:
        if rule.target is not None or rule.calibrated:
            return best.verdict == "rejected"
        return best.similarity < rule.threshold - REJECT_MARGIN

"""The early decision of a call: when a running answer is safe to act upon.

A running answer follows each embedded piece of speech: the first after 1.6 s, the next every 0.8 or 1.6 s.
The stream decides

- for a caller, when two answers in a row name the same caller, at least 0.02 above the threshold and 0.05
  above the next caller;
- for nobody, when two answers in a row, after 6 s of speech, lie more than 0.05 below the threshold;

or, where a target FPIR decides, or similarities are probabilities,

- for a caller, when two answers in a row name the same caller with at most half of the target, or half of
  1 - threshold, and a log-likelihood ratio at least 2 above the next caller's;
- for nobody, when at least half of all strangers would score as high as two answers in a row, after 6 s of
  speech;

and only while the audio is good enough for `identify`. Any other answer waits for the end of the call.

The similarity of a caller with the own voiceprint grows with the speech, that of strangers hardly: on
LibriSpeech, the median of callers is 0.84 after 1 to 2 s of speech and 0.92 after 8 s; that of strangers with
the most similar of ten callers 0.64 and 0.68. So a caller may be accepted early, and a stranger differs from
a caller on a poor line only later. The margins of the cosine are of Resemblyzer's space; in others a target
decides unless a threshold is set. `benchmarks/streaming.py` measures the time to a decision, and how often
the final answer differs.
"""

from __future__ import annotations

from typing import Final

from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.models import Match

ACCEPT_MARGIN: Final = 0.02  # cosine above the threshold
ACCEPT_GAP: Final = 0.05  # cosine above the next caller
ACCEPT_SHARE: Final = 0.5  # of the target FPIR, or of 1 - threshold
ACCEPT_LLR_GAP: Final = 2.0  # log-likelihood ratio above the next caller
ACCEPT_TIMES: Final = 2  # answers in a row
REJECT_MARGIN: Final = 0.05  # cosine below the threshold
REJECT_SPEECH_S: Final = 6.0
REJECT_TIMES: Final = 2


class Decision:
    """The early decision of one call, from its running answers in order."""

    def __init__(self) -> None:
        self._caller: str | None = None
        self._accepted = self._rejected = 0  # times in a row

    def update(self, matches: list[Match], rule: AcceptanceRule, net_speech_s: float) -> bool:
        """Add the next running answer; return whether the stream is decided.

        matches: the best callers, two or more if enrolled. rule: of acceptance.
        """
        best = matches[0] if matches else None
        if best is not None and self._can_accept(best, matches[1:2], rule):
            self._accepted = self._accepted + 1 if best.caller_id == self._caller else 1
            self._caller = best.caller_id
        else:
            self._accepted = 0
        rejected = net_speech_s >= REJECT_SPEECH_S and (best is None or self._can_reject(best, rule))
        self._rejected = self._rejected + 1 if rejected else 0
        return self._accepted >= ACCEPT_TIMES or self._rejected >= REJECT_TIMES

    @staticmethod
    def _can_accept(best: Match, others: list[Match], rule: AcceptanceRule) -> bool:
        if rule.target is not None:
            certain = best.fpir is not None and best.fpir <= rule.target * ACCEPT_SHARE
            return certain and (best.margin is None or best.margin >= ACCEPT_LLR_GAP)
        if rule.calibrated:
            certain = 1.0 - best.similarity <= (1.0 - rule.threshold) * ACCEPT_SHARE
            return certain and (best.margin is None or best.margin >= ACCEPT_LLR_GAP)
        gap = best.similarity - others[0].similarity if others else 2.0
        return best.similarity >= rule.threshold + ACCEPT_MARGIN and gap >= ACCEPT_GAP

    @staticmethod
    def _can_reject(best: Match, rule: AcceptanceRule) -> bool:
        if rule.target is not None or rule.calibrated:
            return best.verdict == "rejected"
        return best.similarity < rule.threshold - REJECT_MARGIN

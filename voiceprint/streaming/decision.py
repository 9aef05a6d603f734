"""When a running answer is safe to act upon."""

from __future__ import annotations

from typing import Final

from voiceprint.models import Match

ACCEPT_MARGIN: Final = 0.03
ACCEPT_GAP: Final = 0.03
ACCEPT_TIMES: Final = 2
REJECT_SPEECH_S: Final = 6.0
REJECT_MARGIN: Final = 0.03
REJECT_TIMES: Final = 3


class Decision:
    """Sees the running answers of one call in order."""

    def __init__(self) -> None:
        self._accepting: str | None = None
        self._accepted = self._rejected = 0  # times in a row

    def made(self, best: Match | None, gap: float, limit: float, net_speech_s: float) -> bool:
        """Whether it is made with this answer.

        best: the nearest caller, None where nobody is enrolled; gap: similarity over the next one; limit: the
        similarity that is accepted.
        """
        similarity = -1.0 if best is None else best.similarity
        if best is not None and similarity >= limit + ACCEPT_MARGIN and gap >= ACCEPT_GAP:
            self._accepted = self._accepted + 1 if best.caller_id == self._accepting else 1
            self._accepting = best.caller_id
        else:
            self._accepted = 0
        below = similarity < limit - REJECT_MARGIN
        self._rejected = self._rejected + 1 if below and net_speech_s >= REJECT_SPEECH_S else 0
        return self._accepted >= ACCEPT_TIMES or self._rejected >= REJECT_TIMES

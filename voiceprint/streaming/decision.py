"""When a running answer is safe to act upon.

A running answer is seen with every piece of speech that was embedded: after 1.6 s of it, and then each 0.8 or
1.6 s. The decision is made

- for a caller, when two answers in a row name the same one, at least 0.02 over the threshold and 0.05
  over the next caller;
- for nobody, when two answers in a row, after 6 s of speech, lie more than 0.05 under the threshold;

and only while the audio is good enough for `identify`. An answer in between is left to the end of the call.

The similarity with one's own print grows with the speech that is heard, that with others' but little: on
LibriSpeech, callers have 0.84 in the median after 1 to 2 s of speech and 0.92 after 8 s; strangers, with the
most similar of ten callers, 0.64 and 0.68. So a caller may be accepted early, and only time tells a stranger
from a caller on a poor line. `benchmarks/streaming.py` measures how early, and how often the end differs.
"""

from __future__ import annotations

from typing import Final

from voiceprint.models import Match

ACCEPT_MARGIN: Final = 0.02  # cosine over the threshold
ACCEPT_GAP: Final = 0.05  # cosine over the next caller
ACCEPT_TIMES: Final = 2  # answers in a row
REJECT_MARGIN: Final = 0.05  # cosine under the threshold
REJECT_SPEECH_S: Final = 6.0
REJECT_TIMES: Final = 2


class Decision:
    """Sees the running answers of one call in order."""

    def __init__(self) -> None:
        self._caller: str | None = None
        self._accepted = self._rejected = 0  # times in a row

    def made(self, best: Match | None, gap: float, limit: float, net_speech_s: float) -> bool:
        """Whether it is made with this answer.

        best: the nearest caller, None where nobody is enrolled; gap: similarity over the next one; limit: the
        similarity that is accepted.
        """
        similarity = -1.0 if best is None else best.similarity
        if best is not None and similarity >= limit + ACCEPT_MARGIN and gap >= ACCEPT_GAP:
            self._accepted = self._accepted + 1 if best.caller_id == self._caller else 1
            self._caller = best.caller_id
        else:
            self._accepted = 0
        below = similarity < limit - REJECT_MARGIN and net_speech_s >= REJECT_SPEECH_S
        self._rejected = self._rejected + 1 if below else 0
        return self._accepted >= ACCEPT_TIMES or self._rejected >= REJECT_TIMES

"""`Screener`: reasons beside the decision, for audio that may be played or synthetic."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from voiceprint.audio.recent import RecentRecordings
from voiceprint.identification.spoofing import SpoofDetector

if TYPE_CHECKING:
    from voiceprint.audio import Recording
    from voiceprint.config import VoiceFingerprintConfig

logger = logging.getLogger(__name__)

SAME_RECORDING: Final = "same_recording"
"""The reason of audio that is a copy of a recording of a stored voiceprint, or of one that was matched."""

SPOOF_SUSPECTED: Final = "spoof_suspected"
"""The reason of audio whose spoofing score reaches the threshold."""


class Screening(NamedTuple):
    """What the audio of a call gives beside the scores of its voice.

    reasons: `SAME_RECORDING` and `SPOOF_SUSPECTED`. spoof_score: of the detector; None without one.
    """

    reasons: tuple[str, ...] = ()
    spoof_score: float | None = None


class Screener:
    """Screens the audio of calls to one store. Reads `config` at every use."""

    def __init__(self, location: str, config: VoiceFingerprintConfig) -> None:
        """location: of the store. Raises `ConfigurationError` for a detector that cannot be loaded."""
        self._recent = RecentRecordings.of_process(location)
        self._config = config
        self._detector()

    def screen(
        self, recording: Recording | None, *, stored_copy: bool = False, duration_s: float | None = None
    ) -> Screening:
        """The screening of a recording, which counts as matched from now on; None for an embedding.

        stored_copy: whether it is a copy of the recording of a stored voiceprint.
        duration_s: as of `RecentRecordings.is_copy`.
        """
        reasons, score = [], None
        if self._config.same_recording:
            matched = recording is not None and self._recent.is_copy(recording, duration_s=duration_s)
            if stored_copy or matched:
                reasons.append(SAME_RECORDING)
                logger.warning(
                    "The audio is a copy of a recording that %s: it may be played into the line.",
                    "is enrolled" if stored_copy else "was matched before",
                )
        detector = self._detector()
        if detector is not None and recording is not None:
            score = detector.score(recording)
            threshold = self._config.spoof_threshold
            if score is not None and threshold is not None and score >= threshold:
                reasons.append(SPOOF_SUSPECTED)
                logger.warning(
                    "The spoofing detector %s gave %g, and the threshold is %g.",
                    detector.name,
                    score,
                    threshold,
                )
        return Screening(tuple(reasons), score)

    def _detector(self) -> SpoofDetector | None:
        name = self._config.spoof_detector
        return None if name is None else _loaded(name)


@lru_cache(maxsize=4)
def _loaded(name: str) -> SpoofDetector:
    """The detector of a name, which a process loads once: recognizers are built for each call."""
    return SpoofDetector.load(name)

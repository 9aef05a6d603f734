"""`Screener`: reasons beside the decision, for audio that may be played or synthetic."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from voiceprint._audited import note
from voiceprint.audio.recent import RecentRecordings
from voiceprint.identification.spoofing import SpoofDetector

if TYPE_CHECKING:
    from voiceprint.audio import Recording
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.models import Identification, Verification

logger = logging.getLogger(__name__)

SAME_RECORDING: Final = "same_recording"
"""The reason of audio that is a copy of a recording of a stored voiceprint, or of one that was matched."""

SPOOF_SUSPECTED: Final = "spoof_suspected"
"""The reason of audio whose spoofing score reaches the threshold."""


class Screening(NamedTuple):
    """Reasons and spoofing score of the audio of a call, beside the scores of the voice.

    reasons: `SAME_RECORDING` and `SPOOF_SUSPECTED`. spoof_score: of the detector; None without one.
    """

    reasons: tuple[str, ...] = ()
    spoof_score: float | None = None


class Screener:
    """Screens the audio of calls to one store. Reads `config` at every use."""

    def __init__(self, location: str, config: VoiceFingerprintConfig) -> None:
        """location: of the store."""
        self._recent = RecentRecordings.of_process(location)
        self._config = config

    @property
    def is_active(self) -> bool:
        """Whether the settings ask for a check of copies or of spoofing."""
        return self._config.same_recording or self._config.spoof_detector is not None

    def identified(self, answer: Identification, recording: Recording | None) -> Identification:
        """The answer, with the screening of the recording that was identified."""
        answer.reasons, answer.spoof_score = self.screen(recording, answer.reasons)
        return answer

    def archived(self, answer: Identification, score: float | None) -> Identification:
        """The answer on a recording of an archive, which is not remembered: its calls are over.

        score: of the spoofing detector, which a worker computed.
        """
        answer.reasons, answer.spoof_score = (*answer.reasons, *self._suspected(None, score)), score
        if answer.reasons or score is not None:
            note(reasons=answer.reasons, spoof_score=score)
        return answer

    def verified(self, answer: Verification, recording: Recording | None) -> Verification:
        """The answer, with the screening of the recording that was verified."""
        return answer.model_copy(update=self.screen(recording, answer.reasons)._asdict())

    def screen(
        self, recording: Recording | None, reasons: tuple[str, ...], duration_s: float | None = None
    ) -> Screening:
        """The screening of a recording, which is remembered from now on; None for an embedding.

        reasons: by the stored voiceprints. duration_s: as of `RecentRecordings.is_copy`.
        """
        score = self._score(recording)
        reasons = (*self._copied(recording, reasons, duration_s), *self._suspected(recording, score))
        if reasons or score is not None:  # for the event of a match, whose answer has no place for them
            note(reasons=reasons, spoof_score=score)
        return Screening(reasons, score)

    def _copied(
        self, recording: Recording | None, reasons: tuple[str, ...], duration_s: float | None
    ) -> tuple[str, ...]:
        is_stored = SAME_RECORDING in reasons
        if not self._config.same_recording:
            return reasons
        matched = recording is not None and self._recent.is_copy(recording, duration_s=duration_s)
        if is_stored or matched:
            known = "is enrolled" if is_stored else "was matched before"
            _warn(
                recording, f"The audio is a copy of a recording that {known}: it may be played into the line."
            )
        return (*reasons, SAME_RECORDING) if matched and not is_stored else reasons

    def _score(self, recording: Recording | None) -> float | None:
        detector = spoof_detector(self._config)
        return None if detector is None or recording is None else detector.score(recording)

    def _suspected(self, recording: Recording | None, score: float | None) -> tuple[str, ...]:
        threshold = self._config.spoof_threshold
        if score is None or threshold is None or score < threshold:
            return ()
        _warn(recording, f"The spoofing detector gave {score:g}, and the threshold is {threshold:g}.")
        return (SPOOF_SUSPECTED,)


def spoof_detector(config: VoiceFingerprintConfig) -> SpoofDetector | None:
    """The detector of the settings, if any. Raises `ConfigurationError` where it cannot be loaded."""
    return None if config.spoof_detector is None else _loaded(config.spoof_detector)


def _warn(recording: Recording | None, message: str) -> None:
    """Log a warning, with the name of the recording's file if any."""
    if recording is None:
        logger.warning(message)
    else:
        recording.warn(message)


@lru_cache(maxsize=4)
def _loaded(name: str) -> SpoofDetector:
    """The detector of a name, which a process loads once: recognizers are built for each call."""
    return SpoofDetector.load(name)

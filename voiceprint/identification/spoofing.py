"""The application's own spoofing detector: `VOICE_SPOOF_DETECTOR=module:callable`."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.errors import ConfigurationError
from voiceprint.validation import shown

logger = logging.getLogger(__name__)

LONGEST_S: Final = 120.0
"""Seconds of audio that a detector gets at most, 8 MB: as many as a stream holds of a call. Doubled, a long
call takes twice the memory, and twice the detector's time."""

Detector = Callable[[Any, int], Any]
"""Called with samples and sample rate, see `SpoofDetector.score`; returns a number or None."""


class SpoofDetector:
    """A function of the application that scores how likely audio is synthetic or played back."""

    def __init__(self, name: str, function: Detector) -> None:
        """name: as in the setting, for messages."""
        self.name = name
        self._function = function

    @classmethod
    def load(cls, name: str) -> SpoofDetector:
        """The detector named `module:callable`, such as "fraud.detectors:score" or "fraud:Model.score".

        Raises `ConfigurationError` where the module cannot be imported, or has no such callable.
        """
        module_name, _, path = name.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
            for attribute in path.split("."):
                found = getattr(found, attribute)
        except (Exception, SystemExit) as error:  # an import runs code of the application: anything is raised
            raise ConfigurationError(
                f"VOICE_SPOOF_DETECTOR is {shown(name)}, which cannot be loaded ({type(error).__name__}: "
                f"{error}): give module:callable, with the module on Python's path (PYTHONPATH)."
            ) from error
        if not callable(found):
            raise ConfigurationError(
                f"VOICE_SPOOF_DETECTOR is {shown(name)}, which is a {type(found).__name__}: give "
                "module:callable, a function of samples and sample rate that returns a score."
            )
        return cls(name, found)

    def score(self, recording: Recording) -> float | None:
        """The detector's score of a recording; None where it gives none or fails.

        The function gets the audio with its noise and pauses, up to `LONGEST_S` from its start, as float32[n]
        in [-1, 1], mono, at 16 kHz, and 16000. A failure is logged by the name of its error, without the
        message, which may hold data of the caller, and leaves the match as it is.
        """
        samples = np.array(recording.mono[: round(LONGEST_S * SAMPLE_RATE)], dtype=np.float32)
        try:
            score = self._function(samples, SAMPLE_RATE)
            if score is None:
                return None
            number = float(score)
        # Code of the application, which must not end a call, nor by `sys.exit` its process.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            logger.warning("The spoofing detector %s failed: %s", self.name, type(error).__name__)
            return None
        if not math.isfinite(number):
            logger.warning("The spoofing detector %s gave a score that is not finite.", self.name)
            return None
        return number

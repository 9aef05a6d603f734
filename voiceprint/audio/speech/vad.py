"""Speech detection by WebRTC's voice activity detector.

The encoder was trained on speech without long silences, cut by the rule of Resemblyzer's `preprocess_wav`
(Resemblyzer 0.1.4, `audio.py` and `hparams.py`). This module applies the same rule, so `net_speech_s` is the
duration of the encoder's input.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint._lazy import Lazy
from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.errors import EncoderError

WINDOW: Final = 480
"""Samples per VAD window: 30 ms at 16 kHz."""

TARGET_DBFS: Final = -30.0
"""RMS level to which quieter audio is amplified before the VAD, which has absolute thresholds."""

MIN_POWER: Final = 1e-30
"""Mean square below which audio counts as digital silence: the gain would overflow float32."""

BLOCK: Final = 2048 * WINDOW
"""Samples processed together, a minute: an hour would fill the memory."""
_INT16_MAX: Final = 32767
_AVERAGED: Final = 8  # windows in the moving average
_DILATION: Final = 7  # windows that a voiced one marks: three on each side and itself

BEFORE: Final = (_AVERAGED - 1) // 2 + _DILATION // 2
"""Windows before a window whose flags affect its result in `speech_windows`."""
AFTER: Final = _AVERAGED // 2 + _DILATION // 2
"""Windows after a window whose flags affect its result."""


def volume_gain(audio: Samples) -> np.float32:
    """Gain that amplifies float32[n] to -30 dBFS RMS; 1 for louder audio and digital silence."""
    return gain_of(sum(energy_of(block) for block in blocks(audio, BLOCK)), len(audio))


def energy_of(audio: npt.NDArray[np.float32]) -> float:
    """The sum of the squares of float32[n], in double precision."""
    # In small parts: the system maps arrays over 128 KiB anew each time, which takes longer.
    parts = (audio[first : first + 8192].astype(np.float64) for first in range(0, len(audio), 8192))
    return float(sum(np.dot(part, part) for part in parts))


def gain_of(energy: float, samples: int) -> np.float32:
    """`volume_gain` of `samples` samples whose squares sum up to `energy`."""
    power = energy / max(1, samples)
    target = 10.0 ** (TARGET_DBFS / 20.0)
    is_quiet = not (power < MIN_POWER or power >= target**2)  # True for NaN, which must reach the gain
    gain: np.float32 = np.float32(target / math.sqrt(power) if is_quiet else 1.0)
    return gain


def voice_flags(audio: Samples, gain: np.float32 | None = None) -> npt.NDArray[np.bool_]:
    """Classify each whole 30 ms window as speech or not by WebRTC's VAD (mode 3, the strictest).

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz, of any level: quiet audio is amplified by `gain`.
        gain: its `volume_gain`, if already computed.

    Returns:
        bool[n // 480]; samples after the last whole window are ignored.
    """
    return Detector().flags(audio, volume_gain(audio) if gain is None else gain)


class Detector:
    """WebRTC's VAD (mode 3) and its state: pieces of audio give the same flags as the whole."""

    def __init__(self) -> None:
        self._is_speech = _WEBRTCVAD.get().Vad(3).is_speech

    def flags(self, audio: Samples, gain: np.float32) -> npt.NDArray[np.bool_]:
        """`voice_flags` of the next piece, float32[n], multiplied by `gain`."""
        count = len(audio) // WINDOW
        flags = np.zeros(count, dtype=np.bool_)
        factor = np.float32(_INT16_MAX) * gain
        step = 2 * WINDOW
        for first in range(0, count, BLOCK // WINDOW):
            block = audio[first * WINDOW : min(count, first + BLOCK // WINDOW) * WINDOW]
            # Clipped, where Resemblyzer's cast wraps around: a difference only for peaks 30 dB over RMS.
            pcm = np.clip(np.rint(block * factor), -32768, _INT16_MAX).astype("<i2").tobytes()
            for window, start in enumerate(range(0, len(pcm), step), first):
                flags[window] = self._is_speech(pcm[start : start + step], 16000)
        return flags


def speech_windows(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Smooth per-window flags.

    A window counts as speech if more than half of the eight around it (three before, four after) are voiced,
    or if this holds for a window at most three away; so pauses up to 0.18 s count as speech.

    Args:
        flags: bool[w], as from `voice_flags`.

    Returns:
        bool[w].
    """
    count = len(flags)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    # Resemblyzer rounds the average, and 0.5 rounds to the even number, 0: more than half is needed.
    voiced = 2 * _running_sum(flags, (_AVERAGED - 1) // 2, _AVERAGED // 2) > _AVERAGED
    return _running_sum(voiced, _DILATION // 2, _DILATION // 2) > 0


def speech_mask(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Mask of the samples that remain after Resemblyzer's trimming.

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz.

    Returns:
        bool[n]; False for the samples after the last whole window.
    """
    mask = np.zeros(len(audio), dtype=np.bool_)
    windows = np.repeat(speech_windows(voice_flags(audio)), WINDOW)
    mask[: len(windows)] = windows
    return mask


def _import_webrtcvad() -> Any:
    # Only once: the filters are global to the process, and concurrent saving and restoring can corrupt them.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        try:
            import webrtcvad
        except ImportError as error:  # also of pkg_resources, which webrtcvad itself imports
            raise EncoderError(
                f"WebRTC's VAD, which detects the speech, cannot be imported ({error}). Install it with "
                "`pip install webrtcvad-wheels`, which needs no compiler."
            ) from error
    return webrtcvad


_WEBRTCVAD: Final = Lazy(_import_webrtcvad, inherited=True)


def _running_sum(flags: npt.NDArray[np.bool_], before: int, after: int) -> npt.NDArray[np.int64]:
    """Number of flags set in [i - before, i + after] for each i, int64[w]."""
    total = np.concatenate(([0], np.cumsum(np.pad(flags, (before, after)), dtype=np.int64)))
    width = before + after + 1
    return np.asarray(total[width:] - total[:-width], dtype=np.int64)

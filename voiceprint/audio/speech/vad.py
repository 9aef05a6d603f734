"""Where the speech is, by WebRTC's voice activity detector.

The encoder was trained on speech whose long silences are cut by the rule of Resemblyzer's
`preprocess_wav` (Resemblyzer 0.1.4, `audio.py` and `hparams.py`). The same rule decides here what
counts as speech, so `net_speech_s` is the amount of audio that the encoder will really see.
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
"""Samples a VAD window: 30 ms at 16 kHz."""

TARGET_DBFS: Final = -30.0
"""RMS level that quieter audio is raised to before the VAD, which has absolute thresholds."""

LEAST_POWER: Final = 1e-30
"""Mean square below which nothing was ever recorded."""

BLOCK: Final = 2048 * WINDOW
"""Samples that are looked at together, a minute: an hour would fill the memory."""
_INT16_MAX: Final = 32767
_AVERAGED: Final = 8  # windows that the moving average looks at
_DILATION: Final = 7  # windows that a voiced one spreads to: three to each side and itself

BEFORE: Final = (_AVERAGED - 1) // 2 + _DILATION // 2
"""Windows before one whose flags have a say in whether it counts as speech, see `speech_windows`."""
AFTER: Final = _AVERAGED // 2 + _DILATION // 2
"""Windows after it that have."""


def volume_gain(audio: Samples) -> np.float32:
    """What float32[n] is multiplied by to lie at -30 dBFS RMS; 1 if it is louder, or digital silence."""
    return gain_of(sum(energy_of(block) for block in blocks(audio, BLOCK)), len(audio))


def energy_of(audio: npt.NDArray[np.float32]) -> float:
    """The sum of the squares of float32[n], in double precision."""
    # In small parts, as arrays over 128 KiB are mapped by the system anew each time, which takes longer.
    parts = (audio[first : first + 8192].astype(np.float64) for first in range(0, len(audio), 8192))
    return float(sum(np.dot(part, part) for part in parts))


def gain_of(energy: float, samples: int) -> np.float32:
    """`volume_gain` of so many samples, the squares of which sum up to `energy`."""
    power = energy / max(1, samples)
    target = 10.0 ** (TARGET_DBFS / 20.0)
    # Of less than LEAST_POWER the gain would overflow float32.
    gain: np.float32 = np.float32(1.0)
    if not (power < LEAST_POWER or power >= target**2):  # so that NaN shows in the gain
        gain = np.float32(target / math.sqrt(power))
    return gain


def raise_volume(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale float32[n] to -30 dBFS RMS if it is quieter; louder audio and digital silence stay as they are.

    The peaks of the result may lie beyond [-1, 1].
    """
    gain = volume_gain(audio)
    return audio if gain == 1 else audio * gain


def voice_flags(audio: Samples, gain: np.float32 | None = None) -> npt.NDArray[np.bool_]:
    """Ask WebRTC's VAD (mode 3, the strictest) of each whole 30 ms window whether it is speech.

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz, of any level: it is raised as by `raise_volume`.
        gain: its `volume_gain`, where that is known already.

    Returns:
        bool[n // 480]; samples after the last whole window are not looked at.
    """
    return Detector().flags(audio, volume_gain(audio) if gain is None else gain)


class Detector:
    """WebRTC's VAD (mode 3) with what it has heard: audio may come in pieces, and the flags are the same."""

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
            # Clipped, where Resemblyzer lets the cast wrap around: it only matters for peaks 30 dB over RMS.
            pcm = np.clip(np.rint(block * factor), -32768, _INT16_MAX).astype("<i2").tobytes()
            for window, start in enumerate(range(0, len(pcm), step), first):
                flags[window] = self._is_speech(pcm[start : start + step], 16000)
        return flags


def speech_windows(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Smooth per-window flags into the windows that count as speech.

    A window counts when more than half of the eight around it (three before, four after) are
    voiced, or when one at most three windows away does; so pauses up to 0.18 s stay in.

    Args:
        flags: bool[w], as from `voice_flags`.

    Returns:
        bool[w].
    """
    count = len(flags)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    # "More than half": Resemblyzer rounds the average, and 0.5 rounds to the even number, 0.
    voiced = 2 * _running_sum(flags, (_AVERAGED - 1) // 2, _AVERAGED // 2) > _AVERAGED
    return _running_sum(voiced, _DILATION // 2, _DILATION // 2) > 0


def speech_mask(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Mark the samples that Resemblyzer's trimming keeps.

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
    # Once only: the filters belong to the whole process, and threads that save and restore them at once can
    # leave them changed.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        try:
            import webrtcvad
        except ImportError as error:  # also of pkg_resources, which webrtcvad itself imports
            raise EncoderError(
                f"WebRTC's VAD, which finds the speech, cannot be imported ({error}). Install it with "
                "`pip install webrtcvad-wheels`, which needs no compiler."
            ) from error
    return webrtcvad


_WEBRTCVAD: Final = Lazy(_import_webrtcvad, inherited=True)


def _running_sum(flags: npt.NDArray[np.bool_], before: int, after: int) -> npt.NDArray[np.int64]:
    """For each i, the number of flags set in [i - before, i + after]; int64[w]."""
    total = np.concatenate(([0], np.cumsum(np.pad(flags, (before, after)), dtype=np.int64)))
    width = before + after + 1
    return np.asarray(total[width:] - total[:-width], dtype=np.int64)

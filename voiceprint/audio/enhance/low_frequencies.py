"""The lows that a telephone line takes, given back in part before the encoder hears the voice.

An analog line carries 300 to 3400 Hz. Below, the voice is not gone but fainter, by 10 to 30 dB, and the
encoder, which sees power and not its logarithm, no longer sees its pitch. So where the lows are much fainter
than in any usual voice, they are raised by as much as noise allows. On speakers that nothing was fitted to
this took the missed callers on such a line from 19 to 12 %; making lows anew, of the rectified voice, lost.
The limit, amount and slope are of few that were measured and much alike (research/telephone-lines.md).

The average of the levels in decibels, and not the power, is looked at: a high voice has its pitch alone
down there, and much power in it, a line's slope is in all bands.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.io.buffers import SAMPLE_RATE

Audio = NDArray[np.float32]

EDGE_HZ: Final = 300.0
_BAND_HZ: Final = 20.0
_LOWS: Final = slice(4, 13)  # bands, 80 to 260 Hz
_MIDDLES: Final = slice(16, 40)  # 320 to 800 Hz
_FAINT_DB: Final = -12.0  # 3 in 100 pieces of speech on a full-band line are fainter, 95 on a narrow one
_RAISED_DB: Final = 12.0
_ORDER: Final = 3  # of the slope, 18 dB an octave
_LOWEST_HZ: Final = 60.0  # no voice is below, but hum is
_LEAST_S: Final = 0.5


def restore_low_frequencies(audio: Audio) -> Audio:
    """The audio with its lows raised, where a line has taken them; else `audio` itself.

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz, as from `to_mono`.

    Returns:
        float32[n]; raised, it may go beyond [-1, 1].
    """
    if len(audio) < _LEAST_S * SAMPLE_RATE:
        return audio
    spectrum = np.fft.rfft(audio)
    if faintness_db(spectrum, len(audio)) >= _FAINT_DB:
        return audio
    frequency = np.fft.rfftfreq(len(audio), 1.0 / SAMPLE_RATE)
    slope = (EDGE_HZ / np.clip(frequency, _LOWEST_HZ, EDGE_HZ)) ** _ORDER
    gain = np.minimum(slope, 10.0 ** (_RAISED_DB / 20.0))
    gain[frequency < _LOWEST_HZ] = 0.0
    return np.fft.irfft(spectrum * gain, len(audio)).astype(np.float32)


def faintness_db(spectrum: NDArray[np.complexfloating], length: int) -> float:
    """Level of the lows over that of what lies above them, dB, each the mean of bands of 20 Hz.

    spectrum: of a real signal of so many samples at 16 kHz.
    """
    edges = np.arange(_MIDDLES.stop + 1) * _BAND_HZ * length / SAMPLE_RATE
    places = np.ceil(edges).astype(np.int64)
    power = np.add.reduceat(np.square(np.abs(spectrum[: places[-1]])), places[:-1])
    level = 10.0 * np.log10(power + 1e-12)
    return float(level[_LOWS].mean() - level[_MIDDLES].mean())

"""Telephone lines drawn by chance, to fit on more than one simulation of a telephone.

`voiceprint.audio.conditions` simulates the lines that are measured; a fit on these alone would learn
them by heart. Here the band, its slopes, the tilt, the level, the noise and the codec vary.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy import signal

from voiceprint.audio import buffers, g711

Audio = NDArray[np.float32]
LINE_HZ = 8000


def random_line(audio: Audio, chance: np.random.Generator, noise: np.random.Generator | None = None) -> Audio:
    """float32[n] at 16 kHz through one of the lines; noise: of this call, where several share the line."""
    line = buffers.resample(audio, buffers.SAMPLE_RATE, LINE_HZ).astype(np.float64)
    frequency = np.fft.rfftfreq(len(line), 1.0 / LINE_HZ)
    tilt, low, high, order, narrow = _band(chance)
    gain = 10.0 ** (tilt * np.log2(np.maximum(frequency, 100.0) / 1000.0) / 20.0)
    if narrow:
        gain *= 1.0 / np.sqrt(1.0 + (low / np.maximum(frequency, 1.0)) ** (2 * order))
        gain *= 1.0 / np.sqrt(1.0 + (frequency / high) ** (4 * order))
    line = np.fft.irfft(np.fft.rfft(line) * gain, len(line))
    hiss = (noise or chance).standard_normal(len(line))
    if chance.random() < 0.3:  # pink
        hiss = signal.lfilter([0.05, -0.0959, 0.0506, -0.0044], [1.0, -2.4950, 2.0173, -0.5222], hiss)
    snr_db = chance.uniform(10.0, 35.0)
    line += hiss * np.sqrt(np.mean(line**2) / np.mean(hiss**2)) * 10.0 ** (-snr_db / 20.0)
    line *= 10.0 ** chance.uniform(-1.3, -0.05) / np.abs(line).max()
    pcm = np.rint(line * 32767.0).astype(np.int16)
    codec = chance.choice(("mulaw", "alaw", "gsm"), p=(0.5, 0.3, 0.2))
    heard = _gsm(pcm) if codec == "gsm" else g711.decode(g711.encode(pcm, codec), codec)
    back = buffers.resample((heard / 32768.0).astype(np.float32), LINE_HZ, buffers.SAMPLE_RATE)[: len(audio)]
    return np.pad(back, (0, len(audio) - len(back)))


def limits_band(chance: np.random.Generator) -> bool:
    """Whether the line that `random_line` draws of this generator limits the band."""
    return _band(chance)[-1]


def _band(chance: np.random.Generator) -> tuple[float, float, float, int, bool]:
    """Tilt in dB an octave, edges in Hz, order of the slopes, and whether the band ends there at all."""
    return (
        float(chance.uniform(-3.0, 3.0)),
        float(chance.uniform(150.0, 450.0)),
        float(chance.uniform(3000.0, 3800.0)),
        int(chance.integers(2, 7)),
        bool(chance.random() < 0.6),
    )


def _gsm(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """Through GSM 06.10 full rate, of libsndfile."""
    file = io.BytesIO()
    sf.write(file, pcm, LINE_HZ, format="WAV", subtype="GSM610")
    file.seek(0)
    return np.asarray(sf.read(file, dtype="int16")[0][: len(pcm)])

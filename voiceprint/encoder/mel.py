"""The mel spectrogram that the network was trained on: power, not its logarithm.

It equals librosa's `feature.melspectrogram` with the settings of Resemblyzer: frames of 25 ms every 10 ms
under a periodic Hann window, centered, with zeros beyond both ends, and 40 bands from 0 to 8 kHz on Slaney's
scale (Slaney, Auditory Toolbox, 1998), each of unit area.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import Lazy
from voiceprint.encoder.onnx_format import model, node
from voiceprint.encoder.runtime import Session

RATE: Final = 16_000
FRAME: Final = 400
"""Samples of a frame."""
HOP: Final = 160
"""Samples between frames."""
BANDS: Final = 40

_HALF: Final = FRAME // 2
_BREAK_HZ: Final = 1000.0  # Slaney's scale is linear below and logarithmic above
_HZ_PER_MEL: Final = 200.0 / 3.0
_LOG_STEP: Final = np.log(6.4) / 27.0


def mel_frames(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mel power of every whole frame, float32[(n - 400) // 160 + 1, 40].

    samples: float32[n] at 16 kHz, n >= 400. Frame i is centered at sample 160 i + 200.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    # The window is symmetric: samples 200 + i and 200 - i share a cosine, and but for the sign a sine, so
    # each takes half a matrix product. numpy's FFT of float32 takes 2.5 times as long; scipy's takes a
    # third, but its import takes 0.1 s and 28 MB. Sample 0 has weight zero.
    first, second = frames[:, 1:_HALF], frames[:, :_HALF:-1]
    even = np.concatenate((first + second, frames[:, _HALF, None]), axis=1)
    return _SESSION.get().run(even=even, odd=first - second)


def _load() -> Session:
    # ONNX Runtime, not numpy's BLAS: threads of BLAS spin after each product, on the core of another partial,
    # which makes two threads of the encoder slower than one.
    cosines, sines = windowed_transform()
    nodes = [
        node("MatMul", ["even", "cosines"], ["real"]),
        node("MatMul", ["odd", "sines"], ["imaginary"]),
        node("Mul", ["real", "real"], ["real power"]),
        node("Mul", ["imaginary", "imaginary"], ["imaginary power"]),
        node("Add", ["real power", "imaginary power"], ["power"]),
        node("MatMul", ["power", "filters"], ["mel"]),
    ]
    constants = {"cosines": cosines, "sines": sines, "filters": mel_filters()}
    inputs: dict[str, list[int | str]] = {"even": ["n", _HALF], "odd": ["n", _HALF - 1]}
    return Session(model(nodes, constants, inputs, {"mel": ["n", BANDS]}, {"": 14}))


_SESSION: Final = Lazy(_load, inherited=False)


def windowed_transform() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Window and Fourier transform for `mel_frames`: cosines float32[200, 201], sines float32[199, 201].

    Rows of the cosines: samples 1 to 199, each added to sample 400 minus its number, and sample 200. Rows of
    the sines: samples 1 to 199, each minus that other.
    """
    sample = np.arange(1, _HALF + 1)[:, None]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * sample / FRAME)
    angle = 2 * np.pi * sample * np.arange(_HALF + 1) / FRAME
    cosines, sines = window * np.cos(angle), (window * np.sin(angle))[:-1]
    return cosines.astype(np.float32), sines.astype(np.float32)


def mel_filters() -> NDArray[np.float32]:
    """Weights of the 201 frequencies in the 40 bands, float32[201, 40].

    Each band is a triangle from the center of the band below to that of the band above.
    """
    highest = _BREAK_HZ / _HZ_PER_MEL + np.log(RATE / 2 / _BREAK_HZ) / _LOG_STEP
    mels = np.linspace(0.0, highest, BANDS + 2)
    linear = mels * _HZ_PER_MEL
    edges = np.where(
        linear < _BREAK_HZ, linear, _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_HZ / _HZ_PER_MEL))
    )
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.fft.rfftfreq(FRAME, 1.0 / RATE)[:, None]
    triangles = np.minimum((frequency - low) / (center - low), (high - frequency) / (high - center))
    return np.asarray(np.maximum(triangles, 0.0) * 2.0 / (high - low), dtype=np.float32)

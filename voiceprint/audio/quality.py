"""How good is this audio for telling who speaks: one score, what it was made of, and what to improve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from voiceprint.audio import buffers, spectrum, vad
from voiceprint.audio.channels import channels_differ
from voiceprint.audio.encodings import AudioBuffer, Encoding
from voiceprint.audio.mono import Samples, blocks, samples

Feedback = Literal["no_speech", "channels_differ", "too_short", "too_quiet", "clipped", "noisy", "narrowband"]
"""What is wrong with the audio; see `AudioQuality`."""

# The factors of the score: (measure, factor) points, linear between, constant beyond. Chosen with margin
# on both sides: see the table that benchmarks/quality.py prints.
_VARIETY_DB: Final = ((3.2, 0.0), (4.4, 1.0))
_SPREAD: Final = ((0.33, 0.0), (0.40, 1.0))
_MODULATION_DB: Final = ((2.5, 0.0), (4.5, 1.0))
_STEADINESS: Final = ((0.12, 1.0), (0.26, 0.0))
_NET_SPEECH_S: Final = ((0.3, 0.0), (1.0, 0.75), (3.0, 1.0))
_SNR_DB: Final = ((6.0, 0.0), (12.0, 0.6), (16.0, 1.0))
_CLIPPING: Final = ((0.005, 1.0), (0.025, 0.0))
_LEVEL_DBFS: Final = ((-66.0, 0.0), (-56.0, 1.0))
_BANDWIDTH_HZ: Final = ((1000.0, 0.3), (3000.0, 0.9), (7000.0, 1.0))

_QUIETEST_DBFS: Final = -120.0  # what digital silence reports: JSON has no infinity

_FLAT: Final = 0.985  # samples over this share of the extreme belong to a flat top, if their neighbours do
_BLOCK: Final = 2048 * vad.WINDOW  # samples looked at together: a minute
_NEAR_TOP: Final = 0.7
_CROWDING: Final = ((0.38, 0.0), (0.58, 1.0))


class AudioQuality(BaseModel):
    """What `assess` measured. All numbers are finite.

    Attributes:
        score: 0..1, the product of the factors listed at `assess`; 0.6 is the usual limit.
        duration_s: of the buffer.
        net_speech_s: what the encoder will see: the buffer without its pauses, by WebRTC's VAD. The
            VAD takes many other sounds for speech; `score` is what tells them apart.
        snr_db: speech over noise floor, dB, -20..60.
        clipping: share of the speech samples that are cut off flat, 0..1, also when the level was
            changed or noise added afterwards; later filtering hides all but the hardest.
        level_dbfs: RMS of the speech relative to full scale, -120..0 dB.
        bandwidth_hz: the highest frequency that carries anything, 0..8000 Hz.
        feedback: what to improve, the gravest first:
            no_speech: it does not sound like speech, or less than 0.3 s of it does;
            channels_differ: the channels, which were mixed, hold different sounds; on a call, two
                voices: choose one with `channel` (not in the score; see `voiceprint.audio.channels`);
            too_short: less than 1 s of net speech;
            too_quiet: the speech is under -60 dBFS;
            clipped: over 1 % of the speech is cut off;
            noisy: the SNR is under 12 dB;
            narrowband: nothing over 4 kHz, as on a telephone line (a remark, not a fault).
    """

    model_config = ConfigDict(frozen=True)

    score: float = Field(ge=0.0, le=1.0)
    duration_s: float = Field(ge=0.0)
    net_speech_s: float = Field(ge=0.0)
    snr_db: float
    clipping: float = Field(ge=0.0, le=1.0)
    level_dbfs: float
    bandwidth_hz: float = Field(ge=0.0)
    feedback: tuple[Feedback, ...] = ()


def assess(
    audio_buffer: AudioBuffer,
    *,
    sample_rate: int = buffers.SAMPLE_RATE,
    encoding: Encoding = "pcm",
    channel: int | None = None,
) -> AudioQuality:
    """Measure how well the audio serves speaker recognition.

    The score is a product of factors in 0..1, each linear between the points given:

        speech      the least of: variety 3.2..4.4 dB, spread 0.33..0.40, modulation 2.5..4.5 dB,
                    steadiness 0.26..0.12 (see `voiceprint.audio.spectrum`)
        net speech  0 at 0.3 s, 0.75 at 1 s, 1 from 3 s
        SNR         0 at 6 dB, 0.6 at 12 dB, 1 from 16 dB
        clipping    1 to 0.5 %, 0 from 2.5 % of the speech
        level       0 at -66 dBFS, 1 from -56 dBFS
        bandwidth   0.3 to 1 kHz, 0.9 at 3 kHz, 1 from 7 kHz

    Args:
        audio_buffer: anything that `to_mono` takes, from one sample to an hour.
        sample_rate: of the buffer, Hz in 8000..48000.
        encoding, channel: as for `to_mono`.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel cannot be used.
    """
    pcm = buffers.as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
    rate = buffers.check_sample_rate(sample_rate)
    # Clipping is looked for at the buffer's own rate: resampling rounds the flat tops off.
    audio = samples(pcm, rate, rate)
    duration_s, flat = len(audio) / rate, _flat_tops(audio, rate)
    if rate != buffers.SAMPLE_RATE:
        if isinstance(audio, np.ndarray):
            audio = buffers.resample(audio, rate, buffers.SAMPLE_RATE)
        else:
            audio = samples(pcm, rate)
    measures = spectrum.measure(audio)
    bandwidth_hz = min(measures.bandwidth_hz, rate / 2)
    kept = vad.speech_windows(vad.voice_flags(audio))
    net_speech_s = float(kept.sum()) * vad.WINDOW / buffers.SAMPLE_RATE
    speech = _Speech(audio, kept)
    level_dbfs = _level(speech)
    clipping = min(max(flat * len(audio) / len(speech), _crowded_tops(speech)), 1.0)
    speechlike = min(
        _factor(measures.variety, _VARIETY_DB),
        _factor(measures.spread, _SPREAD),
        _factor(measures.modulation, _MODULATION_DB),
        _factor(measures.steadiness, _STEADINESS),
    )
    score = (
        speechlike
        * _factor(net_speech_s, _NET_SPEECH_S)
        * _factor(measures.snr_db, _SNR_DB)
        * _factor(clipping, _CLIPPING)
        * _factor(level_dbfs, _LEVEL_DBFS)
        * _factor(bandwidth_hz, _BANDWIDTH_HZ)
    )
    findings: tuple[tuple[Feedback, bool], ...] = (
        ("no_speech", speechlike < 0.6 or net_speech_s <= 0.3),
        ("channels_differ", channels_differ(pcm, sample_rate)),
        ("too_short", net_speech_s < 1.0),
        ("too_quiet", level_dbfs < -60.0),
        ("clipped", clipping > 0.01),
        ("noisy", measures.snr_db < 12.0),
        ("narrowband", bandwidth_hz <= 4000.0),
    )
    return AudioQuality(
        score=score,
        duration_s=duration_s,
        net_speech_s=net_speech_s,
        snr_db=measures.snr_db,
        clipping=clipping,
        level_dbfs=level_dbfs,
        bandwidth_hz=bandwidth_hz,
        feedback=tuple(code for code, found in findings if found),
    )


def _factor(value: float, points: tuple[tuple[float, float], ...]) -> float:
    return float(np.interp(value, [x for x, _ in points], [y for _, y in points]))


class _Speech:
    """What is kept of audio, float32[n]; all of it where nothing is. In blocks, any number of times."""

    def __init__(self, audio: Samples, kept: npt.NDArray[np.bool_]) -> None:
        self._audio, self._kept = audio, kept
        self._blocks: list[npt.NDArray[np.float32]] | None = None
        self._length = int(kept.sum()) * vad.WINDOW or len(audio)
        if isinstance(audio, np.ndarray):  # short: once is enough
            self._blocks = [*self.blocks()]

    def __len__(self) -> int:
        return self._length

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        if self._blocks is not None:
            yield from self._blocks
        elif not self._kept.any():
            yield from blocks(self._audio, _BLOCK)
        else:
            for first in range(0, len(self._kept), _BLOCK // vad.WINDOW):
                part = self._kept[first : first + _BLOCK // vad.WINDOW]
                if part.any():
                    block = self._audio[first * vad.WINDOW : (first + len(part)) * vad.WINDOW]
                    yield block.reshape(-1, vad.WINDOW)[part].reshape(-1)


def _level(speech: _Speech) -> float:
    """RMS around the mean (a constant offset is not sound), dBFS."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in speech.blocks()) / len(speech)
    power = sum(
        float(np.square(np.subtract(block, mean, dtype=np.float64)).sum()) for block in speech.blocks()
    )
    rms = math.sqrt(power / len(speech))
    return max(_QUIETEST_DBFS, 20.0 * math.log10(rms)) if rms > 0 else _QUIETEST_DBFS


def _flat_tops(audio: Samples, rate: int) -> float:
    """The share of samples in runs that stay at the positive or the negative extreme, at any level, 0..1.

    Runs of three at 16 kHz: a peak of unclipped speech is seldom as wide. At 8 kHz, two last as long.
    """
    width = 3 if rate >= 12000 else 2
    extremes = [(float(block.min()), float(block.max())) for block in blocks(audio, _BLOCK)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    flat = 0
    for start in range(0, len(audio), _BLOCK):
        # With neighbours: a run may lie over the border of two blocks.
        before = min(start, width - 1)
        block = audio[start - before : start + _BLOCK + width - 1]
        for at_top, is_there in (
            (block >= _FLAT * highest, highest > 0.0),
            (block <= _FLAT * lowest, lowest < 0.0),
        ):
            if is_there:
                flat += int(_in_runs(at_top, width)[before : before + _BLOCK].sum())
    return flat / len(audio)


def _in_runs(flags: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Which flags are set in a run of at least `width`."""
    padded: npt.NDArray[np.bool_] = np.pad(flags, width)
    starts = padded[: len(padded) - width + 1].copy()
    for shift in range(1, width):
        starts &= padded[shift : shift + len(starts)]
    inside: npt.NDArray[np.bool_] = starts.copy()
    for shift in range(1, width):
        inside[shift:] |= starts[: len(starts) - shift]
    return inside[width : width + len(flags)]


def _crowded_tops(speech: _Speech) -> float:
    """The share of samples near the extreme, as far as they crowd there as in no natural voice, 0..1.

    Filters and resampling after clipping make the flat tops wavy, but leave the samples crowded
    there: of those over half of the near-top level, 10 to 30 % are near the top in speech, and 40 to
    80 % in speech that was clipped hard. The top is a percentile, as ripples rise over the flat top.
    """
    top = _percentile_of_sizes(speech, 99.5)
    near = half = 0
    for block in speech.blocks():
        size = np.abs(block)
        near += int((size > _NEAR_TOP * top).sum())
        half += int((size > _NEAR_TOP / 2 * top).sum())
    share = near / len(speech)
    return share * _factor(share / max(half / len(speech), 1e-9), _CROWDING)


def _percentile_of_sizes(speech: _Speech, percent: float) -> float:
    """That of the magnitudes, between two of them by linear interpolation."""
    place = percent / 100.0 * (len(speech) - 1)
    below = math.floor(place)
    places = [below, min(below + 1, len(speech) - 1)]
    if len(speech) > _BLOCK:
        low, high = (_nth_size(speech, n) for n in places)
    else:  # sorting is quicker
        size = np.abs(np.concatenate([*speech.blocks()]))
        low, high = map(float, np.partition(size, places)[places])
    return low + (high - low) * (place - below)


def _nth_size(speech: _Speech, n: int) -> float:
    """The n-th smallest magnitude, without a copy of all: by the first half of its bits, then the second.

    The bits of positive floats, read as integers, are in the order of the floats (IEEE 754).
    """
    first = np.zeros(1 << 16, dtype=np.int64)
    for block in speech.blocks():
        first += np.bincount(np.abs(block).view(np.uint32) >> 16, minlength=1 << 16)
    before = np.cumsum(first)
    upper = int(np.searchsorted(before, n, side="right"))
    second = np.zeros(1 << 16, dtype=np.int64)
    for block in speech.blocks():
        bits = np.abs(block).view(np.uint32)
        second += np.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=1 << 16)
    rest = n - int(before[upper] - first[upper])
    lower = int(np.searchsorted(np.cumsum(second), rest, side="right"))
    return float(np.array(upper << 16 | lower, dtype=np.uint32).view(np.float32))

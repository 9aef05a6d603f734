"""Comparison of channels: one voice or two, and voices that cancel each other in the mix.

A mix of agent and caller has an embedding of neither. Channels with one voice must count as equal: copies at
another level or polarity, through a codec or a telephone line, or from two microphones. Copies of opposite
polarity cancel each other in the mix.

Channels that differ. Features of a channel are the energies of 20 mel bands between 100 and 3800 Hz every
16 ms. A channel counts if it is at most 50 dB below the loudest and its spectral variation exceeds 3.8 dB, as
that of speech or music does and that of line noise does not. For each pair of counting channels, band
amplitudes are correlated over time (Pearson), pooled over bands by energy, at the best delay up to 48 ms.
Below 0.7 the two differ. Levels, filters and delays change a correlation of band amplitudes little, and
unlike a coherence it tolerates echoes.

Measured on 1 to 10 s of LibriSpeech: one voice through a telephone line, in 10 dB of noise, in two rooms or
60 ms later correlates by at least 0.69, 0.9 on average; two voices at once or in turn by at most 0.41, or 0.7
where each leaks into the other's channel at -12 dB. Voices that leak at -6 dB pass as one; so do two voices
in noise that masks their changes (from 10 dB, a third of them), and a second voice that speaks less than a
twentieth of the time.

Channels that cancel. The loss is the power of the mix relative to that of unrelated channels, in dB in each
of the 20 bands, averaged over the bands within 40 dB of the strongest (so the band of the hum, or of a high
pitch, counts once). Above 6 dB of loss, the loudest channel replaces the mix. Unrelated channels lose 0 dB at
any levels; copies -3 dB (a gain); copies delayed by more than a few ms, of either polarity, at most 3 dB (the
mean of -10 lg(1 + cos) over all phases); inverted copies everything, and still 6 dB with 7 dB between their
levels. So 6 dB is twice the loss of any echo, and no mix loses more than three quarters of the voice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers
from voiceprint.audio.quality.interleaving import deinterleave, interleaved
from voiceprint.audio.quality.spectrum import Floats, active_frames, spectral_variation_db
from voiceprint.audio.speech.spectrogram import BANDS, band_energies
from voiceprint.errors import InvalidAudioError

MIXED: Final = (
    "The channels of the audio differ, and were mixed: on a call these are two voices, and the answer "
    "may be about neither. Choose one with channel=."
)

_SAME_CORRELATION: Final = 0.7
_MIN_VARIATION_DB: Final = 3.8
_MIN_POWER: Final = 1e-5  # of the loudest channel: -50 dB
_SILENCE: Final = 1e-9  # energy of a frame: an amplitude of about 1e-7
_MAX_LAG: Final = 3  # frames of 16 ms, in both directions
_MIN_S: Final = 0.5  # no voice is recognized in less
_BLOCK_S: Final = 10  # of an array, processed together
_FRAME: Final = 512  # samples at 16 kHz, 32 ms
_HOP: Final = 256  # 16 ms
_MAX_LOSS_DB: Final = 6.0
_MAX_BAND_LOSS_DB: Final = 20.0  # so that a few silent bands do not dominate the mean
_MIN_BAND_POWER: Final = 1e-4  # of the strongest: -40 dB, where line noise fills a band
_AS_LOUD: Final = 0.8  # of the power of the loudest, -1 dB: the first such channel is used


@dataclass(frozen=True)
class ChannelReport:
    """Comparison of the channels of a recording.

    Attributes:
        count: channels, at least 1.
        differ: two channels hold different sounds; on a call, two voices.
        cancels: mixing loses the voice, as one channel is the inverse of another.
        use: index of the loudest channel, which replaces a mix that cancels; else None.
        lost_db: loss by mixing, dB: 0 for unrelated channels, up to 20 for inverted copies, negative for
            copies, which add up.
        interleaved: samples per channel and turn in a "mono" buffer that interleaves two channels: 1 for
            stereo; else None.
    """

    count: int
    differ: bool = False
    cancels: bool = False
    use: int | None = None
    lost_db: float = 0.0
    interleaved: int | None = None


class ChannelComparison:
    """Compares the channels of a recording that arrives in blocks of any length.

    Stores 2.5 kB per second and channel (an hour: 9 MB), and nothing while all channels are equal, as in most
    stereo files. The comparison starts with the first block in which they differ.
    """

    def __init__(self, sample_rate: int) -> None:
        """sample_rate: Hz in 8000..48000; else `InvalidAudioError`."""
        self._rate = buffers.check_sample_rate(sample_rate)
        self._count = 1
        self._copies: list[bool] = []  # for each channel, whether it equals the first
        self._resamplers: list[Any] = []
        self._rest: Floats | None = None  # [channels, n] at 16 kHz, less than a frame
        self._amplitudes: list[list[npt.NDArray[np.float16]]] = []  # [t, 20] of each channel
        self._power = np.zeros((0, 0))  # [channels, 20], summed over time
        self._mix_power = np.zeros(0)
        self._frames = 0

    def add(self, block: npt.NDArray[Any]) -> None:
        """Process the next samples: [n, channels], n >= 1, of a type that `to_mono` accepts.

        Raises:
            InvalidAudioError: the values are no audio, or the number of channels changed.
        """
        columns = [block] if block.ndim == 1 else [*block.T]
        if self._copies and len(columns) != self._count:
            raise InvalidAudioError(
                f"audio has {len(columns)} channels, and had {self._count} before: give each part alike"
            )
        self._count = len(columns)
        equal = [index == 0 or np.array_equal(column, columns[0]) for index, column in enumerate(columns)]
        self._copies = [now and before for now, before in zip(equal, self._copies or equal, strict=True)]
        if self._rest is None and all(equal):
            return
        with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
            self._compare([buffers.to_mono(column, self._rate, self._rate) for column in columns])

    def _compare(self, columns: list[Floats]) -> None:
        if self._rest is None:
            self._rest = np.zeros((self._count, 0), dtype=np.float32)
            self._power = np.zeros((self._count, BANDS))
            self._mix_power = np.zeros(BANDS)
            self._amplitudes = [[] for _ in columns]
            if self._rate != buffers.SAMPLE_RATE:
                self._resamplers = [_resampler(self._rate) for _ in columns]
        if self._resamplers:
            columns = [
                resampler.resample_chunk(column)
                for resampler, column in zip(self._resamplers, columns, strict=True)
            ]
        audio = np.concatenate((self._rest, np.stack(columns)), axis=1)
        frames = max(0, (audio.shape[1] - _FRAME) // _HOP + 1)
        self._rest = audio[:, frames * _HOP :].copy()
        if not frames:
            return
        for index, row in enumerate(audio):
            energies = band_energies(row, _HOP)
            self._power[index] += energies.sum(axis=0, dtype=np.float64)
            # Half precision bounds the memory: 2 ** -11 of an amplitude, from 1e-7 of full scale on.
            self._amplitudes[index].append(np.sqrt(energies).astype(np.float16))
        mix_energies = band_energies(audio.mean(axis=0), _HOP)
        self._mix_power += mix_energies.sum(axis=0, dtype=np.float64)
        self._frames += frames

    @property
    def use(self) -> int | None:
        """`ChannelReport.use` so far, without the cost of the full report."""
        return self._loudest() if self._lost_db() > _MAX_LOSS_DB else None

    def report(self) -> ChannelReport:
        """The comparison so far; further samples may follow."""
        use = self.use
        return ChannelReport(
            count=self._count,
            differ=self._differ(),
            cancels=use is not None,
            use=use,
            lost_db=self._lost_db(),
        )

    def _lost_db(self) -> float:
        """`ChannelReport.lost_db` so far."""
        unrelated = self._power.sum(axis=0) / self._count**2
        if not self._frames or unrelated.sum() / self._frames < _SILENCE:
            return 0.0
        counted = unrelated > unrelated.max() * _MIN_BAND_POWER
        with np.errstate(all="ignore"):
            loss = 10.0 * np.log10(unrelated[counted] / np.maximum(self._mix_power[counted], 1e-30))
        return float(np.minimum(loss, _MAX_BAND_LOSS_DB).mean())

    def _loudest(self) -> int:
        power = self._power.sum(axis=1)
        return int(np.argmax(power >= power.max() * _AS_LOUD))

    def _differ(self) -> bool:
        if self._frames * _HOP < (_MIN_S - 0.05) * buffers.SAMPLE_RATE:
            return False
        with np.errstate(all="ignore"):
            # The first channel represents its copies. One after the other, so that they are never there
            # twice.
            distinct = []
            for blocks, copy in zip(self._amplitudes, [False, *self._copies[1:]], strict=True):
                if not copy:
                    blocks[:] = [np.concatenate(blocks)]
                    distinct.append(blocks[0])
            levels = [float(np.percentile(_energies(amplitudes).sum(axis=1), 95)) for amplitudes in distinct]
            threshold = max(max(levels) * _MIN_POWER, _SILENCE)
            counting = [
                amplitudes
                for amplitudes, level in zip(distinct, levels, strict=True)
                if level > threshold
                and spectral_variation_db(active_frames(_energies(amplitudes))) > _MIN_VARIATION_DB
            ]
            return any(
                _correlation(first.astype(np.float32), second.astype(np.float32)) < _SAME_CORRELATION
                for first, second in combinations(counting, 2)
            )


def compare_channels(audio_buffer: npt.NDArray[Any], sample_rate: int) -> ChannelReport:
    """Compare the channels of an array.

    Args:
        audio_buffer: an array as for `to_mono`.
        sample_rate: Hz in 8000..48000.

    Raises:
        InvalidAudioError: the buffer or its sample rate cannot be used.
    """
    rows = buffers.channels(audio_buffer, sample_rate)
    if len(rows) == 1 or len(rows[0]) < _MIN_S * sample_rate:
        return ChannelReport(len(rows))
    comparison = ChannelComparison(sample_rate)
    size = _BLOCK_S * int(sample_rate)
    for start in range(0, len(rows[0]), size):
        comparison.add(np.stack([row[start : start + size] for row in rows], axis=1))
    return comparison.report()


def mixable(audio_buffer: npt.NDArray[Any], sample_rate: int) -> tuple[npt.NDArray[Any], ChannelReport]:
    """The audio that `to_mono` may mix, and the comparison of its channels.

    Interleaved channels in an array [n] are split into [n // 2, 2]; the loudest, [n], replaces channels that
    cancel each other. Other audio is returned unchanged, not copied.

    Arguments and errors are those of `compare_channels`.
    """
    length = interleaved(audio_buffer, sample_rate) if audio_buffer.ndim == 1 else None
    if length is not None:
        audio_buffer = deinterleave(audio_buffer, length)
    report = replace(compare_channels(audio_buffer, sample_rate), interleaved=length)
    if report.use is None:
        return audio_buffer, report
    return buffers.channels(audio_buffer, sample_rate)[report.use], report


def channels_differ(audio_buffer: npt.NDArray[Any], sample_rate: int) -> bool:
    """Whether two channels of an array hold different sounds; False below 0.5 s.

    Arguments and errors are those of `compare_channels`.
    """
    return compare_channels(audio_buffer, sample_rate).differ


def _resampler(rate: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, buffers.SAMPLE_RATE, 1, dtype="float32", quality="HQ")


def _energies(amplitudes: npt.NDArray[np.float16]) -> Floats:
    return np.square(amplitudes, dtype=np.float32)


def _correlation(first: Floats, second: Floats) -> float:
    """Correlation of band amplitudes float32[t, f] over time at the best delay, -1..1."""
    frames = min(len(first), len(second))
    best = -1.0
    for lag in range(-_MAX_LAG, _MAX_LAG + 1):
        a = first[max(0, lag) : frames + min(0, lag)]
        b = second[max(0, -lag) : frames + min(0, -lag)]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        covariance = np.einsum("tf,tf->f", a, b, dtype=np.float64)
        norm = np.sqrt(
            np.square(a).sum(axis=0, dtype=np.float64) * np.square(b).sum(axis=0, dtype=np.float64)
        )
        best = max(best, float(covariance.sum() / max(norm.sum(), 1e-30)))
    return best

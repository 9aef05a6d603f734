"""Comparison of channels: one voice or two, and voices that cancel each other in the mix.

Mixed, agent and caller give an embedding that is neither's. Channels that hold one voice must not be told
apart: copies at another level or polarity, through a codec or a telephone line, or two microphones. And
copies of opposite polarity cancel each other when mixed.

Channels that differ. Each channel is taken to energies of 20 bands between 100 and 3800 Hz every 16 ms (see
`voiceprint.audio.quality.spectrum`). A channel counts if it is at most 50 dB under the loudest and its
spectrum changes as that of speech or music does, and not of line noise: variety over 3.8 dB. Of any
two that count, the amplitudes of each band are correlated over time (Pearson), pooled over bands by
their energy, at the best of delays up to 48 ms. Below 0.7 the two differ. Levels, filters and delays
change a correlation of band amplitudes little, and unlike a coherence it bears echoes.

Measured on 1 to 10 s of LibriSpeech: one voice through a telephone line, in 10 dB of noise, in two
rooms or 60 ms later, at least 0.69 and in the mean 0.9; two voices at once or in turn at most 0.41,
where each leaks into the other's channel at -12 dB at most 0.7. Leaking at -6 dB they pass as one; so
do two voices in as much noise as to hide their changes (from 10 dB, a third of them), and a second
voice in less than a twentieth of the time.

Channels that cancel. The power of the mix is compared with the power that channels without relation would
give, in each of the 20 bands, in dB, averaged over the bands within 40 dB of the strongest (a band that
holds the hum of the line, or a high voice its pitch, counts as one). Above 6 dB of loss the loudest channel
is taken instead of the mix. By construction unrelated channels lose 0 dB, whatever their levels; copies -3 dB
(they gain); copies that are late by more than a few ms, of either polarity, at most 3 dB (the mean of
-10 lg(1 + cos) over all phases); inverted copies all of it, and 6 dB still with 7 dB between their
levels. So 6 dB leaves twice the loss of any echo, and no mix hides more than three quarters of the voice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers
from voiceprint.audio.quality import spectrum
from voiceprint.audio.quality.interleaving import deinterleave, interleaved
from voiceprint.errors import InvalidAudioError

logger = logging.getLogger(__name__)

MIXED: Final = (
    "The channels of the audio differ, and were mixed: on a call these are two voices, and the answer "
    "may be about neither. Choose one with channel=."
)

_ALIKE: Final = 0.7
_LEAST_VARIETY_DB: Final = 3.8
_QUIETEST: Final = 1e-5  # of the power of the loudest channel: -50 dB
_SILENCE: Final = 1e-9  # energy of a frame, that of an amplitude of some 1e-7
_LAGS: Final = 3  # frames of 16 ms, to either side
_SHORTEST_S: Final = 0.5  # less says nothing of a voice anyway
_BLOCK_S: Final = 10  # of an array, compared together
_FRAME: Final = 512  # samples at 16 kHz, 32 ms, one every 16 ms
_CANCELLED_DB: Final = 6.0
_MOST_LOST_DB: Final = 20.0  # of a band: what is gone counts no more than nearly so
_WEAKEST_BAND: Final = 1e-4  # of the power of the strongest: -40 dB, where line noise fills a band
_AS_LOUD: Final = 0.8  # of the power of the loudest: -1 dB, for which the first channel is as good


@dataclass(frozen=True)
class ChannelReport:
    """What the channels of a recording are to each other.

    Attributes:
        count: channels, at least 1.
        differ: two channels hold different sounds; on a call, two voices.
        cancels: mixing loses the voice, as one channel is the inverse of another.
        use: index of the channel to take instead of the mix, the loudest; None where the mix is as good.
        lost_db: what mixing loses, dB: 0 for channels without relation, up to 20 for inverted copies,
            negative for copies, which add up.
        interleaved: of a buffer that was given as mono and holds two channels in turn, how many samples of
            each stand together: 1 for stereo; else None.
    """

    count: int
    differ: bool = False
    cancels: bool = False
    use: int | None = None
    lost_db: float = 0.0
    interleaved: int | None = None


class ChannelComparison:
    """Compares the channels of a recording that comes in blocks of any length.

    Keeps 2.5 kB for a second of each channel (an hour: 9 MB), and nothing while all channels are equal, as
    they are in most stereo files. The comparison begins with the first block in which they are not.
    """

    def __init__(self, sample_rate: int) -> None:
        """sample_rate: Hz in 8000..48000; else `InvalidAudioError`."""
        self._rate = buffers.check_sample_rate(sample_rate)
        self._count = 1
        self._copies: list[bool] = []  # whether a channel equals the first
        self._resamplers: list[Any] = []
        self._rest: spectrum.Floats | None = None  # [channels, n] at 16 kHz, less than a frame
        self._amplitudes: list[list[npt.NDArray[np.float16]]] = []  # [t, 20] of each channel
        self._power = np.zeros((0, 0))  # [channels, 20], summed over time
        self._mix_power = np.zeros(0)
        self._frames = 0

    def add(self, block: npt.NDArray[Any]) -> None:
        """Take the next samples: [n, channels], n >= 1, of a type that `to_mono` takes.

        Raises:
            InvalidAudioError: values that are no audio, or another count of channels than before.
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
        with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
            self._compare([buffers.to_mono(column, self._rate, self._rate) for column in columns])

    def _compare(self, columns: list[spectrum.Floats]) -> None:
        if self._rest is None:
            self._rest = np.zeros((self._count, 0), dtype=np.float32)
            self._power = np.zeros((self._count, spectrum.BANDS))
            self._mix_power = np.zeros(spectrum.BANDS)
            self._amplitudes = [[] for _ in columns]
            if self._rate != buffers.SAMPLE_RATE:
                self._resamplers = [_resampler(self._rate) for _ in columns]
        if self._resamplers:
            columns = [
                resampler.resample_chunk(column)
                for resampler, column in zip(self._resamplers, columns, strict=True)
            ]
        audio = np.concatenate((self._rest, np.stack(columns)), axis=1)
        done = max(0, (audio.shape[1] - _FRAME) // (_FRAME // 2) + 1)
        self._rest = audio[:, done * (_FRAME // 2) :].copy()
        if not done:
            return
        for index, row in enumerate(audio):
            energies = spectrum.band_energies(row)[0]
            self._power[index] += energies.sum(axis=0, dtype=np.float64)
            # Half precision bounds the memory: 2 ** -11 of an amplitude, from 1e-7 of full scale on.
            self._amplitudes[index].append(np.sqrt(energies).astype(np.float16))
        mix = spectrum.band_energies(audio.mean(axis=0))[0]
        self._mix_power += mix.sum(axis=0, dtype=np.float64)
        self._frames += done

    @property
    def use(self) -> int | None:
        """`ChannelReport.use` of what was taken so far, without the rest of the report, at once."""
        lost_db = self._lost_db()
        return self._loudest() if lost_db > _CANCELLED_DB else None

    def report(self) -> ChannelReport:
        """What was found so far; more can be added afterwards."""
        use = self.use
        return ChannelReport(
            count=self._count,
            differ=self._differ(),
            cancels=use is not None,
            use=use,
            lost_db=self._lost_db(),
        )

    def _lost_db(self) -> float:
        """What mixing loses in the mean over bands, dB."""
        unrelated = self._power.sum(axis=0) / self._count**2
        if not self._frames or unrelated.sum() / self._frames < _SILENCE:
            return 0.0
        counted = unrelated > unrelated.max() * _WEAKEST_BAND
        with np.errstate(all="ignore"):
            lost = 10.0 * np.log10(unrelated[counted] / np.maximum(self._mix_power[counted], 1e-30))
        return float(np.minimum(lost, _MOST_LOST_DB).mean())

    def _loudest(self) -> int:
        power = self._power.sum(axis=1)
        return int(np.argmax(power >= power.max() * _AS_LOUD))

    def _differ(self) -> bool:
        if self._frames * (_FRAME // 2) < (_SHORTEST_S - 0.05) * buffers.SAMPLE_RATE:
            return False
        with np.errstate(all="ignore"):
            # Copies of the first channel are not compared, and the first by itself stands for them.
            parts = [
                np.concatenate(blocks)
                for blocks, copy in zip(self._amplitudes, [False, *self._copies[1:]], strict=True)
                if not copy
            ]
            loud = [float(np.percentile(_energies(each).sum(axis=1), 95)) for each in parts]
            least = max(max(loud) * _QUIETEST, _SILENCE)
            counting = [
                each
                for each, level in zip(parts, loud, strict=True)
                if level > least
                and spectrum.variety(spectrum.active_frames(_energies(each))) > _LEAST_VARIETY_DB
            ]
            return any(
                _likeness(one.astype(np.float32), other.astype(np.float32)) < _ALIKE
                for one, other in combinations(counting, 2)
            )


def compare_channels(audio_buffer: npt.NDArray[Any], sample_rate: int) -> ChannelReport:
    """What the channels of an array are to each other; of equal channels, or one, at once.

    Args:
        audio_buffer: an array as for `to_mono`.
        sample_rate: Hz in 8000..48000.

    Raises:
        InvalidAudioError: the buffer or its sample rate cannot be used.
    """
    rows = buffers.channels(audio_buffer, sample_rate)
    if len(rows) == 1 or len(rows[0]) < _SHORTEST_S * sample_rate:
        return ChannelReport(len(rows))
    comparison = ChannelComparison(sample_rate)
    size = _BLOCK_S * int(sample_rate)
    for start in range(0, len(rows[0]), size):
        comparison.add(np.stack([row[start : start + size] for row in rows], axis=1))
    return comparison.report()


def mixable(audio_buffer: npt.NDArray[Any], sample_rate: int) -> tuple[npt.NDArray[Any], ChannelReport]:
    """What `to_mono` may mix, and what was found in it.

    Of channels that cancel each other the loudest, [n], is given; of two channels that stand interleaved in
    an array [n], both, as [n // 2, 2], or again the loudest. All else is given as it is, and not copied.

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
    """Whether two channels of an array hold different sounds; with one, or less than 0.5 s, never.

    Arguments and errors are those of `compare_channels`.
    """
    return compare_channels(audio_buffer, sample_rate).differ


def warn_if_mixed(audio_buffer: npt.NDArray[Any], sample_rate: int) -> None:
    """Log a warning where channels that differ are about to be mixed; raises as `channels_differ`."""
    if channels_differ(audio_buffer, sample_rate):
        logger.warning(MIXED)


def _resampler(rate: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, buffers.SAMPLE_RATE, 1, dtype="float32", quality="HQ")


def _energies(amplitudes: npt.NDArray[np.float16]) -> spectrum.Floats:
    return np.square(amplitudes, dtype=np.float32)


def _likeness(one: spectrum.Floats, other: spectrum.Floats) -> float:
    """The correlation of band amplitudes float32[t, f] over time, at the best of the delays; -1..1."""
    frames = min(len(one), len(other))
    best = -1.0
    for lag in range(-_LAGS, _LAGS + 1):
        a = one[max(0, lag) : frames + min(0, lag)]
        b = other[max(0, -lag) : frames + min(0, -lag)]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        shared = np.einsum("tf,tf->f", a, b, dtype=np.float64)
        size = np.sqrt(
            np.square(a).sum(axis=0, dtype=np.float64) * np.square(b).sum(axis=0, dtype=np.float64)
        )
        best = max(best, float(shared.sum() / max(size.sum(), 1e-30)))
    return best

"""`Recording`: the audio of one call or sample, with each property computed once, on first use."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import cached_property
from voiceprint.audio.enhance.high_pass import HighPass, LowFrequencyMeter
from voiceprint.audio.enhance.noise_reduction import clean
from voiceprint.audio.fingerprints import Fingerprint, speech_fingerprint
from voiceprint.audio.io import buffers
from voiceprint.audio.io.buffers import mix
from voiceprint.audio.io.encodings import AudioBuffer, Encoding
from voiceprint.audio.io.files import read_all
from voiceprint.audio.io.lazy_audio import LONG_S, Samples, Spliced, blocks, samples
from voiceprint.audio.io.reader import AudioReader, open_audio
from voiceprint.audio.prompts import KnownPrompts
from voiceprint.audio.quality.channels import MIXED, ChannelComparison, ChannelReport, mixable
from voiceprint.audio.quality.model import AudioQuality, Turn
from voiceprint.audio.quality.score import measure_quality, with_voices
from voiceprint.audio.speech.segmenter import Segment, Segmenter, run_segmenter, speech_parts, with_prompts
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.audio.speech.vad import BLOCK
from voiceprint.errors import InvalidAudioError

logger = logging.getLogger(__name__)

__all__ = ["Recording", "assess"]


class Recording:
    """The audio of one call: mono samples, segments, speech and quality. Accepted in place of a buffer.

    Created by `from_buffer` or `open`. Audio of at least two minutes is converted on reading, so an hour
    takes only the memory of its source. Not thread-safe.
    """

    def __init__(
        self,
        pcm: NDArray[Any],
        sample_rate: int,
        *,
        channels: ChannelReport | None = None,
        mono: NDArray[np.float32] | None = None,
        segmenter: Segmenter | None = None,
    ) -> None:
        """pcm: as from `as_pcm`. channels: the comparison of its channels, if already mixed.

        mono, segmenter: the audio at 16 kHz, and a segmenter over all of it, if already computed.
        """
        self._source = pcm
        self._segmenter = segmenter
        if mono is not None:
            self.mono = mono
        self._prompts: tuple[KnownPrompts, ...] = ()
        self._channels = channels
        self.sample_rate = sample_rate
        """Hz, of the source."""
        self.name: str | None = None
        """The path of the source file, if any."""
        self.warnings: tuple[str, ...] = ()
        """Faults of the file that did not prevent reading."""

    @classmethod
    def from_buffer(
        cls,
        audio_buffer: AudioBuffer | Recording,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
    ) -> Recording:
        """The recording in a buffer; arguments and errors as for `to_mono`. Returns a `Recording` unchanged.

        audio_buffer: not copied, and read on first use: do not modify it.
        sample_rate: Hz; None means 8000 for G.711, else 16000.
        """
        if isinstance(audio_buffer, Recording):
            if channel is not None or channels != 1:  # its channels are mixed already
                raise InvalidAudioError(
                    "channel and channels are for buffers: choose those of a Recording when you make it"
                )
            return audio_buffer
        rate = buffers.rate_of(sample_rate, encoding)
        pcm = buffers.as_pcm(audio_buffer, rate, encoding=encoding, channel=channel, channels=channels)
        buffers.scaled_reader(pcm, rate)  # refuses floats that are not audio
        return cls(pcm, rate)

    def leave_out(self, prompts: KnownPrompts | None) -> Recording:
        """Exclude these prompts from the speech; returns `self`."""
        if prompts is not None and prompts not in self._prompts:
            self._prompts = (*self._prompts, prompts)
            for name in ("segments", "parts", "speech", "trimmed", "quality", "cleaned", "fingerprint"):
                self.__dict__.pop(name, None)
        return self

    def leaving_out(self, prompts: KnownPrompts | None) -> Recording:
        """A view of the recording without these prompts; `self` for None.

        `self` does not change: another recognizer may exclude other prompts, or none.
        """
        if prompts is None:
            return self
        _ = self._segmented  # so that both share it
        return copy.copy(self).leave_out(prompts)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        encoding: Encoding | None = None,
        sample_rate: int | None = None,
        channel: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> Recording:
        """The recording in a file; arguments and errors as for `load_audio`.

        start_s, end_s: excerpt to read, in seconds from the start of the file; None is its end. Only the
        excerpt is in memory. Raises `InvalidAudioError` where the file ends more than 0.05 s before `end_s`.

        Channels are mixed during reading. The mix of at least two minutes of 16-bit samples is rounded to 16
        bits, so that a recording of 8 channels takes the memory of one of one, and during reading 2.5 kB a
        second for each channel that differs.
        """
        open_reader = partial(
            open_audio, path, encoding=encoding, sample_rate=sample_rate, start_s=start_s, end_s=end_s
        )
        return cls.read(open_reader, channel)

    @classmethod
    def read(cls, open_reader: Callable[[], AudioReader], channel: int | None = None) -> Recording:
        """The recording from a reader, of one channel, or of all channels mixed; see `open`.

        open_reader: called a second time if the channels cancel each other.
        """
        with open_reader() as reader:
            report = None
            if channel is not None or reader.channels == 1:
                pcm = read_all(reader, channel=channel, compact=True)
            else:
                pcm, report = _mix_channels(reader)
        if report is not None and report.use is not None:
            with open_reader() as second_reader:
                pcm = read_all(second_reader, channel=report.use, compact=True)
        recording = cls(pcm, reader.sample_rate, channels=report)
        recording.name, recording.warnings = reader.name, reader.warnings
        return recording

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.duration_s:.1f} s, {self.sample_rate} Hz)"

    @cached_property
    def _mixable(self) -> tuple[NDArray[Any], ChannelReport]:
        if self._channels is not None:
            return self._source, self._channels
        return mixable(self._source, self.sample_rate)

    @property
    def source(self) -> NDArray[Any]:
        """The samples as given, at `sample_rate`: PCM of [n], or with channels on the shorter axis."""
        return self._source

    @property
    def _pcm(self) -> NDArray[Any]:
        return self._mixable[0]

    @property
    def channels(self) -> ChannelReport:
        """The comparison of its channels, with the channel that replaces a mix that cancels."""
        return self._mixable[1]

    @cached_property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return buffers.duration(self._pcm, self.sample_rate)

    @property
    def is_long(self) -> bool:
        """Whether the audio is converted on reading, and never in memory as a whole."""
        return self.duration_s >= LONG_S

    @cached_property
    def native(self) -> Samples:
        """Mono audio at `sample_rate`, float32[n] in [-1, 1]."""
        return samples(self._pcm, self.sample_rate, self.sample_rate)

    @cached_property
    def mono(self) -> Samples:
        """Mono audio at 16 kHz, float32[n] in [-1, 1]."""
        native = self.native
        if self.sample_rate == buffers.SAMPLE_RATE:
            return native
        if isinstance(native, np.ndarray):
            return buffers.resample(native, self.sample_rate, buffers.SAMPLE_RATE)
        return samples(self._pcm, self.sample_rate)

    @cached_property
    def cutoff_hz(self) -> float | None:
        """Cutoff of the high-pass filter against a DC offset or hum, Hz; None without one."""
        meter = LowFrequencyMeter()
        for block in blocks(self.mono, BLOCK):
            meter.add(block)
        return meter.cutoff_hz

    @cached_property
    def speech(self) -> Samples:
        """The speech segments of `mono`, concatenated, float32[n]; includes pauses."""
        audio: Samples = self.mono if self.cutoff_hz is None else HighPass(self.mono, self.cutoff_hz)
        parts = self.parts
        if parts != ((0, len(audio)),):
            audio = Spliced(audio, parts)
        return audio if self.is_long else audio[:]

    @cached_property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Start and stop, in samples of `mono`, of the speech."""
        return speech_parts(self.segments)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of `mono`: speech, tones, music, noise, silence and known prompts."""
        segments = self._segmented[1]
        for prompts in self._prompts:
            segments = with_prompts(segments, prompts.stretches(self.mono))
        return segments

    @cached_property
    def _segmented(self) -> tuple[Segmenter, tuple[Segment, ...]]:
        segmenter = self._segmenter or run_segmenter(self.mono)
        return segmenter, segmenter.segments()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the first minute of speech, by which copies are found."""
        return speech_fingerprint(self.mono, self.parts)

    @cached_property
    def trimmed(self) -> TrimmedSpeech:
        """The speech without pauses, as the input of encoders."""
        return TrimmedSpeech(self.speech)

    @cached_property
    def quality(self) -> AudioQuality:
        """The quality of the audio for speaker recognition; see `measure_quality`."""
        segmenter, segments = self._segmented[0], self.segments
        # Without speech, all audio is measured, so that the advice can name the fault.
        speech = self.trimmed if self.parts else TrimmedSpeech(self.mono)
        return measure_quality(
            self.native,
            self.sample_rate,
            segments=segments,
            rows=segmenter.spectrogram.rows(),
            speech=speech,
            channels=self.channels,
            filtered=self.cutoff_hz is not None,
        )

    def report_voices(self, voices: Sequence[tuple[Turn, ...]]) -> None:
        """Add the finding of several voices to the quality; voices: the turns of each."""
        self.__dict__["quality"] = with_voices(self.quality, voices, self.segments)

    @cached_property
    def cleaned(self) -> NDArray[np.float32] | None:
        """The speech with reduced noise and restored low frequencies, float32[n]; None if clean, or long."""
        if self.is_long:
            return None
        speech = self.speech[:]
        cleaned = clean(speech, self.quality)
        return None if cleaned is speech else cleaned

    def warn_if_mixed(self) -> None:
        """Log a warning if different channels were mixed."""
        if self.channels.differ:
            self.warn(MIXED)

    def warn(self, message: str) -> None:
        """Log a warning, with the name of the source file."""
        logger.warning("%s%s", "" if self.name is None else f"{self.name}: ", message)

    def speech_at(self, sample_rate: int) -> NDArray[np.float32]:
        """All of `speech`, resampled to `sample_rate` Hz."""
        speech = self.speech[:]
        if sample_rate == buffers.SAMPLE_RATE:
            return speech
        return buffers.resample(speech, buffers.SAMPLE_RATE, sample_rate)


def assess(
    audio_buffer: AudioBuffer | Recording,
    *,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> AudioQuality:
    """Measure the quality of audio for speaker recognition, see `quality.score.measure_quality`.

    Args:
        audio_buffer: any input of `to_mono`, from one sample to an hour; or a `Recording`.
        sample_rate: of the buffer, Hz in 8000..48000; None means 8000 for G.711, else 16000.
        encoding, channel, channels: as for `to_mono`.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel is invalid.
    """
    return Recording.from_buffer(audio_buffer, sample_rate, encoding, channel, channels).quality


def _mix_channels(reader: AudioReader) -> tuple[NDArray[Any], ChannelReport]:
    """The mean of a reader's channels, and their comparison."""
    comparison = ChannelComparison(reader.sample_rate)
    blocks: list[NDArray[Any]] = []
    count = 0
    for block in reader.blocks():
        comparison.add(block)
        mono = mix(block)
        count += len(mono)
        blocks.append(mono)
        if reader.is_16_bit and count >= LONG_S * reader.sample_rate:
            blocks = [as_int16(part) for part in blocks]
    pcm = np.concatenate(blocks)
    blocks.clear()  # before the report, which takes memory too
    return pcm, comparison.report()


def as_int16(audio: NDArray[Any]) -> NDArray[np.int16]:
    """Audio, int16 or float in [-1, 1], as 16 bits."""
    if audio.dtype == np.int16:
        return audio
    return np.asarray(np.clip(np.rint(audio * 32768.0), -32768, 32767), dtype=np.int16)

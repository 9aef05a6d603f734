"""`Recording`: the audio of one call or sample, each property computed once, when it is first needed."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.enhance.high_pass import HighPass, LowFrequencyMeter
from voiceprint.audio.enhance.noise_reduction import cleaned, may_be_cleaned
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
    """One call's audio: mono, where its speech is, how good it is. Methods that take a buffer take this too.

    Made by `from_buffer` or `open`. Audio of two minutes and more is converted while it is read, so an hour
    takes no more memory than what it came in. For use by one thread.
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
        """pcm: as from `as_pcm`. channels: what its channels were, if they are mixed already.

        mono, segmenter: the audio at 16 kHz, and a segmenter that was given all of it, where a stream has
        them.
        """
        self._given = pcm
        self._segmenter = segmenter
        if mono is not None:
            self.mono = mono
        self._prompts: tuple[KnownPrompts, ...] = ()
        self._channels = channels
        self.sample_rate = sample_rate
        """Hz, of the audio as it came."""
        self.name: str | None = None
        """The file that it came from."""
        self.warnings: tuple[str, ...] = ()
        """What is wrong with the file, and yet could be read."""

    @classmethod
    def from_buffer(
        cls,
        audio_buffer: AudioBuffer | Recording,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
    ) -> Recording:
        """The recording in a buffer; arguments and errors are those of `to_mono`. A recording is itself, of
        which no channel can be chosen any more.

        audio_buffer: is not copied, and read when something is first computed: leave it as it is.
        sample_rate: Hz; None is 8000 of G.711 and 16000 of all else.
        """
        if isinstance(audio_buffer, Recording):
            if channel is not None or channels != 1:  # the answer would be of another one
                raise InvalidAudioError(
                    "channel and channels are for buffers: choose those of a Recording when you make it"
                )
            return audio_buffer
        rate = buffers.rate_of(sample_rate, encoding)
        pcm = buffers.as_pcm(audio_buffer, rate, encoding=encoding, channel=channel, channels=channels)
        buffers.scaled_reader(pcm, rate)  # refuses floats that are no audio
        return cls(pcm, rate)

    def leave_out(self, prompts: KnownPrompts | None) -> Recording:
        """Take these prompts too for no speech; gives the recording itself."""
        if prompts is not None and prompts not in self._prompts:
            self._prompts = (*self._prompts, prompts)
            for name in ("segments", "parts", "speech", "trimmed", "quality", "cleaned"):
                self.__dict__.pop(name, None)
        return self

    def leaving_out(self, prompts: KnownPrompts | None) -> Recording:
        """The same audio, and what is computed of it, without these prompts; `self` where there are none.

        `self` stays as it is: another recognizer that is given it leaves out other prompts, or none.
        """
        if prompts is None:
            return self
        _ = self._segmented  # once for both
        return copy.copy(self).leave_out(prompts)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        encoding: Encoding | None = None,
        sample_rate: int | None = None,
        channel: int | None = None,
    ) -> Recording:
        """The recording in a file; arguments and errors are those of `load_audio`.

        Channels are mixed while the file is read. Of two minutes and more with 16-bit samples the mix is
        rounded to 16 bits, so that an hour of 8 channels takes no more than an hour of one.
        """
        return cls.read(partial(open_audio, path, encoding=encoding, sample_rate=sample_rate), channel)

    @classmethod
    def read(cls, opened: Callable[[], AudioReader], channel: int | None = None) -> Recording:
        """The recording that a reader gives, of one channel, or of all mixed; see `open`.

        opened: opens the reader; asked a second time where the channels turn out to cancel each other.
        """
        with opened() as reader:
            report = None
            if channel is not None or reader.channels == 1:
                pcm = read_all(reader, channel=channel, compact=True)
            else:
                pcm, report = _mixed(reader)
        if report is not None and report.use is not None:
            with opened() as again:
                pcm = read_all(again, channel=report.use, compact=True)
        recording = cls(pcm, reader.sample_rate, channels=report)
        recording.name, recording.warnings = reader.name, reader.warnings
        return recording

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.duration_s:.1f} s, {self.sample_rate} Hz)"

    @cached_property
    def _mixable(self) -> tuple[NDArray[Any], ChannelReport]:
        if self._channels is not None:
            return self._given, self._channels
        return mixable(self._given, self.sample_rate)

    @property
    def _pcm(self) -> NDArray[Any]:
        return self._mixable[0]

    @property
    def channels(self) -> ChannelReport:
        """What its channels are to each other, and which is used where a mix would lose the voice."""
        return self._mixable[1]

    @cached_property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return buffers.duration(self._pcm, self.sample_rate)

    @property
    def is_long(self) -> bool:
        """Whether the audio is converted while it is read, and never there as a whole."""
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
        """The frequency under which a DC offset or a hum is cut out, if one is; see `audio.low_cut`."""
        lows = LowFrequencyMeter()
        for block in blocks(self.mono, BLOCK):
            lows.add(block)
        return lows.cutoff_hz

    @cached_property
    def speech(self) -> Samples:
        """The parts of `mono` that hold speech, one after the other, float32[n]; pauses are still in."""
        audio: Samples = self.mono if self.cutoff_hz is None else HighPass(self.mono, self.cutoff_hz)
        parts = self.parts
        if parts != ((0, len(audio)),):
            audio = Spliced(audio, parts)
        return audio if self.is_long else audio[:]

    @cached_property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Start and stop, in samples of `mono`, of the parts that hold speech."""
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
    def trimmed(self) -> TrimmedSpeech:
        """The speech as encoders take it."""
        return TrimmedSpeech(self.speech)

    @cached_property
    def quality(self) -> AudioQuality:
        """How well the audio serves speaker recognition; see `measure_quality`."""
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
        """Add to the quality that several voices speak, and the turns of each."""
        self.__dict__["quality"] = with_voices(self.quality, voices, self.segments)

    @cached_property
    def cleaned(self) -> NDArray[np.float32] | None:
        """The speech with less noise and its low frequencies restored, float32[n]; None if there is nothing
        to do, and of long audio."""
        if self.is_long or not may_be_cleaned(self.quality):
            return None
        speech = self.speech[:]
        better = cleaned(speech, self.quality)
        return None if better is speech else better

    def warn_if_mixed(self) -> None:
        """Log a warning where channels that differ were mixed."""
        if self.channels.differ:
            self.warn(MIXED)

    def warn(self, message: str) -> None:
        """Log a warning, with the name of the file if the recording came from one."""
        logger.warning("%s%s", "" if self.name is None else f"{self.name}: ", message)

    def speech_at(self, sample_rate: int) -> NDArray[np.float32]:
        """`speech` as a whole, at so many Hz."""
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
    """Measure how well the audio serves speaker recognition; `quality.score.measure_quality` says how.

    Args:
        audio_buffer: anything that `to_mono` takes, from one sample to an hour; or a `Recording`.
        sample_rate: of the buffer, Hz in 8000..48000; None is 8000 of G.711 and 16000 of all else.
        encoding, channel, channels: as for `to_mono`.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel cannot be used.
    """
    return Recording.from_buffer(audio_buffer, sample_rate, encoding, channel, channels).quality


def _mixed(reader: AudioReader) -> tuple[NDArray[Any], ChannelReport]:
    """The mean of a reader's channels, and what they are to each other."""
    comparison = ChannelComparison(reader.sample_rate)
    blocks: list[NDArray[Any]] = []
    count = 0
    for block in reader.blocks():
        comparison.add(block)
        mono = mix(block)
        count += len(mono)
        blocks.append(mono)
        if reader.is_16_bit and count >= LONG_S * reader.sample_rate:
            blocks = [_as_int16(part) for part in blocks]
    return np.concatenate(blocks), comparison.report()


def _as_int16(audio: NDArray[Any]) -> NDArray[np.int16]:
    if audio.dtype == np.int16:
        return audio
    return np.asarray(np.clip(np.rint(audio * 32768.0), -32768, 32767), dtype=np.int16)

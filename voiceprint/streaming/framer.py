"""Chunks of a call, cut anywhere, framed into blocks that do not depend on the cuts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import MIXED, SAMPLE_RATE, Encoding, as_pcm, to_mono
from voiceprint.audio.io import scale
from voiceprint.audio.io.buffers import MAX_CHANNELS, check_channel, check_channels, rate_of
from voiceprint.audio.io.encodings import FILE_HEAD, check_encoding, refuse_file, sample_bytes
from voiceprint.audio.quality.channels import ChannelComparison
from voiceprint.errors import InvalidAudioError
from voiceprint.validation import is_integer, shown

logger = logging.getLogger(__name__)

Samples = NDArray[np.float32]

BLOCK_S: Final = 0.48
"""Length of a block, 16 windows of the VAD, and so the delay of the answers."""

# Seconds of a call after which its channels are compared; later audio is not.
_COMPARED_S: Final = (3.0, 10.0, 60.0)
_NOTHING: Final = np.zeros(0, dtype=np.float32)


class Framer:
    """Frames chunks into blocks of one length: float32[n] mono at the call's own rate, and at 16 kHz.

    All later stages process these blocks, so every split of a call into chunks gives the same answers.
    """

    def __init__(
        self, sample_rate: int | None, encoding: Encoding, channel: int | None, channels: int = 1
    ) -> None:
        self._encoding = check_encoding(encoding)
        self.rate = rate_of(sample_rate, self._encoding)
        self._interleaved = check_channels(channels)
        if channel is not None and (not is_integer(channel) or channel < 0):
            raise InvalidAudioError(
                f"channel is {shown(channel)}: an index from 0, or None for all, is allowed"
            )
        self._channel = channel
        self._frame_bytes = sample_bytes(self._encoding) * self._interleaved
        self._bytes = bytearray()  # not decoded yet
        self._waiting: list[Samples] = []  # [n], or [n, channels] to be mixed by the block
        self._decoded = 0  # samples
        self._block = round(self.rate * BLOCK_S)
        self._block_bytes = 0 if encoding == "pcm_f32le" else self._block * self._frame_bytes
        self._resampler = None if self.rate == SAMPLE_RATE else _resampler(self.rate)
        self._mixer = _ChannelMixer(self.rate)

    @property
    def channels_differ(self) -> bool:
        """Whether the mixed channels hold different sounds."""
        return self._mixer.differ

    @property
    def channels_cancel(self) -> bool:
        """Whether one channel is used, because a mix would cancel."""
        return self._mixer.selected is not None

    @property
    def samples(self) -> int:
        """Samples of the call so far, at its own rate."""
        return self._decoded + len(self._bytes) // self._frame_bytes

    def add(self, chunk: Any) -> None:
        """Add a chunk. Raises `InvalidAudioError` for a chunk that is not audio, and leaves it out."""
        if isinstance(chunk, memoryview) and chunk.ndim == 1 and chunk.format in ("B", "b", "c"):
            chunk = chunk.tobytes()
        if isinstance(chunk, bytes | bytearray):
            if not self._decoded and len(self._bytes) < FILE_HEAD:
                refuse_file(bytes(self._bytes) + bytes(chunk[:FILE_HEAD]))
            self._bytes += chunk
            # A block at once, because the checks of `to_mono` cost more than 20 ms of audio. Floats at every
            # chunk: any of them may be invalid, and the error must name the chunk that holds it.
            if len(self._bytes) >= self._block_bytes:
                try:
                    self._decode()
                except InvalidAudioError:
                    del self._bytes[len(self._bytes) - len(chunk) :]
                    raise
            return
        self._decode()
        if self._bytes:
            raise InvalidAudioError(
                f"audio is an array, and the bytes before it end {len(self._bytes)} bytes into a sample: "
                "feed its rest first"
            )
        self._append(self._fast_floats(chunk))

    def _decode(self) -> None:
        whole = len(self._bytes) - len(self._bytes) % self._frame_bytes
        if whole:
            self._append(self._floats(bytes(self._bytes[:whole])))
            del self._bytes[:whole]

    def _append(self, samples: Samples) -> None:
        if not len(samples):
            return
        if self._waiting and self._waiting[0].shape[1:] != samples.shape[1:]:
            # With another number of channels, none of them continues a channel from before.
            self._waiting = [self._mixer.mix(part) for part in self._waiting]
            self._mixer.stop_comparing()
        if self._mixer.stopped:
            samples = self._mixer.mix(samples)
        self._waiting.append(samples)
        self._decoded += len(samples)

    def _fast_floats(self, chunk: Any) -> Samples:
        """As `_floats`, ten times as fast for the usual small arrays."""
        plain = self._encoding == "pcm" and not self._channel and self._interleaved == 1
        if plain and type(chunk) is np.ndarray and chunk.ndim == 1:
            if chunk.dtype == np.int16:
                return np.asarray(chunk.astype(np.float32) / np.float32(32768))
            if chunk.dtype == np.float32 and len(chunk) and chunk.min() >= -1.0 and chunk.max() <= 1.0:
                return np.array(chunk)  # a copy; a NaN fails the comparison
        return self._floats(chunk)

    def _floats(self, chunk: Any) -> Samples:
        """The chunk as float32[n], or float32[n, channels] to be mixed, at the call's rate."""
        if self._encoding == "pcm_f32le" and not isinstance(chunk, np.ndarray) and len(chunk):
            chunk = as_pcm(chunk, self.rate, encoding=self._encoding)
        if isinstance(chunk, np.ndarray) and chunk.dtype.kind == "f" and chunk.size:
            level = scale.level(chunk)
            scale.gain(level)  # raises for values that are not audio
            # Clipped, not scaled down like a whole recording: that would change the level at each chunk.
            chunk = np.clip(chunk, -1.0, 1.0)
        if (chunk.size if isinstance(chunk, np.ndarray) else chunk != b"") == 0:
            return np.zeros(0, dtype=np.float32)
        if not isinstance(chunk, np.ndarray) or chunk.ndim != 2:
            if self._interleaved == 1 or self._channel is not None:
                return to_mono(
                    chunk, self.rate, self.rate, encoding=self._encoding, channel=self._channel,
                    channels=self._interleaved,
                )  # fmt: skip
            rows = [
                to_mono(
                    chunk, self.rate, self.rate, encoding=self._encoding, channel=index,
                    channels=self._interleaved,
                )
                for index in range(self._interleaved)
            ]  # fmt: skip
            return np.stack(rows, axis=1)
        # Always [samples, channels], whichever axis is shorter: a chunk may have one sample.
        columns = chunk.shape[1]
        if columns > MAX_CHANNELS:
            raise InvalidAudioError(
                f"audio of shape {chunk.shape} has {columns} channels: a stream takes [samples, channels], "
                f"with at most {MAX_CHANNELS}"
            )
        if self._channel is not None:
            chunk, columns = chunk[:, [check_channel(self._channel, columns)]], 1
        each = [
            to_mono(column, self.rate, self.rate, encoding=self._encoding)
            for column in np.moveaxis(chunk, 1, 0)
        ]
        return each[0] if columns == 1 else np.stack(each, axis=1)

    def blocks(self, *, last: bool = False) -> Iterator[tuple[Samples, Samples]]:
        """The complete blocks, at the call's rate and at 16 kHz; with `last` also the rest."""
        if last:
            self._decode()
        waiting = sum(map(len, self._waiting))
        if waiting < self._block and not last:
            return
        samples = np.concatenate(self._waiting) if self._waiting else _NOTHING
        while len(samples) >= self._block:
            # Copies: a view would keep all of a long chunk in memory.
            block, samples = samples[: self._block].copy(), samples[self._block :]
            self._waiting = [samples.copy() if len(samples) < self._block else samples]
            mono = self._mixer.add(block)
            yield mono, self._resampled(mono, last=False)
        if last:
            self._waiting = []
            mono = self._mixer.add(samples)
            self._mixer.compare()
            yield mono, self._resampled(mono, last=True)

    def rest(self) -> Samples:
        """The audio after the last block, float32[n] mono at the call's rate. It stays for the next block."""
        self._decode()
        return np.concatenate([_NOTHING, *map(self._mixer.mix, self._waiting)])

    def _resampled(self, block: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return block
        # Overshoot of the filter is clipped, as in `buffers.resample`.
        resampled: Samples = np.clip(self._resampler.resample_chunk(block, last=last), -1.0, 1.0)
        return resampled


def _resampler(rate: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class _ChannelMixer:
    """Mixes the channels of a call, or selects one where a mix would cancel; compares them for a minute."""

    def __init__(self, rate: int) -> None:
        self.differ = self.stopped = False
        self.selected: int | None = None
        self._comparison = ChannelComparison(rate)
        self._due = [round(seconds * rate) for seconds in _COMPARED_S]
        self._samples = 0

    def add(self, block: Samples) -> Samples:
        """Compare and mix a block, float32[n] or [n, channels]: float32[n]."""
        if block.ndim > 1 and len(block) and not self.stopped and self._samples < self._due[-1]:
            self._comparison.add(block)
            self._samples += len(block)
            self.selected = self._comparison.use
            if any(self._samples - len(block) < due <= self._samples for due in self._due):
                self.compare()
        return self.mix(block)

    def mix(self, samples: Samples) -> Samples:
        """Audio, float32[n] or [n, channels], in one channel."""
        if samples.ndim == 1:
            return samples
        if self.selected is not None and self.selected < samples.shape[1]:
            return np.ascontiguousarray(samples[:, self.selected])
        mono = np.array(samples[:, 0])
        for column in samples.T[1:]:  # several times as fast as `mean`
            mono += column
        mono /= np.float32(samples.shape[1])
        return mono

    def compare(self) -> None:
        """Log a warning, once, where the channels differ."""
        if not (self.differ or self.stopped) and self._comparison.report().differ:
            logger.warning(MIXED)
            self.differ = True

    def stop_comparing(self) -> None:
        """Compare the channels for the last time."""
        self.compare()
        self.stopped = True

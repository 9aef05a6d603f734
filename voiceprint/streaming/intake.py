"""Chunks of a call, cut anywhere, as blocks of samples that do not depend on the cuts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import MIXED, SAMPLE_RATE, Encoding, channels_differ, to_mono
from voiceprint.audio.io.buffers import MAX_CHANNELS, check_sample_rate
from voiceprint.audio.io.encodings import check_encoding, sample_bytes
from voiceprint.errors import InvalidAudioError
from voiceprint.validation import shown

logger = logging.getLogger(__name__)

Samples = NDArray[np.float32]

BLOCK_S: Final = 0.48  # 16 windows of the VAD: what is looked at together, and the delay of it

# Seconds of a call with several channels after which they are compared; an hour is not kept for this.
_COMPARED_S: Final = (3.0, 10.0)


class Intake:
    """Takes chunks and gives blocks: float32[n] mono at the call's own rate, and the same at 16 kHz.

    Everything behind it sees blocks of one length alone, so that any split gives the same numbers.
    """

    def __init__(self, sample_rate: int, encoding: Encoding, channel: int | None) -> None:
        self.rate = check_sample_rate(sample_rate)
        self._encoding = check_encoding(encoding)
        if channel is not None and (
            isinstance(channel, bool) or not isinstance(channel, int | np.integer) or channel < 0
        ):
            raise InvalidAudioError(
                f"channel is {shown(channel)}: an index from 0, or None for all, is allowed"
            )
        self._channel = channel
        self._sample_bytes = sample_bytes(self._encoding)
        self._bytes = bytearray()  # that are not decoded yet
        self._waiting: list[Samples] = []
        self._taken = 0  # samples that are decoded
        self._block = round(self.rate * BLOCK_S)
        self._block_bytes = 0 if encoding == "pcm_f32le" else self._block * self._sample_bytes
        self._resampler = None if self.rate == SAMPLE_RATE else _resampler(self.rate)
        self._channels = _Channels(self.rate)

    @property
    def channels_differ(self) -> bool:
        """Whether channels were mixed that hold different sounds."""
        return self._channels.differ

    @property
    def samples(self) -> int:
        """Samples that were taken so far."""
        return self._taken + len(self._bytes) // self._sample_bytes

    def take(self, chunk: Any) -> None:
        """Take a chunk, or refuse it by `InvalidAudioError` and be as before."""
        if isinstance(chunk, memoryview) and chunk.ndim == 1 and chunk.format in ("B", "b", "c"):
            chunk = chunk.tobytes()
        if isinstance(chunk, bytes | bytearray):
            self._bytes += chunk
            # Some frames together, as the checks of `to_mono` cost more than their 20 ms of audio; but for
            # floats, of which any may be refused, and then it is the chunk.
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
                f"audio is an array, and {len(self._bytes)} bytes of a sample wait for the others: feed those"
            )
        self._add(self._quickly(chunk))

    def _decode(self) -> None:
        whole = len(self._bytes) - len(self._bytes) % self._sample_bytes
        if whole:
            self._add(self._mono(bytes(self._bytes[:whole])))
            del self._bytes[:whole]

    def _add(self, mono: Samples) -> None:
        self._waiting.append(mono)
        self._taken += len(mono)

    def _quickly(self, chunk: Any) -> Samples:
        """As `_mono`, in a tenth of the time for the usual small arrays."""
        if self._encoding == "pcm" and type(chunk) is np.ndarray and chunk.ndim == 1 and not self._channel:
            if chunk.dtype == np.int16:
                return np.asarray(chunk.astype(np.float32) / np.float32(32768))
            if chunk.dtype == np.float32 and len(chunk) and chunk.min() >= -1.0 and chunk.max() <= 1.0:
                return np.array(chunk)  # a copy; a NaN fails the comparison
        return self._mono(chunk)

    def _mono(self, chunk: Any) -> Samples:
        if (chunk.size if isinstance(chunk, np.ndarray) else chunk != b"") == 0:
            return np.zeros(0, dtype=np.float32)
        if not isinstance(chunk, np.ndarray) or chunk.ndim != 2:
            return to_mono(chunk, self.rate, self.rate, encoding=self._encoding, channel=self._channel)
        # [samples, channels], and not the shorter axis the channels: a chunk may be one sample long.
        length, columns = chunk.shape
        if columns > MAX_CHANNELS:
            raise InvalidAudioError(
                f"audio of shape {chunk.shape} has {columns} channels: a stream takes [samples, channels], "
                f"with at most {MAX_CHANNELS}"
            )
        chunk = np.concatenate((chunk, np.repeat(chunk[-1:], max(0, columns - length), axis=0)))
        mono = to_mono(chunk, self.rate, self.rate, encoding=self._encoding, channel=self._channel)[:length]
        if self._channel is None and self._channels.listening:
            each = [
                to_mono(chunk, self.rate, self.rate, encoding=self._encoding, channel=place)[:length]
                for place in range(columns)
            ]
            self._channels.hear(np.stack(each, axis=1))
        return mono

    def blocks(self, *, last: bool = False) -> Iterator[tuple[Samples, Samples]]:
        """The blocks that are complete, at the call's rate and at 16 kHz; with `last` also the rest."""
        if last:
            self._decode()
        waiting = sum(map(len, self._waiting))
        if waiting < self._block and not last:
            return
        samples = np.concatenate([*self._waiting, np.zeros(0, dtype=np.float32)])
        while len(samples) >= self._block:
            # A copy: a part would hold on to all of a long chunk.
            block, samples = samples[: self._block].copy(), samples[self._block :]
            self._waiting = [samples.copy() if len(samples) < self._block else samples]
            yield block, self._resampled(block, last=False)
        if last:
            self._waiting = []
            self._channels.compare()
            yield samples, self._resampled(samples, last=True)

    def _resampled(self, block: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return block
        # What overshoots is clipped, as by `audio.buffers.resample`.
        resampled: Samples = np.clip(self._resampler.resample_chunk(block, last=last), -1.0, 1.0)
        return resampled


def _resampler(rate: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class _Channels:
    """Compares the channels of the beginning of a call that are about to be mixed."""

    def __init__(self, rate: int) -> None:
        self.differ = False
        self._rate = rate
        self._due = [round(seconds * rate) for seconds in _COMPARED_S]
        self._heard: list[NDArray[Any]] = []
        self._samples = 0

    @property
    def listening(self) -> bool:
        return bool(self._due)

    def hear(self, chunk: NDArray[Any]) -> None:
        self._heard.append(chunk[: self._due[-1] - self._samples])
        self._samples += len(self._heard[-1])
        if self._samples >= self._due[0]:
            self.compare()

    def compare(self) -> None:
        self._due = [due for due in self._due if due > self._samples]
        shapes = {chunk.shape[1] for chunk in self._heard}
        if len(shapes) == 1 and shapes != {1}:  # a call whose channels change in number cannot be told
            heard = np.concatenate(self._heard)
            if len(heard) >= heard.shape[1] and channels_differ(heard, self._rate):
                logger.warning(MIXED)
                self.differ, self._due = True, []
        if not self._due:
            self._heard = []

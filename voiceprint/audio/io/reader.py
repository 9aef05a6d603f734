"""Block-wise reading of audio files: `open_audio`."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from voiceprint._files import open_descriptor
from voiceprint.audio.io import formats, raw, scale
from voiceprint.audio.io.buffers import MAX_CHANNELS, MAX_SECONDS, check_sample_rate, too_long
from voiceprint.audio.io.decoding import Decoder, Plan, plan, plan_raw
from voiceprint.audio.io.encodings import Encoding, check_encoding
from voiceprint.audio.io.excerpt import WHOLE, Excerpt
from voiceprint.audio.io.parts import read_at
from voiceprint.errors import InvalidAudioError

logger = logging.getLogger(__name__)

BLOCK_S: Final = 15.0


class AudioReader:
    """A single pass over the audio of a file; returned by `open_audio`, and a context manager.

    name: of the file, for messages.
    sample_rate: Hz, 8000..48000; channels: 1..8.
    frames: samples per channel by the header, which may be wrong; None if unknown.
    is_16_bit: blocks are int16, as the file's samples fit 16 bits; else float32.
    warnings: faults of the file that did not prevent reading, complete at the end of `blocks`.
    """

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        plan: Plan,
        excerpt: Excerpt = WHOLE,
        longest_s: float = MAX_SECONDS,
    ) -> None:
        self.name, self._longest_s = name, longest_s
        self._file, self._plan, self._excerpt = file, plan, excerpt
        self._gain, self._read = 1.0, 0
        self.warnings: tuple[str, ...] = ()
        self._decoder: Decoder | None = plan.openers[0]()
        self.sample_rate, self.channels = self._decoder.sample_rate, self._decoder.channels
        self.frames = self._decoder.frames if len(plan.openers) == 1 else None
        self.is_16_bit, self._is_float = self._decoder.is_16_bit, self._decoder.is_float
        self._check()

    def _check(self) -> None:
        try:
            check_sample_rate(self.sample_rate)
        except InvalidAudioError as error:
            raise InvalidAudioError(f"cannot be used: {error}") from error
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InvalidAudioError(f"has {self.channels} channels: at most {MAX_CHANNELS} are accepted")
        if self.frames is not None and self.frames > self._longest_s * self.sample_rate:
            self._refuse_length(self.frames)

    def _refuse_length(self, frames: int) -> None:
        raise InvalidAudioError(too_long(frames / self.sample_rate, self._longest_s))

    def blocks(self, seconds: float = BLOCK_S) -> Iterator[npt.NDArray[Any]]:
        """The samples in blocks of at most `seconds`: int16 or float32 [n, channels], n >= 1.

        Of an excerpt, the samples before it are decoded and dropped, and those after it are not read. A file
        of floats over full scale is scaled down; the output of a lossy decoder may overshoot [-1, 1].

        Raises:
            InvalidAudioError: the file is damaged, truncated, empty, longer than an hour, or ends before the
                excerpt does; possibly after some blocks.
        """
        size = max(1, round(seconds * self.sample_rate))
        with named(self.name):
            yield from self._excerpt.cut(self._all_blocks(size), self.sample_rate)

    def _all_blocks(self, size: int) -> Iterator[npt.NDArray[Any]]:
        if self._is_float:
            self._measure(size)
        for place in range(len(self._plan.openers)):
            yield from self._stream(place, size)
        if not self._read:
            raise InvalidAudioError("holds no samples: record it again")
        if self._plan.counted:
            self.warnings += (f"{self._plan.counted}{self._read:,} samples were read",)
        self.warnings += self._plan.warnings
        for warning in self.warnings:
            logger.warning("%s: %s", self.name, warning)

    def _stream(self, place: int, size: int) -> Iterator[npt.NDArray[Any]]:
        decoder, self._decoder = self._decoder or self._plan.openers[place](), None
        try:
            if (decoder.sample_rate, decoder.channels) != (self.sample_rate, self.channels):
                raise InvalidAudioError(
                    f"holds recordings of {self.sample_rate} Hz, {self.channels} channels, and of "
                    f"{decoder.sample_rate} Hz, {decoder.channels} channels: divide it"
                )
            count = 0
            while len(block := decoder.read(size)):
                count += len(block)
                self._read += len(block)
                if self._read > self._longest_s * self.sample_rate:
                    self._refuse_length(self._read)
                yield self._converted(block)
            self._check_count(count, decoder)
            self.warnings += decoder.warnings
        finally:
            decoder.close()

    def _converted(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._gain != 1.0:
            return np.asarray(block * np.float32(self._gain))
        if self.is_16_bit or block.dtype != np.int16:
            return block
        return np.asarray(block.astype(np.float32) / np.float32(32768))  # a joined stream of 16 bits

    def _check_count(self, count: int, decoder: Decoder) -> None:
        if decoder.frames is None or count >= decoder.frames - self._plan.tolerance:
            return
        if self._plan.strict:
            raise InvalidAudioError(
                f"is truncated: {count} of {decoder.frames} samples are there, copy it again"
            )
        self.warnings += (f"the header counts {decoder.frames:,} samples, of which {count:,} were read",)

    def _measure(self, size: int) -> None:
        """Determine the gain of float samples in a first pass: any may exceed full scale."""
        level = scale.Level(0.0, True)
        for opener in self._plan.openers:
            decoder = opener()
            count = 0
            while len(block := decoder.read(size)):
                count += len(block)
                if count > self._longest_s * self.sample_rate:
                    self._refuse_length(count)
                level = scale.combine(level, scale.level(block))
            decoder.close()
        try:
            self._gain = scale.gain(level)
        except InvalidAudioError as error:
            raise InvalidAudioError(f"cannot be used: {error}") from error
        if self._gain != 1.0:
            self.warnings += (scale.over_full_scale(level.peak),)

    def close(self) -> None:
        """Close the file."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_audio(
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
    sample_rate: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> AudioReader:
    """Open an audio file for block-wise reading.

    Args:
        path: a file of 8 to 48 kHz, at most 8 channels and an hour, in any format of libsndfile, or of PyAV
            with the extra `formats`. The content determines the format; the suffix only that of files without
            a header, see `raw.SUFFIXES`.
        encoding: of a file without a header, of any suffix.
        sample_rate: Hz of a file without a header; None means the rate of its suffix, 8000 for G.711; PCM
            requires one.
        start_s, end_s: excerpt to read, in seconds from the start of the file; None is its end.

    Raises:
        InvalidAudioError: the file is missing, unreadable, not a regular file, empty, not audio, truncated,
            or outside the limits of rate, channels or length; or it needs an encoding, a sample rate or the
            extra. The message starts with the path; the cause is chained.
    """
    if encoding is not None:
        check_encoding(encoding)
    excerpt = Excerpt.checked(start_s, end_s)
    try:
        name = Path(os.fspath(path))
    except TypeError as exc:
        raise InvalidAudioError(f"path must be a str or a Path, not {type(path).__name__}") from exc
    with named(str(name)):
        # Not opened by libsndfile, which reports every failure as "System error".
        file = open(name, "rb", opener=_open_without_waiting)  # noqa: SIM115  the reader closes it
        try:
            _check_regular(file)
            return _opened(file, str(name), encoding, sample_rate, excerpt)
        except BaseException:
            file.close()
            raise


def open_stream(
    file: BinaryIO,
    name: str,
    *,
    encoding: Encoding | None = None,
    sample_rate: int | None = None,
    longest_s: float = MAX_SECONDS,
) -> AudioReader:
    """As `open_audio`, for an open seekable file, such as an `io.BytesIO`; the reader closes it.

    name: replaces the path, in messages and for its suffix. longest_s: seconds beyond which the audio is
    refused; no more is decoded.
    """
    if encoding is not None:
        check_encoding(encoding)
    with named(name):
        return _opened(file, name, encoding, sample_rate, longest_s=longest_s)


def _opened(
    file: BinaryIO,
    name: str,
    encoding: Encoding | None,
    sample_rate: int | None,
    excerpt: Excerpt = WHOLE,
    longest_s: float = MAX_SECONDS,
) -> AudioReader:
    head = read_at(file, 0, formats.HEAD_BYTES)
    if not head:
        raise InvalidAudioError("is empty: it holds no audio")
    raw_format = raw.SUFFIXES.get(Path(name).suffix.lower())
    if raw_format is None or formats.file_in_buffer(head):
        found = formats.identify(file)
        if found is not None or (raw_format is None and encoding is None):
            return AudioReader(name, file, plan(file, found), excerpt, longest_s)
    if encoding is not None:
        raw_format = raw.Raw(encoding, raw.TELEPHONE_RATE if encoding in ("mulaw", "alaw") else None)
    assert raw_format is not None  # noqa: S101
    rate = raw_format.sample_rate if sample_rate is None else sample_rate
    if rate is None:
        raise InvalidAudioError("has no header that says its sample rate: give sample_rate (--rate)")
    try:
        return AudioReader(
            name, file, plan_raw(file, raw_format, check_sample_rate(rate)), excerpt, longest_s
        )
    except InvalidAudioError as error:
        raise InvalidAudioError(f"as {raw_format.encoding or raw_format.name}: {error}") from error


@contextmanager
def named(name: str) -> Iterator[None]:
    """Prefix error messages with the name of the file, and convert read errors to `InvalidAudioError`."""
    try:
        yield
    except InvalidAudioError as error:
        raise InvalidAudioError(f"{name} {error}") from (error.__cause__ or error)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or a closed file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidAudioError(f"cannot read {name!r}: {reason}") from error


def _check_regular(file: BinaryIO) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise InvalidAudioError("is not a regular file: give the path of an audio file")


def _open_without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits for a writer, perhaps forever.
    return open_descriptor(path, flags | getattr(os, "O_NONBLOCK", 0))

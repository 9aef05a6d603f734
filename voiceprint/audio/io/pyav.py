"""The decoder of PyAV (FFmpeg's libraries), of the extra `formats`: MP4, WebM, AMR, G.722 and many more.

PyAV is imported on first use: 0.1 s and 18 MB, of 104 MB on disk. The demuxer is forced and reads from the
open file only, so FFmpeg connects to, opens and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.buffers import MAX_SECONDS, too_long
from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

_SLACK_S: Final = 0.5  # tolerance of the length in a header: containers round it to a packet
_MAX_EMPTY_PACKETS: Final = 10_000  # in a row, without audio
_FAILURES: Final = (LookupError, OverflowError, RuntimeError, ValueError)
"""Errors of PyAV in addition to FFmpeg's, such as for a stream that appears within a damaged file."""
_AMR_FRAMES: Final = {
    b"#!AMR\n": (12, 13, 15, 17, 19, 20, 26, 31, 5, 6, 5, 5, 0, 0, 0, 0),
    b"#!AMR-WB\n": (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0),
}
"""Bytes of a frame after its header byte, by frame type (RFC 4867)."""


def available() -> bool:
    """Whether the extra `formats` is installed."""
    try:
        import av  # noqa: F401
    except ImportError:  # it is an extra
        return False
    return True


class AvDecoder:
    """Reads the first audio stream of a file by PyAV.

    Raises:
        InvalidAudioError: on damage, or without a decoder in FFmpeg; also by `read`.
    """

    is_float = False  # overshoots of a lossy codec are no other scale

    def __init__(self, file: BinaryIO, name: str, demuxer: str) -> None:
        import av

        self._name, self._demuxer = name, demuxer
        self.warnings: tuple[str, ...] = ()
        if demuxer == "amr":
            _check_amr(file)
        file.seek(0)
        try:
            self._container: Any = av.open(file, mode="r", format=demuxer, metadata_errors="ignore")
        except (av.FFmpegError, *_FAILURES) as error:
            raise self._damaged(error) from error
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        streams = self._container.streams.audio
        if not streams:
            raise InvalidAudioError(f"is {self._name} without a sound track: give a file with audio")
        if len(streams) > 1:
            self.warnings += (f"the first of {len(streams)} sound tracks was read",)
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise InvalidAudioError(
                f"is {self._name}, of a codec that FFmpeg does not decode: convert it where it was made"
            )
        with suppress(RuntimeError, ValueError):  # if already open
            self._stream.codec_context.thread_count = 1  # threads would cost more than they save
        self._done = 0
        self._blocks = self._decoded()
        self._pending = next(self._blocks, None)
        if self._pending is None:
            raise InvalidAudioError("holds no samples: record it again")
        self._claimed_s = self._claimed()
        if self._claimed_s is not None and self._claimed_s > MAX_SECONDS:
            raise InvalidAudioError(too_long(self._claimed_s))
        # The length in MP4 is exact, although the codec's last packet is longer; in Matroska it is rounded.
        self.frames: int | None = None
        if self._demuxer == "mp4" and self._claimed_s is not None:
            self.frames = round(self._claimed_s * self.sample_rate)
        if self._demuxer == "matroska" and self._claimed_s is None:
            self.warnings += ("its header does not say how long it is",)

    def _claimed(self) -> float | None:
        """Seconds by the header, None if unknown. FFmpeg's estimate from a bit rate does not count."""
        if self._demuxer in ("mp4", "matroska"):
            if self._stream.duration and self._stream.time_base is not None:
                return float(self._stream.duration * self._stream.time_base)
            if self._container.duration:
                return float(self._container.duration) / 1e6
        return None

    def _decoded(self) -> Iterator[npt.NDArray[Any]]:
        import av

        try:
            yield from self._packets()
        except InvalidAudioError:  # a ValueError too
            raise
        except (av.FFmpegError, *_FAILURES) as error:
            raise self._damaged(error) from error

    def _packets(self) -> Iterator[npt.NDArray[Any]]:
        empty = 0
        shape: tuple[int, int, str] | None = None
        for packet in self._container.demux(self._stream):
            empty += 1
            if empty > _MAX_EMPTY_PACKETS:
                raise InvalidAudioError(f"is {self._name} that is damaged: it gives no audio")
            if packet.is_corrupt:
                raise InvalidAudioError(f"is truncated or damaged ({self._name}): copy it again")
            for frame in self._frames(packet):
                current = frame.sample_rate, frame.layout.nb_channels, frame.format.name.rstrip("p")
                if shape is None:
                    shape = current
                    self.sample_rate, self.channels = current[:2]
                    self.is_16_bit = current[2] in ("s16", "u8")
                elif current != shape:
                    raise InvalidAudioError("changes its sample rate or channels: cut it there")
                empty = 0
                yield self._samples(frame)

    def _frames(self, packet: Any) -> list[Any]:
        import av

        try:
            return list(packet.decode())
        except av.FFmpegError:
            # FFmpeg's AMR decoder does not support frames of comfort noise, which mark silence.
            if self._stream.codec_context.name in ("amrnb", "amrwb") and _is_comfort_noise(packet):
                wide = self._stream.codec_context.name == "amrwb"
                return [_silence(av, *((320, 16000) if wide else (160, 8000)))]
            raise

    def _samples(self, frame: Any) -> npt.NDArray[Any]:
        raw = frame.to_ndarray()
        samples = raw.T if frame.format.is_planar else raw.reshape(-1, self.channels)
        if samples.dtype == np.uint8:
            return np.asarray((samples.astype(np.int16) - 128) << 8)
        if samples.dtype == np.int32:
            return np.asarray(samples.astype(np.float32) * np.float32(2.0**-31))
        return np.asarray(samples if samples.dtype == np.int16 else samples.astype(np.float32))

    def read(self, frames: int) -> npt.NDArray[Any]:
        """The next samples, int16 or float32 [n, channels]; n = 0 at the end."""
        if self.frames is not None:
            frames = min(frames, max(0, self.frames - self._done))
        parts, count = [], 0
        while self._pending is not None and count < frames:
            part = self._pending[: frames - count]
            rest = self._pending[len(part) :]
            self._pending = rest if len(rest) else next(self._blocks, None)
            parts.append(part)
            count += len(part)
        self._done += count
        if self._done == self.frames:
            self._check_rest()
        if count < frames and self._claimed_s is not None:
            self._check_whole(self._claimed_s)
        kind = np.int16 if self.is_16_bit else np.float32
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), dtype=kind)

    def _check_whole(self, claimed_s: float) -> None:
        seconds = self._done / self.sample_rate
        if seconds < claimed_s - _SLACK_S:
            raise InvalidAudioError(
                f"is truncated: {seconds:.2f} of {claimed_s:.2f} s are there, copy it again"
            )

    def _check_rest(self) -> None:
        """Warn about audio after the length in the header, beyond the padding of the codec's last packets."""
        rest = 0
        while self._pending is not None and rest <= _SLACK_S * self.sample_rate:
            rest += len(self._pending)
            self._pending = next(self._blocks, None)
        if rest > _SLACK_S * self.sample_rate:
            self.warnings += ("more audio follows than its header says, and was left out",)
        self._pending = None

    def close(self) -> None:
        """Release FFmpeg's resources; the file stays open."""
        self._container.close()

    def _damaged(self, error: Exception) -> InvalidAudioError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return InvalidAudioError(
            f"is {self._name} that cannot be decoded ({reason}): copy it again, or convert it, such as by "
            "ffmpeg -i IN OUT.wav"
        )


def _is_comfort_noise(packet: Any) -> bool:
    head = bytes(packet)[:1]
    return bool(head) and head[0] >> 3 & 15 >= 8


def _silence(av: Any, samples: int, rate: int) -> Any:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.float32), format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame


def _check_amr(file: BinaryIO) -> None:
    """Refuse an AMR file that ends within a frame, which FFmpeg accepts."""
    sizes, at = next(
        (
            (sizes, len(magic))
            for magic, sizes in _AMR_FRAMES.items()
            if read_at(file, 0, len(magic)) == magic
        ),
        ((), 0),
    )
    data, end = read_at(file, 0, 1 << 24) if sizes else b"", size_of(file)  # an hour is 11 MB
    frames = 0
    while sizes and at < len(data):
        at, frames = at + 1 + sizes[data[at] >> 3 & 15], frames + 1
        if frames > MAX_SECONDS * 50:
            raise InvalidAudioError(
                f"lasts more than {MAX_SECONDS} s: cut out a part where the caller speaks"
            )
    if sizes and at > end:
        raise InvalidAudioError("is truncated: its last frame is cut off, copy it again")

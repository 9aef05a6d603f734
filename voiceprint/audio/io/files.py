"""Audio files in: WAV, FLAC, OGG, MP3 and what else libsndfile reads, and files without a header."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, overload

import numpy as np
import numpy.typing as npt

from voiceprint._files import open_descriptor
from voiceprint.audio.io.buffers import (
    MAX_CHANNELS,
    MAX_SECONDS,
    as_pcm,
    check_channel,
    check_sample_rate,
    to_mono,
)
from voiceprint.audio.io.encodings import Encoding, check_encoding
from voiceprint.errors import InvalidAudioError

if TYPE_CHECKING:
    import soundfile

RAW_ENCODINGS: Final[dict[str, Encoding]] = {
    ".raw": "pcm",
    ".pcm": "pcm",
    ".ul": "mulaw",
    ".ulaw": "mulaw",
    ".al": "alaw",
    ".alaw": "alaw",
}
"""The suffixes, in lower case, of files without a header, and what is in them unless it is said."""

_TELEPHONE_RATE: Final = 8000  # Hz: that of G.711
_WIDEST_SAMPLE: Final = 4  # bytes

# A writer that cannot seek back (a pipe) leaves one of these as the size of the data chunk.
_UNKNOWN_SIZES: Final = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
_LONGEST_OGG_PAGE: Final = 27 + 255 + 255 * 255
_OGG_END_OF_STREAM: Final = 4
_UNKNOWN_FRAMES: Final = 1 << 62  # libsndfile gives 2**63 - 1 where a stream does not say its length


# Subtypes of libsndfile whose samples int16 holds to the last bit.
_SMALL_SAMPLES: Final = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW"})


@overload
def load_audio(
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
    sample_rate: int | None = None,
    channel: int | None = None,
    compact: Literal[False] = False,
) -> tuple[npt.NDArray[np.float32], int]: ...
@overload
def load_audio(
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
    sample_rate: int | None = None,
    channel: int | None = None,
    compact: Literal[True],
) -> tuple[npt.NDArray[Any], int]: ...
def load_audio(
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
    sample_rate: int | None = None,
    channel: int | None = None,
    compact: bool = False,
) -> tuple[npt.NDArray[Any], int]:
    """Read a whole audio file.

    Args:
        path: a WAV, FLAC, OGG or MP3 file, of 8 to 48 kHz, at most 8 channels and an hour, of any
            sample width, WAV also with G.711 inside; or a file without a header, of one channel.
        encoding: what is in a file without a header; None goes by its suffix: .ul or .ulaw mu-law,
            .al or .alaw A-law, .raw or .pcm 16-bit PCM, little-endian. Other files say it themselves.
        sample_rate: Hz of a file without a header; None is 8000 for G.711, and not enough for PCM.
        channel: index of the only channel to keep, from 0; None keeps all.
        compact: leave samples of at most 16 bits as int16, which takes half the memory: an hour at
            16 kHz 115 MB.

    Returns:
        The samples, float32[n] (mono, or one channel) or float32[n, channels], integer formats scaled
        to [-1, 1); and the sample rate in Hz. Both fit `to_mono` and `assess`.

    Raises:
        InvalidAudioError: the file is missing, unreadable, a directory, empty, truncated, not audio,
            or of a rate, channel count or length that is not accepted; it has no such channel; or a
            file without a header needs another encoding or a sample rate. Names the path and the
            reason; the cause is chained where there is one.
    """
    if encoding is not None:
        check_encoding(encoding)
    try:
        name = Path(os.fspath(path))
    except TypeError as exc:
        raise InvalidAudioError(f"path must be a str or a Path, not {type(path).__name__}") from exc
    try:
        # Opened here rather than by libsndfile, which reports every failure as "System error".
        with open(name, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidAudioError(f"{name} is not a regular file: give the path of an audio file")
            if not status.st_size:
                raise InvalidAudioError(f"{name} is empty: it holds no audio")
            if name.suffix.lower() in RAW_ENCODINGS:
                return _read_raw(name, file, encoding, sample_rate, channel, compact)
            _check_wav_is_whole(name, file, status.st_size)
            _check_ogg_is_whole(name, file, status.st_size)
            file.seek(0)
            return _decode(name, file, channel, compact)
    except (OSError, ValueError) as exc:
        if isinstance(exc, InvalidAudioError):
            raise
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise InvalidAudioError(f"cannot read {str(name)!r}: {reason}") from exc


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for a writer, perhaps for ever.
    return open_descriptor(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_raw(
    name: Path,
    file: BinaryIO,
    encoding: Encoding | None,
    sample_rate: int | None,
    channel: int | None,
    compact: bool,
) -> tuple[npt.NDArray[Any], int]:
    coding = encoding or RAW_ENCODINGS[name.suffix.lower()]
    if sample_rate is None and coding not in ("mulaw", "alaw"):
        raise InvalidAudioError(f"{name} has no header that says its sample rate: give sample_rate (--rate)")
    try:
        rate = check_sample_rate(_TELEPHONE_RATE if sample_rate is None else sample_rate)
        # One byte more than is accepted, whatever the size of the file.
        data = file.read(MAX_SECONDS * rate * _WIDEST_SAMPLE + 1)
        pcm = as_pcm(data, rate, encoding=coding, channel=channel)
        return (pcm if compact and pcm.dtype == np.int16 else to_mono(pcm, rate, rate)), rate
    except InvalidAudioError as exc:
        raise InvalidAudioError(f"cannot use {name} as {coding}: {exc}") from exc


def _decode(name: Path, file: BinaryIO, channel: int | None, compact: bool) -> tuple[npt.NDArray[Any], int]:
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            try:
                rate = check_sample_rate(sound.samplerate)
            except InvalidAudioError as exc:
                raise InvalidAudioError(f"cannot use {name}: {exc}") from exc
            if sound.channels > MAX_CHANNELS:
                raise InvalidAudioError(
                    f"{name} has {sound.channels} channels: at most {MAX_CHANNELS} are accepted"
                )
            as_int16 = compact and sound.subtype in _SMALL_SAMPLES
            return _read(name, sound, channel, "int16" if as_int16 else "float32"), rate
    # TypeError: soundfile wants a rate where it takes a file to have no header.
    except (soundfile.SoundFileError, RuntimeError, TypeError) as exc:
        # libsndfile's own words, without soundfile's, which show the Python object it was given.
        reason = str(getattr(exc, "error_string", exc)).rstrip(".")
        raise InvalidAudioError(
            f"{name} is damaged or not an audio file that can be read ({reason}): copy it again, "
            "or convert it to WAV, FLAC, OGG or MP3"
        ) from exc


def _read(
    name: Path, sound: soundfile.SoundFile, channel: int | None, dtype: Literal["int16", "float32"]
) -> npt.NDArray[Any]:
    """All samples. By the minute: a damaged header may promise any length, which must not be allocated."""
    if channel is not None:
        try:
            channel = check_channel(channel, sound.channels)
        except InvalidAudioError as exc:
            raise InvalidAudioError(f"cannot use {name}: {exc}") from exc
    # Enlarged in place: joined in the end, the blocks would be there twice.
    samples: npt.NDArray[Any] = np.empty((0,), dtype=dtype)
    frames = 0
    while True:
        block = sound.read(60 * sound.samplerate, dtype=dtype)
        if not len(block):
            break
        if channel is not None and block.ndim == 2:
            block = block[:, channel]
        samples.resize((frames + len(block), *block.shape[1:]), refcheck=False)
        samples[frames:] = block
        frames += len(block)
        if frames > MAX_SECONDS * sound.samplerate:
            raise InvalidAudioError(
                f"{name} lasts more than {MAX_SECONDS} s: cut out a part where the caller speaks"
            )
    if frames < sound.frames < _UNKNOWN_FRAMES:
        raise InvalidAudioError(
            f"{name} is truncated: {frames} of {sound.frames} samples are there, copy it again"
        )
    if not frames:
        raise InvalidAudioError(f"{name} holds no samples: record it again")
    return samples


def _check_wav_is_whole(name: Path, file: BinaryIO, size: int) -> None:
    """Refuse a WAV file that ends before its data chunk does.

    libsndfile silently shortens such a file to what is there, so an upload that was cut off would
    pass as a shorter recording. So it does with OGG; FLAC and MP3 are found out while decoding.
    """
    file.seek(0)
    header = file.read(12)
    if header[:4] == b"RIFF" and header[8:] == b"WAVE":
        position = 12
        while position + 8 <= size:
            file.seek(position)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                there = size - position - 8
                if length > there and length not in _UNKNOWN_SIZES:
                    raise InvalidAudioError(
                        f"{name} is truncated: {there} of {length} bytes of audio are there, copy it again"
                    )
                break
            position += 8 + length + length % 2  # chunks are padded to an even length


def _check_ogg_is_whole(name: Path, file: BinaryIO, size: int) -> None:
    """Refuse an OGG file whose last page is cut off or does not say that it is the last (RFC 3533)."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return
    file.seek(max(0, size - _LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[26] if len(page) > 26 else 0
    length = 27 + segments + sum(page[27 : 27 + segments])
    if len(page) < length or not page[5] & _OGG_END_OF_STREAM:
        raise InvalidAudioError(f"{name} is truncated: the end of its stream is missing, copy it again")

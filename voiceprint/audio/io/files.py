"""Reading of whole audio files: `load_audio`."""

from __future__ import annotations

import os
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.buffers import check_channel
from voiceprint.audio.io.encodings import Encoding
from voiceprint.audio.io.reader import AudioReader, named, open_audio


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
        path: a WAV, FLAC, OGG (Opus, Vorbis) or MP3 file, or of another format of libsndfile, and with the
            extra `formats` MP4, WebM, AMR, G.722 and more; of 8 to 48 kHz, at most 8 channels and an hour.
            Or a file without a header, of one channel.
        encoding: of a file without a header; None means that of its suffix: .ul, .ulaw or .pcmu mu-law, .al,
            .alaw or .pcma A-law, .sln 16-bit PCM at 8 kHz (.sln16 at 16 kHz), .raw or .pcm 16-bit PCM, all
            little-endian; .gsm, .vox. With `encoding`, any suffix is accepted.
        sample_rate: Hz of a file without a header; None means the rate of its suffix, 8000 for G.711; PCM
            requires one.
        channel: index of a single channel to read, from 0; None reads all.
        compact: return samples of at most 16 bits as int16, in half the memory: 115 MB per hour at 16 kHz.

    Returns:
        The samples, float32[n] (mono, or one channel) or float32[n, channels], with integer formats scaled to
        [-1, 1), and floats over full scale scaled down; and the sample rate in Hz, as for `to_mono` and
        `assess`.

    Raises:
        InvalidAudioError: the file is missing, unreadable, a directory, empty, truncated, not audio, or
            outside the limits of rate, channels or length; it lacks the channel; or it needs an encoding, a
            sample rate or the extra. The message starts with the path; the cause is chained.

    Faults that do not prevent reading, such as a header that counts too many samples, are logged as warnings.
    """
    with open_audio(path, encoding=encoding, sample_rate=sample_rate) as reader:
        return read_all(reader, channel=channel, compact=compact), reader.sample_rate


def read_all(reader: AudioReader, *, channel: int | None = None, compact: bool = False) -> npt.NDArray[Any]:
    """All samples of a reader, as by `load_audio`."""
    if channel is not None:
        with named(reader.name):
            channel = check_channel(channel, reader.channels)
    kind = np.int16 if compact and reader.is_16_bit else np.float32
    width = reader.channels if channel is None else 1
    # Resized in place: a final concatenation would double the memory.
    samples: npt.NDArray[Any] = np.empty((0, width) if width > 1 else (0,), dtype=kind)
    for block in reader.blocks():
        part = block if channel is None else block[:, channel : channel + 1]
        frames = len(samples)
        samples.resize((frames + len(part), *samples.shape[1:]), refcheck=False)
        if kind is np.float32 and part.dtype == np.int16:
            np.divide(part.reshape(len(part), *samples.shape[1:]), np.float32(32768), out=samples[frames:])
        else:
            samples[frames:] = part.reshape(len(part), *samples.shape[1:])
    return samples

"""What the commands that take recordings share: their arguments and options, and how files are read."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from numpy.typing import NDArray

from voiceprint.audio import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    MIXED,
    Encoding,
    Recording,
    load_audio,
    mixable,
    to_mono,
)
from voiceprint.audio.io.buffers import MAX_SECONDS
from voiceprint.audio.io.encodings import check_encoding
from voiceprint.audio.io.files import read_all
from voiceprint.audio.io.reader import open_stream
from voiceprint.cli.common import complain
from voiceprint.errors import InvalidAudioError

FILE_HELP = (
    "Audio: WAV, FLAC, OGG, MP3 and the like; with the extra formats MP4, WebM, AMR, G.722; without a header "
    ".sln, .ulaw, .alaw, .gsm, .raw. - is standard input."
)
_STANDARD_INPUT = "standard input"
_MOST_BYTES = MAX_SECONDS * MAX_SAMPLE_RATE * 4
"""Of standard input, which is kept in memory: an hour of 16-bit stereo at 48 kHz, 691 MB."""


def _checked(encoding: str | None) -> str | None:
    # A slip in an option is an error of the command, not of each of its files.
    return None if encoding is None else check_encoding(encoding)


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help=FILE_HELP)]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        callback=_checked,
        metavar="NAME",
        help=f"Of files without a header: {', '.join(get_args(Encoding))}. "
        "Default: by the suffix, such as .ulaw mulaw and .sln pcm_s16le.",
    ),
]
RateOption = Annotated[
    int | None,
    typer.Option(
        "--rate",
        min=MIN_SAMPLE_RATE,
        max=MAX_SAMPLE_RATE,
        metavar="HZ",
        help="Of files without a header. Default: by the suffix, such as 8000 for .ulaw and .sln.",
    ),
]
ChannelOption = Annotated[
    int | None,
    typer.Option(
        "--channel", min=0, metavar="N", help="Channel to use, from 0. Default: all of them, mixed."
    ),
]


def read(
    path: Path, encoding: str | None, rate: int | None, channel: int | None = None
) -> tuple[NDArray[Any], int]:
    """The samples of a file, of one channel or with all, and their rate in Hz."""
    coding = cast(Encoding | None, encoding)
    if str(path) == "-":
        return _standard_input(coding, rate, channel)
    return load_audio(path, encoding=coding, sample_rate=rate, channel=channel, compact=True)


def _standard_input(
    encoding: Encoding | None, rate: int | None, channel: int | None
) -> tuple[NDArray[Any], int]:
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidAudioError(f"{_STANDARD_INPUT} is longer than {_MOST_BYTES:,} bytes: give a file")
    with open_stream(io.BytesIO(data), _STANDARD_INPUT, encoding=encoding, sample_rate=rate) as reader:
        return read_all(reader, channel=channel, compact=True), reader.sample_rate


def opened_recording(path: Path, encoding: str | None, rate: int | None, channel: int | None) -> Recording:
    """The recording in a file."""
    return Recording.open(path, encoding=cast(Encoding | None, encoding), sample_rate=rate, channel=channel)


def mono(path: Path, encoding: str | None, rate: int | None, channel: int | None) -> tuple[NDArray[Any], int]:
    """The chosen channel of a file, or all mixed, with a word to standard error where these differ."""
    audio, sample_rate = read(path, encoding, rate, channel)
    audio, report = mixable(audio, sample_rate)
    if report.differ:
        # Said here with the file's name; the library would say it without.
        complain(f"{path}: {MIXED}")
    if report.cancels:
        complain(f"{path}: the channels cancel each other when mixed: channel {report.use} was used.")
    if audio.ndim == 1:
        return audio, sample_rate
    return to_mono(audio, sample_rate, sample_rate), sample_rate

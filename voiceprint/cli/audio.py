"""What the commands that take recordings share: their arguments and options, and how files are read."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from voiceprint.audio import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Encoding,
    Recording,
)
from voiceprint.audio.io.buffers import MAX_SECONDS
from voiceprint.audio.io.encodings import check_encoding
from voiceprint.audio.io.reader import AudioReader, open_stream
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


def read(path: Path, encoding: str | None, rate: int | None, channel: int | None) -> Recording:
    """The recording in a file, or in standard input ("-"), with the chosen channel, or all mixed.

    What is odd about its channels is said to standard error, with the file's name.
    """
    coding = cast(Encoding | None, encoding)
    if str(path) == "-":
        recording = _standard_input(coding, rate, channel)
    else:
        recording = Recording.open(path, encoding=coding, sample_rate=rate, channel=channel)
    if recording.channels.cancels:
        used = recording.channels.use
        complain(f"{path}: the channels cancel each other when mixed: channel {used} was used.")
    return recording


def _standard_input(encoding: Encoding | None, rate: int | None, channel: int | None) -> Recording:
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidAudioError(f"{_STANDARD_INPUT} is longer than {_MOST_BYTES:,} bytes: give a file")

    def opened() -> AudioReader:
        return open_stream(io.BytesIO(data), _STANDARD_INPUT, encoding=encoding, sample_rate=rate)

    return Recording.read(opened, channel)

"""What the commands that take recordings share: their arguments and options, and how files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from numpy.typing import NDArray

from voiceprint.audio import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    MIXED,
    Encoding,
    load_audio,
    mixable,
    to_mono,
)
from voiceprint.audio.io import raw
from voiceprint.audio.io.encodings import check_encoding
from voiceprint.cli.common import complain

FILE_HELP = f"Audio: WAV, FLAC, OGG or MP3; without a header {', '.join(raw.SUFFIXES)}."


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
        "Default: .ul mulaw, .al alaw, else pcm, 16-bit little-endian.",
    ),
]
RateOption = Annotated[
    int | None,
    typer.Option(
        "--rate",
        min=MIN_SAMPLE_RATE,
        max=MAX_SAMPLE_RATE,
        metavar="HZ",
        help="Of files without a header. Default: 8000 for mulaw and alaw.",
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
    return load_audio(path, encoding=coding, sample_rate=rate, channel=channel, compact=True)


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

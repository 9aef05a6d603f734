"""The common arguments and options of commands on recordings; reading of files; the cache of embeddings."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from voiceprint.audio import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Encoding,
    Recording,
)
from voiceprint.audio.io import folders
from voiceprint.audio.io.buffers import MAX_SECONDS
from voiceprint.audio.io.encodings import check_encoding
from voiceprint.audio.io.reader import AudioReader, open_stream
from voiceprint.cli.common import print_error
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.errors import InvalidArgumentError, InvalidAudioError

if TYPE_CHECKING:
    from voiceprint.evaluation import EmbeddingCache

FILE_HELP = (
    "Audio: WAV, FLAC, OGG, MP3 and the like; with the extra formats MP4, WebM, AMR, G.722; without a header "
    ".sln, .ulaw, .alaw, .gsm, .raw. - is standard input."
)
_STANDARD_INPUT = "standard input"
_MOST_BYTES = MAX_SECONDS * MAX_SAMPLE_RATE * 4
"""Bytes of standard input at most, which is held in memory: an hour of 16-bit stereo at 48 kHz, 691 MB."""


def _checked(encoding: str | None) -> str | None:
    # A wrong encoding is an error of the command, not of each file.
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


CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Cache of embeddings, which are biometric data, readable by you alone. "
        "Default: your cache folder; none when an encryption key is set.",
    ),
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Neither use nor write a cache.")]


def embedding_cache(folder: Path | None, *, no_cache: bool) -> EmbeddingCache | None:
    """The cache of the two options. With an encryption key, none unless a folder is given: it is plain."""
    from voiceprint.evaluation.cache import EmbeddingCache, default_folder
    from voiceprint.privacy.encryption.keys import KeyRing

    if no_cache and folder is not None:
        raise InvalidArgumentError("--cache and --no-cache are opposites: give one of them")
    if no_cache or (folder is None and KeyRing.from_config(chosen_settings()) is not None):
        return None
    try:
        return EmbeddingCache(folder or default_folder())
    except OSError as error:
        print_error(f"Embeddings are not cached: {error.strerror or error}.")
        return None


def caller_folders(folder: Path) -> list[Path]:
    """The folders of callers, DIR/CALLER, sorted. Raises `InvalidArgumentError` if DIR is no folder."""
    if not folder.is_dir():
        raise InvalidArgumentError(f"{str(folder)!r} is not a folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not folders.is_hidden(path))


def read(path: Path, encoding: str | None, rate: int | None, channel: int | None) -> Recording:
    """The recording of a file, or of standard input ("-"); channel: None mixes all.

    Warns on standard error of channels that cancel each other.
    """
    coding = cast(Encoding | None, encoding)
    if str(path) == "-":
        recording = _standard_input(coding, rate, channel)
    else:
        recording = Recording.open(path, encoding=coding, sample_rate=rate, channel=channel)
    if recording.channels.cancels:
        used = recording.channels.use
        print_error(f"{path}: the channels cancel each other when mixed: channel {used} was used.")
    return recording


def _standard_input(encoding: Encoding | None, rate: int | None, channel: int | None) -> Recording:
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidAudioError(f"{_STANDARD_INPUT} is longer than {_MOST_BYTES:,} bytes: give a file")

    def open_data() -> AudioReader:
        return open_stream(io.BytesIO(data), _STANDARD_INPUT, encoding=encoding, sample_rate=rate)

    return Recording.read(open_data, channel)

"""Selection of the decoder for the streams of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, cast

import numpy.typing as npt

from voiceprint.audio.io import flac, headers, mpeg, ogg, pyav, wav
from voiceprint.audio.io.buffers import MAX_SECONDS, too_long
from voiceprint.audio.io.encodings import Encoding
from voiceprint.audio.io.formats import Format
from voiceprint.audio.io.layout import SAMPLE_BYTES, Layout, PcmDecoder
from voiceprint.audio.io.parts import Part, size_of
from voiceprint.audio.io.pyav import AvDecoder
from voiceprint.audio.io.raw import Raw
from voiceprint.audio.io.sndfile import SndfileDecoder
from voiceprint.errors import InvalidAudioError

_CODINGS: Final[dict[Encoding, str]] = {
    "pcm": "s16le", "pcm_u8": "u8", "pcm_s16le": "s16le", "pcm_s24le": "s24le", "pcm_s32le": "s32le",
    "pcm_f32le": "f32le", "mulaw": "mulaw", "alaw": "alaw",
}  # fmt: skip
_GSM_FRAME_BYTES: Final = 33


class Decoder(Protocol):
    """Decodes a stream from its start.

    frames: samples per channel by its header, None if unknown.
    is_16_bit: `read` returns int16, else float32; is_float: the file holds floats of any scale.
    warnings: contradictions between header and content.
    """

    sample_rate: int
    channels: int
    frames: int | None
    is_16_bit: bool
    is_float: bool
    warnings: tuple[str, ...]

    def read(self, frames: int) -> npt.NDArray[Any]:
        """The next samples, [n, channels]; n = 0 at the end. Raises `InvalidAudioError`."""

    def close(self) -> None:
        """Release the decoder's resources; the file stays open."""


class Plan(NamedTuple):
    """The consecutive streams of a file, and the checks on reading.

    strict: fewer samples than `Decoder.frames` are an error (the file is truncated), else a warning.
    tolerance: samples that may be missing in each stream.
    counted: the start of a warning that ends with the number of samples read.
    """

    openers: Sequence[Callable[[], Decoder]]
    warnings: tuple[str, ...] = ()
    strict: bool = True
    tolerance: int = 0
    counted: str | None = None


def plan(file: BinaryIO, found: Format | None) -> Plan:
    """The plan for a file of the format `found`; None: of a format that only libsndfile may recognize.

    Raises:
        InvalidAudioError: the file is not audio, needs the extra `formats`, or is truncated or damaged.
    """
    if found is None:
        return Plan([lambda: _unknown(file)])
    tags = mpeg.after_id3(file)
    if tags:
        file = cast(BinaryIO, Part(file, tags, size_of(file)))
    if found.decoder == "none":
        raise InvalidAudioError(f"is {found.name} and not an audio file: give a recording")
    if found.decoder == "pcm":
        return _pcm(file, found)
    if found.decoder == "mpeg":
        return _mpeg(file, 0, size_of(file))
    if found.decoder == "flac":
        return _flac(file)
    if found.name.startswith("OGG"):
        return _ogg(file, found)
    if found.decoder == "av":
        return Plan([_av(file, found.name, found.demuxer)], strict=False)
    return Plan([lambda: SndfileDecoder(Part(file, 0, size_of(file)))])


def plan_raw(file: BinaryIO, raw: Raw, sample_rate: int) -> Plan:
    """The plan for a file without a header.

    Raises:
        InvalidAudioError: the file has no whole number of samples, or needs the extra `formats`.
    """
    size = size_of(file)
    if raw.demuxer:
        return Plan([_av(file, raw.name, raw.demuxer)], strict=False)
    if raw.subtype:
        if raw.subtype == "GSM610" and size % _GSM_FRAME_BYTES:
            raise InvalidAudioError(
                f"is truncated, or not GSM 06.10: {size} bytes are no whole number of frames of 33 bytes"
            )
        return Plan([lambda: SndfileDecoder(Part(file, 0, size), raw=(sample_rate, raw.subtype))])
    assert raw.encoding  # noqa: S101  every other entry has a codec
    coding = _CODINGS[raw.encoding]
    if size % SAMPLE_BYTES[coding]:
        bits = 8 * SAMPLE_BYTES[coding]
        raise InvalidAudioError(
            f"audio of {size} bytes is not a whole number of samples of {bits} bits: give all of it, "
            "or its encoding"
        )
    layout = Layout(coding, sample_rate, 1, 0, size)
    return Plan([lambda: PcmDecoder(file, layout)])


def _unknown(file: BinaryIO) -> Decoder:
    try:
        return SndfileDecoder(Part(file, 0, size_of(file)))
    except InvalidAudioError as error:
        raise InvalidAudioError(
            "is not an audio file that can be read (no known format begins like this): convert it, such as "
            "by ffmpeg -i IN OUT.wav, or give encoding and sample_rate (--encoding, --rate) if it has no "
            "header"
        ) from error.__cause__


def _pcm(file: BinaryIO, found: Format) -> Plan:
    parsed = wav.parse(file) if found.demuxer in ("wav", "w64") else headers.parse(file)
    if parsed is None:
        return Plan(
            [lambda: _either(Part(file, 0, size_of(file)), f"compressed {found.name}", found.demuxer)]
        )
    if isinstance(parsed, Layout):
        layout = parsed
        return Plan([lambda: PcmDecoder(file, layout)], counted=layout.warning)
    if parsed.tag == wav.MP3:
        return _mpeg(file, parsed.start, parsed.start + parsed.size)._replace(counted=parsed.warning)
    part = Part(file, parsed.start, parsed.start + parsed.size, parsed.header)
    name = f"{found.name}/{parsed.codec}"
    return Plan([lambda: _either(part, name, "wav")], strict=False, counted=parsed.warning)


def _either(part: Part, name: str, demuxer: str) -> Decoder:
    """A decoder of libsndfile, or of PyAV if libsndfile lacks the codec."""
    try:
        return SndfileDecoder(part)
    except InvalidAudioError:  # FFmpeg has more codecs, and its own message for damage
        part.seek(0)
        return _av(cast(BinaryIO, part), name, demuxer)()


def _av(file: BinaryIO, name: str, demuxer: str) -> Callable[[], Decoder]:
    if not pyav.available():
        raise InvalidAudioError(
            f"is {name}: install opusagent-voiceprint[formats] to read it, or convert it, such as by "
            "ffmpeg -i IN OUT.wav"
        )
    return lambda: AvDecoder(file, name, demuxer)


def _mpeg(file: BinaryIO, start: int, stop: int) -> Plan:
    walked = mpeg.walk(file, start, stop, MAX_SECONDS)
    for run in walked.runs:
        if run.claimed is not None and run.claimed > run.frames + 1:
            raise InvalidAudioError(
                f"is truncated: {run.frames} of {run.claimed} MP3 frames are there, copy it again"
            )
    warnings: tuple[str, ...] = ()
    if len(walked.runs) > 1:
        warnings += (f"{len(walked.runs)} MP3 files were joined in it: all of them were read",)
    if walked.skipped:
        warnings += (f"{walked.skipped:,} bytes between its frames are no audio, and were passed over",)
    openers = [_mpeg_opener(file, run) for run in walked.runs]
    # A decoder drops a frame whose bits start in a missing frame, as after a cut.
    return Plan(openers, warnings, tolerance=4 * walked.runs[0].first.samples)


def _mpeg_opener(file: BinaryIO, run: mpeg.Run) -> Callable[[], Decoder]:
    # With a Xing header, libsndfile also subtracts the encoder's padding.
    frames = None if run.counted or run.first.layer != 3 else run.frames * run.first.samples
    return lambda: SndfileDecoder(mpeg.part(file, run), frames=frames)


def _flac(file: BinaryIO) -> Plan:
    streams = flac.walk(file)
    for stream in streams:
        if stream.frames > MAX_SECONDS * max(1, stream.sample_rate):
            raise InvalidAudioError(too_long(stream.frames / max(1, stream.sample_rate)))
    warnings: tuple[str, ...] = ()
    if len(streams) > 1:
        warnings += (f"{len(streams)} FLAC files were joined in it: all of them were read",)
    counted = None
    if any(stream.claimed != stream.frames for stream in streams):
        claimed = streams[0].claimed
        counted = (
            f"the header counts {claimed:,} samples: "
            if claimed
            else "the header does not say how long it is: "
        )
    return Plan([_flac_opener(file, stream) for stream in streams], warnings, counted=counted)


def _flac_opener(file: BinaryIO, stream: flac.Stream) -> Callable[[], Decoder]:
    return lambda: SndfileDecoder(flac.part(file, stream))


def _ogg(file: BinaryIO, found: Format) -> Plan:
    chain = ogg.walk(file)
    warnings: tuple[str, ...] = ()
    if len(chain.links) > 1:
        warnings += (f"{len(chain.links)} streams follow each other in it: all of them were read",)
    if chain.skipped:
        warnings += (f"{chain.skipped:,} bytes between its pages are no audio, and were passed over",)
    if not chain.links[-1].ended:
        warnings += ("its stream has no end: the writer did not finish, or it was cut off between two pages",)
    lost = sum(link.lost for link in chain.links)
    if lost:
        warnings += (f"{lost:,} pages are missing in it",)
    if found.decoder == "av" or chain.multiplexed:
        return Plan([_av(file, found.name, "ogg")], warnings, strict=False)
    openers = [_ogg_opener(file, link) for link in chain.links]
    return Plan(openers, warnings, strict=False)


def _ogg_opener(file: BinaryIO, link: ogg.Link) -> Callable[[], Decoder]:
    return lambda: SndfileDecoder(Part(file, link.start, link.stop))

"""Identification of file formats by content, regardless of the name.

Decoders: "pcm" is this package's own (a header, then samples), "ogg", "flac" and "mpeg" are libsndfile after
a check of the stream, "sndfile" is libsndfile alone, "av" is PyAV, of the extra `formats`.
"""

from __future__ import annotations

import re
from typing import BinaryIO, Final, Literal, NamedTuple

from voiceprint.audio.io import mpeg
from voiceprint.audio.io.parts import read_at, size_of

Decoder = Literal["pcm", "ogg", "flac", "mpeg", "sndfile", "av", "none"]

HEAD_BYTES: Final = 4096
_MAX_BOXES: Final = 100  # of an MP4 file, searched for its codec
_MAX_BOX_BYTES: Final = 1 << 20


class Format(NamedTuple):
    """A format of files.

    name: the usual name, with the codec if that selects the decoder.
    decoder: see the module; "none" for files other than audio.
    demuxer: FFmpeg's name of the container, forced so that FFmpeg never guesses, and never treats a file as a
        playlist of other files or addresses.
    """

    name: str
    decoder: Decoder
    demuxer: str = ""


_WAV: Final = Format("WAV", "pcm", "wav")
_CONTAINERS: Final[tuple[tuple[int, bytes, Format], ...]] = (
    (0, b"RIFF....WAVE", _WAV),
    (0, b"RIFX....WAVE", _WAV._replace(name="WAV (big-endian)")),
    (0, b"(?:RF64|BW64)....WAVE", _WAV._replace(name="RF64")),
    (0, b"riff\x2e\x91\xcf\x11\xa5\xd6\\(\xdb\x04\xc1\0\0", Format("W64", "pcm", "w64")),
    (0, b"FORM....AIF[FC]", Format("AIFF", "pcm", "aiff")),
    (0, rb"\.snd", Format("AU", "pcm", "au")),
    (0, b"dns\\.", Format("AU (little-endian)", "sndfile")),
    (0, b"caff\0\x01", Format("CAF", "pcm", "caf")),
    (0, b"fLaC", Format("FLAC", "flac", "flac")),
    (0, b"OggS", Format("OGG", "ogg", "ogg")),
    (0, b"#!AMR-WB", Format("AMR-WB", "av", "amr")),
    (0, b"#!AMR", Format("AMR", "av", "amr")),
    (0, b"#!iLBC", Format("iLBC", "av", "ilbc")),
    (0, b"#!SILK_V3|\x02#!SILK_V3", Format("SILK", "none")),
    (4, b"ftyp|moov|mdat|styp|moof", Format("MP4", "av", "mp4")),
    (0, b"\x1a\x45\xdf\xa3", Format("Matroska", "av", "matroska")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("WMA", "av", "asf")),
    (0, b"RIFF....AVI ", Format("AVI", "av", "avi")),
    (0, b"FLV\x01", Format("FLV", "av", "flv")),
    (0, b"\x47.{187}\x47.{187}\x47", Format("MPEG transport stream", "av", "mpegts")),
    (0, b"wvpk", Format("WavPack", "av", "wv")),
    (0, b"MAC ", Format("Monkey's Audio", "av", "ape")),
    (0, b"TTA1", Format("True Audio", "av", "tta")),
    (0, b"\x02dss|\x03ds2", Format("DSS (dictation)", "av", "dss")),
    (0, b"\\.RMF|\\.ra\xfd", Format("RealAudio", "av", "rm")),
    (0, b"NIST_1A\n", Format("NIST SPHERE", "sndfile")),
    (0, b"Creative Voice File\x1a", Format("VOC", "sndfile")),
    (0, b"FORM....(?:8SVX|16SV)", Format("SVX", "sndfile")),
    (0, b"2BIT", Format("AVR", "sndfile")),
    (0, b"\x64\xa3[\x01-\x04]\0|\0[\x01-\x04]\xa3\x64", Format("IRCAM", "sndfile")),
    (0, b"PVF1\n", Format("PVF", "sndfile")),
    (0, b" paf|fap ", Format("PAF", "sndfile")),
    (0, b"%PDF", Format("PDF", "none")),
    (0, b"PK\x03\x04", Format("ZIP", "none")),
    (0, b"\x1f\x8b\x08", Format("gzip", "none")),
    (0, b"\x89PNG\r\n", Format("PNG", "none")),
    (0, b"\xff\xd8\xff", Format("JPEG", "none")),
    (0, b"SQLite format 3\0", Format("SQLite", "none")),
    (0, rb"#EXTM3U|\[playlist\]|ffconcat", Format("playlist", "none")),
    (0, rb"<!DOCTYPE|<html|<\?xml|<HTML", Format("HTML or XML", "none")),
)  # fmt: skip
_PATTERNS: Final = [(at, re.compile(pattern, re.DOTALL), found) for at, pattern, found in _CONTAINERS]
_BUFFER_KINDS: Final = re.compile(
    rb"(?:RIFF|RIFX|RF64)....WAVE|FORM....AIF[FC]|OggS\0|fLaC[\0\x80]\0\0\x22|ID3[\x02-\x04].[\0-\xf0][\0-\x7f]{4}"
    rb"|....ftyp|\x1a\x45\xdf\xa3|caff\0\x01|#!AMR",
    re.DOTALL,
)
_OGG_CODECS: Final = {
    b"OpusHead": "Opus", b"\x01vorbis": "Vorbis", b"Speex   ": "Speex", b"\x7fFLAC": "FLAC",
    b"\x80theora": "Theora", b"fishead\0": "Skeleton",
}  # fmt: skip
_MP4_CODECS: Final = {
    b"mp4a": "AAC", b"alac": "ALAC", b"samr": "AMR", b"sawb": "AMR-WB", b"Opus": "Opus", b"ac-3": "AC-3",
    b"ec-3": "E-AC-3", b"fLaC": "FLAC",
}  # fmt: skip
_MATROSKA_CODECS: Final = {
    b"A_OPUS": "Opus", b"A_VORBIS": "Vorbis", b"A_AAC": "AAC", b"A_PCM": "PCM", b"A_MPEG": "MP3",
    b"A_FLAC": "FLAC",
}  # fmt: skip


def identify(file: BinaryIO) -> Format | None:
    """The format of a file, by signatures of at least three bytes or by consecutive frames.

    None for an unknown format, such as a file without a header.
    """
    start = mpeg.after_id3(file)
    head = read_at(file, start, HEAD_BYTES)
    found = by_signature(head)
    if found is None:
        if mpeg.is_adts(file, start):
            return Format("AAC", "av", "aac")
        if start or mpeg.starts(file, start):
            return Format("MP3", "mpeg", "mp3")
        return None
    if found.name == "MP4":
        return _named(found, _codec(_mp4_header(file), _MP4_CODECS))
    if found.name == "Matroska":
        webm = b"webm" in head[:64]
        return _named(found._replace(name="WebM" if webm else "Matroska"), _codec(head, _MATROSKA_CODECS))
    if found.decoder == "ogg":
        codec = _codec(head[:300], _OGG_CODECS)
        other = codec not in ("", "Opus", "Vorbis")
        return _named(found._replace(decoder="av") if other else found, codec)
    return found


def by_signature(head: bytes) -> Format | None:
    """The format by the signature in `head`, the first `HEAD_BYTES` of a file."""
    for at, pattern, found in _PATTERNS:
        if pattern.match(head, at):
            return found
    return None


def file_in_buffer(head: bytes) -> str | None:
    """The format of a file by its first 16 bytes, if unambiguous.

    Distinguishes files from raw samples, in which two or three bytes of a signature may occur by chance.
    """
    if len(head) < 16 or not _BUFFER_KINDS.match(head):
        return None
    if head[:3] == b"ID3":
        return "MP3"
    found = by_signature(head)
    return found.name if found else None


def _named(found: Format, codec: str) -> Format:
    return found._replace(name=f"{found.name}/{codec}") if codec else found


def _codec(data: bytes, codecs: dict[bytes, str]) -> str:
    matches = [(data.index(mark), name) for mark, name in codecs.items() if mark in data]
    return min(matches)[1] if matches else ""


def _mp4_header(file: BinaryIO) -> bytes:
    """The `moov` box, which names the codecs, from anywhere in the file; empty if missing."""
    at, size = 0, size_of(file)
    for _ in range(_MAX_BOXES):
        head = read_at(file, at, 16)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if head[4:8] == b"moov":
            return read_at(file, at, min(length or size, _MAX_BOX_BYTES))
        if length < 8:
            break
        at += length
    return b""

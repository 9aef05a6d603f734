"""Audio files as telephone systems, recorders and pipes write them, made of a sample voice."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

VOICE: Final = Path(__file__).parent.parent / "examples" / "voices" / "amara" / "1.flac"
RATE: Final = 8000


@cache
def voice(rate: int = RATE) -> np.ndarray:
    """int16[n]: the sample voice at `rate`, 5.955 s."""
    import soxr

    samples, own = soundfile.read(VOICE, dtype="float32")
    resampled = soxr.resample(samples, own, rate, quality="HQ")
    made: np.ndarray = np.round(np.clip(resampled, -1, 1) * 32767).astype(np.int16)
    made.flags.writeable = False
    return made


@cache
def written(kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """The voice as libsndfile writes it."""
    file = io.BytesIO()
    # libsndfile does not scale integers that become floats.
    samples = voice(rate) / np.float32(32768) if subtype in ("FLOAT", "DOUBLE") else voice(rate)
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@cache
def encoded(container: str, codec: str, rate: int = RATE) -> bytes:
    """The voice as FFmpeg's libraries write it; needs PyAV."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(rate)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def wav(
    claimed: int | None = None,
    *,
    behind: bytes = b"",
    before: bytes = b"",
    riff: int | None = None,
    data: bytes | None = None,
    fmt: bytes | None = None,
) -> bytes:
    """A WAV file of the voice; claimed: the size of its data chunk, if that is to be another than it has.

    before, behind: chunks, or other bytes, around the data chunk. riff: the size of the whole.
    """
    audio = voice().tobytes() if data is None else data
    head = fmt if fmt is not None else struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    chunk = b"data" + struct.pack("<I", len(audio) if claimed is None else claimed) + audio + behind
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(head)) + head + before + chunk
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def aiff(claimed: int | None = None, frames: int | None = None, compression: bytes = b"") -> bytes:
    """An AIFF file, or with a compression an AIFF-C file of 16-bit samples."""
    samples = voice()
    little = compression == b"sowt"
    audio = samples.tobytes() if little else samples.astype(">i2").tobytes()
    rate = b"\x40\x0b\xfa" + bytes(7)  # 8000 as a float of 80 bits
    common = struct.pack(">hIh", 1, len(samples) if frames is None else frames, 16) + rate
    if compression:
        common += compression + b"\0\0"
    size = len(audio) + 8 if claimed is None else claimed
    body = (b"AIFC" if compression else b"AIFF") + b"COMM" + struct.pack(">I", len(common)) + common
    body += b"SSND" + struct.pack(">III", size, 0, 0) + audio
    return b"FORM" + struct.pack(">I", len(body) & 0xFFFFFFFF) + body


def au(claimed: int) -> bytes:
    """A Sun AU file that claims a size."""
    return b".snd" + struct.pack(">5I", 24, claimed, 3, RATE, 1) + voice().astype(">i2").tobytes()


def caf(claimed: int) -> bytes:
    """A CAF file that claims a size of its data chunk."""
    description = struct.pack(">d4s5I", RATE, b"lpcm", 2, 2, 1, 1, 16)
    audio = b"data" + struct.pack(">q", claimed) + bytes(4) + voice().tobytes()
    return b"caff\0\1\0\0" + b"desc" + struct.pack(">q", 32) + description + audio


def rf64(claimed: int) -> bytes:
    """An RF64 file whose ds64 chunk claims a size."""
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, claimed, claimed, len(voice()), 0)
    whole = wav(0xFFFFFFFF, riff=0xFFFFFFFF)
    return b"RF64" + whole[4:12] + sizes + whole[12:]


def w64(claimed: int) -> bytes:
    """A W64 file whose data chunk claims a size, its own head of 24 bytes counted in."""
    whole = bytearray(written("W64"))
    at = whole.index(b"data\xf3\xac\xd3\x11")
    whole[at + 16 : at + 24] = struct.pack("<Q", claimed)
    return bytes(whole)


def flac_total(data: bytes, total: int) -> bytes:
    """A FLAC file whose header says `total` samples (0: not known) and no checksum."""
    made = bytearray(data)
    made[21:26] = (made[21] >> 4 << 36 | total).to_bytes(5, "big")
    made[26:42] = bytes(16)
    return bytes(made)


def mp3(mode: str = "CONSTANT", *, rate: int = 16000, level: float = 0.5, header: bool = True) -> bytes:
    """An MP3 file; header: with the Xing frame that counts the frames, else as from a pipe."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, 1, format="MP3", bitrate_mode=mode, compression_level=level
    ) as output:
        output.write(voice(rate))
    made = file.getvalue()
    if header:
        return made
    from voiceprint.audio.io import mpeg

    frame = mpeg.frame_at(made, 0)
    assert frame is not None
    assert made[frame.xing_at : frame.xing_at + 4] in (b"Xing", b"Info")
    return made[frame.length :]


def id3(content: bytes) -> bytes:
    """An ID3v2 tag with a picture of these bytes."""
    picture = b"APIC" + struct.pack(">I", len(content)) + bytes(2) + content
    size = len(picture)
    return b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + picture


def mp3_in_wav() -> bytes:
    """MP3 frames in a WAV file."""
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16000, 4000, 1, 0, 12, 1, 2, 576, 1, 1393)
    return wav(data=mp3(header=False), fmt=fmt)


def ogg_pages(data: bytes) -> list[bytes]:
    """The pages of an OGG file."""
    starts = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    return [data[at:stop] for at, stop in zip(starts, [*starts[1:], len(data)], strict=True)]

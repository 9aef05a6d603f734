"""Files without a header: encoding and sample rate by the suffixes of telephone systems."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from voiceprint.audio.io.encodings import Encoding

TELEPHONE_RATE: Final = 8000  # Hz: that of G.711


class Raw(NamedTuple):
    """Encoding and sample rate of a file without a header.

    encoding: of `Encoding`, or "" for a codec of files only.
    sample_rate: Hz; None if the caller must provide it.
    subtype: libsndfile's name of such a codec; demuxer: FFmpeg's.
    """

    encoding: Encoding | Literal[""]
    sample_rate: int | None
    name: str = ""
    subtype: str = ""
    demuxer: str = ""


_MULAW: Final = Raw("mulaw", TELEPHONE_RATE)
_ALAW: Final = Raw("alaw", TELEPHONE_RATE)
_PCM: Final = Raw("pcm", None)


def _signed_linear(kilohertz: str, rate: int) -> dict[str, Raw]:
    return {f".{name}{kilohertz}": Raw("pcm_s16le", rate) for name in ("sln", "slin")}


SUFFIXES: Final[dict[str, Raw]] = {
    ".raw": _PCM,
    ".pcm": _PCM,
    ".s16": Raw("pcm_s16le", None),
    ".s16le": Raw("pcm_s16le", None),
    ".ul": _MULAW,
    ".ulaw": _MULAW,
    ".ulw": _MULAW,
    ".mu": _MULAW,
    ".mulaw": _MULAW,
    ".pcmu": _MULAW,
    ".al": _ALAW,
    ".alaw": _ALAW,
    ".alw": _ALAW,
    ".pcma": _ALAW,
    # Asterisk's signed linear.
    **_signed_linear("", 8000),
    **_signed_linear("8", 8000),
    **_signed_linear("12", 12000),
    **_signed_linear("16", 16000),
    **_signed_linear("24", 24000),
    **_signed_linear("32", 32000),
    **_signed_linear("44", 44100),
    **_signed_linear("48", 48000),
    ".gsm": Raw("", 8000, name="GSM 06.10", subtype="GSM610"),
    ".vox": Raw("", 8000, name="Dialogic ADPCM", subtype="VOX_ADPCM"),
    ".g722": Raw("", 16000, name="G.722", demuxer="g722"),
    ".g729": Raw("", 8000, name="G.729", demuxer="g729"),
    ".g723": Raw("", 8000, name="G.723.1", demuxer="g723_1"),
}
"""Defaults for files without a header by suffix, in lower case."""

"""The origin of a voiceprint: its recording, and the quality of that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from voiceprint.consent import CONTROL_CHARACTER, MAX_TEXT, Provenance

if TYPE_CHECKING:
    from voiceprint.audio import AudioQuality

__all__ = ["provenance_of", "source_of"]


def source_of(file: str) -> str | None:
    """The source of audio from a file: its name; of a longer one than a source may be, the end.

    Control characters, and bytes that are not UTF-8, are escaped. None for a blank name.
    """
    name = os.fsencode(file).decode(errors="backslashreplace")
    shown = CONTROL_CHARACTER.sub(lambda found: f"\\x{ord(found[0]):02x}", name)[-MAX_TEXT:]
    return shown if shown.strip() else None


def provenance_of(
    quality: AudioQuality,
    source: str | None = None,
    *,
    file: str | None = None,
    fingerprints: str | None = None,
) -> Provenance:
    """The provenance of a voiceprint of audio with this quality.

    source: given by the application. file: name of the audio's file, for audio without a source.
    """
    if source is None and file:
        source = source_of(file)
    return Provenance(
        source=source,
        quality=quality.score,
        duration_s=quality.duration_s,
        net_speech_s=quality.net_speech_s,
        fingerprints=fingerprints,
    )

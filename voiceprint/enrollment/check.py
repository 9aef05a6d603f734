"""The check of audio before enrollment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from voiceprint.audio import AudioQuality
from voiceprint.audio.quality.advice import more_speech_s

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

OnSeveralVoices = Literal["refuse", "store", "largest"]
"""The treatment of several voices: an error, or enrollment of the whole recording, or of the voice with the
most speech."""


class EnrollmentCheck(BaseModel):
    """The result of checking audio for enrollment, with advice.

    ready: whether `enroll_caller` accepts the audio.
    more_audio_s: seconds of audio that are missing for enrollment, 0 or more.
    more_speech_s: seconds of further speech (audio without its pauses) that would improve the voiceprint; 0
        or more, also where the audio is ready.
    quality: measured quality, with the turns of each voice where several speak; the audio is not ready then.
    advice: sentences, the most important first; also where the audio is ready but not ideal.
    """

    model_config = ConfigDict(frozen=True)

    ready: bool
    more_audio_s: float
    more_speech_s: float
    quality: AudioQuality
    advice: tuple[str, ...] = ()


def check_quality(
    quality: AudioQuality, config: VoiceFingerprintConfig, on_several_voices: OnSeveralVoices = "refuse"
) -> EnrollmentCheck:
    """Check the quality of a recording against the settings."""
    needed = config.enrollment_duration
    missing = max(needed - quality.duration_s, 0.0)
    short = (
        f"Enrollment needs {needed:g} s of audio, and this is {quality.duration_s:.2f} s: record "
        f"{max(missing, 0.1):.1f} s more, or set VOICE_ENROLLMENT_DURATION."
    )
    return EnrollmentCheck(
        ready=not missing
        and quality.score >= config.min_audio_quality
        and ("several_voices" not in quality.feedback or on_several_voices == "store"),
        more_audio_s=missing,
        more_speech_s=more_speech_s(quality),
        quality=quality,
        advice=(short, *quality.advice) if missing else quality.advice,
    )

"""What to do about audio that is not as good as it could be, in words for whoever records it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from voiceprint.audio.quality import score_curves
from voiceprint.audio.quality.score_curves import interpolate, saturation

if TYPE_CHECKING:
    from voiceprint.audio.quality.score import AudioQuality

_WORTH_SAYING: Final = 0.95  # a factor over it costs next to nothing
_NARROWBAND_HZ: Final = 4000.0


def advise(quality: AudioQuality) -> tuple[str, ...]:
    """Sentences that say what was measured and what to do, what costs most of the score first.

    Also what is good enough but could be better is told of, so there can be advice without feedback.
    """
    found = [
        (interpolate(quality.snr_db, score_curves.SNR_DB), _noisy(quality)),
        (interpolate(quality.clipping, score_curves.CLIPPING), _clipped(quality)),
        (interpolate(quality.level_dbfs, score_curves.LEVEL_DBFS), _quiet(quality)),
    ]
    first = []
    if "no_speech" in quality.feedback:
        first.append(_no_speech(quality))
    else:
        found.append((interpolate(quality.net_speech_s, score_curves.NET_SPEECH_S), _short(quality)))
        if quality.bandwidth_hz <= _NARROWBAND_HZ:
            found.append((interpolate(quality.bandwidth_hz, score_curves.BANDWIDTH_HZ), _narrow(quality)))
    if "channels_differ" in quality.feedback:
        first.append(_mixed())
    if "channels_cancel" in quality.feedback:
        first.append(_cancelled(quality))
    if "interleaved" in quality.feedback:
        first.append(_interleaved())
    costly = sorted((one for one in found if one[0] < _WORTH_SAYING), key=lambda one: one[0])
    if not first and not costly and quality.speechlike < _WORTH_SAYING:  # which short or noisy speech is too
        first.append(_unlike_speech())
    return (*first, *(sentence for _, sentence in costly))


def more_speech_s(quality: AudioQuality) -> float:
    """Seconds of speech that are missing for the best score, >= 0."""
    return max(saturation(score_curves.NET_SPEECH_S) - quality.net_speech_s, 0.0)


def _no_speech(quality: AudioQuality) -> str:
    if quality.duration_s < 1.0:
        return f"{quality.duration_s:.1f} s are too short to find speech in: record 3 s or more."
    return (
        "No speech was found, or hardly any: see that the caller's channel is recorded, and that it is a "
        "voice; music, tones and noise do not count."
    )


def _mixed() -> str:
    return "The channels hold different sounds and were mixed: choose the caller's with `channel`."


def _cancelled(quality: AudioQuality) -> str:
    used = f"channel {quality.channel} was used" if quality.channel is not None else "one of them was used"
    return f"The channels are inverted copies and cancel each other when mixed: {used}."


def _interleaved() -> str:
    return "Two channels stand interleaved in what was given as mono, and were split: give channels=2."


def _short(quality: AudioQuality) -> str:
    return (
        f"{quality.net_speech_s:.1f} s of speech: {max(more_speech_s(quality), 0.1):.1f} s more make "
        f"{saturation(score_curves.NET_SPEECH_S):.0f} s, which is good."
    )


def _noisy(quality: AudioQuality) -> str:
    return (
        f"Noisy: the speech is {quality.snr_db:.0f} dB over the noise; "
        f"{saturation(score_curves.SNR_DB):.0f} dB are good. Speak nearer to the microphone, or where it is "
        "quieter."
    )


def _clipped(quality: AudioQuality) -> str:
    return (
        f"Clipped: {100 * quality.clipping:.1f} % of the speech is cut off: lower the gain of the recording; "
        "making it quieter afterwards does not help."
    )


def _quiet(quality: AudioQuality) -> str:
    more = saturation(score_curves.LEVEL_DBFS) - quality.level_dbfs
    return (
        f"Quiet: the speech is at {quality.level_dbfs:.0f} dBFS: raise the gain of the recording by "
        f"{max(more, 1.0):.0f} dB or more."
    )


def _unlike_speech() -> str:
    return "It does not sound like one voice alone: record the caller without others, music or tones."


def _narrow(quality: AudioQuality) -> str:
    return (
        f"Nothing is heard over {quality.bandwidth_hz / 1000:.1f} kHz, as on a telephone line: a recording "
        "at 16 kHz tells voices apart better, where there is one."
    )

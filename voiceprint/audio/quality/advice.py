"""Sentences for the person who records: faults of the audio, and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from voiceprint.audio.quality import score_curves
from voiceprint.audio.quality.score_curves import interpolate, saturation

if TYPE_CHECKING:
    from voiceprint.audio.quality.model import AudioQuality
    from voiceprint.audio.speech.segmenter import Segment

LEAST_NOISE_S: Final = 1.0
"""Seconds of noise without speech worth a remark: any tone has less noise around it."""

_NEGLIGIBLE: Final = 0.95  # factors above cost next to nothing
_NARROWBAND_HZ: Final = 4000.0


def advise(quality: AudioQuality, segments: Sequence[Segment] = ()) -> tuple[str, ...]:
    """Sentences with the measures and remedies, the most costly fault first, then excluded sounds.

    Audio that is good enough but improvable also gets a sentence, so advice may come without feedback.
    """
    faults = [
        (interpolate(quality.snr_db, score_curves.SNR_DB), _noisy(quality)),
        (interpolate(quality.clipping, score_curves.CLIPPING), _clipped(quality)),
        (interpolate(quality.level_dbfs, score_curves.LEVEL_DBFS), _quiet(quality)),
    ]
    first = []
    if "no_speech" in quality.feedback:
        first.append(_no_speech(quality, segments))
        if not quality.net_speech_s:  # nothing else was measured on a voice
            return tuple(first)
    else:
        faults.append((interpolate(quality.net_speech_s, score_curves.NET_SPEECH_S), _short(quality)))
        if quality.bandwidth_hz <= _NARROWBAND_HZ:
            faults.append((interpolate(quality.bandwidth_hz, score_curves.BANDWIDTH_HZ), _narrow(quality)))
    if "channels_differ" in quality.feedback:
        first.append(_mixed())
    if "channels_cancel" in quality.feedback:
        first.append(_cancelled(quality))
    if "interleaved" in quality.feedback:
        first.append(_interleaved())
    if "several_voices" in quality.feedback:
        first.append(several_voices(quality))
    costly = sorted((fault for fault in faults if fault[0] < _NEGLIGIBLE), key=lambda fault: fault[0])
    if not first and not costly and quality.speechlike < _NEGLIGIBLE:  # so is short or noisy speech
        first.append(_unlike_speech())
    if "hum" in quality.feedback:
        costly.append((1.0, "A DC offset or the hum of the mains was filtered out: see to the equipment."))
    excluded = () if "no_speech" in quality.feedback else _excluded(quality, segments)
    return (*first, *(sentence for _, sentence in costly), *excluded)


def more_speech_s(quality: AudioQuality) -> float:
    """Seconds of speech missing for the best score, >= 0."""
    return max(saturation(score_curves.NET_SPEECH_S) - quality.net_speech_s, 0.0)


def _no_speech(quality: AudioQuality, segments: Sequence[Segment]) -> str:
    if quality.duration_s < 1.0:
        return f"{quality.duration_s:.1f} s are too short to find speech in: record 3 s or more."
    seconds = {"tones": quality.tones_s, "music": quality.music_s, "noise": quality.noise_s}
    seconds |= {"silence": quality.silence_s, "known prompts": quality.prompts_s}
    longest = max(seconds, key=lambda kind: seconds[kind])
    if seconds[longest] > quality.duration_s / 2:
        sound = _tones(segments) if longest == "tones" else longest
        reason = f"most of this is {sound} ({seconds[longest]:.0f} of {quality.duration_s:.0f} s)"
    else:
        reason = "music, tones and noise do not count"
    return (
        "No speech was found, or hardly any: see that the caller's channel is recorded, and that it is a "
        f"voice; {reason}."
    )


def _excluded(quality: AudioQuality, segments: Sequence[Segment]) -> tuple[str, ...]:
    """The kinds of sound beside the speech, with their seconds."""
    sentences = []
    if quality.tones_s:
        tones = _tones(segments)
        verb = "was" if tones.startswith("a ") else "were"
        sentences.append(f"{tones[0].upper()}{tones[1:]} ({quality.tones_s:.1f} s) {verb} left out.")
    if quality.music_s > quality.duration_s / 2:
        sentences.append(
            f"Most of this is music ({quality.music_s:.0f} of {quality.duration_s:.0f} s), and was left out: "
            "see that the caller is not on hold."
        )
    elif quality.music_s:
        sentences.append(f"Music ({quality.music_s:.1f} s) was left out.")
    if quality.noise_s >= LEAST_NOISE_S:
        sentences.append(f"Noise without speech ({quality.noise_s:.1f} s) was left out.")
    if quality.prompts_s:
        sentences.append(f"A known prompt ({quality.prompts_s:.1f} s) was left out.")
    return tuple(sentences)


def _tones(segments: Sequence[Segment]) -> str:
    """The tones by their strongest frequencies, the longest three."""
    lengths: dict[int, int] = {}
    for segment in segments:
        if segment.kind == "tone" and segment.frequency_hz is not None:
            frequency = round(segment.frequency_hz)
            near = next((hz for hz in lengths if abs(hz - frequency) <= 20), frequency)
            lengths[near] = lengths.get(near, 0) + segment.stop - segment.start
    if not lengths:
        return "tones"
    longest = sorted(lengths, key=lambda hz: -lengths[hz])
    if len(longest) == 1:
        return f"a tone of {longest[0]} Hz"
    listed = ", ".join(map(str, sorted(longest[:3])))
    return f"tones of {listed} Hz" if len(longest) <= 3 else f"tones of {listed} Hz and others"


def _mixed() -> str:
    return "The channels hold different sounds and were mixed: choose the caller's with `channel`."


def _cancelled(quality: AudioQuality) -> str:
    used = f"channel {quality.channel} was used" if quality.channel is not None else "one of them was used"
    return f"The channels are inverted copies and cancel each other when mixed: {used}."


def _interleaved() -> str:
    return "Two channels are interleaved in audio declared as mono, and were split: give channels=2."


def several_voices(quality: AudioQuality) -> str:
    """The advice for several voices."""
    first = ", ".join(f"{turns[0].start_s:.1f} s" for turns in quality.voices)
    return (
        f"{len(quality.voices)} voices speak, first at {first}: record the caller alone, or have the "
        "voices separated."
    )


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
        f"No sound lies above {quality.bandwidth_hz / 1000:.1f} kHz, as on a telephone line: a recording "
        "at 16 kHz tells voices apart better, where there is one."
    )

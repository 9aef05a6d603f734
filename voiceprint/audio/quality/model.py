"""`AudioQuality`: what was measured on a recording, and what to do about it. Plain data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Feedback = Literal[
    "no_speech",
    "channels_differ",
    "channels_cancel",
    "interleaved",
    "several_voices",
    "too_short",
    "too_quiet",
    "clipped",
    "noisy",
    "narrowband",
    "hum",
    "tones",
    "music",
    "noise",
    "prompt",
]
"""What is wrong with the audio, or worth a remark; see `AudioQuality`."""


class Turn(BaseModel):
    """A stretch of a recording in which one voice speaks: seconds from the beginning."""

    model_config = ConfigDict(frozen=True)

    start_s: float = Field(ge=0.0)
    stop_s: float = Field(ge=0.0)


class AudioQuality(BaseModel):
    """The measures of `assess`. All numbers are finite.

    All but `duration_s` is that of the parts that hold speech: tones, music, and stretches of noise or
    silence of two seconds and more were found first, and left out. Where no part holds speech, it is that of
    all.

    Attributes:
        score: 0..1, the product of the factors listed at `assess`; 0.6 is the usual limit.
        duration_s: of the buffer.
        net_speech_s: seconds of speech that the encoder will see, without pauses (by WebRTC's VAD).
        snr_db: speech over noise floor, dB, -20..60.
        clipping: share of the speech samples that are cut off flat, 0..1, also when the level was
            changed or noise added afterwards; later filtering hides all but the hardest.
        level_dbfs: RMS of the speech relative to full scale, -120..0 dB.
        bandwidth_hz: the highest frequency that carries anything, 0..8000 Hz.
        speechlike: how much it sounds like one voice that speaks, 0..1; a factor of the score.
        channel: index of the channel that was used in place of a mix that cancels; else None.
        tones_s, music_s, noise_s, silence_s, prompts_s: seconds of each that were found and left out.
        voices: of each voice, in the order in which they speak first, its turns; empty unless several were
            found.
        feedback: what to improve, in short and stable words for programs, the gravest first:
            no_speech: it does not sound like speech, or less than 0.3 s of it does;
            channels_differ: the channels, which were mixed, hold different sounds; on a call, two
                voices: choose one with `channel` (not in the score; see `voiceprint.audio.quality.channels`);
            channels_cancel: the channels are inverted copies and would cancel each other when mixed: one of
                them, `channel`, was used (a remark, not a fault);
            interleaved: two channels were given as one, samples or frames of each in turn, and were split;
                give `channels=2` (a remark);
            several_voices: more than one voice speaks (not in the score). `assess` does not look for it:
                enrollment and matching do, and `voices` says who speaks when;
            too_short: less than 1 s of net speech;
            too_quiet: the speech is under -60 dBFS;
            clipped: over 1 % of the speech is cut off;
            noisy: the SNR is under 12 dB;
            narrowband: nothing over 4 kHz, as on a telephone line (a remark, not a fault);
            hum: a DC offset or the hum of the mains was filtered out;
            tones, music, noise: were left out (all remarks as well);
            prompt: a known prompt (`VOICE_PROMPTS`) was left out (a remark).
        advice: sentences that say what to do next, what costs most of the score first; also of what is good
            enough and could be better, and of what was left out. Their wording may change.
    """

    model_config = ConfigDict(frozen=True)

    score: float = Field(ge=0.0, le=1.0)
    duration_s: float = Field(ge=0.0)
    net_speech_s: float = Field(ge=0.0)
    snr_db: float
    clipping: float = Field(ge=0.0, le=1.0)
    level_dbfs: float
    bandwidth_hz: float = Field(ge=0.0)
    speechlike: float = Field(default=1.0, ge=0.0, le=1.0)
    channel: int | None = Field(default=None, ge=0)
    tones_s: float = Field(default=0.0, ge=0.0)
    music_s: float = Field(default=0.0, ge=0.0)
    noise_s: float = Field(default=0.0, ge=0.0)
    silence_s: float = Field(default=0.0, ge=0.0)
    prompts_s: float = Field(default=0.0, ge=0.0)
    voices: tuple[tuple[Turn, ...], ...] = ()
    feedback: tuple[Feedback, ...] = ()
    advice: tuple[str, ...] = ()

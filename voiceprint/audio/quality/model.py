"""`AudioQuality`: the measures of a recording, and advice. Plain data."""

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
"""A fault of the audio, or a remark; see `AudioQuality`."""


class Turn(BaseModel):
    """A stretch of a recording in which one voice speaks, in seconds from the start."""

    model_config = ConfigDict(frozen=True)

    start_s: float = Field(ge=0.0)
    stop_s: float = Field(ge=0.0)


class AudioQuality(BaseModel):
    """The measures of `assess`. All numbers are finite.

    All measures but `duration_s` cover the speech segments only: tones, music, and noise or silence of at
    least two seconds are excluded. Without any speech segment, they cover all audio.

    Attributes:
        score: 0..1, the product of the factors listed at `measure_quality`; 0.6 is the usual limit.
        duration_s: of the buffer.
        net_speech_s: seconds of speech for the encoder, without pauses (by WebRTC's VAD).
        snr_db: speech over noise floor, dB, -20..60.
        clipping: share of clipped speech samples, 0..1, also after a change of level or added noise; later
            filtering hides all but the hardest clipping.
        level_dbfs: RMS of the speech relative to full scale, -120..0 dB.
        bandwidth_hz: the highest frequency with signal, 0..8000 Hz.
        speechlike: similarity to a single speaking voice, 0..1; a factor of the score.
        channel: index of the channel that replaces a mix that cancels; else None.
        tones_s, music_s, noise_s, silence_s, prompts_s: excluded seconds of each kind.
        voices: the turns of each voice, in order of first speech; empty for a single voice.
        feedback: faults and remarks as stable codes for programs, the gravest first:
            no_speech: the audio is not like speech, or has less than 0.3 s of it;
            channels_differ: the channels, which were mixed, hold different sounds; on a call, two
                voices: choose one with `channel` (not in the score; see `voiceprint.audio.quality.channels`);
            channels_cancel: the channels are inverted copies that would cancel each other in a mix; `channel`
                is used instead (a remark, not a fault);
            interleaved: two channels were declared as one, samples or frames in turn, and were split; give
                `channels=2` (a remark);
            several_voices: more than one voice speaks (not in the score); set by enrollment and matching with
                `voices`, not by `assess`;
            too_short: less than 1 s of net speech;
            too_quiet: the speech is below -60 dBFS;
            clipped: over 1 % of the speech is clipped;
            noisy: the SNR is below 12 dB;
            narrowband: no signal over 4 kHz, as on a telephone line (a remark, not a fault);
            hum: a DC offset or the hum of the mains was filtered out;
            tones, music, noise: were excluded (remarks);
            prompt: a known prompt (`VOICE_PROMPTS`) was excluded (a remark).
        advice: sentences on the next steps, the most costly fault first, then possible improvements and
            excluded sounds. Their wording may change.
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

"""How good is this audio for telling who speaks: one score, what it was made of, and what to improve."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, computed_field

from voiceprint.audio import vad
from voiceprint.audio.io import buffers
from voiceprint.audio.io.encodings import AudioBuffer, Encoding
from voiceprint.audio.io.mono import samples
from voiceprint.audio.quality import score_curves, spectrum
from voiceprint.audio.quality.advice import advise
from voiceprint.audio.quality.channels import ChannelReport, mixable
from voiceprint.audio.quality.clipping import crowded_tops, flat_tops
from voiceprint.audio.quality.score_curves import interpolate

Feedback = Literal[
    "no_speech",
    "channels_differ",
    "channels_cancel",
    "interleaved",
    "too_short",
    "too_quiet",
    "clipped",
    "noisy",
    "narrowband",
]
"""What is wrong with the audio; see `AudioQuality`."""

_QUIETEST_DBFS: Final = -120.0  # what digital silence reports: JSON has no infinity


class AudioQuality(BaseModel):
    """What `assess` measured. All numbers are finite.

    Attributes:
        score: 0..1, the product of the factors listed at `assess`; 0.6 is the usual limit.
        duration_s: of the buffer.
        net_speech_s: what the encoder will see: the buffer without its pauses, by WebRTC's VAD. The
            VAD takes many other sounds for speech; `score` is what tells them apart.
        snr_db: speech over noise floor, dB, -20..60.
        clipping: share of the speech samples that are cut off flat, 0..1, also when the level was
            changed or noise added afterwards; later filtering hides all but the hardest.
        level_dbfs: RMS of the speech relative to full scale, -120..0 dB.
        bandwidth_hz: the highest frequency that carries anything, 0..8000 Hz.
        channel: index of the channel that was used in place of a mix that cancels; else None.
        speechlike: how much it sounds like one voice that speaks, 0..1; a factor of the score.
        feedback: what to improve, in short and stable words for programs, the gravest first:
            no_speech: it does not sound like speech, or less than 0.3 s of it does;
            channels_differ: the channels, which were mixed, hold different sounds; on a call, two
                voices: choose one with `channel` (not in the score; see `voiceprint.audio.quality.channels`);
            channels_cancel: the channels are inverted copies and would cancel each other when mixed: one of
                them, `channel`, was used (a remark, not a fault);
            interleaved: two channels were given as one, samples or frames of each in turn, and were split;
                give `channels=2` (a remark);
            too_short: less than 1 s of net speech;
            too_quiet: the speech is under -60 dBFS;
            clipped: over 1 % of the speech is cut off;
            noisy: the SNR is under 12 dB;
            narrowband: nothing over 4 kHz, as on a telephone line (a remark, not a fault).
        advice: sentences that say what to do next, what costs most of the score first; also of what is good
            enough and could be better. Their wording may change.
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
    feedback: tuple[Feedback, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next."""
        return advise(self)


def assess(
    audio_buffer: AudioBuffer,
    *,
    sample_rate: int = buffers.SAMPLE_RATE,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: ChannelReport | None = None,
) -> AudioQuality:
    """Measure how well the audio serves speaker recognition.

    The score is a product of factors in 0..1, each linear between the points given:

        speech      the least of: variety 3.2..4.4 dB, spread 0.33..0.40, modulation 2.5..4.5 dB,
                    steadiness 0.26..0.12 (see `voiceprint.audio.quality.spectrum`)
        net speech  0 at 0.3 s, 0.75 at 1 s, 1 from 3 s
        SNR         0 at 6 dB, 0.6 at 12 dB, 1 from 16 dB
        clipping    1 to 0.5 %, 0 from 2.5 % of the speech
        level       0 at -66 dBFS, 1 from -56 dBFS
        bandwidth   0.3 to 1 kHz, 0.9 at 3 kHz, 1 from 7 kHz

    Args:
        audio_buffer: anything that `to_mono` takes, from one sample to an hour.
        sample_rate: of the buffer, Hz in 8000..48000.
        encoding, channel: as for `to_mono`.
        channels: what `mixable` found of a buffer that it gave; None asks it.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel cannot be used.
    """
    pcm = buffers.as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
    rate = buffers.check_sample_rate(sample_rate)
    if channels is None:
        pcm, channels = mixable(pcm, rate)
    # Clipping is looked for at the buffer's own rate: resampling rounds the flat tops off.
    audio = samples(pcm, rate, rate)
    duration_s, flat = len(audio) / rate, flat_tops(audio, rate)
    if rate != buffers.SAMPLE_RATE:
        if isinstance(audio, np.ndarray):
            audio = buffers.resample(audio, rate, buffers.SAMPLE_RATE)
        else:
            audio = samples(pcm, rate)
    measures = spectrum.measure(audio)
    bandwidth_hz = min(measures.bandwidth_hz, rate / 2)
    kept = vad.speech_windows(vad.voice_flags(audio))
    net_speech_s = float(kept.sum()) * vad.WINDOW / buffers.SAMPLE_RATE
    speech = vad.KeptSpeech(audio, kept)
    level_dbfs = _level(speech)
    clipping = min(max(flat * len(audio) / len(speech), crowded_tops(speech)), 1.0)
    speechlike = min(
        interpolate(measures.variety, score_curves.VARIETY_DB),
        interpolate(measures.spread, score_curves.SPREAD),
        interpolate(measures.modulation, score_curves.MODULATION_DB),
        interpolate(measures.steadiness, score_curves.STEADINESS),
    )
    score = (
        speechlike
        * interpolate(net_speech_s, score_curves.NET_SPEECH_S)
        * interpolate(measures.snr_db, score_curves.SNR_DB)
        * interpolate(clipping, score_curves.CLIPPING)
        * interpolate(level_dbfs, score_curves.LEVEL_DBFS)
        * interpolate(bandwidth_hz, score_curves.BANDWIDTH_HZ)
    )
    findings: tuple[tuple[Feedback, bool], ...] = (
        ("no_speech", speechlike < 0.6 or net_speech_s <= 0.3),
        ("channels_differ", channels.differ),
        ("channels_cancel", channels.cancels),
        ("interleaved", channels.interleaved is not None),
        ("too_short", net_speech_s < 1.0),
        ("too_quiet", level_dbfs < -60.0),
        ("clipped", clipping > 0.01),
        ("noisy", measures.snr_db < 12.0),
        ("narrowband", bandwidth_hz <= 4000.0),
    )
    return AudioQuality(
        score=score,
        duration_s=duration_s,
        net_speech_s=net_speech_s,
        snr_db=measures.snr_db,
        clipping=clipping,
        level_dbfs=level_dbfs,
        bandwidth_hz=bandwidth_hz,
        speechlike=speechlike,
        channel=channels.use,
        feedback=tuple(code for code, found in findings if found),
    )


def _level(speech: vad.KeptSpeech) -> float:
    """RMS around the mean (a constant offset is not sound), dBFS."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in speech.blocks()) / len(speech)
    power = sum(
        float(np.square(np.subtract(block, mean, dtype=np.float64)).sum()) for block in speech.blocks()
    )
    rms = math.sqrt(power / len(speech))
    return max(_QUIETEST_DBFS, 20.0 * math.log10(rms)) if rms > 0 else _QUIETEST_DBFS

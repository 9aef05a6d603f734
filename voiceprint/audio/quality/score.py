"""The quality score of audio for speaker recognition, and the measures behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, get_args

import numpy as np

from voiceprint.audio.io import buffers
from voiceprint.audio.io.lazy_audio import Samples, Spliced, blocks
from voiceprint.audio.quality import score_curves, spectrum
from voiceprint.audio.quality.advice import LEAST_NOISE_S, advise
from voiceprint.audio.quality.channels import ChannelReport
from voiceprint.audio.quality.clipping import amplitude_crowding, flat_tops
from voiceprint.audio.quality.model import AudioQuality, Feedback, Turn
from voiceprint.audio.quality.score_curves import interpolate
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.segmenter import Kind, Segment, speech_parts
from voiceprint.audio.speech.spectrogram import ROW, Rows
from voiceprint.audio.speech.trimming import TrimmedSpeech

_SILENCE_DBFS: Final = -120.0  # the level of digital silence: JSON has no infinity


def measure_quality(
    native: Samples,
    sample_rate: int,
    *,
    segments: Sequence[Segment],
    rows: Rows,
    speech: TrimmedSpeech,
    channels: ChannelReport,
    filtered: bool = False,
) -> AudioQuality:
    """Measure a recording whose segments are known.

    The score is a product of factors in 0..1, each piecewise linear between the points listed:

        speech      the lowest of: spectral variation 3.2..4.4 dB, band occupancy 0.30..0.37, modulation
                    2.5..4.5 dB, harmonic stationarity 0.26..0.12 (see `voiceprint.audio.quality.spectrum`)
        net speech  0 at 0.3 s, 0.75 at 1 s, 1 from 3 s
        SNR         0 at 6 dB, 0.6 at 12 dB, 1 from 16 dB
        clipping    1 to 0.5 %, 0 from 2.5 % of the speech
        level       0 at -72 dBFS, 1 from -62 dBFS
        bandwidth   0.3 to 1 kHz, 0.9 at 3 kHz, 1 from 7 kHz

    Args:
        native: float32[n] mono at its own rate, `sample_rate`: resampling rounds flat tops off.
        segments, rows: of a `Segmenter` over the audio at 16 kHz.
        speech: of the speech segments; of all audio without any.
        channels: the comparison of the recording's channels.
        filtered: whether a DC offset or hum was filtered out of `speech`.
    """
    parts = speech_parts(segments)
    length = segments[-1].stop if segments else 0
    if parts and parts != ((0, length),):
        ratio = sample_rate / buffers.SAMPLE_RATE
        spoken: Samples = Spliced(
            native, [(round(start * ratio), min(round(stop * ratio), len(native))) for start, stop in parts]
        )
        rows = _select_rows(rows, parts)
    else:
        spoken = native
    measures = spectrum.measure(rows)
    bandwidth_hz = min(measures.bandwidth_hz, sample_rate / 2)
    net_speech_s = speech.seconds if parts else 0.0
    measured_samples = len(speech) or len(speech.audio)
    level_dbfs = _level_dbfs(speech, measured_samples)
    duration_ratio = len(spoken) / sample_rate / (measured_samples / buffers.SAMPLE_RATE)
    clipping = min(
        max(flat_tops(spoken, sample_rate) * duration_ratio, amplitude_crowding(speech, measured_samples)),
        1.0,
    )
    speechlike = min(
        interpolate(measures.spectral_variation_db, score_curves.SPECTRAL_VARIATION_DB),
        interpolate(measures.band_occupancy, score_curves.BAND_OCCUPANCY),
        interpolate(measures.modulation_db, score_curves.MODULATION_DB),
        interpolate(measures.harmonic_stationarity, score_curves.HARMONIC_STATIONARITY),
    )
    score = (
        speechlike
        * interpolate(net_speech_s, score_curves.NET_SPEECH_S)
        * interpolate(measures.snr_db, score_curves.SNR_DB)
        * interpolate(clipping, score_curves.CLIPPING)
        * interpolate(level_dbfs, score_curves.LEVEL_DBFS)
        * interpolate(bandwidth_hz, score_curves.BANDWIDTH_HZ)
    )
    seconds_of = dict.fromkeys(get_args(Kind), 0.0)
    for segment in segments:
        seconds_of[segment.kind] += (segment.stop - segment.start) / buffers.SAMPLE_RATE
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
        ("hum", filtered),
        ("tones", seconds_of["tone"] > 0.0),
        ("music", seconds_of["music"] > 0.0),
        ("noise", seconds_of["noise"] >= LEAST_NOISE_S),
        ("prompt", seconds_of["prompt"] > 0.0),
    )
    quality = AudioQuality(
        score=score,
        duration_s=len(native) / sample_rate,
        net_speech_s=net_speech_s,
        snr_db=measures.snr_db,
        clipping=clipping,
        level_dbfs=level_dbfs,
        bandwidth_hz=bandwidth_hz,
        speechlike=speechlike,
        channel=channels.use,
        tones_s=seconds_of["tone"],
        music_s=seconds_of["music"],
        noise_s=seconds_of["noise"],
        silence_s=seconds_of["silence"],
        prompts_s=seconds_of["prompt"],
        feedback=tuple(code for code, applies in findings if applies),
    )
    return quality.model_copy(update={"advice": advise(quality, segments)})


def with_voices(
    quality: AudioQuality, voices: Sequence[tuple[Turn, ...]], segments: Sequence[Segment]
) -> AudioQuality:
    """The quality of a recording of several voices; `voices`: the turns of each."""
    codes = {*quality.feedback, "several_voices"}
    feedback = tuple(code for code in get_args(Feedback) if code in codes)
    updated = quality.model_copy(update={"voices": tuple(voices), "feedback": feedback})
    return updated.model_copy(update={"advice": advise(updated, segments)})


def _select_rows(rows: Rows, parts: Sequence[tuple[int, int]]) -> Rows:
    """Rows within parts of the audio, (start, stop) in samples."""
    inside = np.zeros(len(rows.harmonic_correlation), dtype=np.bool_)
    for start, stop in parts:
        inside[start // ROW : -(-stop // ROW)] = True
    return Rows(*(feature[inside] for feature in rows))


def _level_dbfs(speech: TrimmedSpeech, samples: int) -> float:
    """RMS around the mean (a constant offset is not sound), dBFS."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in speech.blocks()) / samples
    # Pieces of 8192 samples stay in the processor's cache.
    energy = sum(
        vad.energy_of(piece - np.float32(mean)) for block in speech.blocks() for piece in blocks(block, 8192)
    )
    rms = math.sqrt(energy / samples)
    return max(_SILENCE_DBFS, 20.0 * math.log10(rms)) if rms > 0 else _SILENCE_DBFS

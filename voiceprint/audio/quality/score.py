"""The quality score of audio for speaker recognition, and the measures behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers
from voiceprint.audio.io.lazy_audio import Samples, Spliced, blocks
from voiceprint.audio.quality import score_curves, spectrum
from voiceprint.audio.quality.advice import LEAST_NOISE_S, advise
from voiceprint.audio.quality.channels import ChannelReport
from voiceprint.audio.quality.clipping import crowded_tops, flat_tops
from voiceprint.audio.quality.model import AudioQuality, Feedback, Turn
from voiceprint.audio.quality.score_curves import interpolate
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.segmenter import Segment, speech_parts
from voiceprint.audio.speech.spectrogram import ROW, Rows

_QUIETEST_DBFS: Final = -120.0  # what digital silence reports: JSON has no infinity


def measure_quality(
    native: Samples,
    sample_rate: int,
    *,
    segments: Sequence[Segment],
    rows: Rows,
    speech: Samples,
    windows: npt.NDArray[np.bool_],
    channels: ChannelReport,
    filtered: bool = False,
) -> AudioQuality:
    """Measure a recording whose speech was found.

    The score is a product of factors in 0..1, each linear between the points given:

        speech      the least of: variety 3.2..4.4 dB, spread 0.30..0.37, modulation 2.5..4.5 dB,
                    steadiness 0.26..0.12 (see `voiceprint.audio.quality.spectrum`)
        net speech  0 at 0.3 s, 0.75 at 1 s, 1 from 3 s
        SNR         0 at 6 dB, 0.6 at 12 dB, 1 from 16 dB
        clipping    1 to 0.5 %, 0 from 2.5 % of the speech
        level       0 at -72 dBFS, 1 from -62 dBFS
        bandwidth   0.3 to 1 kHz, 0.9 at 3 kHz, 1 from 7 kHz

    Args:
        native: float32[n] mono at its own rate, `sample_rate`: resampling rounds flat tops off.
        segments, rows: of a `Segmenter` that was given the audio at 16 kHz.
        speech: the parts of kind speech at 16 kHz, one after the other; all of the audio if there are none.
        windows: `vad.speech_windows` of `speech`, bool[len(speech) // 480].
        channels: of the recording.
        filtered: whether a DC offset or a hum was filtered out of `speech`.
    """
    parts = speech_parts(segments)
    length = segments[-1].stop if segments else 0
    if parts and parts != ((0, length),):
        ratio = sample_rate / buffers.SAMPLE_RATE
        spoken: Samples = Spliced(
            native, [(round(start * ratio), min(round(stop * ratio), len(native))) for start, stop in parts]
        )
        rows = _of_parts(rows, parts)
    else:
        spoken = native
    measures = spectrum.measure(rows)
    bandwidth_hz = min(measures.bandwidth_hz, sample_rate / 2)
    net_speech_s = float(windows.sum()) * vad.WINDOW / buffers.SAMPLE_RATE if parts else 0.0
    kept = vad.SpeechBlocks(speech, windows)
    level_dbfs = _level(kept)
    share = len(spoken) / sample_rate / (len(kept) / buffers.SAMPLE_RATE)
    clipping = min(max(flat_tops(spoken, sample_rate) * share, crowded_tops(kept)), 1.0)
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
    left_out = dict.fromkeys(("tone", "music", "noise", "silence", "prompt"), 0.0)
    for each in segments:
        if each.kind != "speech":
            left_out[each.kind] += (each.stop - each.start) / buffers.SAMPLE_RATE
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
        ("tones", left_out["tone"] > 0.0),
        ("music", left_out["music"] > 0.0),
        ("noise", left_out["noise"] >= LEAST_NOISE_S),
        ("prompt", left_out["prompt"] > 0.0),
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
        tones_s=left_out["tone"],
        music_s=left_out["music"],
        noise_s=left_out["noise"],
        silence_s=left_out["silence"],
        prompts_s=left_out["prompt"],
        feedback=tuple(code for code, found in findings if found),
    )
    return quality.model_copy(update={"advice": advise(quality, segments)})


def with_voices(
    quality: AudioQuality, voices: Sequence[tuple[Turn, ...]], segments: Sequence[Segment]
) -> AudioQuality:
    """The quality of a recording of several voices, with the turns of each."""
    found = {*quality.feedback, "several_voices"}
    feedback = tuple(code for code in get_args(Feedback) if code in found)
    noted = quality.model_copy(update={"voices": tuple(voices), "feedback": feedback})
    return noted.model_copy(update={"advice": advise(noted, segments)})


def _of_parts(rows: Rows, parts: Sequence[tuple[int, int]]) -> Rows:
    """The rows of parts of the audio."""
    inside = np.zeros(len(rows.likeness), dtype=np.bool_)
    for start, stop in parts:
        inside[start // ROW : -(-stop // ROW)] = True
    return Rows(*(each[inside] for each in rows))


def _small_parts(speech: vad.SpeechBlocks) -> Iterator[npt.NDArray[np.float32]]:
    """The samples, so many at a time that their copies stay in the processor's cache."""
    for block in speech.blocks():
        yield from blocks(block, 8192)


def _level(speech: vad.SpeechBlocks) -> float:
    """RMS around the mean (a constant offset is not sound), dBFS."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in speech.blocks()) / len(speech)
    power = sum(vad.energy_of(part - np.float32(mean)) for part in _small_parts(speech))
    rms = math.sqrt(power / len(speech))
    return max(_QUIETEST_DBFS, 20.0 * math.log10(rms)) if rms > 0 else _QUIETEST_DBFS

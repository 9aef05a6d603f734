"""The embeddings that refinements.py compares: pieces of 5 s on lines, by each way of raising their lows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from fit_gallery_model import enumerate_recordings
from fit_scoring import CLEAN, LINE, REDUCED, SEED
from lines import random_line
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE
from voiceprint.audio.conditions import Condition
from voiceprint.audio.denoise import reduce_noise
from voiceprint.audio.lows import EDGE_HZ, faintness_db
from voiceprint.encoder import default_encoder
from voiceprint.scoring import Pieces

Audio = NDArray[np.float32]
Gain = Callable[[float], float]

MEASURED = {
    "full": "telephone:band=full,snr=20",
    "narrow": "telephone:snr=20",
    "loud": "telephone:band=full,snr=10",
    "narrow A-law 15 dB": "telephone:law=alaw,snr=15",
}
SEEDS = {"full": (1, 2, 3), "narrow": (1, 2, 3), "loud": (1,), "narrow A-law 15 dB": (1,)}
NONE, SHIPPED = "as they are", "12 dB where under -12 dB"
RECTIFIED = "from the rectified voice"
BATCH = 16


def fixed(limit_db: float, gain_db: float) -> Gain:
    """The same gain wherever the lows are fainter than a limit."""
    return lambda faint_db: gain_db if faint_db < limit_db else 0.0


def ramp(start_db: float, slope: float, most_db: float) -> Gain:
    """The more, the fainter they are; with the slope 1 they are raised to `start_db`."""
    return lambda faint_db: min((start_db - faint_db) * slope, most_db)


WAYS: dict[str, tuple[Gain, float]] = {  # and the order of the slope
    SHIPPED: (fixed(-12.0, 12.0), 3.0),
    "12 dB where under -14 dB": (fixed(-14.0, 12.0), 3.0),
    "15 dB, steeper, where under -13 dB": (fixed(-13.0, 15.0), 4.0),
    "twice what -11 dB lack, to 12 dB": (ramp(-11.0, 2.0, 12.0), 3.0),
    "three times what -12 dB lack, to 15 dB": (ramp(-12.0, 3.0, 15.0), 3.0),
    "up to -8 dB, by 12 dB": (ramp(-8.0, 1.0, 12.0), 3.0),
    "up to -6 dB, by 15 dB": (ramp(-6.0, 1.0, 15.0), 3.0),
    "up to -3 dB, by 15 dB": (ramp(-3.0, 1.0, 15.0), 3.0),
}


def all_pieces(folder: Path) -> Pieces:
    """Without a prefix: as it is, noise reduced, and the lines plain; with "WAY: ", cleaned so."""
    vectors, speakers = dict[str, list[NDArray[np.float32]]](), list[int]()
    numbers: dict[str, int] = {}
    for count, (_, (path, audio)) in enumerate(enumerate_recordings(folder)):
        heard = {CLEAN: audio, REDUCED: reduce_noise(audio)}
        lines = {
            name: random_line(audio, np.random.default_rng([SEED, count, number]))
            for number, name in enumerate(LINE)
        }
        for name, line in MEASURED.items():
            for seed in SEEDS[name]:
                lines[f"{name} {seed}"] = Condition.parse(line).apply(audio, seed)
        heard |= {name: lines[name] for name in ("full 1", "narrow 1")}
        for name, line_audio in lines.items():
            reduced = reduce_noise(line_audio)
            for way, made in raised_by_all(reduced).items():
                heard[f"{way}: {name}"] = made
        for name, vector in embed(heard).items():
            vectors.setdefault(name, []).append(vector)
        speakers.append(numbers.setdefault(path.parent.name, len(numbers)))
    stacked = {name: np.stack(each).astype(np.float32) for name, each in vectors.items()}
    return Pieces(stacked, np.array(speakers, dtype=np.int64))


def embed(heard: dict[str, Audio]) -> dict[str, NDArray[np.float32]]:
    """Of each, the same audio once."""
    different = {id(audio): audio for audio in heard.values()}
    audios = list(different.values())
    found = np.concatenate(
        [
            default_encoder().embed_batch(audios[start : start + BATCH])
            for start in range(0, len(audios), BATCH)
        ]
    )
    places = {key: place for place, key in enumerate(different)}
    return {name: found[places[id(audio)]] for name, audio in heard.items()}


def raised_by_all(audio: Audio) -> dict[str, Audio]:
    """By each way; where it does nothing, the audio itself."""
    spectrum, frequency = np.fft.rfft(audio), np.fft.rfftfreq(len(audio), 1.0 / SAMPLE_RATE)
    faint_db = faintness_db(spectrum, len(audio))
    made = {NONE: audio, RECTIFIED: rectified(audio, spectrum, frequency) if faint_db < -12.0 else audio}
    for way, (gain, order) in WAYS.items():
        gain_db = gain(faint_db)
        if gain_db <= 0.5:
            made[way] = audio
            continue
        slope = (EDGE_HZ / np.clip(frequency, 1.0, EDGE_HZ)) ** order
        shelf = np.minimum(slope, 10.0 ** (gain_db / 20.0))
        shelf[frequency < 60.0] = 0.0
        made[way] = np.fft.irfft(spectrum * shelf, len(audio)).astype(np.float32)
    return made


def rectified(audio: Audio, spectrum: NDArray[np.complexfloating], frequency: NDArray[np.float64]) -> Audio:
    """With lows that the line did not carry: those of the rectified voice, whose pitch they hold."""
    carried = np.where((frequency >= EDGE_HZ) & (frequency <= 3400.0), spectrum, 0.0)
    lows = np.fft.rfft(np.abs(np.fft.irfft(carried, len(audio))))
    lows[(frequency < 70.0) | (frequency > 280.0)] = 0.0
    return np.fft.irfft(spectrum + 2.0 * lows, len(audio)).astype(np.float32)

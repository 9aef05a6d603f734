"""Synthesized signals for tests: sounds that are not speech, and damage to speech.

All are float64[n] in [-1, 1] at `RATE`, 5 s by default, and depend on the generator alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

RATE = 16000
Signal = npt.NDArray[np.float64]
Generator = np.random.Generator


def _time(seconds: float = 5.0) -> Signal:
    return np.arange(round(seconds * RATE)) / RATE


def _normalized(x: Signal, peak: float = 0.9) -> Signal:
    return x * (peak / max(float(np.abs(x).max()), 1e-12))


# Noises


def colored_noise(rng: Generator, exponent: float, seconds: float = 5.0) -> Signal:
    """Noise whose power falls with frequency as f**-exponent: 0 white, 1 pink, 2 brown, -1 blue."""
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20.0)
    return _normalized(np.fft.irfft(spectrum * frequency ** (-exponent / 2), n))


def white(rng: Generator) -> Signal:
    return colored_noise(rng, 0)


def pink(rng: Generator) -> Signal:
    return colored_noise(rng, 1)


def brown(rng: Generator) -> Signal:
    return colored_noise(rng, 2)


def band_noise(rng: Generator) -> Signal:
    n = 5 * RATE
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    low = rng.uniform(80, 2500)
    spectrum[(frequency < low) | (frequency > low * rng.uniform(1.3, 5))] = 0
    return _normalized(np.fft.irfft(spectrum, n))


def modulated_noise(rng: Generator) -> Signal:
    """Noise that swells at the rate of syllables, all bands together."""
    t = _time()
    depth = rng.uniform(0.5, 1.0)
    envelope = 1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1.5, 8) * t + rng.uniform(0, 6)))
    return _normalized(colored_noise(rng, rng.uniform(0, 2)) * envelope)


def gated_noise(rng: Generator) -> Signal:
    t = _time()
    rate = rng.uniform(1, 6)
    return _normalized(
        colored_noise(rng, rng.uniform(0, 2)) * ((t * rate + rng.uniform()) % 1 < rng.uniform(0.2, 0.8))
    )


# Tones


def tone(rng: Generator) -> Signal:
    return np.sin(2 * np.pi * 50 * 2 ** rng.uniform(0, 7.2) * _time() + rng.uniform(0, 6))


def dtmf(rng: Generator) -> Signal:
    t = _time()
    out = np.zeros_like(t)
    length = rng.uniform(0.1, 0.4)
    gap = rng.uniform(0.04, 0.2)
    for start in np.arange(rng.uniform(0, 0.2), 4.5, length + gap):
        on = (t >= start) & (t < start + length)
        low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477, 1633])
        out[on] = np.sin(2 * np.pi * low * t[on]) + np.sin(2 * np.pi * high * t[on])
    return _normalized(out)


def am_tone(rng: Generator) -> Signal:
    t = _time()
    rate = rng.choice([rng.uniform(1, 10), rng.uniform(10, 100)])
    carrier = np.sin(2 * np.pi * rng.uniform(150, 3000) * t)
    return _normalized(carrier * (1 + rng.uniform(0.3, 1) * np.sin(2 * np.pi * rate * t)))


def fm_tone(rng: Generator) -> Signal:
    t = _time()
    rate, center = rng.uniform(0.5, 12), rng.uniform(300, 2500)
    index = center * rng.uniform(0.02, 0.9) / rate
    return np.sin(2 * np.pi * center * t + index * np.sin(2 * np.pi * rate * t))


def fast_fm_tone(rng: Generator) -> Signal:
    t = _time()
    rate, center = rng.uniform(12, 200), rng.uniform(300, 2500)
    return np.sin(2 * np.pi * center * t + rng.uniform(1, 20) * np.sin(2 * np.pi * rate * t))


def sweep(rng: Generator) -> Signal:
    t = _time()
    low, high = rng.uniform(60, 400), rng.uniform(2000, 7500)
    period = rng.choice([5.0, 2.5, 1.0, 0.5, 0.25])
    within = (t % period) / period
    frequency = low * (high / low) ** within if rng.uniform() < 0.5 else low + (high - low) * within
    if rng.uniform() < 0.3:
        frequency = frequency[::-1]
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE)


def square(rng: Generator) -> Signal:
    return np.sign(np.sin(2 * np.pi * rng.uniform(50, 1500) * _time() + 0.1))


def sawtooth(rng: Generator) -> Signal:
    return 2 * ((rng.uniform(50, 800) * _time()) % 1) - 1


def siren(rng: Generator) -> Signal:
    """A sawtooth with many harmonics whose pitch goes up and down."""
    t = _time()
    center = rng.uniform(150, 700)
    frequency = center * 2 ** (rng.uniform(0.1, 1) * np.sin(2 * np.pi * rng.uniform(0.2, 3) * t))
    return 2 * ((np.cumsum(frequency) / RATE) % 1) - 1


def clicks(rng: Generator) -> Signal:
    t = _time()
    out = np.zeros_like(t)
    if rng.uniform() < 0.5:
        out[:: rng.integers(80, 8000)] = 1.0
    else:
        out[rng.integers(0, len(t), rng.integers(5, 500))] = rng.choice([-1.0, 1.0])
    kernel = np.exp(-np.arange(64) / rng.uniform(1, 20)) * np.cos(np.arange(64) * rng.uniform(0.1, 2.5))
    return _normalized(np.convolve(out, kernel)[: len(t)])


def hum(rng: Generator) -> Signal:
    t = _time()
    base = rng.choice([50.0, 60.0])
    out = sum(
        rng.uniform(0, 1) / k * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6)) for k in range(1, 20)
    )
    return _normalized(np.asarray(out) + 10 ** rng.uniform(-4, -1.5) * rng.standard_normal(len(t)))


def busy_signal(rng: Generator) -> Signal:
    t = _time()
    pair = [(480, 620), (440, 480), (350, 440), (425, 425)][rng.integers(4)]
    on = (t % rng.choice([0.5, 1.0])) < rng.choice([0.2, 0.25, 0.5])
    return _normalized((np.sin(2 * np.pi * pair[0] * t) + np.sin(2 * np.pi * pair[1] * t)) * on)


# Music


def _note(
    rng: Generator, pitch: float, seconds: float, harmonics: int, tilt: float, decay: float, vibrato: float
) -> Signal:
    t = _time(seconds)
    bend = 1 + vibrato * np.sin(2 * np.pi * 5.5 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * pitch * np.cumsum(bend) / RATE
    out = np.zeros_like(t)
    for k in range(1, harmonics + 1):
        if pitch * k > 7500:
            break
        # High harmonics of a struck or plucked string die first.
        out += k**-tilt * np.exp(-t * decay * (1 + 0.15 * k)) * np.sin(k * phase + rng.uniform(0, 6))
    attack = min(len(t), int(RATE * rng.uniform(0.003, 0.05)))
    out[:attack] *= np.linspace(0, 1, attack)
    release = min(len(t), int(RATE * 0.01))
    out[len(t) - release :] *= np.linspace(1, 0, release)
    return out


def music(
    rng: Generator, notes_a_second: tuple[float, float], voices: tuple[int, int], vibrato: float = 0.0
) -> Signal:
    total = 5 * RATE
    out = np.zeros(total)
    harmonics, tilt = int(rng.integers(3, 25)), rng.uniform(0.3, 2)
    decay = rng.choice([0.0, rng.uniform(0.5, 8)])
    root = rng.uniform(80, 350)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19])
    position = 0
    step = 1 / rng.uniform(*notes_a_second)
    while position < total:
        seconds = step * rng.choice([0.5, 1.0, 1.0, 2.0])
        for _ in range(rng.integers(voices[0], voices[1] + 1)):
            pitch = root * 2 ** (rng.choice(scale) / 12)
            note = _note(rng, pitch, seconds * rng.uniform(0.8, 1.0), harmonics, tilt, decay, vibrato)[
                : total - position
            ]
            out[position : position + len(note)] += note
        position += round(seconds * RATE)
    return _normalized(out + 10 ** rng.uniform(-5, -2) * rng.standard_normal(total))


def chords(rng: Generator) -> Signal:
    return music(rng, (0.3, 2.5), (2, 5))


def arpeggio(rng: Generator) -> Signal:
    return music(rng, (2, 8), (1, 1))


def fast_chords(rng: Generator) -> Signal:
    return music(rng, (2, 6), (2, 4))


def vibrato_music(rng: Generator) -> Signal:
    return music(rng, (0.5, 4), (1, 4), vibrato=rng.uniform(0.002, 0.01))


def held_chord(rng: Generator) -> Signal:
    return music(rng, (0.05, 0.1), (2, 5))


NOT_SPEECH: dict[str, Callable[[Generator], Signal]] = {
    f.__name__: f
    for f in (
        white, pink, brown, band_noise, modulated_noise, gated_noise,
        tone, dtmf, am_tone, fm_tone, fast_fm_tone, sweep, square, sawtooth, siren, clicks, hum, busy_signal,
        chords, arpeggio, fast_chords, vibrato_music, held_chord,
    )
}  # fmt: skip
"""Signals that must never pass as speech, by name."""


# Damage


def with_noise(speech: Signal, rng: Generator, snr_db: float, exponent: float = 0.0) -> Signal:
    """Add noise of f**-exponent at a ratio of mean powers over the whole signal; overshoot is scaled down."""
    noise = colored_noise(rng, exponent, len(speech) / RATE)[: len(speech)]
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return _normalized(speech + noise, min(0.99, float(np.abs(speech + noise).max())))


def mu_law(x: Signal) -> Signal:
    """The signal after 8-bit mu-law companding and back (the continuous law of G.711, mu = 255)."""
    companded = np.sign(x) * np.log1p(255 * np.minimum(np.abs(x), 1)) / np.log(256)
    coded = np.round(companded * 127) / 127
    return np.sign(coded) * (256 ** np.abs(coded) - 1) / 255


def telephone(speech: Signal, *, narrow: bool = True) -> Signal:
    """The speech over a G.711 line, at 8 kHz; `narrow` also cuts to the 300 to 3400 Hz of an old line."""
    import scipy.signal
    import soxr

    line = soxr.resample(speech, RATE, 8000, quality="HQ")
    if narrow:
        line = scipy.signal.sosfilt(
            scipy.signal.butter(4, [300, 3400], "bandpass", fs=8000, output="sos"), line
        )
    return mu_law(line)


def hard_clipped(speech: Signal, gain: float) -> Signal:
    """Speech normalized to full scale, amplified and cut off at full scale."""
    return np.clip(_normalized(speech, 1.0) * gain, -1, 1)


# What is beside the speech in a call


def at_level(x: Signal, dbfs: float) -> Signal:
    """The same at an RMS level."""
    return x * (10 ** (dbfs / 20) / max(float(np.sqrt(np.mean(np.square(x)))), 1e-12))


def hiss(rng: Generator, seconds: float, dbfs: float) -> Signal:
    """White noise."""
    return at_level(rng.standard_normal(round(seconds * RATE)), dbfs)


def beep(seconds: float, *frequencies: float, amplitude: float = 0.4) -> Signal:
    """Tones together, of an amplitude in all."""
    t = _time(seconds)
    waves = [np.sin(2 * np.pi * frequency * t) for frequency in frequencies]
    return np.asarray(sum(waves)) * (amplitude / len(frequencies))


def cadence(on: float, off: float, times: int, *frequencies: float) -> Signal:
    """A beep and a pause, some times."""
    return np.tile(np.concatenate((beep(on, *frequencies), np.zeros(round(off * RATE)))), times)


def keys(digits: str, on: float = 0.1, off: float = 0.1) -> Signal:
    """DTMF digits."""
    low, high = (697, 770, 852, 941), (1209, 1336, 1477)
    pad = "123456789*0#"
    return np.concatenate(
        [cadence(on, off, 1, low[pad.index(digit) // 3], high[pad.index(digit) % 3]) for digit in digits]
    )


def hold_music(rng: Generator, seconds: float) -> Signal:
    """Chords, melodies or both, at a level of -20 dBFS."""
    parts = []
    for _ in range(-(-round(seconds) // 5)):
        kind = rng.integers(3)
        part = np.zeros(5 * RATE)
        if kind != 0:
            part = part + chords(rng)
        if kind != 1:
            part = part + arpeggio(rng)
        parts.append(part)
    return at_level(np.concatenate(parts)[: round(seconds * RATE)], -20.0)

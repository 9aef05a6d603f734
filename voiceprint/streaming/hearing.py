"""What was heard of a call so far: the embedding of the voice, and whether the audio is good enough.

One answer for a whole recording is made of things that are known at its end alone, above all its level: quiet
audio is raised to -30 dBFS before speech is looked for, and the embedding changes with the level (1 dB: a
cosine of 0.998; 6 dB: 0.95). What is done about it, where audio is quieter than -30 dBFS:

- Running answers take the level of what has come until then. The beginning is heard anew when that has
  changed by 1.5 dB, and of such audio every second partial is left out, as none of this is final.
- Up to two minutes the audio is kept, and at the end heard once more with the level that holds: the answer is
  that of the whole. (Audio that was never too quiet is not heard again: it was right.)
- After two minutes that is done with the level until then, and the audio is let go. What follows is heard
  once, with the level of the moment, and at the end the sum is corrected by what the final level changes on
  64 partials spread over the call. In an hour that fades by 6 dB this leaves a difference of 0.001.

What is left without its noise is embedded at the end alone, of a noisy call of up to two minutes: how much
noise there is, and what it is like, is known only then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, AudioQuality, assess, denoise, to_mono, vad
from voiceprint.encoder.onnx import OnnxEncoder
from voiceprint.streaming.speech import PartialsVoice, PiecesVoice, RunningSpeech, Samples, Voice

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder

KEPT_S: Final = 120.0
"""Seconds of audio that are kept, 4 to 23 MB by the call's rate, and 8 MB at 16 kHz."""

DRIFT_DB: Final = 1.5
"""The beginning of a call is heard anew when its level has changed by so much."""

_SAME_DB: Final = 0.01
_QUALITY_S: Final = 8.0  # the running quality is that of so many last seconds

_NOTHING: Final = np.zeros(0, dtype=np.float32)

Embedding = NDArray[np.float64]


class Hearing:
    """Hears blocks of a call. Its memory does not grow after KEPT_S."""

    def __init__(self, encoder: Encoder, rate: int) -> None:
        self._encoder = encoder
        self._rate = rate
        self._native: list[Samples] = []  # at the call's rate: clipping is seen there alone
        self._kept = 0  # samples in there
        self._best: tuple[float, AudioQuality] | None = None  # speech in, and quality of, a past KEPT_S
        self._audio: list[Samples] = []  # whole windows at 16 kHz, until the beginning is settled
        self._settled = False
        self._tail = np.zeros(0, dtype=np.float32)  # less than a window
        self._energy = 0.0
        self._samples = 0  # at 16 kHz
        self._restarted_at = 0  # pieces that were embedded then
        self._resting = self._levelled = False
        self._begin(np.float32(1.0))

    @property
    def net_speech_s(self) -> float:
        """Seconds of speech so far."""
        return self._voice.length / SAMPLE_RATE

    def hear(self, native: Samples, audio: Samples) -> Embedding | None:
        """Hear a block, at the call's rate and at 16 kHz; gives the sum of embeddings if it is a new one."""
        self._native.append(native)
        self._kept += len(native)
        windows = self._windows(audio)
        gain = vad.gain_of(self._energy, self._samples)
        known = self._voice, self._voice.count
        if self._settled:
            self._speech.gain = self._voice.gain = gain
            self._voice.hear(self._speech.hear(windows))
        else:
            self._audio.append(windows)
            # Not before there is twice as much to embed, so that all that is in vain is less than the whole.
            if _apart(gain, self._speech.gain) > DRIFT_DB and self._voice.count >= 2 * self._restarted_at:
                self._hear_anew(gain, exact=bool(gain == 1))
                self._restarted_at = self._voice.count
            else:
                self._voice.hear(self._speech.hear(windows))
        if self._kept >= KEPT_S * self._rate:
            self._settle(gain)
        new = self._voice.count and (self._voice, self._voice.count) != known
        return self._voice.total if new else None

    def rest(self) -> None:
        """Nobody needs running answers any more: do only what the end needs."""
        self._resting = True
        self._voice.idle = not self._exact

    def quality(self) -> AudioQuality | None:
        """That of the last seconds; None just after the beginning, or after KEPT_S, of the call."""
        wanted, recent = round(_QUALITY_S * self._rate), 0
        for first in range(len(self._native) - 1, -1, -1):
            recent += len(self._native[first])
            if recent >= wanted:
                break
        if recent < self._rate:
            return None
        return assess(np.concatenate(self._native[first:]), sample_rate=self._rate)

    def end(self) -> AudioQuality:
        """Close the call, after its last block, and give its quality; may be repeated."""
        if self._kept:
            self._judge()
        assert self._best is not None  # noqa: S101
        quality = self._best[1]
        if not self._settled:
            return quality
        self._voice.hear(self._speech.hear(_NOTHING, last=True))
        return quality.model_copy(
            update={"duration_s": self._samples / SAMPLE_RATE, "net_speech_s": self.net_speech_s}
        )

    def embedding(self) -> NDArray[Any]:
        """The embedding of the call that was ended, of any length above 0. Raises `EncoderError`."""
        if not self._settled:
            gain = vad.gain_of(self._energy, self._samples)
            if not isinstance(self._encoder, OnnxEncoder):
                return self._encoder.embed(self._as_encoded())
            if not self._exact or _apart(gain, self._speech.gain) > _SAME_DB:
                self._hear_anew(gain, exact=True)
            self._voice.hear(self._speech.hear(_NOTHING, last=True))
        self._voice.end()
        if self._settled and not self._levelled:
            self._voice.relevel(vad.gain_of(self._energy, self._samples))
            self._levelled = True
        return self._voice.total

    def cleaned(self) -> Samples | None:
        """The `cleaned` audio of the call that was ended, at 16 kHz, if that helps and all of it was kept."""
        if self._settled or self._best is None or not denoise.may_be_cleaned(self._best[1]):
            return None
        if self._encoder.sample_rate != SAMPLE_RATE:
            return None
        audio = self._as_encoded()
        cleaned = denoise.cleaned(audio, self._best[1])
        return None if cleaned is audio else cleaned

    def _windows(self, audio: Samples) -> Samples:
        self._energy += float(np.square(audio, dtype=np.float64).sum())
        self._samples += len(audio)
        self._tail = np.concatenate((self._tail, audio))
        whole = len(self._tail) - len(self._tail) % vad.WINDOW
        windows, self._tail = self._tail[:whole], self._tail[whole:].copy()
        return windows

    def _begin(self, gain: np.float32, *, exact: bool = True) -> None:
        self._exact = exact
        self._speech = RunningSpeech(gain)
        self._voice: Voice
        if isinstance(self._encoder, OnnxEncoder):
            self._voice = PartialsVoice(self._encoder, 1 if exact else 2)
        else:
            self._voice = PiecesVoice(self._encoder)
        self._voice.gain = gain
        self._voice.idle = self._resting and not exact

    def _hear_anew(self, gain: np.float32, *, exact: bool) -> None:
        self._begin(gain, exact=exact)
        self._voice.hear(self._speech.hear(np.concatenate([_NOTHING, *self._audio])), at_once=True)

    def _settle(self, gain: np.float32) -> None:
        """Let the audio go that was kept."""
        self._judge()
        if not self._settled:
            if not self._exact or _apart(gain, self._speech.gain) > _SAME_DB:
                self._hear_anew(gain, exact=True)
            self._settled = True
            self._audio = []
        self._native, self._kept = [], 0

    def _judge(self) -> None:
        """The quality of a long call is that of the KEPT_S with the most speech."""
        quality = assess(np.concatenate(self._native), sample_rate=self._rate)
        if self._best is None or quality.net_speech_s >= self._best[0]:
            self._best = quality.net_speech_s, quality

    def _as_encoded(self) -> Samples:
        return to_mono(np.concatenate(self._native), self._rate, self._encoder.sample_rate)


def _apart(one: np.float32, other: np.float32) -> float:
    return abs(20.0 * math.log10(float(one) / float(other)))

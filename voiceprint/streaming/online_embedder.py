"""The embedding of a call so far, and whether its audio is good enough.

An answer for a whole recording rests on properties that are known at its end alone: which parts hold speech,
and their level, as quiet audio is raised to -30 dBFS before speech is looked for, and the embedding changes
with the level (1 dB: a cosine of 0.998; 6 dB: 0.95). So

- running answers go by what has come until then. When the level has changed by 1.5 dB, or a part that was
  embedded turns out to be no speech, the call so far is embedded again, with every second partial left out,
  as none of this is final.
- Up to two minutes the audio is kept. At the end it is a `Recording` like any other; its speech is embedded
  again only where parts, level or filter are others than those that the running embedding went by.
- After two minutes the audio so far is embedded with what is known by then, and let go. What follows is
  embedded once, with the level of the moment, and at the end the sum is corrected by what the final level
  changes on 64 partials spread over the call. In an hour that fades by 6 dB this leaves a difference of
  0.001.

The cleaned audio is embedded at the end alone, of a noisy call of up to two minutes: how much noise there is,
and what it is like, is known only then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, AudioQuality, Recording
from voiceprint.audio.enhance.high_pass import REACH, HighPass, LowFrequencyMeter
from voiceprint.audio.io.lazy_audio import Samples, Spliced
from voiceprint.audio.prompts import KnownPrompts, PromptFollower
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.segmenter import Segmenter, speech_parts, with_prompts
from voiceprint.encoder.base import PartialEncoder
from voiceprint.streaming.speech import (
    ClipAccumulator,
    EmbeddingAccumulator,
    PartialAccumulator,
    RunningSpeech,
)

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder

KEPT_S: Final = 120.0
"""Seconds of audio that are kept, 4 to 23 MB by the call's rate, and 8 MB at 16 kHz."""

DRIFT_DB: Final = 1.5
"""The call is embedded again when its level has changed by so much."""

_SAME_DB: Final = 0.01
_QUALITY_S: Final = 8.0  # the running quality is that of so many last seconds
_RESTING_S: Final = 4.6  # of audio that is looked at together once nobody waits: six partials of speech
_LOWS_EVERY_S: Final = 2.0  # how often an offset or hum is looked for
_SETTLING_S: Final = 2.0  # after KEPT_S: audio so new may still turn out to be no speech, and waits

_NOTHING: Final = np.zeros(0, dtype=np.float32)

Audio = NDArray[np.float32]
Parts = tuple[tuple[int, int], ...]
Embedding = NDArray[np.float64]


class OnlineEmbedder:
    """Embeds a call block by block. Memory does not grow after KEPT_S."""

    def __init__(
        self, encoder: Encoder, rate: int, prompts: KnownPrompts | None = None, *, keep: bool = False
    ) -> None:
        """prompts: that are left out. keep: of a call over KEPT_S, keep the chapter with the most speech."""
        self._keep = keep
        self.kept: Recording | None = None
        """The whole call, at its end; of one over KEPT_S, with `keep`, the chapter with the most speech."""
        self.kept_at_s = 0.0
        """Where in the call that begins."""
        self.partials: NDArray[np.float32] | None = None
        """Of the whole call, once its embedding was asked for; None of an encoder without them, and of a
        call that is longer than KEPT_S."""
        self._encoder = encoder
        self._rate = rate
        self._prompts = prompts
        self._chapter = _Chapter(prompts)
        self._native: list[Audio] = []  # of the chapter, at the call's rate: clipping is seen there alone
        self._best: AudioQuality | None = None  # of the chapter with the most speech
        self._recording: Recording | None = None  # the whole call, at its end
        self._samples = 0  # at 16 kHz
        self._chapters = 0  # that were let go
        self._restarted_at = 0  # pieces that were embedded then
        self._resting = self._leveled = False
        self._run = _Run(encoder, np.float32(1.0), cutoff_hz=None, exact=True)

    @property
    def net_speech_s(self) -> float:
        """Seconds of speech so far."""
        return self._run.voice.length / SAMPLE_RATE

    @property
    def is_settled(self) -> bool:
        """Whether audio was let go."""
        return self._chapters > 0

    def add(self, native: Audio, audio: Audio) -> Embedding | None:
        """Take a block, at the call's rate and at 16 kHz; gives the sum of embeddings if it is a new one."""
        self._native.append(native)
        self._samples += len(audio)
        self._chapter.add(audio)
        is_full = self._chapter.length >= KEPT_S * SAMPLE_RATE
        if self._resting and self._chapter.waiting < _RESTING_S * SAMPLE_RATE and not is_full:
            return None
        self._chapter.analyze()
        known = self._run, self._run.voice.count
        self._advance()
        if is_full:
            self._let_go()
        new = self._run.voice.count and (self._run, self._run.voice.count) != known
        return self._run.voice.total if new else None

    def stop_interim(self) -> None:
        """Running answers are not needed any more: do only what the end needs."""
        self._resting = self._run.voice.resting = True
        self._run.voice.idle = not self._run.exact

    def quality(self) -> AudioQuality | None:
        """That of the last seconds; None just after the beginning, or after KEPT_S, of the call."""
        wanted, recent = round(_QUALITY_S * self._rate), 0
        for first in range(len(self._native) - 1, -1, -1):
            recent += len(self._native[first])
            if recent >= wanted:
                break
        if recent < self._rate:
            return None
        recent_audio = np.concatenate(self._native[first:])
        return Recording(recent_audio, self._rate).leave_out(self._prompts).quality

    def end(self) -> AudioQuality:
        """Close the call, after its last block, and give its quality; may be repeated."""
        if self._native:
            self._update_quality()
        assert self._best is not None  # noqa: S101
        if not self.is_settled:
            return self._best
        self._finish_run()
        return self._best.model_copy(
            update={"duration_s": self._samples / SAMPLE_RATE, "net_speech_s": self.net_speech_s}
        )

    def embedding(self) -> NDArray[Any]:
        """The embedding of the call that was ended, of any length above 0. Raises `EncoderError`."""
        if not self.is_settled:
            assert self._recording is not None  # noqa: S101
            recording = self._recording
            if not isinstance(self._encoder, PartialEncoder):
                return self._encoder.embed(recording.speech_at(self._encoder.sample_rate))
            if not self._run.is_of(recording):
                found = self._encoder.embed_speech(recording.trimmed)
                self.partials = found.partials
                return found.embedding
        self._finish_run()
        if not self.is_settled and isinstance(self._run.voice, PartialAccumulator):
            self.partials = np.concatenate(self._run.voice.found)
        if self.is_settled and not self._leveled:
            self._run.voice.correct_gain(self._run.wanted_gain)
            self._leveled = True
        return self._run.voice.total

    def cleaned(self) -> Audio | None:
        """`Recording.cleaned` of the call that was ended, if it is short enough to be kept as a whole."""
        if self.is_settled or self._recording is None or self._encoder.sample_rate != SAMPLE_RATE:
            return None
        return self._recording.cleaned

    def _advance(self) -> None:
        """Embed the speech that is new, or all of it again if it is not what it was taken for."""
        chapter, run = self._chapter, self._run
        cutoff_hz = run.cutoff_hz if self.is_settled else chapter.cutoff_hz
        held = 0 if cutoff_hz is None else REACH
        if self.is_settled:
            held = max(held, round(_SETTLING_S * SAMPLE_RATE))
        parts = chapter.parts()
        stop = _whole(chapter.length - held)
        fits = run.cutoff_hz == cutoff_hz and clipped(parts, 0, run.stop) == run.parts
        run.take(chapter, parts, stop)
        if self.is_settled:
            run.set_gain(run.wanted_gain)
            run.embed()
            return
        run.exact &= fits
        changed = not fits or _apart(run.wanted_gain, run.gain) > DRIFT_DB
        # Not before there is twice as much to embed, so that all that is in vain is less than the whole.
        if changed and run.voice.count >= 2 * self._restarted_at:
            exact = bool(run.wanted_gain == 1)
            self._restart(parts, stop, cutoff_hz=cutoff_hz, exact=exact)
            self._restarted_at = self._run.voice.count
            return
        run.embed()

    def _restart(self, parts: Parts, stop: int, *, cutoff_hz: float | None, exact: bool) -> None:
        """Embed the chapter again from its beginning, in view of all that is known of it now."""
        run = _Run(self._encoder, np.float32(1.0), cutoff_hz=cutoff_hz, exact=exact)
        run.take(self._chapter, parts, stop)
        run.set_gain(run.wanted_gain)
        run.voice.resting, run.voice.idle = self._resting, self._resting and not exact
        run.embed(at_once=True)
        self._run = run

    def _let_go(self) -> None:
        """Let the audio of the chapter go."""
        self._update_quality()
        chapter = self._chapter
        if not self.is_settled:
            parts, low = chapter.parts(), chapter.cutoff_hz
            run, length = self._run, _whole(chapter.length)
            fits = run.exact and run.cutoff_hz == low and run.parts == clipped(parts, 0, run.stop)
            run.take(chapter, parts, length)
            if fits and _apart(run.wanted_gain, run.gain) <= _SAME_DB:
                run.embed()
            else:
                self._restart(parts, length, cutoff_hz=low, exact=True)
        else:
            self._run.take(chapter, chapter.parts(), _whole(chapter.length))
            self._run.embed()
        self._chapters += 1
        self._native, self._chapter, self._recording = [], _Chapter(self._prompts), None
        if not self._keep:
            self.kept = None
        self._run.begin_chapter()

    def _update_quality(self) -> None:
        """The quality of a long call is that of the chapter with the most speech."""
        self._chapter.analyze()
        self._recording = Recording(
            np.concatenate(self._native),
            self._rate,
            mono=self._chapter.mono,
            segmenter=self._chapter.segmenter,
        ).leave_out(self._prompts)
        quality = self._recording.quality
        if self._best is None or quality.net_speech_s >= self._best.net_speech_s:
            self._best = quality
            if self._keep or not self.is_settled:
                self.kept = self._recording
                self.kept_at_s = (self._samples - self._chapter.length) / SAMPLE_RATE

    def _finish_run(self) -> None:
        if not self._run.ended:
            chapter = self._chapter
            parts = chapter.parts()
            self._run.take(chapter, parts, chapter.length)
            self._run.embed(last=True)
            self._run.ended = True


class _Chapter:
    """The audio of at most KEPT_S, at 16 kHz, and what is in it."""

    def __init__(self, prompts: KnownPrompts | None) -> None:
        self.segmenter = Segmenter()
        self._prompts = None if prompts is None else PromptFollower(prompts)
        self.cutoff_hz: float | None = None
        self.length = 0
        self._lows = LowFrequencyMeter()
        self._lows_due = 0
        self._analyzed = 0
        self._audio = np.zeros(16 * SAMPLE_RATE, dtype=np.float32)

    def add(self, audio: Audio) -> None:
        stop = self.length + len(audio)
        if stop > len(self._audio):
            self._audio = np.concatenate((self._audio, np.zeros(max(stop, self.length), dtype=np.float32)))
        self._audio[self.length : stop] = audio
        self.length = stop

    @property
    def waiting(self) -> int:
        """Samples that were not analyzed yet."""
        return self.length - self._analyzed

    @property
    def mono(self) -> Audio:
        """All of the audio."""
        return self._audio[: self.length]

    def analyze(self) -> None:
        """Look for what is in the audio that came since."""
        audio = self._audio[self._analyzed : self.length]
        self._analyzed = self.length
        self.segmenter.add(audio)
        if self._prompts is not None:
            self._prompts.add(audio)
        self._lows.add(audio)
        if self.length >= self._lows_due:
            self.cutoff_hz = self._lows.cutoff_hz
            self._lows_due = self.length + round(_LOWS_EVERY_S * SAMPLE_RATE)

    def parts(self) -> Parts:
        """Those that hold speech so far."""
        segments = self.segmenter.segments()
        if self._prompts is not None:
            segments = with_prompts(segments, self._prompts.stretches())
        return speech_parts(segments)

    def audio(self, *, cutoff_hz: float | None) -> Samples:
        heard = self.mono
        return heard if cutoff_hz is None else HighPass(heard, cutoff_hz)


class _Run:
    """One way through a call, by parts that were taken for speech and a gain.

    exact: whether it went by what the call turned out to be so far; if not, every second partial is left out.
    """

    def __init__(self, encoder: Encoder, gain: np.float32, *, cutoff_hz: float | None, exact: bool) -> None:
        self.cutoff_hz = cutoff_hz
        self.exact = exact
        self.ended = False
        self.parts: Parts = ()  # of the chapter
        self.stop = 0  # in the chapter, to where it was read
        self._energy = 0.0
        self._length = 0
        self._waiting: list[Audio] = []
        self._rest = _NOTHING
        self._speech = RunningSpeech(gain)
        self.voice: EmbeddingAccumulator = (
            PartialAccumulator(encoder, 1 if exact else 2)
            if isinstance(encoder, PartialEncoder)
            else ClipAccumulator(encoder)
        )
        self.set_gain(gain)

    @property
    def gain(self) -> np.float32:
        return self._speech.gain

    @property
    def wanted_gain(self) -> np.float32:
        """The gain for all that was taken."""
        return vad.gain_of(self._energy, self._length)

    def set_gain(self, gain: np.float32) -> None:
        self._speech.gain = self.voice.gain = gain

    def take(self, chapter: _Chapter, parts: Parts, stop: int) -> None:
        """Read the speech of a chapter up to a place."""
        if stop <= self.stop:
            return
        new = clipped(parts, self.stop, stop)
        audio = Spliced(chapter.audio(cutoff_hz=self.cutoff_hz), new)[:]
        self._energy += float(np.square(audio, dtype=np.float64).sum())
        self._length += len(audio)
        self._waiting.append(audio)
        self.parts = joined(self.parts + new)
        self.stop = stop

    def embed(self, *, at_once: bool = False, last: bool = False) -> None:
        """Embed what was taken."""
        audio = np.concatenate([self._rest, *self._waiting])
        whole = _whole(len(audio))
        self._waiting, self._rest = [], audio[whole:].copy()
        self.voice.add(self._speech.add(audio[:whole], last=last), at_once=at_once)
        if last:
            self.voice.end()

    def begin_chapter(self) -> None:
        self.parts, self.stop = (), 0

    def is_of(self, recording: Recording) -> bool:
        """Whether the run, ended, gives the embedding of this recording."""
        return (
            self.exact
            and self.cutoff_hz == recording.cutoff_hz
            and self.parts == clipped(recording.parts, 0, self.stop)
            and _apart(recording.trimmed.gain, self.gain) <= _SAME_DB
        )


def clipped(parts: Parts, start: int, stop: int) -> Parts:
    """The parts within start and stop."""
    return tuple(
        (max(first, start), min(last, stop)) for first, last in parts if first < stop and last > start
    )


def joined(parts: Parts) -> Parts:
    """The parts, with those that touch made one."""
    whole: list[tuple[int, int]] = []
    for start, stop in parts:
        if whole and whole[-1][1] == start:
            whole[-1] = whole[-1][0], stop
        else:
            whole.append((start, stop))
    return tuple(whole)


def _whole(length: int) -> int:
    return max(0, length - length % vad.WINDOW)


def _apart(one: np.float32, other: np.float32) -> float:
    return abs(20.0 * math.log10(float(one) / float(other)))

"""The running embedding of a call, and the quality of its audio.

Two properties of a recording are final only at its end: the parts that hold speech, and their level. (Quiet
audio is raised to -30 dBFS before speech detection, and the embedding changes with the level: 1 dB gives a
cosine of 0.998, 6 dB 0.95.) So

- Running answers use the audio so far. When the level has changed by 1.5 dB, or an embedded part turns out
  to hold no speech, the call so far is embedded again, with every second partial left out, because none of
  this is final.
- Up to two minutes, the audio stays in memory. At the end it becomes a `Recording` like any other; its speech
  is embedded again only where parts, level or filter differ from those of the running embedding.
- After two minutes, the audio so far is embedded by the properties measured until then, and released, but
  for the two minutes with the most speech, which remain as 16-bit samples for an enrollment. Later
  audio is embedded once, at the level of the moment; at the end the sum is corrected by the change that the
  final level makes on 64 partials spread over the call. In an hour that fades by 6 dB this leaves a
  difference of 0.001.

The cleaned audio is embedded at the end alone, of a noisy call of up to two minutes: the noise is measured
over the whole call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, AudioQuality, Recording
from voiceprint.audio.enhance.high_pass import REACH
from voiceprint.audio.prompts import KnownPrompts
from voiceprint.audio.recording import as_int16
from voiceprint.encoder.base import PartialEncoder, SpeechEncoder, takes_enhanced
from voiceprint.streaming.accumulator import PartialAccumulator
from voiceprint.streaming.buffered_audio import Audio, BufferedAudio, Parts
from voiceprint.streaming.embedding_pass import SAME_DB, EmbeddingPass, level_difference_db, whole_windows

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder

BUFFER_S: Final = 120.0
"""Seconds of audio in memory: 4 to 23 MB at the call's rate, and 8 MB at 16 kHz. Of a longer call as many
seconds more, for an enrollment: 2 to 12 MB."""

DRIFT_DB: Final = 1.5
"""Change of the level from which the call is embedded again."""

_QUALITY_S: Final = 8.0  # the running quality is that of the last seconds
_ANALYZED_S: Final = 4.6  # of audio that is analyzed at once without running answers: six partials of speech
_LOOKAHEAD_S: Final = 2.0  # after BUFFER_S: later audio may still turn this audio into no speech

Embedding = NDArray[np.float64]


class OnlineEmbedder:
    """Embeds a call block by block. Memory does not grow after BUFFER_S."""

    def __init__(
        self, encoder: Encoder, rate: int, prompts: KnownPrompts | None = None, *, keep_best: bool = False
    ) -> None:
        """rate: the call's own, in Hz. prompts: to leave out. keep_best: see `recording`."""
        self.recording: Recording | None = None
        """The whole call, at its end. Of a call over BUFFER_S None, or with `keep_best` the buffer with the
        most speech."""
        self.recording_start_s = 0.0
        """Start of `recording` in the call."""
        self.partials: NDArray[np.float32] | None = None
        """Embeddings of the partials of the whole call, after `embedding`; None for other encoders, and for a
        call over BUFFER_S."""
        self._keep_best = keep_best
        self._encoder = encoder
        self._rate = rate
        self._prompts = prompts
        self._buffer = BufferedAudio(prompts)
        self._native: list[Audio] = []  # the buffer at the call's rate: resampling hides clipping
        self._best: AudioQuality | None = None  # of the buffer with the most speech
        self._released: NDArray[np.int16] | None = None  # the released buffer with the most speech
        self._released_speech_s = 0.0
        self._last: Recording | None = None  # of the last buffer
        self._samples = 0  # at 16 kHz
        self._is_long = False  # a buffer was released
        self._restarted_at = 0  # pieces that were embedded then
        self._interim_stopped = self._gain_corrected = False
        self._pass = EmbeddingPass(encoder, cutoff_hz=None, exact=True)

    @property
    def net_speech_s(self) -> float:
        """Seconds of speech so far."""
        return self._pass.accumulator.length / SAMPLE_RATE

    def add(self, native: Audio, audio: Audio) -> Embedding | None:
        """Add a block, at the call's rate and at 16 kHz; return the sum of embeddings if it has changed."""
        self._native.append(native)
        self._samples += len(audio)
        self._buffer.add(audio)
        is_full = self._buffer.length >= BUFFER_S * SAMPLE_RATE
        if self._interim_stopped and self._buffer.waiting < _ANALYZED_S * SAMPLE_RATE and not is_full:
            return None
        self._buffer.analyze()
        before = self._pass, self._pass.accumulator.count
        self._advance()
        if is_full:
            self._release_buffer()
        accumulator = self._pass.accumulator
        changed = accumulator.count and (self._pass, accumulator.count) != before
        return accumulator.total if changed else None

    def stop_interim(self) -> None:
        """Give no more running answers, and compute only what the end needs."""
        self._interim_stopped = self._pass.accumulator.full_batches = True
        self._pass.accumulator.count_only = not self._pass.exact

    def quality(self) -> AudioQuality | None:
        """The quality of the last 8 s; None where the buffer holds less than 1 s."""
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
        """End the call after its last block, and return its quality. May be repeated."""
        if any(map(len, self._native)):  # nothing follows a buffer that was full at the end of the call
            self._update_quality()
        assert self._best is not None  # noqa: S101
        if not self._is_long:
            return self._best
        self._finish_pass()
        return self._best.model_copy(
            update={"duration_s": self._samples / SAMPLE_RATE, "net_speech_s": self.net_speech_s}
        )

    def embedding(self) -> NDArray[Any]:
        """The embedding of the ended call, of any length above 0. Raises `EncoderError`."""
        if not self._is_long:
            assert self._last is not None  # noqa: S101
            if not isinstance(self._encoder, SpeechEncoder):
                return self._encoder.embed(self._last.speech_at(self._encoder.sample_rate))
            if not isinstance(self._encoder, PartialEncoder):
                return self._encoder.embed_speech(self._last.trimmed).embedding
            if not self._pass.is_of(self._last):
                found = self._encoder.embed_speech(self._last.trimmed)
                self.partials = found.partials
                return found.embedding
        self._finish_pass()
        accumulator = self._pass.accumulator
        if not self._is_long and isinstance(accumulator, PartialAccumulator):
            self.partials = np.concatenate(accumulator.embeddings)
        if self._is_long and not self._gain_corrected:
            accumulator.correct_gain(self._pass.wanted_gain)
            self._gain_corrected = True
        return accumulator.total

    def cleaned(self) -> Audio | None:
        """`Recording.cleaned` of the ended call; None of a call over BUFFER_S."""
        if self._is_long or self._last is None or not takes_enhanced(self._encoder):
            return None
        return self._last.cleaned

    def best_recording(self, rest: Audio) -> Recording:
        """The audio so far: at most BUFFER_S, those with the most speech.

        rest: the audio after the last block, at the call's rate.
        """
        if self.recording is not None and not self._is_long:
            return self.recording  # the call has ended
        audio = np.concatenate([*self._native, rest])
        if not len(audio):
            audio = np.zeros(1, dtype=np.float32)  # too short, as any other: no error of its own
        present = Recording(audio, self._rate).leave_out(self._prompts)
        if self._released is None or present.quality.net_speech_s > self._released_speech_s:
            return present
        return Recording(self._released, self._rate).leave_out(self._prompts)

    def _advance(self) -> None:
        """Embed the new speech, or all speech again where the analysis of earlier audio has changed."""
        buffer, current = self._buffer, self._pass
        parts = buffer.parts()
        if self._is_long:
            lookahead = max(0 if current.cutoff_hz is None else REACH, round(_LOOKAHEAD_S * SAMPLE_RATE))
            current.read(buffer, parts, whole_windows(buffer.length - lookahead))
            current.gain = current.wanted_gain
            current.embed()
            return
        stop = whole_windows(buffer.length - (0 if buffer.cutoff_hz is None else REACH))
        agrees = current.agrees_with(buffer, parts)
        current.read(buffer, parts, stop)
        current.exact &= agrees
        changed = not agrees or level_difference_db(current.wanted_gain, current.gain) > DRIFT_DB
        # Not before there is twice as much to embed: all work in vain is then less than one whole pass.
        if changed and current.accumulator.count >= 2 * self._restarted_at:
            self._restart(parts, stop, exact=bool(current.wanted_gain == 1))
            self._restarted_at = self._pass.accumulator.count
        else:
            current.embed()

    def _restart(self, parts: Parts, stop: int, *, exact: bool) -> None:
        """Embed the buffer again from its beginning."""
        new = EmbeddingPass(self._encoder, cutoff_hz=self._buffer.cutoff_hz, exact=exact)
        new.read(self._buffer, parts, stop)
        new.gain = new.wanted_gain
        new.accumulator.full_batches = self._interim_stopped
        new.accumulator.count_only = self._interim_stopped and not exact
        new.embed(at_once=True)
        self._pass = new

    def _release_buffer(self) -> None:
        self._update_quality()
        buffer, current = self._buffer, self._pass
        parts, stop = buffer.parts(), whole_windows(buffer.length)
        agrees = self._is_long or (current.exact and current.agrees_with(buffer, parts))
        current.read(buffer, parts, stop)
        if self._is_long or (agrees and level_difference_db(current.wanted_gain, current.gain) <= SAME_DB):
            current.embed()
        else:
            self._restart(parts, stop, exact=True)
        self._is_long = True
        assert self._last is not None  # noqa: S101  `_update_quality` has set it
        speech_s = self._last.quality.net_speech_s
        if self._released is None or speech_s > self._released_speech_s:
            self._released, self._released_speech_s = as_int16(self._last.native[:]), speech_s
        self._native, self._buffer, self._last = [], BufferedAudio(self._prompts), None
        if not self._keep_best:
            self.recording = None
        self._pass.begin_buffer()

    def _update_quality(self) -> None:
        """Measure the last buffer. The quality of a long call is that of the buffer with the most speech."""
        self._buffer.analyze()
        self._last = Recording(
            np.concatenate(self._native),
            self._rate,
            mono=self._buffer.mono,
            segmenter=self._buffer.segmenter,
        ).leave_out(self._prompts)
        quality = self._last.quality
        if self._best is None or quality.net_speech_s >= self._best.net_speech_s:
            self._best = quality
            if self._keep_best or not self._is_long:
                self.recording = self._last
                self.recording_start_s = (self._samples - self._buffer.length) / SAMPLE_RATE

    def _finish_pass(self) -> None:
        if not self._pass.ended:
            self._pass.read(self._buffer, self._buffer.parts(), self._buffer.length)
            self._pass.embed(last=True)
            self._pass.ended = True

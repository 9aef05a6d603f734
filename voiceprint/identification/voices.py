"""Who each voice of a recording is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from voiceprint.audio import Recording
from voiceprint.diarization import Voice
from voiceprint.embedder import Embedder
from voiceprint.errors import AudioQualityError
from voiceprint.identification.ranking import Probe
from voiceprint.models import Match, SeparatedVoice

Search = Callable[[Probe, int, Collection[str]], list[Match]]
"""The so many best callers for a probe, without those of the ids."""

_BEST: Final = 2  # the best, and the next for the margin


def identify_voices(
    embedder: Embedder, recording: Recording, search: Search, k: int, ignored: Collection[str] = ()
) -> list[SeparatedVoice]:
    """The voices of a recording, in the order in which they speak first, and who each is.

    ignored: caller ids who are no candidates; a voice that is accepted as one of them is reported as theirs.

    Raises `AudioQualityError` where the recording holds one voice and is too short or too poor, or none.
    """
    voices = embedder.voices(recording)
    if len(voices) < 2:
        probe = embedder.probe(recording, one_voice=True)  # without any speech, this raises
        (voice,) = voices
        return [_answer(voice, probe, search, k, ignored)]
    recording.report_voices([voice.turns for voice in voices])
    answers = []
    for voice in voices:
        try:
            probe = embedder.probe(voice.recording, one_voice=True)
        except AudioQualityError:  # the answer for this voice: its quality says why nobody is named
            answers.append(_nobody(voice))
        else:
            answers.append(_answer(voice, probe, search, k, ignored))
    return answers


def _answer(voice: Voice, probe: Probe, search: Search, k: int, ignored: Collection[str]) -> SeparatedVoice:
    matches = search(probe, max(k, _BEST), ())
    best = next((match for match in matches if match.accepted), None)
    if best is not None and best.caller_id in ignored:
        return _nobody(voice).model_copy(update={"ignored": best.caller_id})
    if ignored:
        matches = search(probe, max(k, _BEST), ignored)
    return _nobody(voice).model_copy(update={"matches": tuple(matches[:k])})


def _nobody(voice: Voice) -> SeparatedVoice:
    return SeparatedVoice(turns=voice.turns, net_speech_s=voice.net_speech_s, quality=voice.recording.quality)

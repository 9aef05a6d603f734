"""Identification of each voice of a recording."""

from __future__ import annotations

from typing import Final

from voiceprint.audio import Recording
from voiceprint.diarization import Voice
from voiceprint.embedder import Embedder
from voiceprint.errors import AudioQualityError
from voiceprint.identification.evidence import note_voices
from voiceprint.identification.groups import EVERYONE
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.models import SeparatedVoice, WatchHit

_WANTED: Final = 2  # the best caller, and the next for the margin


def identify_voices(
    embedder: Embedder, identifier: Identifier, recording: Recording, query: Query
) -> list[SeparatedVoice]:
    """The voices of a recording, in the order of their first turns, and the k best callers of each.

    A voice that is accepted as a caller to ignore is reported as `ignored`.

    Raises `AudioQualityError` where the recording holds one voice and is too short or too poor, or none.
    """
    voices = embedder.voices(recording)
    if not voices:
        embedder.probe(recording, one_voice=True)  # raises `AudioQualityError`
    if len(voices) > 1:
        recording.report_voices([voice.turns for voice in voices])
    answers = []
    for voice in voices:
        try:
            probe = embedder.probe(voice.recording, one_voice=True)
        except AudioQualityError:
            if len(voices) == 1:
                raise
            answers.append(_unnamed(voice))  # see its quality
            continue
        wide = query._replace(k=max(query.k, _WANTED))
        hits: tuple[WatchHit, ...] = ()
        if query.ignored:
            # Callers to ignore are always candidates here, of any group, to detect their voices.
            among = None if query.candidates is None else [*{*query.candidates, *query.ignored}]
            best = identifier.identify(probe, wide._replace(candidates=among, ignored=[], scope=EVERYONE))
            hits, wide = best.watch_hits, wide._replace(watch=())
            accepted = best.accepted
            if accepted is not None and accepted.caller_id in query.ignored:
                update = {"ignored": accepted.caller_id, "watch_hits": hits}
                answers.append(_unnamed(voice).model_copy(update=update))
                continue
        matches = identifier.identify(probe, wide)
        found = {"matches": tuple(matches[: query.k]), "watch_hits": hits or matches.watch_hits}
        answers.append(_unnamed(voice).model_copy(update=found))
    note_voices(answers)
    return answers


def _unnamed(voice: Voice) -> SeparatedVoice:
    return SeparatedVoice(turns=voice.turns, net_speech_s=voice.net_speech_s, quality=voice.recording.quality)

"""Whether an evaluation compares different sessions: where it does not, its figures flatter."""

from __future__ import annotations

from collections.abc import Iterable

from voiceprint.evaluation.embedding import Material
from voiceprint.evaluation.recordings import Speaker
from voiceprint.evaluation.report import Sessions


def sessions(speakers: Iterable[Speaker], materials: Iterable[Material]) -> Sessions:
    """Count the speakers whose probes are of another session than their enrollment, over all runs."""
    measured: set[str] = set()
    same: set[str] = set()
    for material in materials:
        measured.update(material.names)
        same |= material.same_session
    single = {
        one.name
        for one in speakers
        if len(one.sessions) > 1 and all(name == files[0].name for name, files in one.sessions.items())
    }
    counts = len(measured), len(same), len(single & measured - same)
    return Sessions(*counts, _summary(*counts))


def _summary(speakers: int, same: int, single_files: int) -> tuple[str, ...]:
    if same == speakers:
        return (f"Sessions: same session for all {speakers} speakers: real accuracy is lower.",)
    said = [
        f"Sessions: {speakers - same} of {speakers} speakers are probed with another session than they were "
        "enrolled from."
    ]
    if same:
        said.append(f"Same session for {same} of {speakers} speakers: real accuracy is lower.")
    if single_files:
        said.append(
            f"Each file counts as a session for {single_files} of {speakers} speakers. Put the files of one "
            "session into a folder, DIR/SPEAKER/SESSION: otherwise the figures flatter."
        )
    return tuple(said)

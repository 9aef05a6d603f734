"""Which recordings of a speaker are enrolled, and which are probes: for the benchmarks of a recognizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from voiceprint import AudioQualityError, OpusAgentVoiceRecognizer, load_audio

PRINTS = 3


def speakers_in(folder: Path) -> dict[str, list[Path]]:
    """The utterances of each speaker."""
    speakers = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".flac", ".wav"):
            speakers[path.parent.name].append(path)
    return dict(speakers)


def probes_after_enrollment(
    recognizer: OpusAgentVoiceRecognizer, name: str, files: list[Path]
) -> Iterator[Path]:
    """Enroll from the first files that are good for it; gives the others."""
    prints = 0
    for file in files:
        audio, sample_rate = load_audio(file)
        if prints < PRINTS:
            try:
                recognizer.enroll_caller(name, audio, sample_rate=sample_rate)
            except AudioQualityError:  # too short to enroll: a probe, then
                yield file
            else:
                prints += 1
        else:
            yield file

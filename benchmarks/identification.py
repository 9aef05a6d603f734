"""Are callers named right on real speech, and are strangers refused? At the default settings.

Speakers with at least 4 utterances are enrolled from the first 3 that are long enough, and probed with
all their other utterances. Two kinds of strangers are held against them: each enrolled speaker in turn,
with the own prints left out, and every speaker with fewer utterances.

    python benchmarks/identification.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from results_file import keep

from voiceprint import AudioQualityError, MemoryStorage, OpusAgentVoiceRecognizer, load_audio

PRINTS = 3


def main() -> int:
    """Measure, print a table, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    speakers = speakers_in(parser.parse_args().folder)
    enrolled = {name: files for name, files in speakers.items() if len(files) > PRINTS}
    strangers = {name: files for name, files in speakers.items() if name not in enrolled}
    if not enrolled:
        sys.exit(f"No speaker has {PRINTS + 1} utterances or more.")
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    probes = {name: list(probes_after_enrolment(recognizer, name, files)) for name, files in enrolled.items()}

    genuine: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for name, files in probes.items():
        others = [other for other in enrolled if other != name]
        for file in files:
            genuine.append(_ask(recognizer, name, file, None))
            left_out.append(_ask(recognizer, name, file, others))
    outside = [_ask(recognizer, name, file, None) for name, files in strangers.items() for file in files]

    named = [row for row in genuine if row["answer"] == row["speaker"]]
    figures = {
        "enrolled": len(enrolled),
        "prints_per_caller": PRINTS,
        "threshold": recognizer.config.similarity_threshold,
        "genuine": _summary(genuine) | {"named_right": len(named)},
        "left_out": _summary(left_out),
        "strangers": _summary(outside) | {"speakers": len(strangers)},
        "rows": {"genuine": genuine, "left_out": left_out, "strangers": outside},
    }
    print(
        f"{len(enrolled)} callers enrolled from {PRINTS} utterances each, "
        f"threshold {figures['threshold']:g}\n"
    )
    print(
        f"{'probes':44}{'count':>7}{'refused as poor':>17}{'accepted':>10}{'similarity min / mean / max':>30}"
    )
    for title, key in (
        ("other utterances of the callers", "genuine"),
        ("the same, their own prints left out", "left_out"),
        (f"{len(strangers)} speakers who are not enrolled", "strangers"),
    ):
        row = figures[key]
        scores = " / ".join(f"{row[name]:.3f}" for name in ("min", "mean", "max")) if row["count"] else "-"
        print(f"{title:44}{row['count']:7}{row['too_poor']:17}{row['accepted']:10}{scores:>30}")
    print(f"\n{len(named)} of {len(genuine)} probes of callers were named right.")
    print(f"Raw figures: benchmarks/results/{keep('identification', figures).name}")
    return 0


def speakers_in(folder: Path) -> dict[str, list[Path]]:
    """The utterances of each speaker."""
    speakers = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".flac", ".wav"):
            speakers[path.parent.name].append(path)
    return dict(speakers)


def probes_after_enrolment(
    recognizer: OpusAgentVoiceRecognizer, name: str, files: list[Path]
) -> Iterator[Path]:
    """Enrol from the first files that are good for it; gives the others."""
    prints = 0
    for file in files:
        audio, sample_rate = load_audio(file)
        if prints < PRINTS:
            try:
                recognizer.enroll_caller(name, audio, sample_rate=sample_rate)
            except AudioQualityError:  # too short to enrol: a probe, then
                yield file
            else:
                prints += 1
        else:
            yield file


def _ask(
    recognizer: OpusAgentVoiceRecognizer, speaker: str, file: Path, candidates: list[str] | None
) -> dict[str, Any]:
    audio, sample_rate = load_audio(file)
    row = {"speaker": speaker, "file": file.name, "answer": None, "similarity": None}
    try:
        best = recognizer.identify(audio, k=1, sample_rate=sample_rate, candidates=candidates)[0]
    except AudioQualityError as error:
        return row | {"too_poor": list(error.quality.feedback)}
    answer = best.caller_id if best.accepted else None
    return row | {"answer": answer, "nearest": best.caller_id, "similarity": round(best.similarity, 4)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [row["similarity"] for row in rows if row["similarity"] is not None]
    return {
        "count": len(rows),
        "too_poor": sum("too_poor" in row for row in rows),
        "accepted": sum(row["answer"] is not None for row in rows),
        "min": float(np.min(scores)) if scores else None,
        "mean": float(np.mean(scores)) if scores else None,
        "max": float(np.max(scores)) if scores else None,
    }


if __name__ == "__main__":
    sys.exit(main())

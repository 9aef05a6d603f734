"""What does a stream answer beside `identify`: how early, how often otherwise, and at which cost?

Speakers with at least 4 utterances are enrolled from the first 3 that are good for it, and probed with the
others. Each probe is streamed in frames of 20 ms, asked for its running answer after each, and held against
`identify` of the whole: as it is; as 8 kHz mu-law; at -50 dBFS; and with pauses of 3, 6 and 4 s of faint
noise before, in and after it. Then a call of an hour.

    python benchmarks/streaming.py FOLDER [--hour]      FOLDER/**/SPEAKER/*.flac or .wav
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from enrolled_speakers import PRINTS, probes_after_enrollment, speakers_in
from measuring import resident_bytes, spread
from numpy.typing import NDArray
from results_file import keep

from voiceprint import (
    AudioQualityError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    load_audio,
    preprocess_audio,
)
from voiceprint.audio.io import g711
from voiceprint.encoder.onnx import OnnxEncoder

FRAME_S = 0.02
RATE = 16_000
Audio = NDArray[np.float32]


def main() -> int:
    """Measure, print a table, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hour", action="store_true", help="also a call of an hour, mu-law")
    options = parser.parse_args()
    speakers = speakers_in(options.folder)
    enrolled = {name: files for name, files in speakers.items() if len(files) > PRINTS}
    if not enrolled:
        sys.exit(f"No speaker has {PRINTS + 1} utterances or more.")
    # One thread on both sides, so that times are work.
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=OnnxEncoder(threads=1))
    probes = {
        name: list(probes_after_enrollment(recognizer, name, files)) for name, files in enrolled.items()
    }
    strangers = {name: files for name, files in speakers.items() if name not in enrolled}
    rows = [
        row | {"kind": kind, "speaker": name, "file": file.name}
        for kind, of in (("genuine", probes), ("strangers", strangers))
        for name, files in of.items()
        for file in files
        for row in _compared(recognizer, file)
    ]
    print(
        f"{'probes':11}{'audio':8}{'count':>6}{'decided':>8}{'speech s p50/p90':>18}{'not identify':>12}"
        f"{'false':>6}{'|difference| max':>17}{'cost':>6}{'p90':>6}"
    )
    summary: dict[str, dict[str, Any]] = {}
    for kind in ("genuine", "strangers"):
        for variant in VARIANTS:
            some = [row for row in rows if row["kind"] == kind and row["audio"] == variant]
            one = summary[f"{kind} {variant}"] = _summary(some, kind)
            print(
                f"{kind:11}{variant:8}{one['count']:6}{one['decided']:8}{one['speech_s_p50']:12.1f}"
                f"{one['speech_s_p90']:6.1f}{one['other_than_identify']:12}{one['decided_falsely']:6}"
                f"{one['largest_difference']:17.5f}{one['cost']:6.2f}{one['cost_p90']:6.2f}"
            )
    figures = {"summary": summary, "rows": rows}
    if options.hour:
        figures["hour"] = hour = _hour(recognizer, [file for files in probes.values() for file in files])
        print(", ".join(f"{name} {value:.5g}" for name, value in hour.items()))
    print(f"Raw figures: benchmarks/results/{keep('streaming', figures).name}")
    return 0


def _as_mulaw(audio: Audio) -> NDArray[np.uint8]:
    line = preprocess_audio(audio, RATE)
    import soxr

    low = np.clip(soxr.resample(line, RATE, 8000, quality="HQ"), -1.0, 1.0)
    return g711.encode(np.rint(low * 32767).astype(np.int16), "mulaw")


def _quiet(audio: Audio) -> Audio:
    return np.asarray(audio * (10 ** (-50 / 20) / np.sqrt(np.mean(np.square(audio)))), dtype=np.float32)


def _pauses(audio: Audio) -> Audio:
    noise = np.random.default_rng(5).normal(0.0, 1e-4, 13 * RATE).astype(np.float32)
    before, within, after = np.split(noise, [3 * RATE, 9 * RATE])
    half = len(audio) // 2
    return np.concatenate((before, audio[:half], within, audio[half:], after))


VARIANTS: dict[str, Any] = {
    "as is": lambda audio: audio,
    "mulaw": _as_mulaw,
    "quiet": _quiet,
    "pauses": _pauses,
}


def _compared(recognizer: OpusAgentVoiceRecognizer, file: Path) -> Iterator[dict[str, Any]]:
    audio, rate = load_audio(file)
    audio = preprocess_audio(audio, rate)
    for variant, change in VARIANTS.items():
        given = change(audio)
        how: dict[str, Any] = (
            {"sample_rate": 8000, "encoding": "mulaw"} if variant == "mulaw" else {"sample_rate": RATE}
        )
        start = time.process_time()
        try:
            one = recognizer.identify(given, k=1, **how)[0]
        except AudioQualityError:
            one = None
        middle = time.process_time()
        decided, final = _streamed(recognizer, given, how)
        end = time.process_time()
        yield {
            "audio": variant,
            "audio_s": round(final.audio_s, 2),
            "net_speech_s": round(final.net_speech_s, 2),
            "one_shot": None if one is None else [one.caller_id, one.similarity, one.accepted],
            "final": [final.caller_id, final.similarity, final.accepted],
            "decided": None
            if decided is None
            else [decided.caller_id, decided.accepted, decided.audio_s, decided.net_speech_s],
            "one_shot_s": round(middle - start, 5),
            "stream_s": round(end - middle, 5),
        }


def _streamed(recognizer: OpusAgentVoiceRecognizer, given: Any, how: dict[str, Any]) -> tuple[Any, Any]:
    """The answer when it was decided, or None, and the final one."""
    frame = round(FRAME_S * how["sample_rate"])
    decided = None
    with recognizer.stream(**how) as session:
        for first in range(0, len(given), frame):
            chunk = given[first : first + frame]
            session.feed(chunk.tobytes() if "encoding" in how else chunk)
            answer = session.result()
            if decided is None and answer.decided:
                decided = answer
        return decided, session.finish()


def _summary(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    decided = [row for row in rows if row["decided"]]
    speech = [row["decided"][3] for row in decided] or [float("nan")]
    both = [row for row in rows if row["one_shot"] and row["final"][0]]
    ratios = [row["stream_s"] / row["one_shot_s"] for row in rows if row["one_shot"]]

    def named(caller: Any, accepted: bool) -> Any:
        return caller if accepted else None

    def answer(row: dict[str, Any]) -> Any:
        return named(*row["decided"][:2])

    return {
        "count": len(rows),
        "refused": sum(row["one_shot"] is None for row in rows),
        "refused_otherwise": sum((row["one_shot"] is None) != (row["final"][0] is None) for row in rows),
        "decided": len(decided),
        "speech_s_p50": float(np.percentile(speech, 50)),
        "speech_s_p90": float(np.percentile(speech, 90)),
        # A decision stays to the end, so it is held against `identify` of the whole call.
        "other_than_identify": sum(
            answer(row) != named(*(row["one_shot"] or (None, 0.0, False))[::2]) for row in decided
        ),
        "decided_falsely": sum(
            answer(row) != (row["speaker"] if kind == "genuine" else None) for row in decided
        ),
        "largest_difference": max((abs(row["one_shot"][1] - row["final"][1]) for row in both), default=0.0),
        "cost": sum(row["stream_s"] for row in rows if row["one_shot"])
        / sum(row["one_shot_s"] for row in rows if row["one_shot"]),
        "cost_p90": float(np.percentile(ratios, 90)),
    }


def _hour(recognizer: OpusAgentVoiceRecognizer, files: list[Path]) -> dict[str, float]:
    """One speaker's speech over and over, for an hour, at a level that falls by 6 dB in it."""
    speech = np.concatenate([_pauses(load_audio(file)[0]) for file in files[:7]])
    hour = np.resize(speech, 3600 * RATE) * np.linspace(0.5, 0.25, 3600 * RATE, dtype=np.float32)
    codes = _as_mulaw(hour).tobytes()
    del hour
    before, most, feeds = resident_bytes(), 0, []
    start = time.process_time()
    with recognizer.stream(sample_rate=8000, encoding="mulaw") as session:
        for first in range(0, len(codes), 160):
            begin = time.perf_counter()
            session.feed(codes[first : first + 160])
            session.result()
            feeds.append(time.perf_counter() - begin)
            if not first % 800_000:
                most = max(most, resident_bytes())
        final = session.finish()
    streamed = time.process_time() - start
    start = time.process_time()
    one = recognizer.identify(codes, k=1, sample_rate=8000, encoding="mulaw")[0]
    whole = time.process_time() - start
    times = spread(feeds, unit_s=1e-3, digits=3)
    return {
        "difference": abs(one.similarity - (final.similarity or 0.0)),
        "cost": streamed / whole,
        "grown_mb": (most - before) / 1e6,
    } | {f"feed_ms_{name}": value for name, value in times.items()}


if __name__ == "__main__":
    sys.exit(main())

"""How early does a stream decide, how often does it differ from `identify`, and at which cost?

    python -m benchmarks.streaming FOLDER [--hour]      FOLDER/**/SPEAKER/*.flac or .wav

Speakers with at least 4 utterances are enrolled from the first 3 that are good enough, and probed with the
rest; the others call as strangers. Each probe is streamed in frames of 20 ms, with a running answer after
each frame, and compared with `identify` of the whole: as recorded; as 8 kHz mu-law; at -50 dBFS; and with
pauses of 3, 6 and 4 s of faint noise before, in and after it. --hour: a call of an hour as well.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from benchmarks.measure import resident_bytes, spread_ms, timed
from benchmarks.report import command_line, write
from voiceprint import (
    AudioQualityError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    load_audio,
    preprocess_audio,
)
from voiceprint.audio.io import g711
from voiceprint.encoder import OnnxEncoder

FRAME_S = 0.02
RATE = 16_000
PRINTS = 3  # utterances that enroll a speaker
Audio = NDArray[np.float32]


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, help="recordings, a folder for each speaker")
    parser.add_argument("--hour", action="store_true", help="also a call of an hour, mu-law")
    options = parser.parse_args()
    speakers = utterances(options.folder)
    if all(len(files) <= PRINTS for files in speakers.values()):
        sys.exit(f"No speaker has {PRINTS + 1} utterances or more.")
    # One thread on both sides, so that times are work.
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=OnnxEncoder(threads=1))
    probes = {
        name: list(probes_after_enrollment(recognizer, name, files))
        for name, files in speakers.items()
        if len(files) > PRINTS
    }
    strangers = {name: files for name, files in speakers.items() if name not in probes}
    rows = []
    for kind, files_of in (("callers", probes), ("strangers", strangers)):
        calls = [
            call
            for name, files in files_of.items()
            for file in files
            for call in compare(recognizer, file, name if kind == "callers" else None)
        ]
        for variant in VARIANTS:
            of_variant = [call for call in calls if call["audio"] == variant]
            if of_variant:
                rows.append({"probes": kind, "audio": variant} | summary(of_variant))
                print(", ".join(f"{name} {_short(value)}" for name, value in rows[-1].items()), flush=True)
    figures: dict[str, Any] = {"rows": rows}
    if options.hour:
        figures["hour"] = hour(recognizer, [file for files in probes.values() for file in files])
        print(", ".join(f"{name} {_short(value)}" for name, value in figures["hour"].items()))
    write("streaming", figures, options.results)
    return 0


def utterances(folder: Path) -> dict[str, list[Path]]:
    """The recordings of each speaker."""
    speakers = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".flac", ".wav"):
            speakers[path.parent.name].append(path)
    return dict(speakers)


def probes_after_enrollment(
    recognizer: OpusAgentVoiceRecognizer, name: str, files: list[Path]
) -> Iterator[Path]:
    """Enroll the first utterances that are good enough; yields the others."""
    prints = 0
    for file in files:
        audio, rate = load_audio(file)
        if prints < PRINTS:
            try:
                recognizer.enroll_caller(name, audio, sample_rate=rate)
            except AudioQualityError:  # too short for enrollment, long enough for a probe
                yield file
            else:
                prints += 1
        else:
            yield file


def as_mulaw(audio: Audio) -> NDArray[np.uint8]:
    """8 kHz G.711 mu-law."""
    low = np.clip(soxr.resample(preprocess_audio(audio, RATE), RATE, 8000, quality="HQ"), -1.0, 1.0)
    return g711.encode(np.rint(low * 32767).astype(np.int16), "mulaw")


def quiet(audio: Audio) -> Audio:
    """The audio at -50 dBFS."""
    return np.asarray(audio * (10 ** (-50 / 20) / np.sqrt(np.mean(np.square(audio)))), dtype=np.float32)


def with_pauses(audio: Audio) -> Audio:
    """13 s of noise at -80 dBFS before, in the middle of, and after the audio."""
    noise = np.random.default_rng(5).normal(0.0, 1e-4, 13 * RATE).astype(np.float32)
    before, within, after = np.split(noise, [3 * RATE, 9 * RATE])
    half = len(audio) // 2
    return np.concatenate((before, audio[:half], within, audio[half:], after))


VARIANTS: dict[str, Callable[[Audio], NDArray[Any]]] = {
    "as recorded": lambda audio: audio,
    "mu-law": as_mulaw,
    "quiet": quiet,
    "pauses": with_pauses,
}


def compare(recognizer: OpusAgentVoiceRecognizer, file: Path, caller: str | None) -> Iterator[dict[str, Any]]:
    """One call in each variant: who is named by the stream's decision, and by `identify`, with the times."""
    audio = preprocess_audio(*load_audio(file))
    for variant, change in VARIANTS.items():
        given = change(audio)
        settings: dict[str, Any] = {"sample_rate": RATE}
        if variant == "mu-law":
            settings = {"sample_rate": 8000, "encoding": "mulaw"}
        start = time.process_time()
        try:
            whole = recognizer.identify(given, k=1, **settings)[0]
        except AudioQualityError:
            whole = None
        middle = time.process_time()
        decided, final = stream(recognizer, given, settings)
        end = time.process_time()
        call: dict[str, Any] = {"audio": variant, "refused": whole is None, "decided": decided is not None}
        if decided is not None:
            named = decided.caller_id if decided.accepted else None
            identified = whole.caller_id if whole is not None and whole.accepted else None
            call |= {"speech_s": decided.net_speech_s, "other": named != identified, "false": named != caller}
        if whole is not None:
            call |= {"identify_s": middle - start, "stream_s": end - middle}
            call["difference"] = abs(whole.similarity - (final.similarity or 0.0))
        yield call


def stream(recognizer: OpusAgentVoiceRecognizer, given: NDArray[Any], settings: dict[str, Any]) -> Any:
    """The first decided answer, or None, and the final answer."""
    frame = round(FRAME_S * settings["sample_rate"])
    decided = None
    with recognizer.stream(**settings) as session:
        for first in range(0, len(given), frame):
            chunk = given[first : first + frame]
            session.feed(chunk.tobytes() if "encoding" in settings else chunk)
            answer = session.result()
            if decided is None and answer.decided:
                decided = answer
        return decided, session.finish()


def summary(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, seconds of speech until the decision, and the cost in times of `identify`."""
    decided = [call for call in calls if call["decided"]]
    speech = [call["speech_s"] for call in decided] or [float("nan")]
    both = [call for call in calls if not call["refused"]]
    costs = [call["stream_s"] / call["identify_s"] for call in both] or [float("nan")]
    return {
        "count": len(calls),
        "refused": sum(call["refused"] for call in calls),
        "decided": len(decided),
        "speech_s_p50": float(np.percentile(speech, 50)),
        "speech_s_p90": float(np.percentile(speech, 90)),
        "other_than_identify": sum(call["other"] for call in decided),
        "decided_falsely": sum(call["false"] for call in decided),
        "largest_difference": max((call["difference"] for call in both), default=0.0),
        "cost": sum(call["stream_s"] for call in both) / max(sum(call["identify_s"] for call in both), 1e-9),
        "cost_p90": float(np.percentile(costs, 90)),
    }


def hour(recognizer: OpusAgentVoiceRecognizer, files: list[Path]) -> dict[str, float]:
    """A speaker's utterances repeated for an hour, at a level that falls by 6 dB within it."""
    speech = np.concatenate([with_pauses(load_audio(file)[0]) for file in files[:7]])
    level = np.linspace(0.5, 0.25, 3600 * RATE, dtype=np.float32)
    codes = as_mulaw(np.resize(speech, 3600 * RATE) * level).tobytes()
    before, most, feeds = resident_bytes(), 0, []
    start = time.process_time()
    with recognizer.stream(sample_rate=8000, encoding="mulaw") as session:
        for first in range(0, len(codes), 160):
            chunk = codes[first : first + 160]
            feeds.append(timed(lambda chunk=chunk: (session.feed(chunk), session.result())))
            if not first % 800_000:
                most = max(most, resident_bytes())
        final = session.finish()
    streamed = time.process_time() - start
    start = time.process_time()
    whole = recognizer.identify(codes, k=1, sample_rate=8000, encoding="mulaw")[0]
    return {
        "difference": abs(whole.similarity - (final.similarity or 0.0)),
        "cost": streamed / (time.process_time() - start),
        "grown_mb": (most - before) / 1e6,
    } | {f"feed_ms_{name}": value for name, value in spread_ms(feeds).items()}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())

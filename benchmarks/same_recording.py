"""Is a recording that is played back distinguished from live speech, and by which measure?

    python -m benchmarks.same_recording DATA [--cache FILE] [--most 30]

The sessions of four populations (tools/populations.py) are cut into consecutive pieces of 3, 5, 10 and 20 s.

Live: every pair of different pieces of one speaker, adjacent, of the same session or of another; as recorded,
over a telephone line, and one over each. Copies: of up to --most pieces of each population and length, at
another level, another rate, coded, cut, in noise, over a line, after silence, in a room; compared with the
original piece. The codecs need ffmpeg, and are left out without it.

Four measures of two recordings, and the limit of each:

    cosine       of their embeddings; also with the limit by which an enrollment finds copies
    with length  the cosine, where net speech differs by at most `NET_S`; else -1
    share        of the speech of the second that has the fingerprints of the first, 0 to 1: `SAME_SHARE`
    sketch       fingerprints that both sketches have: `SAME_FINGERPRINTS`

The limit of a cosine is halfway from the highest value of live speech to 1. To show that it holds for other
people, it is read off three populations and applied to the fourth, each in turn.
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import spread_ms
from benchmarks.report import command_line, write
from tools.populations import WORKERS, Piece, Session, sessions
from voiceprint import VoiceFingerprintConfig, VoiceprintError
from voiceprint.audio import Recording, load_audio, to_mono
from voiceprint.audio.fingerprints import Fingerprint, FingerprintIndex
from voiceprint.audio.io import buffers, g711
from voiceprint.audio.recent import SAME_SHARE, RecentRecordings
from voiceprint.audio.simulate import Condition
from voiceprint.audio.sketch import SAME_FINGERPRINTS, shared_fingerprints, sketch_of
from voiceprint.embedder import Embedder
from voiceprint.encoder import OnnxEncoder
from voiceprint.enrollment.agreement import SAME_RECORDING

RATE: Final = 16_000
SECONDS: Final = (3, 5, 10, 20)
MOST_PIECES: Final = 6  # of one session and length
COPIED_S: Final = (5, 10, 20)  # lengths of copies
CODED_S: Final = 10  # of those through a codec
LINE: Final = "telephone:snr=20"
NET_S: Final = 0.05
MEASURES: Final = ("cosine", "with length", "share", "sketch")
LIMITS: Final = {"share": SAME_SHARE, "sketch": SAME_FINGERPRINTS}
CODECS: Final = {
    "mp3 32 kbit/s": "-f mp3 -c:a libmp3lame -b:a 32k",
    "opus 16 kbit/s": "-f ogg -c:a libopus -b:a 16k",
    "gsm": "-f gsm -c:a libgsm -ar 8000",
}

Audio = NDArray[np.float32]
Copy = Callable[[Audio, np.random.Generator], Audio]


class Measured(NamedTuple):
    """A piece over a line. embedding: float32[d]. net_speech_s: seconds. print: of its speech."""

    embedding: NDArray[np.float32]
    net_speech_s: float
    print: Fingerprint


class Row(NamedTuple):
    """A piece, and what its lines and its copies measure, by name."""

    piece: Piece
    versions: dict[str, Measured]


def main() -> int:
    """Measure, print, write the figures."""
    parser = command_line(__doc__)
    parser.add_argument("data", type=Path, help="the folder with librispeech, librispeech-sessions, ...")
    parser.add_argument("--cache", type=Path, help="file for the measured pieces, written if absent")
    parser.add_argument("--most", type=int, default=30, help="pieces of a population and length to copy")
    options = parser.parse_args()
    rows = measured_pieces(options)
    live, copies = live_values(rows), copy_values(rows)
    figures = {
        "live": live_figures(live),
        "copies": copy_figures(live, copies),
        "recent": recent_figures(rows),
    }
    write("same_recording", figures, options.results)
    return 0


def measured_pieces(options: Namespace) -> list[Row]:
    """Every piece, measured by two processes, or read from the cache."""
    if options.cache is not None and options.cache.exists():
        with options.cache.open("rb") as file:
            rows: list[Row] = pickle.load(file)
            return rows
    by_population: dict[str, list[Session]] = defaultdict(list)
    for session in sessions(options.data):
        by_population[session.population].append(session)
    work = []
    for some in by_population.values():
        # Spread over the sessions: some, or all of them several times.
        copied = np.bincount(
            np.arange(options.most) * len(some) // options.most % len(some), minlength=len(some)
        )
        if len(some) < options.most:
            copied = np.bincount(np.arange(options.most) % len(some), minlength=len(some))
        work += zip(some, copied.tolist(), strict=True)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        rows = [row for some in pool.map(measure_session, work) for row in some]
    if options.cache is not None:
        with options.cache.open("wb") as file:
            pickle.dump(rows, file)
    return rows


def measure_session(work: tuple[Session, int]) -> list[Row]:
    """The pieces of a session; of each length the given number is copied."""
    session, copied = work
    audio = np.concatenate([to_mono(*load_audio(path)) for path in session.files])
    rows = []
    for seconds in SECONDS:
        for number in range(min(len(audio) // (seconds * RATE), MOST_PIECES)):
            start = number * seconds
            piece = audio[start * RATE : (start + seconds) * RATE]
            chance = np.random.default_rng((len(rows), len(audio)))
            versions = {"clean": measure(piece), "line": measure(Condition.parse(LINE).apply(piece))}
            if number < copied and seconds in COPIED_S:
                # A recording of a telephone call, played into another line.
                taken = Condition.parse("telephone").apply(piece)
                versions["taken"] = measure(taken)
                versions["of a call, over a line"] = measure(Condition.parse(LINE).apply(taken, 1))
                versions |= {
                    name: measure(copy(piece, chance))
                    for name, copy in copies_of().items()
                    if seconds == CODED_S or name not in CODECS
                }
            row = Piece(session.population, session.speaker, session.name, start, seconds)
            present = {name: one for name, one in versions.items() if one is not None}
            if "clean" in present:
                rows.append(Row(row, present))
    return rows


def measure(audio: Audio) -> Measured | None:
    """None where the audio holds less than a second of speech."""
    embedder = Embedder(encoder(), VoiceFingerprintConfig(min_audio_quality=0.0))
    recording = Recording.from_buffer(np.asarray(audio, dtype=np.float32))
    try:
        if recording.quality.net_speech_s < 1.0:
            return None
        embedding = embedder.embed(recording, one_voice=True)
    except VoiceprintError:  # no speech over this line
        return None
    return Measured(embedding, recording.quality.net_speech_s, recording.fingerprint)


_ENCODER: list[OnnxEncoder] = []


def encoder() -> OnnxEncoder:
    """The encoder of this process, with one thread."""
    if not _ENCODER:
        _ENCODER.append(OnnxEncoder(threads=1))
    return _ENCODER[0]


def compare(first: Measured, second: Measured) -> tuple[float, ...]:
    """The value of each of `MEASURES`."""
    cosine = float(first.embedding @ second.embedding)
    close = abs(first.net_speech_s - second.net_speech_s) <= NET_S
    index = FingerprintIndex([first.print])
    common = int(shared_fingerprints(sketch_of(first.print), [sketch_of(second.print)])[0])
    return cosine, cosine if close else -1.0, shared(index, second.print), common


def shared(index: FingerprintIndex, probe: Fingerprint) -> float:
    """Share of the probe's significant fingerprints that match the one recording of the index."""
    matched = np.zeros(len(probe.bits), dtype=bool)
    for recording, shift in index.candidates(probe)[:8]:
        for start, stop in index.stretches(probe, recording, shift):
            matched[start:stop] = True
    return float((matched & probe.loud).sum() / max(probe.loud.sum(), 1))


def copies_of() -> dict[str, Copy]:
    """The ways to copy a recording, by name."""
    simulated = {
        "mu-law, whole band": "telephone:band=full",
        "A-law, whole band": "telephone:band=full,law=alaw",
        "line, 300 to 3400 Hz": "telephone",
        "line, noise at 20 dB": LINE,
        "line, noise at 10 dB": "telephone:snr=10",
        "noise at 30 dB": "noise:snr=30",
        "noise at 20 dB": "noise:snr=20",
        "noise at 10 dB": "noise:snr=10",
    }
    copies: dict[str, Copy] = {
        "as it is": lambda audio, _: audio,
        "1 dB quieter": lambda audio, _: audio * np.float32(10 ** (-1 / 20)),
        "6 dB quieter": lambda audio, _: audio * np.float32(0.5),
        "20 dB quieter": lambda audio, _: audio * np.float32(0.1),
        "8 kHz and back": partial(resampled, rate=8_000),
        "44.1 kHz and back": partial(resampled, rate=44_100),
        "mu-law at 16 kHz": lambda audio, _: coded(audio),
        "first 0.1 s cut off": lambda audio, _: audio[RATE // 10 :],
        "first 0.5 s cut off": lambda audio, _: audio[RATE // 2 :],
        "first half alone": lambda audio, _: audio[: len(audio) // 2],
        "after 1.3 s of silence": after_silence,
        "2 % faster": lambda audio, _: buffers.resample(audio, 16_320, RATE),
        "loudspeaker in a room": in_room,
        "room, then line with noise": lambda audio, chance: Condition.parse(LINE).apply(
            in_room(audio, chance)
        ),
    }
    copies |= {name: partial(over, condition=text) for name, text in simulated.items()}
    if shutil.which("ffmpeg"):
        copies |= {name: partial(through_codec, options=text) for name, text in CODECS.items()}
    return copies


def resampled(audio: Audio, _: np.random.Generator, *, rate: int) -> Audio:
    """The audio at another rate, and back at its own."""
    return buffers.resample(buffers.resample(audio, RATE, rate), rate, RATE)


def coded(audio: Audio) -> Audio:
    """The audio after mu-law coding and decoding."""
    pcm = np.rint(np.clip(audio, -1, 1) * 32767).astype(np.int16)
    return np.asarray(g711.decode(g711.encode(pcm, "mulaw"), "mulaw") / np.float32(32768), dtype=np.float32)


def over(audio: Audio, _: np.random.Generator, *, condition: str) -> Audio:
    """Under a condition of `voiceprint.audio.simulate`."""
    return Condition.parse(condition).apply(audio)


def after_silence(audio: Audio, chance: np.random.Generator) -> Audio:
    """After faint noise at -60 dBFS."""
    noise = chance.standard_normal(round(1.3 * RATE)).astype(np.float32) * np.float32(1e-3)
    return np.concatenate([noise, audio])


def in_room(audio: Audio, chance: np.random.Generator) -> Audio:
    """A loudspeaker of 200 Hz and more, in a room of 0.3 s (T60), half of the power reflected."""
    times = np.arange(round(0.3 * RATE)) / RATE
    decay = chance.standard_normal(len(times)) * np.exp(-6.9 * times / 0.3)
    decay /= np.sqrt(np.square(decay).sum())
    decay[0] += 1.0
    length = 1 << (len(audio) + len(decay)).bit_length()
    spectrum = np.fft.rfft(audio, length) * np.fft.rfft(decay, length)
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    spectrum *= hertz**2 / (hertz**2 + 200.0**2)
    sound = np.fft.irfft(spectrum, length)[: len(audio)]
    return np.asarray(sound * (np.abs(audio).max() / max(np.abs(sound).max(), 1e-9)), dtype=np.float32)


def through_codec(audio: Audio, _: np.random.Generator, *, options: str) -> Audio:
    """Through a codec of ffmpeg."""
    raw = "-f f32le -ar 16000 -ac 1"
    program = ["ffmpeg", "-v", "error"]
    coded = subprocess.run(
        [*program, *raw.split(), "-i", "-", *options.split(), "-"], input=audio.tobytes(), check=True,
        stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    form = options.split()[1]
    source = ["-f", form, *(["-ar", "8000"] if form == "gsm" else []), "-i", "-"]
    decoded = subprocess.run(
        [*program, *source, *raw.split(), "-"], input=coded, check=True, stdout=subprocess.PIPE
    ).stdout
    return np.frombuffer(decoded, dtype=np.float32)


class Pairs(NamedTuple):
    """The values of pairs: float64[n, len(MEASURES)]; how they were recorded; and the populations."""

    values: NDArray[np.float64]
    populations: NDArray[np.str_]
    seconds: NDArray[np.int64]
    names: NDArray[np.str_]


def live_values(rows: Sequence[Row]) -> Pairs:
    """Every pair of different pieces of a speaker, of one length, by relation and lines."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.piece.population, row.piece.speaker, row.piece.seconds].append(row)
    return gathered(
        (first.piece, name, value)
        for group in groups.values()
        for first, second in combinations(group, 2)
        for name, value in live_pair(first, second)
    )


def live_pair(first: Row, second: Row) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The relation with the lines, and the values."""
    relation = "another session"
    if first.piece.session == second.piece.session:
        apart = abs(first.piece.start_s - second.piece.start_s)
        relation = "adjacent" if apart == first.piece.seconds else "same session"
    for one, other in (("clean", "clean"), ("line", "line"), ("clean", "line")):
        if one in first.versions and other in second.versions:
            yield f"{relation}, {one} {other}", compare(first.versions[one], second.versions[other])


def copy_values(rows: Sequence[Row]) -> Pairs:
    """Every copy with its original."""
    return gathered((row.piece, name, value) for row in rows for name, value in copied_pairs(row))


def copied_pairs(row: Row) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The name of each copy of a piece, and the values."""
    for name, version in row.versions.items():
        original = "taken" if name.startswith("of a call") else "clean"
        if name not in ("clean", "line", "taken") and original in row.versions:
            yield name, compare(row.versions[original], version)


def gathered(pairs: Iterator[tuple[Piece, str, tuple[float, ...]]]) -> Pairs:
    """The pairs as arrays."""
    found = list(pairs)
    return Pairs(
        np.array([value for _, _, value in found]).reshape(-1, len(MEASURES)),
        np.array([piece.population for piece, _, _ in found]),
        np.array([piece.seconds for piece, _, _ in found]),
        np.array([name for _, name, _ in found]),
    )


def live_figures(live: Pairs) -> list[dict[str, Any]]:
    """The highest values of live speech, by population, length and relation."""
    rows = []
    for population in np.unique(live.populations).tolist():
        for seconds in SECONDS:
            for name in np.unique(live.names).tolist():
                which = (live.populations == population) & (live.seconds == seconds) & (live.names == name)
                if which.any():
                    highest = live.values[which].max(axis=0).round(4).tolist()
                    rows.append(
                        {
                            "population": population,
                            "seconds": seconds,
                            "pair": name,
                            "pairs": int(which.sum()),
                        }
                        | dict(zip(MEASURES, highest, strict=True))
                    )
                    print(rows[-1])
    return rows


def copy_figures(live: Pairs, copies: Pairs) -> dict[str, Any]:
    """The limit of each measure with each population left out, the false alarms and the copies found."""
    figures: dict[str, Any] = {}
    rules = [(name, column, LIMITS.get(name)) for column, name in enumerate(MEASURES)]
    for measure, column, given in [("cosine of enrollment", 0, SAME_RECORDING), *rules]:
        left_out = []
        for population in np.unique(live.populations).tolist():
            limit = given or halfway(live.values[live.populations != population, column])
            own = live.values[live.populations == population, column]
            left_out.append(
                {
                    "population": population,
                    "limit": round(limit, 5),
                    "highest_live": round(float(own.max()), 4),
                    "false_alarms": int((own >= limit).sum()),
                    "pairs": len(own),
                    "found": found(copies, column, limit, copies.populations == population),
                }
            )
        limit = given or halfway(live.values[:, column])
        everyone = np.ones(len(copies.values), dtype=bool)
        figures[measure] = {
            "limit": round(limit, 5),
            "found": found(copies, column, limit, everyone),
            "found_by_seconds": {
                seconds: found(copies, column, limit, copies.seconds == seconds) for seconds in SECONDS
            },
            "left_out": left_out,
        }
        print(measure, figures[measure]["limit"])
        for one in left_out:
            print("    left out:", {name: value for name, value in one.items() if name != "found"})
        for name, share in figures[measure]["found"].items():
            print(f"    {name:30}{share:6.3f}")
    return figures


def recent_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """All pieces of `CODED_S` one after the other, as a process is asked about them, then their copies."""
    recent, live_times, copied_times = RecentRecordings(), [], []
    pieces = [row for row in rows if row.piece.seconds == CODED_S]
    name = "line, noise at 20 dB"
    copies = [row.versions[name].print for row in pieces if name in row.versions]

    def ask(print_: Fingerprint, times: list[float]) -> bool:
        start = time.perf_counter()
        is_copy = recent.has(print_, CODED_S, len(live_times) * 3600.0)
        times.append(time.perf_counter() - start)
        return is_copy

    false_alarms = sum(ask(row.versions["clean"].print, live_times) for row in pieces)
    copied = sum(ask(copy, copied_times) for copy in copies)
    figures = {
        "recordings": len(pieces),
        "false_alarms": false_alarms,
        "copies": len(copies),
        "found": copied,
        "ms": spread_ms(live_times),
    }
    print(figures)
    return figures


def halfway(values: NDArray[np.float64]) -> float:
    """Halfway from the highest value to 1."""
    return (1.0 + float(values.max())) / 2


def found(copies: Pairs, column: int, limit: float, which: NDArray[np.bool_]) -> dict[str, float]:
    """The share of copies of each kind that reach the limit."""
    return {
        str(name): round(float((copies.values[which & (copies.names == name), column] >= limit).mean()), 4)
        for name in dict.fromkeys(copies.names[which].tolist())
    }


if __name__ == "__main__":
    sys.exit(main())

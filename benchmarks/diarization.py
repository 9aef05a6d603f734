"""Are several voices in a recording noticed, is one voice left whole, and are both voices of a call named?

Of each population (see populations.py), with the recordings of a speaker's session one after the other:

- alone: recordings of one voice that are taken for several, over lengths and lines, with pauses of up to 5 s,
  with stretches of 10 dB more or less; and what two sessions of one voice are taken for.
- joined: recordings of two voices in which several are found, by length, share of the second voice and
  length of turns; and of a prompt of 5 s, by a synthetic voice, before a caller's 10 s.
- named: turns of two or three voices, 10 s each, and of which each by itself is ranked first among all
  speakers of its population, enrolled over the same line: how often they are after separation. With and
  without 10 % in which two speak at once.

The constants of voiceprint.diarization.clustering were chosen on "train" and "mobile"; "other" and
"chapters" check them.

    python benchmarks/diarization.py DATA            DATA/librispeech, DATA/librispeech-sessions, ...
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from populations import sessions
from results_file import keep

from voiceprint.audio import Recording, load_audio, to_mono
from voiceprint.audio.simulate import Condition
from voiceprint.diarization import separate
from voiceprint.encoder import OnnxEncoder

RATE = 16_000
VOICES = Path(__file__).parent.parent / "examples" / "voices"
LENGTHS_S = (5, 10, 20, 40)
JOINED = (
    (10, 0.5, 5),
    (10, 0.5, 2.5),
    (20, 0.5, 10),
    (20, 0.5, 4),
    (20, 0.5, 2),
    (25, 0.2, 5),
    (40, 0.5, 10),
)
"""Seconds in all, the share of the second voice, and seconds of a turn."""
LINES = {
    "as is": "as-is",
    "telephone": "telephone:snr=20",
    "noise 20": "noise:snr=20",
    "noise 10": "noise:snr=10",
}
NAMED_OVER = ("as is", "telephone", "noise 20")
EACH_S = 10
GAP_S = 0.2

Audio = NDArray[np.float32]
Sessions = dict[str, dict[str, Audio]]
ENCODER = OnnxEncoder(threads=1)


def main() -> None:
    """Measure, print tables, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=25, help="pairs of voices for each row")
    parser.add_argument("--sessions", type=int, default=60, help="single voices for each population")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name, speakers in _populations(options.data).items():
        rng = np.random.default_rng(14)
        print(f"\n{name}, {len(speakers)} speakers")
        figures[name] = {
            "alone": _alone(speakers, options.sessions, rng),
            "joined": _joined(speakers, options.pairs, rng),
            "named": _named(speakers, options.pairs, rng),
        }
    keep("diarization", {"populations": figures, "columns": "of each row: how many, of how many"})


def _populations(data: Path) -> dict[str, Sessions]:
    found: dict[str, Sessions] = defaultdict(lambda: defaultdict(dict))
    for population, speaker, session, files in sessions(data):
        audio = np.concatenate([to_mono(*load_audio(path)) for path in files])
        found[population][speaker][session] = audio
    return found


def _alone(speakers: Sessions, most: int, rng: np.random.Generator) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    whole = [audio for each in speakers.values() for audio in each.values()]
    whole = [whole[place] for place in rng.permutation(len(whole))[:most]]
    changes: dict[str, Callable[[Audio], Audio]] = {
        "levels": lambda audio: _with_levels(audio, rng),
        "pauses": lambda audio: _with_pauses(audio, rng),
    }
    for line, condition in LINES.items():
        changes[line] = Condition.parse(condition).apply
    for length_s in (*LENGTHS_S, None):
        cuts = (
            [audio[: length_s * RATE] for audio in whole if len(audio) >= length_s * RATE]
            if length_s
            else whole
        )
        for change, apply in changes.items():
            if cuts:
                row = f"{f'{length_s} s' if length_s else 'whole'}, {change}"
                rows[row] = _count([_voices(apply(audio)) > 1 for audio in cuts])
    pairs = [[*each.values()] for each in speakers.values() if len(each) > 1]
    if pairs:
        joined = [np.concatenate([_level(one[: 20 * RATE]) for one in pair[:2]]) for pair in pairs]
        rows["two sessions of one voice"] = _count([_voices(audio) > 1 for audio in joined])
    _show("alone, taken for several", rows)
    return rows


def _joined(speakers: Sessions, most: int, rng: np.random.Generator) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for total_s, share, turn_s in JOINED:
        seconds = (total_s * (1.0 - share), total_s * share)
        pairs = [_pair(speakers, seconds, rng) for _ in range(most)]
        calls = [_turns(pair, seconds, turn_s)[0] for pair in pairs if pair]
        for line, condition in LINES.items():
            if calls:
                apply = Condition.parse(condition).apply
                row = f"{total_s} s, {share:.0%} in turns of {turn_s:g} s, {line}"
                rows[row] = _count([_voices(apply(call)) > 1 for call in calls])
    prompts = [_level(to_mono(*load_audio(path))[: 5 * RATE]) for path in sorted(VOICES.glob("*/1.flac"))]
    callers = [one[0] for _ in range(most) if (one := _pair(speakers, (10.0, 1.0), rng))]
    for line, condition in LINES.items():
        apply = Condition.parse(condition).apply
        calls = [
            np.concatenate([prompts[n % len(prompts)], one[: 10 * RATE]]) for n, one in enumerate(callers)
        ]
        rows[f"prompt of 5 s and 10 s, {line}"] = _count([_voices(apply(call)) > 1 for call in calls])
    _show("joined, several found", rows)
    return rows


def _named(speakers: Sessions, most: int, rng: np.random.Generator) -> dict[str, list[int]]:
    """Enrolled is another session, or the first seconds of the only one."""
    enrolled: dict[str, Audio] = {}
    probes: Sessions = {}
    for name, own in speakers.items():
        first, *others = own.values()
        start = min(20 * RATE, len(first) - round(1.1 * EACH_S * RATE))
        probe = others[0] if others else first[max(start, 0) :]
        if start >= 2 * RATE and len(probe) >= EACH_S * RATE:
            enrolled[name] = first[:start]
            probes[name] = {"1": probe}
    names, prints = [*enrolled], {}
    for line in NAMED_OVER:
        apply = Condition.parse(LINES[line]).apply
        prints[line] = np.array([ENCODER.embed(apply(audio)) for audio in enrolled.values()])

    def first(audio: Audio, line: str) -> str:
        return names[int((prints[line] @ ENCODER.embed(audio)).argmax())]

    rows: dict[str, list[int]] = {}
    for count in (2, 3):
        for turn_s, overlap in ((EACH_S, 0.0), (EACH_S / 2, 0.0), (EACH_S / 2, 0.1)):
            for line in NAMED_OVER:
                apply, right = Condition.parse(LINES[line]).apply, []
                for _ in range(most):
                    chosen = [names[place] for place in rng.choice(len(names), count, replace=False)]
                    audios = [_level(probes[name]["1"][: EACH_S * RATE]) for name in chosen]
                    if [first(apply(audio), line) for audio in audios] == chosen:
                        call, _ = _turns(audios, [EACH_S] * count, turn_s, overlap)
                        found = separate(Recording.from_buffer(apply(call)), ENCODER.embed_partials)
                        right.append(
                            sorted(first(_audio(each.recording), line) for each in found) == sorted(chosen)
                        )
                rows[f"{count} voices, turns of {turn_s:g} s, {overlap:.0%} at once, {line}"] = _count(right)
    _show("named, all right", rows)
    return rows


def _audio(recording: Recording) -> Audio:
    return recording.speech[:]


def _voices(audio: Audio) -> int:
    return len(separate(Recording.from_buffer(audio), ENCODER.embed_partials))


def _pair(speakers: Sessions, seconds: tuple[float, float], rng: np.random.Generator) -> list[Audio] | None:
    """Two voices with so much audio each."""
    long = [
        [name for name, own in speakers.items() if len(next(iter(own.values()))) >= each * RATE]
        for each in seconds
    ]
    if not long[0] or len(long[1]) < 2:
        return None
    one = long[0][rng.integers(len(long[0]))]
    others = [name for name in long[1] if name != one]
    other = others[rng.integers(len(others))]
    return [_level(next(iter(speakers[name].values()))) for name in (one, other)]


def _turns(
    audios: list[Audio], seconds: Any, turn_s: float, overlap: float = 0.0
) -> tuple[Audio, list[tuple[int, int, int]]]:
    """A call of voices in turns, as long as the shortest one's are to be, and start, stop and voice of each.

    overlap: share of the call in which two speak at once.
    """
    count = max(1, round(min(seconds) / turn_s))
    pieces = [
        np.array_split(audio[: round(length * RATE)], count)
        for audio, length in zip(audios, seconds, strict=True)
    ]
    order = [(voice, pieces[voice][turn]) for turn in range(count) for voice in range(len(audios))]
    at_once = round(overlap * sum(seconds) * RATE / (len(order) - 1))
    call = np.zeros(sum(len(piece) + round(GAP_S * RATE) for _, piece in order), dtype=np.float32)
    start, spoken = 0, []
    for voice, piece in order:
        call[start : start + len(piece)] += piece
        spoken.append((start, start + len(piece), voice))
        start += len(piece) - at_once if at_once else len(piece) + round(GAP_S * RATE)
    return call[: spoken[-1][1]], spoken


def _with_levels(audio: Audio, rng: np.random.Generator) -> Audio:
    changed = 0.3 * audio
    for stretch in _stretches(len(audio), rng):
        changed[stretch] *= np.float32(10.0 ** (rng.choice([-10, 0, 10]) / 20))
    return changed


def _with_pauses(audio: Audio, rng: np.random.Generator) -> Audio:
    pieces = []
    for stretch in _stretches(len(audio), rng):
        pieces += [audio[stretch], np.zeros(round(rng.uniform(0.5, 5.0) * RATE), dtype=np.float32)]
    return np.concatenate(pieces)


def _stretches(length: int, rng: np.random.Generator) -> Iterator[slice]:
    start = 0
    while start < length:
        stop = start + round(rng.uniform(2.0, 6.0) * RATE)
        yield slice(start, stop)
        start = stop


def _level(audio: Audio) -> Audio:
    return np.asarray(audio * (0.05 / np.sqrt(np.mean(np.square(audio)))), dtype=np.float32)


def _count(right: list[bool]) -> list[int]:
    return [sum(right), len(right)]


def _show(title: str, rows: dict[str, list[int]]) -> None:
    print(f"  {title}")
    for name, (count, total) in rows.items():
        print(f"    {name:48} {count:4} of {total:4}")


if __name__ == "__main__":
    main()

"""Are prompts found in calls, and is other speech left alone?

    python benchmarks/prompts.py FOLDER [--every N]

FOLDER holds recordings, one folder a speaker at any depth (FLAC or WAV). Prompts of 2, 4 and 8 s are
synthesized by espeak-ng and flite where these are installed, and cut from the sample voices. Each is put,
not in the grid of the fingerprints, into recordings of several speakers: as it is, 10 dB quieter, through a
telephone line, in 20 and 10 dB of noise, and with the speaker talking over its second half. A prompt is
found where at least 80 % of it (of its first half, if talked over) is; what is cut of speech, in seconds,
is counted beside. "Repeated" is what `PromptFinder` finds of three calls alone.

False alarms: stretches of recordings without a prompt that a known prompt, or any single other recording, is
found in. Prints the table and writes it to results/prompts.json.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from results_file import keep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import signals

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.audio import load_audio, to_mono
from voiceprint.audio.prompts import KnownPrompts, PromptFinder

RATE = 16_000
Audio = NDArray[np.float32]
TEXTS = (
    "Thank you for calling. Your call may be recorded for training and quality purposes. Please hold on.",
    "For sales, press one. For support, press two. To hear these options again, press the star key.",
    "All our agents are busy at the moment. You are number four in the queue, and will be helped shortly.",
    "Please say your account number after the tone, one digit at a time, and press the pound key when done.",
)
VOICES = (
    *(["espeak-ng", "-v", voice, "-w"] for voice in ("en-us", "en-gb+f3", "en-us+m3")),
    *(["flite", "-voice", voice, "-o"] for voice in ("slt", "kal16", "awb")),
)
LENGTHS_S = (2, 4, 8)


def _synthesized() -> Iterator[Audio]:
    for command, text in itertools.product(VOICES, TEXTS):
        if shutil.which(command[0]):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "prompt.wav"
                # flite takes the text by an option, espeak-ng as the last argument.
                how = ["-t", text] if command[0] == "flite" else [text]
                subprocess.run([*command, str(file), *how], check=True, capture_output=True)
                audio, rate = load_audio(file)
                yield to_mono(audio, rate)


def _sampled() -> Iterator[Audio]:
    for folder in sorted((Path(__file__).resolve().parents[1] / "examples/voices").iterdir()):
        if folder.is_dir():
            files = sorted(folder.glob("*.flac"))
            yield np.concatenate([load_audio(file)[0] for file in files])


def _line(audio: Audio, _: np.random.Generator) -> Audio:
    coded = signals.telephone(audio.astype(np.float64), narrow=True)
    return to_mono(np.asarray(coded), 8000)


def _noisy(snr_db: float) -> Callable[[Audio, np.random.Generator], Audio]:
    return lambda audio, rng: np.float32(signals.with_noise(audio.astype(np.float64), rng, snr_db))


def _both(audio: Audio, rng: np.random.Generator) -> Audio:
    return _line(_noisy(20)(audio, rng), rng)


CHANGES: dict[str, Callable[[Audio, np.random.Generator], Audio]] = {
    "as it is": lambda audio, _: audio,
    "10 dB quieter": lambda audio, _: audio * np.float32(10**-0.5),
    "telephone line, mu-law": _line,
    "20 dB of noise": _noisy(20),
    "line and 20 dB of noise": _both,
    "10 dB of noise": _noisy(10),
}
OVER = "talked over from the middle on"


def _call(prompt: Audio, speech: Audio, how: str, rng: np.random.Generator) -> tuple[Audio, tuple[int, int]]:
    """A call of 20 s and the prompt, and where the prompt, or what is to be found of it, is."""
    speech = np.resize(speech, 20 * RATE)
    start = int(rng.integers(0, 10 * RATE))
    if how == OVER:
        call = np.concatenate((speech[:start], np.zeros_like(prompt), speech[start:]))
        call[start : start + len(prompt)] += prompt
        half = start + len(prompt) // 2
        call[half : start + len(prompt)] += speech[start : start + len(prompt) - len(prompt) // 2]
        return np.clip(call, -1, 1), (start, half)
    call = np.concatenate((speech[:start], prompt, speech[start:]))
    return np.clip(CHANGES[how](call, rng), -1, 1), (start, start + len(prompt))


def _common(stretches: tuple[tuple[int, int], ...], place: tuple[int, int]) -> int:
    return sum(max(0, min(stop, place[1]) - max(start, place[0])) for start, stop in stretches)


def _answers(recordings: list[Audio], prompt: Audio) -> dict[str, dict[str, int]]:
    """Of 15 callers and 15 strangers whose recordings all begin with a prompt, how many get a name."""
    long = [audio for audio in recordings if len(audio) >= 11 * RATE]
    long = long[:: max(1, len(long) // 30)][:30]
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.flac"
        soundfile.write(file, prompt, RATE)
        for name, prompts in (("without VOICE_PROMPTS", None), ("with VOICE_PROMPTS", str(file))):
            config = VoiceFingerprintConfig(prompts=prompts)
            with OpusAgentVoiceRecognizer(MemoryStorage(), config=config) as recognizer:
                for i, audio in enumerate(long[:15]):
                    recognizer.enroll_caller(str(i), np.concatenate((prompt, audio[: 5 * RATE])))
                own = [recognizer.match_caller(np.concatenate((prompt, a[5 * RATE :]))) for a in long[:15]]
                others = [recognizer.match_caller(np.concatenate((prompt, a[: 5 * RATE]))) for a in long[15:]]
            counts[name] = {
                "own name, of 15": sum(m is not None and m[0] == str(i) for i, m in enumerate(own)),
                f"strangers with a name, of {len(others)}": sum(m is not None for m in others),
            }
    return counts


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth recording")
    options = parser.parse_args()
    files = sorted(f for f in options.folder.rglob("*") if f.suffix in {".flac", ".wav"})[:: options.every]
    recordings = [to_mono(*load_audio(file)) for file in files]
    sources = [*_synthesized(), *_sampled()]
    prompts = [source[: seconds * RATE] for seconds in LENGTHS_S for source in sources]
    prompts = [prompt / max(1e-9, float(np.std(prompt))) * 0.05 for prompt in prompts]
    prompts = [np.clip(prompt, -1, 1).astype(np.float32) for prompt in prompts]
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng(2027)
    for seconds, how in itertools.product(LENGTHS_S, (*CHANGES, OVER)):
        some = [prompt for prompt in prompts if len(prompt) == seconds * RATE]
        known, found, finder_found, cut, lost = KnownPrompts(some), 0, 0, 0.0, 0.0
        for number, prompt in enumerate(some):
            calls = [
                _call(prompt, recordings[(7 * number + i) % len(recordings)], how, rng) for i in range(3)
            ]
            finder = PromptFinder()
            for i, (call, _) in enumerate(calls):
                finder.add(str(i), call)
            repeated = finder.find()
            for (call, place), own in zip(calls, repeated, strict=True):
                stretches = known.stretches(call)
                there = _common(stretches, place)
                found += there >= 0.8 * (place[1] - place[0])
                # Talked over, the rest of the prompt may be cut too.
                whole = place[0], place[0] + len(prompt)
                cut += sum(stop - start for start, stop in stretches) - _common(stretches, whole)
                again = tuple((int(p.start_s * RATE), int(p.stop_s * RATE)) for p in own)
                finder_found += _common(again, place) >= 0.8 * (place[1] - place[0])
                lost += sum(stop - start for start, stop in again) - _common(again, whole)
        calls_made = 3 * len(some)
        row = {
            "prompt_s": seconds,
            "condition": how,
            "calls": calls_made,
            "known": found / calls_made,
            "speech_cut_s": cut / RATE / calls_made,
            "repeated": finder_found / calls_made,
            "repeated_speech_cut_s": lost / RATE / calls_made,
        }
        rows.append(row)
        print(
            f"{seconds} s  {how:32} known {row['known']:.3f} (speech cut {row['speech_cut_s']:.2f} s)  "
            f"repeated {row['repeated']:.3f} ({row['repeated_speech_cut_s']:.2f} s)"
        )
    answers = _answers(recordings, prompts[-1])
    print(answers)
    known = KnownPrompts(prompts)
    false = sum(bool(known.stretches(recording)) for recording in recordings)
    finder = PromptFinder(callers=1)
    for number, recording in enumerate(recordings):
        finder.add(str(number), recording)
    repeated = sum(map(bool, finder.find()))
    hours = sum(map(len, recordings)) / RATE / 3600
    print(
        f"{len(recordings)} recordings, {hours:.1f} h: {false} with one of {len(prompts)} known prompts, "
        f"{repeated} alike with another recording"
    )
    call = np.concatenate(recordings[:20])[: 60 * RATE]
    fifty = KnownPrompts([np.resize(prompt, 10 * RATE) for prompt in prompts[:50]])
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        fifty.stretches(call)
        times.append(1000 * (time.perf_counter() - begin))
    print(f"A minute against 50 prompts of 10 s: {np.median(times):.1f} ms, best {min(times):.1f}")
    keep(
        "prompts",
        {
            "rows": rows,
            "answers": answers,
            "recordings": len(recordings),
            "hours": hours,
            "false_known": false,
            "false_repeated": repeated,
            "minute_against_50_prompts_ms": {"p50": float(np.median(times)), "min": min(times)},
        },
    )


if __name__ == "__main__":
    main()

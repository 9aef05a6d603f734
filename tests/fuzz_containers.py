"""Reads mutated audio files, each of which must give audio or a typed error, in bounded time and memory.

    python fuzz_containers.py COUNT SEED

Prints a line of JSON: how many were read and refused, the longest time of a file (s), and the growth of the
peak of memory (MB) over what one whole file of each format takes.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import time
from pathlib import Path

import field_files as field
import numpy as np

from voiceprint.audio import AudioReader, to_mono
from voiceprint.audio.io.files import read_all
from voiceprint.audio.io.reader import open_stream
from voiceprint.errors import InvalidAudioError

# Those whose headers say how long they are, so that a part of one is not taken for the whole.
LENGTHS = ("wav", "adpcm", "flac", "opus", "vorbis", "mp3", "aiff", "caf", "w64", "m4a")


def formats() -> dict[str, bytes]:
    """A whole file of each format."""
    return {
        "wav": field.wav(),
        "adpcm": field.written("WAV", "IMA_ADPCM"),
        "aiff": field.aiff(),
        "au": field.au(0xFFFFFFFF),
        "caf": field.caf(2 * len(field.voice()) + 4),
        "w64": field.written("W64"),
        "flac": field.written("FLAC"),
        "opus": field.written("OGG", "OPUS"),
        "vorbis": field.written("OGG", "VORBIS"),
        "mp3": field.mp3("VARIABLE"),
        "m4a": field.encoded("ipod", "aac", 16000),
        "webm": field.encoded("webm", "libopus", 48000),
        "amr": field.encoded("amr", "amr_nb"),
        "aac": field.encoded("adts", "aac", 16000),
    }


def mutated(data: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    """A mutation, and whether it only cuts off the end."""
    made = bytearray(data)
    if rng.uniform() < 0.15:
        return bytes(made[: rng.integers(1, len(made))]), True
    for _ in range(rng.integers(1, 6)):
        # Most of it in the header, where each byte counts.
        at = int(rng.integers(0, min(len(made), 300) if rng.uniform() < 0.7 else len(made)))
        kind = rng.integers(6)
        if kind == 0:
            made[at] = int(rng.integers(256))
        elif kind == 1:
            made[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            width = int(rng.choice([2, 4, 8]))
            made[at : at + width] = bytes([int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))]) * width
        elif kind == 3:
            del made[at : at + int(rng.integers(1, 200))]
        elif kind == 4:
            made[at:at] = made[: int(rng.integers(1, 2000))]
        else:
            made[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 100)), dtype=np.uint8))
        if not made:
            break
    return bytes(made), False


def read(data: bytes, name: str) -> tuple[int, AudioReader]:
    """Read a file to the end as the library does; gives its samples."""
    with open_stream(io.BytesIO(data), name) as reader:
        samples = read_all(reader, compact=True)
    assert 8000 <= reader.sample_rate <= 48000
    assert samples.dtype in (np.int16, np.float32)
    # What the decoder gave may be NaN; this is where that is refused.
    mono = to_mono(samples, reader.sample_rate)
    assert np.abs(mono).max() <= 1.0
    return len(samples), reader


def peak_mb() -> float:
    """The most memory that this process had."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def main(count: int, seed: int) -> None:
    """Read `count` mutations of every format in turn."""
    logging.disable()
    whole = formats()
    lengths = {name: read(data, name)[0] for name, data in whole.items()}
    before, slowest, slow_name, good = peak_mb(), 0.0, "", 0
    for number in range(count):
        name = [*whole][number % len(whole)]
        data, cut = mutated(whole[name], np.random.default_rng((seed, number)))
        began = time.perf_counter()
        try:
            found, reader = read(data, f"{name}-{number}")
        except InvalidAudioError as error:
            refusal = str(error)
        except BaseException:
            print(f"mutation {number} of seed {seed}, of {name}", file=sys.stderr)
            raise
        else:
            refusal, good = "", good + 1
            if cut and name in LENGTHS:
                whole_or_warned = reader.warnings or found >= lengths[name] - 1
                assert whole_or_warned, f"{number}: half of {name}, silently"
        assert len(refusal) < 400, f"{number}: {refusal}"
        took = time.perf_counter() - began
        if took > slowest:
            slowest, slow_name = took, f"{name}-{number}"
    growth = peak_mb() - before
    print(json.dumps({
        "good": good, "refused": count - good, "slowest_s": slowest, "slowest": slow_name,
        "growth_mb": growth, "peak_mb": peak_mb(), "formats": len(whole),
    }))  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(int(sys.argv[1]), int(sys.argv[2]))

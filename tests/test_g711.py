"""G.711 against libsndfile (always there, with soundfile), sox (where it is) and the recommendation."""

from __future__ import annotations

import io
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voiceprint.audio.io.g711 import Law, decode, encode
from voiceprint.errors import InvalidAudioError

CODES = np.arange(256, dtype=np.uint8)
SAMPLES = np.arange(-32768, 32768).astype(np.int16)
SUBTYPES: dict[Law, str] = {"mulaw": "ULAW", "alaw": "ALAW"}
SOX: dict[Law, str] = {"mulaw": "u-law", "alaw": "a-law"}

both_laws = pytest.mark.parametrize("law", ["mulaw", "alaw"])
needs_sox = pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")


def sox(data: bytes, *source_and_target: str) -> bytes:
    """`data`, headerless at 8 kHz, converted by sox without dither."""
    command = ["sox", "-D", "-t", "raw", "-r", "8000", "-c", "1", *source_and_target]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@both_laws
def test_every_code_is_decoded_as_libsndfile_does(law: Law) -> None:
    expected, _ = soundfile.read(
        io.BytesIO(CODES.tobytes()),
        samplerate=8000, channels=1, format="RAW", subtype=SUBTYPES[law], dtype="int16",
    )  # fmt: skip
    np.testing.assert_array_equal(decode(CODES, law), expected)


@both_laws
def test_every_sample_is_encoded_as_libsndfile_does(law: Law) -> None:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 8000, format="RAW", subtype=SUBTYPES[law])
    np.testing.assert_array_equal(encode(SAMPLES, law), np.frombuffer(file.getvalue(), dtype=np.uint8))


@needs_sox
@both_laws
def test_every_code_is_decoded_as_sox_does(law: Law) -> None:
    output = sox(CODES.tobytes(), "-e", SOX[law], "-b", "8", "-", "-t", "s16", "-L", "-")
    np.testing.assert_array_equal(decode(CODES, law), np.frombuffer(output, dtype="<i2"))


@needs_sox
@both_laws
def test_encoding_differs_from_sox_only_at_the_border_of_two_intervals(law: Law) -> None:
    output = sox(
        SAMPLES.astype("<i2").tobytes(),
        "-e",
        "signed",
        "-b",
        "16",
        "-L",
        "-",
        "-t",
        "raw",
        "-e",
        SOX[law],
        "-",
    )
    theirs, ours = np.frombuffer(output, dtype=np.uint8), encode(SAMPLES, law)
    unlike = theirs != ours
    assert unlike.sum() < 1200
    step = np.diff(np.sort(decode(CODES, law).astype(int))).max()
    apart = decode(theirs[unlike], law).astype(int) - decode(ours[unlike], law)
    assert np.abs(apart).max() <= step
    middle = (decode(theirs[unlike], law).astype(int) + decode(ours[unlike], law)) / 2
    assert np.abs(SAMPLES[unlike] - middle).max() <= 264  # half the coarsest step is 512


@both_laws
def test_a_decoded_code_encodes_to_itself(law: Law) -> None:
    again = encode(decode(CODES, law), law)
    # Mu-law has two codes for zero, 0xFF and 0x7F; a sample cannot be minus zero.
    assert np.flatnonzero(again != CODES).tolist() == ([0x7F] if law == "mulaw" else [])
    assert again[0x7F] in (0x7F, 0xFF)


def test_the_values_of_the_recommendation_are_kept() -> None:
    # G.711, tables 2a and 2b: the ends of the scale, the zeros, and the first and last step of a segment.
    codes = np.array([0x80, 0x00, 0xFF, 0x7F, 0xFE, 0xEF, 0x8F], dtype=np.uint8)
    assert (decode(codes, "mulaw") >> 2).tolist() == [8031, -8031, 0, 0, 2, 33, 4191]
    # Tables 1a and 1b, in units of 1/4096 of full scale.
    codes = np.array([0xAA, 0x2A, 0xD5, 0x55, 0xD4, 0xC5], dtype=np.uint8)
    assert (decode(codes, "alaw") >> 3).tolist() == [4032, -4032, 1, -1, 3, 33]


@both_laws
@given(samples=arrays(np.int16, st.tuples(st.integers(1, 40), st.integers(1, 3))))
def test_coding_keeps_the_shape_the_sign_and_the_loudness(law: Law, samples: np.ndarray) -> None:
    again = decode(encode(samples, law), law).astype(int)
    assert again.shape == samples.shape
    # Half a step: a 32nd of the magnitude, of 132 or more; beyond the loudest code all is that code.
    allowed = np.maximum(np.abs(samples.astype(int)) / 31, 8) + 4
    clipped = np.abs(samples.astype(int)) > 31_600
    assert (np.abs(again - samples) <= np.where(clipped, 700, allowed)).all()


@both_laws
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float32, np.int32])
def test_what_is_neither_code_nor_sample_is_refused(law: Law, dtype: Any) -> None:
    with pytest.raises(InvalidAudioError, match="uint8"):
        decode(np.zeros(3, dtype), law)
    with pytest.raises(InvalidAudioError, match="int16"):
        encode(np.zeros(3, dtype), law)
    with pytest.raises(InvalidAudioError, match="uint8, not bytes"):
        decode(b"\0", law)  # type: ignore[arg-type]


def test_another_law_is_refused() -> None:
    for law in ("ulaw", None, ["mulaw"]):
        with pytest.raises(InvalidAudioError, match='"mulaw" and "alaw"'):
            decode(CODES, law)  # type: ignore[arg-type]


@both_laws
def test_any_byte_order_and_memory_layout_is_taken(law: Law) -> None:
    samples = SAMPLES.reshape(256, 256)
    expected = encode(samples, law)
    np.testing.assert_array_equal(encode(samples.astype(">i2"), law), expected)
    np.testing.assert_array_equal(encode(np.asfortranarray(samples), law), expected)
    np.testing.assert_array_equal(encode(samples[::-2].T, law), expected[::-2].T)

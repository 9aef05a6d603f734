from __future__ import annotations

import array
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint import audio
from voiceprint.audio import duration, to_mono
from voiceprint.errors import InvalidArgumentError, InvalidAudioError

RELEASED = memoryview(b"12")
RELEASED.release()
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [("i2", 32768, 2e-5), ("i4", 2**31, 1e-7), ("f4", 1, 1e-7), ("f8", 1, 1e-7)],
)
def test_every_sample_format_gives_the_same_sound(
    dtype: str, scale: int, tolerance: float, order: str
) -> None:
    mono = to_mono((TONE * scale).astype(order + dtype), 16000)
    assert mono.dtype == np.float32
    assert mono.dtype.isnative
    assert mono.flags.c_contiguous
    np.testing.assert_allclose(mono, TONE, atol=tolerance * 2)


def test_unsigned_bytes_are_centerd_on_128() -> None:
    np.testing.assert_array_equal(to_mono(np.array([0, 128, 192], dtype=np.uint8), 16000), [-1.0, 0.0, 0.5])


def test_the_extremes_of_the_integers_stay_in_range() -> None:
    for dtype in (np.int16, np.int32):
        limits = np.iinfo(dtype)
        mono = to_mono(np.array([limits.min, 0, limits.max], dtype=dtype), 16000)
        assert mono[0] == -1.0
        assert mono[1] == 0.0
        assert 0.9999 < mono[2] <= 1.0


def test_channels_are_mixed_by_mean_in_either_axis_order() -> None:
    left, right = np.int16(TONE * 30000), np.int16(TONE * -10000)
    expected = (left.astype(float) + right) / 2 / 32768
    for buffer in (
        np.stack([left, right]),
        np.stack([left, right], axis=1),
        np.stack([left, right], axis=1)[::1],
    ):
        np.testing.assert_allclose(to_mono(buffer, 16000), expected, atol=1e-6)
        assert duration(buffer, 16000) == 1.0


def test_a_square_buffer_has_its_channels_last() -> None:
    np.testing.assert_allclose(to_mono(np.array([[0.2, 0.4], [0.6, 0.8]]), 16000), [0.3, 0.7], rtol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 16001, 22050, 44100, 48000, np.int64(8000), 8000.0])
def test_resampling_keeps_the_pitch_and_the_length(rate: Any) -> None:
    time = np.arange(int(rate)) / int(rate)
    mono = to_mono(0.5 * np.sin(2 * np.pi * 1000 * time), rate)
    assert abs(len(mono) - 16000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(mono, 16000))) == 1000
    assert abs(np.abs(mono[2000:-2000]).max() - 0.5) < 0.01


def test_resampling_never_leaves_the_range() -> None:
    square = np.sign(np.sin(np.arange(48000) / 7.0))
    assert np.abs(to_mono(square, 48000)).max() <= 1.0


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_shortest_buffers_give_at_least_one_sample(rate: int, count: int) -> None:
    mono = to_mono(np.full(count, 0.25), rate)
    assert len(mono) >= 1
    assert np.isfinite(mono).all()


@pytest.mark.parametrize("target", [8000, 16000, 48000])
def test_the_result_never_shares_memory_with_the_buffer(target: int) -> None:
    buffer = TONE.astype(np.float32)
    buffer.flags.writeable = False
    mono = to_mono(buffer, 16000, target_rate=target)
    assert not np.shares_memory(mono, buffer)
    mono[:] = 0
    assert np.abs(buffer).max() > 0.4


def test_a_small_overshoot_is_clipped() -> None:
    np.testing.assert_array_equal(to_mono(np.array([1.2, -1.25, 0.5]), 16000), [1.0, -1.0, 0.5])


@pytest.mark.parametrize(
    ("buffer", "says"),
    [
        (b"", "empty"),
        (memoryview(b""), "empty"),
        (memoryview(b"").cast("c"), "empty"),
        (RELEASED, "cannot be read"),
        (b"\0\0\0", r"3 bytes is not a whole number of samples of 16 bits .*encoding"),
        (bytearray(5), "5 bytes"),
        (memoryview(b"\0" * 7), "7 bytes"),
        (memoryview(bytes(8))[::2], "gaps"),
        (memoryview(bytes(8)).cast("q"), "dtype int64"),
        (array.array("i", [1, 2]), "not array"),
        ([0.0, 0.1], r"not list.*np\.asarray"),
        ((0.0,), "np.asarray"),
        ("call.wav", "load_audio"),
        (None, "not NoneType"),
        (np.float32(0.5), "not float32"),
        (np.zeros(0), r"empty \(shape \(0,\)\)"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((2, 0)), "empty"),
        (np.array(0.5), "0 dimensions"),
        (np.zeros((2, 2, 2)), "3 dimensions"),
        (np.zeros((9, 100)), "9 channels.*at most 8"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([np.nan, np.inf]), "NaN"),
        (np.array([0.0, -np.inf]), "infinite"),
        (np.array([0.0, 12000.0]), "look like int16.*32768"),
        (np.array([0.0, 1e6]), r"peak is 1e\+06"),
        (np.array([0.0, 1e300]), "peak"),
        (np.array([0.0], dtype=object), "dtype object"),
        (np.zeros(3, dtype=complex), "dtype complex128"),
        (np.zeros(3, dtype=np.float16), "dtype float16"),
        (np.zeros(3, dtype=np.int64), "dtype int64"),
        (np.zeros(3, dtype=np.uint16), "dtype uint16"),
        (np.zeros(3, dtype=bool), "dtype bool"),
        (np.zeros(3, dtype="datetime64[s]"), "dtype datetime64"),
        (np.array(["a"]), "text"),
        (np.zeros(3, dtype=[("secret", "f4")]), "structured"),
        (np.ma.masked_array([0.1, 0.2], mask=[0, 1]), "filled"),
        (np.broadcast_to(np.float32(0), (10**12,)), "at most 3600 s"),
        (np.broadcast_to(np.float32(0), (8, 10**12)), "at most 3600 s"),
    ],
)
def test_what_is_not_audio_is_refused_with_advice(buffer: Any, says: str) -> None:
    for function in (to_mono, audio.assess):
        arguments = {"sample_rate": 16000}
        with pytest.raises(InvalidAudioError, match=says):
            function(buffer, **arguments)


@pytest.mark.parametrize(
    "rate", [0, -8000, 7999, 48001, 10**400, True, np.True_, 16000.5, np.nan, np.inf, "16000", None, 1j]
)
def test_a_sample_rate_that_cannot_be_is_refused(rate: Any) -> None:
    for function in (to_mono, duration):
        with pytest.raises(InvalidAudioError, match="sample_rate must be"):
            function(TONE, rate)
    with pytest.raises(InvalidArgumentError, match="target_rate must be"):
        to_mono(TONE, 16000, target_rate=rate)


def test_subclasses_and_views_are_taken_by_their_samples() -> None:
    class Loud(np.ndarray):
        def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("hostile")

    np.testing.assert_allclose(to_mono(TONE.view(Loud), 16000), TONE, atol=1e-7)
    np.testing.assert_allclose(to_mono(TONE[::-2], 16000), TONE[::-2], atol=1e-7)
    assert len(to_mono(np.broadcast_to(np.float32(0.25), (1600,)), 16000)) == 1600


def test_the_callers_numpy_error_settings_do_not_leak_in() -> None:
    with np.errstate(all="raise"):
        assert to_mono(np.full(100, 1e-320), 48000).max() == 0.0


def test_no_sample_reaches_a_message() -> None:
    with pytest.raises(InvalidAudioError) as caught:
        to_mono([0.123456, 0.2], 16000)  # type: ignore[list-item]
    assert "123" not in str(caught.value)


@given(count=st.integers(1, 5000), rate=st.integers(8000, 48000))
def test_duration_is_counted_in_the_buffers_own_samples(count: int, rate: int) -> None:
    buffer = np.zeros(count, dtype=np.int16)
    assert duration(buffer, rate) == count / rate
    assert abs(len(to_mono(buffer, rate)) - count * 16000 / rate) <= 1


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, voiceprint.audio;"
        "print([m for m in ('scipy', 'soundfile', 'soxr', 'webrtcvad', 'pkg_resources') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_public_names_are_sorted_and_there() -> None:
    assert all(hasattr(audio, name) for name in audio.__all__)
    constants = [name for name in audio.__all__ if name.isupper()]
    classes = [name for name in audio.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in audio.__all__ if name.islower()]
    assert audio.__all__ == sorted(constants) + sorted(classes) + sorted(functions)

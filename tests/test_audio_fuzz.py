from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from voiceprint.audio import AudioQuality, Encoding, assess, to_mono
from voiceprint.errors import InvalidAudioError

DTYPES = [
    "u1", "i1", "<i2", ">i2", "<i4", ">i4", "i8", "u2", "f2", "<f4", ">f4", "<f8", ">f8", "g", "?", "c8",
    "O", "U3", "S2", "M8[s]", "m8[ms]", "V4", [("a", "f4"), ("b", "i2")],
]  # fmt: skip
RATES: list[Any] = [
    8000, 11025, 16000, 22050, 44100, 48000, np.int32(16000), 16000.0, 7999, 48001, 0, -1, 10**30,
    True, None, "16000", float("nan"), float("inf"), 16000.5, 1j, np.array(16000), [16000],
]  # fmt: skip
ENCODINGS: list[Any] = [*get_args(Encoding), "mulaw", "alaw", "ulaw", "", None, 8, ["pcm"]]
CHANNELS: list[Any] = [0, 0, 1, np.int8(0), -1, 8, 10**30, True, "0", 0.0, float("nan")]


def _shape(rng: np.random.Generator) -> tuple[int, ...]:
    sizes = [0, 1, 2, 3, 7, 8, 9, 100, 481, 1024, 3000]
    shape = tuple(int(rng.choice(sizes)) for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])))
    return shape if np.prod(shape, dtype=float) < 10**6 else shape[:1]


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    scale = float(rng.choice([0, 1e-320, 1e-38, 1e-9, 0.01, 0.5, 1, 1.5, 3, 127, 32767, 2e9, 1e300]))
    values = np.asarray(rng.uniform(-1, 1, shape) * scale)
    if values.size and rng.uniform() < 0.15:
        values.reshape(-1)[rng.integers(values.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return values


def _disguised(rng: np.random.Generator, array: np.ndarray) -> Any:
    class Sub(np.ndarray):
        def __array_finalize__(self, obj: Any) -> None:
            self.note = "sub"

    disguises: list[Callable[[], Any]] = [
        lambda: array.view(Sub),
        lambda: np.ma.masked_array(array, mask=rng.uniform() < 0.5),
        lambda: array[::-1] if array.ndim else array,
        lambda: array[..., ::2] if array.ndim else array,
        lambda: array.T,
        lambda: np.asfortranarray(array),
        lambda: np.broadcast_to(array, (2, *array.shape)),
        lambda: (
            np.lib.stride_tricks.as_strided(array, (int(rng.choice([1, 50, 10**13])),), (0,))
            if array.size
            else array
        ),
        lambda: array.tobytes(),
        lambda: array.tolist(),
        lambda: memoryview(array.tobytes()),
        lambda: bytearray(array.tobytes()),
        lambda: memoryview(array.tobytes())[:: rng.choice([1, 2, -1])],
        lambda: memoryview(array) if array.dtype.kind in "iufb?" else None,
        lambda: memoryview(np.frombuffer(array.tobytes() or b"0", np.uint8).reshape(1, -1)),
        lambda: array.reshape(-1)[0] if array.size else None,
        lambda: {"audio": array},
    ]
    return disguises[rng.integers(len(disguises))]()


def _hostile(rng: np.random.Generator) -> Any:
    values = _values(rng, _shape(rng))
    dtype = DTYPES[rng.integers(len(DTYPES))] if rng.uniform() < 0.7 else "<f4"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            array = values.astype(dtype)
        except (TypeError, ValueError, OverflowError):
            array = np.zeros(values.shape, dtype=dtype)
        if array.size and not array.dtype.hasobject:
            array = np.require(array, requirements="O")
            array.flags.writeable = bool(rng.uniform() < 0.7)
        return _disguised(rng, array) if rng.uniform() < 0.4 else array


@pytest.mark.parametrize("block", range(8))
def test_hostile_buffers_give_a_typed_error_or_a_valid_answer(block: int) -> None:
    accepted = 0
    for number in range(250):
        rng = np.random.default_rng((2026, block, number))
        buffer = _hostile(rng)
        rate = RATES[rng.integers(len(RATES))] if rng.uniform() < 0.4 else 16000
        how: dict[str, Any] = {}
        if rng.uniform() < 0.4:
            how["encoding"] = ENCODINGS[rng.integers(len(ENCODINGS))]
        if rng.uniform() < 0.2:
            how["channel"] = CHANNELS[rng.integers(len(CHANNELS))]
        try:
            mono = to_mono(buffer, rate, **how)
        except InvalidAudioError as exc:
            refusal = str(exc)
        else:
            refusal = ""
        if refusal:
            assert len(refusal) < 300
            if rate is None:  # which `assess` takes for the usual rate
                continue
            with pytest.raises(InvalidAudioError):
                assess(buffer, sample_rate=rate, **how)
            continue
        accepted += 1
        assert mono.dtype == np.float32
        assert type(mono) is np.ndarray
        assert mono.ndim == 1
        assert len(mono) >= 1
        assert mono.flags.c_contiguous
        assert mono.flags.writeable
        assert np.abs(mono).max() <= 1.0  # False for NaN as well
        if isinstance(buffer, np.ndarray):
            assert not np.shares_memory(mono, buffer)
        quality = assess(buffer, sample_rate=rate, **how)
        assert isinstance(quality, AudioQuality)
        measures = quality.model_dump(exclude={"feedback", "advice", "channel", "voices"})
        assert np.isfinite([*measures.values()]).all()
    assert accepted >= 10, (
        f"only {accepted} of 250 buffers were valid: the generator is too hostile to test much"
    )

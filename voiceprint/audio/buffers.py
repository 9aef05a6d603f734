"""Any audio buffer in, one clean mono float32 array out.

Everything that reaches the encoder passes through `to_mono`, so this is where a buffer that is not
audio is refused, with a message that says what was wrong and what to do. No sample ever gets into a
message: a voice is biometric data, and messages end in logs.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidArgumentError, InvalidAudioError

SAMPLE_RATE: Final = 16000
"""The rate that the encoder and the quality measures work at, in Hz."""

MIN_SAMPLE_RATE: Final = 8000
MAX_SAMPLE_RATE: Final = 48000
MAX_CHANNELS: Final = 8
MAX_SECONDS: Final = 3600
"""The longest buffer that is accepted. A zero-stride view of a few bytes can claim any length, so
without a limit such a view would exhaust the memory instead of being refused."""

_PEAK_CLIPPED: Final = 2.0  # float audio may overshoot full scale up to here, and is clipped to it
_PEAK_INT16: Final = 32768 * 1.01  # a float peak up to here looks like int16 values


def to_mono(
    audio_buffer: npt.ArrayLike, sample_rate: int, target_rate: int = SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """Give a buffer as mono float32 at `target_rate`.

    Args:
        audio_buffer: a numpy array of int16, int32, uint8 (unsigned PCM, 128 is zero), float32 or
            float64 in [-1, 1], in any byte order; 1-D, or 2-D in either axis order: the shorter
            axis is the channels (the last one where both are equal), at most 8, mixed by mean.
            Floats that overshoot to at most 2 are clipped. At most an hour.
        sample_rate: of the buffer, an integral number of Hz in 8000..48000.
        target_rate: of the result, in the same range.

    Returns:
        float32[n] in [-1, 1], contiguous, n >= 1, never sharing memory with `audio_buffer`.
        Resampled by soxr ("HQ") where the rates differ.

    Raises:
        InvalidAudioError: the buffer or its sample rate cannot be used; says why and what to do.
        InvalidArgumentError: `target_rate` is out of range.
    """
    rate = check_sample_rate(sample_rate)
    target = _integral(target_rate)
    if target is None or not MIN_SAMPLE_RATE <= target <= MAX_SAMPLE_RATE:
        raise InvalidArgumentError(
            f"target_rate must be a whole number of {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz, "
            f"not {_shown(target_rate)}"
        )
    samples, channel_axis = _checked(audio_buffer, rate)
    # The state of numpy's error handling is the caller's; with "raise" an underflow to zero would escape.
    with np.errstate(all="ignore"):
        mono = _scaled(samples, channel_axis)
        if rate != target:
            mono = resample(mono, rate, target)
    return mono


def duration(audio_buffer: npt.ArrayLike, sample_rate: int) -> float:
    """Seconds of audio in a buffer, from its own sample count: samples per channel / `sample_rate`.

    Takes what `to_mono` takes, but does not look at the values.

    Raises:
        InvalidAudioError: the type, shape or sample rate cannot be used.
    """
    rate = check_sample_rate(sample_rate)
    samples, channel_axis = _checked(audio_buffer, rate)
    return _frame_count(samples, channel_axis) / rate


def check_sample_rate(sample_rate: object) -> int:
    """Give a sample rate as an int.

    Raises:
        InvalidAudioError: it is not an integral number of Hz in 8000..48000 (a bool is not a number).
    """
    rate = _integral(sample_rate)
    if rate is None:
        raise InvalidAudioError(
            f"sample_rate must be a whole number of Hz, not {_shown(sample_rate)}: "
            "give the rate the audio was recorded at"
        )
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise InvalidAudioError(
            f"sample_rate must be {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz, not {_shown(sample_rate)}: "
            "resample the audio, or give the rate it was recorded at"
        )
    return rate


def resample(mono: npt.NDArray[np.float32], rate: int, target: int) -> npt.NDArray[np.float32]:
    """Resample float32[n] from `rate` to `target` Hz by soxr; at least one sample, clipped to [-1, 1]."""
    import soxr

    resampled = np.asarray(soxr.resample(mono, rate, target, quality="HQ"), dtype=np.float32)
    if not resampled.size:
        # Downwards, one or two samples round to none, and nothing after this expects an empty array.
        return np.array(mono[:1], dtype=np.float32)
    # The steep filter overshoots at edges: a signal in [-1, 1] can come out a little beyond it.
    np.clip(resampled, -1.0, 1.0, out=resampled)
    return np.ascontiguousarray(resampled, dtype=np.float32)


def _checked(audio_buffer: object, rate: int) -> tuple[npt.NDArray[Any], int | None]:
    """The buffer as a plain array, and its channel axis (None: 1-D). Looks at type and shape only."""
    if not isinstance(audio_buffer, np.ndarray):
        _refuse_type(audio_buffer)
    if isinstance(audio_buffer, np.ma.MaskedArray):
        raise InvalidAudioError("audio is a masked array: fill the masked samples, audio.filled(0)")
    samples = np.asarray(audio_buffer)  # subclasses may redefine what every operation means
    if samples.ndim not in (1, 2):
        raise InvalidAudioError(f"audio has {samples.ndim} dimensions: give [samples] or [samples, channels]")
    if samples.dtype.kind + str(samples.dtype.itemsize) not in ("i2", "i4", "u1", "f4", "f8"):
        kind = "structured or text" if samples.dtype.kind in "VSU" else samples.dtype.name
        raise InvalidAudioError(
            f"audio has dtype {kind}: convert it to int16, int32, uint8, float32 or float64"
        )
    if not samples.size:
        raise InvalidAudioError(f"audio is empty (shape {samples.shape}): give at least one sample")
    channel_axis = None
    if samples.ndim == 2:
        channel_axis = 0 if samples.shape[0] < samples.shape[1] else 1
        channels = samples.shape[channel_axis]
        if channels > MAX_CHANNELS:
            raise InvalidAudioError(
                f"audio of shape {samples.shape} has {channels} channels on its shorter axis: "
                f"at most {MAX_CHANNELS} are accepted"
            )
    seconds = _frame_count(samples, channel_axis) / rate
    if seconds > MAX_SECONDS:
        raise InvalidAudioError(
            f"audio lasts {seconds:.0f} s: at most {MAX_SECONDS} s are accepted, "
            "cut out a part where the caller speaks"
        )
    return samples, channel_axis


def _scaled(samples: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[np.float32]:
    """Checked samples as a fresh, contiguous float32[n] in [-1, 1], channels mixed by mean."""
    kind = samples.dtype.kind
    if kind == "f":
        _check_floats(samples)
    # In float64, an int32 keeps its low bits until the channels are mixed.
    wide = np.float64 if samples.dtype.itemsize > 2 and samples.dtype.kind == "i" else np.float32
    values = samples.astype(wide, order="C", copy=True)
    if channel_axis is not None:
        values = values.mean(axis=channel_axis)
    if kind == "u":
        values -= 128
    if kind != "f":
        values /= 128 if kind == "u" else 2 ** (8 * samples.dtype.itemsize - 1)
    np.clip(values, -1.0, 1.0, out=values)
    return np.ascontiguousarray(values, dtype=np.float32)


def _check_floats(samples: npt.NDArray[Any]) -> None:
    low, high = float(samples.min()), float(samples.max())  # either is NaN where any sample is
    peak = max(abs(low), abs(high))
    if np.isnan(low) or np.isnan(high):
        raise InvalidAudioError("audio holds NaN: find out which step produced it, or replace it with zeros")
    if np.isinf(peak):
        raise InvalidAudioError("audio holds infinite values: find out which step produced them")
    if peak <= _PEAK_CLIPPED:
        return
    if peak <= _PEAK_INT16:
        raise InvalidAudioError(
            f"float audio must lie in [-1, 1], its peak is {peak:.3g}: these look like int16 values given "
            "as float, divide them by 32768 or pass them as int16"
        )
    raise InvalidAudioError(
        f"float audio must lie in [-1, 1], its peak is {peak:.3g}: scale it, or pass integers"
    )


def _refuse_type(value: object) -> NoReturn:
    name = type(value).__name__
    if isinstance(value, (bytes, bytearray, memoryview)):
        advice = "decode PCM with np.frombuffer(audio, dtype=np.int16)"
    elif isinstance(value, (list, tuple)):
        advice = "convert it with np.asarray(audio, dtype=np.float32)"
    else:
        advice = "load files with load_audio(path)" if isinstance(value, str) else "give its samples"
    raise InvalidAudioError(f"audio must be a numpy array, not {name}: {advice}")


def _frame_count(samples: npt.NDArray[Any], channel_axis: int | None) -> int:
    """Samples per channel."""
    return int(samples.shape[0 if channel_axis is None else 1 - channel_axis])


def _integral(value: object) -> int | None:
    """A whole number as int; None for a bool, a fraction, NaN or anything that is not a number."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return None


def _shown(value: object) -> str:
    """A rate for a message: numbers of a sane size as they are, of anything else only the type."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.complexfloating)):
        # str() of an int of thousands of digits raises.
        return f"{value}" if not abs(value) > 10**12 else "a number beyond 10**12"
    return f"{type(value).__name__}"

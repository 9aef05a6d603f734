"""Any audio buffer in, one clean mono float32 array out.

Everything that reaches the encoder passes through `to_mono`, so this is where a buffer that is not
audio is refused, with a message that says what was wrong and what to do. No sample ever gets into a
message: a voice is biometric data, and messages end in logs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import scale
from voiceprint.audio.io.encodings import AudioBuffer, Encoding, check_encoding, coded, decoded, default_rate
from voiceprint.errors import InvalidArgumentError, InvalidAudioError
from voiceprint.validation import is_integer, is_number

SAMPLE_RATE: Final = 16000
"""The rate that the encoder and the quality measures work at, in Hz."""

MIN_SAMPLE_RATE: Final = 8000
MAX_SAMPLE_RATE: Final = 48000
MAX_CHANNELS: Final = 8
MAX_SECONDS: Final = 3600
"""The longest buffer that is accepted. A zero-stride view of a few bytes can claim any length, so
without a limit such a view would exhaust the memory instead of being refused."""

_BLOCK: Final = 60 * SAMPLE_RATE  # samples of each channel that are converted together


def to_mono(
    audio_buffer: AudioBuffer,
    sample_rate: int,
    target_rate: int = SAMPLE_RATE,
    *,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> npt.NDArray[np.float32]:
    """Give a buffer as mono float32 at `target_rate`.

    Args:
        audio_buffer: a numpy array of int16, int32, uint8 (unsigned PCM, 128 is zero), float32 or
            float64 in [-1, 1], in any byte order; 1-D, or 2-D in either axis order: the shorter
            axis is the channels (the last one where both are equal), at most 8. Floats that overshoot
            full scale to at most 1.25 are clipped, those beyond, to 32 (+30 dB), are scaled down as a
            whole. Or bytes, bytearray or memoryview. At most an hour.
        sample_rate: of the buffer, an integral number of Hz in 8000..48000; see `rate_of`.
        target_rate: of the result, in the same range.
        encoding: of bytes ("pcm" is 16-bit little-endian), or of an array of G.711 codes; see
            `voiceprint.audio.io.encodings.Encoding`.
        channel: index of the channel to take, from 0; None mixes them by mean.
        channels: how many are interleaved in bytes, or in a 1-D array.

    Returns:
        float32[n] in [-1, 1], contiguous, n >= 1, never sharing memory with `audio_buffer`.
        Resampled by soxr ("HQ") where the rates differ.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel cannot be used; says why
            and what to do.
        InvalidArgumentError: `target_rate` is out of range.
    """
    rate = check_sample_rate(sample_rate)
    target = _integral(target_rate)
    if target is None or not MIN_SAMPLE_RATE <= target <= MAX_SAMPLE_RATE:
        raise InvalidArgumentError(
            f"target_rate must be a whole number of {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz, "
            f"not {_shown(target_rate)}"
        )
    samples, channel_axis = _opened(audio_buffer, rate, encoding, channel, channels)
    # The state of numpy's error handling is the caller's; with "raise" an underflow to zero would escape.
    with np.errstate(all="ignore"):
        mono = _scaled(samples, channel_axis)
        if rate != target:
            mono = resample(mono, rate, target)
    return mono


def as_pcm(
    audio_buffer: AudioBuffer,
    sample_rate: int,
    *,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> npt.NDArray[Any]:
    """Give a buffer as an array that needs no more explanation: decoded, and with the channel chosen.

    Arguments and errors are those of `to_mono`, which takes the result with the same `sample_rate`
    alone. Values are not looked at; an array that is PCM already is not copied.
    """
    samples, channel_axis = _opened(audio_buffer, check_sample_rate(sample_rate), encoding, channel, channels)
    if channel_axis == 1 and samples.shape[0] < samples.shape[1]:
        # Fewer samples than channels would be taken for the other order; the copies are less than a
        # millisecond.
        return np.repeat(samples, samples.shape[1], axis=0)
    return samples


def channels(audio_buffer: AudioBuffer, sample_rate: int) -> list[npt.NDArray[Any]]:
    """The channels of an array, or the one of bytes, as 1-D views of it.

    Raises:
        InvalidAudioError: the type, shape or sample rate cannot be used.
    """
    samples, channel_axis = _opened(audio_buffer, check_sample_rate(sample_rate), "pcm", None, 1)
    return [samples] if channel_axis is None else [*np.moveaxis(samples, channel_axis, 0)]


def duration(
    audio_buffer: AudioBuffer, sample_rate: int, *, encoding: Encoding = "pcm", channels: int = 1
) -> float:
    """Seconds of audio in a buffer, from its own sample count: samples per channel / `sample_rate`.

    Takes what `to_mono` takes, but does not look at the values.

    Raises:
        InvalidAudioError: the type, shape, encoding or sample rate cannot be used.
    """
    rate = check_sample_rate(sample_rate)
    samples, channel_axis = _checked(coded(audio_buffer, check_encoding(encoding)), rate, channels)
    return _frame_count(samples, channel_axis) / rate


def mix(block: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The mean of the channels of samples [n, channels], float32[n], as `to_mono` gives at the same rate."""
    with np.errstate(all="ignore"):
        return np.asarray(_scaled_block(block, 1, 1.0), dtype=np.float32)


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


def rate_of(sample_rate: object, encoding: Encoding) -> int:
    """The rate of a buffer as an int: that which is given, or of None the usual one of the encoding.

    Raises:
        InvalidAudioError: as `check_sample_rate`, or there is no such encoding.
    """
    if sample_rate is None:
        return default_rate(check_encoding(encoding))
    return check_sample_rate(sample_rate)


def check_channels(channels: object) -> int:
    """Give a number of channels as an int.

    Raises:
        InvalidAudioError: it is not 1 to 8.
    """
    count = _integral(channels)
    if count is None or not 1 <= count <= MAX_CHANNELS:
        raise InvalidAudioError(f"channels must be 1 to {MAX_CHANNELS}, not {_shown(channels)}")
    return count


def check_channel(channel: object, count: int) -> int:
    """Give the index of one of `count` channels as an int.

    Raises:
        InvalidAudioError: there is no such channel.
    """
    if not is_integer(channel) or not 0 <= channel < count:
        there = "1 channel: 0" if count == 1 else f"{count} channels: one of 0 to {count - 1}"
        raise InvalidAudioError(
            f"channel is {_shown(channel)}, and the audio has {there}, or None for all, is allowed"
        )
    return int(channel)


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


def _opened(
    audio_buffer: object, rate: int, encoding: Encoding, channel: int | None, channels: int
) -> tuple[npt.NDArray[Any], int | None]:
    """The buffer as an array of PCM with the channel chosen, and its channel axis (None: 1-D)."""
    encoding = check_encoding(encoding)
    samples, channel_axis = _checked(coded(audio_buffer, encoding), rate, channels)
    if channel is not None:
        channel = check_channel(channel, 1 if channel_axis is None else samples.shape[channel_axis])
        if channel_axis is not None:
            samples, channel_axis = np.moveaxis(samples, channel_axis, 0)[channel], None
    # Only now: what was refused for its length, or not chosen, is not worth decoding.
    return decoded(samples, encoding), channel_axis


def _checked(
    samples: npt.NDArray[Any], rate: int, interleaved: int = 1
) -> tuple[npt.NDArray[Any], int | None]:
    """The array, and its channel axis (None: 1-D). Looks at the shape only."""
    count = check_channels(interleaved)
    if samples.ndim not in (1, 2):
        raise InvalidAudioError(f"audio has {samples.ndim} dimensions: give [samples] or [samples, channels]")
    if not samples.size:
        raise InvalidAudioError(f"audio is empty (shape {samples.shape}): give at least one sample")
    channel_axis = None
    if samples.ndim == 1 and count > 1:
        if len(samples) % count:
            raise InvalidAudioError(
                f"audio of {len(samples)} samples is not a whole number of frames of {count} channels: "
                "give all of it"
            )
        samples, channel_axis = samples.reshape(-1, count), 1
    elif samples.ndim == 2:
        channel_axis = 0 if samples.shape[0] < samples.shape[1] else 1
        there = samples.shape[channel_axis]
        if there > MAX_CHANNELS:
            raise InvalidAudioError(
                f"audio of shape {samples.shape} has {there} channels on its shorter axis: "
                f"at most {MAX_CHANNELS} are accepted"
            )
        if count not in (1, there):
            raise InvalidAudioError(
                f"audio of shape {samples.shape} has {there} channels, and not {count}: leave channels out"
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
    length, read = _scaled_reader(samples, channel_axis)
    # In blocks, as an hour of it takes 220 MB in float32 already.
    mono = np.empty(length, dtype=np.float32)
    for start in range(0, length, _BLOCK):
        mono[start : start + _BLOCK] = read(start, start + _BLOCK)
    return mono


Reader = Callable[[int, int], npt.NDArray[np.float32]]


def scaled_reader(pcm: npt.NDArray[Any], sample_rate: int) -> tuple[int, Reader]:
    """For an array as from `as_pcm`: how many samples it has, and what gives any part of them converted.

    The reader gives samples start to stop, float32, mono, at the array's own rate, as `to_mono` would.

    Raises:
        InvalidAudioError: as `to_mono`.
    """
    return _scaled_reader(*_checked(coded(pcm, "pcm"), check_sample_rate(sample_rate)))


def _scaled_reader(samples: npt.NDArray[Any], channel_axis: int | None) -> tuple[int, Reader]:
    gain = scale.gain(scale.level(samples)) if samples.dtype.kind == "f" else 1.0

    def read(start: int, stop: int) -> npt.NDArray[np.float32]:
        part = slice(start, stop)
        # The state of numpy's error handling is the caller's; with "raise" an underflow to zero would escape.
        with np.errstate(all="ignore"):
            block = _scaled_block(
                samples[:, part] if channel_axis == 0 else samples[part], channel_axis, gain
            )
            return np.asarray(block, dtype=np.float32)

    return _frame_count(samples, channel_axis), read


def _scaled_block(samples: npt.NDArray[Any], channel_axis: int | None, gain: float) -> npt.NDArray[Any]:
    kind = samples.dtype.kind
    # In float64, an int32 keeps its low bits until the channels are mixed.
    wide = np.float64 if samples.dtype.itemsize > 2 and kind == "i" else np.float32
    values = samples.astype(wide, order="C", copy=True)
    if gain != 1.0:
        values *= wide(gain)
    if channel_axis is not None:
        # Several times as quick as `mean`, which goes along the few channels of each sample by itself.
        first, *others = np.moveaxis(values, channel_axis, 0)
        values = np.array(first)
        for other in others:
            values += other
        values /= 1 + len(others)
    if kind == "u":
        values -= 128
    if kind != "f":
        values /= 128 if kind == "u" else 2 ** (8 * samples.dtype.itemsize - 1)
    np.clip(values, -1.0, 1.0, out=values)
    return values


def _frame_count(samples: npt.NDArray[Any], channel_axis: int | None) -> int:
    """Samples per channel."""
    return int(samples.shape[0 if channel_axis is None else 1 - channel_axis])


def _integral(value: object) -> int | None:
    """A whole number as int; None for a bool, a fraction, NaN or anything that is not a number."""
    if is_integer(value):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return None


def _shown(value: object) -> str:
    """A rate for a message: numbers of a sane size as they are, of anything else only the type."""
    if is_number(value):
        # str() of an int of thousands of digits raises.
        return f"{value}" if not abs(value) > 10**12 else "a number beyond 10**12"
    return f"{type(value).__name__}"

"""Conversion of audio buffers to mono float32.

All input of the encoder passes through `to_mono`, which refuses buffers that are not audio. No message holds
a sample: a voice is biometric data, and messages end in logs.
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
"""Sample rate of the encoder and the quality measures, Hz."""

MIN_SAMPLE_RATE: Final = 8000
MAX_SAMPLE_RATE: Final = 48000
MAX_CHANNELS: Final = 8
MAX_SECONDS: Final = 3600
"""Seconds of the longest accepted buffer. Without a limit, a zero-stride view of a few bytes, which can claim
any length, would exhaust the memory."""

_BLOCK: Final = 60 * SAMPLE_RATE  # samples per channel converted together


def to_mono(
    audio_buffer: AudioBuffer,
    sample_rate: int,
    target_rate: int = SAMPLE_RATE,
    *,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> npt.NDArray[np.float32]:
    """Convert a buffer to mono float32 at `target_rate`.

    Args:
        audio_buffer: a numpy array of int16, int32, uint8 (unsigned PCM, 128 is zero), float32 or float64 in
            [-1, 1], in any byte order; 1-D, or 2-D in either axis order: the shorter axis (the last of equal
            ones) holds the channels, at most 8. Floats with peaks up to 1.25 are clipped, those up to 32
            (+30 dB) scaled down as a whole. Or bytes, bytearray or memoryview. At most an hour.
        sample_rate: of the buffer, an integral number of Hz in 8000..48000; see `rate_of`.
        target_rate: of the result, in the same range.
        encoding: of bytes ("pcm" is 16-bit little-endian), or of an array of G.711 codes; see
            `voiceprint.audio.io.encodings.Encoding`.
        channel: index of the channel to use, from 0; None averages all.
        channels: number of interleaved channels in bytes, or in a 1-D array.

    Returns:
        float32[n] in [-1, 1], contiguous, n >= 1, never sharing memory with `audio_buffer`.
        Resampled by soxr ("HQ") if the rates differ.

    Raises:
        InvalidAudioError: the buffer, its sample rate, encoding or channel is invalid.
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
    with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
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
    """Decode a buffer into a PCM array, and select the channel.

    Arguments and errors are those of `to_mono`, which accepts the result with the same `sample_rate`. Neither
    checks values nor copies an array of PCM.
    """
    samples, channel_axis = _opened(audio_buffer, check_sample_rate(sample_rate), encoding, channel, channels)
    if channel_axis == 1 and samples.shape[0] < samples.shape[1]:
        # Fewer samples than channels would mean the other axis order; the copies last under a millisecond.
        return np.repeat(samples, samples.shape[1], axis=0)
    return samples


def channels(audio_buffer: AudioBuffer, sample_rate: int) -> list[npt.NDArray[Any]]:
    """The channels of an array, or of mono bytes, as 1-D views.

    Raises:
        InvalidAudioError: the type, shape or sample rate is invalid.
    """
    samples, channel_axis = _opened(audio_buffer, check_sample_rate(sample_rate), "pcm", None, 1)
    return [samples] if channel_axis is None else [*np.moveaxis(samples, channel_axis, 0)]


def duration(
    audio_buffer: AudioBuffer, sample_rate: int, *, encoding: Encoding = "pcm", channels: int = 1
) -> float:
    """Seconds of audio in a buffer: samples per channel / `sample_rate`.

    Accepts the input of `to_mono`, but does not check values.

    Raises:
        InvalidAudioError: the type, shape, encoding or sample rate is invalid.
    """
    rate = check_sample_rate(sample_rate)
    samples, channel_axis = _checked(coded(audio_buffer, check_encoding(encoding)), rate, channels)
    return _frame_count(samples, channel_axis) / rate


def mix(block: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The mean of the channels of samples [n, channels], float32[n], as by `to_mono` without resampling."""
    with np.errstate(all="ignore"):
        return np.asarray(_scaled_block(block, 1, 1.0), dtype=np.float32)


def too_long(seconds: float, longest_s: float = MAX_SECONDS) -> str:
    """The message, without its subject, for audio over `longest_s` seconds."""
    return (
        f"lasts {seconds:.0f} s: at most {longest_s:g} s are accepted, cut out a part where the caller speaks"
    )


def check_sample_rate(sample_rate: object) -> int:
    """Validate a sample rate.

    Raises:
        InvalidAudioError: not an integral number of Hz in 8000..48000, or a bool.
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
    """The validated rate of a buffer; None means the default rate of the encoding.

    Raises:
        InvalidAudioError: as `check_sample_rate`, or the encoding is unknown.
    """
    if sample_rate is None:
        return default_rate(check_encoding(encoding))
    return check_sample_rate(sample_rate)


def check_channels(channels: object) -> int:
    """Validate a number of channels.

    Raises:
        InvalidAudioError: not 1 to 8.
    """
    count = _integral(channels)
    if count is None or not 1 <= count <= MAX_CHANNELS:
        raise InvalidAudioError(f"channels must be 1 to {MAX_CHANNELS}, not {_shown(channels)}")
    return count


def check_channel(channel: object, count: int) -> int:
    """Validate the index of one of `count` channels.

    Raises:
        InvalidAudioError: the channel does not exist.
    """
    if not is_integer(channel) or not 0 <= channel < count:
        there = "1 channel: 0" if count == 1 else f"{count} channels: one of 0 to {count - 1}"
        raise InvalidAudioError(
            f"channel is {_shown(channel)}, and the audio has {there} is allowed, or leave it empty for all"
        )
    return int(channel)


def resample(mono: npt.NDArray[np.float32], rate: int, target: int) -> npt.NDArray[np.float32]:
    """Resample float32[n] from `rate` to `target` Hz by soxr; at least one sample, clipped to [-1, 1]."""
    import soxr

    resampled = np.asarray(soxr.resample(mono, rate, target, quality="HQ"), dtype=np.float32)
    if not resampled.size:
        # Downsampled, one or two samples round to none, but callers expect at least one.
        return np.array(mono[:1], dtype=np.float32)
    # The steep filter overshoots at edges, slightly beyond [-1, 1].
    np.clip(resampled, -1.0, 1.0, out=resampled)
    return np.ascontiguousarray(resampled, dtype=np.float32)


def _opened(
    audio_buffer: object, rate: int, encoding: Encoding, channel: int | None, channels: int
) -> tuple[npt.NDArray[Any], int | None]:
    """The buffer as PCM array with the channel selected, and its channel axis (None: 1-D)."""
    samples, channel_axis = selected(audio_buffer, rate, encoding, channel, channels)
    # Last, so that refused and unselected samples are not decoded.
    return decoded(samples, encoding), channel_axis


def selected(
    audio_buffer: object, rate: int, encoding: Encoding, channel: int | None, channels: int
) -> tuple[npt.NDArray[Any], int | None]:
    """The encoded samples of a buffer with the channel selected, and their channel axis (None: 1-D).

    Arguments and errors are those of `to_mono`; values are not checked.
    """
    samples, channel_axis = _checked(coded(audio_buffer, check_encoding(encoding)), rate, channels)
    if channel is not None:
        channel = check_channel(channel, 1 if channel_axis is None else samples.shape[channel_axis])
        if channel_axis is not None:
            samples, channel_axis = np.moveaxis(samples, channel_axis, 0)[channel], None
    return samples, channel_axis


def _checked(
    samples: npt.NDArray[Any], rate: int, interleaved: int = 1
) -> tuple[npt.NDArray[Any], int | None]:
    """Check the shape; returns the array and its channel axis (None: 1-D)."""
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
        raise InvalidAudioError(f"audio {too_long(seconds)}")
    return samples, channel_axis


def _scaled(samples: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[np.float32]:
    """Convert checked samples to a new contiguous float32[n] in [-1, 1], with channels averaged."""
    length, read = _scaled_reader(samples, channel_axis)
    # In blocks: the result of an hour alone takes 220 MB.
    mono = np.empty(length, dtype=np.float32)
    for start in range(0, length, _BLOCK):
        mono[start : start + _BLOCK] = read(start, start + _BLOCK)
    return mono


Reader = Callable[[int, int], npt.NDArray[np.float32]]


def scaled_reader(pcm: npt.NDArray[Any], sample_rate: int) -> tuple[int, Reader]:
    """The length in samples of an array as from `as_pcm`, and a reader of its parts.

    The reader converts samples start to stop to mono float32 at the array's own rate, as `to_mono` does.

    Raises:
        InvalidAudioError: as `to_mono`.
    """
    return _scaled_reader(*_checked(coded(pcm, "pcm"), check_sample_rate(sample_rate)))


def _scaled_reader(samples: npt.NDArray[Any], channel_axis: int | None) -> tuple[int, Reader]:
    gain = scale.gain(scale.level(samples)) if samples.dtype.kind == "f" else 1.0

    def read(start: int, stop: int) -> npt.NDArray[np.float32]:
        part = slice(start, stop)
        with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
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
        # Several times faster than `mean`, which loops over the few channels of each sample.
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
    """An integral number as int; None for a bool, a fraction, NaN or another type."""
    if is_integer(value):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return None


def _shown(value: object) -> str:
    """A rate for a message: a number of plausible size, otherwise its type."""
    if is_number(value):
        # str() of an int of thousands of digits raises.
        return f"{value}" if not abs(value) > 10**12 else "a number beyond 10**12"
    return f"{type(value).__name__}"

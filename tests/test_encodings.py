"""Raw bytes and G.711 codes as audio: every encoding, every method that takes audio."""

from __future__ import annotations

import array
import asyncio
import io
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from raw_audio import SUBTYPES, every_encoding, raw
from voices import Voices, saved

from voiceprint import OpusAgentVoiceRecognizer, Verification, assess, preprocess_audio
from voiceprint.audio import Encoding, as_pcm, duration, to_mono
from voiceprint.audio.io import g711
from voiceprint.audio.io.formats import file_in_buffer
from voiceprint.errors import InvalidAudioError

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)


def test_every_encoding_is_tested() -> None:
    assert set(SUBTYPES) == set(get_args(Encoding))


@every_encoding
def test_bytes_of_every_encoding_are_read_as_libsndfile_reads_them(encoding: Encoding) -> None:
    noise = np.random.default_rng(3).uniform(-1, 1, 5000)
    data = raw(noise, encoding)
    expected, _ = soundfile.read(
        io.BytesIO(data),
        samplerate=8000, channels=1, format="RAW", subtype=SUBTYPES[encoding], endian="LITTLE",
    )  # fmt: skip
    for buffer in (data, bytearray(data), memoryview(data), memoryview(bytearray(data))):
        mono = to_mono(buffer, 8000, 8000, encoding=encoding)
        assert mono.dtype == np.float32
        np.testing.assert_allclose(mono, expected, atol=1e-7)
        assert duration(buffer, 8000, encoding=encoding) == 5000 / 8000


@every_encoding
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_every_encoding_at_every_rate_gives_the_same_sound(encoding: Encoding, rate: int) -> None:
    time = np.arange(rate) / rate
    mono = to_mono(raw(0.5 * np.sin(2 * np.pi * 440 * time), encoding), rate, encoding=encoding)
    assert len(mono) == 16000
    spectrum = np.abs(np.fft.rfft(mono)) / 8000
    assert np.argmax(spectrum) == 440
    assert spectrum[440] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_codes_in_an_array_may_have_channels_in_either_axis_order(law: g711.Law) -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(128, 2)
    expected = g711.decode(codes, law) / 32768
    for buffer in (codes, codes.T, np.asfortranarray(codes)):
        np.testing.assert_allclose(
            to_mono(buffer, 8000, 8000, encoding=law), expected.mean(axis=1), atol=1e-7
        )
        for channel in (0, 1):
            mono = to_mono(buffer, 8000, 8000, encoding=law, channel=channel)
            np.testing.assert_array_equal(mono, expected[:, channel].astype(np.float32))


def test_an_array_is_taken_by_its_dtype_and_may_be_called_by_its_encoding() -> None:
    samples = np.int16(TONE * 32767)
    buffers: dict[Encoding, np.ndarray] = {
        "pcm_s16le": samples,
        "pcm_s32le": samples.astype(np.int32) << 16,
        "pcm_f32le": (samples / 32768).astype(np.float32),
    }
    for encoding, buffer in buffers.items():
        for given_ in (buffer, buffer.astype(buffer.dtype.newbyteorder(">"))):
            np.testing.assert_array_equal(to_mono(given_, 8000, encoding=encoding), to_mono(samples, 8000))
    coarse = (TONE * 100 + 128).astype(np.uint8)
    np.testing.assert_array_equal(to_mono(coarse, 8000, encoding="pcm_u8"), to_mono(coarse, 8000))
    assert not np.array_equal(to_mono(coarse, 8000, encoding="mulaw"), to_mono(coarse, 8000))


def test_a_view_of_numbers_is_taken_as_the_array_that_it_shows() -> None:
    floats = array.array("f", TONE)
    np.testing.assert_allclose(to_mono(memoryview(floats), 8000, 8000), TONE, atol=1e-7)
    integers = np.int16(TONE * 32767)
    np.testing.assert_array_equal(to_mono(memoryview(integers), 8000), to_mono(integers, 8000))
    np.testing.assert_array_equal(to_mono(memoryview(integers)[::2], 8000), to_mono(integers[::2], 8000))


def test_a_bytearray_can_be_filled_on_while_its_audio_is_in_use() -> None:
    received = bytearray(raw(TONE, "mulaw"))
    kept = as_pcm(received, 8000, encoding="mulaw"), as_pcm(bytearray(2 * 800), 8000)
    received.extend(b"\xff" * 160)  # a BufferError while anything looks into it
    held = bytearray(1600)
    pcm = as_pcm(held, 8000)
    held.extend(b"\0\0")
    assert (len(kept[0]), len(pcm)) == (8000, 800)


@pytest.mark.parametrize(
    ("buffer", "encoding", "says"),
    [
        (b"\0" * 5, "pcm_s24le", r"5 bytes .* samples of 24 bits: give all of it"),
        (b"\0" * 6, "pcm_s32le", "6 bytes .* 32 bits"),
        (b"\0" * 6, "pcm_f32le", "6 bytes .* 32 bits"),
        (b"\0" * 7, "pcm_s16le", "7 bytes .* 16 bits"),
        (b"", "mulaw", "empty"),
        (b"", "pcm_s24le", "empty"),
        (b"\0" * (3600 * 8000 + 1), "mulaw", "at most 3600 s"),
        (np.broadcast_to(np.uint8(0), (10**13,)), "alaw", "at most 3600 s"),
        (np.zeros(9, np.int16), "mulaw", "dtype int16, which is not mulaw: give bytes or an array of uint8"),
        (np.zeros(9, np.int8), "alaw", "dtype int8"),
        (np.zeros(9, np.uint8), "pcm_s16le", "dtype uint8, which is not pcm_s16le.*int16"),
        (np.zeros(9, np.int32), "pcm_s24le", "not pcm_s24le: give bytes, or leave"),
        (np.zeros(9, "V3"), "pcm_s24le", "give bytes"),
        (np.array([np.nan], "<f4").tobytes(), "pcm_f32le", "NaN"),
        (np.array([9e9], "<f4").tobytes(), "pcm_f32le", "peak"),
        ([0, 1], "mulaw", "numpy array or bytes, not list"),
        ("\xff\xff", "mulaw", "not str"),
        (np.ma.masked_array(np.zeros(4, np.uint8), mask=[0, 0, 1, 0]), "mulaw", "filled"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_encoding_is_refused(buffer: Any, encoding: Encoding, says: str) -> None:
    with pytest.raises(InvalidAudioError, match=says):
        to_mono(buffer, 8000, encoding=encoding)
    with pytest.raises(InvalidAudioError, match=says):
        assess(buffer, sample_rate=8000, encoding=encoding)


@pytest.mark.parametrize(
    "encoding", ["ulaw", "PCM", "", "x" * 5000, None, 8, b"mulaw", ["mulaw"], np.array(["pcm"])]
)
def test_an_unknown_encoding_is_refused_with_the_names_there_are(encoding: Any) -> None:
    for buffer in (b"\0\0", np.zeros(3, np.uint8)):
        with pytest.raises(
            InvalidAudioError, match=r"^encoding must be one of pcm, pcm_u8, .*mulaw, alaw, not"
        ) as e:
            to_mono(buffer, 8000, encoding=encoding)
        assert len(str(e.value)) < 200


@given(
    data=st.binary(max_size=400), encoding=st.sampled_from(get_args(Encoding)), rate=st.integers(8000, 48000)
)
def test_any_bytes_are_audio_or_a_typed_error(data: bytes, encoding: Encoding, rate: int) -> None:
    try:
        mono = to_mono(data, rate, rate, encoding=encoding)
    except InvalidAudioError:
        width = len(raw([0.0], encoding))
        assert not data or len(data) % width or encoding == "pcm_f32le" or file_in_buffer(data)
        return
    assert len(mono) == len(data) / len(raw([0.0], encoding))
    assert np.abs(mono).max() <= 1


@given(
    samples=st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=50),
    cut=st.integers(1, 2),
)
def test_24_bit_samples_survive_packing(samples: list[int], cut: int) -> None:
    data = b"".join(sample.to_bytes(3, "little", signed=True) for sample in samples)
    np.testing.assert_array_equal(as_pcm(data, 8000, encoding="pcm_s24le"), np.array(samples) << 8)
    with pytest.raises(InvalidAudioError, match="24 bits"):
        as_pcm(data[:-cut], 8000, encoding="pcm_s24le")


# Every method


@pytest.fixture(scope="module")
def line(voices: Voices) -> dict[str, list[np.ndarray]]:
    """Two callers as int16 at 8 kHz."""
    return {
        name: [np.int16(soxr.resample(audio, 16_000, 8_000).clip(-1, 1) * 32767) for audio in voices[name]]
        for name in ("amara", "bruno")
    }


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_method_takes_telephone_bytes(
    quick: OpusAgentVoiceRecognizer, line: dict[str, list[np.ndarray]], law: g711.Law
) -> None:
    codes = {name: [g711.encode(audio, law).tobytes() for audio in audios] for name, audios in line.items()}
    how: dict[str, Any] = {"sample_rate": 8000, "encoding": law}
    enrolled = quick.enroll_caller("amara", codes["amara"][0], **how)
    (many,) = quick.enroll_many([("bruno", codes["bruno"][0], None)], **how)
    asyncio.run(quick.aenroll_caller("amara", codes["amara"][1], **how))
    decoded = g711.decode(np.frombuffer(codes["amara"][0], np.uint8), law)
    expected = quick.get_embedding(decoded, sample_rate=8000)
    np.testing.assert_array_equal(quick.get_embedding(codes["amara"][0], **how), expected)
    np.testing.assert_allclose(enrolled.embedding, expected, atol=1e-6)
    assert saved(many).caller_id == "bruno"
    np.testing.assert_array_equal(preprocess_audio(codes["amara"][0], **how), to_mono(decoded, 8000))
    assert assess(codes["amara"][0], **how) == assess(decoded, sample_rate=8000)
    for name, audios in codes.items():
        for match in (
            quick.match_caller(audios[2], **how),
            asyncio.run(quick.amatch_caller(audios[2], **how)),
        ):
            assert match is not None
            assert match[0] == name
        assert quick.identify(audios[2], **how)[0].caller_id == name
        assert quick.identify(audios[2], **how, candidates=[name])[0].caller_id == name
        assert asyncio.run(quick.aidentify(audios[2], **how))[0].caller_id == name
        assert quick.verify_caller(name, audios[2], **how).accepted


def test_bytes_alone_are_16_bit_pcm_as_voice_agents_send_it(
    quick: OpusAgentVoiceRecognizer, line: dict[str, list[np.ndarray]]
) -> None:
    first, second = (audio.astype("<i2") for audio in line["amara"][:2])
    voiceprint = quick.enroll_caller("amara", first.tobytes(), sample_rate=8000)
    np.testing.assert_array_equal(voiceprint.embedding, quick.get_embedding(first, sample_rate=8000))
    assert quick.match_caller(bytearray(second.tobytes()), sample_rate=8000) == quick.match_caller(
        second, sample_rate=8000
    )


def test_every_method_refuses_what_the_encoding_or_channel_does_not_fit(
    quick: OpusAgentVoiceRecognizer, line: dict[str, list[np.ndarray]]
) -> None:
    audio = line["amara"][0]
    quick.enroll_caller("amara", audio, sample_rate=8000)
    uses: list[Callable[..., object]] = [
        lambda **how: quick.enroll_caller("a", audio, sample_rate=8000, **how),
        lambda **how: quick.get_embedding(audio, sample_rate=8000, **how),
        lambda **how: quick.match_caller(audio, sample_rate=8000, **how),
        lambda **how: quick.identify(audio, sample_rate=8000, **how),
        lambda **how: quick.verify_caller("amara", audio, sample_rate=8000, **how),
        lambda **how: asyncio.run(quick.aenroll_caller("a", audio, sample_rate=8000, **how)),
        lambda **how: asyncio.run(quick.amatch_caller(audio, sample_rate=8000, **how)),
        lambda **how: asyncio.run(quick.aidentify(audio, sample_rate=8000, **how)),
        lambda **how: preprocess_audio(audio, 8000, **how),
        lambda **how: assess(audio, sample_rate=8000, **how),
    ]
    for use in uses:
        for how in ({"encoding": "mulaw"}, {"encoding": "nonsense"}, {"channel": 1}):
            with pytest.raises(InvalidAudioError):
                use(**how)
        use(encoding="pcm_s16le", channel=0)
    results = quick.enroll_many([("b", audio, None), ("b", audio, None)], sample_rate=8000, channel=1)
    assert [type(result) for result in results] == [InvalidAudioError] * 2
    assert isinstance(quick.verify_caller("amara", audio, sample_rate=8000), Verification)

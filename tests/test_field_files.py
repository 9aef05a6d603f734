"""Files as telephone systems, recorders and pipes write them: all of the audio or an error, never a part."""

from __future__ import annotations

import itertools
import logging
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import field_files as field
import numpy as np
import pytest
import soundfile

from voiceprint.audio import load_audio, open_audio
from voiceprint.errors import InvalidAudioError

VOICE = field.voice()
SIZE = 2 * len(VOICE)

# What each is, and what is said about it; None: nothing is wrong with it.
EXACT: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "wav": (field.wav, None),
    "wav from SoX in a pipe": (lambda: field.wav(0x7FFFF000), "does not say how long"),
    "wav of espeak in a pipe": (lambda: field.wav(0x7FFFF024), "does not say how long"),
    "wav of GStreamer in a pipe": (lambda: field.wav(0x7FFF0000), "does not say how long"),
    "wav of arecord": (lambda: field.wav(0x80000000), "does not say how long"),
    "wav of npm wav": (lambda: field.wav(0xFFFFFFDB, riff=0xFFFFFFFF), "does not say how long"),
    "wav of ffmpeg in a pipe": (lambda: field.wav(0xFFFFFFFF, riff=0xFFFFFFFF), "does not say how long"),
    "wav of a writer that died": (lambda: field.wav(0, riff=0), "did not end: 47,640 samples were read"),
    "wav that counts its header": (lambda: field.wav(SIZE + 44), "counts 44 bytes too many"),
    "wav that counts 36 of it": (lambda: field.wav(SIZE + 36), "counts 36 bytes too many"),
    "wav that still grows": (lambda: field.wav(SIZE // 3), "31,760 bytes of audio and 95,280 are there"),
    "wav with one sample more": (lambda: field.wav(SIZE - 16), "95,264 bytes of audio and 95,280"),
    "wav with a wrong RIFF size": (lambda: field.wav(riff=0), None),
    "wav with chunks before": (lambda: field.wav(before=b"LIST\4\0\0\0INFO" + b"JUNK" + bytes(4)), None),
    "wav with chunks behind": (lambda: field.wav(behind=b"LIST\4\0\0\0INFO" + b"id3 \2\0\0\0xx"), None),
    "wav with a chunk that is cut off": (lambda: field.wav(behind=b"LIST\xff\0\0\0INFO"), None),
    "wav with an ID3v1 tag": (lambda: field.wav(behind=b"TAG" + b"x" * 125), None),
    "wav filled up with zeros": (lambda: field.wav(behind=bytes(468)), None),
    "wav behind an ID3 tag": (lambda: field.id3(b"x" * 300) + field.wav(), None),
    "wav of the extensible format": (lambda: field.written("WAVEX", "PCM_16"), None),
    "big-endian wav": (lambda: _big_endian(), None),
    "rf64": (lambda: field.rf64(SIZE), None),
    "rf64 of a writer that died": (lambda: field.rf64(0), None),
    "bw64": (lambda: b"BW64" + field.rf64(SIZE)[4:], None),
    "w64": (lambda: field.written("W64", "PCM_16"), None),
    "w64 of a writer that died": (lambda: field.w64(24), None),
    "aiff": (field.aiff, None),
    "aiff of SoX in a pipe": (lambda: field.aiff(0x7F000008, 0x7F000000 // 2), "does not say how long"),
    "aiff of ffmpeg in a pipe": (lambda: field.aiff(0, 0), "did not end"),
    "aiff-c": (lambda: field.aiff(compression=b"NONE"), None),
    "aiff-c, little-endian": (lambda: field.aiff(compression=b"sowt"), None),
    "au": (lambda: field.au(SIZE), None),
    "au of unknown length": (lambda: field.au(0xFFFFFFFF), None),
    "caf": (lambda: field.caf(SIZE + 4), None),
    "caf of unknown length": (lambda: field.caf(-1), None),
    "caf of SoX in a pipe": (lambda: _twice(field.caf(4)), None),
    "flac": (lambda: field.written("FLAC"), None),
    "flac of unknown length": (lambda: field.flac_total(field.written("FLAC"), 0), "does not say how long"),
    "flac that says half": (lambda: field.flac_total(field.written("FLAC"), 9999), "9,999 samples: 47,640"),
    "flac with an ID3v1 tag": (
        lambda: field.flac_total(field.written("FLAC"), 0) + b"TAG" + b"x" * 125, "47,640"
    ),
    "flac filled up with zeros": (lambda: field.flac_total(field.written("FLAC"), 0) + bytes(999), "47,640"),
    "flac behind an ID3 tag": (lambda: field.id3(b"x" * 300) + field.written("FLAC"), None),
}  # fmt: skip


def _big_endian() -> bytes:
    file = field.written("AIFF", "PCM_16")
    fmt = struct.pack(">IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    data = b"data" + struct.pack(">I", SIZE) + file[-SIZE:]
    return b"RIFX" + struct.pack(">I", 36 + SIZE) + b"WAVEfmt " + fmt + data


def _twice(caf: bytes) -> bytes:
    header = caf[: len(caf) - SIZE]
    return header + header + VOICE.tobytes() + header


def read(
    tmp_path: Path, data: bytes, name: str = "call.bin", **how: Any
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """The samples, rate and warnings of a file; the name says nothing, unless a test gives one."""
    (tmp_path / name).write_bytes(data)
    with open_audio(tmp_path / name, **how) as reader:
        blocks = [*reader.blocks()]
        return np.concatenate(blocks), reader.sample_rate, reader.warnings


@pytest.mark.parametrize("kind", EXACT)
def test_every_sample_is_read_and_what_is_odd_is_said(tmp_path: Path, kind: str) -> None:
    make, says = EXACT[kind]
    samples, rate, warnings = read(tmp_path, make())
    np.testing.assert_array_equal(samples[:, 0], VOICE)
    assert rate == 8000
    assert (says or "") in "; ".join(warnings)
    assert bool(warnings) == bool(says)


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("container", ["WAV", "W64", "AIFF", "AU", "CAF", "RF64"])
def test_each_coding_of_each_container_is_decoded_as_libsndfile_does(
    tmp_path: Path, container: str, coding: str
) -> None:
    if coding == "PCM_U8" and container in ("AU", "CAF"):
        coding = "PCM_S8"
    data = field.written(container, coding)
    (tmp_path / "call").write_bytes(data)
    expected, _ = soundfile.read(tmp_path / "call", dtype="float32")
    samples, rate = load_audio(tmp_path / "call")
    np.testing.assert_array_equal(samples, expected)
    assert rate == 8000


@pytest.mark.parametrize("coding", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
@pytest.mark.parametrize("claimed", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_compressed_wav_of_unknown_length_is_what_it_is_with_a_length(
    tmp_path: Path, coding: str, claimed: int
) -> None:
    data = bytearray(field.written("WAV", coding))
    whole, _, warnings = read(tmp_path, bytes(data))
    assert not warnings
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", claimed)
    samples, _, warnings = read(tmp_path, bytes(data))
    np.testing.assert_array_equal(samples, whole)
    assert len(whole) >= len(VOICE)
    assert len(warnings) == 1


# MP3: of the voice at 16 kHz, which is 95,280 samples; a coder fills up the last frame and adds its delay.


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tag", [b"", field.id3(b"\xff\xfb\x90" * 9000)], ids=["bare", "with a cover"])
def test_mp3_without_a_count_of_its_frames_is_read_to_the_end(tmp_path: Path, mode: str, tag: bytes) -> None:
    counted, _, _ = read(tmp_path, field.mp3(mode))
    samples, rate, warnings = read(tmp_path, tag + field.mp3(mode, header=False))
    assert (len(counted), rate, warnings) == (95_280, 16_000, ())
    assert 95_280 <= len(samples) <= 95_280 + 4 * 576
    # The same audio, behind the coder's delay.
    delay = int(np.argmax(np.correlate(samples[40_000:46_000, 0], counted[40_000:44_000, 0], "valid")))
    assert np.corrcoef(samples[delay : delay + 90_000, 0], counted[:90_000, 0])[0, 1] > 0.999


def test_mp3_that_begins_quiet_is_not_measured_by_its_first_frames(tmp_path: Path) -> None:
    """The bit rate of the first frames is that of silence; by it libsndfile stopped after a third."""
    quiet = np.concatenate((np.zeros(16_000, np.float32), field.voice(16_000) / np.float32(32768)))
    soundfile.write(
        tmp_path / "a.mp3", quiet, 16_000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.1
    )
    data = (tmp_path / "a.mp3").read_bytes()
    from voiceprint.audio.io import mpeg

    frame = mpeg.frame_at(data, 0)
    assert frame is not None
    samples, _, warnings = read(tmp_path, data[frame.length :])
    assert 111_280 <= len(samples) <= 111_280 + 4 * 576
    assert warnings == ()


def test_mp3_in_a_wav_file_is_read_as_the_mp3_is(tmp_path: Path) -> None:
    bare, _, _ = read(tmp_path, field.mp3(header=False))
    samples, rate, warnings = read(tmp_path, field.mp3_in_wav())
    np.testing.assert_array_equal(samples, bare)
    assert (rate, warnings) == (16_000, ())


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("between", [b"", field.id3(b"picture"), b"TAG" + b"x" * 125])
def test_joined_mp3_is_read_to_the_end(tmp_path: Path, header: bool, between: bytes) -> None:
    first, second = field.mp3("CONSTANT", header=header), field.mp3("VARIABLE", header=header)
    each = [read(tmp_path, data)[0] for data in (first, second)]
    samples, _, warnings = read(tmp_path, first + between + second)
    # Without anything between them they are one stream, whose second part may need a frame to settle.
    assert abs(len(samples) - sum(map(len, each))) <= (0 if header or between else 2 * 576)
    if header or between:
        assert "2 MP3 files were joined" in warnings[0]
        np.testing.assert_array_equal(samples, np.concatenate(each))


def test_mp3_out_of_the_middle_of_a_stream_is_read_with_a_warning(tmp_path: Path) -> None:
    data = field.mp3(header=False)
    samples, _, warnings = read(tmp_path, data[100:])
    assert len(samples) >= 95_280 - 2 * 576
    assert "bytes between its frames are no audio" in warnings[0]


# OGG


@pytest.mark.parametrize("codec", ["OPUS", "VORBIS"])
def test_ogg_of_several_streams_is_read_to_the_end(tmp_path: Path, codec: str) -> None:
    one = field.written("OGG", codec)
    whole, _, warnings = read(tmp_path, one)
    assert (len(whole), warnings) == (len(VOICE), ())
    samples, _, warnings = read(tmp_path, one + one + one)
    assert "3 streams follow each other" in warnings[0]
    np.testing.assert_array_equal(samples, np.concatenate([whole] * 3))


@pytest.mark.parametrize("codec", ["OPUS", "VORBIS"])
def test_ogg_without_an_end_is_read_and_said(tmp_path: Path, codec: str) -> None:
    one = field.written("OGG", codec)
    pages = field.ogg_pages(one)
    lacking = one[: -len(pages[-1])]
    samples, _, warnings = read(tmp_path, lacking)
    assert 0 < len(samples) < len(VOICE)
    assert "its stream has no end" in warnings[0]


def test_ogg_streams_of_different_channels_are_an_error_that_says_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.ogg", np.stack([VOICE, VOICE], 1), 8000, format="OGG", subtype="VORBIS")
    data = field.written("OGG", "VORBIS") + (tmp_path / "two.ogg").read_bytes()
    with pytest.raises(InvalidAudioError, match=r"1 channels, and of 8000 Hz, 2 channels: divide it"):
        read(tmp_path, data)


def test_an_ogg_page_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    data = bytearray(field.written("OGG", "VORBIS"))
    data[len(data) // 2] ^= 1
    with pytest.raises(InvalidAudioError, match=r"damaged: the page at byte .* wrong checksum"):
        read(tmp_path, bytes(data))


def test_joined_flac_is_read_to_the_end(tmp_path: Path) -> None:
    one = field.written("FLAC")
    samples, _, warnings = read(tmp_path, one + field.flac_total(one, 0))
    np.testing.assert_array_equal(samples[:, 0], np.concatenate((VOICE, VOICE)))
    assert "2 FLAC files were joined" in "; ".join(warnings)


# What was cut off


CUT: dict[str, Callable[[], bytes]] = {
    "wav": field.wav,
    "adpcm": lambda: field.written("WAV", "IMA_ADPCM"),
    "aiff": field.aiff,
    "au": lambda: field.au(SIZE),
    "caf": lambda: field.caf(SIZE + 4),
    "w64": lambda: field.written("W64"),
    "flac": lambda: field.written("FLAC"),
    "flac of unknown length": lambda: field.flac_total(field.written("FLAC"), 0),
    "opus": lambda: field.written("OGG", "OPUS"),
    "vorbis": lambda: field.written("OGG", "VORBIS"),
    "mp3": field.mp3,
    "mp3 without a count": lambda: field.mp3(header=False),
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.9, 0.983])
def test_what_was_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = CUT[kind]()
    with pytest.raises(InvalidAudioError, match=r"is truncated|is damaged.*lost sync"):
        read(tmp_path, data[: int(len(data) * share) | 1])


# Formats of the extra, and without it


AV: dict[str, tuple[Callable[[], bytes], int, int]] = {
    "MP4/AAC": (lambda: field.encoded("ipod", "aac", 16_000), 16_000, 95_280),
    "WebM/Opus": (lambda: field.encoded("webm", "libopus", 48_000), 48_000, 285_840),
    "AMR": (lambda: field.encoded("amr", "amr_nb"), 8_000, 47_640),
    "AAC": (lambda: field.encoded("adts", "aac", 16_000), 16_000, 95_280),
    "AVI": (lambda: field.encoded("avi", "mp3", 16_000), 16_000, 95_280),
    "WAV/G.726": (lambda: field.encoded("wav", "g726"), 8_000, 47_640),
}


@pytest.mark.parametrize("name", AV)
def test_other_formats_are_read_by_the_extra(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    make, wanted_rate, frames = AV[name]
    samples, rate, _ = read(tmp_path, make())
    assert rate == wanted_rate
    # A codec adds its delay, and fills up its last packet, of 2,048 samples at most.
    assert frames - 512 <= len(samples) <= frames + 4096
    assert np.abs(samples).max() > 0.3 * (32768 if samples.dtype == np.int16 else 1)


@pytest.mark.parametrize("name", AV)
def test_without_the_extra_a_format_is_named_with_what_to_do(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    data = AV[name][0]()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InvalidAudioError) as caught:
        read(tmp_path, data)
    assert f"is {name}: install opusagent-voiceprint[formats]" in str(caught.value)
    assert "ffmpeg -i IN OUT.wav" in str(caught.value)


@pytest.mark.parametrize("name", ["MP4/AAC", "AMR"])
def test_a_part_of_them_is_refused_where_they_say_how_long_they_are(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    data = AV[name][0]()
    with pytest.raises(InvalidAudioError):
        read(tmp_path, data[: 13 * (len(data) // 26) + 9])  # within a frame of AMR: 13 bytes, behind 6


def test_comfort_noise_of_amr_is_silence(tmp_path: Path) -> None:
    pytest.importorskip("av")
    data = field.encoded("amr", "amr_nb")
    noise = b"\x44" + bytes(5)  # a frame of type 8
    whole, _, _ = read(tmp_path, data)
    samples, _, _ = read(tmp_path, data + 10 * noise)
    np.testing.assert_array_equal(samples[: len(whole)], whole)
    assert len(samples) == len(whole) + 1600
    assert not samples[-1600:].any()


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"%PDF-1.4\n", "is PDF and not an audio file"),
        (b"PK\3\4", "is ZIP and not"),
        (b"<!DOCTYPE html>", "is HTML or XML and not"),
        (b"#EXTM3U\nhttp://a.example/1.mp3", "is playlist and not"),
        (b"ffconcat version 1.0\nfile /etc/passwd", "is playlist and not"),
        (b"hello", "not an audio file that can be read .*encoding and sample_rate"),
    ],
)
def test_what_is_no_audio_is_named(tmp_path: Path, head: bytes, says: str) -> None:
    with pytest.raises(InvalidAudioError, match=says):
        read(tmp_path, head + b" x" * 2000)


# Without a header


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [("sln", 8000), ("slin", 8000), ("sln8", 8000), ("SLN16", 16000), ("sln24", 24000), ("sln48", 48000)],
)
def test_signed_linear_has_the_rate_of_its_suffix(tmp_path: Path, suffix: str, rate: int) -> None:
    samples, found, _ = read(tmp_path, VOICE.tobytes(), f"call.{suffix}")
    np.testing.assert_array_equal(samples[:, 0], VOICE)
    assert found == rate


@pytest.mark.parametrize("suffix", ["ul", "ulaw", "mulaw", "pcmu", "mu", "al", "alaw", "pcma"])
def test_g711_by_its_suffix(tmp_path: Path, suffix: str) -> None:
    law = "ULAW" if "u" in suffix else "ALAW"
    samples, rate, _ = read(tmp_path, field.written("RAW", law), f"call.{suffix}")
    assert rate == 8000
    np.testing.assert_allclose(samples[:, 0], VOICE, atol=600)


def test_gsm_and_dialogic_files_are_read_by_libsndfile(tmp_path: Path) -> None:
    for suffix, coding in (("gsm", "GSM610"), ("vox", "VOX_ADPCM")):
        samples, rate, _ = read(tmp_path, field.written("RAW", coding), f"call.{suffix}")
        assert rate == 8000
        assert abs(len(samples) - len(VOICE)) < 320
        assert np.corrcoef(samples[:47_000, 0], VOICE[:47_000])[0, 1] > 0.9
    with pytest.raises(InvalidAudioError, match="no whole number of frames of 33 bytes"):
        read(tmp_path, bytes(100), "call.gsm")


def test_g722_is_read_at_16_khz(tmp_path: Path) -> None:
    pytest.importorskip("av")
    samples, rate, _ = read(tmp_path, field.encoded("g722", "g722", 16_000), "call.g722")
    assert (len(samples), rate) == (95_280, 16_000)


def test_with_an_encoding_and_a_rate_any_suffix_will_do(tmp_path: Path) -> None:
    for name in ("call", "call.xyz", "call.g722", "call.sln"):
        samples, rate, _ = read(tmp_path, VOICE.tobytes(), name, encoding="pcm_s16le", sample_rate=8000)
        assert rate == 8000
        np.testing.assert_array_equal(samples[:, 0], VOICE)
    with pytest.raises(InvalidAudioError, match="give sample_rate"):
        read(tmp_path, VOICE.tobytes(), "call.xyz", encoding="pcm_s16le")


def test_a_header_wins_over_a_suffix(tmp_path: Path) -> None:
    for suffix, data in (("raw", field.wav()), ("sln", field.written("FLAC")), ("mp3", field.wav())):
        samples, _, _ = read(tmp_path, data, f"call.{suffix}")
        np.testing.assert_array_equal(samples[:, 0], VOICE)


# Floats over full scale


@pytest.mark.parametrize("peak", [1.3, 2.14, 30.0])
def test_floats_over_full_scale_are_scaled_down_and_said(tmp_path: Path, peak: float) -> None:
    loud = VOICE / np.abs(VOICE).max() * np.float32(peak)
    soundfile.write(tmp_path / "loud.wav", loud, 8000, subtype="FLOAT")
    samples, _, warnings = read(tmp_path, (tmp_path / "loud.wav").read_bytes())
    np.testing.assert_allclose(samples[:, 0], loud / peak, atol=1e-6)
    assert f"over full scale by {20 * np.log10(peak):.1f} dB" in warnings[0]


@pytest.mark.parametrize("values", [VOICE.astype(np.float32), VOICE / np.float32(3), np.rint(VOICE / 1000)])
def test_integers_as_floats_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    soundfile.write(tmp_path / "int.wav", values, 8000, subtype="FLOAT")
    with pytest.raises(InvalidAudioError, match="look like int16 values"):
        load_audio(tmp_path / "int.wav")


# Limits before work


@pytest.mark.parametrize(
    "data",
    [
        field.flac_total(field.written("FLAC"), 3 * 3600 * 8000)[:20_000],
        field.flac_total(field.written("FLAC"), (1 << 36) - 1),
    ],
)
def test_a_header_of_hours_is_refused_before_anything_is_decoded(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "long.flac").write_bytes(data)
    with pytest.raises(InvalidAudioError, match=r"at most 3600 s|is truncated"):
        open_audio(tmp_path / "long.flac")


def test_a_long_wav_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(field.wav(data=b"", claimed=0))
        file.truncate(4 * 3600 * 16_000)  # sparse: takes no room
    with pytest.raises(InvalidAudioError, match="at most 3600 s are accepted"):
        open_audio(tmp_path / "long.wav")


def test_empty_chunks_without_end_are_refused_at_once(tmp_path: Path) -> None:
    for head, order in ((b"RIFF\0\0\0\0WAVE", "<"), (b"FORM\0\0\0\0AIFF", ">")):
        with pytest.raises(InvalidAudioError, match="more than 1000 chunks"):
            read(tmp_path, head + (b"JUNK" + struct.pack(f"{order}I", 0)) * 1_000_000)


def test_junk_between_mp3_frames_is_not_looked_through_without_end(tmp_path: Path) -> None:
    data = field.mp3(header=False)
    with pytest.raises(InvalidAudioError, match="256 KB between its MP3 frames"):
        read(tmp_path, data + b"\xff" * (1 << 23) + data)


# The reader


def test_blocks_are_as_long_as_is_asked_for(tmp_path: Path) -> None:
    stereo = np.stack([VOICE, -VOICE], 1)
    soundfile.write(tmp_path / "a.wav", stereo, 8000)
    with open_audio(tmp_path / "a.wav") as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (8000, 2, len(VOICE))
        assert reader.is_16_bit
        blocks = [*reader.blocks(1.0)]
    assert [len(block) for block in blocks[:-1]] == [8000] * 5
    assert {block.dtype for block in blocks} == {np.dtype(np.int16)}
    np.testing.assert_array_equal(np.concatenate(blocks), stereo)


def test_warnings_are_logged_with_the_path_and_without_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(field.wav(SIZE + 44))
    with caplog.at_level(logging.WARNING):
        load_audio(path)
    assert caplog.messages == [f"{path}: the header counts 44 bytes too many: 47,640 samples were read"]


def test_a_file_is_closed_when_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    for data in (b"RIFF", field.wav()[:5000], b"", field.mp3()[:3000]):
        path.write_bytes(data)
        # A file that is left open is a ResourceWarning, and that is an error in these tests.
        with pytest.raises(InvalidAudioError):
            load_audio(path)


# The recordings of the field, where they are at hand


FIELD = Path(__file__).parent.parent / "shared" / "field-files"
if not FIELD.is_dir():
    FIELD = Path(__file__).parent.parent.parent / "shared" / "field-files"
RIGHT: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        (
            "good_8k.wav", "wav_size_7ffff000_sox_pipe.wav", "wav_size_80000000_arecord.wav",
            "wav_size_ffffffdb.wav", "wav_size_0_unclosed.wav", "wav_size_44_too_big.wav",
            "wav_header_says_half.wav", "asterisk_8k.sln", "twilio.mulaw", "phone.amr", "g726.wav",
        ),
        (44_000, 8_000),
    ),
    **dict.fromkeys(
        ("flac_unknown_length_pipe.flac", "opus_whole.opus", "zoom.m4a", "g722_asterisk.g722"),
        (88_000, 16_000),
    ),
    **dict.fromkeys(("mp3_cbr_no_xing.mp3", "mp3_ffmpeg_pipe.mp3"), (89_280, 16_000)),
    "mp3_in_wav.wav": (45_504, 8_000),
    "mp3_vbr_no_xing.mp3": (244_224, 44_100),
    "opus_two_links_chained.ogg": (176_000, 16_000),
    "float_peak_2.14.wav": (40_000, 8_000),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_every_field_file_gives_its_right_value(name: str) -> None:
    if not (FIELD / name).is_file():
        pytest.skip(f"{name}: the recordings of shared/field-files are not at hand")
    if name in ("zoom.m4a", "phone.amr", "g722_asterisk.g722", "g726.wav"):
        pytest.importorskip("av")
    samples, rate = load_audio(FIELD / name)
    assert (len(samples), rate) == RIGHT[name]


def test_the_makers_of_the_tests_make_different_files() -> None:
    made = [make() for make, _ in EXACT.values()]
    for one, other in itertools.combinations(made, 2):
        assert one != other

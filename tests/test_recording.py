"""`Recording`: each property computed once, lazily where audio is long, from buffers and from files."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from voices import RATE, Voices

from voiceprint import (
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    assess,
    load_audio,
    preprocess_audio,
)
from voiceprint.audio import Recording, to_mono
from voiceprint.audio.enhance.high_pass import HighPass, LowFrequencyMeter
from voiceprint.audio.io import buffers
from voiceprint.audio.io.buffers import resample
from voiceprint.audio.io.lazy_audio import LONG_S
from voiceprint.audio.speech.vad import Detector

ROOT = Path(__file__).parent.parent


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The numbers of times that audio was resampled, and searched for speech."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return called

    monkeypatch.setattr(buffers, "resample", counting("resampled", buffers.resample))
    monkeypatch.setattr(Detector, "flags", counting("searched", Detector.flags))
    return calls


def test_a_channel_of_a_recording_is_not_chosen_later(voices: Voices) -> None:
    stereo = np.stack([voices["amara"][0][:80_000], voices["bruno"][0][:80_000]], axis=1)
    recording = Recording.from_buffer(stereo, channel=0)
    for later in ({"channel": 1}, {"channels": 2}):
        with pytest.raises(InvalidAudioError, match="when you make it"):
            Recording.from_buffer(recording, **later)  # type: ignore[arg-type]
    assert Recording.from_buffer(recording, 8000) is recording


def test_plain_match_resamples_once_and_searches_for_speech_once(
    voices: Voices, counted: Counter[str]
) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    recognizer.enroll_caller("amara", voices["amara"][0])
    high = resample(voices["amara"][1], RATE, 2 * RATE)  # no line, which would be cleaned
    counted.clear()
    match = recognizer.match_caller(high, sample_rate=2 * RATE)
    assert match is not None
    assert counted == {"resampled": 1, "searched": 1}


def test_properties_are_computed_once(voices: Voices, counted: Counter[str]) -> None:
    recording = Recording.from_buffer(voices["bruno"][0][::2].copy(), RATE // 2)
    first = recording.quality, recording.segments, recording.trimmed, recording.mono
    assert (recording.quality, recording.segments, recording.trimmed, recording.mono) == first
    assert recording.quality is first[0]
    assert counted == {"resampled": 1, "searched": 1}


def test_every_method_takes_a_recording(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    sample, probe = (Recording.from_buffer(audio) for audio in voices["amara"][:2])
    assert recognizer.check_enrollment(sample).ready
    recognizer.enroll_caller("amara", sample)
    assert recognizer.enroll_many([("bruno", Recording.from_buffer(voices["bruno"][0]), None)])
    match = recognizer.match_caller(probe)
    assert match is not None
    assert match[0] == "amara"
    assert recognizer.identify(probe) == recognizer.identify(voices["amara"][1])
    assert recognizer.verify_caller("amara", probe).accepted
    assert np.array_equal(recognizer.get_embedding(probe), recognizer.get_embedding(voices["amara"][1]))
    assert assess(probe) == probe.quality


def test_embedding_of_clean_speech_is_that_of_the_encoder_to_the_bit(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    for audios in voices.values():
        for audio in audios:
            recording = Recording.from_buffer(audio)
            assert recording.parts == ((0, len(audio)),)
            assert np.array_equal(recognizer.get_embedding(recording), recognizer.encoder.embed(audio))


def test_repr_says_how_long_it_is_and_shows_no_audio(voices: Voices) -> None:
    assert repr(Recording.from_buffer(voices["amara"][0][:RATE])) == "Recording(1.0 s, 16000 Hz)"


def test_quality_imports_nothing_of_the_audio_package() -> None:
    code = (
        "import sys, types\n"
        f"package = types.ModuleType('alone'); package.__path__ = [r'{ROOT / 'voiceprint/audio/quality'}']\n"
        "sys.modules['alone'] = package\n"
        "from alone.model import AudioQuality\n"
        "assert not [name for name in sys.modules if name.startswith('voiceprint')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Files


def test_file_is_the_recording_of_its_samples(tmp_path: Path, voices: Voices) -> None:
    file = tmp_path / "voice.flac"
    soundfile.write(file, voices["carlo"][0], RATE)
    samples, rate = load_audio(file)
    opened = Recording.open(file)
    assert opened.sample_rate == rate
    assert np.array_equal(opened.mono[:], to_mono(samples, rate))
    assert opened.quality == assess(samples, sample_rate=rate)
    assert opened.warnings == ()


@pytest.mark.parametrize("channel", [None, 0, 1])
def test_channels_of_a_file_are_mixed_or_chosen(tmp_path: Path, voices: Voices, channel: int | None) -> None:
    length = 3 * RATE
    both = np.stack([voices["carlo"][0][:length], voices["elena"][0][:length]], axis=1)
    file = tmp_path / "both.wav"
    soundfile.write(file, both, RATE)
    samples, rate = load_audio(file)
    opened = Recording.open(file, channel=channel)
    assert np.array_equal(opened.mono[:], to_mono(samples, rate, channel=channel))
    assert opened.channels.differ == (channel is None)
    with pytest.raises(InvalidAudioError, match=r"both\.wav.*channel is 2"):
        Recording.open(file, channel=2)


def test_inverted_channels_of_a_file_are_not_mixed(tmp_path: Path, voices: Voices) -> None:
    voice = voices["carlo"][0]
    file = tmp_path / "inverted.wav"
    soundfile.write(file, np.stack([0.5 * voice, -0.5 * voice], axis=1), RATE)
    opened = Recording.open(file)
    assert opened.channels.use == 0
    assert "channels_cancel" in opened.quality.feedback
    np.testing.assert_allclose(opened.mono[:], 0.5 * voice, atol=1e-4)


MEMORY = """
import sys
from pathlib import Path
import numpy as np, soundfile
from voiceprint.audio import Recording
def memory(what):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) / 1024
Recording.from_buffer(np.zeros(16000, np.float32)).quality
Recording.open(sys.argv[2]).quality  # loads what reading needs
idle = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
recording = Recording.open(sys.argv[1])
assert recording.duration_s == 1800, recording
assert len(recording.mono[:16000]) == 16000
print(memory("VmHWM") - idle)
"""


@pytest.mark.slow
def test_file_of_eight_channels_is_never_there_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "eight.flac"
    second = np.zeros((8000, 8), dtype=np.int16)
    second[::100] = np.arange(8)
    with soundfile.SoundFile(file, "w", 8000, 8) as sound:
        for _ in range(1800):
            sound.write(second)
    small = tmp_path / "small.flac"
    soundfile.write(small, second, 8000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(file), str(small)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The samples are 230 MB in int16. The mix is 29 MB, and twice that while it is joined; what is kept of
    # the channels for their comparison is 36 MB; the allocator keeps some 45 MB of the blocks.
    assert float(done.stdout) < 160


def test_long_audio_is_never_there_as_a_whole(voices: Voices) -> None:
    pcm = (np.resize(voices["amara"][0], round(LONG_S + 5) * 8000) * 32767).astype(np.int16)
    recording = Recording.from_buffer(pcm, 8000)
    assert recording.is_long
    assert not isinstance(recording.mono, np.ndarray)
    assert not isinstance(recording.speech, np.ndarray)
    assert recording.quality.net_speech_s > 60
    assert recording.cleaned is None


# Low frequencies


def hum(length: int, hertz: float, level: float) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(length) / RATE)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["offset .05", "offset .2", "hum 50", "hum 60"])
def test_offset_and_hum_are_cut_out_and_named(voices: Voices, change: str) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    for name, audios in voices.items():
        recognizer.enroll_caller(name, audios[0])
    kind, number = change.split()
    right = 0
    for name, audios in voices.items():
        audio = 0.5 * audios[1]
        spoiled = audio + (np.float32(number) if kind == "offset" else hum(len(audio), float(number), 0.1))
        recording = Recording.from_buffer(spoiled)
        assert recording.cutoff_hz == (20.0 if kind == "offset" else 69.0)
        assert "hum" in recording.quality.feedback
        best, clean = recognizer.identify(recording)[0], recognizer.identify(audio)[0]
        right += best.caller_id == name
        assert best.similarity == pytest.approx(clean.similarity, abs=0.04)
    assert right == len(voices)


def test_clean_speech_is_not_filtered(voices: Voices) -> None:
    assert {Recording.from_buffer(audio).cutoff_hz for audios in voices.values() for audio in audios} == {
        None
    }


def test_high_pass_takes_what_is_low_and_leaves_the_rest() -> None:
    length = 3 * RATE
    for hertz, gain in ((20.0, 0.0), (50.0, 0.0), (60.0, 0.0), (80.0, 1.0), (300.0, 1.0), (3000.0, 1.0)):
        filtered = HighPass(hum(length, hertz, 0.5) + np.float32(0.2), 69.0)[:]
        middle = filtered[RATE // 2 : -RATE // 2]
        assert np.sqrt(2 * np.square(middle).mean()) / 0.5 == pytest.approx(gain, abs=0.1), hertz
        assert abs(middle.mean()) < 1e-3


def test_high_pass_read_in_parts_is_that_of_the_whole(voices: Voices) -> None:
    audio = HighPass(voices["amara"][0] + np.float32(0.1), 69.0)
    whole = audio[:]
    assert len(whole) == len(audio)
    cuts = [0, 1, 700, 5000, 5001, 40_000, len(audio)]
    parts = [audio[start:stop] for start, stop in pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_steady_low_frequencies_do_not_depend_on_the_cuts(voices: Voices) -> None:
    audio = voices["bruno"][0] + hum(len(voices["bruno"][0]), 50.0, 0.05)
    whole, pieces = LowFrequencyMeter(), LowFrequencyMeter()
    whole.add(audio)
    for start in range(0, len(audio), 777):
        pieces.add(audio[start : start + 777])
    assert whole.shares() == pytest.approx(pieces.shares(), rel=1e-6)
    assert whole.shares()[1] == pytest.approx(
        0.05**2 / 2 / float(np.square(audio, dtype=np.float64).mean()), rel=0.2
    )


# Arguments


def test_telephone_codes_without_a_rate_are_at_8000(voices: Voices) -> None:
    from voiceprint.audio.io import g711

    codes = g711.encode((voices["amara"][0][::2] * 32767).astype(np.int16), "mulaw").tobytes()
    recording = Recording.from_buffer(codes, encoding="mulaw")
    assert recording.sample_rate == 8000
    assert np.array_equal(preprocess_audio(codes, encoding="mulaw"), recording.mono)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    recognizer.enroll_caller("amara", codes, encoding="mulaw")
    assert recognizer.verify_caller("amara", codes, encoding="mulaw").similarity > 0.99
    with recognizer.stream(encoding="mulaw") as session:
        session.feed(codes)
        assert session.finish().caller_id == "amara"


def test_interleaved_channels_in_bytes_are_taken_apart(voices: Voices) -> None:
    length = 5 * RATE
    both = (np.stack([voices["carlo"][0][:length], voices["elena"][0][:length]], axis=1) * 32767).astype(
        "<i2"
    )
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    for name in ("carlo", "elena"):
        recognizer.enroll_caller(name, voices[name][1])
    for channel, name in enumerate(("carlo", "elena")):
        match = recognizer.match_caller(both.tobytes(), channels=2, channel=channel)
        assert match is not None
        assert match[0] == name
        with recognizer.stream(channels=2, channel=channel) as session:
            for start in range(0, both.nbytes, 999):
                session.feed(both.tobytes()[start : start + 999])
            assert session.finish().caller_id == name
    assert "channels_differ" in assess(both.tobytes(), channels=2).feedback
    with recognizer.stream(channels=2) as session:
        session.feed(both.tobytes())
        assert "channels_differ" in session.finish().feedback
    with pytest.raises(InvalidAudioError, match="channels must be 1 to 8"):
        recognizer.match_caller(both.tobytes(), channels=9)


def test_bytes_of_a_file_are_no_samples(tmp_path: Path, voices: Voices) -> None:
    file = tmp_path / "voice.wav"
    soundfile.write(file, voices["amara"][0], RATE)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    data = file.read_bytes()
    with pytest.raises(InvalidAudioError, match="load_audio"):
        recognizer.enroll_caller("amara", data)
    session = recognizer.stream()
    session.feed(data[:5])
    with pytest.raises(InvalidAudioError, match="load_audio"):
        session.feed(data[5:4000])

"""The commands on telephone recordings: files without a header, and with channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from voices import SAMPLES, Voices

from voiceprint import JSONStorage
from voiceprint.audio import MIXED
from voiceprint.audio.io import g711

RATE = 16_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voices: Voices) -> None:
    """Files in the folder: amara.ul and amara2.al, amara.raw (24 bits, 16 kHz), call.wav (amara, bruno)."""
    monkeypatch.chdir(tmp_path)
    for name, law, audio in (
        ("amara.ul", "mulaw", voices["amara"][0]),
        ("amara2.al", "alaw", voices["amara"][1]),
    ):
        line = np.int16(soxr.resample(audio, RATE, 8000).clip(-1, 1) * 32767)
        Path(name).write_bytes(g711.encode(line, law).tobytes())  # type: ignore[arg-type]
    soundfile.write("amara.raw", voices["amara"][2], RATE, subtype="PCM_24", format="RAW", endian="LITTLE")
    amara, bruno = (voices[name][3][: 5 * RATE] for name in ("amara", "bruno"))
    soundfile.write("call.wav", np.stack([amara, bruno], axis=1), RATE)


def test_telephone_files_are_enrolled_identified_and_verified(run: Run) -> None:
    code, out, _ = run("enroll", "amara", "amara.ul")
    assert (code, out) == (0, "Enrolled 1 file for 1 caller.\n")
    code, out, _ = run("identify", "amara2.al", "--json")
    assert [match["caller_id"] for match in json.loads(out)[0]["matches"]] == ["amara"]
    assert run("verify", "amara", "amara2.al")[0] == 0
    code, out, _err = run("quality", "amara.ul", "--json")
    (measured,) = json.loads(out)
    assert (code, measured["feedback"]) == (0, ["narrowband"])


def test_a_raw_file_needs_its_rate_and_encoding(run: Run) -> None:
    code, out, _ = run("enroll", "amara", "amara.raw")
    assert code == 1
    assert "amara.raw has no header that says its sample rate: give sample_rate (--rate)" in out
    assert run("enroll", "amara", "amara.raw", "--rate", RATE)[0] == 1, "24 bits are not 16"
    code, out, _err = run("enroll", "amara", "amara.raw", "--rate", RATE, "--encoding", "pcm_s24le")
    assert (code, out) == (0, "Enrolled 1 file for 1 caller.\n")


def test_a_folder_is_enrolled_with_its_files_without_a_header(run: Run) -> None:
    Path("in/amara").mkdir(parents=True)
    for name in ("amara.ul", "amara2.al", "amara.raw"):
        Path(name).rename(Path("in/amara", name))
    Path("in/amara/1.flac").symlink_to(SAMPLES / "amara/1.flac")
    code, out, _err = run("enroll-dir", "in")
    assert code == 1
    assert out.startswith("Enrolled 3 files for 1 caller.\n\n1 file could not be enrolled:\n")
    assert "amara.raw has no header" in out


def test_a_channel_is_chosen_and_a_mix_of_two_voices_is_said_with_the_name_of_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_SAME_RECORDING", "false")  # the enrolled file is identified
    for channel, name in enumerate(("amara", "bruno")):
        code, out, err = run("enroll", name, "call.wav", "--channel", channel)
        assert (code, err) == (0, "")
    for channel, name in enumerate(("amara", "bruno")):
        code, out, err = run("identify", "call.wav", "--channel", channel, "--json")
        best = json.loads(out)[0]["matches"][0]
        assert (best["caller_id"], err) == (name, "")
        assert best["similarity"] > 0.999
        assert run("verify", name, "call.wav", "--channel", channel)[0] == 0
    monkeypatch.setenv("VOICE_MIN_AUDIO_QUALITY", "0")  # two at once are poor speech as well
    code, out, err = run("identify", "call.wav")
    assert (code, err) == (0, f"call.wav: {MIXED}\n")
    code, out, err = run("quality", "call.wav", "--json")
    assert json.loads(out)[0]["feedback"][0] == "channels_differ"
    code, out, err = run("quality", "call.wav", "--json", "--channel", 1)
    assert json.loads(out)[0]["feedback"] == []


def test_a_channel_that_is_not_there_is_the_failure_of_that_file(run: Run) -> None:
    code, out, _err = run("enroll", "amara", SAMPLES / "amara/1.flac", "call.wav", "--channel", 1)
    assert code == 1
    assert out.startswith("Enrolled 1 file for 1 caller.\n")
    assert "channel is 1, and the audio has 1 channel: 0 is allowed, or leave it empty for all" in out
    with JSONStorage("voiceprints.json") as store:
        assert store.count() == 1


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--encoding", "ulaw"), "Error: encoding must be one of pcm, "),
        (("--rate", 4000), "--rate"),
        (("--channel", -1), "--channel"),
    ],
)
def test_a_wrong_option_is_an_error_of_the_command(run: Run, option: tuple[object, ...], says: str) -> None:
    for command in (["enroll", "amara"], ["identify"], ["verify", "amara"], ["quality"], ["enroll-dir"]):
        code, out, err = run(*command, "amara.ul", *option)
        assert (code, out) == (2, "")
        assert says in err

"""The `voiceprint` command: what it prints, and how it exits, also on the failing paths."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import voiceprint
from voiceprint import JSONStorage, OpusAgentVoiceRecognizer, load_audio
from voiceprint.cli.common import percent
from voiceprint.storage.transfer import digest

VOICES = Path(__file__).resolve().parents[1] / "examples/voices"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def enrolled_store(tmp_path_factory):
    """A store with amara (metadata plan=gold) and bruno."""
    path = tmp_path_factory.mktemp("store") / "voiceprints.json"
    recognizer = OpusAgentVoiceRecognizer(JSONStorage(path))
    for caller_id, metadata in (("amara", {"plan": "gold"}), ("bruno", None)):
        audio, sample_rate = load_audio(VOICES / caller_id / "1.flac")
        recognizer.enroll_caller(caller_id, audio, metadata, sample_rate=sample_rate)
    return path


@pytest.fixture
def enrolled(enrolled_store):
    """A copy of the store `enrolled_store`, as that of the environment."""
    shutil.copy(enrolled_store, "voiceprints.json")


def silence(path: str, seconds: float = 6.0) -> str:
    soundfile.write(path, np.zeros(int(16_000 * seconds), dtype=np.float32), 16_000)
    return path


def not_audio(path: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("not audio")
    return path


# enroll


def test_enrolled_files_are_counted_and_stored_with_the_metadata(run):
    code, out, _ = run(
        "enroll", "amara", VOICES / "amara/1.flac", VOICES / "amara/2.flac",
        "--metadata", "plan=gold", "--metadata", "note=a=b",
    )  # fmt: skip
    assert (code, out) == (0, "Enrolled 2 files for 1 caller.\n")
    with JSONStorage("voiceprints.json") as store:
        caller = store.get("amara")
    assert caller.metadata == {"plan": "gold", "note": "a=b"}
    assert len(caller.voiceprints) == 2


def test_enrolling_as_json_gives_a_row_for_each_file_good_or_bad(run):
    code, out, _ = run(
        "enroll", "amara", VOICES / "amara/1.flac", silence("s.wav"), not_audio("n.wav"), "--json"
    )
    good, silent, broken = json.loads(out)
    assert code == 1
    assert good["voiceprint_id"] == 1
    assert silent["error"] == "AudioQualityError"
    assert broken["error"] == "InvalidAudioError"


@pytest.mark.parametrize("pair", ["plan", "=gold", ""])
def test_metadata_that_is_not_key_value_is_an_error_and_nothing_is_enrolled(run, pair):
    code, out, err = run("enroll", "amara", VOICES / "amara/1.flac", "--metadata", pair)
    assert (code, out) == (2, "")
    assert err == f"Error: {pair!r} is not KEY=VALUE, nor KEY:=JSON.\n"
    assert not Path("voiceprints.json").exists()


def test_enrollment_of_a_missing_file_names_it_and_exits_with_1(run):
    code, out, _ = run("enroll", "amara", "nowhere.wav")
    assert code == 1
    assert "nowhere.wav" in out


# enroll-dir


def test_a_folder_is_enrolled_with_a_table_of_what_failed_and_why(run):
    for caller in ("amara", "bruno"):
        Path("in", caller).mkdir(parents=True)
        Path("in", caller, "1.flac").symlink_to(VOICES / caller / "1.flac")
    silence("in/bruno/2.WAV")
    not_audio("in/carlo/1.mp3")
    not_audio("in/carlo/notes.txt")
    code, out, _ = run("enroll-dir", "in")
    assert code == 1
    assert out.startswith("Enrolled 2 files for 2 callers.\n\n2 files could not be enrolled:\n")
    table = out.splitlines()[3:]
    assert table[0].split() == ["Caller", "File", "Error", "Why"]
    assert [line.split()[:3] for line in table[1:]] == [
        ["bruno", "in/bruno/2.WAV", "AudioQualityError"],
        ["carlo", "in/carlo/1.mp3", "InvalidAudioError"],
    ]
    with JSONStorage("voiceprints.json") as store:
        assert [caller.caller_id for caller in store.callers()] == ["amara", "bruno"]


def test_files_of_different_sample_rates_are_enrolled_in_one_go(run):
    Path("in/amara").mkdir(parents=True)
    for number, rate in ((1, 8_000), (2, 48_000), (3, 8_000)):
        audio, _ = soundfile.read(VOICES / f"amara/{number}.flac")
        resampled = np.interp(np.arange(0, len(audio), 16_000 / rate), np.arange(len(audio)), audio)
        soundfile.write(f"in/amara/{number}.wav", resampled, rate)
    code, out, _ = run("enroll-dir", "in", "--json")
    assert code == 0
    assert [row["voiceprint_id"] for row in json.loads(out)] == [1, 2, 3]


def test_more_files_than_prints_are_kept_is_said(run):
    code, out, _ = run("enroll", "amara", *sorted((VOICES / "amara").glob("*.flac")))
    assert (code, out) == (
        0,
        "Enrolled 4 files for 1 caller.\nEach caller keeps the newest 3 voiceprints.\n",
    )


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_audio_is_an_error(run, folder):
    Path("empty/amara").mkdir(parents=True)
    code, _, err = run("enroll-dir", folder)
    assert code == 2
    assert folder in err


# identify and verify


@pytest.mark.resemblyzer
@pytest.mark.usefixtures("enrolled")
def test_identify_lists_the_callers_the_best_first(run):
    code, out, _ = run("identify", VOICES / "amara/2.flac", VOICES / "bruno/2.flac", "-k", 2)
    rows = [line.split() for line in out.splitlines()[1:]]
    assert code == 0
    callers, llrs, fpirs, verdicts = zip(*((row[-7], row[-5], row[-4], row[-2]) for row in rows), strict=True)
    assert callers == ("amara", "bruno", "bruno", "amara")
    assert [verdict == "accepted" for verdict in verdicts] == [True, False, True, False]
    assert float(llrs[0]) > float(llrs[1])
    assert float(fpirs[0]) < float(fpirs[1])  # in percent


@pytest.mark.usefixtures("enrolled")
def test_identify_as_json_gives_metadata_and_takes_threshold_and_candidates(run):
    file = VOICES / "amara/2.flac"
    _, out, _ = run("identify", file, "--json", "-k", 1)
    (match,) = json.loads(out)[0]["matches"]
    assert (match["caller_id"], match["accepted"], match["metadata"]) == ("amara", True, {"plan": "gold"})
    _, out, _ = run("identify", file, "--json", "--threshold", "0.999")
    assert not any(match["accepted"] for match in json.loads(out)[0]["matches"])
    _, out, _ = run("identify", file, "--json", "--candidate", "bruno", "--candidate", "nobody")
    assert [match["caller_id"] for match in json.loads(out)[0]["matches"]] == ["bruno"]


@pytest.mark.usefixtures("enrolled")
def test_identify_answers_the_good_files_and_complains_of_the_bad_one(run):
    code, out, err = run("identify", not_audio("n.wav"), VOICES / "amara/2.flac", silence("s.wav"))
    assert code == 1
    assert "amara" in out
    assert [line.split(":")[:2] for line in err.splitlines()] == [
        ["n.wav", " InvalidAudioError"],
        ["s.wav", " AudioQualityError"],
    ]


def test_identify_on_an_empty_store_says_that_there_is_nobody(run):
    code, out, _ = run("identify", VOICES / "amara/2.flac", "--create")
    assert code == 1
    assert "nobody to compare with" in out


@pytest.mark.usefixtures("enrolled")
def test_identify_of_a_stranger_exits_with_1_and_of_a_caller_with_0(run):
    stranger, caller = VOICES / "hakan/2.flac", VOICES / "amara/2.flac"
    assert run("identify", caller)[0] == 0
    assert run("identify", stranger)[0] == 1
    assert run("identify", stranger, "--json")[0] == 1
    assert run("identify", caller, stranger)[0] == 1
    assert run("identify", caller, "--candidate", "bruno")[0] == 1


@pytest.mark.usefixtures("enrolled")
@pytest.mark.parametrize(("speaker", "code", "word"), [("amara", 0, "Accepted"), ("bruno", 1, "Rejected")])
def test_verify_exits_with_0_for_the_caller_and_1_for_another(run, speaker, code, word):
    got, out, _ = run("verify", "amara", VOICES / speaker / "2.flac")
    assert got == code
    assert out.startswith(f"{word}: the similarity with amara is 0.")
    _, out, _ = run("verify", "amara", VOICES / speaker / "2.flac", "--json")
    assert json.loads(out)["accepted"] is (code == 0)


@pytest.mark.usefixtures("enrolled")
def test_verify_exits_with_1_for_an_unknown_caller_or_poor_audio_and_with_2_for_no_audio(run):
    code, out, err = run("verify", "nobody", VOICES / "amara/2.flac")
    assert (code, out) == (1, "")
    assert "The caller 'nobody' is not enrolled" in err
    code, out, err = run("verify", "amara", silence("s.wav"))
    assert (code, out) == (1, "")
    assert "of speech" in err
    code, out, err = run("verify", "amara", "nowhere.wav")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")


# callers


@pytest.mark.usefixtures("enrolled")
def test_callers_are_listed_and_shown_without_embeddings(run):
    _, out, _ = run("callers", "list")
    rows = [line.split()[:3] for line in out.splitlines()[1:]]
    assert rows == [["amara", "enrolled", "1"], ["bruno", "enrolled", "1"]]
    _, out, _ = run("callers", "list", "--json", "--limit", 1)
    assert [row["caller_id"] for row in json.loads(out)] == ["amara"]
    code, out, _ = run("callers", "show", "amara")
    assert code == 0
    assert "plan" in out
    _, out, _ = run("callers", "show", "amara", "--json")
    shown = json.loads(out)
    assert shown["metadata"] == {"plan": "gold"}
    assert [sorted(print_) for print_ in shown["voiceprints"]] == [
        ["created_at", "encoder", "id", "provenance"]
    ]


@pytest.mark.usefixtures("enrolled")
def test_a_caller_is_deleted_only_after_a_yes(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = run("callers", "delete", "amara")
    assert code == 1
    assert "Nothing was deleted." in err
    assert run("callers", "show", "amara")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, _ = run("callers", "delete", "amara")
    assert (code, out.strip()) == (0, "Deleted amara with 1 voiceprint.")
    assert run("callers", "show", "amara")[0] == 1


@pytest.mark.usefixtures("enrolled")
def test_deleting_with_yes_does_not_ask(run):
    code, out, _ = run("callers", "delete", "bruno", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"caller_id": "bruno", "voiceprints_removed": 1})
    code, _, err = run("callers", "delete", "bruno", "--yes")
    assert code == 1
    assert "not enrolled" in err


def test_an_empty_store_lists_nobody(run):
    assert run("callers", "list", "--create") == (0, "Nobody is enrolled.\n", "")
    assert run("callers", "list", "--create", "--json")[1].strip() == "[]"
    assert list(Path().iterdir()) == []


# quality and check


def test_quality_measures_each_file_and_exits_with_1_when_one_is_poor(run):
    good = VOICES / "amara/1.flac"
    code, out, _ = run("quality", good)
    assert code == 0
    assert " good " in out.splitlines()[1]
    code, out, _ = run("quality", good, silence("s.wav"), not_audio("n.wav"))
    assert code == 1
    measured, advice = out.split("\n\n")
    for word, line in zip(("good", "poor", "unusable"), measured.splitlines()[1:], strict=True):
        assert f" {word} " in line
    assert "s.wav" in advice
    assert "No speech was found" in advice
    assert "1.flac" not in advice
    code, out, _ = run("quality", good, silence("s.wav"), not_audio("n.wav"), "--json")
    assert [row["accepted"] for row in json.loads(out)] == [True, False, False]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (4.56e-5, "0.0046 %"),
        (0.702, "70 %"),
        (0.994, "99 %"),
        (0.9962, "100 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_shown_in_percent(share, shown):
    assert percent(share) == shown


@pytest.mark.usefixtures("enrolled")
def test_check_counts_what_is_well_and_finds_damage(run):
    code, out, _ = run("check")
    assert code == 0
    assert out.startswith("All is well: 2 callers with 2 voiceprints in json:")
    run("callers", "delete", "amara", "--yes")
    assert run("check")[1].startswith("All is well: 1 caller with 1 voiceprint in json:")
    file = Path("voiceprints.json")
    file.write_bytes(file.read_bytes()[:-100])
    before = file.read_bytes()
    for command in (["check"], ["callers", "list"], ["enroll", "carlo", VOICES / "carlo/1.flac"]):
        code, _, err = run(*command)
        assert code == 2
        assert "damaged" in err
    assert file.read_bytes() == before


# export, import, copy and prune


@pytest.mark.usefixtures("enrolled")
def test_callers_are_exported_to_a_private_file_and_imported_elsewhere(run):
    assert run("export", "callers.jsonl")[1] == "Exported 2 callers to callers.jsonl.\n"
    assert Path("callers.jsonl").stat().st_mode & 0o777 == 0o600
    _, out, _ = run("import", "callers.jsonl", "--store", "json:other.json")
    assert out == "Imported 2 callers with 2 voiceprints; 0 were there already.\n"
    code, out, _ = run("import", "callers.jsonl", "--store", "json:other.json", "--json")
    assert (code, json.loads(out)["changed"]) == (0, 0)
    assert run("verify", "amara", VOICES / "amara/2.flac", "--store", "json:other.json")[0] == 0


@pytest.mark.usefixtures("enrolled")
def test_an_export_goes_through_a_pipe_into_an_import():
    command = [sys.executable, "-m", "voiceprint"]
    export = subprocess.run([*command, "export", "-"], capture_output=True, check=True)
    subprocess.run([*command, "import", "-", "--store", "json:other.json"], input=export.stdout, check=True)
    with JSONStorage("voiceprints.json") as one, JSONStorage("other.json") as other:
        assert digest(one) == digest(other)


@pytest.mark.usefixtures("enrolled")
@pytest.mark.parametrize(
    "arguments", [("export", "no/where.jsonl"), ("import", "nowhere.jsonl"), ("import", ".")]
)
def test_a_file_that_cannot_be_exported_to_or_imported_is_an_error(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert arguments[1] in err


@pytest.mark.usefixtures("enrolled")
def test_a_store_is_copied_and_verified_and_a_second_copy_finds_all_there(run):
    code, out, _ = run("copy", "--from", "json:voiceprints.json", "--to", "json:other.json")
    assert code == 0
    assert out.startswith("Copied 2 callers with 2 voiceprints; 0 were there already. Verified (SHA-256 ")
    _, out, _ = run("copy", "--from", "json:voiceprints.json", "--to", "json:other.json", "--json")
    report = json.loads(out)
    with JSONStorage("other.json") as other:
        assert (report["changed"], report["digest"]) == (0, digest(other))
    assert run("copy", "--from", "json:other.json", "--to", "json:other.json")[0] == 2
    assert run("copy", "--from", "json:other.json")[0] == 2


@pytest.mark.usefixtures("enrolled")
def test_pruning_lists_first_and_deletes_only_when_told(run):
    with JSONStorage("voiceprints.json") as store:
        old = store.get("bruno").model_copy(update={"last_seen": "2020-01-01T00:00:00.000000Z"})
        store.restore_many([old])
    code, out, _ = run("prune", "--not-seen-for", "3y")
    assert code == 0
    assert out.splitlines()[1].strip() == "bruno"
    assert "1 caller with 1 voiceprint would be deleted" in out
    _, out, _ = run("prune", "--not-seen-for", "3y", "--json")
    assert (json.loads(out)["deleted"], json.loads(out)["caller_ids"]) == (False, ["bruno"])
    assert run("callers", "show", "bruno")[0] == 0
    _, out, _ = run("prune", "--not-seen-for", "3y", "--delete")
    assert out.startswith("Deleted 1 caller with 1 voiceprint")
    assert run("callers", "show", "bruno")[0] == 1
    assert run("callers", "show", "amara")[0] == 0
    assert run("prune", "--not-seen-for", "long")[0] == 2


# Everything


@pytest.mark.parametrize(
    "store", ["nonsense", "sqlite:.", "redis://localhost:1/0", "json:", "redis://u:secret@h"]
)
def test_a_store_that_cannot_be_opened_is_an_error_that_shows_no_password(run, store):
    code, _, err = run("callers", "list", "--store", store)
    assert code == 2
    assert err.startswith("Error: ")
    assert "secret" not in err


def test_the_store_of_the_environment_and_of_the_option_are_used(run, monkeypatch):
    monkeypatch.setenv("VOICE_STORAGE_PATH", "from_environment.json")
    assert run("enroll", "amara", VOICES / "amara/1.flac")[0] == 0
    assert run("enroll", "bruno", VOICES / "bruno/1.flac", "--store", "json:from_option.json")[0] == 0
    with JSONStorage("from_environment.json") as one, JSONStorage("from_option.json") as other:
        assert [caller.caller_id for store in (one, other) for caller in store.callers()] == [
            "amara",
            "bruno",
        ]


def test_a_bad_setting_is_an_error_that_names_the_variable(run, monkeypatch):
    monkeypatch.setenv("VOICE_MIN_AUDIO_QUALITY", "high")
    code, _, err = run("callers", "list")
    assert code == 2
    assert "VOICE_MIN_AUDIO_QUALITY" in err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["identify"], ["identify", "x.wav", "-k", "0"], ["callers"]]
)
def test_a_wrong_command_line_exits_with_2(run, arguments):
    assert run(*arguments)[0] == 2


def test_the_version_is_the_packages(run):
    assert run("--version")[1] == f"voiceprint {voiceprint.__version__}\n"


def test_caller_ids_are_shown_to_the_letter(run):
    assert run("enroll", "[red]a[/red]", VOICES / "amara/1.flac")[0] == 0
    assert "[red]a[/red]" in run("callers", "list")[1]


def test_no_progress_is_drawn_where_there_is_no_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "voiceprint", "enroll-dir", str(VOICES / ".."), "--store", "memory:"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, "examples/ holds callers one folder deeper"
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# demo


@pytest.mark.slow
def test_the_demo_names_every_caller_and_refuses_the_strangers(run):
    code, out, _ = run("demo")
    assert code == 0
    assert "14 of 14 recordings of enrolled callers were named right" in out
    assert "4 of 4 of strangers were refused" in out
    assert not Path("voiceprints.json").exists()


def test_the_demo_heeds_no_settings_and_gives_json(run, monkeypatch):
    monkeypatch.setenv("VOICE_SIMILARITY_THRESHOLD", "1")
    code, out, _ = run("demo", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 18
    assert all(row["right"] for row in rows)


def test_the_demo_fails_where_voices_are_wrong_or_missing(run):
    for name, speaker in zip("abcdefgh", [*"abcdefg", "a"], strict=True):
        callers = sorted(path for path in VOICES.iterdir() if path.is_dir())
        Path("in", name).mkdir(parents=True)
        for number in (1, 2, 3):
            source = callers["abcdefgh".index(speaker)] / f"{number}.flac"
            Path("in", name, f"{number}.flac").symlink_to(source)
    code, out, err = run("demo", "--voices", "in")
    assert code == 1, "the stranger h has the voice of a"
    assert "WRONG" in out
    assert "Wrong: h/3.flac." in err
    assert run("demo", "--voices", "nowhere")[0] == 2

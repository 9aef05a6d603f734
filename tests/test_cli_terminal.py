"""Output on a terminal or a pipe: data is shown and not obeyed, and no reader gets a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stores import voiceprint

from voiceprint import JSONStorage
from voiceprint.cli.terminal import escaped, json_text

COMMAND = [sys.executable, "-m", "voiceprint"]
# Sets the title, clears the screen, forges a row, turns the direction of text, breaks a line, in one C1 code.
HOSTILE = "a\x1b]0;title\x07\x1b[2J\nforged  3\r\x9b31m\u202eb\u2028c\x7f"
OBEYED = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202e\u061c\u2066"} - {"\n"}
SHOWN = "a\\x1b]0;title\\x07\\x1b[2J\\x0aforged  3\\x0d\\x9b31m\\u202eb\\u2028c\\x7f"


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with JSONStorage("voiceprints.json") as storage:
        storage.save(voiceprint(HOSTILE, 1, metadata={HOSTILE: HOSTILE}, encoder="\x1b[31mred"))
        storage.save(voiceprint("Zoë €", 2, metadata={"name": "Зоя 🎙"}))


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert not OBEYED & set(text), text


def test_controls_are_shown_as_escapes_and_other_letters_as_they_are():
    assert escaped(HOSTILE) == SHOWN
    for text in ("Zoë €", "Зоя 🎙", "علی\u200cرضا", "[red]", "\\x1b"):
        assert escaped(text) == text
    assert escaped(os.fsdecode(b"\xff.wav")) == "\\udcff.wav"


@pytest.mark.parametrize(
    "arguments",
    [
        ("callers", "list"),
        ("callers", "show", HOSTILE),
        ("callers", "show", f"{HOSTILE}?"),
        ("callers", "delete", f"{HOSTILE}?", "--yes"),
        ("callers", "delete", HOSTILE, "--yes"),
        ("prune", "--not-seen-for", "1d"),
        ("prune", "--not-seen-for", HOSTILE),
        ("prune", "--space", HOSTILE),
        ("prune", "--space", "\x1b[31mred"),
        ("spaces",),
        ("index", "status"),
        ("callers", "list", "--space", "\x1b[31mred"),
        ("identify", f"{HOSTILE}.wav"),
        ("verify", HOSTILE, f"{HOSTILE}.wav"),
        ("quality", f"{HOSTILE}.wav"),
        ("enroll", HOSTILE, f"{HOSTILE}.wav"),
        ("enroll", "x", f"{HOSTILE}.wav", "--metadata", HOSTILE),
        ("enroll-dir", HOSTILE),
        ("export", f"{HOSTILE}.jsonl"),
        ("export", f"{HOSTILE}/x.jsonl"),
        ("import", f"{HOSTILE}.jsonl"),
        ("copy", "--from", f"json:{HOSTILE}", "--to", "json:x"),
        ("callers", "list", "--store", f"json:{HOSTILE}"),
        ("callers", "list", "--store", HOSTILE),
        ("callers", "list", f"--{HOSTILE}"),
        ("callers", "list", HOSTILE),
        ("identify", "x.wav", "-k", HOSTILE),
        ("evaluate", HOSTILE, "--no-cache"),
        ("db", "current", "--store", HOSTILE),
        (HOSTILE,),
    ],
)
def test_no_text_and_no_error_of_a_command_is_obeyed_by_a_terminal(run, arguments):
    _, out, err = run(*arguments)
    assert out + err
    assert_harmless(out, err)
    assert not any(line.startswith("forged") for line in (out + err).splitlines())


def test_the_question_before_a_deletion_is_not_obeyed():
    done = subprocess.run(
        [*COMMAND, "callers", "delete", HOSTILE], input=b"n\n", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert_harmless((done.stdout + done.stderr).decode())


def test_what_the_library_warns_of_is_not_obeyed():
    wrapped = (
        "import sys, logging, voiceprint.cli as cli; from voiceprint.cli.terminal import warnings_shown\n"
        f"with warnings_shown(): logging.getLogger('voiceprint.storage').warning('%s', {HOSTILE!r})"
    )
    done = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, check=True)
    assert done.stderr.decode() == f"{SHOWN}\n"


def test_json_is_the_same_data_and_harmless(run):
    code, out, _ = run("callers", "list", "--json")
    assert code == 0
    assert_harmless(out)
    callers = json.loads(out)
    assert [caller["caller_id"] for caller in callers] == ["Zoë €", HOSTILE]
    assert callers[1]["metadata"] == {HOSTILE: HOSTILE}
    assert "Zoë €" in out


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "latin-1"])
def test_json_text_is_the_same_in_every_encoding(encoding):
    value = {HOSTILE: ["Zoë €", "🎙", None, 1.5]}
    text = json_text(value, encoding)
    assert json.loads(text.encode(encoding).decode(encoding)) == value
    assert_harmless(text)


def test_a_file_name_that_is_not_unicode_is_shown_and_told_as_json():
    name = b"\xff\x1b[2J.wav"
    for options in ([], ["--json"]):
        done = subprocess.run([*COMMAND, "quality", name, *options], capture_output=True, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert b"udcff" in done.stdout
        assert_harmless(done.stdout.decode())
    assert json.loads(done.stdout)[0]["accepted"] is False


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_an_encoding_without_a_letter_gives_an_escape_and_no_traceback(environment):
    for arguments in (["callers", "list"], ["callers", "show", "nobody"]):
        for options in ([], ["--json"]):
            done = subprocess.run(
                [*COMMAND, *arguments, *options],
                capture_output=True, check=False, env={**os.environ, **environment},
            )  # fmt: skip
            assert done.returncode == (1 if "nobody" in arguments else 0)
            assert b"Traceback" not in done.stderr
            assert b"UnicodeEncodeError" not in done.stderr
            if [*arguments, *options] == ["callers", "list", "--json"]:
                assert "Зоя 🎙" in str(json.loads(done.stdout.decode("cp1252")))


@pytest.mark.parametrize("arguments", [["callers", "list"], ["callers", "list", "--json"], ["export", "-"]])
def test_a_reader_who_goes_away_gets_no_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output_is_an_error():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "callers", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


READING = [
    ("identify", "x.wav"),
    ("verify", "amara", "x.wav"),
    ("callers", "list"),
    ("callers", "show", "amara"),
    ("callers", "delete", "amara", "--yes"),
    ("export", "x.jsonl"),
    ("prune", "--not-seen-for", "1d"),
    ("check",),
    ("spaces",),
    ("index", "status"),
    ("index", "rebuild"),
    ("index", "tune"),
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_reading_a_store_that_is_not_there_is_an_error_and_creates_nothing(run, arguments, kind):
    before = sorted(Path().iterdir())
    code, out, err = run(*arguments, "--store", f"{kind}:no/store")
    assert (code, out) == (2, "")
    assert err == "Error: no/store does not exist: enroll a caller, or give --store.\n"
    if arguments[1:] in (("rebuild",), ("tune",)):
        return  # what they are for is to write a snapshot
    code, _, err = run(*arguments, "--store", f"{kind}:no/store", "--create")
    assert "does not exist" not in err
    assert [path for path in sorted(Path().iterdir()) if path.name != "x.jsonl"] == before


def test_the_default_store_that_is_not_there_is_named(run, monkeypatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    _, _, err = run("callers", "list")
    assert err == "Error: voiceprints.json does not exist: enroll a caller, or give --store.\n"


def test_a_copy_from_a_store_that_is_not_there_is_an_error_and_one_to_it_makes_it(run):
    code, _, err = run("copy", "--from", "json:nowhere", "--to", "json:there")
    assert (code, err) == (2, "Error: nowhere does not exist: give the store to copy from.\n")
    assert not Path("there").exists()
    assert run("copy", "--from", "json:voiceprints.json", "--to", "sqlite:new/there")[0] == 0
    assert run("db", "check", "--store", "sqlite:new/there")[0] == 0
    code, _, err = run("db", "check", "--store", "sqlite:nowhere")
    assert (code, err) == (2, "Error: nowhere does not exist: `voiceprint db upgrade` creates it.\n")


def test_an_import_and_an_enrollment_create_the_store(run):
    assert run("export", "x.jsonl")[0] == 0
    assert run("import", "x.jsonl", "--store", "json:a/new.json")[0] == 0
    assert Path("a/new.json").exists()

"""Files of the commands: written only where they may be, for the owner alone, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from redis_server import fresh_database, shared_server
from stores import state, voiceprint

from voiceprint import Storage, open_storage
from voiceprint.storage.transfer import digest, import_callers

COMMAND = [sys.executable, "-m", "voiceprint"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["json", "sqlite"])
def url(request):
    """A store with two callers in a file."""
    url = f"{request.param}:store"
    with open_storage(url) as storage:
        fill(storage)
    return url


def fill(storage: Storage) -> None:
    storage.save(voiceprint("amara", 1, metadata={"plan": "gold"}))
    storage.save(voiceprint("bruno", 2, augmented=voiceprint("x", 3).embedding))


def content() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def stored(url: str) -> object:
    with open_storage(url) as storage:
        return state(storage)


@pytest.mark.resemblyzer
@pytest.mark.parametrize(
    ("url", "name"),
    [
        *[("json", name) for name in ("store", "store.lock", "store.index", "kept.index")],
        *[("sqlite", f"store{end}") for end in ("", "-wal", "-shm", "-journal", ".lock", ".index")],
    ],
    indirect=["url"],
)
@pytest.mark.parametrize("way", ["itself", "link", "twin", "dots"])
def test_an_export_onto_a_file_of_the_store_is_refused_before_anything_is_written(
    run, url, name, way, monkeypatch
):
    if name == "kept.index":
        monkeypatch.setenv("VOICE_INDEX_PATH", name)
    with open_storage(url) as storage:
        target = Path(name)
        if not target.exists() and way == "twin":
            target.write_bytes(b"")
        if way == "link":
            Path("other").symlink_to(target)
            target = Path("other")
        elif way == "twin":
            Path("other").hardlink_to(target)
            target = Path("other")
        elif way == "dots":
            Path("folder").mkdir()
            target = Path("folder", "..", name)
        before, callers = content(), state(storage)
        code, out, err = run("export", target, "--store", url)
        assert (code, out) == (2, "")
        assert "belongs to the store: choose another file" in err
        assert {key: value for key, value in content().items() if key in before} == before
        assert state(storage) == callers
    assert stored(url) == callers


def test_an_export_replaces_an_export_and_nothing_else(run, url):
    assert run("export", "callers.jsonl", "--store", url)[0] == 0
    exported = Path("callers.jsonl").read_bytes()
    for there in (b"", exported[:40], b'{"caller_id":"old"}\n'):
        Path("callers.jsonl").write_bytes(there)
        Path("callers.jsonl").chmod(0o666)
        assert run("export", "callers.jsonl", "--store", url)[0] == 0
        assert Path("callers.jsonl").read_bytes() == exported
        assert Path("callers.jsonl").stat().st_mode & 0o777 == 0o600
    with open_storage("json:other") as storage:
        storage.save(voiceprint("carol"))
    for there in (b"a letter", b"{}", Path("other").read_bytes(), b"SQLite format 3\0"):
        Path("callers.jsonl").write_bytes(there)
        code, _, err = run("export", "callers.jsonl", "--store", url)
        assert code == 2
        assert "is there already and is not an export" in err
        assert Path("callers.jsonl").read_bytes() == there
    assert not list(Path().glob(".callers*"))
    assert not list(Path().glob("*.part"))


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_what_lies_where_older_versions_wrote_first_is_not_touched(run, url, kind):
    part, victim = Path("callers.jsonl.part"), Path("victim")
    victim.write_text("a letter")
    if kind == "file":
        part.write_text("left")
        part.chmod(0o666)
    elif kind == "link":
        part.symlink_to(victim)
    else:
        os.mkfifo(part)  # where older versions hung for ever
    assert run("export", "callers.jsonl", "--store", url)[0] == 0
    assert Path("callers.jsonl").stat().st_mode & 0o777 == 0o600
    assert victim.read_text() == "a letter"
    assert os.path.lexists(part)


def test_an_export_goes_through_a_named_pipe_which_stays(run, url):
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    code, out, err = run("export", "pipe", "--store", url)
    reader.join()
    assert (code, out) == (0, "")
    assert "Exported 2 callers to pipe." in err
    assert Path("pipe").is_fifo()
    with open_storage("memory:") as copy, open_storage(url) as storage:
        import_callers(copy, got[0].splitlines())
        assert digest(copy) == digest(storage)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_the_export_and_nothing_else(url, target):
    done = subprocess.run([*COMMAND, "export", target, "--store", url], capture_output=True, check=True)
    assert [json.loads(line)["caller_id"] for line in done.stdout.splitlines()] == ["amara", "bruno"]
    if target == "/proc/self/fd/1":
        return
    with Path("out").open("wb") as out:
        subprocess.run([*COMMAND, "export", target, "--store", url], stdout=out, check=True)
    assert Path("out").read_bytes() == done.stdout


def test_a_device_is_written_to_and_stays_one(run, url):
    assert run("export", "/dev/null", "--store", url)[0] == 0
    assert Path("/dev/null").is_char_device()
    code, _, err = run("export", "/dev/full", "--store", url)
    assert (code, "No space left" in err) == (2, True)


@pytest.mark.parametrize("url", ["json"], indirect=True)
def test_a_failed_export_leaves_the_old_file_and_nothing_else(run, url):
    assert run("export", "callers.jsonl", "--store", url)[0] == 0
    exported, names = Path("callers.jsonl").read_bytes(), sorted(content())
    limited = (
        "import resource, sys; from voiceprint.cli import main;"
        "sys.argv = ['voiceprint', 'export', 'callers.jsonl', '--store', 'json:store'];"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); main()"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'callers.jsonl' cannot be written: File too large." in done.stderr
    assert Path("callers.jsonl").read_bytes() == exported
    assert sorted(content()) == names


@pytest.mark.redis
def test_a_store_on_a_server_has_no_files(run):
    server, database = shared_server(), fresh_database()
    with open_storage(server.url(database)) as storage:
        fill(storage)
        assert storage.files() == []
    assert run("export", "callers.jsonl", "--store", server.url(database))[0] == 0
    assert len(Path("callers.jsonl").read_bytes().splitlines()) == 2


def test_an_export_and_an_import_move_a_store_whose_files_have_hostile_names(run, url):
    shutil.copy("store", "evil\x1b[2J\nstore")
    kind = url.partition(":")[0]
    code, out, _ = run("export", "evil\x1b]0;title\x07.jsonl", "--store", f"{kind}:evil\x1b[2J\nstore")
    assert (code, out) == (0, "Exported 2 callers to evil\\x1b]0;title\\x07.jsonl.\n")

"""Places of a store: those that are no file, are another's, or are mounted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from databases import OLD_TABLE, sql
from processes import in_child
from stores import state, voiceprint

from voiceprint import (
    ConfigurationError,
    SQLiteStorage,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    open_storage,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("scheme", ["json", "sqlite"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "socket"])
def test_what_is_no_file_is_refused_at_once(path: Path, scheme: str, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path = Path("/dev/null")
    with pytest.raises(StorageUnavailableError, match="not a file"):
        open_storage(f"{scheme}:{path}")


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')",
        "CREATE TABLE callers (name TEXT)",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0002');"
        "CREATE TABLE notes (text)",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('1a2b3c');"
        "CREATE TABLE notes (text)",
        f"{OLD_TABLE}; CREATE TABLE store (x)",
    ],
)
def test_the_database_of_something_else_is_refused_and_left_as_it_is(path: Path, statements: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(statements)
    connection.close()
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        SQLiteStorage(path)
    with pytest.raises(StorageError, match="another program"), SQLiteStorage(path) as storage:
        storage.save(voiceprint())
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o644
    assert sql(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_database_without_tables_is_taken_for_a_new_store(path: Path) -> None:
    sql(path, "VACUUM")
    sql(path, "PRAGMA user_version=0")
    with SQLiteStorage(path) as storage:
        assert not storage.exists()
        storage.save(voiceprint())
        assert list(state(storage)) == ["alice"]


@pytest.mark.parametrize("table", ["voiceprints", "callers", "store", "augmented_voiceprints", "commits"])
@pytest.mark.parametrize("event", ["INSERT", "UPDATE", "DELETE"])
def test_a_trigger_that_drops_changes_is_told_of_and_nothing_is_stored(
    path: Path, table: str, event: str
) -> None:
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint("alice", n, augmented=voiceprint(seed=9).embedding) for n in range(3)])
        before = state(storage)
    sql(path, f"CREATE TRIGGER quiet BEFORE {event} ON {table} BEGIN SELECT RAISE(IGNORE); END")
    told = 0
    with SQLiteStorage(path) as storage:
        for change in (
            lambda: storage.save(voiceprint("bob", 5, augmented=voiceprint(seed=9).embedding)),
            lambda: storage.save(voiceprint("alice", 6, id=1)),
            lambda: storage.update_metadata("alice", {"a": 1}),
            lambda: storage.delete("alice"),
        ):
            try:
                change()
            except StorageCorruptError:
                told += 1
                assert state(storage) == before
            before = state(storage)
    sql(path, "DROP TRIGGER quiet")
    # Augmented voiceprints go with their voiceprints; `check` finds those that are left.
    assert told or (table, event) in {
        ("store", "INSERT"), ("store", "DELETE"), ("commits", "UPDATE"), ("commits", "DELETE"),
        ("augmented_voiceprints", "UPDATE"), ("augmented_voiceprints", "DELETE"), ("callers", "INSERT"),
    }  # fmt: skip


def test_an_sqlite_url_means_what_it_means_to_sqlalchemy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    for url in ("sqlite:///x.db", "sqlite:x.db", f"sqlite:///{tmp_path}/x.db", f"sqlite:{tmp_path}/x.db"):
        with open_storage(url) as storage:
            assert storage.location == f"sqlite:{tmp_path / 'x.db'}"
            assert str(tmp_path / "x.db") in caplog.records[-1].getMessage()
            caplog.clear()
    for url in ("sqlite://x.db", "sqlite:///", "sqlite://"):
        with pytest.raises(ConfigurationError, match="four slashes"):
            open_storage(url)


# In a namespace of its own: what is mounted there is gone with the process.
MOUNTED = """
import logging, subprocess, sys
sys.path.insert(0, {tests!r})
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
from pathlib import Path
from stores import state, voiceprint
from voiceprint import StorageError, open_storage
url = sys.argv[1]
path = Path(url.partition(":")[2])

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

"""


def mounted(url: str, script: str) -> str:
    """Run a script in a mount namespace of its own; gives its output."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    prelude = MOUNTED.format(tests=str(Path(__file__).parent.parent))
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", prelude + script, url],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BIND = """
Path(f"{path}.outside").touch()
path.touch()
mount("--bind", f"{path}.outside", str(path))
with open_storage(url) as storage:
    try:
        storage.save(voiceprint())
    except StorageError as error:
        print(type(error).__name__, error)
    print("callers", storage.count())
"""


def test_a_database_that_is_mounted_as_a_file_is_warned_of(path: Path) -> None:
    said = mounted(f"sqlite:{path}", BIND)
    assert said.count("WARNING") == 1
    assert "Mount the folder of the store" in said
    assert "callers 1" in said


def test_a_json_store_that_is_mounted_as_a_file_says_to_mount_the_folder(path: Path) -> None:
    said = mounted(f"json:{path}", BIND)
    assert "StorageUnavailableError" in said
    assert "mount the folder of the store, not the file alone" in said
    assert "callers 0" in said


READ_ONLY = """
path.parent.mkdir()
with open_storage(url) as storage:
    storage.save(voiceprint())
mount("--bind", "-o", "ro", str(path.parent), str(path.parent))
subprocess.run(["mount", "-o", "remount,bind,ro", str(path.parent)], check=True)
before = sorted(file.name for file in path.parent.iterdir())
with open_storage(url) as storage:
    print("callers", list(state(storage)), storage.check(), storage.exists())
    for change in (lambda: storage.save(voiceprint("bob")), lambda: storage.touch("alice"),
                   lambda: storage.delete("alice")):
        try:
            change()
        except StorageError as error:
            print(type(error).__name__, error)
    assert sorted(file.name for file in path.parent.iterdir()) == before
    subprocess.run(["mount", "-o", "remount,bind,rw", str(path.parent)], check=True)
    storage.save(voiceprint("carol"))
    print("callers", list(state(storage)))
"""


@pytest.mark.parametrize("scheme", ["sqlite", "json"])
def test_a_store_on_a_read_only_file_system_is_read_and_not_written(tmp_path: Path, scheme: str) -> None:
    said = mounted(f"{scheme}:{tmp_path / 'folder' / 'store'}", READ_ONLY)
    assert "callers ['alice'] [] True\n" in said
    assert said.count("StorageUnavailableError") == 3
    assert said.count("read-only" if scheme == "sqlite" else "Read-only") >= 3
    assert said.count("is opened read-only") == (scheme == "sqlite")
    assert "callers ['alice', 'carol']" in said


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may enter; that of pytest is for its own alone."""
    with tempfile.TemporaryDirectory(prefix="vp-places-") as name:
        made = Path(name, "folder")
        Path(name).chmod(0o755)
        made.mkdir(mode=0o755)
        yield made


def as_nobody(work: Callable[[], None]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")

    def become() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        work()

    in_child(become)


@pytest.mark.parametrize("scheme", ["sqlite", "json"])
def test_a_store_of_another_user_is_read_and_not_written(folder: Path, scheme: str) -> None:
    path = folder / "store"
    with open_storage(f"{scheme}:{path}") as storage:
        storage.save(voiceprint())
    path.chmod(0o644)

    def work() -> None:
        with open_storage(f"{scheme}:{path}") as storage:
            assert list(state(storage)) == ["alice"]
            assert storage.check() == []
            for change in (lambda: storage.save(voiceprint("bob")), lambda: storage.touch("alice")):
                with pytest.raises(StorageUnavailableError, match=r"read-only|Permission denied"):
                    change()

    before = path.read_bytes()
    as_nobody(work)
    assert path.read_bytes() == before


def test_a_reader_that_may_not_write_sees_what_a_writer_commits_meanwhile(folder: Path) -> None:
    path = folder / "store"
    with SQLiteStorage(path) as writer:
        writer.save(voiceprint())
        for file in folder.iterdir():
            file.chmod(0o644)

        def work() -> None:
            with SQLiteStorage(path) as reader:
                assert list(state(reader)) == ["alice"]
                with pytest.raises(StorageUnavailableError, match="read-only"):
                    reader.save(voiceprint("bob"))

        as_nobody(work)
        writer.save(voiceprint("bob", 1))
        assert list(state(writer)) == ["alice", "bob"]


def test_a_reader_that_may_not_write_follows_when_a_writer_has_come_and_gone(folder: Path) -> None:
    path = folder / "store"
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint())
    path.chmod(0o644)
    ready, go = folder.parent / "ready", folder.parent / "go"
    folder.parent.chmod(0o777)

    def work() -> None:
        with SQLiteStorage(path) as reader:
            assert list(state(reader)) == ["alice"]
            ready.touch()
            while not go.exists():
                time.sleep(0.005)
            assert list(state(reader)) == ["alice", "bob"]

    def write() -> None:
        while not ready.exists():
            time.sleep(0.005)
        subprocess.run(
            [sys.executable, "-c", WRITE.format(tests=str(Path(__file__).parent.parent)), path], check=True
        )
        go.touch()

    writing = threading.Thread(target=write)
    as_nobody_beside(work, writing)


WRITE = """
import sys; sys.path.insert(0, {tests!r})
from stores import voiceprint
from voiceprint import SQLiteStorage
with SQLiteStorage(sys.argv[1]) as storage:
    storage.save(voiceprint("bob", 1))
"""


def as_nobody_beside(work: Callable[[], None], thread: threading.Thread) -> None:
    thread.start()
    try:
        as_nobody(work)
    finally:
        thread.join()


def test_changes_in_a_log_that_cannot_be_read_without_writing_are_not_passed_over(folder: Path) -> None:
    path = folder / "store"
    copy = folder / "copy"
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint())
        storage.save(voiceprint("bob", 1))
        subprocess.run(["cp", path, copy], check=True)
        subprocess.run(["cp", f"{path}-wal", f"{copy}-wal"], check=True)
    for file in folder.iterdir():
        file.chmod(0o644)

    def work() -> None:
        with pytest.raises(StorageUnavailableError, match="log copy-wal"):
            SQLiteStorage(copy)

    as_nobody(work)
    with SQLiteStorage(copy) as storage:
        assert list(state(storage)) == ["alice", "bob"]


def test_an_old_database_that_cannot_be_upgraded_where_it_is_says_so(golden: Path, folder: Path) -> None:
    path = folder / "store"
    shutil.copy(golden / "schema-0004.db", path)
    path.chmod(0o644)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()

    def work() -> None:
        with pytest.raises(StorageUnavailableError, match="read-only"):
            SQLiteStorage(path)

    SQLiteStorage(folder / "other").close()  # loads what a user without a home cannot
    as_nobody(work)

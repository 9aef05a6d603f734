"""Removed values are gone from the files of a store: their bytes are searched."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from databases import sql
from processes import finish, start
from stores import state, unit, voiceprint

from voiceprint import JSONStorage, SQLiteStorage, Storage, Voiceprint, open_storage
from voiceprint.storage.pruning import prune_callers
from voiceprint.storage.sql.sqlite_erasure import _gap, erase_remains

# No 16 bytes of what was removed may be left in a row. Random embeddings have none in common.
PIECE = 16
STEPS = 400


class Search:
    """A search of the files of a folder for pieces of removed data."""

    def __init__(self, folder: Path) -> None:
        # By another process: closing a file takes back the locks that SQLite has on it in this one.
        content = subprocess.run(["cat", *sorted(folder.iterdir())], check=True, capture_output=True).stdout
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(content + bytes(8), np.uint8), 8)
        self.words = np.sort(np.ascontiguousarray(windows).view(np.uint64).ravel())

    def finds(self, removed: bytes) -> bool:
        """Whether the files hold 16 bytes in a row of the removed data, from every 8th on."""
        words = np.frombuffer(removed[: len(removed) // 8 * 8], np.uint64)
        at = np.minimum(np.searchsorted(self.words, words), len(self.words) - 1)
        found = self.words[at] == words
        return bool((found[1:] & found[:-1]).any())


class Life:
    """Random saves, replacements and removals, and all that they removed."""

    def __init__(self, storage: Storage, seed: int) -> None:
        self.storage = storage
        self.chance = random.Random(seed)
        self.removed: list[bytes] = []
        self.last = 0

    def step(self) -> None:
        known = self.storage.callers(after=self.name(), limit=1)
        kind = self.chance.random()
        if kind < 0.45 or not known:
            for _ in range(self.chance.choice([1, 1, 1, 2, 5])):  # the fourth takes the place of the first
                self.save(self.name() if self.chance.random() < 0.7 or not known else known[0].caller_id)
        elif kind < 0.75:
            self.lose(known[0].caller_id, names=True)
            self.storage.delete(known[0].caller_id)
        elif kind < 0.9:
            self.removed += [text.encode() for text in known[0].metadata.values()]
            self.storage.update_metadata(known[0].caller_id, self.metadata(), replace=True)
        else:
            old = known[0].voiceprints[0]
            self.removed += [old.embedding.tobytes()]
            self.save(known[0].caller_id, id=old.id)

    def name(self) -> str:
        return self.words("N", [1, 1, 3, 30])

    def metadata(self) -> dict[str, str]:
        return {"note": self.words("M", [1, 1, 2, 5, 20, 80, 300])}

    def words(self, sign: str, numbers: list[int]) -> str:
        """Words of 16 random letters each."""
        number = self.chance.choice(numbers)
        return "".join(f"{sign}{self.chance.getrandbits(60):015x}" for _ in range(number))

    def save(self, name: str, **fields: int) -> None:
        self.last += 1
        known = self.storage.get(name)
        before = {} if known is None else {print_.id: print_ for print_ in known.voiceprints}
        extra = unit(self.last + 10**6) if self.chance.random() < 0.5 else None
        self.storage.save(voiceprint(name, self.last, augmented=extra, **fields))
        after = {print_.id for print_ in self.storage.get(name).voiceprints}
        for id_, print_ in before.items():
            if id_ not in after:
                self.removed.append(print_.embedding.tobytes())
        if known is None:
            self.storage.update_metadata(name, self.metadata())

    def lose(self, name: str, *, names: bool) -> None:
        caller = self.storage.get(name)
        self.removed += [text.encode() for text in caller.metadata.values()]
        for print_ in caller.voiceprints:
            self.removed += [v.tobytes() for v in (print_.embedding, print_.augmented) if v is not None]
        if names:
            self.removed.append(name.encode())

    def remains(self, folder: Path) -> int:
        search = Search(folder)
        assert any(search.finds(p.embedding.tobytes()) for p in self.storage.get_all()[:5]) or isinstance(
            self.storage, JSONStorage
        )
        return sum(search.finds(removed) for removed in self.removed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


# Those of 0 to 15 after which most is left if the gaps of pages are not filled.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 5, 14])
@pytest.mark.parametrize("scheme", ["sqlite", "json"])
def test_nothing_that_was_removed_is_left_in_the_files(path: Path, scheme: str, seed: int) -> None:
    with open_storage(f"{scheme}:{path}") as storage:
        life = Life(storage, seed)
        for _ in range(STEPS):
            life.step()
        assert len(life.removed) > 100
        assert storage.flush_removals()
        assert life.remains(path.parent) == 0
        assert storage.check() == []
    with open_storage(f"{scheme}:{path}") as storage:
        life.storage = storage
        assert storage.check() == []
        assert life.remains(path.parent) == 0


def test_a_removal_is_gone_from_the_log_and_the_file_when_it_returns(path: Path) -> None:
    with SQLiteStorage(path) as storage, SQLiteStorage(path) as other:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(50)])
        storage.save(Voiceprint("alice", unit(1000), {"note": "a secret of alice"}))
        assert other.count() == 51
        assert Search(path.parent).finds(unit(1000).tobytes())
        storage.delete("alice")
        search = Search(path.parent)
        assert not search.finds(unit(1000).tobytes())
        assert not search.finds(b"a secret of alice")
        assert search.finds(unit(7).tobytes())
        other.save(voiceprint("bob", 2000))
        for n in range(1, 4):  # the fourth takes the place of the first
            other.save(voiceprint("bob", 2000 + n))
        assert not Search(path.parent).finds(unit(2000).tobytes())


def test_a_prune_leaves_nothing_and_writes_the_log_back_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*arguments: object) -> bool:
        calls.append(arguments)
        return erase_remains(*arguments)

    monkeypatch.setattr("voiceprint.storage.sql.sqlite.erase_remains", counted)
    with SQLiteStorage(path) as storage:
        old = [voiceprint(f"c{n}", n, last_seen="2001-01-01T00:00:00Z") for n in range(100)]
        storage.save_many([*old, voiceprint("new", 1000)])
        assert prune_callers(storage, timedelta(days=1), dry_run=False).voiceprints == 100
        assert len(calls) == 1
        search = Search(path.parent)
        assert not any(search.finds(unit(n).tobytes()) for n in range(100))
        assert search.finds(unit(1000).tobytes())


def test_a_removal_that_a_reader_holds_up_is_told_of_and_made_good(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voiceprint.storage.sql.eraser.ERASE_S", 0.05)
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM callers").fetchall()
        storage.save(voiceprint("alice", 1000))
        storage.delete("alice")
        assert storage.get("alice") is None
        assert Search(path.parent).finds(unit(1000).tobytes())
        assert "cannot be erased from the disk yet" in caplog.records[-1].getMessage()
        assert not storage.flush_removals(0.1)
        reader.execute("COMMIT")
        assert storage.flush_removals()
        assert not Search(path.parent).finds(unit(1000).tobytes())
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM callers").fetchall()
        storage.delete("c3")
        reader.execute("COMMIT")
        while storage._database.eraser._pending:  # a later operation does it
            storage.count()
        assert not Search(path.parent).finds(unit(3).tobytes())
        reader.close()


def test_a_large_database_is_seen_to_in_a_thread_that_can_be_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voiceprint.storage.sql.sqlite._QUICKLY", 1)
    with caplog.at_level("INFO"), SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
        for n in range(5):
            storage.delete(f"c{n}")
        assert "in the background" in caplog.text
        assert storage.flush_removals()
        search = Search(path.parent)
        assert not any(search.finds(unit(n).tobytes()) for n in range(5))
        storage.delete("c7")
        storage.close()
        with SQLiteStorage(path) as another:  # of the same process, which erases for all its handles
            assert another.flush_removals()
    assert not Search(path.parent).finds(unit(7).tobytes())


def test_many_removals_are_erased_once_at_the_end_whatever_is_read_between_them(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
        with storage.removing_many():
            for n in range(5):
                with storage.removing_many():
                    storage.delete(f"c{n}")
                assert storage.count() == 19 - n
            assert storage._database.eraser._pending
        assert not storage._database.eraser._pending
    assert not any(Search(path.parent).finds(unit(n).tobytes()) for n in range(5))


def test_a_process_that_ends_erases_what_it_removed_from_a_large_database(path: Path) -> None:
    script = (
        "import sys\n"
        "import voiceprint.storage.sql.sqlite as sqlite\n"
        "from voiceprint import SQLiteStorage\n"
        "sqlite._QUICKLY = 1\n"
        "storage = SQLiteStorage(sys.argv[1])\n"
        "[storage.delete(f'c{n}') for n in range(5)]\n"
    )
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    search = Search(path.parent)
    assert not any(search.finds(unit(n).tobytes()) for n in range(5))
    assert search.finds(unit(5).tobytes())


def test_what_an_older_version_left_in_a_database_goes_with_the_upgrade(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0004.db", path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA secure_delete=OFF")
    connection.execute(
        "INSERT INTO callers (caller_id, metadata, created_at, last_seen) VALUES ('gone', '{}', NULL, NULL)"
    )
    for n in range(50):
        row = (1000 + n, "gone", n, n, "resemblyzer", unit(n).tobytes(), None, 1)
        connection.execute("INSERT INTO voiceprints VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.execute("DELETE FROM voiceprints WHERE id >= 1000")
    connection.execute("DELETE FROM callers WHERE caller_id = 'gone'")
    connection.commit()
    connection.close()
    assert Search(path.parent).finds(unit(7).tobytes())
    with SQLiteStorage(path) as storage:
        before = state(storage)
        search = Search(path.parent)
        assert not any(search.finds(unit(n).tobytes()) for n in range(50))
        assert storage.check() == []
        assert state(storage) == before
    assert sql(path, "PRAGMA user_version") == [(1,)]


WORKER = """
import time
me, kept = int(argument), []
for n in range(60):
    storage.save(voiceprint(f"{me} {n}", 1000 * me + n, metadata={"note": f"secret {me:03} {n:03} " * 40}))
    storage.touch("shared")
    if n % 3:
        storage.delete(f"{me} {n}")
    list(storage.scan())
print(storage.flush_removals())
"""


@pytest.mark.slow
def test_nothing_is_left_when_many_processes_remove(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint("shared", 10**6))
        workers = [start(f"sqlite:{path}", WORKER, me) for me in range(1, 5)]
        assert [finish(worker) for worker in workers] == ["True\n"] * 4
        search = Search(path.parent)
        for me in range(1, 5):
            for n in range(60):
                assert search.finds(unit(1000 * me + n).tobytes()) == (n % 3 == 0)
                assert search.finds(f"secret {me:03} {n:03} ".encode() * 2) == (n % 3 == 0)
        assert storage.count() == 1 + 4 * 20
        assert storage.check() == []


def test_a_page_that_is_damaged_is_not_written_to() -> None:
    page = bytearray(4096)
    page[0:8] = bytes([13, 0, 0, 0, 2, 0x0F, 0, 0])
    page[8:12] = bytes([0x0F, 0, 0x0F, 0x80])
    page[100:200] = b"x" * 100
    assert _gap(bytes(page)) == (12, 0x0F00)
    page[8] = 1  # a record where the page says that none is
    assert _gap(bytes(page)) is None


def test_a_killed_writer_of_a_json_store_leaves_nothing_of_what_is_removed_later(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    with JSONStorage(path) as storage:
        storage.save(voiceprint("alice", 1))
        storage.save(voiceprint("bob", 2))
        left = tmp_path / f".{path.name}.abcdefgh.tmp"
        left.write_bytes(path.read_bytes())
        storage.delete("alice")
        assert not left.exists()
        storage.update_metadata("bob", {"note": "a secret"})
        left.write_bytes(path.read_bytes())
        storage.update_metadata("bob", {"note": None})
        assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}.lock"]


def test_what_a_process_removed_before_it_was_killed_is_erased_by_the_next(path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "import voiceprint.storage.sql.database as database\n"
        "from voiceprint import SQLiteStorage\n"
        "def killed(self):\n"
        "    if self._pending:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "database.Eraser.when_due = killed\n"
        "SQLiteStorage(sys.argv[1]).delete('c3')\n"
    )
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert Search(path.parent).finds(unit(3).tobytes())
    with SQLiteStorage(path) as storage:
        assert storage.get("c3") is None
        assert storage.flush_removals()
        assert not Search(path.parent).finds(unit(3).tobytes())
        assert storage.check() == []


@pytest.mark.slow
def test_a_database_with_auto_vacuum_is_not_damaged(path: Path) -> None:
    """Its pointer maps begin with the type of a page, as the pages of b-trees do."""
    with SQLiteStorage(path) as storage:
        # More than 821 pages, so that there is a second map, and most of what it tells of is free below.
        storage.save_many([voiceprint(f"c{n:04}", n) for n in range(4_000)])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("VACUUM")
    connection.close()
    with SQLiteStorage(path) as storage:
        with storage.removing_many():
            for n in range(100, 3_900):
                storage.delete(f"c{n:04}")
        assert storage.flush_removals()
        assert storage.check() == []
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()

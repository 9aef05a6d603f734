"""SQLite's locks belong to the process: the library does not release them by opening the file itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from stores import state, voiceprint

from voiceprint import (
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    VoiceFingerprintConfig,
    load_audio,
)
from voiceprint.errors import VoiceprintError
from voiceprint.scoring import Calibration
from voiceprint.storage import back_up, restore
from voiceprint.storage.snapshot_files import erase_snapshots, snapshots_at

READ = (
    "import sys\nfrom voiceprint import SQLiteStorage\n"
    "with SQLiteStorage(sys.argv[1]) as storage:\n"
    "    print(storage.count())\n"
)


def _restore(path: Path) -> None:
    with MemoryStorage() as other:
        restore(other, path)


def _back_up(path: Path) -> None:
    with MemoryStorage() as other:
        back_up(other, path)


def _index_there(path: Path) -> None:
    with SQLiteStorage(path.with_name("other.db")) as storage:
        storage.save(voiceprint("alice", 1))
        recognizer = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(index_path=str(path)))
        recognizer.warm_up()


USES: dict[str, Callable[[Path], object]] = {
    "load_audio": load_audio,
    "restore": _restore,
    "back_up": _back_up,
    "index path of another store": _index_there,
    "calibration": Calibration.load,
    "snapshots": lambda path: (snapshots_at([path]), erase_snapshots([path])),
}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_no_save_is_lost_when_the_file_of_an_open_database_is_taken_for_something_else(
    tmp_path: Path, use: str
) -> None:
    path = tmp_path / "store.db"
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint("first"))
        for suffix in ("", "-shm"):
            with suppress(VoiceprintError):  # some refuse it, and some pass it over
                USES[use](Path(f"{path}{suffix}"))
        for n in range(3):
            # Another process opens and closes it: with the locks gone, it would remove the log.
            done = subprocess.run(
                [sys.executable, "-c", READ, str(path)], check=True, capture_output=True, text=True
            )
            assert int(done.stdout) == n + 1
            storage.save(voiceprint(f"c{n}", n))
    with SQLiteStorage(path) as storage:
        assert set(state(storage)) == {"first", "c0", "c1", "c2"}


def test_an_open_database_is_no_export_to_import(tmp_path: Path, run) -> None:
    with SQLiteStorage(tmp_path / "store.db") as storage:
        storage.save(voiceprint("first"))
        code, _, err = run("import", tmp_path / "store.db", "--store", f"json:{tmp_path / 'new.json'}")
        assert (code, "belongs to a database that this process has open" in err) == (2, True)


def test_a_closed_database_that_was_removed_leaves_its_inode_to_other_files(tmp_path: Path) -> None:
    for n in range(20):
        path = tmp_path / f"{n}.db"
        with SQLiteStorage(path) as storage:
            storage.save(voiceprint())
        path.unlink()
        other = tmp_path / f"{n}.txt"
        other.write_text("a letter")
        with pytest.raises(VoiceprintError, match="audio"):
            load_audio(other)

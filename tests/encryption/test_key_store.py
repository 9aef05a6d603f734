"""Data keys in a key store of their own: a forgotten key makes old copies of the records unreadable."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import postgres_server
import pytest
from encryption_keys import text_key
from redis_server import fresh_database, shared_server
from sqlalchemy import text
from stores import Follower, forget_json_files, state, unit, voiceprint

from voiceprint import JSONStorage, RedisStorage, SQLiteStorage, Storage, VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError, EncryptionKeyError, StorageUnavailableError
from voiceprint.identification.snapshots import snapshot_path
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.conversion import encrypt_store, encryption_status, rotate
from voiceprint.privacy.encryption.key_store import KeyStore
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.privacy.encryption.opening import configured_store, open_store
from voiceprint.storage import SQLStorage
from voiceprint.storage.sql.dialect import dialect_of

KEY = text_key()


def keyed(place: str | Path, *keys: str) -> Encryption:
    """An encryption with a key store at this place."""
    return Encryption(KeyRing(VariableKeys(" ".join(keys or [KEY]))), KeyStore(str(place)))


class Kind(NamedTuple):
    """A kind of store: opens it, and keeps a raw copy of its records, which a call brings back."""

    open: Callable[[Encryption | None], Storage]
    copy: Callable[[], Callable[[], None]]


def json_kind(folder: Path) -> Kind:
    path = folder / "callers.json"

    def opened(encryption: Encryption | None) -> Storage:
        forget_json_files()
        return JSONStorage(path, encryption=encryption)

    return Kind(opened, lambda: file_copy(path))


def sqlite_kind(folder: Path) -> Kind:
    path = folder / "callers.db"
    return Kind(lambda encryption: SQLiteStorage(path, encryption=encryption), lambda: file_copy(path))


def file_copy(path: Path) -> Callable[[], None]:
    kept = path.with_name("kept")
    shutil.copy(path, kept)

    def restore() -> None:
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        shutil.copy(kept, path)

    return restore


def postgresql_kind(_: Path) -> Kind:
    url = postgres_server.fresh_url()
    tables = ("store", "callers", "voiceprints", "augmented_voiceprints", "caller_groups", "commits")
    tables += ("tombstones", "deletions")

    def copy() -> Callable[[], None]:
        engine = dialect_of(url).engine()
        with engine.begin() as connection:
            kept = {
                name: connection.execute(text(f"SELECT * FROM {name}")).mappings().all() for name in tables
            }

        def restore() -> None:
            with engine.begin() as connection:
                for name in reversed(tables):
                    connection.execute(text(f"DELETE FROM {name}"))
                for name, rows in kept.items():
                    for row in rows:
                        columns = ", ".join(row)
                        values = ", ".join(f":{column}" for column in row)
                        connection.execute(
                            text(f"INSERT INTO {name} ({columns}) VALUES ({values})"), dict(row)
                        )
            engine.dispose()

        return restore

    return Kind(lambda encryption: SQLStorage(url, encryption=encryption), copy)


def redis_kind(_: Path) -> Kind:
    server, database = shared_server(), fresh_database()

    def opened(encryption: Encryption | None) -> Storage:
        with server.client(database) as client:
            return RedisStorage(client, encryption=encryption)

    def copy() -> Callable[[], None]:
        with server.client(database) as client:
            kept = {key: client.dump(key) for key in client.keys("*")}

        def restore() -> None:
            with server.client(database) as client:
                client.flushdb()
                for key, value in kept.items():
                    client.restore(key, 0, value)

        return restore

    return Kind(opened, copy)


@pytest.fixture(params=[json_kind, sqlite_kind, postgresql_kind, redis_kind])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made: Kind = request.param(tmp_path)
    return made


@pytest.fixture(params=["file", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "keys.db") if request.param == "file" else postgres_server.fresh_url()


def fill(storage: Storage) -> None:
    for number, name in enumerate(["alice", "bob", "carol", "dora"]):
        storage.save(voiceprint(name, number, metadata={"of": name}, augmented=unit(50 + number)))
        storage.save(voiceprint(name, 10 + number, groups=("vip",)))


def test_records_hold_references_and_are_read_by_a_new_handle(kind: Kind, place: str) -> None:
    with kind.open(keyed(place)) as storage:
        fill(storage)
        before = state(storage)
        assert all(key is not None and len(key) == 25 for _, key in storage.data_keys())
    with kind.open(keyed(place)) as storage:
        assert state(storage) == before
        Follower().assert_in_step(storage)
        assert storage.check() == []


@pytest.mark.parametrize("removal", ["delete", "opt_out", "rename", "merge"])
def test_an_old_copy_of_a_removed_caller_cannot_be_read(kind: Kind, tmp_path: Path, removal: str) -> None:
    place = tmp_path / "keys.db"
    with kind.open(keyed(place)) as storage:
        fill(storage)
        others = {name: value for name, value in state(storage).items() if name != "bob"}
    restore = kind.copy()
    with kind.open(keyed(place)) as storage:
        {
            "delete": lambda: storage.delete("bob"),
            "opt_out": lambda: storage.opt_out("bob", reason="no"),
            "rename": lambda: storage.rename("bob", "robert"),
            "merge": lambda: storage.merge("bob", into="dora"),
        }[removal]()
    restore()
    with kind.open(keyed(place)) as storage:
        assert storage.get("bob") is None
        assert [caller.caller_id for caller in storage.callers(limit=2)] == ["alice", "carol"]
        assert [caller.caller_id for caller in storage.iter_callers(page=1)] == ["alice", "carol", "dora"]
        assert list(storage.get_callers(["alice", "bob"])) == ["alice"]
        assert [caller.caller_id for caller in storage.find_callers({"of": "carol"})] == ["carol"]
        assert storage.find_callers({"of": "bob"}) == []
        scanned = [ids.tolist() for ids, _ in storage.scan(batch_size=1)]
        assert sorted(id_ for ids in scanned for id_ in ids) == [1, 2, 5, 6, 7, 8]
        Follower().catch_up(storage)
        findings = storage.check()
        assert [(each.code, each.place) for each in findings] == [("forgotten", "caller 'bob'")]
        assert encryption_status(storage).keys.get("forgotten", 0) == (not isinstance(storage, JSONStorage))
        assert storage.check(fix=True) == []
        assert storage.check() == []
        assert state(storage) == others
        assert "bob" not in dict(storage.data_keys())


def test_a_forgotten_caller_can_be_enrolled_and_deleted_again(kind: Kind, tmp_path: Path) -> None:
    place = tmp_path / "keys.db"
    with kind.open(keyed(place)) as storage:
        fill(storage)
    restore = kind.copy()
    with kind.open(keyed(place)) as storage:
        storage.delete("bob")
        storage.delete("carol")
    restore()
    with kind.open(keyed(place)) as storage:
        follower = Follower()
        follower.catch_up(storage)
        storage.save(voiceprint("bob", 33))
        storage.delete("carol")
        found = storage.get("bob")
        assert found is not None
        assert [np.array_equal(each.embedding, unit(33)) for each in found.voiceprints] == [True]
        assert storage.check() == []
        assert list(state(storage)) == ["alice", "bob", "dora"]
        follower.assert_in_step(storage)


def test_no_file_of_the_key_store_holds_a_forgotten_key(tmp_path: Path) -> None:
    encryption = keyed(tmp_path / "keys.db")
    with SQLiteStorage(tmp_path / "callers.db", encryption=encryption) as storage:
        storage.save_many([voiceprint(f"caller {number}", number) for number in range(300)])
        keys = {name: key or b"" for name, key in storage.data_keys()}
        kept = encryption.key_store.find(key[9:] for key in keys.values())
        gone = [f"caller {number}" for number in range(0, 300, 7)]
        for name in gone:
            storage.delete(name)
        content = b"".join(path.read_bytes() for path in tmp_path.glob("keys.db*"))
        for name, key in keys.items():
            wrapped = kept[key[9:]]
            assert wrapped is not None
            assert (wrapped[-32:] in content) == (name not in gone)
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600


def test_an_interrupted_removal_is_found_and_finished(kind: Kind, tmp_path: Path) -> None:
    encryption = keyed(tmp_path / "keys.db")
    with kind.open(encryption) as storage:
        fill(storage)
        key = storage.data_key("bob")
        assert key is not None
        encryption.forget = lambda wrapped: None  # type: ignore[method-assign]  # as a kill before it
        storage.delete("bob")
    with kind.open(keyed(tmp_path / "keys.db")) as storage:
        assert [each.code for each in storage.check()] == ["key_left"]
        assert not storage.sealing.is_forgotten(key)
        assert storage.check(fix=True) == []
        assert storage.sealing.is_forgotten(key)
        assert storage.check() == []


def test_a_removal_that_was_taken_back_keeps_its_key(tmp_path: Path) -> None:
    encryption = keyed(tmp_path / "keys.db")
    with SQLiteStorage(tmp_path / "callers.db", encryption=encryption) as storage:
        fill(storage)
        key = storage.data_key("bob")
        assert key is not None
        encryption.will_forget([key])  # and then no commit
        assert storage.check(fix=True) == []
        assert storage.get("bob") is not None


def test_a_missing_other_or_older_key_store_is_refused_and_nothing_is_removed(
    kind: Kind, tmp_path: Path
) -> None:
    place = tmp_path / "keys.db"
    with kind.open(keyed(place)) as storage:
        storage.save(voiceprint("alice"))
    with closing(sqlite3.connect(place)) as live, closing(sqlite3.connect(tmp_path / "older.db")) as copy:
        live.backup(copy)
    with kind.open(keyed(place)) as storage:
        storage.save(voiceprint("bob"))
        before = state(storage)
    without = Encryption(KeyRing(VariableKeys(KEY)))
    for encryption, told in (
        (without, "none is set"),
        (keyed(tmp_path / "other.db"), "other.db"),
        (keyed(tmp_path / "older.db"), "older copy"),
    ):
        with pytest.raises(EncryptionKeyError, match=told), kind.open(encryption) as storage:
            storage.get("bob")
        with pytest.raises(EncryptionKeyError, match=told), kind.open(encryption) as storage:
            storage.check(fix=True)
    with kind.open(keyed(place)) as storage:
        assert state(storage) == before


def test_a_rotation_wraps_the_keys_in_the_key_store(kind: Kind, place: str) -> None:
    new = text_key()
    with kind.open(keyed(place)) as storage:
        fill(storage)
        before, references = state(storage), dict(storage.data_keys())
    with kind.open(keyed(place, new, KEY)) as storage:
        assert len(encryption_status(storage).keys) == 1
        assert rotate(storage).changed == 4
        assert rotate(storage).changed == 0
        assert dict(storage.data_keys()) == references
    with kind.open(keyed(place, new)) as storage:
        assert state(storage) == before
        now = encryption_status(storage)
        assert (now.keys, now.mark) == ({now.current: 4}, now.current)


def test_a_rotation_moves_the_keys_of_an_encrypted_store_into_a_key_store(kind: Kind, tmp_path: Path) -> None:
    with kind.open(Encryption(KeyRing(VariableKeys(KEY)))) as storage:
        fill(storage)
        before = state(storage)
    with kind.open(keyed(tmp_path / "keys.db")) as storage:
        assert state(storage) == before
        assert rotate(storage).changed == 4
        assert all(key is not None and len(key) == 25 for _, key in storage.data_keys())
        assert state(storage) == before


def test_a_plain_store_is_encrypted_with_a_key_store(kind: Kind, tmp_path: Path) -> None:
    with kind.open(None) as storage:
        fill(storage)
        before = state(storage)
    with kind.open(keyed(tmp_path / "keys.db")) as storage:
        report = encrypt_store(storage)
        assert (report.changed, report.found) == (4, ())
        assert state(storage) == before


def test_a_removal_is_refused_while_the_key_store_cannot_be_written(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    place.mkdir()
    with SQLiteStorage(tmp_path / "callers.db", encryption=keyed(place / "keys.db")) as storage:
        fill(storage)
        before = state(storage)
        hidden = tmp_path / "hidden"
        place.rename(hidden)
        with pytest.raises(StorageUnavailableError, match="cannot be used"):
            storage.delete("bob")
        hidden.rename(place)
        assert state(storage) == before


def test_the_setting_names_the_key_store(tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(encryption_key=KEY, encryption_keys=str(tmp_path / "keys.db"))
    encryption = Encryption.from_config(config)
    assert encryption is not None
    assert encryption is Encryption.from_config(config)
    assert encryption.keeps_keys_apart
    assert encryption.key_store.location == str(tmp_path / "keys.db")


def test_a_key_store_in_the_file_of_the_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "callers.db"
    SQLiteStorage(path).close()
    config = VoiceFingerprintConfig(
        storage_backend="sqlite", storage_path=str(path), encryption_key=KEY, encryption_keys=str(path)
    )
    with pytest.raises(ConfigurationError, match="names the file of the store"):
        configured_store(config)
    with pytest.raises(ConfigurationError, match="names the file of the store"):
        open_store(f"sqlite:{path}", config)


def test_a_store_with_a_key_store_has_no_snapshot_of_its_index(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "callers.db", encryption=keyed(tmp_path / "keys.db")) as storage:
        assert snapshot_path(storage, None) is None
        assert snapshot_path(storage, str(tmp_path / "some.index")) is None


def test_a_forked_process_uses_the_key_store_with_connections_of_its_own(place: str) -> None:
    store = KeyStore(place)
    store.add("one", {b"a" * 16: b"key"})

    def in_child() -> None:
        assert store.find([b"a" * 16]) == {b"a" * 16: b"key"}
        store.add("one", {b"b" * 16: b"other"})

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert store.find([b"a" * 16, b"b" * 16, b"c" * 16]) == {b"a" * 16: b"key", b"b" * 16: b"other"}


def test_many_threads_add_find_and_forget_keys(place: str) -> None:
    store = KeyStore(place)

    def work(number: int) -> bool:
        ids = [bytes([number, each]) + bytes(14) for each in range(20)]
        for id_ in ids:
            store.add("one", {id_: id_ * 5})
        store.leave(ids[::2])
        store.forget(ids[::2])
        return store.find(ids) == {id_: None if each % 2 == 0 else id_ * 5 for each, id_ in enumerate(ids)}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert store.leaving("one") == []


def test_the_command_line_shows_forgotten_callers_and_removes_them(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("encryption", "init", "master.key")[0] == 0
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY_FILE", "master.key")
    monkeypatch.setenv("VOICE_ENCRYPTION_KEYS", "keys.db")
    store = ("--store", "sqlite:callers.db")
    encryption = Encryption.from_config(VoiceFingerprintConfig())
    with SQLiteStorage("callers.db", encryption=encryption) as storage:
        fill(storage)
    restore = file_copy(tmp_path / "callers.db")
    assert run("callers", "delete", "bob", "--yes", *store)[0] == 0
    restore()
    code, out, _ = run("encryption", "status", *store)
    assert (code, "1 caller whose data key was forgotten" in out) == (0, True)
    code, out, err = run("check", *store)
    assert (code, "forgotten" in out + err) == (1, True)
    assert run("check", "--fix", *store)[0] == 0
    code, out, _ = run("backup", "callers.backup", *store)
    assert (code, "opens without the key store" in out) == (0, True)
    assert "3 new there" in run("encryption", "rotate", *store)[1]
    assert "3 callers under the key" in run("encryption", "status", *store)[1]
    monkeypatch.delenv("VOICE_ENCRYPTION_KEYS")
    code, out, err = run("callers", "list", *store)
    assert (code != 0, "set VOICE_ENCRYPTION_KEYS" in err) == (True, True)


def test_a_key_store_that_is_replaced_is_noticed_by_a_running_process(tmp_path: Path) -> None:
    encryption = keyed(tmp_path / "keys.db")
    with SQLiteStorage(tmp_path / "callers.db", encryption=encryption) as storage:
        fill(storage)
        before = state(storage)
        for path in tmp_path.glob("keys.db*"):
            path.rename(tmp_path / f"away-{path.name}")
        with pytest.raises(EncryptionKeyError, match="is another"):
            storage.get("bob")
        with pytest.raises(EncryptionKeyError, match="is another"):
            storage.save(voiceprint("new"))
        for path in tmp_path.glob("keys.db*"):
            path.unlink()
        for path in tmp_path.glob("away-*"):
            path.rename(tmp_path / path.name.removeprefix("away-"))
        assert state(storage) == before


def test_a_key_store_without_a_master_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="VOICE_ENCRYPTION_KEYS is set, and no master key"):
        Encryption.from_config(VoiceFingerprintConfig(encryption_keys="keys.db"))


@pytest.mark.parametrize("bad", ["nosuch://user:secret@host/keys", "~nobody-of-this-name/keys.db"])
def test_a_bad_place_is_refused_without_its_password(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="VOICE_ENCRYPTION_KEYS") as refused:
        KeyStore(bad)
    assert "secret" not in str(refused.value)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError, match="cannot be used"):
        keyed(tmp_path / "missing" / "keys.db").new_keys("store", ["alice"])


def test_processes_that_open_a_new_key_store_at_once_agree_on_its_id(place: str) -> None:
    assert len({KeyStore(place).id for _ in range(3)}) == 1
    assert KeyStore(place if "://" in place else f"sqlite:{place}").id == KeyStore(place).id

"""Encrypted stores of every kind: what they hold, whom they refuse, and how they come to be."""

from __future__ import annotations

import base64
import functools
import hashlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import postgres_server
import psycopg
import pytest
from encryption_keys import encryption, file_encryption, text_key
from redis_server import RedisServer
from stores import forget_json_files, state, unit, voiceprint

from voiceprint import JSONStorage, MemoryStorage, RedisStorage, SQLiteStorage, Storage
from voiceprint.consent import Consent, Provenance
from voiceprint.errors import ConfigurationError, EncryptionKeyError, StorageCorruptError
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.index import VectorIndex
from voiceprint.privacy.encryption import Encryption, new_key_file
from voiceprint.privacy.encryption.conversion import encrypt_store, encryption_status, rotate
from voiceprint.privacy.encryption.keys import FileKeys
from voiceprint.privacy.encryption.search import Search
from voiceprint.privacy.erasure import delete_with_receipt
from voiceprint.storage import SQLStorage
from voiceprint.storage.sealing import ENCRYPTING, ON, mark_state, plain_store_allowed

Opener = Callable[..., Storage]


class Place:
    """A store at one place: `open` gives handles on it with any key, `raw` all that is on its disks."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._server: RedisServer | None = None
        self._handles: list[Storage] = []
        if kind == "json":
            self._opener: Opener = functools.partial(JSONStorage, folder / "callers.json")
        elif kind == "sqlite":
            self._opener = functools.partial(SQLiteStorage, folder / "callers.db")
        elif kind == "postgresql":
            self.url = postgres_server.fresh_url()
            self._opener = functools.partial(SQLStorage, self.url)
        else:
            self._server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
            shards = 4 if kind == "redis-shards" else None
            self._opener = functools.partial(RedisStorage, self._server.client(), shards=shards)

    def open(self, key: Encryption | None = None) -> Storage:
        forget_json_files()
        handle = self._opener(encryption=key)
        self._handles.append(handle)
        return handle

    def raw(self) -> bytes:
        """All bytes of the store's files; of PostgreSQL, of all columns."""
        if self.kind == "postgresql":
            with self.database() as database:
                found = database.execute(
                    "select tablename from pg_tables where schemaname = current_schema()"
                )
                tables = [name for (name,) in found.fetchall()]
                rows = [row for name in tables for row in database.execute(f'select * from "{name}"')]
            return b"\n".join(
                bytes(cell) if isinstance(cell, (bytes, memoryview)) else str(cell).encode()
                for row in rows
                for cell in row
            )
        folder = self._server.folder if self._server is not None else self.folder
        return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())

    def database(self) -> Any:
        """A connection to the database of an SQL store, which commits at the end of its block."""
        if self.kind == "postgresql":
            return psycopg.connect(self.url)
        return sqlite3.connect(self.folder / "callers.db")

    def end(self) -> None:
        for handle in self._handles:
            handle.close()
        if self._server is not None:
            self._server.end()


@pytest.fixture(params=["json", "sqlite", "postgresql", "redis", "redis-shards"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path)
    yield made
    made.end()


SECRETS = (b"Liddell", b"Rabbit hole", b"the-purpose", b"call-4711")


def fill(storage: Storage) -> None:
    storage.save(
        voiceprint(
            "alice",
            1,
            augmented=unit(11),
            metadata={"name": "Alice Liddell", "note": "Rabbit hole"},
            consent=Consent(purpose="the-purpose", version="1"),
            provenance=Provenance(source="call-4711", quality=0.9),
        )
    )
    storage.save_many([voiceprint("bob", 2), voiceprint("bob", 3), voiceprint("carol", 4, encoder="other")])
    storage.set_groups("bob", add=["vip"])


def pieces() -> list[bytes]:
    """The known embeddings as float32, float16 and text, and the known texts."""
    found = list(SECRETS)
    for vector in (unit(1), unit(11), unit(2), unit(3), unit(4, 8)):
        found += [vector.astype("<f4").tobytes()[:16], vector.astype("<f2").tobytes()[:16]]
        found.append(orjson.dumps(vector[:3], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        found += [base64.b64encode(vector.astype("<f4").tobytes())[4:24]]
    return found


def test_nothing_that_is_known_is_in_any_byte_of_an_encrypted_store(place: Place) -> None:
    plain = place.open()
    fill(plain)
    before = place.raw()
    assert any(piece in before for piece in pieces())  # else the search finds nothing at all
    plain.close()
    key = encryption()
    storage = Place(place.kind, place.folder / "new")
    (place.folder / "new").mkdir()
    try:
        encrypted = storage.open(key)
        fill(encrypted)
        encrypted.touch("alice")
        encrypted.update_metadata("alice", {"more": "Cheshire Liddell"})
        encrypted.delete("bob")
        wanted = state(encrypted)
        raw = storage.raw()
        assert [piece for piece in pieces() if piece in raw] == []
        encrypted.close()
        again = storage.open(key)
        assert state(again) == wanted
        assert again.check() == []
        caller = again.get("alice")
        assert caller is not None
        assert caller.consent is not None
        assert (caller.consent.purpose, caller.metadata["more"]) == ("the-purpose", "Cheshire Liddell")
        assert caller.voiceprints[0].provenance == Provenance(source="call-4711", quality=0.9)
    finally:
        storage.end()


def uses(storage: Storage) -> list[Callable[[], object]]:
    return [
        lambda: storage.get("alice"),
        lambda: storage.callers(),
        lambda: list(storage.scan()),
        lambda: storage.save(voiceprint("dave", 5)),
        lambda: storage.delete("alice"),
        lambda: storage.opt_out("bob"),
        lambda: storage.update_metadata("alice", {"a": 1}),
    ]


def test_without_the_key_and_with_another_nothing_is_read_and_nothing_written(place: Place) -> None:
    key = encryption()
    storage = place.open(key)
    fill(storage)
    wanted = state(storage)
    for other in (None, encryption()):
        with pytest.raises(EncryptionKeyError, match="Nothing was changed"):
            place.open(other).get("alice")
    assert state(place.open(key)) == wanted


def test_a_handle_without_a_key_that_was_open_before_is_refused_from_the_encryption_on(place: Place) -> None:
    plain = place.open()
    fill(plain)
    plain.get("alice")
    encrypted = place.open(encryption())
    encrypt_store(encrypted)
    wanted = state(encrypted)
    for use in uses(plain):
        with pytest.raises(EncryptionKeyError):
            use()
    assert state(encrypted) == wanted


def test_with_a_key_a_plain_store_is_neither_read_nor_written_until_it_is_encrypted(place: Place) -> None:
    plain = place.open()
    fill(plain)
    wanted = state(plain)
    storage, beside = place.open(encryption()), place.open(encryption())
    for use in uses(storage):
        with pytest.raises(ConfigurationError, match="voiceprint encryption encrypt"):
            use()
    assert state(plain) == wanted
    assert encryption_status(storage).state == "plain"
    with pytest.raises(ConfigurationError):  # the status has let nobody in
        storage.get("alice")
    with pytest.raises(ConfigurationError):
        beside.get("alice")
    encrypt_store(storage)
    assert state(storage) == wanted
    storage.save(voiceprint("dave", 5))
    assert encryption_status(storage).plain == 0


def test_a_store_is_encrypted_in_place_and_holds_no_plain_data_afterwards(place: Place) -> None:
    fill(place.open())
    plain = place.open()
    wanted, position = state(plain), plain.position()
    key = encryption()
    storage = place.open(key)
    report = encrypt_store(storage)
    assert (report.callers, report.changed, report.found) == (3, 3, ())
    assert state(storage) == wanted
    assert storage.position() == position  # an index in memory stays good
    if place.kind.startswith("redis"):
        storage.server_remains(rewrite=True)  # the log of the server is the server's
    raw = place.raw()
    assert [piece for piece in pieces() if piece in raw] == []
    assert encrypt_store(storage).changed == 0
    assert encryption_status(storage).keys == {key.keys.ids()[0]: 3}


def test_an_interrupted_encryption_refuses_plain_writers_and_goes_on(place: Place) -> None:
    plain = place.open()
    fill(plain)
    key = encryption()
    storage = place.open(key)
    wanted = state(plain)
    with plain_store_allowed():
        storage.set_encryption(ENCRYPTING)
    storage.reseal(["alice"])
    now = encryption_status(storage)
    assert (now.state, now.callers, now.plain) == ("encrypting", 3, 2)
    assert state(place.open(key)) == wanted  # a mixture is read
    storage.save(voiceprint("dave", 5))  # and written
    with pytest.raises(EncryptionKeyError):
        plain.save(voiceprint("erin", 6))
    assert encrypt_store(storage).changed == 2
    assert mark_state(storage.encryption_mark()) == ON
    assert storage.count_callers() == 4


def test_a_rotation_beside_readers_and_writers_loses_nothing_and_resumes(
    place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    new_key_file(path)
    storage, beside = place.open(file_encryption(path)), place.open(file_encryption(path))
    storage.save_many([voiceprint(f"caller-{n}", n) for n in range(30)])
    FileKeys(path).add()
    storage.reseal(["caller-1", "caller-2"])  # as a run that was interrupted
    ended = threading.Event()
    failures: list[BaseException] = []

    def use() -> None:
        number = 100
        try:
            while not ended.is_set() or number < 103:
                beside.save(voiceprint(f"caller-{number}", number))
                assert beside.get("caller-3") is not None
                number += 1
        except BaseException as error:  # noqa: BLE001  reported below
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    report = rotate(storage)
    ended.set()
    thread.join()
    assert failures == []
    assert report.changed >= 28
    rotate(storage)
    now = encryption_status(storage)
    assert list(now.keys) == [now.current] == [now.mark]
    newest = path.read_text().splitlines()[2]
    only_new = place.open(encryption(newest))
    assert np.array_equal(only_new.get("caller-1").voiceprints[0].embedding, unit(1))
    assert only_new.check() == []


def test_a_rotation_needs_an_encrypted_store_and_a_key(place: Place) -> None:
    fill(place.open())
    with pytest.raises(ConfigurationError, match="is not encrypted"):
        rotate(place.open(encryption()))
    with pytest.raises(ConfigurationError, match="no master key"):
        encrypt_store(place.open())


def test_a_caller_who_opts_out_or_comes_back_has_another_data_key(place: Place) -> None:
    storage = place.open(encryption())
    fill(storage)
    keys = dict(storage.data_keys())
    storage.touch("alice")
    storage.save(voiceprint("alice", 7))
    assert dict(storage.data_keys())["alice"] == keys["alice"]
    storage.opt_out("alice", reason="Rabbit hole")
    refused = dict(storage.data_keys())["alice"]
    assert refused != keys["alice"]
    assert b"Rabbit hole" not in place.raw()
    assert storage.get("alice").opt_out.reason == "Rabbit hole"
    assert not storage.touch("alice")
    storage.delete("bob")
    storage.save(voiceprint("bob", 8))
    assert dict(storage.data_keys())["bob"] != keys["bob"]


def test_a_copy_to_a_store_of_another_key_and_kind_is_sealed_anew(place: Place, tmp_path: Path) -> None:
    from voiceprint.storage import copy_callers, digest

    storage = place.open(encryption())
    fill(storage)
    with SQLiteStorage(tmp_path / "copy.db", encryption=encryption()) as target, MemoryStorage() as memory:
        copy_callers(storage, target)
        copy_callers(target, memory)
        assert digest(memory) == digest(storage)


def _swap(place: Place) -> list[Callable[[], None]]:
    """Ways to put a ciphertext of one caller or field in the place of another."""
    if place.kind == "json":

        def change(work: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
            def run() -> None:
                path = place.folder / "callers.json"
                content = orjson.loads(path.read_bytes())
                work(content)
                path.write_bytes(orjson.dumps(content))

            return run

        def prints(content: dict[str, Any]) -> None:
            one, other = content["bob"]["voiceprints"]
            one["embedding"], other["embedding"] = other["embedding"], one["embedding"]

        def details(content: dict[str, Any]) -> None:
            content["bob"]["sealed"] = content["alice"]["sealed"]

        def keys(content: dict[str, Any]) -> None:
            content["bob"]["data_key"] = content["alice"]["data_key"]

        def kinds(content: dict[str, Any]) -> None:
            (one,) = content["alice"]["voiceprints"]
            one["embedding"], one["augmented"] = one["augmented"], one["embedding"]

        return [*map(change, (prints, details, keys, kinds))]

    def execute(*statements: str) -> Callable[[], None]:
        def run() -> None:
            with place.database() as database:
                for statement in statements:
                    database.execute(statement)

        return run

    return [
        execute(
            "create table kept as select id, embedding, seal from voiceprints",
            "update voiceprints set (embedding, seal) = (select embedding, seal from kept where kept.id = "
            "5 - voiceprints.id) where id in (2, 3)",
            "drop table kept",
        ),
        execute(
            "update callers set sealed = (select sealed from callers where caller_id = 'alice') "
            "where caller_id = 'bob'"
        ),
        execute(
            "update callers set data_key = (select data_key from callers where caller_id = 'alice') "
            "where caller_id = 'bob'"
        ),
        execute("update voiceprints set seal = null where id = 2"),
        execute("update callers set data_key = null, sealed = null where caller_id = 'bob'"),
    ]


@pytest.mark.parametrize("place", ["json", "sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("number", range(5))
def test_a_ciphertext_in_another_place_is_damage(place: Place, number: int) -> None:
    key = encryption()
    storage = place.open(key)
    fill(storage)
    storage.close()
    ways = _swap(place)
    if number >= len(ways):
        pytest.skip("this store has fewer fields to swap")
    ways[number]()
    with pytest.raises(StorageCorruptError):
        list(place.open(key).iter_callers())


def _forge(place: Place, change: Callable[[str], str | None], *, record: bool) -> None:
    """Change the mark of a store without the key, and with `record` put a plain record in alice's place."""
    if place.kind == "json":
        path = place.folder / "callers.json"
        content = orjson.loads(path.read_bytes())
        mark = change(content[""].pop("encryption"))
        content[""].update({} if mark is None else {"encryption": mark})
        if record:
            (kept,) = content["alice"]["voiceprints"]
            planted = {"id": kept["id"], "revision": kept["revision"], "embedding": unit(9).tolist()}
            times = {key: content["alice"][key] for key in ("created_at", "last_seen")}
            content["alice"] = {**times, "metadata": {}, "voiceprints": [{**planted, **times}]}
        path.write_bytes(orjson.dumps(content))
    elif place._server is not None:
        with place._server.client() as client:
            for name in client.keys("*"):
                if client.type(name) == b"hash" and (value := client.hget(name, "encryption")):
                    mark = change(value.decode())
                    if mark is None:
                        client.hdel(name, "encryption")
                    else:
                        client.hset(name, "encryption", mark)
            if record:
                other = Place(place.kind, place.folder)
                fill(other.open())
                with other._server.client() as source:
                    (name,) = [name for name in source.keys("*:c:*") if name.endswith(b"alice")]
                    client.set(name, source.get(name))
                other.end()
    else:
        with place.database() as database:
            sign = "?" if place.kind == "sqlite" else "%s"
            mark = change(database.execute("select encryption from store").fetchone()[0])
            database.execute(f"update store set encryption = {sign}", (mark,))
            if record:
                planted = (unit(9).astype("<f4").tobytes(),)
                database.execute(
                    "update callers set data_key = null, sealed = null where caller_id = 'alice'"
                )
                database.execute(
                    f"update voiceprints set seal = null, embedding = {sign} where caller_id = 'alice'",
                    planted,
                )


_MARKS: dict[str, Callable[[str], str | None]] = {
    "encrypting": lambda mark: mark.replace("on ", "encrypting "),
    "without a seal": lambda mark: "encrypting " + mark.split(" ")[1],
    "removed": lambda mark: None,
}


@pytest.mark.parametrize("way", _MARKS)
def test_without_the_key_nobody_makes_an_encrypted_store_accept_plain_records(place: Place, way: str) -> None:
    key = encryption()
    fill(place.open(key))
    _forge(place, _MARKS[way], record=True)
    for use in (
        lambda: place.open(key).get("alice"),
        lambda: list(place.open(key).scan()),
        lambda: encrypt_store(place.open(key)),  # would make the planted record genuine
    ):
        with pytest.raises((StorageCorruptError, ConfigurationError)):
            use()


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("way", ["removed", "kept"])
def test_the_status_names_a_store_whose_mark_and_records_disagree(place: Place, way: str) -> None:
    key = encryption()
    fill(place.open(key))
    _forge(place, _MARKS["removed"] if way == "removed" else lambda mark: mark, record=True)
    assert encryption_status(place.open(key)).state == "damaged"


def test_a_handle_that_is_open_notices_that_the_mark_was_changed_without_the_key(place: Place) -> None:
    key = encryption()
    storage = place.open(key)
    fill(storage)
    storage.get("alice")
    _forge(place, _MARKS["encrypting"], record=True)
    with pytest.raises(StorageCorruptError):
        storage.get("alice")


def test_plain_records_are_refused_from_the_end_of_the_encryption_on(place: Place) -> None:
    plain = place.open()
    fill(plain)
    key = encryption()
    storage, beside = place.open(key), place.open(key)
    with plain_store_allowed():
        storage.set_encryption(ENCRYPTING)
    assert beside.get("alice") is not None  # reads the state "encrypting"
    encrypt_store(storage)
    _forge(place, lambda mark: mark, record=True)
    for handle in (storage, beside):
        with pytest.raises(StorageCorruptError, match="not encrypted"):
            handle.get("alice")
        assert handle.check()


def test_a_plain_record_that_was_smuggled_into_an_encrypted_file_is_damage(tmp_path: Path) -> None:
    key = encryption()
    place = Place("json", tmp_path)
    fill(place.open(key))
    path = tmp_path / "callers.json"
    content = orjson.loads(path.read_bytes())
    content["mallory"] = {"embedding": unit(9).tolist(), "metadata": {}}
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(StorageCorruptError, match="mallory"):
        place.open(key)


def test_a_redis_record_under_another_callers_key_is_damage() -> None:
    place = Place("redis", Path("/"))
    try:
        key = encryption()
        storage = place.open(key)
        storage.save_many([voiceprint("alice", 1), voiceprint("alicf", 2)])
        assert place._server is not None
        with place._server.client() as client:
            name = next(name for name in client.keys("*:c:*") if name.endswith(b"alice"))
            other = name.removesuffix(b"alice") + b"alicf"
            one, two = client.get(name), client.get(other)
            body = one[36:].replace(b'"alice"', b'"alicf"')
            head = one[:19]
            checksum = hashlib.sha1(head + body).hexdigest()[:16].encode()
            client.set(other, head + checksum + b"\n" + body)
            assert two != client.get(other)
        with pytest.raises(StorageCorruptError, match="does not open"):
            storage.get("alicf")
    finally:
        place.end()


def _snapshot(storage: Storage, path: Path) -> Gallery:
    gallery = Gallery(storage, SharedIndex("resemblyzer", 256, IndexSettings(str(path))))
    gallery.refresh()
    gallery.write_snapshot()
    assert path.exists()
    return gallery


def test_the_snapshot_is_encrypted_and_a_plain_one_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, path = encryption(), tmp_path / "callers.index"
    with SQLiteStorage(tmp_path / "callers.db", encryption=key) as storage:
        storage.save_many([voiceprint(f"caller-{n}", n) for n in range(50)])
        _snapshot(storage, path)
        raw = path.read_bytes()
        assert raw.startswith(b"VPINDEXS")
        assert not any(unit(n).astype("<f2").tobytes()[:16] in raw for n in range(50))
        shared = SharedIndex("resemblyzer", 256, IndexSettings(str(path)))
        with caplog.at_level("INFO"):
            Gallery(storage, shared).refresh()
        assert f"Read {path}, 50 vectors" in caplog.text
        broken = bytearray(raw)
        broken[len(raw) // 2] ^= 1
        path.write_bytes(broken)
        Gallery(storage, SharedIndex("resemblyzer", 256, IndexSettings(str(path)))).refresh()
        assert "cannot be used" in caplog.text
        path.unlink()
        index = VectorIndex(256)
        index.add([1], [unit(1)])
        index.save(path, stamp={"store": storage.identity()})
        assert unit(1).astype("<f2").tobytes() in path.read_bytes()
        Gallery(storage, SharedIndex("resemblyzer", 256, IndexSettings(str(path)))).refresh()
        assert not path.exists()
        assert "was not encrypted" in caplog.text


def test_the_search_finds_what_is_there_at_any_place_and_across_blocks(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        storage.save(voiceprint("alice", 1, metadata={"name": "Alice"}))
        caller = storage.get("alice")
        assert caller is not None
        search = Search()
        search.add(caller)
        noise = np.random.default_rng(0).bytes((8 << 20) + 100)
        for start, piece in (
            (0, unit(1).tobytes()),
            (3, unit(1).astype("<f2").tobytes()),
            ((8 << 20) - 13, unit(1).tobytes()),
            (len(noise), b'{"name":"Alice"}'),
        ):
            (tmp_path / "file").write_bytes(noise[:start] + piece + noise[start:])
            assert search.finds(storage, tmp_path / "file"), start
        (tmp_path / "file").write_bytes(noise)
        assert not search.finds(storage, tmp_path / "file")
        assert not search.finds(storage, tmp_path / "none")


def test_a_store_with_the_key_of_a_command_is_opened_by_every_recognizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voiceprint import OpusAgentVoiceRecognizer

    (tmp_path / "secret").write_text(text_key())
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY_COMMAND", f"cat {tmp_path / 'secret'}")
    monkeypatch.setenv("VOICE_STORAGE_PATH", str(tmp_path / "callers.json"))
    with OpusAgentVoiceRecognizer() as one:
        one.storage.save(voiceprint("alice", 1, metadata={"name": "Alice Liddell"}))
    assert b"Liddell" not in (tmp_path / "callers.json").read_bytes()
    with OpusAgentVoiceRecognizer() as other:
        assert other.storage.get("alice").metadata == {"name": "Alice Liddell"}
    assert subprocess.run(["grep", "-c", "Liddell", tmp_path / "callers.json"], check=False).returncode == 1


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_a_receipt_searches_for_the_wrapped_key_of_an_encrypted_caller(kind: str, tmp_path: Path) -> None:
    place = Place(kind, tmp_path)
    storage = place.open(encryption())
    fill(storage)
    wrapped = storage.data_key("alice")
    assert wrapped is not None
    forms = (wrapped, base64.b64encode(wrapped))
    assert any(form in place.raw() for form in forms)
    receipt = delete_with_receipt(storage, "alice")
    assert {each.state for each in receipt.places} == {"erased"}
    assert not any(form in place.raw() for form in forms)
    remaining = tmp_path / f"callers.{'db' if kind == 'sqlite' else 'json'}"
    assert str(remaining) in {each.place for each in receipt.places}
    assert storage.data_key("alice") is None
    place.end()


def test_a_receipt_names_a_file_with_the_wrapped_key_of_the_deleted_caller(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "callers.db", encryption=encryption()) as storage:
        storage.save(voiceprint("alice", 1))
        left = tmp_path / ".callers.db.abcdefgh.tmp"
        left.write_bytes(b"..." + (storage.data_key("alice") or b"none"))
        places = {each.place: each.state for each in delete_with_receipt(storage, "alice").places}
        assert places[str(left)] == "remains"


_ENCRYPTING = """
import os, signal, sys, threading
from encryption_keys import file_encryption
from voiceprint import SQLiteStorage
from voiceprint.privacy.encryption.conversion import {work}
path, key, page = sys.argv[1:4]
with SQLiteStorage(path, encryption=file_encryption(key)) as storage:
    reseal, calls = storage.reseal, []
    def killed(names):
        calls.append(names)
        if len(calls) > int(page):
            os.kill(os.getpid(), signal.SIGKILL)
        return reseal(names)
    storage.reseal = killed
    {work}(storage)
"""


def test_a_killed_encryption_and_a_killed_rotation_lose_nothing_and_go_on(tmp_path: Path) -> None:
    path, key = tmp_path / "callers.db", tmp_path / "key"
    new_key_file(key)
    with SQLiteStorage(path) as plain:
        plain.save_many([voiceprint(f"caller-{n}", n, metadata={"n": f"Liddell {n}"}) for n in range(1_300)])
        wanted = state(plain)

    def killed(work: str, page: int) -> None:
        script = _ENCRYPTING.replace("{work}", work)
        arguments = [sys.executable, "-c", script, str(path), str(key), str(page)]
        done = subprocess.run(arguments, cwd=Path(__file__).parents[1], check=False, capture_output=True)
        assert done.returncode == -9, done.stderr

    for work in (encrypt_store, rotate):
        if work is rotate:
            FileKeys(key).add()
        for page in (1, 0):
            killed(work.__name__, page)
            with SQLiteStorage(path, encryption=file_encryption(key)) as storage:
                assert state(storage) == wanted
        with SQLiteStorage(path, encryption=file_encryption(key)) as storage:
            assert work(storage).changed == 800
            assert state(storage) == wanted
            assert storage.check() == []
    assert b"Liddell" not in path.read_bytes()

"""Damaged keys are never trusted and never overwritten; what is derived from the records can be repaired."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from stores import Follower, state, unit, voiceprint

from voiceprint import RedisStorage, StorageCorruptError, Voiceprint
from voiceprint.storage.base import START
from voiceprint.storage.redis.format import decode_record
from voiceprint.storage.sealed_codec import StoreSeals

TAG = "{voiceprint:00}"
ALICE = f"{TAG}:c:alice"
SECRET = "born in 1970"
PLAIN = StoreSeals(None, lambda: "")


@pytest.fixture
def storage(client: redis.Redis) -> RedisStorage:
    storage = RedisStorage(client)
    simulated = [unit(9, 8), None, None, None]
    storage.save_many(
        Voiceprint(name, unit(n, 8), {"s": SECRET}, encoder="tiny", augmented=simulated[n])
        for n, name in enumerate(("alice", "bob", "alice", "gone"))
    )
    storage.delete("gone")
    return storage


def _dump(client: redis.Redis) -> dict[bytes, Any]:
    """All that the database holds, but for the ids that were taken and not used."""
    held: dict[bytes, Any] = {key: client.dump(key) for key in client.scan_iter()}
    if client.type(f"{TAG}:meta") == b"hash":
        held[f"{TAG}:meta".encode()] = {**client.hgetall(f"{TAG}:meta"), b"next_id": None}
    return held


def _assert_refused(storage: RedisStorage, client: redis.Redis) -> None:
    before = _dump(client)
    uses: list[Callable[[], Any]] = [
        lambda: storage.get("alice"),
        lambda: storage.touch("alice"),
        lambda: storage.delete("alice"),
        lambda: storage.save(Voiceprint("alice", unit(5, 8), encoder="tiny")),
        lambda: storage.callers(),
        lambda: list(storage.scan(encoder="tiny")),
        lambda: storage.get_many([1]),
        lambda: storage.callers_of([1]),
        lambda: storage.changes(START, encoder="tiny"),
    ]
    for use in uses:
        with pytest.raises(StorageCorruptError, match="alice") as caught:
            use()
        assert SECRET not in str(caught.value)
    findings = storage.check(fix=True)
    assert {
        (finding.code in ("corrupt", "wrong_type"), "alice" in finding.place) for finding in findings
    } == {(True, True)}
    assert _dump(client) == before
    assert storage.get("bob").metadata == {"s": SECRET}


def test_a_flipped_bit_anywhere_in_a_record_is_found(storage: RedisStorage, client: redis.Redis) -> None:
    value = client.get(ALICE)
    assert decode_record(value, "alice", ALICE, PLAIN).caller().metadata == {"s": SECRET}
    for at in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[at] ^= 1 << bit
            with pytest.raises(StorageCorruptError, match="alice"):
                decode_record(bytes(flipped), "alice", ALICE, PLAIN)


@pytest.mark.parametrize("at", [3, 20, 60, -1])
def test_a_record_with_a_flipped_bit_is_refused_by_every_method_and_left(
    storage: RedisStorage, client: redis.Redis, at: int
) -> None:
    value = bytearray(client.get(ALICE))
    value[at] ^= 4
    client.set(ALICE, bytes(value))
    _assert_refused(storage, client)


def test_a_record_cut_off_anywhere_is_found(storage: RedisStorage, client: redis.Redis) -> None:
    value = client.get(ALICE)
    for length in range(len(value)):
        with pytest.raises(StorageCorruptError, match="alice"):
            decode_record(value[:length], "alice", ALICE, PLAIN)


def _signed(client: redis.Redis, body: bytes) -> None:
    head = b"2 0000000000000001 "
    checksum = hashlib.sha1(head + body).hexdigest()[:16].encode()
    client.set(ALICE, head + checksum + b"\n" + body)


@pytest.mark.parametrize("at", [0, 8, 16])
@pytest.mark.parametrize("how", ["NaN", "infinite", "zero", "short", "long", "none"])
def test_embeddings_that_are_none_are_refused_whatever_the_checksum_says(
    storage: RedisStorage, client: redis.Redis, how: str, at: int
) -> None:
    body = client.get(ALICE)[36:]
    line, _, raw = body.partition(b"\n")
    vectors = np.frombuffer(raw, dtype="<f4").copy()
    assert vectors.size == 24  # two prints, the first with one for simulated lines
    if how in ("NaN", "infinite"):
        vectors[at + 3] = float(how[:3])
    elif how == "zero":
        vectors[at : at + 8] = 0
    raw = {"short": raw[:-4], "long": raw + b"1234", "none": b""}.get(how, vectors.tobytes())
    _signed(client, line + b"\n" + raw)
    _assert_refused(storage, client)


@pytest.mark.parametrize(
    "line", [b"", b"5", b"[]", b"{}", b'{"caller_id": "alice"}', b'{"caller_id": "bob", "voiceprints": []}',
             b'{"caller_id": "alice", "voiceprints": {}, "metadata": 1}', b"[" * 3000],
)  # fmt: skip
def test_a_record_that_says_something_else_is_refused(
    storage: RedisStorage, client: redis.Redis, line: bytes
) -> None:
    _signed(client, line + b"\n")
    _assert_refused(storage, client)


def test_another_type_under_a_callers_key_is_refused(storage: RedisStorage, client: redis.Redis) -> None:
    client.delete(ALICE)
    client.rpush(ALICE, "x")
    before = _dump(client)
    for use in (
        lambda: storage.get("alice"),
        lambda: storage.touch("alice"),
        lambda: storage.save(voiceprint("alice")),
        lambda: storage.callers(),
    ):
        with pytest.raises(StorageCorruptError):
            use()
    assert [finding.code for finding in storage.check()] == ["wrong_type"]
    assert _dump(client) == before


@pytest.mark.parametrize("name", ["meta", "names", "owners", "feed", "gone", "spaces"])
def test_another_type_under_a_key_of_the_store_changes_nothing(
    storage: RedisStorage, client: redis.Redis, name: str
) -> None:
    client.delete(f"{TAG}:{name}")
    client.set(f"{TAG}:{name}", "x")
    before = _dump(client)
    for use in (
        lambda: storage.save(Voiceprint("new", unit(1, 8), encoder="tiny")),
        lambda: storage.delete("alice"),
        lambda: storage.touch("alice"),
        lambda: storage.callers(),
        lambda: storage.changes(START),
    ):
        with pytest.raises(StorageCorruptError):
            use()
    assert _dump(client) == before
    if name != "meta":
        assert [(f.code, name in f.place) for f in storage.check(fix=True)] == [("wrong_type", True)]
    assert _dump(client) == before


@pytest.mark.parametrize("name", ["names", "owners", "feed", "gone", "spaces"])
def test_what_is_derived_is_repaired_from_the_records(
    storage: RedisStorage, client: redis.Redis, name: str
) -> None:
    follower = Follower("tiny")
    follower.assert_in_step(storage)
    before = state(storage)
    client.delete(f"{TAG}:{name}")
    if name == "gone":  # cannot be known again, and is not missed: it need not be there
        assert storage.check() == []
        return
    assert storage.check() != []
    assert storage.check(fix=True) == []
    assert storage.check() == []
    assert state(storage) == before
    follower.assert_in_step(storage)
    assert follower.rebuilds == 2
    storage.save(Voiceprint("new", unit(9, 8), encoder="tiny"))
    follower.assert_in_step(storage)
    assert storage.check() == []


def test_entries_that_no_record_has_are_removed_by_the_repair(
    storage: RedisStorage, client: redis.Redis
) -> None:
    before = state(storage)
    client.zadd(f"{TAG}:names", {"nobody": 0})
    client.hset(f"{TAG}:owners", "77", "nobody")
    client.zadd(f"{TAG}:feed", {"78": 1})
    client.hset(f"{TAG}:spaces", mapping={"n:lost": 5, "d:lost": 9})
    codes = {finding.code for finding in storage.check()}
    assert codes == {"not_there", "lookup_stray", "feed_stray", "wrong_count"}
    assert storage.check(fix=True) == []
    assert storage.check() == []
    assert state(storage) == before


def test_lost_counters_are_told_and_never_taken_for_an_empty_store(
    storage: RedisStorage, client: redis.Redis
) -> None:
    before = {name: record["metadata"] for name, record in state(storage).items()}
    ids = {print_.id for print_ in storage.get_all()}
    client.delete(f"{TAG}:meta")
    with pytest.raises(StorageCorruptError, match="counters"):
        storage.save(voiceprint("new"))
    assert [finding.code for finding in storage.check()] == ["counters_lost", "next_id_behind"]
    assert storage.check(fix=True) == []
    assert storage.save(voiceprint("new")).id not in ids
    assert {caller.caller_id for caller in storage.callers()} == {*before, "new"}
    assert storage.check() == []


def test_a_store_of_a_newer_version_is_refused(storage: RedisStorage, client: redis.Redis) -> None:
    client.hset(f"{TAG}:meta", "format", "4")
    for use in (lambda: RedisStorage(client), lambda: storage.save(voiceprint()), lambda: storage.callers()):
        with pytest.raises(StorageCorruptError, match="format"):
            use()


def test_check_reports_embeddings_of_several_lengths_in_one_space(
    storage: RedisStorage, client: redis.Redis
) -> None:
    body = b'{"caller_id":"alice","metadata":{},"created_at":null,"last_seen":null,"voiceprints":[{"id":1,'
    body += b'"created_at":null,"encoder":"tiny","revision":1,"size":9}]}\n'
    _signed(client, body + unit(1, 9).tobytes())
    (finding,) = [finding for finding in storage.check() if finding.code == "dimension"]
    assert finding.place == "the space 'tiny'"
    assert "have 8 values, and 1 of them another number (voiceprint 1 has 9)" in finding.message


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is listed and does not exist"),
        (b"", "holds no readable record"),
        (b"no line of JSON", "holds no readable record"),
        (b"2" * 35 + b"\n{}\n", "holds no readable record"),
        (b"2" * 35 + b"\n[1]\n", "holds no readable record"),
        (b"2" * 35 + b'\n{"voiceprints": [1]}\n', "holds no readable record"),
        (b"2" * 35 + b'\n{"voiceprints": [{"encoder": 7, "size": "x"}]}\n', "holds no readable record"),
    ],
    ids=str,
)
def test_the_coverage_refuses_a_damaged_record(
    storage: RedisStorage, client: redis.Redis, value: bytes | None, problem: str
) -> None:
    if value is None:
        client.delete(ALICE)
    else:
        client.set(ALICE, value)
    with pytest.raises(StorageCorruptError, match=f"alice.*{problem}"):
        storage.coverage()
